//! How the backend's end does what its rules say: it reads xenstore when a watch has fired or a
//! deadline has passed, and never otherwise; decides; writes its state; keeps time.

use alloc::format;
use alloc::string::ToString;
use core::time::Duration;

use super::offer::{BadOffer, FrontendOffer};
use super::rules::{self, Action, Phase, View};
use super::{BackBus, BackStep, Removal};
use crate::platform::Instant;
use crate::store::{Store, StoreError};
use crate::xenbus::BusState;
use crate::xenbus::values::{Reader, join, remove_if_there, transact};

/// How long a closing frontend may take before we go on without it.
const PATIENCE: Duration = Duration::from_secs(1);

/// More decisions than any one state of xenstore leads to (a test walks all of them).
pub(super) const MAX_ACTIONS: usize = 8;

impl<S: Store> BackBus<S> {
    pub(super) fn advance(&mut self, now: Instant) -> BackStep {
        if self.attention.rests(now) {
            return self.step_without_store(now);
        }
        match self.look_and_act(now) {
            Ok(step) => {
                self.attention.served();
                if self.overdue(now) {
                    self.patience = Some(now + PATIENCE);
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

    fn look_and_act(&mut self, now: Instant) -> Result<BackStep, StoreError> {
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
            match rules::next(self.view(now)) {
                Action::Stay => {
                    self.write_carrier()?;
                    return Ok(BackStep::Wait);
                }
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
            if self.attention.is_asked() {
                break;
            }
        }
        Ok(BackStep::Wait)
    }

    /// What the device is to do while the store can't be asked.
    fn step_without_store(&self, now: Instant) -> BackStep {
        match rules::next(self.view(now)) {
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
        let carrier = join(link.dir(), "carrier");
        let from = self.written.unwrap_or_default();
        let ours = link.change_state(from, state, |transaction| {
            let within = Some(transaction);
            if phase == Phase::InitWait {
                remove_if_there(store, within, &error)?;
                for (key, value) in &self.features {
                    store.write(within, &join(link.dir(), key), value.as_bytes())?;
                }
                if let Some(up) = self.carrier {
                    store.write(within, &carrier, digit(up))?;
                }
            }
            match &self.fault {
                Some(reason) => store.write(within, &error, reason.as_bytes()),
                None => Ok(()),
            }
        })?;
        if !ours {
            self.attention.ask();
            return Ok(());
        }
        self.written = Some(state);
        self.mine = Some(state);
        self.phase = phase;
        self.patience = None;
        match phase {
            // A frontend may have connected before it was asked to: look at its nodes.
            Phase::InitWait => {
                self.carrier_written = self.carrier;
                if self.peer == BusState::Connected {
                    self.attention.ask();
                }
            }
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

    /// Whether the frontend can be told more than our state.
    pub(super) fn offers(&self) -> bool {
        matches!(self.phase, Phase::InitWait | Phase::Connected)
    }

    /// Says whether there is a network behind us, if that is news.
    fn write_carrier(&mut self) -> Result<(), StoreError> {
        let Some(up) = self.carrier.filter(|_| self.carrier != self.carrier_written) else {
            return Ok(());
        };
        if !self.offers() {
            return Ok(());
        }
        let (link, store) = (&self.link, self.link.store());
        let carrier = join(link.dir(), "carrier");
        let ours = link.while_state(self.written.unwrap_or_default(), |transaction| {
            store.write(Some(transaction), &carrier, digit(up))
        })?;
        if ours {
            self.carrier_written = Some(up);
        } else {
            self.attention.ask();
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
    pub(super) fn waits_until(&self, now: Instant) -> Option<Instant> {
        if let Some(look) = self.attention.deadline(now) {
            return Some(look);
        }
        let hold =
            (self.phase == Phase::Closed && self.held_until > now).then_some(self.held_until);
        self.patience.into_iter().chain(hold).min()
    }
}

fn digit(flag: bool) -> &'static [u8] {
    if flag { b"1" } else { b"0" }
}
