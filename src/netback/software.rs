//! What the client does not take, done here: blank checksums filled in, large packets cut.
//!
//! ```text
//!  blank    | headers, data | data |         the fragment with the field is written, or a copy of
//!                │                           it if somebody else reads it
//!                ▼
//!           | headers, data'| data |
//!
//!  large    | headers | data .......... |    headers are written anew for each segment, the data
//!                │                           is shared
//!                ▼
//!           | headers | data | , | headers | data | , ...
//! ```

use xen_grant::FramePool;

use super::counters::Counters;
use super::error::DeliverErrorKind;
use crate::buffer::{Buf, BufMut, Packet};
use packet_views::buffer::{Checksum, View};
use packet_views::features::Features;
use packet_views::header::checksum::{self, ChecksumError};
use packet_views::offload::{CutError, Segments, Sums, blank_field};

/// Fills in a blank checksum, or says that there is none.
pub(super) fn fill(
    mut packet: Packet,
    pool: &FramePool,
    counters: &mut Counters,
) -> Result<Packet, DeliverErrorKind> {
    match checksum::blank_value(&packet) {
        Ok((field, value)) => {
            packet.meta.checksum = Checksum::Complete;
            let filled = write(packet, field, value, pool, counters)?;
            counters.sums_filled += 1;
            Ok(filled)
        }
        Err(ChecksumError::None) => {
            packet.meta.checksum = Checksum::Unknown;
            Ok(packet)
        }
        Err(_) => Err(DeliverErrorKind::Offload),
    }
}

/// Makes the checksum of a large packet blank, as that of every large packet is.
pub(super) fn blank(
    mut packet: Packet,
    pool: &FramePool,
    counters: &mut Counters,
) -> Result<Packet, DeliverErrorKind> {
    let (field, value) = blank_field(&packet).map_err(|_| DeliverErrorKind::Offload)?;
    packet.meta.checksum = Checksum::Blank;
    write(packet, field, value, pool, counters)
}

/// Writes a checksum field, which may lie in two fragments.
fn write(
    packet: Packet,
    mut field: usize,
    value: u16,
    pool: &FramePool,
    counters: &mut Counters,
) -> Result<Packet, DeliverErrorKind> {
    let mut written = Packet::new();
    written.meta = packet.meta;
    let mut value = &value.to_be_bytes()[..];
    for mut fragment in packet.into_fragments() {
        let len = fragment.len();
        if field < len && !value.is_empty() {
            let (now, rest) = value.split_at_checked(len - field).unwrap_or((value, &[]));
            let mut buf = own(fragment, pool, counters)?;
            let place = buf.bytes_mut().get_mut(field..field + now.len());
            place.ok_or(DeliverErrorKind::Offload)?.copy_from_slice(now);
            (fragment, value) = (buf.freeze(), rest);
        }
        field = field.saturating_sub(len);
        // As many as there were.
        let _pushed = written.push(fragment);
    }
    Ok(written)
}

/// A fragment to write: itself, or a copy if somebody else reads it.
fn own(
    fragment: Buf,
    pool: &FramePool,
    counters: &mut Counters,
) -> Result<BufMut, DeliverErrorKind> {
    fragment.try_into_mut().or_else(|shared| {
        let mut copy = BufMut::new(pool.take().ok_or(DeliverErrorKind::NoFrame)?, 0);
        let bytes = copy.append(shared.len()).ok_or(DeliverErrorKind::Offload)?;
        bytes.copy_from_slice(shared.bytes());
        counters.copied_bytes += shared.len() as u64;
        Ok(copy)
    })
}

/// What becomes of a packet that is cut.
pub(super) struct Segmented {
    pub(super) segments: usize,
    /// Fragments of all of them, at most: each has one of headers, one of data, and one more where the
    /// packet has a seam.
    pub(super) fragments: usize,
}

/// Looks what a packet will be cut into.
pub(super) fn segmented(packet: &Packet) -> Result<Segmented, DeliverErrorKind> {
    let plan = Segments::plan(packet).map_err(|_| DeliverErrorKind::Offload)?;
    let seams = packet.fragments().len().saturating_sub(1);
    Ok(Segmented { segments: plan.segments, fragments: 2 * plan.segments + seams })
}

/// Cuts a large packet, and queues the segments until `queue` refuses one. That one is for the
/// caller to count, what comes after it is counted here.
pub(super) fn cut(
    packet: Packet,
    takes: Features,
    pool: &FramePool,
    counters: &mut Counters,
    mut queue: impl FnMut(Packet) -> Result<(), DeliverErrorKind>,
) -> Result<(), DeliverErrorKind> {
    let sums = if takes.fills(&packet) { Sums::Blank } else { Sums::Fill };
    let mut segments = Segments::new(packet, sums).map_err(|_| DeliverErrorKind::Offload)?;
    counters.cut += 1;
    counters.segments += segments.remaining() as u64;
    while let Some(segment) = segments.cut(|| Some(BufMut::new(pool.take()?, 0))) {
        let (queued, lost) = match segment {
            Ok(segment) => (queue(segment), segments.remaining()),
            Err(CutError::NoMemory) => (Err(DeliverErrorKind::NoFrame), segments.remaining() - 1),
            Err(_) => (Err(DeliverErrorKind::Offload), segments.remaining() - 1),
        };
        if let Err(why) = queued {
            *counters.to_drops.counter(why) += lost as u64;
            counters.copied_bytes += segments.copied().payload;
            return Err(why);
        }
    }
    counters.copied_bytes += segments.copied().payload;
    Ok(())
}
