//! What a backend does not take, done in software before the packet is sent.
//!
//! ```text
//!   GSO         cut      a segment, a slot: headers and data in a page of its own
//!   fragments   gather   into one page, if they fit
//!               lead     the Ethernet header into the first slot, no slot without bytes
//!   checksum    fill     or, where there is none, not called blank
//! ```

use xen_grant::{Frame, PAGE_SIZE};

use super::budget::Budget;
use super::counters::Counters;
use super::queues::Queues;
use crate::buffer::{BufMut, MixedPacket, PacketMut};
use crate::wire::RING_SIZE;
use packet_views::buffer::{AnyPacket, Checksum, Fragment, View};
use packet_views::device::{SendError, SendErrorKind};
use packet_views::features::Features;
use packet_views::header::ETHERNET_HEADER;
use packet_views::header::checksum::settle_blank;
use packet_views::offload::{GsoError, Segments, Sums, make_blank};

/// Whether a packet, which has an Ethernet header, is not as the backend takes it.
#[inline]
pub(super) fn is_needed<V: View>(packet: &AnyPacket<V>, features: &Features) -> bool {
    let (meta, fragments) = (packet.meta, packet.fragments());
    (fragments.len() > 1 && is_badly_cut(packet, features))
        || (meta.gso.is_some() && meta.checksum != Checksum::Blank)
        || !features.takes_packet(packet)
}

/// Linux's backend answers with an error unless the Ethernet header lies in the first slot, and a
/// slot without bytes is a waste of one.
fn is_badly_cut<V: View>(packet: &AnyPacket<V>, features: &Features) -> bool {
    packet.fragments().len() > features.max_fragments()
        || packet.head().len() < ETHERNET_HEADER
        || packet.fragments().iter().any(|fragment| fragment.bytes().is_empty())
}

/// Makes a packet as the backend takes it, of no more slots than it had.
#[cold]
#[inline(never)]
pub(super) fn fit(
    mut packet: PacketMut,
    features: &Features,
    mut alloc: impl FnMut() -> Option<Frame>,
    counters: &mut Counters,
) -> Result<PacketMut, SendErrorKind> {
    if packet.meta.gso.is_some() {
        if packet.meta.checksum != Checksum::Blank {
            make_blank(&mut packet).map_err(SendErrorKind::Gso)?;
        }
        if !features.takes_packet(&packet) {
            return Err(SendErrorKind::NoGso);
        }
    } else if !features.takes_packet(&packet) {
        settle_blank(&mut packet).map_err(SendErrorKind::Checksum)?;
        counters.tx_filled += u64::from(packet.meta.checksum == Checksum::Complete);
    }
    packet.drop_empty();
    if packet.fragments().len() > features.max_fragments() {
        gather(packet, &mut alloc, counters)
    } else {
        lead(packet, &mut alloc, counters)
    }
}

/// Makes a packet, of which others read some, as its backend may see it: a shared fragment whose page
/// holds anything else that the backend must not see is copied. Without a page for that the packet comes
/// back.
#[expect(clippy::result_large_err, reason = "the packet comes back, not an error")]
pub(super) fn show(
    mut packet: MixedPacket,
    queues: &mut Queues,
    budget: &mut Budget,
    counters: &mut Counters,
) -> Result<MixedPacket, SendError<MixedPacket>> {
    for number in 0..packet.fragments().len() {
        let tx = &queues.first.tx;
        let Some(Fragment::Shared(buf)) = packet.fragments().get(number) else { continue };
        if tx.can_show(buf) {
            continue;
        }
        let copy = queues.frame(budget).and_then(|frame| {
            let mut copy = BufMut::new(frame, 0);
            copy.append(buf.len())?.copy_from_slice(buf.bytes());
            Some(copy)
        });
        let Some(copy) = copy else { return Err(SendError::Full(packet)) };
        counters.copied_bytes += copy.len() as u64;
        if let Some(fragment) = packet.fragments_mut().get_mut(number) {
            *fragment = Fragment::Own(copy);
        }
    }
    Ok(packet)
}

/// Puts a packet into one page.
fn gather(
    packet: PacketMut,
    alloc: &mut impl FnMut() -> Option<Frame>,
    counters: &mut Counters,
) -> Result<PacketMut, SendErrorKind> {
    let mut one = BufMut::new(alloc().ok_or(SendErrorKind::NoMemory)?, 0);
    let (meta, len) = (packet.meta, packet.len());
    let bytes = one.append(len).ok_or(SendErrorKind::TooManyFragments)?;
    packet.copy_to_slice(bytes);
    counters.tx_gathered += 1;
    counters.copied_bytes += len as u64;
    let mut packet = PacketMut::from(one);
    packet.meta = meta;
    Ok(packet)
}

/// Puts the Ethernet header, and no more, into the first fragment, or into one in its place if it
/// has no room behind.
fn lead(
    packet: PacketMut,
    alloc: &mut impl FnMut() -> Option<Frame>,
    counters: &mut Counters,
) -> Result<PacketMut, SendErrorKind> {
    let Some(missing) = ETHERNET_HEADER.checked_sub(packet.head().len()).filter(|it| *it > 0)
    else {
        return Ok(packet);
    };
    let meta = packet.meta;
    let mut fragments = packet.into_fragments();
    let mut head = fragments.pop_at(0).ok_or(SendErrorKind::TooShort)?;
    if head.tailroom() < missing {
        let mut other = BufMut::new(alloc().ok_or(SendErrorKind::NoMemory)?, 0);
        counters.copied_bytes += head.len() as u64;
        append(&mut other, &mut head, ETHERNET_HEADER);
        head = other;
    }
    counters.copied_bytes += missing as u64;
    for fragment in &mut fragments {
        let missing = ETHERNET_HEADER.saturating_sub(head.len());
        append(&mut head, fragment, missing);
    }
    let mut packet = PacketMut::from(head);
    packet.meta = meta;
    for fragment in fragments {
        if !fragment.is_empty() {
            // As many as there were, at most.
            let _pushed = packet.push(fragment);
        }
    }
    Ok(packet)
}

/// Moves up to `most` bytes from the front of one buffer to the end of another with as much room.
fn append(to: &mut BufMut, from: &mut BufMut, most: usize) {
    let now = from.len().min(most);
    if let (Some(room), Some(bytes)) = (to.append(now), from.bytes_mut().get(..now)) {
        room.copy_from_slice(bytes);
        let _there = from.pull_front(now);
    }
}

/// The most slots that a large packet takes once it is cut: each segment its headers and what is
/// copied behind them, and a fragment more wherever the packet has a seam. `longest` is a frame.
pub(super) fn slots_when_cut(
    packet: &PacketMut,
    features: &Features,
    longest: usize,
) -> Result<usize, SendErrorKind> {
    let plan = Segments::plan(packet).map_err(SendErrorKind::Gso)?;
    if plan.longest > longest {
        return Err(SendErrorKind::TooLong);
    }
    let slots = if features.scatter_gather {
        plan.segments * plan.longest.div_ceil(PAGE_SIZE) + packet.fragments().len()
    } else {
        plan.segments
    };
    if slots > RING_SIZE { Err(SendErrorKind::Gso(GsoError::TooMany)) } else { Ok(slots) }
}

/// Cuts a large packet for a backend that takes no such, and puts the segments on the ring of their
/// flow, each of them as the backend takes it. What can't be sent is counted.
pub(super) fn cut(
    packet: PacketMut,
    features: &Features,
    queues: &mut Queues,
    budget: &mut Budget,
    counters: &mut Counters,
) -> Result<(), SendErrorKind> {
    let sums = if features.fills(&packet) { Sums::Blank } else { Sums::Fill };
    let mut segments =
        Segments::new(packet, sums).map_err(|(why, _)| counters.unsent(SendErrorKind::Gso(why)))?;
    counters.tx_cut += 1;
    let mut result = Ok(());
    while let Some(segment) = segments.cut(|| Some(BufMut::new(queues.frame(budget)?, 0))) {
        let Ok(mut segment) = segment else { break };
        if segment.fragments().len() > features.max_fragments() {
            match gather(segment, &mut || queues.frame(budget), counters) {
                Ok(one) => segment = one,
                Err(why) => {
                    result = Err(counters.unsent(why));
                    continue;
                }
            }
        }
        // At most as long as the longest frame.
        let size = segment.len() as u16;
        queues.of_packet(&segment).tx.send(segment, size, counters);
    }
    counters.copied_bytes += segments.copied().payload;
    for _ in 0..segments.remaining() {
        result = Err(counters.unsent(SendErrorKind::NoMemory));
    }
    result
}
