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
//! The packet may be in fragments, cut anywhere, in the field too.

use core::mem::offset_of;
use core::ops::Range;

use super::{
    EtherType, HeaderError, Icmp, Layout, Pieces, Protocol, Tcp, U16, Udp, ViewMut, parts,
};
use crate::buffer::{AnyPacket, Checksum, View};

pub use super::sum::Sum;
pub(crate) use super::sum::plus;

/// What [`verify`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The checksum is right.
    Right,
    /// It is wrong, or the headers are malformed.
    Wrong,
    /// There is none to verify: not TCP, UDP or ICMP over IP, or a UDP checksum of 0 over IPv4, or
    /// a fragment of an IP packet. Or nobody can tell, for a routing header has segments left.
    None,
}

/// Why a blank checksum can't be filled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChecksumError {
    /// There is none: ARP, a fragment of an IP packet, UDP over IPv4 that says so. The packet may
    /// go without being called blank.
    None,
    /// It is neither TCP nor UDP over IP, so nobody knows where it is.
    Unknown,
    /// The packet's headers make no sense.
    Header(HeaderError),
}

impl core::fmt::Display for ChecksumError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            ChecksumError::None => f.write_str("the packet has no transport checksum"),
            ChecksumError::Unknown => f.write_str("the packet is neither TCP nor UDP over IP"),
            ChecksumError::Header(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for ChecksumError {}

/// Fills in the checksum of a packet of TCP or UDP over IPv4 or IPv6 whose state is
/// [`Checksum::Blank`]; it is [`Checksum::Complete`] then. A packet in another state is left alone.
///
/// `None`, and nothing happens, if it is no whole such packet or its lengths are wrong.
pub fn fill_blank<V: ViewMut>(packet: &mut AnyPacket<V>) -> Option<()> {
    if packet.meta.checksum == Checksum::Blank {
        let (field, value) = blank_value(packet).ok()?;
        write_at(packet, field, value);
        packet.meta.checksum = Checksum::Complete;
    }
    Some(())
}

/// Makes a packet one that is not blank: its checksum filled in, or known to be none; that is
/// [`Checksum::Unknown`] then, and the packet as it was.
pub fn settle_blank<V: ViewMut>(packet: &mut AnyPacket<V>) -> Result<(), ChecksumError> {
    packet.meta.checksum = match blank_value(packet) {
        Ok((field, value)) => {
            write_at(packet, field, value);
            Checksum::Complete
        }
        Err(ChecksumError::None) => Checksum::Unknown,
        Err(why) => return Err(why),
    };
    Ok(())
}

/// What [`fill_blank`] would write, for a packet that is not to be written in place: the place in
/// the packet, which may lie in two fragments, and the checksum.
pub fn blank_value<V: View>(packet: &AnyPacket<V>) -> Result<(usize, u16), ChecksumError> {
    let (_, place) = Place::of_blank(packet.fragments(), packet.len())?;
    let value = place.sum(packet, Sum::default()).checksum();
    if place.protocol == Protocol::UDP && value == 0 {
        // RFC 768: 0 would mean that there is none.
        return Ok((place.field, u16::MAX));
    }
    Ok((place.field, value))
}

/// Writes two bytes at a place in a packet.
pub(crate) fn write_at<V: ViewMut>(packet: &mut AnyPacket<V>, mut place: usize, value: u16) {
    let mut value = value.to_be_bytes().into_iter();
    for fragment in packet.fragments_mut() {
        let Some(bytes) = fragment.bytes_mut().get_mut(place..) else {
            place -= fragment.bytes().len();
            continue;
        };
        place = 0;
        // The two may lie in two fragments.
        let left = value.as_slice().len().min(bytes.len());
        bytes.iter_mut().zip(value.by_ref().take(left)).for_each(|(to, from)| *to = from);
    }
}

/// Verifies the transport checksum of a packet, whatever is known about it.
///
/// The field of a blank packet is no checksum yet: expect [`Verdict::Wrong`].
pub fn verify<V: View>(packet: &AnyPacket<V>) -> Verdict {
    let bytes = packet.fragments();
    let Ok((layout, place)) = Place::of(bytes, packet.len()) else { return Verdict::Wrong };
    let place = place.filter(|place| !place.is_none);
    let sum = place.and_then(|place| Some(place.sum(packet, place.pseudo(bytes, &layout)?)));
    match sum {
        None => Verdict::None,
        Some(sum) if sum.is_right() => Verdict::Right,
        Some(_) => Verdict::Wrong,
    }
}

/// Where a packet's transport checksum is, and what it covers.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) protocol: Protocol,
    /// From the transport header on, padding cut off.
    pub(crate) covered: Range<usize>,
    /// The first of the two bytes.
    pub(crate) field: usize,
    /// It is UDP that says it has no checksum, as it may over IPv4 (RFC 768).
    is_none: bool,
}

impl Place {
    /// The place of a checksum that is blank, in a packet of `len` bytes that begins with these.
    #[inline]
    pub(crate) fn of_blank<P: Pieces + ?Sized>(
        bytes: &P,
        len: usize,
    ) -> Result<(Layout, Place), ChecksumError> {
        let (layout, place) = Place::of(bytes, len).map_err(ChecksumError::Header)?;
        let is_part = layout.ip.is_some_and(|ip| ip.part.is_some());
        match place.filter(Place::can_be_blank) {
            Some(place) if !place.is_none => Ok((layout, place)),
            None if !is_part && layout.kind != EtherType::ARP => Err(ChecksumError::Unknown),
            Some(_) | None => Err(ChecksumError::None),
        }
    }

    /// Reads the headers of a packet of `len` bytes that begins with these. There is no place if it
    /// has no field for a checksum, or is not whole.
    #[inline]
    pub(crate) fn of<P: Pieces + ?Sized>(
        bytes: &P,
        len: usize,
    ) -> Result<(Layout, Option<Place>), HeaderError> {
        let layout = Layout::at_start(bytes, len)?;
        let Some(ip) = layout.ip.filter(|ip| ip.part.is_none()) else { return Ok((layout, None)) };
        let (header, mut len, mut is_none) = (ip.transport, ip.len(), false);
        let field = match ip.protocol {
            Protocol::TCP => {
                ip.tcp(bytes)?;
                offset_of!(Tcp, checksum)
            }
            Protocol::UDP => {
                let udp: Udp = bytes.read(header).ok_or(HeaderError::Short)?;
                let own = usize::from(udp.len.get());
                if !(size_of::<Udp>()..=len).contains(&own) {
                    return Err(HeaderError::BadLength);
                }
                len = own;
                is_none = ip.v4 && udp.checksum == U16::ZERO;
                offset_of!(Udp, checksum)
            }
            Protocol::ICMP if ip.v4 => offset_of!(Icmp, checksum),
            Protocol::ICMPV6 if !ip.v4 => offset_of!(Icmp, checksum),
            _ => return Ok((layout, None)),
        };
        if len < size_of::<Udp>() {
            return Err(HeaderError::Short);
        }
        let (covered, field) = (header..header + len, header + field);
        Ok((layout, Some(Place { protocol: ip.protocol, covered, field, is_none })))
    }

    /// Whether the checksum can be left blank: that of TCP and UDP.
    #[inline]
    pub(crate) fn can_be_blank(&self) -> bool {
        matches!(self.protocol, Protocol::TCP | Protocol::UDP)
    }

    /// The sum of the pseudo-header, of ICMP over IPv4, which has none, zero; `None` if the
    /// destination in IP's header is not the last.
    #[inline]
    pub(crate) fn pseudo<P: Pieces + ?Sized>(&self, bytes: &P, layout: &Layout) -> Option<Sum> {
        match self.protocol {
            Protocol::ICMP => Some(Sum::default()),
            _ => layout.pseudo(bytes, self.covered.len()),
        }
    }

    /// `sum` and the bytes covered.
    fn sum<V: View>(&self, packet: &AnyPacket<V>, mut sum: Sum) -> Sum {
        let covered = parts(packet.fragments(), self.covered.start, self.covered.len());
        covered.for_each(|bytes| sum.add(bytes));
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
