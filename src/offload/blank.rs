//! Blank checksums for packets that came without.
//!
//! A packet with a GSO size always leaves the checksum to whoever cuts it; the field holds the sum
//! of the pseudo-header, with the length of the whole packet. Peers forget to say so:
//!
//! ```text
//!   | Ethernet | IP | TCP ... checksum := pseudo-header sum of all of | TCP | data | ... |
//! ```

use super::layout::{Front, Layout, Refusal};
use crate::buffer::{Checksum, Packet, View};
use crate::header::{Tcp, ViewMut};

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
    Ok(Place { field: at.tcp + core::mem::offset_of!(Tcp, checksum), value: pseudo.value() })
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
