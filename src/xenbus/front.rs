//! The frontend's end of a vif.
//!
//! ```text
//!                 poll ──► Wait      nothing to do until an event or `next_deadline`
//!                          Connect   make rings, then `publish` them
//!                          Live      transmit and receive
//!                          Release   end all use of the rings, then `released`
//!                          Gone      the vif has been taken away
//! ```
//!
//! What is decided, and why, is in `front_rules.rs`. Here is how: reading xenstore when a watch
//! has fired or a deadline has passed, and never otherwise; writing our state; keeping time.

use alloc::format;
use alloc::string::String;
use core::time::Duration;

use xen_grant::DomId;

use super::backend_offer::{BackendOffer, is_connection_key};
use super::backoff::Backoff;
use super::front_rules::{self, Action, Phase, View};
use super::link::Link;
use super::state::BusState;
use super::values::{join, remove_if_there};
use crate::platform::Instant;
use crate::store::{Store, StoreError};

/// How long a closing backend may take for each step before we go on without it.
const PATIENCE: Duration = Duration::from_millis(250);

/// How often a backend that should move on is reminded, at first and at last.
const REMIND: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(8));

/// How long between tries to connect: the first at once, then 10 ms, ... 500 ms. A backend that
/// behaves again has us back within a second, however long it did not.
const RECONNECT: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(500));

/// A connection that lasted this long was a good one.
const GOOD: Duration = Duration::from_secs(1);

/// How long until a store that failed is asked again.
const STORE: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(250));

/// More decisions than any one state of xenstore leads to (a test walks all of them).
pub(super) const MAX_ACTIONS: usize = 8;

/// What the device is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum FrontStep {
    /// Nothing. If there are rings, leave them alone: don't transmit, don't take them down.
    Wait,
    /// Make rings and call [`FrontBus::publish`]. If that can't be done, call [`FrontBus::fail`].
    Connect,
    /// The backend is connected: transmit and receive.
    Live,
    /// End all use of the rings, then call [`FrontBus::released`].
    Release,
    /// The vif has been removed. (Should it come back, `Connect` follows.)
    Gone,
}

/// The frontend's end of a vif. See the [module's picture](super).
///
/// Call [`poll`](FrontBus::poll) whenever xenstore has news, whenever
/// [`next_deadline`](FrontBus::next_deadline) has come, and after each other call; do what it
/// says. It never fails: a store that does not answer is asked again later.
pub struct FrontBus<S: Store> {
    link: Link<S>,
    phase: Phase,
    rings: bool,
    /// The device has been told to let go of its rings, and has not said that it did.
    releasing: bool,
    wanted: bool,
    faulted: bool,
    /// The `state` that we left in our directory; `None` if nothing there is ours.
    written: Option<BusState>,

    // What xenstore said when we last looked.
    /// Our `state`; `None`: our directory is gone.
    mine: Option<BusState>,
    peer: BusState,
    online: bool,
    offer: BackendOffer,
    /// `backend-id` as of the last look.
    domain: Option<DomId>,
    /// The last backend that `backend` named.
    backend: Option<String>,
    /// `offer` holds what `Connect` promises.
    offer_read: bool,

    /// Look even if no watch has fired.
    look: bool,
    /// The store failed: leave it alone until then.
    retry_at: Option<Instant>,
    /// When this phase will have lasted too long.
    patience: Option<Instant>,
    /// No new connection before that.
    held_until: Instant,
    live_since: Option<Instant>,
    deadline: Option<Instant>,
    retry: Backoff,
    remind: Backoff,
    reconnect: Backoff,
}

impl<S: Store> FrontBus<S> {
    /// Watches vif `vif` of our domain. It need not exist yet.
    pub fn open(store: S, vif: u32) -> Result<FrontBus<S>, StoreError> {
        Ok(FrontBus {
            link: Link::open(store, format!("device/vif/{vif}"), "")?,
            phase: Phase::Stale,
            rings: false,
            releasing: false,
            wanted: true,
            faulted: false,
            written: None,
            mine: None,
            peer: BusState::Unknown,
            online: true,
            offer: BackendOffer::default(),
            domain: None,
            backend: None,
            offer_read: false,
            look: true,
            retry_at: None,
            patience: None,
            held_until: Instant(0),
            live_since: None,
            deadline: Some(Instant(0)),
            retry: Backoff::new(STORE.0, STORE.1),
            remind: Backoff::new(REMIND.0, REMIND.1),
            reconnect: Backoff::after_one_try(RECONNECT.0, RECONNECT.1),
        })
    }

    /// Looks what has changed, does our part, and says what the device is to do.
    ///
    /// Bounded work; none in xenstore unless a watch has fired or a deadline has passed.
    pub fn poll(&mut self, now: Instant) -> FrontStep {
        if self.releasing {
            return FrontStep::Release;
        }
        let step = self.advance(now);
        self.deadline = match step {
            FrontStep::Connect | FrontStep::Release => None,
            FrontStep::Wait | FrontStep::Live | FrontStep::Gone => self.waits_until(now),
        };
        self.releasing = step == FrontStep::Release;
        step
    }

    /// When to call [`poll`](FrontBus::poll) at the latest; `None` if only an event can matter.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// What the backend offers.
    pub fn offer(&self) -> &BackendOffer {
        &self.offer
    }

    /// Whether an orderly [`close`](FrontBus::close) is over: our state is `Closed`, and no rings
    /// are left.
    pub fn is_closed(&self) -> bool {
        let closed = if self.mine.is_some() { self.phase == Phase::Closed } else { !self.look };
        !self.wanted && !self.rings && closed
    }

    /// The backend's state, as of the last look.
    pub fn backend_state(&self) -> BusState {
        self.peer
    }

    /// Publishes the rings that the device has made after [`FrontStep::Connect`]: in one
    /// transaction, every node of an earlier connection goes, `keys` (paths below our directory,
    /// and values) come, and our state becomes `Connected`.
    ///
    /// On an error nothing was published: the device takes its rings down again, and will be
    /// asked once more a little later.
    pub fn publish<K: AsRef<str>, V: AsRef<[u8]>>(
        &mut self,
        now: Instant,
        keys: &[(K, V)],
    ) -> Result<(), StoreError> {
        self.deadline = Some(now);
        let connectable = self.phase == Phase::Offering && !self.rings && self.intact();
        let outcome = if connectable {
            let (link, store) = (&self.link, self.link.store());
            link.change_state(BusState::Initialising, BusState::Connected, |transaction| {
                let within = Some(transaction);
                for name in store.list(within, link.dir())? {
                    if is_connection_key(&name) {
                        remove_if_there(store, within, &join(link.dir(), &name))?;
                    }
                }
                for (key, value) in keys {
                    store.write(within, &join(link.dir(), key.as_ref()), value.as_ref())?;
                }
                Ok(())
            })
        } else {
            Ok(false)
        };
        match outcome {
            Ok(true) => {
                self.rings = true;
                self.left_state(BusState::Connected);
                self.enter(Phase::Published, now);
                Ok(())
            }
            Ok(false) => {
                self.look = true;
                Err(StoreError::Again)
            }
            Err(error) => {
                self.hold(now);
                Err(error)
            }
        }
    }

    /// The device has ended all use of its rings, after [`FrontStep::Release`].
    pub fn released(&mut self, now: Instant) {
        self.releasing = false;
        self.rings = false;
        self.deadline = Some(now);
        match self.phase {
            // Our directory was taken from under the connection.
            Phase::Published | Phase::Live => {
                self.lost(now);
                self.faulted = false;
                self.written = None;
                self.enter(Phase::Stale, now);
            }
            Phase::Stale | Phase::Offering | Phase::Closing | Phase::Closed => {
                self.enter(self.phase, now);
            }
        }
    }

    /// The device found the backend at fault, or could not make its rings. The connection is
    /// closed ([`FrontStep::Release`] follows if there are rings) and tried anew.
    pub fn fail(&mut self, now: Instant) {
        match self.phase {
            Phase::Published | Phase::Live => self.faulted = true,
            Phase::Offering => self.hold(now),
            Phase::Stale | Phase::Closing | Phase::Closed => {}
        }
        self.deadline = Some(now);
    }

    /// Disconnects in good order, and stays so until [`reopen`](FrontBus::reopen).
    pub fn close(&mut self, now: Instant) {
        self.wanted = false;
        self.enter(self.phase, now);
        self.deadline = Some(now);
    }

    /// Connects again after [`close`](FrontBus::close).
    pub fn reopen(&mut self, now: Instant) {
        self.wanted = true;
        self.reconnect.reset();
        self.held_until = now;
        self.enter(self.phase, now);
        self.deadline = Some(now);
    }

    /// Looks at xenstore at the next poll even if no watch has fired (the backend is silent).
    pub fn recheck(&mut self, now: Instant) {
        self.look = true;
        self.deadline = Some(now);
    }

    /// The domain has been resumed, maybe on another machine: nothing of the old connection
    /// holds. Start from what xenstore says now.
    pub fn resumed(&mut self, now: Instant) {
        self.written = None;
        self.recheck(now);
    }

    fn advance(&mut self, now: Instant) -> FrontStep {
        if self.retry_at.is_some_and(|at| at > now) {
            return self.step_without_store(now);
        }
        let retrying = self.retry_at.take().is_some();
        let news = self.link.take_events();
        if news || retrying || self.look || self.overdue(now) {
            self.look = true;
            if let Err(error) = self.look_now() {
                self.store_failed(error, now);
                return self.step_without_store(now);
            }
            self.look = false;
        }
        match self.act(now) {
            Ok(step) => {
                if self.retry_at.is_none() && !self.look {
                    self.retry.reset();
                }
                if step == FrontStep::Wait && self.overdue(now) {
                    // Whatever we wait for, look again some time, less and less often.
                    self.patience = Some(now + self.remind.delay());
                }
                step
            }
            Err(error) => {
                self.store_failed(error, now);
                self.step_without_store(now)
            }
        }
    }

    /// Reads what a decision needs: all of it, or nothing has changed.
    fn look_now(&mut self) -> Result<(), StoreError> {
        let mine = self.link.own_state(None)?;
        let domain = self.link.own().domain("backend-id")?;
        let backend = match domain {
            Some(domain) => self.link.own().path("backend", domain)?,
            None => None,
        };
        self.link.follow(backend.as_deref())?;
        let peer = self.link.peer_state()?;
        let (online, carrier) = match self.link.peer() {
            Some(peer) => (peer.flag("online", true)?, peer.flag("carrier", true)?),
            None => (true, true),
        };

        if mine.is_none() {
            self.written = None;
        }
        if backend.is_some() && backend != self.backend {
            if self.backend.is_some() {
                // Another backend: what we left was meant for the old one.
                self.written = None;
            }
            self.backend = backend;
        }
        (self.mine, self.domain) = (mine, domain);
        (self.peer, self.online) = (peer, online);
        self.offer.carrier = carrier;
        self.offer_read = false;
        Ok(())
    }

    /// Decides and acts until there is nothing left to do but wait, or it is the device's turn.
    fn act(&mut self, now: Instant) -> Result<FrontStep, StoreError> {
        for _ in 0..MAX_ACTIONS {
            let action = front_rules::next(self.view(now));
            match action {
                Action::Stay if self.phase == Phase::Live => return Ok(FrontStep::Live),
                Action::Stay => return Ok(FrontStep::Wait),
                Action::Gone => {
                    // Should it come back, it is a new vif.
                    (self.backend, self.patience) = (None, None);
                    self.reconnect.reset();
                    self.held_until = now;
                    return Ok(FrontStep::Gone);
                }
                Action::Release => return Ok(FrontStep::Release),
                Action::Connect => {
                    return if self.read_offer()? {
                        Ok(FrontStep::Connect)
                    } else {
                        Ok(FrontStep::Wait)
                    };
                }
                Action::GoLive => {
                    self.live_since = Some(now);
                    self.enter(Phase::Live, now);
                }
                Action::Adopt => self.adopt(now)?,
                Action::WriteInitialising => {
                    self.write(BusState::Initialising, Phase::Offering, now)?;
                }
                Action::WriteClosing => {
                    self.write(BusState::Closing, Phase::Closing, now)?;
                }
                Action::WriteClosed => {
                    self.write(BusState::Closed, Phase::Closed, now)?;
                }
                Action::Repeat => {
                    let state = self.written.unwrap_or_default();
                    self.put_state(state, state)?;
                    return Ok(FrontStep::Wait);
                }
            }
            if self.look {
                break;
            }
        }
        Ok(FrontStep::Wait)
    }

    /// What the device is to do while the store can't be asked. A connection does not suffer.
    fn step_without_store(&self, now: Instant) -> FrontStep {
        match front_rules::next(self.view(now)) {
            Action::Release => FrontStep::Release,
            Action::Stay if self.phase == Phase::Live => FrontStep::Live,
            Action::Stay
            | Action::Gone
            | Action::Adopt
            | Action::Connect
            | Action::GoLive
            | Action::WriteInitialising
            | Action::WriteClosing
            | Action::WriteClosed
            | Action::Repeat => FrontStep::Wait,
        }
    }

    fn view(&self, now: Instant) -> View {
        View {
            phase: self.phase,
            rings: self.rings,
            peer: self.peer,
            present: self.mine.is_some(),
            intact: self.intact(),
            online: self.online,
            wanted: self.wanted,
            faulted: self.faulted,
            overdue: self.overdue(now),
            held: self.held_until > now,
        }
    }

    fn intact(&self) -> bool {
        self.mine.is_some() && self.mine == self.written
    }

    fn overdue(&self, now: Instant) -> bool {
        self.patience.is_some_and(|patience| patience <= now)
    }

    /// Starts from the `state` that is there.
    fn adopt(&mut self, now: Instant) -> Result<(), StoreError> {
        let Some(mine) = self.mine else { return Ok(()) };
        let phase = match mine {
            BusState::Unknown | BusState::InitWait => {
                if !self.put_state(mine, BusState::Initialising)? {
                    return Ok(());
                }
                Phase::Offering
            }
            BusState::Initialising => Phase::Offering,
            BusState::Initialised
            | BusState::Connected
            | BusState::Reconfiguring
            | BusState::Reconfigured => Phase::Stale,
            BusState::Closing => Phase::Closing,
            BusState::Closed => Phase::Closed,
        };
        self.written = self.mine;
        self.enter(phase, now);
        Ok(())
    }

    fn read_offer(&mut self) -> Result<bool, StoreError> {
        if !self.offer_read {
            let (Some(domain), Some(peer)) = (self.domain, self.link.peer()) else {
                return Ok(false);
            };
            self.offer = BackendOffer::read(domain, self.link.own(), peer)?;
            self.offer_read = true;
        }
        Ok(true)
    }

    /// Writes our state and enters the phase that goes with it.
    fn write(&mut self, state: BusState, phase: Phase, now: Instant) -> Result<(), StoreError> {
        if self.put_state(self.written.unwrap_or_default(), state)? {
            self.lost(now);
            self.faulted = false;
            self.enter(phase, now);
        }
        Ok(())
    }

    /// Writes our state. Looks again if it was not ours any more.
    fn put_state(&mut self, from: BusState, to: BusState) -> Result<bool, StoreError> {
        let ours = self.link.change_state(from, to, |_| Ok(()))?;
        if ours {
            self.left_state(to);
        } else {
            self.look = true;
        }
        Ok(ours)
    }

    fn left_state(&mut self, state: BusState) {
        self.written = Some(state);
        self.mine = Some(state);
    }

    fn enter(&mut self, phase: Phase, now: Instant) {
        self.phase = phase;
        self.remind.reset();
        self.patience = match phase {
            Phase::Stale | Phase::Live => None,
            Phase::Offering | Phase::Published => Some(now + self.remind.delay()),
            Phase::Closing => Some(now + PATIENCE),
            Phase::Closed if self.rings => Some(now + PATIENCE),
            Phase::Closed if self.wanted => Some(now + self.remind.delay()),
            Phase::Closed => None,
        };
    }

    /// When to look again, if nothing happens before.
    fn waits_until(&self, now: Instant) -> Option<Instant> {
        if self.retry_at.is_some() {
            return self.retry_at;
        }
        if self.look {
            return Some(now);
        }
        let waits_to_connect = matches!(self.phase, Phase::Offering | Phase::Closed);
        let hold = (waits_to_connect && self.wanted && !self.rings && self.held_until > now)
            .then_some(self.held_until);
        self.patience.into_iter().chain(hold).min()
    }

    /// If this was a connection, it has ended: when may the next one begin?
    fn lost(&mut self, now: Instant) {
        match self.phase {
            Phase::Published | Phase::Live => {}
            Phase::Stale | Phase::Offering | Phase::Closing | Phase::Closed => return,
        }
        if self.live_since.take().is_some_and(|since| now.since(since) >= GOOD) {
            self.reconnect.reset();
        }
        self.hold(now);
    }

    fn hold(&mut self, now: Instant) {
        self.held_until = now + self.reconnect.delay();
    }

    fn store_failed(&mut self, error: StoreError, now: Instant) {
        let delay = self.retry.delay();
        log::debug!("{}: {error}; looking again in {delay:?}", self.link.dir());
        self.look = true;
        self.retry_at = Some(now + delay);
    }
}
