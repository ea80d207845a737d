//! How the frontend's end looks, does what its rules say, and keeps time.

use core::time::Duration;

use xen_grant::DomId;

use super::offer::BackendOffer;
use super::rules::{self, Action, Phase, View};
use super::{FrontBus, FrontStep};
use crate::platform::Instant;
use crate::xenbus::BusState;
use crate::xenbus::bus::{Bus, End, Turn};
use xen_store::{Store, StoreError};

/// How long a closing backend may take for each step before we go on without it.
const PATIENCE: Duration = Duration::from_millis(250);

impl<S: Store> End for FrontBus<S> {
    type Store = S;
    type Phase = Phase;
    type Action = Action;
    type Step = FrontStep;

    fn bus(&mut self) -> &mut Bus<S, Phase, FrontStep> {
        &mut self.bus
    }

    fn next(&self, now: Instant) -> Action {
        let bus = &self.bus;
        rules::next(View {
            phase: bus.phase,
            rings: self.rings,
            peer: bus.peer,
            present: bus.mine.is_some(),
            intact: bus.is_intact(),
            online: bus.online,
            wanted: self.wanted,
            faulted: self.faulted,
            overdue: bus.is_overdue(now),
            held: bus.held_until > now,
        })
    }

    fn look(&mut self) -> Result<(), StoreError> {
        let bus = &mut self.bus;
        let mine = bus.dirs.own_state(None)?;
        let domain = bus.dirs.own().domain("backend-id")?.map(DomId);
        let backend = match domain {
            Some(DomId(domain)) => bus.dirs.own().path("backend", domain)?,
            None => None,
        };
        bus.dirs.follow(backend.as_deref())?;
        let peer = bus.dirs.peer_state()?;
        let (online, carrier) = match bus.dirs.peer() {
            Some(peer) => (peer.flag("online", true)?, peer.flag("carrier", true)?),
            None => (true, true),
        };

        if mine.is_none() {
            bus.written = None;
        }
        if backend.is_some() && backend != self.backend {
            if self.backend.is_some() {
                // Another backend: what we left was meant for the old one.
                bus.written = None;
            }
            self.backend = backend;
        }
        (bus.mine, bus.peer, bus.online) = (mine, peer, online);
        self.domain = domain;
        self.offer.carrier = carrier;
        self.offer_read = false;
        Ok(())
    }

    fn carry_out(
        &mut self,
        action: Action,
        now: Instant,
    ) -> Result<Option<Turn<FrontStep>>, StoreError> {
        match action {
            Action::Stay | Action::Release => return Ok(Some(self.without_store(action))),
            Action::Gone => {
                // Should it come back, it is a new vif.
                self.backend = None;
                self.bus.patience = None;
                self.bus.reconnect.reset();
                self.bus.held_until = now;
                return Ok(Some(Turn::Rest(FrontStep::Gone)));
            }
            Action::Connect => {
                return Ok(Some(if self.read_offer()? {
                    Turn::Device(FrontStep::Connect)
                } else {
                    Turn::Rest(FrontStep::Wait)
                }));
            }
            Action::Repeat => {
                let state = self.bus.written.unwrap_or_default();
                self.bus.change_state(state, state, |_, _| Ok(()))?;
                return Ok(Some(Turn::Rest(FrontStep::Wait)));
            }
            Action::GoLive => {
                self.bus.connected_since = Some(now);
                self.enter(Phase::Live, now);
            }
            Action::Adopt => self.adopt(now)?,
            Action::WriteInitialising => {
                self.write(BusState::Initialising, Phase::Offering, now)?;
            }
            Action::WriteClosing => self.write(BusState::Closing, Phase::Closing, now)?,
            Action::WriteClosed => self.write(BusState::Closed, Phase::Closed, now)?,
        }
        Ok(None)
    }

    fn without_store(&self, action: Action) -> Turn<FrontStep> {
        match action {
            Action::Release => Turn::Insist(FrontStep::Release),
            Action::Stay if self.bus.phase == Phase::Live => Turn::Rest(FrontStep::Live),
            Action::Stay
            | Action::Gone
            | Action::Adopt
            | Action::Connect
            | Action::GoLive
            | Action::WriteInitialising
            | Action::WriteClosing
            | Action::WriteClosed
            | Action::Repeat => Turn::Rest(FrontStep::Wait),
        }
    }

    fn awaits_hold(&self) -> bool {
        let waits_to_connect = matches!(self.bus.phase, Phase::Offering | Phase::Closed);
        waits_to_connect && self.wanted && !self.rings
    }
}

impl<S: Store> FrontBus<S> {
    /// Starts from the `state` that is there.
    fn adopt(&mut self, now: Instant) -> Result<(), StoreError> {
        let Some(mine) = self.bus.mine else { return Ok(()) };
        let phase = match mine {
            BusState::Unknown | BusState::InitWait => {
                if !self.bus.change_state(mine, BusState::Initialising, |_, _| Ok(()))? {
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
        self.bus.written = self.bus.mine;
        self.enter(phase, now);
        Ok(())
    }

    fn read_offer(&mut self) -> Result<bool, StoreError> {
        if !self.offer_read {
            let dirs = &self.bus.dirs;
            let (Some(domain), Some(peer)) = (self.domain, dirs.peer()) else {
                return Ok(false);
            };
            self.offer = BackendOffer::read(domain, dirs.own(), peer)?;
            self.offer_read = true;
        }
        Ok(true)
    }

    /// Writes our state and enters the phase that goes with it.
    fn write(&mut self, state: BusState, phase: Phase, now: Instant) -> Result<(), StoreError> {
        let from = self.bus.written.unwrap_or_default();
        if self.bus.change_state(from, state, |_, _| Ok(()))? {
            self.lost(now);
            self.faulted = false;
            self.enter(phase, now);
        }
        Ok(())
    }

    pub(super) fn enter(&mut self, phase: Phase, now: Instant) {
        let bus = &mut self.bus;
        bus.phase = phase;
        bus.remind.reset();
        bus.patience = match phase {
            Phase::Stale | Phase::Live => None,
            Phase::Offering | Phase::Published => Some(now + bus.remind.delay()),
            Phase::Closing => Some(now + PATIENCE),
            Phase::Closed if self.rings => Some(now + PATIENCE),
            Phase::Closed if self.wanted => Some(now + bus.remind.delay()),
            Phase::Closed => None,
        };
    }

    /// If this was a connection, it has ended: when may the next one begin?
    pub(super) fn lost(&mut self, now: Instant) {
        match self.bus.phase {
            Phase::Published | Phase::Live => {
                self.bus.connection_ended(now);
                self.bus.hold(now);
            }
            Phase::Stale | Phase::Offering | Phase::Closing | Phase::Closed => {}
        }
    }
}
