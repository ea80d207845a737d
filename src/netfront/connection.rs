//! One connection to the backend: how it fares.

use super::budget::SENDING;
use super::fault::Fault;
use super::queues::{Queue, Queues};
use crate::platform::{Instant, Platform};
use packet_views::features::Features;

/// In the order in which things go wrong.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd)]
pub(super) enum State {
    /// Published; the backend is not there yet.
    Waiting,
    /// Both ends are connected.
    Live,
    /// As before, but the backend says that its cable is out, so to speak.
    NoCarrier,
    /// The backend is silent. Nothing more is sent, but what comes is received until xenbus has
    /// closed the connection.
    Stalled,
    /// The backend broke a rule, and `service` does not know yet.
    Broken,
    /// As before, and xenbus is closing the connection.
    Closing,
}

pub(super) struct Connection {
    pub(super) queues: Queues,
    /// What packets to the backend may use.
    pub(super) features: Features,
    /// The most bytes of a packet that is not to be cut, Ethernet header included.
    pub(super) longest: usize,
    pub(super) state: State,
    /// The queue that receives first the next time.
    next: usize,
    /// What sending held when `service` had last seen to everything; `None` if there was something left to
    /// do.
    settled: Option<u32>,
}

impl Connection {
    pub(super) fn new(queues: Queues, features: Features, longest: usize) -> Connection {
        Connection { queues, features, longest, state: State::Waiting, next: 0, settled: None }
    }

    /// The backend is connected. True if it was not before.
    pub(super) fn go_live(&mut self, now: Instant, carrier: bool) -> bool {
        let to = if carrier { State::Live } else { State::NoCarrier };
        let news = self.state == State::Waiting;
        if self.state <= State::NoCarrier && self.state != to {
            self.state = to;
            self.queues.each(|queue| queue.tx_moved = now);
        }
        news
    }

    /// `service` has seen to everything: is there something left that it waits for?
    pub(super) fn settled(&mut self) {
        let held = self.queues.held();
        let is_settled = self.state == State::Live
            && held >= SENDING
            && self.queues.iter().all(Queue::is_settled);
        self.settled = is_settled.then_some(held);
        self.queues.each(|queue| queue.settled = queue.progress());
    }

    /// Whether nothing has been sent or received since [`settled`](Connection::settled), nor taken to be
    /// written.
    #[inline]
    pub(super) fn is_idle(&mut self, now: Instant) -> bool {
        if self.state != State::Live
            || self.settled != Some(self.queues.held())
            || self.queues.iter().any(|queue| queue.settled != queue.progress())
        {
            return false;
        }
        // Nothing is outstanding, which is a look at which transmit was idle.
        self.queues.each(|queue| queue.tx_moved = now);
        true
    }

    /// Whether packets may be sent.
    #[inline]
    pub(super) fn takes_packets(&self) -> bool {
        self.state == State::Live
    }

    /// Whether the rings must be left alone.
    #[inline]
    pub(super) fn is_broken(&self) -> bool {
        self.state >= State::Broken
    }

    /// The backend broke a rule.
    #[cold]
    #[inline(never)]
    pub(super) fn break_down(&mut self, fault: Fault) {
        if !self.is_broken() {
            log::warn!("vif: protocol violation by the backend, reconnecting: {fault}");
            self.state = State::Broken;
        }
    }

    /// Lets each queue receive within what is left of `budget`, another one first each time, until
    /// one is at fault; returns how much they took.
    pub(super) fn in_turn(
        &mut self,
        budget: usize,
        mut receive: impl FnMut(&mut Queue, usize) -> Result<usize, Fault>,
    ) -> Result<usize, Fault> {
        let (last, mut left) = (self.queues.others.len(), budget);
        let mut number = self.next;
        self.next = if number < last { number + 1 } else { 0 };
        for _ in 0..=last {
            left -= receive(self.queues.number(number), left)?.min(left);
            number = if number < last { number + 1 } else { 0 };
        }
        Ok(budget - left)
    }

    /// Whether a packet has come.
    pub(super) fn has_news(&mut self) -> bool {
        let (mut news, mut fault) = (false, None);
        self.queues.each(|queue| match queue.rx.has_news() {
            Ok(has) => news |= has,
            Err(found) => fault = Some(found),
        });
        if let Some(fault) = fault {
            self.break_down(fault);
        }
        news && !self.is_broken()
    }

    /// Asks for events on all queues. True if there is something to do already.
    pub(super) fn arm(&mut self, platform: &impl Platform, takes_packets: bool) -> bool {
        if self.is_broken() {
            // `service` has not seen it yet, or waits for the backend to close.
            return self.state == State::Broken;
        }
        let (mut busy, mut fault) = (false, None);
        self.queues.each(|queue| match queue.arm(takes_packets) {
            Ok(news) => busy |= news,
            Err(found) => fault = Some(found),
        });
        if let Some(fault) = fault {
            self.break_down(fault);
            return true;
        }
        if self.queues.wants_page && self.queues.iter().any(|queue| queue.tx.has_spare()) {
            self.queues.wants_page = false;
            busy = true;
        }
        if !busy {
            self.queues.each(|queue| queue.say_handled(platform));
        }
        busy
    }
}
