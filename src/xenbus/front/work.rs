//! How the frontend's end does what its rules say: it reads xenstore when a watch has fired or a
//! deadline has passed, and never otherwise; decides; writes its state; keeps time.

use core::time::Duration;

use super::offer::BackendOffer;
use super::rules::{self, Action, Phase, View};
use super::{FrontBus, FrontStep};
use crate::platform::Instant;
use crate::store::{Store, StoreError};
use crate::xenbus::BusState;

/// How long a closing backend may take for each step before we go on without it.
const PATIENCE: Duration = Duration::from_millis(250);

/// A connection that lasted this long was a good one.
const GOOD: Duration = Duration::from_secs(1);

/// More decisions than any one state of xenstore leads to (a test walks all of them).
pub(super) const MAX_ACTIONS: usize = 8;

impl<S: Store> FrontBus<S> {
    pub(super) fn advance(&mut self, now: Instant) -> FrontStep {
        if self.attention.rests(now) {
            return self.step_without_store(now);
        }
        match self.look_and_act(now) {
            Ok(step) => {
                self.attention.served();
                if step == FrontStep::Wait && self.overdue(now) {
                    // Whatever we wait for, look again some time, less and less often.
                    self.patience = Some(now + self.remind.delay());
                }
                step
            }
            Err(error) => {
                let delay = self.attention.failed(now);
                log::debug!("{}: {error}; looking again in {delay:?}", self.link.dir());
                self.step_without_store(now)
            }
        }
    }

    fn look_and_act(&mut self, now: Instant) -> Result<FrontStep, StoreError> {
        if self.link.take_events() || self.overdue(now) {
            self.attention.ask();
        }
        if self.attention.is_asked() {
            self.look()?;
            self.attention.looked();
        }
        self.act(now)
    }

    /// Reads what a decision needs: all of it, or nothing has changed.
    fn look(&mut self) -> Result<(), StoreError> {
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
            let action = rules::next(self.view(now));
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
            if self.attention.is_asked() {
                break;
            }
        }
        Ok(FrontStep::Wait)
    }

    /// What the device is to do while the store can't be asked. A connection does not suffer.
    fn step_without_store(&self, now: Instant) -> FrontStep {
        match rules::next(self.view(now)) {
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

    pub(super) fn intact(&self) -> bool {
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
            self.attention.ask();
        }
        Ok(ours)
    }

    pub(super) fn left_state(&mut self, state: BusState) {
        self.written = Some(state);
        self.mine = Some(state);
    }

    pub(super) fn enter(&mut self, phase: Phase, now: Instant) {
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
    pub(super) fn waits_until(&self, now: Instant) -> Option<Instant> {
        if let Some(look) = self.attention.deadline(now) {
            return Some(look);
        }
        let waits_to_connect = matches!(self.phase, Phase::Offering | Phase::Closed);
        let hold = (waits_to_connect && self.wanted && !self.rings && self.held_until > now)
            .then_some(self.held_until);
        self.patience.into_iter().chain(hold).min()
    }

    /// If this was a connection, it has ended: when may the next one begin?
    pub(super) fn lost(&mut self, now: Instant) {
        match self.phase {
            Phase::Published | Phase::Live => {}
            Phase::Stale | Phase::Offering | Phase::Closing | Phase::Closed => return,
        }
        if self.live_since.take().is_some_and(|since| now.since(since) >= GOOD) {
            self.reconnect.reset();
        }
        self.hold(now);
    }

    pub(super) fn hold(&mut self, now: Instant) {
        self.held_until = now + self.reconnect.delay();
    }
}
