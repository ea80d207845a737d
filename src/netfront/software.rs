//! What a backend does not take, done in software before the packet is sent.
//!
//! ```text
//!   GSO         cut      a segment, a slot: headers and data in a page of its own
//!   fragments   gather   into one page, if they fit
//!   checksum    fill
//! ```

use xen_grant::Frame;

use super::budget::Budget;
use super::connection::Queues;
use super::stats::Stats;
use crate::buffer::{Checksum, TxBuf, TxPacket};
use crate::features::Features;
use crate::header::checksum::fill_blank;
use crate::offload::{Segments, Sums, make_blank};
use crate::wire::RING_SIZE;

/// Whether a packet is not as the backend takes it.
#[inline]
pub(super) fn is_needed(packet: &TxPacket, features: &Features) -> bool {
    let meta = packet.meta;
    packet.fragments().len() > features.max_fragments()
        || (meta.gso.is_some() && (meta.checksum != Checksum::Blank))
        || ((meta.checksum == Checksum::Blank || meta.gso.is_some())
            && !features.takes(meta, packet.head()))
}

/// Makes a packet as the backend takes it, of no more slots than it had. `None` if that can't be
/// done: it is counted.
#[cold]
#[inline(never)]
pub(super) fn fit(
    mut packet: TxPacket,
    features: &Features,
    alloc: impl FnOnce() -> Option<Frame>,
    stats: &mut Stats,
) -> Option<TxPacket> {
    if let Some(gso) = packet.meta.gso {
        let blank = packet.meta.checksum == Checksum::Blank;
        let sound = features.takes_gso(gso.kind) && (blank || make_blank(&mut packet).is_ok());
        if !sound {
            stats.tx_drops.no_gso += 1;
            return None;
        }
    }
    if packet.fragments().len() > features.max_fragments() {
        packet = gather(packet, alloc, stats)?;
    }
    if packet.meta.checksum == Checksum::Blank && !features.takes_blank(packet.head()) {
        if fill_blank(&mut packet).is_none() {
            stats.tx_drops.bad_checksum += 1;
            return None;
        }
        stats.tx_filled += 1;
    }
    Some(packet)
}

/// Puts a packet into one page.
fn gather(
    packet: TxPacket,
    alloc: impl FnOnce() -> Option<Frame>,
    stats: &mut Stats,
) -> Option<TxPacket> {
    let Some(frame) = alloc() else {
        stats.tx_drops.no_frame += 1;
        return None;
    };
    let (meta, len) = (packet.meta, packet.len());
    let mut one = TxBuf::new(frame, 0);
    let fits = one.append(len).and_then(|bytes| packet.copy_to_slice(bytes));
    if fits.is_none() {
        stats.tx_drops.too_many_slots += 1;
        return None;
    }
    stats.tx_gathered += 1;
    stats.copied_bytes += len as u64;
    let mut packet = TxPacket::from(one);
    packet.meta = meta;
    Some(packet)
}

/// The most slots that a large packet takes once it is cut: each segment its headers, and a
/// fragment more wherever the packet has a seam. `None` if a ring never has as many.
pub(super) fn slots_when_cut(packet: &TxPacket, features: &Features) -> Option<usize> {
    let gso = packet.meta.gso?;
    let segments = packet.len().div_ceil(usize::from(gso.size.get()));
    let seams = if features.scatter_gather { segments + packet.fragments().len() } else { 0 };
    Some(segments + seams).filter(|slots| *slots <= RING_SIZE)
}

/// Cuts a large packet for a backend that takes none, and puts the segments on the ring of their flow,
/// each of them as the backend takes it. What can't be sent is counted.
pub(super) fn cut(
    packet: TxPacket,
    features: &Features,
    queues: &mut Queues,
    budget: &mut Budget,
    stats: &mut Stats,
) {
    let sums = if features.takes_blank(packet.head()) { Sums::Blank } else { Sums::Fill };
    let Ok(mut segments) = Segments::new(packet, sums) else {
        stats.tx_drops.no_gso += 1;
        return;
    };
    stats.tx_cut += 1;
    while let Some(segment) = segments.cut(|| Some(TxBuf::new(queues.frame(budget)?, 0))) {
        let Ok(mut segment) = segment else { break };
        if segment.fragments().len() > features.max_fragments() {
            let Some(one) = gather(segment, || queues.frame(budget), stats) else { continue };
            segment = one;
        }
        // At most as long as the packet.
        let size = segment.len() as u16;
        queues.of_packet(&segment).tx.send(segment, size, stats);
    }
    stats.copied_bytes += segments.copied().payload;
    stats.tx_drops.no_frame += segments.remaining() as u64;
}
