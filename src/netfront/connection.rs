//! One connection to the backend: its queues, and how they fare.

use alloc::vec::Vec;

use super::Fault;
use super::rx::RxQueue;
use super::tx::TxQueue;
use crate::features::Features;
use crate::platform::{Instant, Platform, Port};

/// A pair of rings, and the event channels that announce news on them.
pub(super) struct Queue {
    pub(super) tx: TxQueue,
    pub(super) rx: RxQueue,
    pub(super) tx_port: Port,
    /// The same one unless the channels are split.
    pub(super) rx_port: Port,
    /// The last moment at which transmit was idle or moved.
    pub(super) tx_moved: Instant,
    /// How far transmit had got then.
    pub(super) answered_then: u32,
    /// How far either ring had got when the platform was last told.
    told: (u32, u32),
}

impl Queue {
    pub(super) fn new(tx: TxQueue, rx: RxQueue, ports: (Port, Port), now: Instant) -> Queue {
        let told = (tx.answered(), rx.answered());
        let (tx_port, rx_port) = ports;
        Queue { answered_then: told.0, tx, rx, tx_port, rx_port, tx_moved: now, told }
    }

    /// Asks for events; true if there is something to do already.
    #[inline]
    fn arm(&mut self) -> Result<bool, Fault> {
        // While packets come, no event is asked for.
        Ok(self.rx.has_news()? || self.rx.arm()? || self.tx.arm()?)
    }

    /// Tells the platform that all that was announced has been seen to.
    fn say_handled(&mut self, platform: &impl Platform) {
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

/// The queues of one connection. It has at least one once it is published.
pub(super) struct Connection {
    pub(super) queues: Vec<Queue>,
    /// What packets to the backend may use.
    pub(super) features: Features,
    /// The most bytes of a packet that is not to be cut, Ethernet header included.
    pub(super) longest: usize,
    pub(super) state: State,
    /// The queue that receives first the next time.
    next: usize,
}

impl Connection {
    pub(super) fn new(features: Features, longest: usize) -> Connection {
        Connection { queues: Vec::new(), features, longest, state: State::Waiting, next: 0 }
    }

    /// The backend is connected. True if it was not before.
    pub(super) fn go_live(&mut self, now: Instant, carrier: bool) -> bool {
        let to = if carrier { State::Live } else { State::NoCarrier };
        let news = self.state == State::Waiting;
        if self.state <= State::NoCarrier && self.state != to {
            self.state = to;
            self.queues.iter_mut().for_each(|queue| queue.tx_moved = now);
        }
        news
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
            log::warn!("vif: the backend broke a rule: {fault}");
            self.state = State::Broken;
        }
    }

    /// The queues to receive from, each once, another one first each time.
    #[inline]
    pub(super) fn in_turn(&mut self) -> impl Iterator<Item = &mut Queue> {
        let first = self.next;
        self.next = if first + 1 < self.queues.len() { first + 1 } else { 0 };
        let (later, sooner) = self.queues.split_at_mut_checked(first).unwrap_or_default();
        sooner.iter_mut().chain(later)
    }

    /// Slots that are free on the fullest ring.
    #[inline]
    pub(super) fn room(&self) -> usize {
        self.queues.iter().map(|queue| queue.tx.room()).min().unwrap_or(0)
    }

    /// Asks for events on all queues. True if there is something to do already.
    pub(super) fn arm(&mut self, platform: &impl Platform) -> bool {
        if self.is_broken() {
            // `service` has not seen it yet, or waits for the backend to close.
            return self.state == State::Broken;
        }
        let mut busy = false;
        for queue in &mut self.queues {
            match queue.arm() {
                Ok(news) => busy |= news,
                Err(fault) => {
                    self.break_down(fault);
                    return true;
                }
            }
        }
        if !busy {
            self.queues.iter_mut().for_each(|queue| queue.say_handled(platform));
        }
        busy
    }
}

/// The queue for a packet that begins with these bytes: one flow, one queue.
#[inline]
pub(super) fn queue_for<'a>(queues: &'a mut [Queue], head: &[u8]) -> Option<&'a mut Queue> {
    match queues {
        [only] => Some(only),
        many => {
            let hash = u64::from(crate::header::flow_hash(head));
            // The hash as a fraction of 2^32.
            many.get_mut((hash * many.len() as u64 >> 32) as usize)
        }
    }
}
