//! All clients of a backend domain: their vifs come and go, and those whose event has come are run.
//!
//! ```text
//!   xenstore ── one watch ──► service ──► opens, connects, closes vifs; a bounded part at a time
//!   events   ── a bit each ─► turn ─────► polls whose bit is set ──► sink(clients, from, packet)
//!                             deliver ──► queues a packet for one         │
//!                                ▲────────────────────────────────────────┘
//!                             rearm ────► flushes whoever got something, asks for events
//! ```

mod lifecycle;
mod ready;
mod turn;

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::task::Waker;

use xen_grant::FramePool;

use super::budget::Budget;
use super::config::Config;
use super::counters::Counters;
use super::pace::Allowance;
use super::scratch::Scratch;
use super::vif::Vif;
use crate::buffer::Packet;
use crate::platform::{BackendPlatform, Instant, Port};
use crate::xenbus::{Listing, VifId};
use ready::{Ready, Set};
use xen_store::{Store, StoreError};

/// The most vifs that a backend serves. Further ones are refused.
pub const MAX_CLIENTS: usize = 256;

/// The most changes that are kept for who asks [`Clients::next_change`]; older ones are forgotten, but that a
/// client is gone.
const MAX_CHANGES: usize = 4 * MAX_CLIENTS;

/// A client: one vif, from its appearing to its removal. A vif that is removed and made again is another
/// client, though the domain and the number be the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId {
    slot: u32,
    generation: u32,
}

/// What has become of a client. Of one that is never offered a connection nothing is told.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClientChange {
    /// It is there, and is offered a connection: what the toolstack says of it ([`Vif::spec`]) is known.
    Appeared,
    /// It is connected: packets come from it, and go to it.
    Connected,
    /// It is not connected any more; it may be again. If its vif went in the same turn,
    /// [`vif_id`](Clients::vif_id) does not know it any more, and [`Gone`](ClientChange::Gone) comes next.
    Disconnected,
    /// Its vif is gone, and so is the client.
    Gone {
        /// Which it was.
        vif: VifId,
        /// What it has done.
        counters: Box<Counters>,
    },
}

struct Slot<P: BackendPlatform, S: Store> {
    generation: u32,
    /// `None`: nobody is here, or it is being polled.
    vif: Option<Box<Vif<P, S>>>,
    /// Marks it.
    waker: Waker,
    /// Who is here.
    is: Option<VifId>,
    /// When it has something to do though nothing happens, in xenstore and with packets.
    due: Due,
    /// Whether it was connected when somebody last looked, and how often it had been.
    was_connected: (bool, u64),
    /// Something has been told of it.
    is_known: bool,
    /// There is no room for it.
    refusal: Option<Refusal>,
}

/// Whether it has been said that there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    Unsaid,
    Said,
}

/// Moments, `NEVER` where there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Due {
    bus: Instant,
    packets: Instant,
}

/// Later than any clock says.
const NEVER: Instant = Instant(u64::MAX);
const NOTHING: Due = Due { bus: NEVER, packets: NEVER };

/// All vifs that a backend domain serves. See the [module](super)'s text.
///
/// What one call costs, whatever clients do: [`service`](Clients::service) and [`turn`](Clients::turn) make
/// at most some 40 requests to xenstore; what is left is gone on with in the next. Clients without an event
/// cost nothing.
pub struct Clients<P: BackendPlatform, S: Store + Clone> {
    platform: P,
    store: S,
    pool: FramePool,
    budget: Budget,
    scratch: Scratch,
    config: Config,
    listing: Listing<S>,
    allowance: Allowance,
    /// Requests of the listing's that the allowance knows of.
    paid: u32,
    slots: Vec<Slot<P, S>>,
    open: BTreeMap<VifId, usize>,
    ports: BTreeMap<Port, usize>,
    ready: Arc<Ready>,
    /// Vifs that have something to do in xenstore.
    asked: Set,
    /// Vifs that have something to be polled or flushed, as far as is known.
    busy: Set,
    /// Vifs that were polled, or got something, since the last `rearm`.
    touched: Set,
    /// Whose turn it is: in xenstore, and for packets.
    next_asked: usize,
    next_busy: usize,
    /// The earliest of what is due; `None`: to be looked up.
    due: Option<Instant>,
    /// Packets for the client that is being polled, and that one.
    returned: Vec<Packet>,
    polled: Option<usize>,
    /// That one was to be told something meanwhile,
    missed: bool,
    /// and that the domain was resumed.
    missed_resume: bool,
    changes: VecDeque<(ClientId, ClientChange)>,
    carrier: Option<bool>,
    is_paused: bool,
    is_closing: bool,
    /// Vifs that there was no room for,
    refused: u64,
    /// and one that was not even looked at.
    has_unseen: bool,
}

impl<P: BackendPlatform, S: Store + Clone> Clients<P, S> {
    /// Serves all vifs that a toolstack makes below `backend/vif` of our own domain.
    ///
    /// What clients send is copied into frames of `pool`. What waits for them is charged to `budget`, which
    /// says how many clients there may be; [`Config::queue_frames`] is another bound, on what one of them may
    /// have waiting whatever the budget has left.
    pub fn open(
        platform: P,
        store: S,
        pool: &FramePool,
        budget: &Budget,
        config: Config,
    ) -> Result<Clients<P, S>, StoreError> {
        Ok(Clients {
            listing: Listing::open(store.clone())?,
            platform,
            store,
            pool: pool.clone(),
            budget: budget.clone(),
            scratch: Scratch::new(),
            config,
            allowance: Allowance::of_all(),
            paid: 0,
            slots: Vec::new(),
            open: BTreeMap::new(),
            ports: BTreeMap::new(),
            ready: Arc::default(),
            asked: Set::default(),
            busy: Set::default(),
            touched: Set::default(),
            next_asked: 0,
            next_busy: 0,
            due: None,
            returned: Vec::new(),
            polled: None,
            missed: false,
            missed_resume: false,
            changes: VecDeque::new(),
            carrier: None,
            is_paused: false,
            is_closing: false,
            refused: 0,
            has_unseen: false,
        })
    }

    /// A client's vif, as long as it is there. `None` while it is being polled, too.
    pub fn vif(&self, client: ClientId) -> Option<&Vif<P, S>> {
        let slot = self.slots.get(client.slot as usize)?;
        slot.vif.as_deref().filter(|_| slot.generation == client.generation)
    }

    /// All clients, and their vifs.
    pub fn iter(&self) -> impl Iterator<Item = (ClientId, &Vif<P, S>)> {
        let slots = self.slots.iter().enumerate();
        slots.filter_map(|(number, slot)| Some((id(number, slot.generation), slot.vif.as_deref()?)))
    }

    /// The client with this vif.
    pub fn find(&self, vif: VifId) -> Option<ClientId> {
        let &number = self.open.get(&vif)?;
        self.slots.get(number).map(|slot| id(number, slot.generation))
    }

    /// Which vif a client is: while it is being polled, too.
    pub fn vif_id(&self, client: ClientId) -> Option<VifId> {
        let slot = self.slots.get(client.slot as usize)?;
        slot.is.filter(|_| slot.generation == client.generation)
    }

    /// Whether this port is a client's.
    pub fn knows(&self, port: Port) -> bool {
        self.ports.contains_key(&port)
    }

    /// How many vifs there are, connected or not.
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Vifs that were refused because there were as many as there may be: [`MAX_CLIENTS`], or as many as the budget
    /// is for.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// What has become of a client, oldest first; `None` if all has been told. The last 1,024 changes are kept.
    pub fn next_change(&mut self) -> Option<(ClientId, ClientChange)> {
        self.changes.pop_front()
    }

    /// Tells all clients whether there is a network behind us (`carrier`): as long as nobody has called this,
    /// they take it that there is. The next [turn](Clients::turn) writes it.
    pub fn set_carrier(&mut self, up: bool) {
        self.carrier = Some(up);
        for number in 0..self.slots.len() {
            self.with(number, |this, vif, _| {
                vif.set_carrier(up);
                this.asked.insert(number);
            });
        }
    }

    /// The domain has been resumed elsewhere: channels and mappings are gone. Call it before any device opens
    /// new ones. A suspend that was cancelled needs nothing.
    pub fn resumed(&mut self) {
        self.listing.list_anew();
        self.missed_resume = self.polled.is_some();
        for number in 0..self.slots.len() {
            self.with(number, |this, vif, _| {
                vif.resumed();
                this.asked.insert(number);
            });
        }
    }

    /// We shut down: all clients are disconnected in good order, and stay so; new ones are not served. Go on
    /// with [`turn`](Clients::turn) until [`is_closed`](Clients::is_closed), some seconds at most.
    pub fn close(&mut self) {
        self.is_closing = true;
        for number in 0..self.slots.len() {
            self.with(number, |this, vif, _| {
                vif.close();
                this.asked.insert(number);
            });
        }
    }

    /// Whether all vifs are shut after [`close`](Clients::close).
    pub fn is_closed(&self) -> bool {
        self.is_closing && self.iter().all(|(_, vif)| vif.is_closed())
    }

    /// Does something with a vif, and takes note of what has become of it.
    fn with(&mut self, number: usize, work: impl FnOnce(&mut Self, &mut Vif<P, S>, &Waker)) {
        let Some(slot) = self.slots.get_mut(number) else { return };
        let Some(mut vif) = slot.vif.take() else {
            // Nobody is here, or it is being polled and is told afterwards.
            self.missed |= self.polled == Some(number);
            return;
        };
        let waker = slot.waker.clone();
        work(self, &mut vif, &waker);
        if vif.is_at_fault() {
            self.asked.insert(number);
        }
        let due = Due {
            bus: vif.bus_deadline().unwrap_or(NEVER),
            packets: vif.packet_deadline().unwrap_or(NEVER),
        };
        let (is_connected, connects) = (vif.is_connected(), vif.counters().connects);
        let Some(slot) = self.slots.get_mut(number) else { return };
        if slot.due != due {
            slot.due = due;
            self.due = None;
        }
        let client = id(number, slot.generation);
        if vif.was_offered() && !slot.is_known {
            slot.is_known = true;
            self.tell(client, ClientChange::Appeared);
        }
        let Some(slot) = self.slots.get_mut(number) else { return };
        if slot.was_connected != (is_connected, connects) {
            let (was_connected, _) = slot.was_connected;
            slot.was_connected = (is_connected, connects);
            self.ports.retain(|_, other| *other != number);
            if was_connected {
                self.tell(client, ClientChange::Disconnected);
            }
            if is_connected {
                self.ports.extend(vif.ports().map(|port| (port, number)));
                // What came before we were told.
                self.busy.insert(number);
                self.touched.insert(number);
                self.tell(client, ClientChange::Connected);
            }
        }
        if let Some(slot) = self.slots.get_mut(number) {
            slot.vif = Some(vif);
        }
    }

    fn tell(&mut self, client: ClientId, change: ClientChange) {
        if self.changes.len() >= MAX_CHANGES {
            // Who is gone is told in any case, where there is anything else to forget.
            let is_gone =
                |(_, change): &(_, ClientChange)| matches!(change, ClientChange::Gone { .. });
            let oldest = self.changes.iter().position(|change| !is_gone(change)).unwrap_or(0);
            self.changes.remove(oldest);
        }
        self.changes.push_back((client, change));
    }
}

/// The client in this slot.
fn id(number: usize, generation: u32) -> ClientId {
    // At most MAX_CLIENTS slots.
    ClientId { slot: number as u32, generation }
}

impl<P: BackendPlatform, S: Store + Clone> core::fmt::Debug for Clients<P, S> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Clients")
            .field("vifs", &self.len())
            .field("connected", &self.iter().filter(|(_, vif)| vif.is_connected()).count())
            .field("refused", &self.refused)
            .finish_non_exhaustive()
    }
}
