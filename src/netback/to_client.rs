//! To the client: copies packets that wait into the pages that the client posts on its receive ring.
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

mod push;

use alloc::collections::TryReserveError;
use alloc::vec::Vec;
use core::time::Duration;

use xen_grant::{CopyOut, DomId, Foreign, ForeignPage, PAGE_SIZE};
use xen_ring::{BackRing, Notify};

use super::budget::Account;
use super::counters::Counters;
use super::fault::Fault;
use super::from_client::{BATCH_OPS, BATCH_PACKETS};
use super::obstacle::Obstacle;
use super::waiting::{Backlog, Bounds, Shape, Waiting};
use crate::buffer::Buf;
use crate::platform::{BackendPlatform, Instant};
use crate::ring_page::Shared;
use crate::wire::{
    Extra, MAX_PACKET, MAX_SLOTS, RING_SIZE, RxRequest, RxResponse, RxRing, RxSlot, Status,
    rx_flags,
};
use packet_views::features::Features;

pub(super) use push::Refusal;

/// Operations that a packet takes: one for each fragment, one more for each of the client's pages
/// that ends within a fragment.
const MAX_OPS: usize = MAX_SLOTS + MAX_PACKET.div_ceil(PAGE_SIZE) - 1;

/// How long packets wait for a client that does not tell when it has posted pages. Linux gives it
/// as long.
const UNTOLD: Duration = Duration::from_millis(30);

/// After how long without a page a client has no more than its reserve: others may need what it holds
/// and does not take.
const QUIET: Duration = Duration::from_millis(100);

/// What the client takes besides plain packets of one slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Takes {
    /// It tells when it has posted pages.
    pub(super) notify: bool,
    pub(super) features: Features,
    /// The longest packet that is not large: the MTU, an Ethernet header, and a tag.
    pub(super) longest: usize,
}

/// A packet between being copied and being answered. Operations count from the start of the batch.
struct Staged {
    shape: Shape,
    failed: bool,
    ops_end: u16,
}

/// A batch on its way.
pub(super) struct Scratch {
    staged: Vec<Staged>,
    copy: CopyOut,
}

impl Scratch {
    pub(super) fn new() -> Scratch {
        Scratch { staged: Vec::new(), copy: CopyOut::default() }
    }

    pub(super) fn reserve(&mut self) -> Result<(), TryReserveError> {
        self.clear();
        self.staged.try_reserve_exact(BATCH_PACKETS)?;
        self.copy.try_reserve(BATCH_OPS, BATCH_OPS)
    }

    /// Whatever became of the batch before: it may have been another client's.
    fn clear(&mut self) {
        self.staged.clear();
        self.copy.clear();
    }

    /// Copies the batch, and looks at the status of every operation.
    #[inline]
    fn submit<P: BackendPlatform>(&mut self, platform: &P, counters: &mut Counters) {
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
}

pub(super) struct ToClient<P: BackendPlatform> {
    ring: BackRing<RxRing, Shared<ForeignPage<P>>>,
    client: DomId,
    takes: Takes,
    backlog: Backlog,
    /// Requests popped and not answered, in order: the batch's, then those of the packet that
    /// waits for more.
    posted: Vec<RxRequest>,
    patience: Duration,
    /// Since when the packet at the front has not fitted, and no page has been posted.
    stuck: Option<Instant>,
    /// After a stall: so many slots must be there, one more than there were, before packets are queued
    /// again that don't fit into what is there. 0 otherwise.
    wanted: usize,
    /// No page has come for a moment while a packet waited for one.
    is_quiet: bool,
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
    ) -> Result<ToClient<P>, Obstacle> {
        // A packet may wait for as many as the ring has, and none that was taken may be lost.
        let mut posted = Vec::new();
        posted.try_reserve_exact(RING_SIZE)?;
        Ok(ToClient {
            ring: BackRing::attach(Shared(page)).map_err(Fault::Ring)?,
            client,
            takes,
            backlog: Backlog::new(bounds),
            posted,
            patience: if takes.notify { patience } else { patience.min(UNTOLD) },
            stuck: None,
            wanted: 0,
            is_quiet: false,
            progress: false,
        })
    }

    /// Packets in the queue.
    pub(super) fn queued(&self) -> usize {
        self.backlog.len()
    }

    /// When the packet at the front has waited too long, or for long enough that others may have what
    /// this client has drawn.
    pub(super) fn deadline(&self, has_drawn: bool) -> Option<Instant> {
        let is_soon = has_drawn && !self.is_quiet;
        let wait = if is_soon { QUIET.min(self.patience) } else { self.patience };
        self.stuck.map(|since| since + wait)
    }

    /// Pages posted that no packet has.
    fn available(&self) -> usize {
        self.posted.len() + self.ring.waiting() as usize
    }

    /// Gives the client as many queued packets as it has posted pages for; says whether it wants
    /// to hear of it.
    pub(super) fn flush(
        &mut self,
        platform: &P,
        (scratch, account): (&mut Scratch, &mut Account),
        counters: &mut Counters,
    ) -> Result<Notify, Fault> {
        let mut notify = Notify::Suppressed;
        if self.backlog.is_empty() && self.wanted == 0 {
            return Ok(notify);
        }
        scratch.clear();
        let (mut progress, held) = (false, self.posted.len());
        let full = loop {
            self.ring.refresh()?;
            let full = self.stage(scratch);
            if scratch.staged.is_empty() {
                break full;
            }
            progress = true;
            scratch.submit(platform, counters);
            self.backlog.give_back(scratch.copy.frames(), account);
            self.finish(scratch, counters);
            if self.ring.publish() == Notify::Needed {
                notify = Notify::Needed;
            }
            if self.backlog.is_empty() {
                break false;
            }
        };
        // A page is progress, too: it is not asked how fast they come.
        progress |= self.posted.len() > held;
        if progress {
            self.stuck = None;
            self.is_quiet = false;
        }
        self.progress |= progress;
        if full {
            self.check_stall(platform.now(), account, counters);
        }
        Ok(notify)
    }

    /// Writes down what to copy; true if the client has not posted enough.
    #[inline]
    fn stage(&mut self, scratch: &mut Scratch) -> bool {
        if self.wanted > 0 && self.available() >= self.wanted {
            self.wanted = 0;
        }
        let mut used = 0;
        while scratch.staged.len() < BATCH_PACKETS && scratch.copy.len() <= BATCH_OPS - MAX_OPS {
            let next = self.backlog.first();
            let slots = next.as_ref().map_or(self.wanted, |next| usize::from(next.shape.slots));
            if slots == 0 {
                return false;
            }
            while self.posted.len() < used + slots {
                let Some((_, request)) = self.ring.pop() else { return true };
                self.posted.push(request);
            }
            let Some(Waiting { first, shape }) = next else { return false };
            let (Some(first), shape) = (first.take(), *shape) else { return false };
            self.backlog.skip();
            let written = if shape.others == 0 && shape.slots == 1 {
                self.write_op(&mut scratch.copy, first, used)
            } else {
                self.write_ops(&mut scratch.copy, first, &shape, used)
            };
            used += usize::from(shape.slots);
            let (failed, ops_end) = (written.is_none(), scratch.copy.len() as u16);
            scratch.staged.push(Staged { shape, failed, ops_end });
        }
        false
    }

    /// The operation that brings a packet of one piece into the page posted as number `slot`.
    #[inline]
    fn write_op(&self, copy: &mut CopyOut, buf: Buf, slot: usize) -> Option<()> {
        let (frame, from) = buf.into_parts();
        copy.frame(frame);
        let gref = self.posted.get(slot)?.gref;
        copy.push(from, Foreign { domain: self.client, gref, offset: 0 }).ok()
    }

    /// The operations that bring a packet into the pages posted from number `slot` on.
    #[inline(never)]
    fn write_ops(
        &mut self,
        copy: &mut CopyOut,
        first: Buf,
        shape: &Shape,
        mut slot: usize,
    ) -> Option<()> {
        // The extra takes the second slot.
        let second = slot + 1 + usize::from(shape.gso.is_some());
        let (mut at, mut written) = (0, Some(()));
        let backlog = &mut self.backlog;
        let others = (0..shape.others).filter_map(|_| backlog.pop_other());
        for buf in core::iter::once(first).chain(others) {
            let (frame, mut from) = buf.into_parts();
            copy.frame(frame);
            while !from.is_empty() && written.is_some() {
                if at == PAGE_SIZE {
                    slot = second.max(slot + 1);
                    at = 0;
                }
                let len = from.len().min(PAGE_SIZE - at);
                written = self.posted.get(slot).and_then(|&RxRequest { gref, .. }| {
                    let to = Foreign { domain: self.client, gref, offset: at as u16 };
                    copy.push(from.start..from.start + len, to).ok()
                });
                from.start += len;
                at += len;
            }
        }
        written
    }

    /// Answers the batch's requests and lets its frames go.
    #[inline]
    fn finish(&mut self, scratch: &mut Scratch, counters: &mut Counters) {
        scratch.copy.clear();
        let packets = scratch.staged.len() as u64;
        // Failed ones are counted, for there are hardly any.
        let (mut copied, mut failed, mut lost) = (0, 0, 0);
        let mut requests = self.posted.as_slice();
        for staged in &scratch.staged {
            let shape = &staged.shape;
            copied += u64::from(shape.len);
            if staged.failed {
                failed += 1;
                lost += u64::from(shape.len);
            } else if shape.slots == 1
                && let [request, others @ ..] = requests
            {
                // The usual packet.
                requests = others;
                let (id, status) = (request.id, shape.len as i16);
                let response = RxResponse { id, offset: 0, flags: shape.flags, status };
                // Every request here was popped, so there is room for its response.
                let _pushed = self.ring.push(response.into());
                continue;
            }
            let (its, others) = requests.split_at(requests.len().min(shape.slots.into()));
            requests = others;
            for response in responses(staged, its) {
                let _pushed = self.ring.push(response);
            }
        }
        scratch.staged.clear();
        let used = self.posted.len() - requests.len();
        counters.hypervisor_copied_bytes += copied;
        counters.to_packets += packets - failed;
        counters.to_bytes += copied - lost;
        counters.to_drops.copy_failed += failed;
        counters.to_slots += used as u64;
        self.posted.drain(..used);
    }

    /// The next packet does not fit: if that goes on for a moment, the client holds no more than its
    /// reserve; if for too long, it is stalled, and holds no frames of ours any more but for packets that it
    /// has posted pages enough for. Such are all that it gets until it posts one more: it may have no more
    /// than these. They go out with the next flush, whose time has come.
    #[cold]
    fn check_stall(&mut self, now: Instant, account: &mut Account, counters: &mut Counters) {
        if self.backlog.is_empty() {
            return;
        }
        let since = *self.stuck.get_or_insert(now);
        let waited = now.since(since);
        if waited >= QUIET {
            self.is_quiet = true;
            counters.to_drops.stalled += self.backlog.drop_drawn(account);
        }
        if self.backlog.is_empty() {
            // The client's other queues have its reserve.
            self.stuck = None;
            return;
        }
        if waited < self.patience {
            return;
        }
        if self.takes.notify {
            self.wanted = self.available() + 1;
            counters.stalls += 1;
        }
        let available = self.available();
        counters.to_drops.stalled += self.backlog.drop_larger(available, account);
        if self.backlog.is_empty() {
            self.stuck = None;
        }
    }

    /// Asks for an event at the next request if a packet waits for it; true if it is there
    /// already.
    pub(super) fn arm(&mut self) -> Result<bool, Fault> {
        if self.backlog.is_empty() && self.wanted == 0 {
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
    let mut left = usize::from(staged.shape.len);
    requests.iter().enumerate().map(move |(slot, request)| {
        if staged.failed {
            let status = Status::Error.number();
            return RxResponse { id: request.id, offset: 0, flags: 0, status }.into();
        }
        let mut flags = 0;
        if slot == 0 {
            flags = staged.shape.flags;
            if staged.shape.gso.is_some() {
                flags |= rx_flags::EXTRA_INFO;
            }
        } else if let (1, Some(gso)) = (slot, staged.shape.gso) {
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
