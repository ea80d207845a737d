//! The backend of a vif: serves one interface of one client, who may be hostile.
//!
//! ```text
//!   upper layers     sink(packet) ◄─ poll         deliver ─► flush
//!                         ▲                          │         │
//!   from_client.rs        │ copy in                  ▼ queue   │ copy out      to_client.rs
//!                    ┌────┴──────────── hypervisor ────────────▼─────────┐
//!   client           │  transmit ring, pages       receive ring, pages   │
//!                    └───────────────────────────────────────────────────┘
//!   xenbus           service: offers features, maps the rings, unmaps them again
//! ```
//!
//! A packet is copied once, by the hypervisor, into frames that can go straight on: to a frontend
//! of ours (headroom in front, headers in one piece), or shared to other clients. Nothing of the
//! client's but its ring pages is ever mapped.
//!
//! A backend is driven by a loop, as a [frontend](crate::netfront) is:
//!
//! ```no_run
//! # use xen_netfront::buffer::PacketMut;
//! # use xen_netfront::{netback::Netback, platform::BackendPlatform, store::Store};
//! # fn wait_for_an_event<T>(_: T) {}
//! # fn forward(_: PacketMut) {}
//! # fn example<P: BackendPlatform, S: Store>(mut vif: Netback<P, S>) {
//! while !vif.is_gone() {
//!     vif.service(); // xenbus, timers: cheap when nothing happened
//!     vif.poll(64, |packet| forward(packet));
//!     // ... vif.deliver(packet), as often as there is something for the client ...
//!     vif.flush(); // the client learns of all of it at once
//!     if !vif.rearm() {
//!         wait_for_an_event(vif.next_deadline()); // on vif.ports(), or a xenstore watch
//!     }
//! }
//! # }
//! ```
//!
//! Which vifs there are, a watch on `backend/vif` says:
//!
//! ```no_run
//! # extern crate alloc;
//! # use alloc::vec::Vec;
//! # use xen_grant::FramePool;
//! # use xen_netfront::netback::{Config, Netback};
//! # use xen_netfront::platform::BackendPlatform;
//! # use xen_netfront::store::{Store, StoreError};
//! # use xen_netfront::xenbus::Clients;
//! /// `pool` makes the pool of one client.
//! fn serve<P: BackendPlatform, S: Store + Clone>(
//!     platform: P,
//!     store: S,
//!     pool: impl Fn(&P) -> FramePool,
//! ) -> Result<(), StoreError> {
//!     let mut clients = Clients::open(store.clone())?;
//!     let mut vifs: Vec<Netback<P, S>> = Vec::new();
//!     loop {
//!         for (client, vif) in clients.poll(platform.now()).appeared {
//!             let (platform, store, pool) = (platform.clone(), store.clone(), pool(&platform));
//!             vifs.push(Netback::open(platform, store, &pool, client, vif, Config::default())?);
//!         }
//!         vifs.retain(|vif| {
//!             if vif.is_gone() {
//!                 clients.forget(vif.id());
//!             }
//!             !vif.is_gone()
//!         });
//!         // ... a round of each, as above; wait if none has more to do ...
//!     }
//! }
//! ```
//!
//! # What a call costs
//!
//! [`Netback::open`], [`service`](Netback::service) and dropping the backend ask xenstore, so they block as
//! long as the [`Store`] does; they allocate, map and unmap ring pages, bind and close event channels.
//! Nothing else blocks, and nothing else allocates. Hypercalls of the packet path are copies, one a batch,
//! and events. None of it is for an interrupt, which may [wake](Netback::waker) the task that has the
//! backend.
//!
//! # What a client can't do
//!
//! * Make us map more than two pages a queue, or hold more than [`Config`] says: what it is owed
//!   waits in queues with two bounds, and what comes from it takes frames of the pool given to it
//!   alone. A client with several queues has them share what a client with one has.
//! * Take more than its turn: [`poll`](Netback::poll) counts work rather than packets, all queues
//!   together, and what a huge packet takes too much comes off the next turn. Nor of xenstore's: a client that keeps
//!   writing its `state` is looked at some 500 requests' worth a second.
//! * Hold a packet up half-published: a frontend publishes whole packets, as Linux demands, so one
//!   that ends in the middle is a broken rule ([`Fault::CutShort`]).
//! * Have its faults cost others: a broken rule stops the rings at once and costs nothing more;
//!   [`service`](Netback::service) takes the connection down later, once.

mod config;
mod connection;
mod counters;
mod error;
mod fault;
mod from_client;
mod obstacle;
mod pace;
mod parse;
mod queue;
mod software;
mod to_client;

use alloc::string::ToString;
use alloc::vec::Vec;
use core::future::poll_fn;
use core::task::{Context, Poll};

use packet_views::Wake;
use xen_grant::{DomId, FramePool};

use crate::buffer::{Packet, PacketMut};
use crate::platform::{BackendPlatform, Channel, Instant, Port, Rings};
use crate::xenbus::{BackBus, BackStep, FrontendOffer, Identity, MAX_QUEUES, Vif, feature_nodes};
use connection::Connection;
use obstacle::Obstacle;
use pace::{Allowance, Meter, Metered};
use xen_store::{Store, StoreError};

pub use config::Config;
pub use counters::{Counters, FromClientDrops, ToClientDrops};
pub use error::DeliverError;
pub use fault::Fault;

/// More steps than the bus ever asks for at once. Should there be more, they are done the next time.
const MAX_STEPS: usize = 4;

/// The backend of a vif. Dropped, it unmaps what it has of the client's, and takes its watches away.
pub struct Netback<P: BackendPlatform, S: Store> {
    platform: P,
    bus: BackBus<Metered<S>>,
    allowance: Allowance,
    pool: FramePool,
    client: DomId,
    vif: u32,
    /// Who waits for its events.
    wake: Wake,
    config: Config,
    identity: Identity,
    connection: Option<Connection<P>>,
    counters: Counters,
    /// A broken rule that `service` has to act on.
    fault: Option<Fault>,
    gone: bool,
}

impl<P: BackendPlatform, S: Store> Netback<P, S> {
    /// Opens our end of vif number `vif` of the domain `client`, whose backend directory a
    /// toolstack has made. [`service`](Netback::service) then connects it.
    ///
    /// What the client sends is copied into frames of `pool`. A client with a pool of its own
    /// can't use up another's frames; nor, which matters more, those that a frontend of ours lives on.
    pub fn open(
        platform: P,
        store: S,
        pool: &FramePool,
        client: DomId,
        vif: u32,
        config: Config,
    ) -> Result<Netback<P, S>, StoreError> {
        let always = [
            ("feature-rx-copy", "1"),
            ("feature-rx-flip", "0"),
            ("feature-split-event-channels", "1"),
        ];
        let queues = config.max_queues.clamp(1, MAX_QUEUES).to_string();
        let queues = ("multi-queue-max-queues", &*queues);
        let nodes = feature_nodes(&config.features.coherent());
        let features: Vec<_> = nodes.into_iter().chain(always).chain([queues]).collect();
        let store = Metered { store, by: Meter::default() };
        Ok(Netback {
            platform,
            bus: BackBus::open(store, client, vif, &features, config.removal)?,
            allowance: Allowance::full(),
            pool: pool.clone(),
            client,
            vif,
            wake: Wake::new(),
            config,
            identity: Identity::default(),
            connection: None,
            counters: Counters::default(),
            fault: None,
            gone: false,
        })
    }

    /// Sees to xenbus and to timers: connects, disconnects, acts on a broken rule. Call it when a
    /// watch fires, when [`next_deadline`](Netback::next_deadline) has come, or simply every time
    /// round; it looks at xenstore only when there is something new, and makes at most 600 requests.
    pub fn service(&mut self) {
        let now = self.platform.now();
        if let Some(fault) = self.fault {
            self.counters.faults += 1;
            log::warn!("domain {}: protocol violation, disconnecting: {fault}", self.client.0);
            self.disconnect();
            self.bus.failed(now, "protocol violation by the frontend");
        }
        if self.allowance.rests_until(now).is_some() {
            return;
        }
        for _ in 0..MAX_STEPS {
            match self.bus.poll(now) {
                BackStep::Wait => break,
                BackStep::Connect => self.connect(now),
                BackStep::Release => {
                    self.disconnect();
                    self.bus.released(now);
                }
                BackStep::Remove => {
                    self.disconnect();
                    self.gone = true;
                    break;
                }
            }
        }
        self.allowance.spend(self.bus.own().store.by.take(), now);
    }

    /// When [`service`](Netback::service) or [`flush`](Netback::flush) has something to do though
    /// nothing happens.
    pub fn next_deadline(&self) -> Option<Instant> {
        let stall = self.connection.as_ref().and_then(Connection::deadline);
        let rest = self.allowance.rests_until(self.platform.now());
        let bus = self.bus.next_deadline().map(|at| rest.map_or(at, |rest| rest.max(at)));
        [bus.or(rest), stall].into_iter().flatten().min()
    }

    /// Whether a client is connected, and has broken no rule.
    pub fn is_connected(&self) -> bool {
        self.connection.is_some() && self.fault.is_none()
    }

    /// Whether the vif has been removed: it never connects again, and can be dropped.
    pub fn is_gone(&self) -> bool {
        self.gone
    }

    /// The event channels on which the client wakes us, while it is connected, each once: of every
    /// queue one for what it sends and one for pages that it posts, or one for both.
    pub fn ports(&self) -> impl Iterator<Item = Port> + '_ {
        self.connection.iter().flat_map(Connection::ports)
    }

    /// Queues of the connected client, 0 without one.
    pub fn queues(&self) -> usize {
        self.connection.as_ref().map_or(0, Connection::queues)
    }

    /// The domain that we serve, and the number of its vif.
    pub fn id(&self) -> Vif {
        (self.client, self.vif)
    }

    /// What the client published to be connected by, while it is connected.
    pub fn frontend(&self) -> Option<&FrontendOffer> {
        self.bus.frontend_offer()
    }

    /// The address that the toolstack gave the client. `None` if it gave none, or nobody was
    /// connected yet.
    pub fn client_mac(&self) -> Option<[u8; 6]> {
        self.identity.mac
    }

    /// The client's MTU, as far as the toolstack says: octets above Ethernet, 1500 by default.
    /// Nothing here holds packets to it.
    pub fn mtu(&self) -> usize {
        usize::from(self.identity.mtu)
    }

    /// Counters.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Packets that wait for the client.
    pub fn queued(&self) -> usize {
        self.connection.as_ref().map_or(0, Connection::queued)
    }

    // -- from the client --------------------------------------------------------------------

    /// Hands up to `budget` packets of the client's to `sink`; returns how many it handed up.
    ///
    /// The budget is in packets of one slot and up to 1514 bytes. Others count for the work that
    /// they make, dropped ones included, and what goes beyond the budget comes off the next.
    /// Packets come with [`Config::headroom`], densely packed, headers in one piece. Queues take
    /// turns within the budget.
    #[inline]
    pub fn poll(&mut self, budget: usize, sink: impl FnMut(PacketMut)) -> usize {
        let Some(connection) = self.connection.as_mut().filter(|_| self.fault.is_none()) else {
            return 0;
        };
        match connection.poll(&self.platform, &self.pool, budget, &mut self.counters, sink) {
            Ok(packets) => packets,
            Err(fault) => {
                self.fault = Some(fault);
                0
            }
        }
    }

    // -- to the client ----------------------------------------------------------------------

    /// Queues a packet for the client. A packet that is refused is dropped and counted.
    ///
    /// What the client does not take is done here: a blank checksum is filled in, in place if
    /// nobody else reads the packet, and a large packet is cut into segments that share its data.
    /// If the queue has no room for all segments the first ones stay in it, and the others count as
    /// dropped.
    #[inline]
    pub fn deliver(&mut self, mut packet: Packet) -> Result<(), DeliverError> {
        match &mut self.connection {
            Some(connection) if self.fault.is_none() => {
                connection.deliver(&mut packet, &self.pool, &mut self.counters)
            }
            Some(_) | None => Err(self.counters.undelivered(DeliverError::NotConnected)),
        }
    }

    /// Copies as many queued packets to the client as it has posted pages for, and tells it of
    /// everything since the last time: one event at most on each of its channels.
    #[inline]
    pub fn flush(&mut self) {
        let Some(connection) = self.connection.as_mut().filter(|_| self.fault.is_none()) else {
            return;
        };
        if let Err(fault) = connection.flush(&self.platform, &mut self.counters) {
            self.fault = Some(fault);
        }
    }

    /// Flushes, and asks the client for an event when it sends something, and when it posts pages
    /// that a packet waits for. True if there is something to do already: then go round again
    /// instead of waiting, for that event may never come. If not, the platform hears that events
    /// are [handled](crate::platform::Platform::handled).
    #[inline]
    pub fn rearm(&mut self) -> bool {
        self.flush();
        if self.fault.is_some() {
            return true;
        }
        let Some(connection) = &mut self.connection else { return false };
        match connection.arm() {
            Ok(false) => {
                connection.handled(&self.platform);
                false
            }
            Ok(true) => true,
            Err(fault) => {
                self.fault = Some(fault);
                true
            }
        }
    }

    /// Whether there is something to do: the client has sent something, or has posted pages that a
    /// packet waits for. If not, the task is woken when there is; that of an earlier call is forgotten.
    pub fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.wake.register(context.waker());
        if self.rearm() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Waits until there is something to do. It needs no runtime, and dropping it loses nothing. Time
    /// limits ([`next_deadline`](Netback::next_deadline)) are the caller's.
    pub fn ready(&mut self) -> impl Future<Output = ()> {
        poll_fn(|context| self.poll_ready(context))
    }

    /// Who waits for it. The platform wakes it with each event
    /// ([`Platform::opened`](crate::platform::Platform::opened)); a kernel may wake it for a xenstore
    /// watch too.
    pub fn waker(&self) -> &Wake {
        &self.wake
    }

    /// Tells the client whether there is a network behind us (`carrier`): as long as nobody has
    /// called this, it takes it that there is. [`service`](Netback::service) writes it.
    pub fn set_carrier(&mut self, up: bool) {
        self.bus.set_carrier(up);
    }

    // -- connection -------------------------------------------------------------------------

    fn connect(&mut self, now: Instant) {
        self.disconnect();
        let opened = match self.bus.frontend_offer() {
            Some(offer) => {
                Identity::read(&self.bus.own()).map_err(Obstacle::Store).and_then(|identity| {
                    self.identity = identity;
                    let channel = Channel {
                        peer: self.client,
                        vif: self.vif,
                        queue: 0,
                        rings: Rings::Both,
                        wake: self.wake.clone(),
                    };
                    let (platform, counters) = (&self.platform, &mut self.counters);
                    Connection::open(platform, &channel, offer, &self.config, counters)
                })
            }
            None => Err(Obstacle::Incomplete),
        };
        match opened {
            Ok(connection) => {
                self.connection = Some(connection);
                self.counters.connects += 1;
                self.bus.connected(now);
            }
            Err(error) => {
                if let Obstacle::Fault(_) = error {
                    self.counters.faults += 1;
                }
                self.bus.failed(now, &error.to_string());
            }
        }
    }

    /// Ends the connection, whatever the client does.
    fn disconnect(&mut self) {
        self.fault = None;
        if let Some(connection) = self.connection.take() {
            self.counters.to_drops.disconnected += connection.queued() as u64;
        }
    }
}

impl<P: BackendPlatform, S: Store> core::fmt::Debug for Netback<P, S> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Netback")
            .field("client", &self.client)
            .field("vif", &self.vif)
            .field("is_connected", &self.is_connected())
            .field("is_gone", &self.gone)
            .field("queues", &self.queues())
            .field("queued", &self.queued())
            .field("fault", &self.fault)
            .finish_non_exhaustive()
    }
}
