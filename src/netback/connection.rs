//! One connection of a client: its queues, which share what one client may take.
//!
//! ```text
//!   poll    ◄── queue 0 ◄─┐ a batch each in turn,     deliver ──► flow ──┬─► queue 0
//!               queue 1 ◄─┤ one budget for all          hash             ├─► queue 1
//!               queue 2 ◄─┘                                              └─► queue 2
//! ```

use alloc::vec::Vec;

use xen_grant::FramePool;
use xen_ring::Notify;

use super::budget::Account;
use super::config::Config;
use super::counters::Counters;
use super::credit::Credit;
use super::error::DeliverErrorKind;
use super::fault::Fault;
use super::from_client::{BATCH_PACKETS, UNIT};
use super::obstacle::Obstacle;
use super::queue::Queue;
use super::to_client::{Refusal, Takes};
use super::waiting::Bounds;
use super::{from_client, to_client};
use crate::buffer::{Packet, PacketMut};
use crate::platform::{BackendPlatform, Channel, Instant, Port};
use crate::wire::MAX_SLOTS;
use crate::xenbus::{FrontendOffer, VifSpec};
use packet_views::header::{LINK_HEADER, packet_flow_hash};

/// All queues of a connected client. Dropped, it lets go of all that is the client's.
pub(super) struct Connection<P: BackendPlatform> {
    /// At least one. All in one place: whole batches go through here, so finding a queue costs nothing.
    queues: Vec<Queue<P>>,
    /// Whose turn it is to be polled.
    turn: usize,
    /// Work done beyond the last budget; it comes off the next.
    debt: usize,
    /// Where the toolstack limits what the client sends.
    credit: Option<Credit>,
}

impl<P: BackendPlatform> Connection<P> {
    pub(super) fn open(
        platform: &P,
        channel: &Channel,
        (offer, spec): (&FrontendOffer, &VifSpec),
        config: &Config,
        counters: &mut Counters,
    ) -> Result<Connection<P>, Obstacle> {
        if offer.queues.is_empty() {
            return Err(Obstacle::Incomplete);
        }
        if !offer.rx_copy {
            return Err(Obstacle::NoCopy);
        }
        // A tag is allowed for, whether there is one or not.
        let longest = spec.mtu.map_or(usize::MAX, |mtu| usize::from(mtu) + LINK_HEADER);
        let features = offer.features.coherent();
        let takes = Takes { notify: offer.rx_notify, features, longest };
        let count = offer.queues.len();
        let open = |(number, queue)| {
            // Together exactly what one client may have, but that the largest packet fits each.
            let share = |all: usize| all.saturating_add(number) / count;
            let bounds = Bounds {
                packets: share(config.queue_packets).max(1),
                fragments: share(config.queue_frames).max(MAX_SLOTS),
            };
            // At most MAX_QUEUES.
            let channel = Channel { queue: number as u32, ..channel.clone() };
            Queue::open(platform, channel, queue, (takes, bounds), config, counters)
        };
        let mut queues = Vec::new();
        queues.try_reserve_exact(count)?;
        for queue in offer.queues.iter().enumerate().map(open) {
            queues.push(queue?);
        }
        let credit = spec.rate.map(|rate| Credit::new(rate, platform.now()));
        Ok(Connection { queues, turn: 0, debt: 0, credit })
    }

    /// Our ends of the client's event channels, each once.
    pub(super) fn ports(&self) -> impl Iterator<Item = Port> + '_ {
        self.queues.iter().flat_map(Queue::ports)
    }

    pub(super) fn queues(&self) -> usize {
        self.queues.len()
    }

    /// Packets that wait for the client.
    pub(super) fn queued(&self) -> usize {
        self.queues.iter().map(|queue| queue.to.queued()).sum()
    }

    /// When a packet has waited too long, or the client may send again.
    pub(super) fn deadline(&self, has_drawn: bool, is_paused: bool) -> Option<Instant> {
        let credit = self.credit.as_ref().filter(|_| !is_paused).and_then(Credit::next);
        let stalls = self.queues.iter().filter_map(|queue| queue.to.deadline(has_drawn));
        stalls.chain(credit).min()
    }

    /// Bytes that the client may send now, where that is limited.
    #[cold]
    fn credit(&mut self, now: Instant) -> Option<u64> {
        Some(self.credit.as_mut()?.left(now))
    }

    /// Hands up packets worth up to `budget` units of work; returns how many. Queues take turns, a
    /// batch each, within the one budget.
    #[inline]
    pub(super) fn poll(
        &mut self,
        platform: &P,
        (pool, scratch): (&FramePool, &mut from_client::Scratch),
        budget: usize,
        counters: &mut Counters,
        mut sink: impl FnMut(PacketMut),
    ) -> Result<usize, Fault> {
        let now = self.credit.as_ref().map(|_| platform.now());
        let budget = budget.saturating_mul(UNIT);
        let turns = if self.queues.len() == 1 { budget } else { BATCH_PACKETS * UNIT };
        let (mut spent, mut packets, mut idle) = (self.debt, 0, 0);
        while spent < budget && idle < self.queues.len() {
            let Some(queue) = self.queues.get_mut(self.turn) else {
                self.turn = 0;
                continue;
            };
            let before = spent;
            let mut limit = budget.min(spent.saturating_add(turns));
            if let (Some(credit), Some(now)) = (&mut self.credit, now) {
                // A byte is a unit of work at least.
                let left = usize::try_from(credit.left(now)).unwrap_or(usize::MAX);
                if left == 0 {
                    break;
                }
                limit = limit.min(spent.saturating_add(left));
            }
            let (means, copied) = ((pool, &mut *scratch), counters.hypervisor_copied_bytes);
            let polled = queue.from.poll(platform, means, limit, &mut spent, counters, &mut sink);
            if let Some(credit) = &mut self.credit {
                credit.spend(counters.hypervisor_copied_bytes - copied);
            }
            let (taken, notify) = polled?;
            packets += taken;
            if notify == Notify::Needed {
                queue.tell_tx = notify;
            }
            queue.progress |= spent > before;
            idle = if spent < limit { idle + 1 } else { 0 };
            self.turn += 1;
        }
        // A debt is at most one packet's, and no idle time adds up to credit.
        self.debt = spent.saturating_sub(budget);
        Ok(packets)
    }

    /// Queues a packet, which is taken out of `packet` unless there is no room. Packets of a flow keep to
    /// one queue.
    #[inline]
    pub(super) fn deliver(
        &mut self,
        packet: &mut Packet,
        pool: &FramePool,
        account: &mut Account,
        counters: &mut Counters,
    ) -> Result<(), Refusal> {
        let queue = match self.queues.as_mut_slice() {
            [only] => only,
            queues => match pick(queues, packet) {
                Some(queue) => queue,
                None => return Err(DeliverErrorKind::NotConnected.into()),
            },
        };
        queue.to.queue(packet, pool, account, counters)
    }

    /// Gives the client what it has posted pages for, and tells it of everything since the last
    /// time.
    #[inline]
    pub(super) fn flush(
        &mut self,
        platform: &P,
        (scratch, account): (&mut to_client::Scratch, &mut Account),
        counters: &mut Counters,
    ) -> Result<(), Fault> {
        counters.queue_high_water = counters.queue_high_water.max(self.queued() as u64);
        for queue in &mut self.queues {
            queue.flush(platform, (&mut *scratch, account), counters)?;
        }
        Ok(())
    }

    /// Asks for events; true if there is something to do already. Of packets only if somebody takes them,
    /// and the client may send some.
    #[inline]
    pub(super) fn arm(&mut self, platform: &P, is_paused: bool) -> Result<bool, Fault> {
        let has_credit = self.credit.is_none() || self.credit(platform.now()) != Some(0);
        let mut ready = false;
        for queue in &mut self.queues {
            ready |= queue.arm(has_credit && !is_paused)?;
        }
        Ok(ready)
    }

    /// Tells the platform that there is nothing left to do until the next event.
    #[inline]
    pub(super) fn handled(&mut self, platform: &P) {
        self.queues.iter_mut().for_each(|queue| queue.handled(platform));
    }
}

/// The queue of a packet's flow.
#[inline(never)]
fn pick<'a, P: BackendPlatform>(
    queues: &'a mut [Queue<P>],
    packet: &Packet,
) -> Option<&'a mut Queue<P>> {
    let hash = packet_flow_hash(packet);
    // Less than their number, which is small.
    let number = (u64::from(hash) * queues.len() as u64) >> 32;
    queues.get_mut(number as usize)
}
