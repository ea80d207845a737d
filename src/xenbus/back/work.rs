//! How the backend's end looks, does what its rules say, and keeps time.

use alloc::format;
use alloc::string::ToString;
use core::time::Duration;

use super::offer::{FrontendOffer, OfferError};
use super::rules::{self, Action, Phase, View};
use super::{BackBus, BackStep, Removal};
use crate::platform::Instant;
use crate::xenbus::BusState;
use crate::xenbus::bus::{Bus, End, Turn};
use xen_store::nodes::{Reader, found, join, remove_if_there};
use xen_store::{Store, StoreError};

/// How long a closing frontend may take before we go on without it.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);

impl<S: Store> End for BackBus<S> {
    type Store = S;
    type Phase = Phase;
    type Action = Action;
    type Step = BackStep;

    fn bus(&mut self) -> &mut Bus<S, Phase, BackStep> {
        &mut self.bus
    }

    fn next(&self, now: Instant) -> Action {
        let bus = &self.bus;
        let sound = if self.mapped { self.offer == self.connection } else { self.offer.is_some() };
        rules::next(View {
            phase: bus.phase,
            mapped: self.mapped,
            peer: bus.peer,
            present: bus.mine.is_some(),
            intact: bus.is_intact(),
            online: bus.online,
            faulted: self.fault.is_some(),
            sound,
            overdue: bus.is_overdue(now),
            held: bus.held_until > now,
            removes: self.removal == Removal::Ours,
        })
    }

    fn look(&mut self) -> Result<(), StoreError> {
        let dirs = &mut self.bus.dirs;
        let mine = dirs.own_state(None)?;
        let online = dirs.own().flag("online", true)?;
        let frontend = dirs.own().path("frontend", self.frontend.0)?;
        dirs.follow(frontend.as_deref())?;
        let peer = dirs.peer_state()?;
        let mut offer = None;
        if peer == BusState::Connected && self.offers() {
            match self.read_offer()? {
                Ok(published) => offer = Some(published),
                Err(bad) => {
                    self.fault.get_or_insert_with(|| bad.to_string());
                }
            }
        }
        (self.bus.mine, self.bus.peer, self.bus.online) = (mine, peer, online);
        self.offer = offer;
        Ok(())
    }

    fn carry_out(
        &mut self,
        action: Action,
        now: Instant,
    ) -> Result<Option<Turn<BackStep>>, StoreError> {
        match action {
            Action::Stay => {
                self.write_carrier()?;
                return Ok(Some(Turn::Rest(BackStep::Wait)));
            }
            Action::Release => return Ok(Some(self.without_store(action))),
            Action::Connect => {
                self.connection.clone_from(&self.offer);
                return Ok(Some(Turn::Device(BackStep::Connect)));
            }
            Action::Remove if !self.remove()? => {}
            Action::Gone | Action::Remove => {
                self.bus.dirs.forget();
                return Ok(Some(Turn::Insist(BackStep::Remove)));
            }
            Action::Adopt => self.adopt(),
            Action::Offer => self.write(BusState::InitWait, Phase::InitWait, now)?,
            Action::WriteConnected => self.write(BusState::Connected, Phase::Connected, now)?,
            Action::WriteClosing => self.write(BusState::Closing, Phase::Closing, now)?,
            Action::WriteClosed => self.write(BusState::Closed, Phase::Closed, now)?,
        }
        Ok(None)
    }

    fn without_store(&self, action: Action) -> Turn<BackStep> {
        match action {
            Action::Release => Turn::Insist(BackStep::Release),
            Action::Stay
            | Action::Gone
            | Action::Adopt
            | Action::Offer
            | Action::Connect
            | Action::WriteConnected
            | Action::WriteClosing
            | Action::WriteClosed
            | Action::Remove => Turn::Rest(BackStep::Wait),
        }
    }

    fn awaits_hold(&self) -> bool {
        self.bus.phase == Phase::Closed
    }
}

impl<S: Store> BackBus<S> {
    /// Reads what the frontend has published, all of it as of one moment.
    fn read_offer(&self) -> Result<Result<FrontendOffer, OfferError>, StoreError> {
        let Some(dir) = self.bus.dirs.peer_dir() else { return Ok(Err(OfferError::Rings)) };
        let store = self.bus.dirs.store();
        self.bus.dirs.transact(|transaction| {
            FrontendOffer::read(Reader { store, within: Some(transaction), dir }, self.max_queues)
        })
    }

    /// Starts from the `state` that is there.
    fn adopt(&mut self) {
        let Some(mine) = self.bus.mine else { return };
        self.bus.written = Some(mine);
        self.fault = None;
        self.bus.patience = None;
        self.bus.phase = match mine {
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
        let from = self.bus.written.unwrap_or_default();
        let ours = self.bus.change_state(from, state, |dirs, transaction| {
            let (store, within) = (dirs.store(), Some(transaction));
            let error = join(dirs.dir(), "error");
            if phase == Phase::InitWait {
                remove_if_there(store, within, &error)?;
                for (key, value) in &self.features {
                    store.write(within, &join(dirs.dir(), key), value.as_bytes())?;
                }
                if let Some(up) = self.carrier {
                    store.write(within, &join(dirs.dir(), "carrier"), digit(up))?;
                }
            }
            match &self.fault {
                Some(reason) => store.write(within, &error, reason.as_bytes()),
                None => Ok(()),
            }
        })?;
        if !ours {
            return Ok(());
        }
        self.bus.phase = phase;
        self.bus.patience = None;
        match phase {
            // A frontend may have connected before it was asked to: look at its nodes.
            Phase::InitWait => {
                self.carrier_written = self.carrier;
                if self.bus.peer == BusState::Connected {
                    self.bus.attention.ask();
                }
            }
            Phase::Connected => self.bus.connected_since = Some(now),
            Phase::Closing => self.bus.patience = Some(now + PATIENCE),
            Phase::Fresh | Phase::Stale | Phase::Closed => {}
        }
        if let Some(reason) = self.fault.take() {
            log::warn!("{}: {reason}", self.bus.dirs.dir());
            self.connection = None;
            self.bus.hold(now);
        }
        Ok(())
    }

    /// Whether the frontend can be told more than our state.
    pub(super) fn offers(&self) -> bool {
        matches!(self.bus.phase, Phase::InitWait | Phase::Connected)
    }

    /// Says whether there is a network behind us, if that is news.
    fn write_carrier(&mut self) -> Result<(), StoreError> {
        let Some(up) = self.carrier.filter(|_| self.carrier != self.carrier_written) else {
            return Ok(());
        };
        if !self.offers() {
            return Ok(());
        }
        let (dirs, store) = (&self.bus.dirs, self.bus.dirs.store());
        let carrier = join(dirs.dir(), "carrier");
        let ours = dirs.while_state(self.bus.written.unwrap_or_default(), |transaction| {
            store.write(Some(transaction), &carrier, digit(up))
        })?;
        if ours {
            self.carrier_written = Some(up);
        } else {
            self.bus.attention.ask();
        }
        Ok(())
    }

    /// Removes our directory, and the client's if that was its last vif and is ours too: in a driver
    /// domain it is the toolstack's, and so is removing it. False if it is not ours to remove after
    /// all: the directory has gone or been made anew meanwhile, or nothing of it belongs to us.
    fn remove(&mut self) -> Result<bool, StoreError> {
        let store = self.bus.dirs.store();
        let client = format!("backend/vif/{}", self.frontend.0);
        let state = self.bus.written.unwrap_or_default();
        let outcome = self.bus.dirs.while_state(state, |transaction| {
            let within = Some(transaction);
            remove_if_there(store, within, self.bus.dirs.dir())?;
            match found(store.list(within, &client))? {
                Some(vifs) if vifs.is_empty() => found(store.remove(within, &client)).map(drop),
                Some(_) | None => Ok(()),
            }
        });
        match outcome {
            Ok(true) => return Ok(true),
            Ok(false) => self.bus.attention.ask(),
            Err(StoreError::Denied) => self.removal = Removal::Toolstack,
            Err(error) => return Err(error),
        }
        Ok(false)
    }
}

fn digit(flag: bool) -> &'static [u8] {
    if flag { b"1" } else { b"0" }
}
