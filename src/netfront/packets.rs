//! The packet path, as a layer above calls it: it goes on to the queues.

use xen_grant::Frame;

use super::Netfront;
use crate::buffer::Packet;
use crate::platform::Platform;
use xen_store::Store;

impl<P: Platform, S: Store> Netfront<P, S> {
    // -- receive ----------------------------------------------------------------------------

    /// As [`receive`](packet_views::device::NetDevice::receive), for a layer above that is done with most packets once it has
    /// seen them: what is only lent to it is posted again, without the way through the pool. A packet
    /// that it wants to keep it clones, which copies no bytes.
    pub fn receive_lent(&mut self, budget: usize, mut sink: impl FnMut(&Packet)) -> usize {
        self.receive_with(budget, |packet| {
            sink(&packet);
            Some(packet)
        })
    }

    /// What `sink` gives back is posted again.
    #[inline(always)] // so that a packet which the sink takes apart is never put together
    pub(super) fn receive_with(
        &mut self,
        budget: usize,
        mut sink: impl FnMut(Packet) -> Option<Packet>,
    ) -> usize {
        let Some(connection) = self.connection.as_mut().filter(|it| !it.is_broken()) else {
            return 0;
        };
        let (quarantine, counters) = (&mut self.quarantine, &mut self.counters);
        let looked = match connection.queues.only() {
            Some(queue) => queue.rx.poll(budget, quarantine, counters, sink),
            None => connection.in_turn(budget, |queue, budget| {
                queue.rx.poll(budget, quarantine, counters, &mut sink)
            }),
        };
        match looked {
            Ok(0) => 0,
            Ok(looked) => {
                connection.queues.refill(&mut self.budget, &mut self.counters);
                looked
            }
            Err(fault) => {
                connection.break_down(fault);
                0
            }
        }
    }

    pub(super) fn refill(&mut self) {
        let Some(connection) = self.connection.as_mut().filter(|it| !it.is_broken()) else {
            return;
        };
        connection.queues.refill(&mut self.budget, &mut self.counters);
    }

    // -- transmit ---------------------------------------------------------------------------

    /// A frame to write a packet into. `None` when there is none now: all that sending may have of the
    /// pool are in flight, or the layers above hold them.
    #[inline]
    pub(super) fn frame(&mut self) -> Option<Frame> {
        match &mut self.connection {
            Some(connection) => connection.queues.frame(&mut self.budget),
            None => self.budget.frame_to_send(0),
        }
    }

    /// The most fragments that a packet to this backend may have: 18, or 1 if it takes no
    /// scatter-gather.
    pub fn max_fragments(&self) -> usize {
        self.features().max_fragments()
    }

    /// Shows the backend everything sent since the last time, and tells it of that and of pages that
    /// it waits for: by one event at most on each channel.
    #[inline(always)] // where packets go one by one, each is followed by it
    pub fn flush(&mut self) {
        let Some(connection) = self.connection.as_mut().filter(|it| !it.is_broken()) else {
            return;
        };
        connection.queues.flush(&mut self.counters, &self.platform);
    }

    /// Takes back the pages of packets that have been sent; returns how many slots that were.
    pub fn complete_tx(&mut self) -> usize {
        let Some(connection) = self.connection.as_mut().filter(|it| !it.is_broken()) else {
            return 0;
        };
        let (quarantine, counters) = (&mut self.quarantine, &mut self.counters);
        let answered = match connection.queues.only() {
            Some(queue) => queue.tx.complete(quarantine, counters),
            None => connection.queues.complete(quarantine, counters),
        };
        answered.unwrap_or_else(|fault| {
            connection.break_down(fault);
            0
        })
    }

    /// Flushes, takes back what has been sent, and asks the backend for an event at the next packet, and
    /// when there is room again. True if there is something to do already: a packet, or the room or the
    /// page that somebody looked for and did not find. Then go round again instead of waiting, for that
    /// event may never come.
    pub fn rearm(&mut self) -> bool {
        self.flush();
        self.complete_tx();
        let takes_packets = !self.is_paused;
        let connection = self.connection.as_mut();
        connection.is_some_and(|connection| connection.arm(&self.platform, takes_packets))
    }

    /// Whether a packet has come, or its first half.
    pub(super) fn has_news(&mut self) -> bool {
        let Some(connection) = self.connection.as_mut().filter(|it| !it.is_broken()) else {
            return false;
        };
        connection.has_news()
    }
}
