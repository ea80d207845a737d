//! The backend's end of a vif.
//!
//! ```text
//!                 poll ──► Wait      nothing to do until an event or `next_deadline`
//!                          Connect   map the rings of `frontend_offer`, then `connected`
//!                          Release   end all use of the rings, then `released`
//!                          Remove    the vif is gone, and so is its directory: drop this
//! ```
//!
//! What is decided, and why, is in `back_rules.rs`. In a driver domain nobody else answers the
//! toolstack, so the directory must say `InitWait` soon after it has appeared, `Closed` soon after
//! the toolstack asked for it, and then be removed: poll as soon as there is news.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

use xen_grant::DomId;

use super::back_rules::{self, Action, Phase, View};
use super::backoff::Backoff;
use super::frontend_offer::{BadOffer, FrontendOffer, MAX_QUEUES};
use super::link::Link;
use super::state::BusState;
use super::values::{Reader, join, parse_u32, remove_if_there, transact};
use crate::platform::Instant;
use crate::store::{Store, StoreError};

/// How long a closing frontend may take before we go on without it.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long until a frontend that was at fault may connect again, at first and at last.
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
pub enum BackStep {
    /// Nothing new: go on with the rings if they are mapped.
    Wait,
    /// Map the rings of [`BackBus::frontend_offer`], then call [`BackBus::connected`]; if that
    /// can't be done, [`BackBus::failed`].
    Connect,
    /// End all use of the frontend's rings, then call [`BackBus::released`].
    Release,
    /// The vif is gone and its watches too. Drop this, and tell
    /// [`Clients::forget`](super::Clients::forget).
    Remove,
}

/// Who removes a vif's directory in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// We do: this is a driver domain, and nobody else will.
    Ours,
    /// The toolstack does, as in dom0.
    Toolstack,
}

/// The backend's end of a vif. See the [module's picture](super).
///
/// Call [`poll`](BackBus::poll) whenever xenstore has news, whenever
/// [`next_deadline`](BackBus::next_deadline) has come, and after each other call; do what it
/// says. It never fails: a store that does not answer is asked again later.
pub struct BackBus<S: Store> {
    link: Link<S>,
    frontend: DomId,
    features: Vec<(String, String)>,
    max_queues: u32,
    removal: Removal,

    phase: Phase,
    mapped: bool,
    /// The device has been told to let go of the rings, and has not said that it did.
    releasing: bool,
    removed: bool,
    /// Why the frontend is at fault.
    fault: Option<String>,
    /// The `state` that we left in our directory; `None` if nothing there is ours.
    written: Option<BusState>,
    /// What the device has connected to, or was told to.
    connection: Option<FrontendOffer>,

    // What xenstore said when we last looked.
    /// Our `state`; `None`: our directory is gone.
    mine: Option<BusState>,
    peer: BusState,
    online: bool,
    offer: Option<FrontendOffer>,

    /// Look even if no watch has fired.
    look: bool,
    /// The store failed: leave it alone until then.
    retry_at: Option<Instant>,
    /// When this phase will have lasted too long.
    patience: Option<Instant>,
    /// No new offer before that.
    held_until: Instant,
    connected_since: Option<Instant>,
    deadline: Option<Instant>,
    retry: Backoff,
    reconnect: Backoff,
}

impl<S: Store> BackBus<S> {
    /// Watches vif `index` of domain `frontend`, below `backend/vif` of our own domain.
    ///
    /// `features` are the nodes that tell the frontend what we can do. They are written, and the
    /// state `InitWait`, by the first [`poll`](BackBus::poll). `multi-queue-max-queues` among them
    /// (1 without) bounds what the frontend may ask for.
    pub fn open(
        store: S,
        frontend: DomId,
        index: u32,
        features: &[(&str, &str)],
        removal: Removal,
    ) -> Result<BackBus<S>, StoreError> {
        let max_queues = features
            .iter()
            .find(|(key, _)| *key == "multi-queue-max-queues")
            .and_then(|(_, value)| parse_u32(value.as_bytes()))
            .map_or(1, |queues| queues.clamp(1, MAX_QUEUES));
        Ok(BackBus {
            link: Link::open(store, format!("backend/vif/{}/{index}", frontend.0), "/state")?,
            frontend,
            features: features.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(),
            max_queues,
            removal,
            phase: Phase::Fresh,
            mapped: false,
            releasing: false,
            removed: false,
            fault: None,
            written: None,
            connection: None,
            mine: None,
            peer: BusState::Unknown,
            online: true,
            offer: None,
            look: true,
            retry_at: None,
            patience: None,
            held_until: Instant(0),
            connected_since: None,
            deadline: Some(Instant(0)),
            retry: Backoff::new(STORE.0, STORE.1),
            reconnect: Backoff::after_one_try(RECONNECT.0, RECONNECT.1),
        })
    }

    /// Looks what has changed, does our part, and says what the device is to do.
    ///
    /// Bounded work; none in xenstore unless a watch has fired or a deadline has passed.
    pub fn poll(&mut self, now: Instant) -> BackStep {
        if self.removed {
            return BackStep::Remove;
        }
        if self.releasing {
            return BackStep::Release;
        }
        let step = self.advance(now);
        self.deadline = match step {
            BackStep::Connect | BackStep::Release | BackStep::Remove => None,
            BackStep::Wait => self.waits_until(now),
        };
        self.releasing = step == BackStep::Release;
        step
    }

    /// When to call [`poll`](BackBus::poll) at the latest; `None` if only an event can matter.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// What the frontend has published: from [`BackStep::Connect`] until [`BackBus::released`].
    pub fn frontend_offer(&self) -> Option<&FrontendOffer> {
        self.connection.as_ref()
    }

    /// Whose vif this is.
    pub fn frontend(&self) -> DomId {
        self.frontend
    }

    /// Whether both ends are connected, as far as we know.
    pub fn is_connected(&self) -> bool {
        self.phase == Phase::Connected && self.mapped && !self.releasing && self.fault.is_none()
    }

    /// The frontend's state, as of the last look.
    pub fn frontend_state(&self) -> BusState {
        self.peer
    }

    /// Our directory in xenstore: `mac`, `ip` and more of what the toolstack says are there.
    pub fn own(&self) -> Reader<'_, S> {
        self.link.own()
    }

    /// The device has mapped the rings, after [`BackStep::Connect`]. The next poll tells the
    /// frontend; from then on it may transmit.
    pub fn connected(&mut self, now: Instant) {
        self.mapped = true;
        self.deadline = Some(now);
    }

    /// The frontend is at fault, or its rings can't be mapped. `reason` is left in the `error`
    /// node of our directory. If rings are mapped [`BackStep::Release`] follows, once.
    pub fn failed(&mut self, now: Instant, reason: &str) {
        match self.phase {
            Phase::InitWait | Phase::Connected => {
                self.fault.get_or_insert_with(|| reason.chars().take(200).collect());
            }
            Phase::Fresh | Phase::Stale | Phase::Closing | Phase::Closed => {}
        }
        self.deadline = Some(now);
    }

    /// The device has ended all use of the frontend's rings, after [`BackStep::Release`].
    pub fn released(&mut self, now: Instant) {
        self.releasing = false;
        self.mapped = false;
        self.connection = None;
        if self.connected_since.take().is_some_and(|since| now.since(since) >= GOOD) {
            self.reconnect.reset();
        }
        self.deadline = Some(now);
    }

    fn advance(&mut self, now: Instant) -> BackStep {
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
                if !self.look {
                    self.retry.reset();
                }
                if self.overdue(now) {
                    self.patience = Some(now + PATIENCE);
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
        let online = self.link.own().flag("online", true)?;
        let frontend = self.link.own().path("frontend", self.frontend)?;
        self.link.follow(frontend.as_deref())?;
        let peer = self.link.peer_state()?;
        let mut offer = None;
        if peer == BusState::Connected && matches!(self.phase, Phase::InitWait | Phase::Connected) {
            match self.read_offer()? {
                Ok(published) => offer = Some(published),
                Err(bad) => {
                    self.fault.get_or_insert_with(|| bad.to_string());
                }
            }
        }
        (self.mine, self.online) = (mine, online);
        (self.peer, self.offer) = (peer, offer);
        Ok(())
    }

    /// Reads what the frontend has published, all of it as of one moment.
    fn read_offer(&self) -> Result<Result<FrontendOffer, BadOffer>, StoreError> {
        let Some(dir) = self.link.peer_dir() else { return Ok(Err(BadOffer::Rings)) };
        let store = self.link.store();
        transact(store, |transaction| {
            FrontendOffer::read(Reader { store, within: Some(transaction), dir }, self.max_queues)
        })
    }

    /// Decides and acts until there is nothing left to do but wait, or it is the device's turn.
    fn act(&mut self, now: Instant) -> Result<BackStep, StoreError> {
        for _ in 0..MAX_ACTIONS {
            match back_rules::next(self.view(now)) {
                Action::Stay => return Ok(BackStep::Wait),
                Action::Release => return Ok(BackStep::Release),
                Action::Connect => {
                    self.connection.clone_from(&self.offer);
                    return Ok(BackStep::Connect);
                }
                Action::Gone => return Ok(self.leave()),
                Action::Remove => {
                    if self.remove()? {
                        return Ok(self.leave());
                    }
                }
                Action::Adopt => self.adopt(),
                Action::Offer => self.write(BusState::InitWait, Phase::InitWait, now)?,
                Action::WriteConnected => {
                    self.write(BusState::Connected, Phase::Connected, now)?;
                }
                Action::WriteClosing => self.write(BusState::Closing, Phase::Closing, now)?,
                Action::WriteClosed => self.write(BusState::Closed, Phase::Closed, now)?,
            }
            if self.look {
                break;
            }
        }
        Ok(BackStep::Wait)
    }

    /// What the device is to do while the store can't be asked.
    fn step_without_store(&self, now: Instant) -> BackStep {
        match back_rules::next(self.view(now)) {
            Action::Release => BackStep::Release,
            Action::Stay
            | Action::Gone
            | Action::Adopt
            | Action::Offer
            | Action::Connect
            | Action::WriteConnected
            | Action::WriteClosing
            | Action::WriteClosed
            | Action::Remove => BackStep::Wait,
        }
    }

    fn view(&self, now: Instant) -> View {
        let sound = if self.mapped { self.offer == self.connection } else { self.offer.is_some() };
        View {
            phase: self.phase,
            mapped: self.mapped,
            peer: self.peer,
            present: self.mine.is_some(),
            intact: self.mine.is_some() && self.mine == self.written,
            online: self.online,
            faulted: self.fault.is_some(),
            sound,
            overdue: self.overdue(now),
            held: self.held_until > now,
            removes: self.removal == Removal::Ours,
        }
    }

    fn overdue(&self, now: Instant) -> bool {
        self.patience.is_some_and(|patience| patience <= now)
    }

    /// Starts from the `state` that is there.
    fn adopt(&mut self) {
        let Some(mine) = self.mine else { return };
        self.written = Some(mine);
        self.fault = None;
        self.patience = None;
        self.phase = match mine {
            BusState::Unknown | BusState::Initialising | BusState::InitWait => Phase::Fresh,
            BusState::Initialised
            | BusState::Connected
            | BusState::Reconfiguring
            | BusState::Reconfigured => Phase::Stale,
            BusState::Closing => Phase::Closing,
            BusState::Closed => Phase::Closed,
        };
    }

    /// Writes our state, and what goes with it, and enters the phase.
    fn write(&mut self, state: BusState, phase: Phase, now: Instant) -> Result<(), StoreError> {
        let (link, store) = (&self.link, self.link.store());
        let error = join(link.dir(), "error");
        let from = self.written.unwrap_or_default();
        let ours = link.change_state(from, state, |transaction| {
            let within = Some(transaction);
            if phase == Phase::InitWait {
                remove_if_there(store, within, &error)?;
                for (key, value) in &self.features {
                    store.write(within, &join(link.dir(), key), value.as_bytes())?;
                }
            }
            match &self.fault {
                Some(reason) => store.write(within, &error, reason.as_bytes()),
                None => Ok(()),
            }
        })?;
        if !ours {
            self.look = true;
            return Ok(());
        }
        self.written = Some(state);
        self.mine = Some(state);
        self.phase = phase;
        self.patience = None;
        match phase {
            // A frontend may have connected before it was asked to: look at its nodes.
            Phase::InitWait => self.look = self.peer == BusState::Connected,
            Phase::Connected => self.connected_since = Some(now),
            Phase::Closing => self.patience = Some(now + PATIENCE),
            Phase::Fresh | Phase::Stale | Phase::Closed => {}
        }
        if let Some(reason) = self.fault.take() {
            log::warn!("{}: {reason}", self.link.dir());
            self.connection = None;
            self.held_until = now + self.reconnect.delay();
        }
        Ok(())
    }

    /// Removes our directory, and the client's if that was its last vif. False if it is not ours
    /// to remove after all.
    fn remove(&mut self) -> Result<bool, StoreError> {
        let store = self.link.store();
        let outcome = transact(store, |transaction| {
            let within = Some(transaction);
            remove_if_there(store, within, self.link.dir())?;
            let client = format!("backend/vif/{}", self.frontend.0);
            match store.list(within, &client) {
                Ok(vifs) if vifs.is_empty() => remove_if_there(store, within, &client),
                Ok(_) | Err(StoreError::NotFound) => Ok(()),
                Err(error) => Err(error),
            }
        });
        match outcome {
            Ok(()) => Ok(true),
            Err(StoreError::Denied) => {
                self.removal = Removal::Toolstack;
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    fn leave(&mut self) -> BackStep {
        self.link.forget();
        self.removed = true;
        BackStep::Remove
    }

    /// When to look again, if nothing happens before.
    fn waits_until(&self, now: Instant) -> Option<Instant> {
        if self.retry_at.is_some() {
            return self.retry_at;
        }
        if self.look {
            return Some(now);
        }
        let hold =
            (self.phase == Phase::Closed && self.held_until > now).then_some(self.held_until);
        self.patience.into_iter().chain(hold).min()
    }

    fn store_failed(&mut self, error: StoreError, now: Instant) {
        let delay = self.retry.delay();
        log::debug!("{}: {error}; looking again in {delay:?}", self.link.dir());
        self.look = true;
        self.retry_at = Some(now + delay);
    }
}
