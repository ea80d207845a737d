//! All clients of a backend domain: their vifs come and go, and those whose event has come are run.
//!
//! ```text
//!   xenstore ── one watch ──► service ──► opens, connects, closes vifs; a bounded part at a time
//!   events   ── a bit each ─► turn ─────► polls whose bit is set ──► sink(clients, from, packet)
//!                             deliver ──► queues a packet for one         │
//!                                ▲────────────────────────────────────────┘
//!                             rearm ────► flushes whoever got something, asks for events
//! ```

mod ready;

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::future::poll_fn;
use core::task::{Context, Poll, Waker};

use packet_views::Wake;
use xen_grant::FramePool;

use super::budget::Budget;
use super::config::Config;
use super::counters::Counters;
use super::error::{DeliverError, DeliverErrorKind};
use super::pace::Allowance;
use super::scratch::Scratch;
use super::vif::Vif;
use crate::buffer::{Packet, PacketMut};
use crate::platform::{BackendPlatform, Instant, Port};
use crate::xenbus::{Listing, Look, VifId};
use ready::{Ready, Set};
use xen_store::{Store, StoreError};

/// The most vifs that a backend serves. Further ones are refused.
pub const MAX_CLIENTS: usize = 256;

/// After so many requests to xenstore a call of [`Clients::service`] begins nothing more.
const SLICE: u32 = 12;

/// The most changes that are kept for who asks [`Clients::next_change`]; older ones are forgotten.
const MAX_CHANGES: usize = 4 * MAX_CLIENTS;

/// A client: one vif, from its appearing to its removal. A vif that is removed and made again is another
/// client, though the domain and the number be the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId {
    slot: u32,
    generation: u32,
}

/// What has become of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClientChange {
    /// It is connected: packets come from it, and go to it.
    Connected,
    /// It is not connected any more; it may be again.
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
    was_connected: bool,
    /// Something has been told of it.
    is_known: bool,
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
    changes: VecDeque<(ClientId, ClientChange)>,
    carrier: Option<bool>,
    is_paused: bool,
    is_closing: bool,
    /// Vifs that there was no room for,
    refused: u64,
    /// some of them since a client went.
    has_refused: bool,
}

impl<P: BackendPlatform, S: Store + Clone> Clients<P, S> {
    /// Serves all vifs that a toolstack makes below `backend/vif` of our own domain.
    ///
    /// What clients send is copied into frames of `pool`. What waits for them is charged to `budget`, which
    /// says how many clients there may be; [`Config::queue_frames`] means nothing here.
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
            changes: VecDeque::new(),
            carrier: None,
            is_paused: false,
            is_closing: false,
            refused: 0,
            has_refused: false,
        })
    }

    // -- the loop ---------------------------------------------------------------------------

    /// One turn: sees to xenstore, and hands up to `budget` packets of each client whose event has come to
    /// `sink`, with the client that sent it. Returns how many packets there were.
    ///
    /// The budget is work, as [`Netback::poll`](super::Netback::poll) counts it. The sink may
    /// [`deliver`](Clients::deliver) to any client, the one that sent it too.
    pub fn turn(
        &mut self,
        budget: usize,
        mut sink: impl FnMut(&mut Self, ClientId, PacketMut),
    ) -> usize {
        self.service();
        self.busy.extend(self.ready.take());
        let (mut left, mut packets) = (self.busy, 0);
        if self.is_paused {
            // They get what waits for them all the same.
            self.touched.extend(left);
            return 0;
        }
        while let Some(number) = left.next_from(self.next_busy) {
            left.remove(number);
            self.next_busy = number + 1;
            packets += self.poll_one(number, budget, &mut sink);
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
        self.touched.insert(number);
        self.busy.remove(number);
        let before = self.polled.replace(number);
        let packets = vif.poll(&mut scratch, budget, |packet| sink(self, client, packet));
        self.scratch.from = Some(scratch);
        self.polled = before;
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
        packets
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
                if vif.rearm(&mut this.scratch.to) {
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
        if !self.ready.is_empty() || !self.busy.is_empty() && !self.is_paused {
            return Some(now);
        }
        store.into_iter().chain((due < NEVER).then_some(due)).min()
    }

    // -- packets ----------------------------------------------------------------------------

    /// Queues a packet for a client, as [`Netback::deliver`](super::Netback::deliver) does. One for the client
    /// that is being polled is taken in any case, and dropped if there is no room for it afterwards.
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

    // -- who there is -----------------------------------------------------------------------

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

    // -- all together -----------------------------------------------------------------------

    /// Tells all clients whether there is a network behind us (`carrier`): as long as nobody has called this,
    /// they take it that there is.
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

    // -- xenstore ---------------------------------------------------------------------------

    /// Sees to xenbus and to timers, a part at a time. [`turn`](Clients::turn) does too: for who polls
    /// otherwise.
    pub fn service(&mut self) {
        let now = self.platform.now();
        self.wake_due(now);
        if self.allowance.rests_until(now).is_some() {
            return;
        }
        self.look(now);
        let mut spent = self.listing.requests().wrapping_sub(self.paid);
        self.paid = self.listing.requests();
        let mut left = self.asked;
        while spent < SLICE
            && let Some(number) = left.next_from(self.next_asked)
        {
            left.remove(number);
            self.asked.remove(number);
            self.next_asked = number + 1;
            self.with(number, |this, vif, _| spent += vif.service(&mut this.scratch, SLICE));
            self.remove_if_gone(number);
        }
        self.allowance.spend(spent, now);
    }

    /// Those whose time has come have something to do. Returns whose comes next.
    fn wake_due(&mut self, now: Instant) -> Instant {
        if let Some(due) = self.due.filter(|due| *due > now) {
            return due;
        }
        let mut next = NEVER;
        for (number, slot) in self.slots.iter_mut().enumerate() {
            if slot.due.bus <= now {
                slot.due.bus = NEVER;
                self.asked.insert(number);
            }
            if slot.due.packets <= now {
                slot.due.packets = NEVER;
                self.busy.insert(number);
            }
            next = next.min(slot.due.bus).min(slot.due.packets);
        }
        self.due = Some(next);
        next
    }

    /// Looks which vifs there are, and where something has changed.
    fn look(&mut self, now: Instant) {
        let mut looks = Vec::new();
        self.listing.poll(now, |look| looks.push(look));
        for look in looks {
            match look {
                Look::All => {
                    for number in self.open.values().copied().collect::<Vec<_>>() {
                        self.ask(number);
                    }
                }
                Look::At(vif) => match self.open.get(&vif) {
                    Some(&number) => self.ask(number),
                    None => self.add(vif),
                },
            }
        }
    }

    fn ask(&mut self, number: usize) {
        self.asked.insert(number);
        if let Some(vif) = self.slots.get_mut(number).and_then(|slot| slot.vif.as_mut()) {
            vif.ask();
        }
    }

    /// For the frames that will wait for another client; `None` if there are clients enough.
    /// A vif that is not known: it may be new.
    fn add(&mut self, vif: VifId) {
        let Some(watch) = self.listing.watch().filter(|_| !self.is_closing) else { return };
        let has_room = self.open.len() < MAX_CLIENTS;
        let Some(account) = has_room.then(|| self.budget.account()).flatten() else {
            let (domain, number, others) = (vif.0.0, vif.1, self.open.len());
            log::warn!(
                "domain {domain}, vif {number}: not served: {others} are, and no more can be"
            );
            self.has_refused = true;
            self.refused += 1;
            return;
        };
        let (platform, store, pool) = (self.platform.clone(), self.store.clone(), &self.pool);
        let terms = (self.config, account);
        let mut opened = Vif::part_of(platform, store, watch, pool, vif, terms, SLICE);
        if let Some(up) = self.carrier {
            opened.set_carrier(up);
        }
        opened.pause_receive(self.is_paused);
        let opened = Some(Box::new(opened));
        let number = match self.slots.iter().position(|slot| slot.is.is_none()) {
            Some(number) => number,
            None => {
                let waker = self.ready.waker(self.slots.len());
                self.slots.push(Slot {
                    generation: 0,
                    vif: None,
                    waker,
                    is: None,
                    due: NOTHING,
                    was_connected: false,
                    is_known: false,
                });
                self.slots.len() - 1
            }
        };
        if let Some(slot) = self.slots.get_mut(number) {
            slot.vif = opened;
            slot.is = Some(vif);
        }
        self.open.insert(vif, number);
        self.asked.insert(number);
    }

    /// Does something with a vif, and takes note of what has become of it.
    fn with(&mut self, number: usize, work: impl FnOnce(&mut Self, &mut Vif<P, S>, &Waker)) {
        let Some(slot) = self.slots.get_mut(number) else { return };
        let Some(mut vif) = slot.vif.take() else { return };
        let waker = slot.waker.clone();
        work(self, &mut vif, &waker);
        if vif.is_at_fault() {
            self.asked.insert(number);
        }
        let due = Due {
            bus: vif.bus_deadline().unwrap_or(NEVER),
            packets: vif.packet_deadline().unwrap_or(NEVER),
        };
        let is_connected = vif.is_connected();
        let Some(slot) = self.slots.get_mut(number) else { return };
        if slot.due != due {
            slot.due = due;
            self.due = None;
        }
        let client = id(number, slot.generation);
        if slot.was_connected != is_connected {
            slot.was_connected = is_connected;
            slot.is_known = true;
            self.ports.retain(|_, other| *other != number);
            if is_connected {
                self.ports.extend(vif.ports().map(|port| (port, number)));
                // What came before we were told.
                self.busy.insert(number);
                self.touched.insert(number);
            }
            let change =
                if is_connected { ClientChange::Connected } else { ClientChange::Disconnected };
            self.tell(client, change);
        }
        if let Some(slot) = self.slots.get_mut(number) {
            slot.vif = Some(vif);
        }
    }

    fn remove_if_gone(&mut self, number: usize) {
        let Some(slot) = self.slots.get_mut(number) else { return };
        let Some(vif) = slot.vif.take_if(|vif| vif.is_gone()) else { return };
        let client = id(number, slot.generation);
        slot.generation = slot.generation.wrapping_add(1);
        let is_known = core::mem::take(&mut slot.is_known);
        (slot.due, slot.was_connected, slot.is) = (NOTHING, false, None);
        self.due = None;
        self.open.remove(&vif.id());
        if core::mem::take(&mut self.has_refused) {
            // There is room for another.
            self.listing.list_anew();
        }
        self.ports.retain(|_, other| *other != number);
        for set in [&mut self.asked, &mut self.busy, &mut self.touched] {
            set.remove(number);
        }
        if is_known {
            let (vif, counters) = (vif.id(), Box::new(*vif.counters()));
            self.tell(client, ClientChange::Gone { vif, counters });
        }
    }

    fn tell(&mut self, client: ClientId, change: ClientChange) {
        if self.changes.len() >= MAX_CHANGES {
            self.changes.pop_front();
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
