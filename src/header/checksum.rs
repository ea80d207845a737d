//! Transport checksums of whole packets: complete, verify, keep right.
//!
//! A packet's [`Checksum`] says which of three states its transport checksum is in. Blank means
//! that the field holds the sum of the pseudo-header, uncomplemented; adding up everything from
//! the transport header on, that field included, then gives the checksum:
//!
//! ```text
//!   | Ethernet | IPv4 | TCP ...  field = pseudo-header sum  ... | data        | padding |
//!                     `────────────── sum these ─────────────────────────────'
//!                                field := complement of the sum
//! ```
//!
//! The headers must lie in one piece, as everywhere here; the data may be in fragments, cut
//! anywhere.

use core::mem::offset_of;
use core::ops::Range;

use super::source::Head;
use super::sum::plus;
use super::{At, Icmp, Network, Protocol, Source, Tcp, Transport, U16, Udp, ViewMut};
use crate::buffer::{Checksum, Packet, View};

pub use super::sum::Sum;

/// What [`verify`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The checksum is right.
    Right,
    /// It is wrong, or the headers are malformed.
    Wrong,
    /// There is none to verify: not TCP, UDP or ICMP over IP, or a UDP checksum of 0 over IPv4, or
    /// a fragment of an IP packet.
    None,
}

/// Fills in the checksum of a packet of TCP or UDP over IPv4 or IPv6 whose state is
/// [`Checksum::Blank`]; it is [`Checksum::Complete`] then. A packet in another state is left alone.
///
/// `None`, and nothing happens, if it is no whole such packet or its lengths are wrong.
pub fn fill_blank<V: ViewMut>(packet: &mut Packet<V>) -> Option<()> {
    if packet.meta.checksum != Checksum::Blank {
        return Some(());
    }
    let (field, value) = blank_value(packet)?;
    let mut pieces = packet.fragments_mut().iter_mut().map(ViewMut::bytes_mut);
    let head = pieces.find(|bytes| !bytes.is_empty())?;
    *head.get_mut(field..)?.first_chunk_mut()? = value.to_be_bytes();
    packet.meta.checksum = Checksum::Complete;
    Some(())
}

/// What [`fill_blank`] would write, for a packet that is not to be written in place: the place,
/// within the first fragment that is not empty, and the checksum.
pub fn blank_value<V: View>(packet: &Packet<V>) -> Option<(usize, u16)> {
    let place = Place::of(packet).ok()?;
    if !matches!(place.protocol, Protocol::TCP | Protocol::UDP) {
        return None;
    }
    let value = place.sum(packet, Sum::default()).checksum();
    if place.protocol == Protocol::UDP && value == 0 {
        // RFC 768: 0 would mean that there is none.
        return Some((place.field, u16::MAX));
    }
    Some((place.field, value))
}

/// Verifies the transport checksum of a packet, whatever is known about it.
///
/// The field of a blank packet is no checksum yet: expect [`Verdict::Wrong`].
pub fn verify<V: View>(packet: &Packet<V>) -> Verdict {
    match Place::of(packet) {
        Err(verdict) => verdict,
        Ok(place) if place.sum(packet, place.pseudo).is_right() => Verdict::Right,
        Ok(_) => Verdict::Wrong,
    }
}

/// Where a packet's transport checksum is, and what it covers.
struct Place {
    protocol: Protocol,
    /// Of ICMP over IPv4, which has none, zero.
    pseudo: Sum,
    /// From the transport header on, padding cut off.
    covered: Range<usize>,
    /// The first of the two bytes.
    field: usize,
}

impl Place {
    fn of<V: View>(packet: &Packet<V>) -> Result<Place, Verdict> {
        let frame = At::new(Head::of(packet));
        match frame.open().ok_or(Verdict::Wrong)?.1 {
            Network::Ipv4(ip) => {
                let (ip, transport) = ip.open().ok_or(Verdict::Wrong)?;
                Place::within(transport, true, |protocol, len| {
                    Sum::pseudo_v4(ip.source, ip.destination, protocol.0, len)
                })
            }
            Network::Ipv6(ip) => {
                let (ip, transport) = ip.open().ok_or(Verdict::Wrong)?;
                Place::within(transport, false, |protocol, len| {
                    Sum::pseudo_v6(ip.source, ip.destination, protocol.0, u32::from(len))
                })
            }
            _ => Err(Verdict::None),
        }
    }

    fn within(
        transport: Transport<Head<'_>>,
        v4: bool,
        pseudo: impl Fn(Protocol, u16) -> Sum,
    ) -> Result<Place, Verdict> {
        let wrong = Verdict::Wrong;
        let (protocol, head, len, field) = match transport {
            Transport::Tcp(tcp) => {
                let head = tcp.into_view();
                tcp.open().ok_or(wrong)?;
                (Protocol::TCP, head, head.len(), offset_of!(Tcp, checksum))
            }
            Transport::Udp(udp) => {
                let head = udp.into_view();
                let (header, _) = udp.open().ok_or(wrong)?;
                if v4 && header.checksum == U16::ZERO {
                    return Err(Verdict::None);
                }
                (Protocol::UDP, head, header.len.get().into(), offset_of!(Udp, checksum))
            }
            Transport::Icmp(icmp) if v4 => {
                let head = icmp.into_view();
                icmp.open().ok_or(wrong)?;
                (Protocol::ICMP, head, head.len(), offset_of!(Icmp, checksum))
            }
            Transport::Icmpv6(icmp) if !v4 => {
                let head = icmp.into_view();
                icmp.open().ok_or(wrong)?;
                (Protocol::ICMPV6, head, head.len(), offset_of!(Icmp, checksum))
            }
            _ => return Err(Verdict::None),
        };
        // What IP carries has at most 65535 bytes.
        let len = u16::try_from(len).map_err(|_| wrong)?;
        let pseudo = match protocol {
            Protocol::ICMP => Sum::default(),
            _ => pseudo(protocol, len),
        };
        let covered = head.offset..head.offset + usize::from(len);
        Ok(Place { protocol, pseudo, covered, field: head.offset + field })
    }

    /// `sum` and the bytes covered.
    fn sum<V: View>(&self, packet: &Packet<V>, mut sum: Sum) -> Sum {
        let (mut before, mut left) = (self.covered.start, self.covered.len());
        for fragment in packet.fragments() {
            let bytes = fragment.bytes();
            let Some(bytes) = bytes.get(before..) else {
                before -= bytes.len();
                continue;
            };
            before = 0;
            let bytes = bytes.get(..left).unwrap_or(bytes);
            sum.add(bytes);
            left -= bytes.len();
        }
        sum
    }
}

/// Keeps a complete checksum right when bytes that it covers change from `old` to `new`
/// (RFC 1624, equation 3). Both start at an even place in the packet and have the same, even
/// length.
#[inline]
pub fn update(field: &mut U16, old: &[u8], new: &[u8]) {
    let sum = plus(!field.get(), !Sum::of(old).value());
    field.set(!plus(sum, Sum::of(new).value()));
}

/// [`update`] for UDP: a checksum of 0, which is none, stays 0, and no other becomes 0.
#[inline]
pub fn update_udp(field: &mut U16, old: &[u8], new: &[u8]) {
    if field.get() != 0 {
        update(field, old, new);
        if field.get() == 0 {
            field.set(u16::MAX);
        }
    }
}

/// [`update`] for a blank checksum: only for changes to the pseudo-header, that is addresses, for
/// nothing else has been summed yet.
#[inline]
pub fn update_blank(field: &mut U16, old: &[u8], new: &[u8]) {
    let sum = plus(field.get(), !Sum::of(old).value());
    field.set(plus(sum, Sum::of(new).value()));
}
