//! The loop: packets of those whose event has come, and who waits for the next.

use core::future::poll_fn;
use core::task::{Context, Poll};

use packet_views::Wake;

use super::{ClientId, Clients, NEVER, Slot, id};
use crate::buffer::{Packet, PacketMut};
use crate::netback::error::{DeliverError, DeliverErrorKind};
use crate::platform::{BackendPlatform, Instant, Port};
use xen_store::Store;

/// The most packets that wait for a client until it has been polled.
const MAX_RETURNED: usize = 1024;

impl<P: BackendPlatform, S: Store + Clone> Clients<P, S> {
    /// One turn: sees to xenstore, and hands up to `budget` packets of each client whose event has come to
    /// `sink`, with the client that sent it. Returns how many packets there were.
    ///
    /// The budget is work, as [`Netback::poll`](crate::netback::Netback::poll) counts it. The sink may
    /// [`deliver`](Clients::deliver) to any client, the one that sent it too, and
    /// [pause](Clients::pause_receive): then nobody else is polled. What else it does to all clients, the one
    /// that it is called for learns after its turn.
    pub fn turn(
        &mut self,
        budget: usize,
        mut sink: impl FnMut(&mut Self, ClientId, PacketMut),
    ) -> usize {
        self.service();
        self.busy.extend(self.ready.take());
        let (mut left, mut packets) = (self.busy, 0);
        // The sink may find that there is no room for more.
        while !self.is_paused
            && let Some(number) = left.next_from(self.next_busy)
        {
            left.remove(number);
            self.next_busy = number + 1;
            packets += self.poll_one(number, budget, &mut sink);
        }
        if self.is_paused {
            // They get what waits for them all the same. All are polled when the pause ends.
            self.touched.extend(core::mem::take(&mut self.busy));
        }
        packets
    }

    fn poll_one(
        &mut self,
        number: usize,
        budget: usize,
        sink: &mut impl FnMut(&mut Self, ClientId, PacketMut),
    ) -> usize {
        let Some(slot) = self.slots.get_mut(number) else { return 0 };
        let client = id(number, slot.generation);
        // Packets are being handed up already: this client keeps its turn.
        let Some(mut scratch) = self.scratch.from.take() else { return 0 };
        let Some(mut vif) = slot.vif.take() else {
            self.scratch.from = Some(scratch);
            return 0;
        };
        self.busy.remove(number);
        let before = self.polled.replace(number);
        let packets = vif.poll(&mut scratch, budget, |packet| sink(self, client, packet));
        self.scratch.from = Some(scratch);
        self.polled = before;
        // Whatever the sink has done: it may have rearmed.
        self.touched.insert(number);
        for packet in self.returned.drain(..) {
            if let Err(DeliverError::Full(packet)) = vif.deliver(packet) {
                vif.flush(&mut self.scratch.to);
                // Nobody is there to take it back.
                vif.deliver_or_drop(packet);
            }
        }
        if vif.is_at_fault() {
            self.asked.insert(number);
        }
        if let Some(slot) = self.slots.get_mut(number) {
            slot.vif = Some(vif);
        }
        if core::mem::take(&mut self.missed) {
            self.make_up(number);
        }
        packets
    }

    /// Tells the client that was polled what all were told meanwhile.
    #[cold]
    fn make_up(&mut self, number: usize) {
        let is_resumed = core::mem::take(&mut self.missed_resume);
        self.with(number, |this, vif, _| {
            if is_resumed {
                vif.resumed();
            }
            if this.is_closing {
                vif.close();
            }
            if let Some(up) = this.carrier {
                vif.set_carrier(up);
            }
            vif.pause_receive(this.is_paused);
            vif.ask();
            this.asked.insert(number);
            this.busy.insert(number);
        });
    }

    /// Flushes all clients that got something, and asks for events of those that had a turn. True if there is
    /// something to do already: then go round again instead of waiting until
    /// [`next_deadline`](Clients::next_deadline).
    pub fn rearm(&mut self) -> bool {
        let mut left = core::mem::take(&mut self.touched);
        while let Some(number) = left.next_from(0) {
            left.remove(number);
            self.with(number, |this, vif, waker| {
                vif.waker().register(waker);
                // What has broken a rule is not polled any more, but taken down.
                if vif.rearm(&mut this.scratch.to) && !vif.is_at_fault() {
                    this.busy.insert(number);
                }
            });
        }
        self.next_deadline().is_some_and(|at| at <= self.platform.now())
    }

    /// Gives every client what it has posted pages for, and tells it. [`rearm`](Clients::rearm) does too.
    pub fn flush(&mut self) {
        let mut left = self.touched;
        while let Some(number) = left.next_from(0) {
            left.remove(number);
            self.with(number, |this, vif, _| vif.flush(&mut this.scratch.to));
        }
    }

    /// Whether there is something to do. If not, the task is woken when a client's event comes; that of an
    /// earlier call is forgotten. Time ([`next_deadline`](Clients::next_deadline)) and events of xenstore's are
    /// the caller's: [`waker`](Clients::waker).
    pub fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.ready.wake.register(context.waker());
        if self.rearm() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Waits until there is something to do. It needs no runtime, and dropping it loses nothing.
    pub fn ready(&mut self) -> impl Future<Output = ()> {
        poll_fn(|context| self.poll_ready(context))
    }

    /// Who waits for the clients.
    pub fn waker(&self) -> &Wake {
        &self.ready.wake
    }

    /// There was an event on this port: its client has a turn. For platforms that do not keep what
    /// [`Platform::opened`](crate::platform::Platform::opened) tells them.
    pub fn event(&mut self, port: Port) {
        if let Some(&number) = self.ports.get(&port) {
            self.busy.insert(number);
        }
    }

    /// When [`turn`](Clients::turn) has something to do though nothing happens.
    pub fn next_deadline(&mut self) -> Option<Instant> {
        let now = self.platform.now();
        let due = self.wake_due(now);
        let asked = (!self.asked.is_empty()).then_some(now);
        let store = self.listing.next_deadline(now).into_iter().chain(asked).min();
        let rest = self.allowance.rests_until(now);
        let store = store.map(|at| rest.map_or(at, |rest| rest.max(at)));
        if !self.ready.is_empty() || !self.busy.is_empty() {
            return Some(now);
        }
        store.into_iter().chain((due < NEVER).then_some(due)).min()
    }

    /// Queues a packet for a client, as [`Netback::deliver`](crate::netback::Netback::deliver) does. One for the
    /// client that is being polled is taken in any case, and dropped if there is no room for it afterwards.
    #[inline]
    #[expect(clippy::result_large_err, reason = "the packet comes back, not an error")]
    pub fn deliver(&mut self, to: ClientId, packet: Packet) -> Result<(), DeliverError> {
        let number = to.slot as usize;
        match self.slots.get_mut(number).filter(|slot| slot.generation == to.generation) {
            Some(Slot { vif: Some(vif), .. }) => {
                self.touched.insert(number);
                vif.deliver(packet)
            }
            Some(_) if self.polled == Some(number) => {
                // They are queued when it has been polled, as its pages come free; not without end, and
                // none without memory.
                let is_full = self.returned.len() >= MAX_RETURNED;
                if is_full || self.returned.try_reserve(1).is_err() {
                    return Err(DeliverError::Full(packet));
                }
                self.returned.push(packet);
                Ok(())
            }
            Some(_) | None => Err(DeliverErrorKind::NotConnected.into()),
        }
    }

    /// Whether packets of the clients' wait where they are: for when they could not go on anyway. As long as
    /// they do their events are not asked for.
    pub fn pause_receive(&mut self, is_paused: bool) {
        if is_paused == self.is_paused {
            return;
        }
        self.is_paused = is_paused;
        for number in 0..self.slots.len() {
            self.with(number, |this, vif, _| {
                vif.pause_receive(is_paused);
                // What came meanwhile is looked for.
                if vif.is_connected() && !is_paused {
                    this.busy.insert(number);
                }
            });
        }
    }
}
