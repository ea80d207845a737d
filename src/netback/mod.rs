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
//! All vifs that a domain serves are [`Clients`]: one collection opens, connects and removes them, and runs
//! those whose event has come. A kernel drives it in a loop. This one is a hub, which sends each packet on to
//! every other client:
//!
//! ```no_run
//! use xen_grant::FramePool;
//! use xen_netfront::netback::{Budget, ClientChange, Clients, Config};
//! use xen_netfront::packet::features::Features;
//! use xen_netfront::platform::{BackendPlatform, Instant};
//! use xen_netfront::store::Store;
//!
//! /// `sleep` returns at an event, a client's or xenstore's, or at the time.
//! fn serve<P: BackendPlatform, S: Store + Clone>(
//!     machine: P,
//!     store: S,
//!     sleep: impl Fn(Option<Instant>),
//! ) -> Result<(), Box<dyn core::error::Error>> {
//!     let pool = FramePool::new(&machine, 4096)?; // every page that packets will ever use: 16 MB
//!     let budget = Budget::dividing(pool.size(), 40)?; // for up to 40 clients
//!     let config = Config::default().with_features(Features::ALL);
//!     let mut clients = Clients::open(machine, store, &pool, &budget, config)?;
//!     let mut connected = Vec::new();
//!     loop {
//!         clients.turn(64, |clients, from, packet| {
//!             let packet = packet.freeze();
//!             for to in connected.iter().filter(|to| **to != from) {
//!                 let _ = clients.deliver(*to, packet.clone()); // no copy; if there is no room, dropped
//!             }
//!         });
//!         while let Some((client, change)) = clients.next_change() {
//!             connected.retain(|other| *other != client);
//!             if change == ClientChange::Connected {
//!                 connected.push(client);
//!             }
//!         }
//!         if !clients.rearm() {
//!             sleep(clients.next_deadline());
//!         }
//!     }
//! }
//! ```
//!
//! A client has its turn when its event has come: the platform wakes what
//! [`opened`](crate::platform::Platform::opened) gave it with each event on a port, or the loop tells
//! [`Clients::event`]. What serving costs, what is bounded where, and what a client may do wrong is in
//! `docs/backend.md` of the repository.
//!
//! For a vif that somebody else keeps track of there is [`Netback`], the backend of one, with a loop like a
//! [frontend](crate::netfront)'s:
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
//! # What a call costs
//!
//! [`Clients::open`], [`service`](Clients::service), [`turn`](Clients::turn), which does that too, and dropping
//! the collection ask xenstore, as those of a [`Netback`] do, so they block as long as the [`Store`] does; they
//! allocate, map and unmap ring pages, bind and close event channels. One turn makes some 40 requests at most,
//! and none unless something has changed or a deadline has passed; what is left is gone on with in the next.
//! Nothing else blocks.
//!
//! Nothing else allocates but [`deliver`](Clients::deliver) and what follows a turn for the client that had
//! it: the queue of waiting packets grows by need, up to its bound, and what there is no memory for is
//! refused and counted; so it is with what the client does not take, which is done in software. Hypercalls of
//! the packet path are copies, one a batch, and events. A client without an event costs nothing. None of it
//! is for an interrupt, which may wake the task that has the backend.
//!
//! # What a client can't do
//!
//! * Make us map more than two pages a queue, or hold more than [`Config`] and [`Budget`] say. Its queues
//!   share what a client with one queue has. Of the pool it has a reserve that no other can take, and of the
//!   shared part no more than it leaves free; one that takes nothing for 100 ms is left with its reserve.
//! * Send more than the toolstack's `rate` says: without credit it is not polled, and wakes nobody.
//! * Take more than its turn: [`turn`](Clients::turn) counts work rather than packets, all queues
//!   together, and what a huge packet takes too much comes off the next turn. Nor of xenstore's: a client that
//!   keeps writing its `state` is looked at some 500 requests' worth a second, all of them 2,000.
//! * Hold a packet up half-published: a frontend publishes whole packets, as Linux demands, so one
//!   that ends in the middle is a broken rule ([`Fault::CutShort`]).
//! * Have its faults cost others: a broken rule stops its rings at once and costs nothing more;
//!   [`service`](Clients::service) takes the connection down later, once. What may pass, as a want of memory,
//!   is tried again, and ends no connection.

mod budget;
mod clients;
mod config;
mod connection;
mod counters;
mod credit;
mod error;
mod fault;
mod fifo;
mod from_client;
mod obstacle;
mod pace;
mod parse;
mod queue;
mod scratch;
mod software;
mod to_client;
mod vif;
mod waiting;

use core::future::poll_fn;
use core::ops::Deref;
use core::task::{Context, Poll};

use xen_grant::{DomId, FramePool};

use crate::buffer::{Packet, PacketMut};
use crate::platform::BackendPlatform;
use scratch::Scratch;
use xen_store::{Store, StoreError};

pub use budget::{Budget, BudgetError};
pub use clients::{ClientChange, ClientId, Clients, MAX_CLIENTS};
pub use config::Config;
pub use counters::{Counters, FromClientDrops, ToClientDrops};
pub use error::{DeliverError, DeliverErrorKind};
pub use fault::Fault;
pub use vif::Vif;

/// After so many requests to xenstore a call of [`Netback::service`] begins nothing more.
const SLICE: u32 = 48;

/// The backend of one vif, with all that it needs for itself. What is known of it is a [`Vif`]'s.
///
/// Dropped, it unmaps what it has of the client's, and takes its watches away.
pub struct Netback<P: BackendPlatform, S: Store> {
    vif: Vif<P, S>,
    scratch: Scratch,
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
        let terms = (config, Budget::of_one(config.frames()));
        let vif = Vif::open(platform, store, pool, (client, vif), terms)?;
        Ok(Netback { vif, scratch: Scratch::new() })
    }

    /// The same, on a budget that several backends share rather than on one of its own: what waits for the
    /// client is charged to that. `None` if as many share it as it was made for.
    pub fn with_budget(mut self, budget: &Budget) -> Option<Netback<P, S>> {
        self.vif.set_account(budget.account()?);
        Some(self)
    }

    /// Sees to xenbus and to timers: connects, disconnects, acts on a broken rule. Call it when a
    /// watch fires, when [`next_deadline`](Vif::next_deadline) has come, or simply every time
    /// round; it looks at xenstore only when there is something new, and makes at most some 100 requests.
    pub fn service(&mut self) {
        self.vif.service(&mut self.scratch, SLICE);
    }

    /// Hands up to `budget` packets of the client's to `sink`; returns how many it handed up.
    ///
    /// The budget is in packets of one slot and up to 1514 bytes. Others count for the work that
    /// they make, dropped ones included, and what goes beyond the budget comes off the next.
    /// Packets come with [`Config::headroom`], densely packed, headers in one piece. Queues take
    /// turns within the budget.
    #[inline]
    pub fn poll(&mut self, budget: usize, sink: impl FnMut(PacketMut)) -> usize {
        match &mut self.scratch.from {
            Some(scratch) => self.vif.poll(scratch, budget, sink),
            None => 0,
        }
    }

    /// Queues a packet for the client; gives it back if there is no room now, and refuses one that can't be
    /// delivered: that is dropped and counted.
    ///
    /// What the client does not take is done here: a blank checksum is filled in, in place if
    /// nobody else reads the packet, and a large packet is cut into segments that share its data. There is
    /// room for all of them or it is given back; of one that not even an empty queue has room for the
    /// first segments wait, and the others count as dropped.
    #[inline]
    #[expect(clippy::result_large_err, reason = "the packet comes back, not an error")]
    pub fn deliver(&mut self, packet: Packet) -> Result<(), DeliverError> {
        self.vif.deliver(packet)
    }

    /// Copies as many queued packets to the client as it has posted pages for, and tells it of
    /// everything since the last time: one event at most on each of its channels.
    #[inline]
    pub fn flush(&mut self) {
        self.vif.flush(&mut self.scratch.to);
    }

    /// Flushes, and asks the client for an event when it sends something, and when it posts pages
    /// that a packet waits for. True if there is something to do already: then go round again
    /// instead of waiting, for that event may never come. If not, the platform hears that events
    /// are [handled](crate::platform::Platform::handled).
    #[inline]
    pub fn rearm(&mut self) -> bool {
        self.vif.rearm(&mut self.scratch.to)
    }

    /// Nobody takes the client's packets until this is called again: until then they are no reason for
    /// [`rearm`](Netback::rearm) to say that there is something to do, and a client that goes on sending wakes
    /// nobody. Those that are there stay there.
    pub fn pause_receive(&mut self, is_paused: bool) {
        self.vif.pause_receive(is_paused);
    }

    /// Whether there is something to do: the client has sent something, or has posted pages that a
    /// packet waits for. If not, the task is woken when there is; that of an earlier call is forgotten.
    pub fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.vif.waker().register(context.waker());
        if self.rearm() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Waits until there is something to do. It needs no runtime, and dropping it loses nothing. Time
    /// limits ([`next_deadline`](Vif::next_deadline)) are the caller's.
    pub fn ready(&mut self) -> impl Future<Output = ()> {
        poll_fn(|context| self.poll_ready(context))
    }

    /// We shut down: the client is disconnected in good order, and the vif stays closed. Go on calling
    /// [`service`](Netback::service) until it [is](Vif::is_closed), some seconds at most.
    pub fn close(&mut self) {
        self.vif.close();
    }

    /// The domain has been resumed elsewhere: its channels and mappings are gone. Call it before any device
    /// opens new ones; [`service`](Netback::service) connects anew. A suspend that was cancelled needs nothing.
    pub fn resumed(&mut self) {
        self.vif.resumed();
    }

    /// Tells the client whether there is a network behind us (`carrier`): as long as nobody has
    /// called this, it takes it that there is. [`service`](Netback::service) writes it.
    pub fn set_carrier(&mut self, up: bool) {
        self.vif.set_carrier(up);
    }
}

impl<P: BackendPlatform, S: Store> Deref for Netback<P, S> {
    type Target = Vif<P, S>;

    fn deref(&self) -> &Vif<P, S> {
        &self.vif
    }
}

impl<P: BackendPlatform, S: Store> core::fmt::Debug for Netback<P, S> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.vif.fmt(f)
    }
}
