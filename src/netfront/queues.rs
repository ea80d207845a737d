//! The queues of a connection, and how they share pages and packets.

use alloc::vec::Vec;

use xen_grant::{Frame, Quarantine, Reference};
use xen_ring::Notify;

use super::budget::{Budget, SENDING};
use super::counters::Counters;
use super::fault::Fault;
use super::rx::RxQueue;
use super::target::LARGEST;
use super::tx::{SPARE, TxQueue};
use crate::platform::{Instant, Platform, Port};
use crate::wire::RING_SIZE;
use packet_views::buffer::{AnyPacket, View};
use packet_views::header::{flow_hash, packet_flow_hash};

/// A pair of rings, and the event channels that announce news on them.
pub(super) struct Queue {
    pub(super) tx: TxQueue,
    pub(super) rx: RxQueue,
    pub(super) tx_port: Port,
    /// The same one unless the channels are split.
    pub(super) rx_port: Port,
    /// The last look at which transmit was idle or had moved.
    pub(super) tx_moved: Instant,
    /// How far transmit had been answered then, and asked.
    pub(super) answered_then: u32,
    pub(super) asked_then: u32,
    /// Whether the backend waits to hear of the pages posted since the last flush.
    pub(super) tell_rx: Notify,
    /// How far either ring had got when the platform was last told.
    pub(super) told: (u32, u32),
    /// How far they had got when `service` had last seen to everything.
    pub(super) settled: (u32, u32),
}

impl Queue {
    pub(super) fn new(tx: TxQueue, rx: RxQueue, ports: (Port, Port), now: Instant) -> Queue {
        let told = (tx.answered(), rx.answered());
        let (tx_port, rx_port) = ports;
        let (answered_then, asked_then, tell_rx) = (told.0, told.0, Notify::Suppressed);
        Queue {
            tx,
            rx,
            tx_port,
            rx_port,
            tx_moved: now,
            answered_then,
            asked_then,
            tell_rx,
            told,
            settled: told,
        }
    }

    /// Whether all that was outstanding at the last look has been answered: what is outstanding now has
    /// begun since then, whenever that was.
    pub(super) fn is_fresh(&self) -> bool {
        // At most a ring lies between the two.
        self.tx.answered().wrapping_sub(self.asked_then) <= u32::MAX / 2
    }

    /// How far transmit has been asked, and receive answered.
    #[inline]
    pub(super) fn progress(&self) -> (u32, u32) {
        (self.tx.asked(), self.rx.answered())
    }

    /// Whether nothing is outstanding, and as many pages posted as are wanted.
    pub(super) fn is_settled(&self) -> bool {
        self.tx.outstanding() == 0 && self.rx.is_full()
    }

    /// Posts pages, if it is worth it; the backend is told of them by the next flush, if it waits.
    #[inline]
    pub(super) fn refill(&mut self, budget: &mut Budget, counters: &mut Counters) {
        if self.rx.refill(budget, counters) == Notify::Needed {
            self.tell_rx = Notify::Needed;
        }
    }

    /// Shows the backend what has been sent, and tells it of that and of pages posted: by one event
    /// at most on each channel.
    #[inline]
    pub(super) fn flush(&mut self, counters: &mut Counters, platform: &impl Platform) {
        let tell_tx = self.tx.publish(counters);
        let tell_rx = core::mem::replace(&mut self.tell_rx, Notify::Suppressed);
        if tell_tx == Notify::Needed || tell_rx == Notify::Needed && self.tx_port == self.rx_port {
            counters.events_sent += 1;
            platform.notify(self.tx_port);
        }
        if tell_rx == Notify::Needed && self.tx_port != self.rx_port {
            counters.events_sent += 1;
            platform.notify(self.rx_port);
        }
    }

    /// Whether the largest packet finds no room, for want of frames.
    #[inline]
    pub(super) fn is_starved(&self) -> bool {
        self.rx.posted() < LARGEST
    }

    /// Whether too much is in quarantine for the largest packet ever to find room, either way.
    pub(super) fn is_crippled(&self) -> bool {
        self.rx.capacity().min(self.tx.capacity()) < LARGEST
    }

    /// Asks for events; true if there is something to do already. Nobody asks for packets while the
    /// layer above takes none.
    #[inline]
    pub(super) fn arm(&mut self, takes_packets: bool) -> Result<bool, Fault> {
        // While packets come, no event is asked for.
        Ok(takes_packets && (self.rx.has_news()? || self.rx.arm()?) || self.tx.arm()?)
    }

    /// Tells the platform that all that was announced has been seen to.
    pub(super) fn say_handled(&mut self, platform: &impl Platform) {
        let now = (self.tx.answered(), self.rx.answered());
        let (tx, rx) = (now.0 != self.told.0, now.1 != self.told.1);
        self.told = now;
        if self.tx_port == self.rx_port {
            platform.handled(self.tx_port, tx || rx);
        } else {
            platform.handled(self.tx_port, tx);
            platform.handled(self.rx_port, rx);
        }
    }
}

/// The queues of one connection.
pub(super) struct Queues {
    /// It has a place of its own, for most vifs have no other: what is sent one by one finds it without a
    /// bounds check or a loop.
    pub(super) first: Queue,
    pub(super) others: Vec<Queue>,
    /// Somebody looked for a page to send, and there was none.
    pub(super) wants_page: bool,
}

impl Queues {
    pub(super) fn of(first: Queue) -> Queues {
        Queues { first, others: Vec::new(), wants_page: false }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Queue> {
        core::iter::once(&self.first).chain(&self.others)
    }

    /// The first, if there is no other.
    #[inline]
    pub(super) fn only(&mut self) -> Option<&mut Queue> {
        self.others.is_empty().then_some(&mut self.first)
    }

    /// Goes through all of them. (One call of `act` in the code, so that it is inlined.)
    #[inline]
    pub(super) fn each(&mut self, mut act: impl FnMut(&mut Queue)) {
        let (mut next, mut others) = (Some(&mut self.first), self.others.iter_mut());
        while let Some(queue) = next {
            act(queue);
            next = others.next();
        }
    }

    /// Posts pages on all queues, where it is worth it.
    #[inline]
    pub(super) fn refill(&mut self, budget: &mut Budget, counters: &mut Counters) {
        self.first.refill(budget, counters);
        if !self.others.is_empty() {
            self.refill_others(budget, counters);
        }
    }

    #[inline(never)]
    pub(super) fn refill_others(&mut self, budget: &mut Budget, counters: &mut Counters) {
        self.others.iter_mut().for_each(|queue| queue.refill(budget, counters));
    }

    pub(super) fn into_iter(self) -> impl Iterator<Item = Queue> {
        core::iter::once(self.first).chain(self.others)
    }

    /// A frame to write a packet into: one that any queue keeps, or else of the pool.
    #[inline]
    pub(super) fn frame(&mut self, budget: &mut Budget) -> Option<Frame> {
        match self.first.tx.spare() {
            Some(frame) => Some(frame),
            None => self.another_frame(budget),
        }
    }

    #[cold]
    #[inline(never)]
    fn another_frame(&mut self, budget: &mut Budget) -> Option<Frame> {
        let spare = self.others.iter_mut().find_map(|other| other.tx.spare());
        let frame = spare.or_else(|| budget.frame_to_send(self.held()));
        self.wants_page |= frame.is_none();
        frame
    }

    /// Somebody has found no room for so many slots on every queue, and may wait for it.
    #[cold]
    pub(super) fn want(&mut self, slots: usize) {
        self.each(|queue| {
            if !queue.tx.has_room(slots) {
                queue.tx.want(slots);
            }
        });
    }

    /// Pages that sending holds.
    pub(super) fn held(&self) -> u32 {
        self.iter().map(|queue| queue.tx.held()).sum()
    }

    /// Sees to it that sending has at hand what it was promised, and no more while a queue receives
    /// nothing for want of pages.
    pub(super) fn share_out(&mut self, budget: &mut Budget) {
        let mut held = self.held();
        budget.sends_with(held);
        while held < SENDING
            && let Some(frame) = budget.frame_to_send(held)
        {
            self.first.tx.keep(frame);
            held += 1;
        }
        if self.iter().any(Queue::is_starved) {
            let mut most = SPARE;
            self.each(|queue| {
                most -= queue.tx.let_spares_go(most);
                queue.rx.let_spares_go();
            });
        }
    }

    /// Slots that a packet may take at most, whichever queue it goes to.
    pub(super) fn capacity(&self) -> usize {
        self.iter().map(|queue| queue.tx.capacity()).min().unwrap_or(0) as usize
    }

    /// Whether some queue can't carry the largest packet any more.
    pub(super) fn is_crippled(&self) -> bool {
        self.iter().any(Queue::is_crippled)
    }

    /// Gives a page and a reference that have come out of quarantine to the queue that lacks most; false
    /// if none lacks any.
    pub(super) fn restore(&mut self, reference: Reference) -> bool {
        let mut reference = Some(reference);
        let lacks = |queue: &Queue| (RING_SIZE as u32 - queue.tx.capacity()).max(queue.rx.lacks());
        let most = self.iter().map(lacks).max().unwrap_or(0);
        if most == 0 {
            return false;
        }
        self.each(|queue| {
            if lacks(queue) == most
                && let Some(one) = reference.take()
            {
                if queue.rx.lacks() == most {
                    queue.rx.restore(one);
                } else {
                    reference = queue.tx.restore(one).err();
                }
            }
        });
        true
    }

    /// The queue for a packet that begins with `head`: one flow, one queue.
    #[inline]
    pub(super) fn of_flow(&mut self, head: &[u8]) -> &mut Queue {
        if self.others.is_empty() { &mut self.first } else { self.by_hash(flow_hash(head)) }
    }

    /// The queue for a packet, however it is cut.
    #[inline]
    pub(super) fn of_packet<V: View>(&mut self, packet: &AnyPacket<V>) -> &mut Queue {
        if self.others.is_empty() {
            &mut self.first
        } else {
            self.by_hash(packet_flow_hash(packet))
        }
    }

    #[inline(never)]
    fn by_hash(&mut self, hash: u32) -> &mut Queue {
        // The hash as a fraction of 2^32.
        let count = self.others.len() as u64 + 1;
        self.number(((u64::from(hash) * count) >> 32) as usize)
    }

    /// The first is number 0. There are as many as that.
    #[inline]
    pub(super) fn number(&mut self, number: usize) -> &mut Queue {
        match number.checked_sub(1).and_then(|other| self.others.get_mut(other)) {
            Some(other) => other,
            None => &mut self.first,
        }
    }

    /// Takes back what the backend is done with, on all queues; returns how many slots that were.
    #[inline(never)]
    pub(super) fn complete(
        &mut self,
        quarantine: &mut Quarantine,
        counters: &mut Counters,
    ) -> Result<usize, Fault> {
        let mut answered = self.first.tx.complete(quarantine, counters)?;
        for queue in &mut self.others {
            answered += queue.tx.complete(quarantine, counters)?;
        }
        Ok(answered)
    }

    /// Shows the backend what has been sent and tells it of all that is due, on all queues.
    #[inline]
    pub(super) fn flush(&mut self, counters: &mut Counters, platform: &impl Platform) {
        self.first.flush(counters, platform);
        if !self.others.is_empty() {
            self.flush_others(counters, platform);
        }
    }

    #[inline(never)]
    pub(super) fn flush_others(&mut self, counters: &mut Counters, platform: &impl Platform) {
        self.others.iter_mut().for_each(|queue| queue.flush(counters, platform));
    }

    /// Whether `slots` slots have room, whichever queue they go to.
    #[inline]
    pub(super) fn has_room(&self, slots: usize) -> bool {
        self.first.tx.has_room(slots) && self.others.iter().all(|queue| queue.tx.has_room(slots))
    }

    /// Slots that are free on the fullest ring.
    #[inline]
    pub(super) fn room(&self) -> usize {
        let others = self.others.iter().map(|queue| queue.tx.room());
        others.fold(self.first.tx.room(), usize::min)
    }
}
