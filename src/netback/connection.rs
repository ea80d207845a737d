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

use super::config::Config;
use super::counters::Counters;
use super::error::DeliverError;
use super::fault::Fault;
use super::from_client::{BATCH_PACKETS, UNIT};
use super::obstacle::Obstacle;
use super::queue::Queue;
use super::to_client::{Bounds, Takes};
use crate::buffer::{Packet, PacketMut};
use crate::platform::{BackendPlatform, Channel, Instant, Port};
use crate::wire::MAX_SLOTS;
use crate::xenbus::FrontendOffer;
use packet_views::header::packet_flow_hash;

/// All queues of a connected client. Dropped, it lets go of all that is the client's.
pub(super) struct Connection<P: BackendPlatform> {
    /// At least one. All in one place: whole batches go through here, so finding a queue costs nothing.
    queues: Vec<Queue<P>>,
    /// Whose turn it is to be polled.
    turn: usize,
    /// Work done beyond the last budget; it comes off the next.
    debt: usize,
}

impl<P: BackendPlatform> Connection<P> {
    pub(super) fn open(
        platform: &P,
        channel: &Channel,
        offer: &FrontendOffer,
        config: &Config,
        counters: &mut Counters,
    ) -> Result<Connection<P>, Obstacle> {
        if offer.queues.is_empty() {
            return Err(Obstacle::Incomplete);
        }
        if !offer.rx_copy {
            return Err(Obstacle::NoCopy);
        }
        let takes = Takes { notify: offer.rx_notify, features: offer.features.coherent() };
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
        let queues = offer.queues.iter().enumerate().map(open).collect::<Result<_, _>>()?;
        Ok(Connection { queues, turn: 0, debt: 0 })
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

    /// When a packet has waited too long.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.queues.iter().filter_map(|queue| queue.to.deadline()).min()
    }

    /// Hands up packets worth up to `budget` units of work; returns how many. Queues take turns, a
    /// batch each, within the one budget.
    #[inline]
    pub(super) fn poll(
        &mut self,
        platform: &P,
        pool: &FramePool,
        budget: usize,
        counters: &mut Counters,
        mut sink: impl FnMut(PacketMut),
    ) -> Result<usize, Fault> {
        let budget = budget.saturating_mul(UNIT);
        let turns = if self.queues.len() == 1 { budget } else { BATCH_PACKETS * UNIT };
        let (mut spent, mut packets, mut idle) = (self.debt, 0, 0);
        while spent < budget && idle < self.queues.len() {
            let Some(queue) = self.queues.get_mut(self.turn) else {
                self.turn = 0;
                continue;
            };
            let before = spent;
            let limit = budget.min(spent.saturating_add(turns));
            let polled = queue.from.poll(platform, pool, limit, &mut spent, counters, &mut sink);
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

    /// Queues a packet, or drops and counts it. Packets of a flow keep to one queue.
    #[inline]
    pub(super) fn deliver(
        &mut self,
        packet: &mut Packet,
        pool: &FramePool,
        counters: &mut Counters,
    ) -> Result<(), DeliverError> {
        let queue = match self.queues.as_mut_slice() {
            [only] => only,
            queues => match pick(queues, packet) {
                Some(queue) => queue,
                None => return Err(DeliverError::NotConnected),
            },
        };
        queue.to.queue(packet, pool, counters)
    }

    /// Gives the client what it has posted pages for, and tells it of everything since the last
    /// time.
    #[inline]
    pub(super) fn flush(&mut self, platform: &P, counters: &mut Counters) -> Result<(), Fault> {
        counters.queue_high_water = counters.queue_high_water.max(self.queued() as u64);
        self.queues.iter_mut().try_for_each(|queue| queue.flush(platform, counters))
    }

    /// Asks for events; true if there is something to do already.
    #[inline]
    pub(super) fn arm(&mut self) -> Result<bool, Fault> {
        let mut ready = false;
        for queue in &mut self.queues {
            ready |= queue.arm()?;
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
