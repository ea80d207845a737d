//! From the client: takes packets off its transmit ring and copies them into frames of ours.
//!
//! ```text
//!  ring:     | A      | B  B  B          | C | ...          one pass: parse, then write operations
//!  client:   [page]   [page][page][page]  ...
//!               \         \   |    /
//!  ours:     |headroom|A   ] |headroom|B B B   ][ B ]       dense, headers in one piece
//! ```
//!
//! A batch of packets goes out in one hypercall (`GNTTABOP_copy`, xen/grant_table.h). No operation
//! may cross the end of a page on either side, so a packet takes an operation for each fragment
//! and one more for each page of ours that ends within a fragment: at most 34. Every operation's
//! own status decides about its packet. Every slot taken is answered, in the order of the ring.

use alloc::collections::TryReserveError;
use alloc::vec::Vec;

use xen_grant::{CopyIn, DomId, Foreign, ForeignPage, Frame, FramePool, PAGE_SIZE};
use xen_ring::{BackRing, Notify};

use super::counters::{Counters, FromClientDrop};
use super::fault::Fault;
use super::parse::{Answer, Bad, Chain, read};
use crate::buffer::{BufMut, PacketMut};
use crate::platform::BackendPlatform;
use crate::ring_page::Shared;
use crate::wire::{MAX_PACKET, MAX_SLOTS, RING_SIZE, Status, TxResponse, TxRing};
use packet_views::buffer::{Checksum, Meta};
use packet_views::features::Features;
use packet_views::offload::make_blank;

/// Packets in a hypercall.
pub(super) const BATCH_PACKETS: usize = 64;
/// Copy operations in a hypercall.
pub(super) const BATCH_OPS: usize = 256;
/// The most headroom: headers still have half a page in one piece.
pub(super) const MAX_HEADROOM: usize = PAGE_SIZE / 2;

/// Pages that the largest packet takes, and a fragment each.
const MAX_FRAMES: usize = (MAX_PACKET + MAX_HEADROOM).div_ceil(PAGE_SIZE);
/// Operations that the largest packet takes.
const MAX_OPS: usize = MAX_SLOTS + MAX_FRAMES - 1;
const _: () = assert!(MAX_FRAMES <= MAX_SLOTS && MAX_OPS == 34);

/// The work that a budget counts in, as bytes: what a packet of one slot and 1514 bytes takes.
pub(super) const UNIT: usize = 2560;
/// What an operation, or a slot, costs besides its bytes.
const OVERHEAD: usize = 1024;

/// A packet between being read and being answered. Ends count from the start of the batch.
struct Staged {
    slots_end: u16,
    ops_end: u16,
    total: u16,
    /// Whether it is handed up, as far as is known.
    copied: Result<(), FromClientDrop>,
    meta: Meta,
}

/// A batch on its way.
pub(super) struct Scratch {
    /// The packet that is being read.
    chain: Chain,
    answers: Vec<Answer>,
    staged: Vec<Staged>,
    copy: CopyIn,
}

impl Scratch {
    pub(super) fn new() -> Scratch {
        let (answers, staged, copy) = (Vec::new(), Vec::new(), CopyIn::default());
        Scratch { chain: Chain::new(), answers, staged, copy }
    }

    pub(super) fn reserve(&mut self) -> Result<(), TryReserveError> {
        self.clear();
        self.answers.try_reserve_exact(RING_SIZE)?;
        self.staged.try_reserve_exact(BATCH_PACKETS)?;
        self.copy.try_reserve(BATCH_OPS, BATCH_OPS)
    }

    /// Whatever became of the batch before: it may have been another client's.
    #[inline]
    fn clear(&mut self) {
        self.staged.clear();
        self.answers.clear();
        if self.copy.frames() > 0 {
            self.copy.truncate(0, 0);
        }
    }

    /// The operations that bring the chain into frames, densely from the headroom on. `None` if
    /// the pool is empty.
    #[inline]
    fn write_ops(
        &mut self,
        (client, headroom): (DomId, usize),
        frame: &mut impl FnMut() -> Option<Frame>,
    ) -> Option<()> {
        self.copy.frame(frame()?);
        if let [only] = self.chain.extents.as_slice() {
            // The usual packet.
            let (end, offset) = (headroom + usize::from(only.size), only.offset);
            if end <= PAGE_SIZE && only.size > 0 {
                let from = Foreign { domain: client, gref: only.gref, offset };
                return self.copy.push(from, headroom..end).ok();
            }
        }
        let mut at = headroom;
        for extent in &self.chain.extents {
            let mut from = Foreign { domain: client, gref: extent.gref, offset: extent.offset };
            let mut left = usize::from(extent.size);
            // One without bytes needs no operation.
            while left > 0 {
                if at == PAGE_SIZE {
                    self.copy.frame(frame()?);
                    at = 0;
                }
                let len = left.min(PAGE_SIZE - at);
                self.copy.push(from, at..at + len).ok()?;
                // Both within a page.
                from.offset += len as u16;
                at += len;
                left -= len;
            }
        }
        Some(())
    }

    /// Copies the batch, and looks at the status of every operation.
    #[inline]
    fn submit<P: BackendPlatform>(&mut self, platform: &P, counters: &mut Counters) {
        if self.copy.is_empty() {
            return;
        }
        self.copy.submit(platform);
        counters.copy_hypercalls += 1;
        counters.copy_ops += self.copy.len() as u64;
        if self.copy.succeeded(0..self.copy.len()) {
            return;
        }
        let mut ops = 0;
        for staged in &mut self.staged {
            let end = usize::from(staged.ops_end);
            let failed = (ops..end).filter(|&op| !self.copy.succeeded(op..op + 1)).count();
            if failed > 0 {
                staged.copied = Err(FromClientDrop::CopyFailed);
                counters.copy_failures += failed as u64;
            }
            ops = end;
        }
    }
}

pub(super) struct FromClient<P: BackendPlatform> {
    ring: BackRing<TxRing, Shared<ForeignPage<P>>>,
    client: DomId,
    offered: Features,
    headroom: usize,
}

impl<P: BackendPlatform> FromClient<P> {
    pub(super) fn new(
        page: ForeignPage<P>,
        client: DomId,
        offered: Features,
        headroom: usize,
    ) -> Result<FromClient<P>, Fault> {
        Ok(FromClient {
            ring: BackRing::attach(Shared(page))?,
            client,
            offered,
            headroom: headroom.min(MAX_HEADROOM),
        })
    }

    /// Hands up packets until work of `limit` bytes is `spent`, or the ring is empty; returns how
    /// many, and whether the client wants to hear of it.
    pub(super) fn poll(
        &mut self,
        platform: &P,
        (pool, scratch): (&FramePool, &mut Scratch),
        limit: usize,
        spent: &mut usize,
        counters: &mut Counters,
        sink: &mut impl FnMut(PacketMut),
    ) -> Result<(usize, Notify), Fault> {
        let (mut packets, mut notify) = (0, Notify::Suppressed);
        while *spent < limit && self.ring.refresh()? > 0 {
            if let Err(fault) = self.stage(pool, scratch, limit, spent) {
                // Nothing of it is answered or handed up any more.
                scratch.clear();
                return Err(fault);
            }
            scratch.submit(platform, counters);
            packets += self.finish(scratch, counters, sink);
            if self.ring.publish() == Notify::Needed {
                notify = Notify::Needed;
            }
        }
        Ok((packets, notify))
    }

    /// Reads packets and writes down what to copy.
    #[inline]
    fn stage(
        &mut self,
        pool: &FramePool,
        scratch: &mut Scratch,
        limit: usize,
        spent: &mut usize,
    ) -> Result<(), Fault> {
        scratch.clear();
        let at = (self.client, self.headroom);
        // Enough for packets of one slot; what is left of them goes home.
        let mut frames = pool.take_many(BATCH_PACKETS.min(self.ring.waiting() as usize));
        let mut frame = || frames.next().or_else(|| pool.take());
        while *spent < limit
            && scratch.staged.len() < BATCH_PACKETS
            && scratch.copy.len() <= BATCH_OPS - MAX_OPS
        {
            let Scratch { chain, answers, copy, .. } = scratch;
            let (slots, ops, kept) = (answers.len(), copy.len(), copy.frames());
            let ring = &mut self.ring;
            let next = || ring.pop().map(|(_, slot)| slot);
            let Some(parsed) = read(next, self.offered, answers, chain) else {
                break;
            };
            let copied = match parsed {
                Ok(()) if scratch.write_ops(at, &mut frame).is_some() => Ok(()),
                Ok(()) => {
                    scratch.copy.truncate(kept, ops);
                    Err(FromClientDrop::NoFrame)
                }
                Err(Bad::Packet(why)) => Err(why),
                Err(Bad::Peer(fault)) => return Err(fault),
            };
            let Scratch { chain, answers, copy, staged } = &mut *scratch;
            let mut count = (answers.len() - slots).max(copy.len() - ops);
            if let Some(gso) = chain.meta.gso {
                // As many segments as somebody may have to cut it into.
                count = count.max(usize::from(chain.total / gso.size));
            }
            let bytes = usize::from(chain.total);
            *spent += (count * OVERHEAD + bytes).max(UNIT);
            staged.push(Staged {
                // At most a ring of slots and a batch of operations: both fit.
                slots_end: answers.len() as u16,
                ops_end: copy.len() as u16,
                total: chain.total,
                copied,
                meta: chain.meta,
            });
        }
        Ok(())
    }

    /// Answers the batch's slots and hands up its packets.
    #[inline]
    fn finish(
        &mut self,
        scratch: &mut Scratch,
        counters: &mut Counters,
        sink: &mut impl FnMut(PacketMut),
    ) -> usize {
        let mut frames = scratch.copy.take();
        let (headroom, mut answers) = (self.headroom, scratch.answers.iter());
        // Added up here, for the sink may do anything meanwhile.
        let (mut slot, mut packets, mut copied, mut bytes) = (0, 0, 0, 0);
        for staged in scratch.staged.drain(..) {
            let count = usize::from(staged.slots_end) - slot;
            slot += count;
            let (total, end) = (usize::from(staged.total), headroom + usize::from(staged.total));
            let status = if staged.copied.is_ok() && staged.meta.gso.is_none() && end <= PAGE_SIZE {
                // The usual packet: one frame, and nothing to look at.
                copied += total;
                if let Some(buf) =
                    frames.next().and_then(|it| BufMut::with_range(it, headroom..end))
                {
                    packets += 1;
                    bytes += total;
                    let mut packet = PacketMut::from(buf);
                    packet.meta = staged.meta;
                    sink(packet);
                }
                Status::Okay
            } else {
                match staged.copied {
                    Ok(()) => {
                        copied += total;
                        let mut packet = PacketMut::new();
                        packet.meta = staged.meta;
                        gather(&mut packet, &mut frames, headroom, total);
                        if packet.meta.gso.is_none() || is_sound(&mut packet, counters) {
                            packets += 1;
                            bytes += total;
                            sink(packet);
                            Status::Okay
                        } else {
                            *counters.from_drops.counter(FromClientDrop::GsoHeaders) += 1;
                            Status::Error
                        }
                    }
                    Err(why) => {
                        *counters.from_drops.counter(why) += 1;
                        if why == FromClientDrop::CopyFailed {
                            copied += total;
                            // Its frames are there, with some of its bytes.
                            gather(&mut PacketMut::new(), &mut frames, headroom, total);
                        }
                        match why {
                            FromClientDrop::NoFrame => Status::Dropped,
                            _ => Status::Error,
                        }
                    }
                }
            };
            for answer in answers.by_ref().take(count) {
                // In a NULL response nothing but the status means anything.
                let response = match answer {
                    Answer::Request(id) => TxResponse { id: *id, status: status.number() },
                    Answer::Null => TxResponse { id: 0, status: Status::Null.number() },
                };
                // Every slot here was popped, so there is room for its response.
                let _pushed = self.ring.push(response);
            }
        }
        counters.from_slots += slot as u64;
        counters.from_packets += packets as u64;
        counters.from_bytes += bytes as u64;
        counters.hypervisor_copied_bytes += copied as u64;
        packets
    }

    /// Asks for an event at the client's next packet; true if there is one already.
    pub(super) fn arm(&mut self) -> Result<bool, Fault> {
        Ok(self.ring.arm()?)
    }
}

/// Whether a large packet has the headers of its kind: somebody will have to write them anew for
/// each segment. Its checksum is blank then, whatever the client said of it.
#[cold]
fn is_sound(packet: &mut PacketMut, counters: &mut Counters) -> bool {
    let blank = packet.meta.checksum == Checksum::Blank;
    let sound = make_blank(packet).is_ok();
    counters.gso_not_blank += u64::from(sound && !blank);
    sound
}

/// Puts into a packet the next of the frames: those that `total` bytes take.
#[inline]
fn gather(
    packet: &mut PacketMut,
    frames: &mut impl Iterator<Item = Frame>,
    headroom: usize,
    total: usize,
) {
    let (mut at, mut left) = (headroom, total);
    while left > 0 {
        let range = at..at + left.min(PAGE_SIZE - at);
        left -= range.len();
        at = 0;
        let Some(frame) = frames.next() else { break };
        if let Some(buf) = BufMut::with_range(frame, range) {
            let _pushed = packet.push(buf);
        }
    }
}
