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

use super::layout::{GsoError, Layout};
use crate::buffer::{AnyPacket, Checksum, View};
use crate::header::checksum::{Place, write_at};
use crate::header::{Extensions, Tcp, ViewMut};

/// What the checksum field of a TCP packet holds when it is blank: the sum of the pseudo-header,
/// uncomplemented, with the length of TCP header and data, GSO or not.
///
/// The headers may be cut into fragments anywhere.
pub fn pseudo_sum<V: View>(packet: &AnyPacket<V>) -> Result<u16, GsoError> {
    let at = Layout::of_packet(packet)?;
    at.blank(at.data())
}

/// Makes the checksum of a TCP packet blank, whatever it was: for a packet that came with a GSO
/// size and without a blank checksum, and whose data the caller believes in. Refused, it is as it
/// was.
pub fn make_blank<V: ViewMut>(packet: &mut AnyPacket<V>) -> Result<(), GsoError> {
    let (field, value) = blank_field(packet)?;
    write_at(packet, field, value);
    packet.meta.checksum = Checksum::Blank;
    Ok(())
}

/// What [`make_blank`] would write, and where, for a packet that is not to be written in place.
pub fn blank_field<V: View>(packet: &AnyPacket<V>) -> Result<(usize, u16), GsoError> {
    let at = Layout::of_packet(packet)?;
    if packet.meta.gso.is_some_and(|gso| gso.kind != at.kind) {
        return Err(GsoError::NotTcp);
    }
    Ok((at.tcp + offset_of!(Tcp, checksum), at.blank(at.data())?))
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
    let bytes = &*frame;
    let (layout, place) = Place::of(bytes, bytes.len()).ok()?;
    let ip = layout.ip.filter(|ip| layout.tags == 0 && ip.extensions == Extensions::default())?;
    let place = place.filter(Place::can_be_blank)?;
    if place.covered.len() != ip.len() {
        return None;
    }
    let sum = place.pseudo(bytes, &layout)?;
    let field = frame.get_mut(place.field..)?.first_chunk_mut::<2>()?;
    if *field != [0; 2] {
        return None;
    }
    *field = sum.value().to_be_bytes();
    Some(())
}
