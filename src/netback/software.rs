//! What the client does not take, done here: blank checksums filled in, large packets cut.
//!
//! ```text
//!  blank    | headers, data | data |         the first fragment is written, or a copy of it if
//!                │                           somebody else reads it
//!                ▼
//!           | headers, data'| data |
//!
//!  large    | headers | data .......... |    headers are written anew for each segment, the data
//!                │                           is shared
//!                ▼
//!           | headers | data | , | headers | data | , ...
//! ```

use xen_grant::FramePool;

use super::refused::Refused;
use super::stats::Stats;
use crate::buffer::{Checksum, RxPacket, TxBuf, View};
use crate::features::Features;
use crate::header::checksum;
use crate::offload::{Segments, Stopped, Sums};

/// Fills in a blank checksum.
pub(super) fn fill(
    packet: RxPacket,
    pool: &FramePool,
    stats: &mut Stats,
) -> Result<RxPacket, Refused> {
    let (field, value) = checksum::blank_value(&packet).map_err(|_| Refused::Offload)?;
    let mut filled = RxPacket::new();
    filled.meta = packet.meta;
    filled.meta.checksum = Checksum::Complete;
    let fragments = packet.into_fragments().into_iter();
    let mut fragments = fragments.filter(|fragment| !fragment.is_empty());
    // The headers, and so the field, lie in the first one.
    let first = fragments.next().ok_or(Refused::Offload)?;
    let mut first = match first.try_into_tx() {
        Ok(alone) => alone,
        Err(shared) => {
            let mut copy = TxBuf::new(pool.take().ok_or(Refused::NoFrame)?, 0);
            let bytes = copy.append(shared.len()).ok_or(Refused::Offload)?;
            bytes.copy_from_slice(shared.bytes());
            stats.copied_bytes += shared.len() as u64;
            copy
        }
    };
    let place = first.bytes_mut().get_mut(field..).and_then(<[u8]>::first_chunk_mut);
    *place.ok_or(Refused::Offload)? = value.to_be_bytes();
    stats.sums_filled += 1;
    // As many as there were.
    for fragment in core::iter::once(first.freeze()).chain(fragments) {
        let _pushed = filled.push(fragment);
    }
    Ok(filled)
}

/// Cuts a large packet, and queues the segments until `queue` refuses one. That one is for the
/// caller to count, what comes after it is counted here.
pub(super) fn cut(
    packet: RxPacket,
    takes: Features,
    pool: &FramePool,
    stats: &mut Stats,
    mut queue: impl FnMut(RxPacket) -> Result<(), Refused>,
) -> Result<(), Refused> {
    let sums = if takes.takes_blank(packet.head()) { Sums::Blank } else { Sums::Fill };
    let mut segments = Segments::new(packet, sums).map_err(|_| Refused::Offload)?;
    stats.cut += 1;
    stats.segments += segments.remaining() as u64;
    while let Some(segment) = segments.cut(|| Some(TxBuf::new(pool.take()?, 0))) {
        let (queued, lost) = match segment {
            Ok(segment) => (queue(segment), segments.remaining()),
            Err(Stopped::NoMemory) => (Err(Refused::NoFrame), segments.remaining() - 1),
            Err(Stopped::NoRoom) => (Err(Refused::Offload), segments.remaining() - 1),
        };
        if let Err(why) = queued {
            *stats.to_drops.counter(why) += lost as u64;
            stats.copied_bytes += segments.copied().payload;
            return Err(why);
        }
    }
    stats.copied_bytes += segments.copied().payload;
    Ok(())
}
