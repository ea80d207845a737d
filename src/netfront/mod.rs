//! The frontend of a vif: a network device on two rings.
//!
//! ```text
//!   upper layers        reserve ─► send ─► flush            receive ─► sink(packet)
//!                          │                 │                 ▲
//!   tx.rs / rx.rs          ▼ grant           ▼ publish         │ revoke, then read
//!                    ┌───────────────── rings, grant table ─────────────────┐
//!   backend          │  copies out of, or maps, our pages      fills pages  │
//!                    └──────────────────────────────────────────────────────┘
//!   xenbus           service: connects, reconnects, watches over the backend
//! ```
//!
//! # What a call costs
//!
//! [`Netfront::open`], [`service`](Netfront::service) and dropping the device ask xenstore, so they block as
//! long as the [`Store`] does; they allocate, claim grant references, open and close event channels.
//! Nothing else blocks, and nothing else allocates but a
//! [`write`](packet_views::device::NetDevice::write) of more than a page: packets come out of the pool, and
//! what can't be had there is `None` or an error. Hypercalls of the packet path are events. None of it is
//! for an interrupt, which may [wake](Netfront::waker) the task that has the device.
//!
//! # The loop
//!
//! A device is driven by a loop; how it waits is the platform's business (busy polling, an
//! interrupt, an async task):
//!
//! ```no_run
//! use xen_netfront::packet::device::NetDevice;
//! # use xen_netfront::{netfront::Netfront, platform::Platform, store::Store};
//! # fn wait_for_an_event<T>(_: T) {}
//! # fn upper_layer<P>(_: P) {}
//!
//! # fn example<P: Platform, S: Store>(mut net: Netfront<P, S>) {
//! loop {
//!     net.service(); // xenbus, timers: cheap when nothing happened
//!     net.complete_tx();
//!     net.receive(64, |packet| upper_layer(packet));
//!     // ... let the upper layer send: net.send(..), or net.reserve(..) for a burst ...
//!     net.flush(); // the backend learns of all of it at once
//!     if !net.rearm() {
//!         wait_for_an_event(net.next_deadline()); // on net.ports(), or a xenstore watch
//!     }
//! }
//! # }
//! ```

mod budget;
mod bytes;
mod config;
mod connect;
mod connection;
mod counters;
mod device;
mod error;
mod fault;
mod obstacle;
mod packets;
mod patience;
mod permit;
mod queues;
mod revoke;
mod rx;
mod software;
mod target;
mod tx;

use alloc::vec::Vec;
use core::time::Duration;

use xen_grant::{FramePool, GrantTable, Quarantine, Reference};

use crate::platform::{Instant, Platform, Port};
use crate::xenbus::{BackendOffer, FrontBus, FrontStep};
use budget::Budget;
use connection::{Connection, State};
use device::Settings;
use packet_views::Wake;
use packet_views::device::{Changes, Link};
use packet_views::features::Features;
use patience::Patience;
use queues::Queue;
use xen_store::Store;

pub use config::Config;
pub use counters::{Counters, RxDrops, TxDrops};
pub use error::OpenError;
pub use fault::Fault;
pub use obstacle::Obstacle;
pub use permit::TxPermit;

/// How long to wait for frames when the receive ring has run empty for want of them.
const NO_FRAME_RETRY: Duration = Duration::from_millis(10);

/// The frontend of a vif. It owns its grants: dropped, it ends them all, or leaves them to the
/// grant table's quarantine.
pub struct Netfront<P: Platform, S: Store> {
    platform: P,
    vif: u32,
    /// Who waits for its events.
    wake: Wake,
    bus: FrontBus<S>,
    budget: Budget,
    table: GrantTable,
    config: Config,
    connection: Option<Connection>,
    references: Vec<Reference>,
    quarantine: Quarantine,
    patience: Patience,
    counters: Counters,
    /// Of the last connection that was up.
    settings: Option<Settings>,
    /// What nobody has asked about.
    changes: Changes,
    /// The layer above takes no packets for now.
    is_paused: bool,
    /// Why it could not connect the last time that it was to.
    obstacle: Option<Obstacle>,
    /// The machine that the domain was on when somebody last told us that it had left one.
    machine: u64,
}

impl<P: Platform, S: Store> Netfront<P, S> {
    /// Opens vif number `vif` of this domain. [`service`](Netfront::service) then connects it.
    ///
    /// It claims all the grant references that it will use, and has them until it is dropped or the
    /// vif is taken away; a vif that comes back waits until they are free again. Pages come from `pool`,
    /// of which it has [`Config::least_pages`] promised: several devices may share one. Of what is
    /// promised to nobody it takes more while much arrives, up to [`rx_ceiling`](Config::rx_ceiling) on
    /// each queue, or much is sent.
    pub fn open(
        platform: P,
        store: S,
        pool: &FramePool,
        table: &GrantTable,
        vif: u32,
        config: Config,
    ) -> Result<Netfront<P, S>, OpenError> {
        let bus = FrontBus::open(store, vif).map_err(OpenError::Store)?;
        // What other devices left in the table's quarantine may have come free.
        table.sweep();
        let needed = config.references();
        let references =
            table.claim_many(needed).map_err(|error| OpenError::Table { needed, error })?;
        let budget = Budget::new(pool, &config).map_err(OpenError::Pool)?;
        Ok(Netfront {
            platform,
            vif,
            wake: Wake::new(),
            bus,
            budget,
            table: table.clone(),
            config,
            connection: None,
            references,
            quarantine: Quarantine::new(config.references()),
            patience: Patience::new(),
            counters: Counters::default(),
            settings: None,
            changes: Changes::NONE,
            is_paused: false,
            obstacle: None,
            machine: table.machine(),
        })
    }

    /// Sees to xenbus and to timers: connects, reconnects, retries revokes, watches over a silent
    /// backend. Call it when a watch fires, when [`next_deadline`](Netfront::next_deadline) has
    /// come, or simply every time round; it looks at xenstore only when there is something new, and
    /// makes at most 280 requests.
    ///
    /// Says what has become of the link: nothing else announces a change that was made here.
    pub fn service(&mut self) -> Link {
        let now = self.platform.now();
        if self.is_idle(now) {
            return Link::Up;
        }
        self.retry_quarantine(now);
        // A backend is silent only if it has not answered, not if nobody has looked.
        self.complete_tx();
        self.check_connection(now);
        match self.bus.poll(now) {
            FrontStep::Wait => {}
            FrontStep::Connect => self.connect(now),
            FrontStep::Live => {
                let carrier = self.bus.offer().carrier;
                if let Some(connection) = &mut self.connection
                    && connection.go_live(now, carrier)
                {
                    self.counters.connects += 1;
                    self.note_changes();
                }
            }
            FrontStep::Release => {
                self.dismantle();
                self.bus.released(now);
            }
            FrontStep::Gone => {
                self.dismantle();
                // Others may need them meanwhile.
                self.references.clear();
                self.obstacle = None;
            }
        }
        if let Some(connection) = &mut self.connection {
            connection.queues.share_out(&mut self.budget);
        }
        // Frames may have come home since the last time.
        self.refill();
        if let Some(connection) = &mut self.connection {
            connection.settled();
        }
        self.link()
    }

    /// Whether nothing has happened since `service` saw to everything, and no time has come.
    #[inline]
    fn is_idle(&mut self, now: Instant) -> bool {
        let connection = self.connection.as_mut();
        connection.is_some_and(|connection| connection.is_idle(now))
            && self.quarantine.is_empty()
            && self.bus.is_resting(now)
    }

    /// When [`service`](Netfront::service) has something to do though nothing happens.
    pub fn next_deadline(&self) -> Option<Instant> {
        let quarantine = self.quarantine.next_retry().map(|at| Instant(0) + at);
        let others = self.bus.next_deadline().into_iter().chain(quarantine);
        let connection = self.connection.iter().filter(|connection| !connection.is_broken());
        let queues = connection.flat_map(|connection| {
            let sends = connection.takes_packets();
            connection.queues.iter().flat_map(move |queue| {
                let waits = sends && queue.tx.outstanding() > 0;
                let starved = queue.is_starved();
                let since = || {
                    if queue.is_fresh() { self.platform.now() } else { queue.tx_moved }
                };
                let stall = waits.then(|| since() + self.patience.limit());
                stall.into_iter().chain(starved.then(|| self.platform.now() + NO_FRAME_RETRY))
            })
        });
        others.chain(queues).min()
    }

    /// Whether packets can be sent and received.
    pub fn link(&self) -> Link {
        match self.connection.as_ref().map(|connection| connection.state) {
            Some(State::Live) => Link::Up,
            Some(State::NoCarrier) => Link::NoCarrier,
            Some(State::Waiting | State::Stalled | State::Broken | State::Closing) | None => {
                Link::Down
            }
        }
    }

    /// Why the device is not connected, if it is something that the device itself finds wanting. It
    /// tries again every half second, so a change in xenstore helps as soon; until then the link stays
    /// down. A vif that is not there yet, or has no backend, is waited for, and is no obstacle.
    pub fn obstacle(&self) -> Option<Obstacle> {
        self.obstacle
    }

    /// The event channels on which the backend wakes us, each once, while there are any.
    pub fn ports(&self) -> impl Iterator<Item = Port> + '_ {
        self.queues().flat_map(|queue| {
            let other = (queue.rx_port != queue.tx_port).then_some(queue.rx_port);
            core::iter::once(queue.tx_port).chain(other)
        })
    }

    /// Who waits for the device ([`ready`](packet_views::device::NetDevice::ready)). The platform wakes it
    /// with each event ([`Platform::opened`]); a kernel may wake it for a xenstore watch too.
    pub fn waker(&self) -> &Wake {
        &self.wake
    }

    /// Queues, while there are any.
    pub fn queue_count(&self) -> usize {
        self.queues().count()
    }

    /// What the toolstack and the backend say of themselves: MAC, MTU, features.
    pub fn backend(&self) -> &BackendOffer {
        self.bus.offer()
    }

    /// What packets to the backend may use: what it takes, and we are configured to give.
    #[inline]
    pub fn features(&self) -> Features {
        match &self.connection {
            Some(connection) => connection.features,
            None => self.config.features_to(self.bus.offer()),
        }
    }

    /// Counters.
    pub fn counters(&self) -> &Counters {
        &self.counters
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

    /// Connects again after [`disconnect`](Netfront::disconnect).
    pub fn reconnect(&mut self) {
        self.bus.reopen(self.platform.now());
    }

    /// Whether an orderly disconnect has come to its end.
    pub fn closed(&self) -> bool {
        self.connection.is_none() && self.bus.is_closed()
    }

    /// The domain goes on after having been suspended, maybe on another machine: event channels
    /// and grants of the old connection are gone. What was in flight is lost, and counted; then
    /// it connects anew.
    ///
    /// Call it when the platform's grant table, event channels and xenstore work again. After a
    /// suspend that was cancelled (a checkpoint), nothing has changed: don't.
    pub fn resumed(&mut self) {
        self.counters.resumes += 1;
        // Other devices are told too, and count it once.
        self.machine = self.table.left(self.machine);
        self.dismantle();
        self.bus.resumed(self.platform.now());
    }

    fn queues(&self) -> impl Iterator<Item = &Queue> {
        self.connection.iter().flat_map(|connection| connection.queues.iter())
    }
}

impl<P: Platform, S: Store> Drop for Netfront<P, S> {
    fn drop(&mut self) {
        self.dismantle();
    }
}

impl<P: Platform, S: Store> core::fmt::Debug for Netfront<P, S> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Netfront")
            .field("vif", &self.vif)
            .field("link", &self.link())
            .field("queues", &self.queues().count())
            .field("room", &self.connection.as_ref().map_or(0, |it| it.queues.room()))
            .field("quarantined", &self.quarantined())
            .field("obstacle", &self.obstacle)
            .finish_non_exhaustive()
    }
}
