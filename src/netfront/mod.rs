//! The frontend of a vif: a network device on two rings.
//!
//! ```text
//!   upper layers        reserve ─► send ─► flush            poll_rx ─► sink(packet)
//!                          │                 │                 ▲
//!   tx.rs / rx.rs          ▼ grant           ▼ publish         │ revoke, then read
//!                    ┌───────────────── rings, grant table ─────────────────┐
//!   backend          │  copies out of, or maps, our pages      fills pages  │
//!                    └──────────────────────────────────────────────────────┘
//!   xenbus           service: connects, reconnects, watches over the backend
//! ```
//!
//! A device is driven by a loop; how it waits is the platform's business (busy polling, an
//! interrupt, an async task):
//!
//! ```no_run
//! # use xen_netfront::{netfront::Netfront, platform::Platform, store::Store};
//! # fn wait_for_an_event<T>(_: T) {}
//! # fn upper_layer<P>(_: P) {}
//! # fn example<P: Platform, S: Store>(mut net: Netfront<P, S>) {
//! loop {
//!     net.service(); // xenbus, timers: cheap when nothing happened
//!     net.complete_tx();
//!     net.poll_rx(64, |packet| upper_layer(packet));
//!     // ... let the upper layer send: net.reserve(..) and send(..), or net.batch() ...
//!     net.flush(); // the backend learns of all of it at once
//!     if !net.rearm() {
//!         wait_for_an_event(net.next_deadline()); // on net.port(), or a xenstore watch
//!     }
//! }
//! # }
//! ```

mod connect;
mod fault;
mod permit;
mod rx;
mod stats;
mod tx;

use alloc::vec::Vec;
use core::time::Duration;

use xen_grant::{Frame, FramePool, GrantTable, Quarantine, Reference, TableFull};
use xen_ring::Notify;

use crate::buffer::{RxPacket, TxBuf};
use crate::features::Features;
use crate::netif::Linear;
use crate::platform::{Instant, Platform, Port};
use crate::store::{Store, StoreError};
use crate::wire::{MAX_SLOTS, RING_SIZE};
use crate::xenbus::{BackendOffer, FrontBus, FrontStep};
use connect::Queue;

pub use fault::Fault;
pub use permit::{TxBatch, TxPermit};
pub use stats::{RxDrops, Stats, TxDrops};

/// Grants of a device: both rings full, and the two ring pages.
const QUOTA: usize = 2 * RING_SIZE + 2;
/// Transmitted packets that stay unanswered for so long mean that the backend has gone silent.
const STALL: Duration = Duration::from_secs(10);
/// How long to wait for frames when the receive ring has run empty for want of them.
const NO_FRAME_RETRY: Duration = Duration::from_millis(10);

/// What the frontend asks for. The backend may have less to offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// What to take from the backend, and what to give it if it takes as much.
    ///
    /// With checksums, received packets may come with a blank one
    /// ([`Checksum::Blank`](crate::buffer::Checksum::Blank)); with GSO, up to 65,535 bytes long
    /// ([`Meta::gso`](crate::buffer::Meta)). `phy` knows what to do with either.
    pub features: Features,
    /// Queues: pairs of rings that a backend can serve side by side, at most
    /// [`MAX_QUEUES`](crate::xenbus::MAX_QUEUES). What one takes of grants and pages, each takes.
    pub queues: u32,
    /// An event channel for each ring, rather than one for both.
    pub split_event_channels: bool,
    /// Pages posted for receiving, on each queue, while little arrives: at least 18.
    pub rx_floor: u16,
    /// The most pages posted, on each queue, while much arrives: at most 256.
    pub rx_ceiling: u16,
    /// The most bytes in flight to the backend, on each queue, before
    /// [`reserve`](Netfront::reserve) says that there is no room. With `None` the ring is the limit.
    /// One packet always goes.
    pub tx_bytes: Option<u32>,
    /// Where the ring indices start. They wrap, so tests start shortly before that.
    pub ring_start: u32,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            features: Features::ALL,
            queues: 1,
            split_event_channels: true,
            rx_floor: 64,
            rx_ceiling: RING_SIZE as u16,
            tx_bytes: None,
            ring_start: 0,
        }
    }
}

/// Why a device could not be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// Xenstore would not let us watch the vif.
    Store(StoreError),
    /// The grant table has not enough references left for the device.
    Table(TableFull),
}

impl core::fmt::Display for OpenError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            OpenError::Store(error) => error.fmt(f),
            OpenError::Table(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for OpenError {}

/// Whether packets can be sent and received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// Not connected, not any more, or not yet.
    Down,
    /// Both ends are connected.
    Up,
}

/// The frontend of a vif. It owns its grants: dropped, it ends them all, or leaves them to the
/// grant table's quarantine.
pub struct Netfront<P: Platform, S: Store> {
    platform: P,
    bus: FrontBus<S>,
    pool: FramePool,
    table: GrantTable,
    config: Config,
    queue: Option<Queue>,
    references: Vec<Reference>,
    quarantine: Quarantine,
    stats: Stats,
    /// For layers above that want a large packet in one slice.
    linear: Linear,
}

impl<P: Platform, S: Store> Netfront<P, S> {
    /// Opens vif number `vif` of this domain. [`service`](Netfront::service) then connects it.
    ///
    /// It claims all the grant references that it will use. Pages come from `pool`: up to 256 are
    /// posted for receiving, and as many as there are packets in flight are sent.
    pub fn open(
        platform: P,
        store: S,
        pool: &FramePool,
        table: &GrantTable,
        vif: u32,
        config: Config,
    ) -> Result<Netfront<P, S>, OpenError> {
        let bus = FrontBus::open(store, vif).map_err(OpenError::Store)?;
        let references = table.claim_many(QUOTA).map_err(OpenError::Table)?;
        Ok(Netfront {
            platform,
            bus,
            pool: pool.clone(),
            table: table.clone(),
            config,
            queue: None,
            references,
            quarantine: Quarantine::new(QUOTA),
            stats: Stats::default(),
            linear: Linear::default(),
        })
    }

    /// Sees to xenbus and to timers: connects, reconnects, retries revokes, watches over a silent
    /// backend. Call it when a watch fires, when [`next_deadline`](Netfront::next_deadline) has
    /// come, or simply every time round; it looks at xenstore only when there is something new.
    pub fn service(&mut self) {
        let now = self.platform.now();
        self.retry_quarantine(now);
        self.watch_queue(now);
        match self.bus.poll(now) {
            FrontStep::Wait => {}
            FrontStep::Connect => self.connect(now),
            FrontStep::Live => {
                if let Some(queue) = &mut self.queue
                    && queue.go_live(now)
                {
                    self.stats.connects += 1;
                }
            }
            FrontStep::Release => {
                self.dismantle();
                self.bus.released(now);
            }
            FrontStep::Gone => self.dismantle(),
        }
        // Frames may have come home since the last time.
        self.refill();
    }

    /// When [`service`](Netfront::service) has something to do though nothing happens.
    pub fn next_deadline(&self) -> Option<Instant> {
        let queue = self.queue.as_ref();
        let stall = queue.filter(|queue| queue.takes_packets() && queue.tx.outstanding() > 0);
        let starved = queue.filter(|queue| !queue.is_broken() && queue.rx.posted() == 0);
        [
            self.bus.next_deadline(),
            self.quarantine.next_retry().map(|at| Instant(0) + at),
            stall.map(|queue| queue.tx_moved + STALL),
            starved.map(|_| self.platform.now() + NO_FRAME_RETRY),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Whether packets can be sent and received.
    pub fn link(&self) -> Link {
        match &self.queue {
            Some(queue) if queue.takes_packets() => Link::Up,
            _ => Link::Down,
        }
    }

    /// The event channel on which the backend wakes us, while there is one.
    pub fn port(&self) -> Option<Port> {
        self.queue.as_ref().map(|queue| queue.port)
    }

    /// What the toolstack and the backend say of themselves: MAC, MTU, features.
    pub fn backend(&self) -> &BackendOffer {
        self.bus.offer()
    }

    /// Counters.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Pages that the backend uses though it should not. With more than a quarter of the device's
    /// pages here, it stays down.
    pub fn quarantined(&self) -> usize {
        self.quarantine.len()
    }

    /// Begins an orderly disconnect. [`service`](Netfront::service) goes on with it until the
    /// link is down and [`closed`](Netfront::closed) says so.
    pub fn disconnect(&mut self) {
        self.bus.close(self.platform.now());
    }

    /// Whether an orderly disconnect has come to its end.
    pub fn closed(&self) -> bool {
        self.queue.is_none() && self.bus.is_closed()
    }

    // -- receive ----------------------------------------------------------------------------

    /// Hands up to `budget` received packets to `sink`, and posts new pages in the place of
    /// theirs. Returns how many packets it looked at, dropped ones included.
    pub fn poll_rx(&mut self, budget: usize, sink: impl FnMut(RxPacket)) -> usize {
        let Some(queue) = self.queue.as_mut().filter(|queue| !queue.is_broken()) else { return 0 };
        match queue.rx.poll(budget, &mut self.quarantine, &mut self.stats, sink) {
            Ok(0) => 0,
            Ok(packets) => {
                self.refill();
                packets
            }
            Err(fault) => {
                queue.break_down(fault);
                0
            }
        }
    }

    pub(crate) fn refill(&mut self) {
        if let Some(queue) = self.queue.as_mut().filter(|queue| !queue.is_broken())
            && queue.rx.refill(&self.pool, &mut self.stats) == Notify::Needed
        {
            self.stats.events_sent += 1;
            self.platform.notify(queue.port);
        }
    }

    // -- transmit ---------------------------------------------------------------------------

    /// A frame to write a packet into. `None` when the pool has none left.
    #[inline]
    pub fn frame(&mut self) -> Option<Frame> {
        match &mut self.queue {
            Some(queue) => queue.tx.frame(&self.pool),
            None => self.pool.take(),
        }
    }

    /// An empty buffer with `headroom` bytes reserved in front; see [`frame`](Netfront::frame).
    #[inline]
    pub fn buffer(&mut self, headroom: usize) -> Option<TxBuf> {
        Some(TxBuf::new(self.frame()?, headroom))
    }

    /// Reserves room for a packet of up to `slots` fragments, so that sending it can't fail.
    /// `None` while the ring is full or the link is down: try again after
    /// [`complete_tx`](Netfront::complete_tx), or after [`service`](Netfront::service).
    #[inline]
    pub fn reserve(&mut self, slots: usize) -> Option<TxPermit<'_>> {
        let max_fragments = self.max_fragments();
        let queue = self.queue.as_mut().filter(|queue| queue.takes_packets())?;
        if !queue.tx.has_room(slots) {
            return None;
        }
        Some(TxPermit::new(
            &mut queue.tx,
            &mut self.stats,
            self.bus.offer(),
            slots.min(max_fragments),
        ))
    }

    /// Begins a burst of packets of one fragment each: the leanest way to send many. `None` while
    /// the link is down.
    #[inline]
    pub fn batch(&mut self) -> Option<TxBatch<'_, P>> {
        let queue = self.queue.as_mut().filter(|queue| queue.takes_packets())?;
        let (stats, offer) = (&mut self.stats, self.bus.offer());
        Some(TxBatch::new(queue, stats, offer, &self.pool, &self.platform))
    }

    /// How many fragments a packet may have now.
    #[inline]
    pub fn room(&self) -> usize {
        self.queue.as_ref().map_or(0, |queue| queue.tx.room())
    }

    /// The most fragments that a packet to this backend may have: 18, or 1 if it takes no
    /// scatter-gather.
    pub fn max_fragments(&self) -> usize {
        if self.config.features.scatter_gather && self.bus.offer().features.scatter_gather {
            MAX_SLOTS
        } else {
            1
        }
    }

    /// Shows the backend everything sent since the last time: one event at most.
    pub fn flush(&mut self) {
        if let Some(queue) = self.queue.as_mut().filter(|queue| !queue.is_broken()) {
            queue.tx.flush(&mut self.stats, &self.platform, queue.port);
        }
    }

    /// Takes back the pages of packets that have been sent; returns how many slots that were.
    pub fn complete_tx(&mut self) -> usize {
        let Some(queue) = self.queue.as_mut().filter(|queue| !queue.is_broken()) else { return 0 };
        match queue.tx.complete(&mut self.quarantine, &mut self.stats) {
            Ok(slots) => slots,
            Err(fault) => {
                queue.break_down(fault);
                0
            }
        }
    }

    /// Flushes, and asks the backend for an event at the next packet. True if there is something
    /// to do already: then go round again instead of waiting, for that event may never come.
    pub fn rearm(&mut self) -> bool {
        self.flush();
        let Some(queue) = &mut self.queue else { return false };
        if queue.is_broken() {
            // `service` has not seen it yet, or waits for the backend to close.
            return queue.has_news();
        }
        match (queue.rx.arm(), queue.tx.arm()) {
            (Ok(rx), Ok(tx)) => rx || tx,
            (Err(fault), _) | (_, Err(fault)) => {
                queue.break_down(fault);
                true
            }
        }
    }
}

impl<P: Platform, S: Store> Drop for Netfront<P, S> {
    fn drop(&mut self) {
        self.dismantle();
    }
}
