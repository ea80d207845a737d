//! To the client: queues packets, and copies them into the pages that the client posts on its
//! receive ring.
//!
//! ```text
//!  queue:    | A            | B                  | C |    bounded, in packets and in frames held
//!  ours:     [ A ][ A ]       [B]  [ B ]  [ B ]           any fragments
//!                \  /           \    |    /
//!  client:   [A A ] [A]       [B B B B B ] [B]            each page filled from its start
//!  ring:     | 0  | extra | 1 | 2          | 3 |          the extra takes a slot, and no page
//! ```
//!
//! A packet takes ceil(length / 4096) slots and one for its GSO extra; it waits until the client
//! has posted as many. A batch goes out in one hypercall (`GNTTABOP_copy`, xen/grant_table.h), and
//! every operation's own status decides about its packet. A response reuses its request's slot, as
//! xen/io/netif.h wants it.
//!
//! Requests are taken off the ring as soon as a waiting packet can use them, so that what lies on
//! the ring is always new, and the next request is the one to wake us.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::time::Duration;

use xen_grant::{CopyOut, DomId, Foreign, ForeignPage, FramePool, PAGE_SIZE};
use xen_ring::{BackRing, Notify};

use super::counters::Counters;
use super::error::DeliverError;
use super::fault::Fault;
use super::from_client::{BATCH_OPS, BATCH_PACKETS};
use super::software;
use crate::buffer::{Buf, Packet};
use crate::platform::{BackendPlatform, Instant};
use crate::ring_page::Shared;
use crate::wire::{
    Extra, MAX_PACKET, MAX_SLOTS, RING_SIZE, RxRequest, RxResponse, RxRing, RxSlot, Status,
    rx_flags,
};
use packet_views::buffer::Gso;
use packet_views::buffer::{Checksum, Meta};
use packet_views::features::Features;
use packet_views::header::ETHERNET_HEADER;

/// Operations that a packet takes: one for each fragment, one more for each of the client's pages
/// that ends within a fragment.
const MAX_OPS: usize = MAX_SLOTS + MAX_PACKET.div_ceil(PAGE_SIZE) - 1;

/// How long packets wait for a client that does not tell when it has posted pages. Linux gives it
/// as long.
const UNTOLD: Duration = Duration::from_millis(30);

/// What the client takes besides plain packets of one slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Takes {
    /// It tells when it has posted pages.
    pub(super) notify: bool,
    pub(super) features: Features,
}

/// How much may wait in a queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) packets: usize,
    pub(super) fragments: usize,
}

/// A packet in the queue; its other fragments are in the queue beside it.
struct Waiting {
    first: Buf,
    others: u8,
    /// Slots, the extra's included.
    slots: u8,
    len: u16,
    flags: u16,
    gso: Option<Gso>,
}

/// A packet between being copied and being answered. Operations count from the start of the batch.
struct Staged {
    slots: u8,
    failed: bool,
    ops_end: u16,
    len: u16,
    flags: u16,
    gso: Option<Gso>,
}

pub(super) struct ToClient<P: BackendPlatform> {
    ring: BackRing<RxRing, Shared<ForeignPage<P>>>,
    client: DomId,
    takes: Takes,
    packets: VecDeque<Waiting>,
    /// Those that are not a packet's first.
    fragments: VecDeque<Buf>,
    bounds: Bounds,
    /// Requests popped and not answered, in order: the batch's, then those of the packet that
    /// waits for more.
    posted: Vec<RxRequest>,
    staged: Vec<Staged>,
    copy: CopyOut,
    patience: Duration,
    /// Since when the packet at the front has not fitted, and no page has been posted.
    stuck: Option<Instant>,
    /// After a stall: so many slots must be there, one more than there were, before packets are queued
    /// again that don't fit into what is there. 0 otherwise.
    wanted: usize,
    /// Requests were taken off the ring since this was last said.
    pub(super) progress: bool,
}

impl<P: BackendPlatform> ToClient<P> {
    pub(super) fn new(
        page: ForeignPage<P>,
        client: DomId,
        takes: Takes,
        bounds: Bounds,
        patience: Duration,
    ) -> Result<ToClient<P>, Fault> {
        Ok(ToClient {
            ring: BackRing::attach(Shared(page))?,
            client,
            takes,
            packets: VecDeque::with_capacity(bounds.packets),
            fragments: VecDeque::with_capacity(bounds.fragments),
            bounds,
            posted: Vec::with_capacity(RING_SIZE),
            staged: Vec::with_capacity(BATCH_PACKETS),
            copy: CopyOut::with_capacity(BATCH_OPS, BATCH_OPS),
            patience: if takes.notify { patience } else { patience.min(UNTOLD) },
            stuck: None,
            wanted: 0,
            progress: false,
        })
    }

    /// Packets in the queue.
    pub(super) fn queued(&self) -> usize {
        self.packets.len()
    }

    /// When the packet at the front has waited too long.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.stuck.map(|since| since + self.patience)
    }

    /// Queues a packet, which is taken out of `packet`, or counts it as dropped.
    #[inline]
    pub(super) fn queue(
        &mut self,
        packet: &mut Packet,
        pool: &FramePool,
        counters: &mut Counters,
    ) -> Result<(), DeliverError> {
        let meta = packet.meta;
        let is_plain = meta.gso.is_none() && meta.checksum != Checksum::Blank;
        let queued = if is_plain || self.takes_whole(packet) {
            self.push(packet)
        } else {
            self.push_in_software(core::mem::take(packet), pool, counters)
        };
        queued.inspect_err(|why| *counters.to_drops.counter(*why) += 1)
    }

    /// Whether the client takes a packet, large or blank, as it is.
    #[inline(never)]
    fn takes_whole(&self, packet: &Packet) -> bool {
        let large = packet.meta.gso.is_some();
        (!large || packet.meta.checksum == Checksum::Blank && packet.len() <= MAX_PACKET)
            && self.takes.features.takes_packet(packet)
    }

    /// A packet that needs what the client does not take.
    #[cold]
    fn push_in_software(
        &mut self,
        packet: Packet,
        pool: &FramePool,
        counters: &mut Counters,
    ) -> Result<(), DeliverError> {
        // No work for nothing.
        self.has_room(1, 1)?;
        let takes = self.takes.features;
        let mut ready = if packet.meta.gso.is_none() {
            software::fill(packet, pool, counters)?
        } else if packet.len() <= MAX_PACKET && takes.takes_packet(&packet) {
            software::blank(packet, pool, counters)?
        } else {
            return software::cut(packet, takes, pool, counters, |mut segment| {
                self.push(&mut segment)
            });
        };
        self.push(&mut ready)
    }

    /// Pages posted that no packet has.
    fn available(&self) -> usize {
        self.posted.len() + self.ring.waiting() as usize
    }

    #[inline]
    fn has_room(&self, fragments: usize, slots: usize) -> Result<(), DeliverError> {
        if self.wanted > 0 && slots > self.available() {
            return Err(DeliverError::Stalled);
        }
        if self.packets.len() >= self.bounds.packets
            || self.packets.len() + self.fragments.len() + fragments > self.bounds.fragments
        {
            return Err(DeliverError::QueueFull);
        }
        Ok(())
    }

    #[inline]
    fn push(&mut self, packet: &mut Packet) -> Result<(), DeliverError> {
        let meta = packet.meta;
        let Some(only) = packet.take_only() else { return self.push_several(packet) };
        let len = only.len();
        if len < ETHERNET_HEADER {
            return Err(DeliverError::BadLength);
        }
        // A fragment lies in a page.
        let slots = 1 + usize::from(meta.gso.is_some());
        self.has_room(1, slots)?;
        self.push_back(only, 0, len, slots, meta);
        Ok(())
    }

    #[inline(never)]
    fn push_several(&mut self, packet: &mut Packet) -> Result<(), DeliverError> {
        let meta = packet.meta;
        let (mut len, mut fragments) = (0, 0);
        for fragment in packet.fragments() {
            len += fragment.len();
            fragments += usize::from(!fragment.is_empty());
        }
        let longest = if self.takes.features.scatter_gather { MAX_PACKET } else { PAGE_SIZE };
        if len < ETHERNET_HEADER || len > longest {
            return Err(DeliverError::BadLength);
        }
        let slots = len.div_ceil(PAGE_SIZE) + usize::from(meta.gso.is_some());
        self.has_room(fragments, slots)?;
        let mut filled = packet.take_fragments().filter(|fragment| !fragment.is_empty());
        let Some(first) = filled.next() else { return Err(DeliverError::BadLength) };
        self.fragments.extend(filled);
        self.push_back(first, fragments - 1, len, slots, meta);
        Ok(())
    }

    /// Queues a packet whose `others` have been queued.
    #[inline]
    fn push_back(&mut self, first: Buf, others: usize, len: usize, slots: usize, meta: Meta) {
        let flags = match meta.checksum {
            Checksum::Unknown => 0,
            Checksum::Complete => rx_flags::DATA_VALIDATED,
            Checksum::Blank => rx_flags::CSUM_BLANK | rx_flags::DATA_VALIDATED,
        };
        // At most 18 fragments, 17 slots, 65535 bytes: all fit.
        self.packets.push_back(Waiting {
            first,
            others: others as u8,
            slots: slots as u8,
            len: len as u16,
            flags,
            gso: meta.gso,
        });
    }

    /// Gives the client as many queued packets as it has posted pages for; says whether it wants
    /// to hear of it.
    pub(super) fn flush(&mut self, platform: &P, counters: &mut Counters) -> Result<Notify, Fault> {
        let mut notify = Notify::Suppressed;
        if self.packets.is_empty() && self.wanted == 0 {
            return Ok(notify);
        }
        let (mut progress, held) = (false, self.posted.len());
        let full = loop {
            self.ring.refresh()?;
            let full = self.stage();
            if self.staged.is_empty() {
                break full;
            }
            progress = true;
            self.submit(platform, counters);
            self.finish(counters);
            if self.ring.publish() == Notify::Needed {
                notify = Notify::Needed;
            }
            if self.packets.is_empty() {
                break false;
            }
        };
        // A page is progress, too: it is not asked how fast they come.
        progress |= self.posted.len() > held;
        if progress {
            self.stuck = None;
        }
        self.progress |= progress;
        if full {
            self.check_stall(platform.now(), counters);
        }
        Ok(notify)
    }

    /// Writes down what to copy; true if the client has not posted enough.
    #[inline]
    fn stage(&mut self) -> bool {
        if self.wanted > 0 && self.available() >= self.wanted {
            self.wanted = 0;
        }
        let mut used = 0;
        while self.staged.len() < BATCH_PACKETS && self.copy.len() <= BATCH_OPS - MAX_OPS {
            let slots = self.packets.front().map_or(self.wanted, |next| usize::from(next.slots));
            if slots == 0 {
                return false;
            }
            while self.posted.len() < used + slots {
                let Some((_, request)) = self.ring.pop() else { return true };
                self.posted.push(request);
            }
            let Some(packet) = self.packets.pop_front() else { return false };
            let Waiting { first, others, slots, len, flags, gso } = packet;
            let written = if others == 0 && slots == 1 {
                self.write_op(first, used)
            } else {
                self.write_ops(first, others, gso.is_some(), used)
            };
            let failed = written.is_none();
            used += usize::from(slots);
            let ops_end = self.copy.len() as u16;
            self.staged.push(Staged { slots, failed, ops_end, len, flags, gso });
        }
        false
    }

    /// The operation that brings a packet of one piece into the page posted as number `slot`.
    #[inline]
    fn write_op(&mut self, buf: Buf, slot: usize) -> Option<()> {
        let (frame, from) = buf.into_parts();
        self.copy.frame(frame);
        let gref = self.posted.get(slot)?.gref;
        self.copy.push(from, Foreign { domain: self.client, gref, offset: 0 }).ok()
    }

    /// The operations that bring a packet into the pages posted from number `slot` on.
    #[inline(never)]
    fn write_ops(
        &mut self,
        first: Buf,
        others: u8,
        has_extra: bool,
        mut slot: usize,
    ) -> Option<()> {
        // The extra takes the second slot.
        let second = slot + 1 + usize::from(has_extra);
        let (mut at, mut written) = (0, Some(()));
        let others = usize::from(others).min(self.fragments.len());
        for buf in core::iter::once(first).chain(self.fragments.drain(..others)) {
            let (frame, mut from) = buf.into_parts();
            self.copy.frame(frame);
            while !from.is_empty() && written.is_some() {
                if at == PAGE_SIZE {
                    slot = second.max(slot + 1);
                    at = 0;
                }
                let len = from.len().min(PAGE_SIZE - at);
                written = self.posted.get(slot).and_then(|&RxRequest { gref, .. }| {
                    let to = Foreign { domain: self.client, gref, offset: at as u16 };
                    self.copy.push(from.start..from.start + len, to).ok()
                });
                from.start += len;
                at += len;
            }
        }
        written
    }

    /// Copies the batch, and looks at the status of every operation.
    #[inline]
    fn submit(&mut self, platform: &P, counters: &mut Counters) {
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
            staged.failed |= failed > 0;
            counters.copy_failures += failed as u64;
            ops = end;
        }
    }

    /// Answers the batch's requests and lets its frames go.
    #[inline]
    fn finish(&mut self, counters: &mut Counters) {
        self.copy.clear();
        let packets = self.staged.len() as u64;
        // Failed ones are counted, for there are hardly any.
        let (mut copied, mut failed, mut lost) = (0, 0, 0);
        let mut requests = self.posted.as_slice();
        for staged in self.staged.drain(..) {
            copied += u64::from(staged.len);
            if staged.failed {
                failed += 1;
                lost += u64::from(staged.len);
            } else if staged.slots == 1
                && let [request, others @ ..] = requests
            {
                // The usual packet.
                requests = others;
                let (id, status) = (request.id, staged.len as i16);
                let response = RxResponse { id, offset: 0, flags: staged.flags, status };
                // Every request here was popped, so there is room for its response.
                let _pushed = self.ring.push(response.into());
                continue;
            }
            let (its, others) = requests.split_at(requests.len().min(staged.slots.into()));
            requests = others;
            for response in responses(&staged, its) {
                let _pushed = self.ring.push(response);
            }
        }
        let used = self.posted.len() - requests.len();
        counters.hypervisor_copied_bytes += copied;
        counters.to_packets += packets - failed;
        counters.to_bytes += copied - lost;
        counters.to_drops.copy_failed += failed;
        counters.to_slots += used as u64;
        self.posted.drain(..used);
    }

    /// The next packet does not fit: if that goes on for too long, the client is stalled, and
    /// holds no frames of ours any more but for packets that it has posted pages enough for. Such are
    /// all that it gets until it posts one more: it may have no more than these. They go out with the
    /// next flush, whose time has come.
    #[cold]
    fn check_stall(&mut self, now: Instant, counters: &mut Counters) {
        if self.packets.is_empty() {
            return;
        }
        let since = *self.stuck.get_or_insert(now);
        if now.since(since) < self.patience {
            return;
        }
        if self.takes.notify {
            self.wanted = self.available() + 1;
            counters.stalls += 1;
        }
        // Round once: what fits goes to the back again, in its order.
        for _ in 0..self.packets.len() {
            let Some(packet) = self.packets.pop_front() else { break };
            let others = usize::from(packet.others).min(self.fragments.len());
            if usize::from(packet.slots) <= self.available() {
                self.fragments.rotate_left(others);
                self.packets.push_back(packet);
            } else {
                self.fragments.drain(..others);
                *counters.to_drops.counter(DeliverError::Stalled) += 1;
            }
        }
        if self.packets.is_empty() {
            self.stuck = None;
        }
    }

    /// Asks for an event at the next request if a packet waits for it; true if it is there
    /// already.
    pub(super) fn arm(&mut self) -> Result<bool, Fault> {
        if self.packets.is_empty() && self.wanted == 0 {
            return Ok(false);
        }
        Ok(self.ring.arm()?)
    }
}

/// The responses to a packet's requests. A packet that failed gives each its page back, as a
/// packet of its own that failed.
#[inline]
fn responses<'a>(
    staged: &'a Staged,
    requests: &'a [RxRequest],
) -> impl Iterator<Item = RxSlot> + 'a {
    let mut left = usize::from(staged.len);
    requests.iter().enumerate().map(move |(slot, request)| {
        if staged.failed {
            let status = Status::Error.number();
            return RxResponse { id: request.id, offset: 0, flags: 0, status }.into();
        }
        let mut flags = 0;
        if slot == 0 {
            flags = staged.flags;
            if staged.gso.is_some() {
                flags |= rx_flags::EXTRA_INFO;
            }
        } else if let (1, Some(gso)) = (slot, staged.gso) {
            return Extra::from_gso(gso).into();
        }
        let len = left.min(PAGE_SIZE);
        left -= len;
        if left > 0 {
            flags |= rx_flags::MORE_DATA;
        }
        RxResponse { id: request.id, offset: 0, flags, status: len as i16 }.into()
    })
}
