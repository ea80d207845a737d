//! How the backend's end looks, does what its rules say, and keeps time.

use alloc::format;
use alloc::string::{String, ToString};
use core::time::Duration;

use super::offer::Reading;
use super::rules::{self, Action, Offer, Phase, View};
use super::{BackBus, BackStep, Removal, spec};
use crate::platform::Instant;
use crate::xenbus::BusState;
use crate::xenbus::bus::{Bus, End, Turn};
use xen_store::nodes::{found, join, remove_if_there};
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
        let offer = match &self.offer {
            Reading::Unread | Reading::Queues(..) => Offer::Unread,
            // What it takes besides may change while it is connected, and counts the next time.
            Reading::Read(offer) if self.mapped => {
                let connected = self.connection.as_ref().map(|connection| &connection.queues);
                if connected == Some(&offer.queues) { Offer::Sound } else { Offer::Unsound }
            }
            Reading::Read(_) => Offer::Sound,
            Reading::Bad(_) => Offer::Unsound,
        };
        rules::next(View {
            phase: bus.phase,
            mapped: self.mapped,
            peer: bus.peer,
            present: bus.mine.is_some(),
            intact: bus.is_intact(),
            online: bus.online,
            faulted: self.fault.is_some(),
            offer,
            informed: self.informed,
            overdue: bus.is_overdue(now),
            held: bus.held_until > now,
            removes: self.removal == Removal::Ours,
            leaving: self.leaving,
            refused: self.refused,
        })
    }

    fn look(&mut self) -> Result<(), StoreError> {
        // Our own directory first: what is wrong with the frontend's hides no detach.
        let bus = &mut self.bus;
        bus.mine = bus.dirs.own_state(None)?;
        if !bus.is_intact() {
            return Ok(());
        }
        bus.online = bus.dirs.own().flag("online", true)?;
        if !bus.online || self.refused {
            return Ok(());
        }
        let frontend = bus.dirs.own().path("frontend", self.frontend.0)?;
        bus.dirs.follow(frontend.as_deref())?;
        bus.peer = bus.dirs.peer_state()?;
        self.offer = Reading::Unread;
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
                if let Reading::Read(offer) = &self.offer {
                    self.connection = Some(offer.clone());
                }
                return Ok(Some(Turn::Device(BackStep::Connect)));
            }
            Action::Remove if !self.remove()? => {}
            Action::Gone | Action::Remove => {
                self.bus.dirs.forget();
                return Ok(Some(Turn::Insist(BackStep::Remove)));
            }
            Action::Adopt => self.adopt(),
            Action::Inform => self.inform()?,
            Action::Read => self.read()?,
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
            | Action::Inform
            | Action::Offer
            | Action::Read
            | Action::Connect
            | Action::WriteConnected
            | Action::WriteClosing
            | Action::WriteClosed
            | Action::Remove => Turn::Rest(BackStep::Wait),
        }
    }

    fn awaits_hold(&self) -> bool {
        matches!(self.bus.phase, Phase::Closed | Phase::InitWait)
    }
}

impl<S: Store> BackBus<S> {
    /// Reads what the toolstack says of the vif, and tells the frontend its MTU, as a hotplug script does.
    fn inform(&mut self) -> Result<(), StoreError> {
        let dirs = &self.bus.dirs;
        let found = spec::read(&dirs.own())?;
        if let (Some(mtu), Some(peer)) = (found.spec.mtu, dirs.peer()) {
            let node = join(peer.dir, "mtu");
            match dirs.store().write(None, &node, mtu.to_string().as_bytes()) {
                Ok(()) => {}
                // A toolstack that does not give us the node says the MTU itself.
                Err(
                    error @ (StoreError::NotFound
                    | StoreError::Denied
                    | StoreError::Quota
                    | StoreError::Other(_)),
                ) => log::debug!("{node}: {error}"),
                // What passes is tried again.
                Err(error) => return Err(error),
            }
        }
        (self.spec, self.offered, self.informed) = (found.spec, found.offered, true);
        Ok(())
    }

    /// Reads on in what the frontend has published. Should it write meanwhile, all is read again.
    fn read(&mut self) -> Result<(), StoreError> {
        let Some(peer) = self.bus.dirs.peer() else {
            self.bus.attention.ask();
            return Ok(());
        };
        let known = self.connection.as_ref().filter(|_| self.mapped);
        self.offer.step(peer, self.max_queues, known)?;
        if matches!(self.offer, Reading::Read(_) | Reading::Bad(_)) && self.bus.dirs.take_events() {
            self.bus.attention.ask();
        } else if let Reading::Bad(bad) = &self.offer {
            self.fault.get_or_insert_with(|| bad.to_string());
        }
        Ok(())
    }

    /// Starts from the `state` that is there.
    fn adopt(&mut self) {
        let Some(mine) = self.bus.mine else { return };
        self.bus.written = Some(mine);
        self.fault = None;
        self.informed = false;
        self.bus.patience = None;
        // The frontend has not been looked at.
        self.bus.attention.ask();
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
        let reason = self.fault.clone();
        match self.write_with(state, phase, reason.as_deref(), now) {
            // No room for the reason: the state alone has to do.
            Err(StoreError::Quota) if reason.is_some() => self.write_with(state, phase, None, now),
            written => written,
        }
    }

    fn write_with(
        &mut self,
        state: BusState,
        phase: Phase,
        reason: Option<&str>,
        now: Instant,
    ) -> Result<(), StoreError> {
        let from = self.bus.written.unwrap_or_default();
        let ours = self.bus.change_state(from, state, |dirs, transaction| {
            let (store, within) = (dirs.store(), Some(transaction));
            let error = join(dirs.dir(), "error");
            if phase == Phase::InitWait {
                let is_stale = |key: &&String| !self.features.iter().any(|(ours, _)| ours == *key);
                for key in self.offered.iter().filter(is_stale) {
                    remove_if_there(store, within, &join(dirs.dir(), key))?;
                }
                for (key, value) in &self.features {
                    store.write(within, &join(dirs.dir(), key), value.as_bytes())?;
                }
                if let Some(up) = self.carrier {
                    store.write(within, &join(dirs.dir(), "carrier"), digit(up))?;
                }
            }
            match reason {
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
            Phase::InitWait => {
                self.informed = false;
                self.was_offered = true;
                self.carrier_written = self.carrier;
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
