//! Blank checksums for packets that came without.
//!
//! A packet with a GSO size always leaves the checksum to whoever cuts it; the field holds the sum
//! of the pseudo-header, with the length of the whole packet. Peers forget to say so. And a stack
//! that does not sum leaves zeros where the same is due:
//!
//! ```text
//!   | Ethernet | IP | TCP ... checksum := pseudo-header sum of all of | TCP | data | ... |
//! ```

use core::mem::offset_of;

use zerocopy::FromBytes;

use super::layout::{Front, Layout, Refusal};
use crate::buffer::{Checksum, Packet, View};
use crate::header::checksum::Sum;
use crate::header::{
    ETHERNET_HEADER, EtherType, Ethernet, Ipv4, Ipv6, Protocol, Tcp, Udp, ViewMut,
};

/// Where a TCP checksum is, and what it holds when it is blank.
struct Place {
    field: usize,
    value: u16,
}

fn place<V: View>(packet: &Packet<V>) -> Result<Place, Refusal> {
    let front = Front::of(packet);
    let at = Layout::of(front.bytes(), packet.len())?;
    if packet.meta.gso.is_some_and(|gso| gso.kind != at.kind) {
        return Err(Refusal::NotTcp);
    }
    let pseudo = at.pseudo(front.bytes(), at.data()).ok_or(Refusal::BadLength)?;
    Ok(Place { field: at.tcp + offset_of!(Tcp, checksum), value: pseudo.value() })
}

/// What the checksum field of a TCP packet holds when it is blank: the sum of the pseudo-header,
/// uncomplemented, with the length of TCP header and data, GSO or not.
///
/// The headers may be cut into fragments anywhere.
pub fn pseudo_sum<V: View>(packet: &Packet<V>) -> Result<u16, Refusal> {
    Ok(place(packet)?.value)
}

/// Makes the checksum of a TCP packet blank, whatever it was: for a packet that came with a GSO
/// size and without a blank checksum, and whose data the caller believes in. Refused, it is as it
/// was.
pub fn make_blank<V: ViewMut>(packet: &mut Packet<V>) -> Result<(), Refusal> {
    let Place { mut field, value } = place(packet)?;
    let mut value = value.to_be_bytes().into_iter();
    for fragment in packet.fragments_mut() {
        let Some(bytes) = fragment.bytes_mut().get_mut(field..) else {
            field -= fragment.bytes().len();
            continue;
        };
        field = 0;
        // The field may itself be cut in two.
        let left = value.as_slice().len().min(bytes.len());
        bytes.iter_mut().zip(value.by_ref().take(left)).for_each(|(to, from)| *to = from);
    }
    packet.meta.checksum = Checksum::Blank;
    Ok(())
}

/// For a stack that computes no checksum of TCP and UDP and leaves zeros: makes the checksum of a
/// frame blank, if it is one of these over IPv4 or IPv6. Returns the checksum's state:
/// [`Checksum::Blank`], or [`Checksum::Unknown`] for any other frame, which is as it was.
///
/// Others are those with VLAN tags or IPv6 extension headers, fragments of IP packets (zero means
/// "none" in a datagram of UDP over IPv4, and no receiver could tell what else was meant), lengths
/// that make no sense, and a checksum that is not zero: somebody has summed already.
#[inline]
pub fn leave_blank(frame: &mut [u8]) -> Checksum {
    match blank_zero(frame) {
        Some(()) => Checksum::Blank,
        None => Checksum::Unknown,
    }
}

#[inline]
fn blank_zero(frame: &mut [u8]) -> Option<()> {
    let (ethernet, network) = Ethernet::ref_from_prefix(frame).ok()?;
    let (protocol, header, len, sum) = match ethernet.kind {
        EtherType::IPV4 => {
            let (ip, _) = Ipv4::ref_from_prefix(network).ok()?;
            let header = ip.header_len();
            if ip.version_ihl >> 4 != 4 || header < size_of::<Ipv4>() || ip.is_fragment() {
                return None;
            }
            let len = ip.total_len.get().checked_sub(header as u16)?;
            let sum = Sum::pseudo_v4(ip.source, ip.destination, ip.protocol.0, len);
            (ip.protocol, header, len, sum)
        }
        EtherType::IPV6 => {
            let (ip, _) = Ipv6::ref_from_prefix(network).ok()?;
            if ip.version_class_flow.get() >> 28 != 6 {
                return None;
            }
            let len = ip.payload_len.get();
            let sum = Sum::pseudo_v6(ip.source, ip.destination, ip.next_header.0, len.into());
            (ip.next_header, size_of::<Ipv6>(), len, sum)
        }
        _ => return None,
    };
    let transport = frame.get_mut(ETHERNET_HEADER + header..)?.get_mut(..usize::from(len))?;
    let field = match protocol {
        Protocol::TCP => {
            let header = Tcp::ref_from_prefix(transport).ok()?.0.header_len();
            if header < size_of::<Tcp>() || header > transport.len() {
                return None;
            }
            offset_of!(Tcp, checksum)
        }
        Protocol::UDP => {
            if Udp::ref_from_prefix(transport).ok()?.0.len.get() != len {
                return None;
            }
            offset_of!(Udp, checksum)
        }
        _ => return None,
    };
    let field = transport.get_mut(field..)?.first_chunk_mut::<2>()?;
    if *field != [0; 2] {
        return None;
    }
    *field = sum.value().to_be_bytes();
    Some(())
}
