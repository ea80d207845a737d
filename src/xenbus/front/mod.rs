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
//! What is decided, and why, is in `rules.rs`; how that is carried out, in `work.rs`; what the
//! backend offers, in `offer.rs`.

mod offer;
mod rules;
mod work;

use alloc::format;
use alloc::string::String;
use core::time::Duration;

use xen_grant::DomId;

use super::backoff::Backoff;
use super::bus::{Bus, End};
use super::directories::Directories;
use super::state::BusState;
use crate::platform::Instant;
use xen_store::nodes::{found, join, remove_if_there};
use xen_store::{Store, StoreError};

use offer::is_connection_key;
pub use offer::{BackendOffer, Rate};
use rules::Phase;

/// The most nodes of earlier connections that are removed at a time.
pub(super) const MAX_STALE: usize = 32;

/// How often a backend that should move on is reminded, at first and at last.
const REMIND: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(8));

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
    bus: Bus<S, Phase, FrontStep>,
    rings: bool,
    wanted: bool,
    faulted: bool,
    offer: BackendOffer,
    /// `offer` holds what `Connect` promises.
    offer_read: bool,
    /// `backend-id` as of the last look.
    domain: Option<DomId>,
    /// The last backend that `backend` named.
    backend: Option<String>,
}

impl<S: Store> FrontBus<S> {
    /// Watches vif `vif` of our domain. It need not exist yet.
    pub fn open(store: S, vif: u32) -> Result<FrontBus<S>, StoreError> {
        let dirs = Directories::open(store, format!("device/vif/{vif}"), "")?;
        Ok(FrontBus {
            bus: Bus::new(dirs, Phase::Stale, Backoff::new(REMIND.0, REMIND.1)),
            rings: false,
            wanted: true,
            faulted: false,
            offer: BackendOffer::default(),
            offer_read: false,
            domain: None,
            backend: None,
        })
    }

    /// Looks what has changed, does our part, and says what the device is to do.
    ///
    /// Nothing is asked of xenstore unless a watch has fired or a deadline has passed, and then at
    /// most 60 requests are made; if there is more to do [`next_deadline`](FrontBus::next_deadline) is now.
    pub fn poll(&mut self, now: Instant) -> FrontStep {
        self.poll_end(now)
    }

    /// Whether the last poll would be repeated: there was nothing to do but wait, no watch has fired since,
    /// and no deadline has passed.
    #[inline]
    pub(crate) fn is_resting(&mut self, now: Instant) -> bool {
        self.bus.still_resting(now).is_some()
    }

    /// When to call [`poll`](FrontBus::poll) at the latest; `None` if only an event can matter.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.bus.deadline
    }

    /// What the backend offers.
    pub fn offer(&self) -> &BackendOffer {
        &self.offer
    }

    /// Whether an orderly [`close`](FrontBus::close) is over: our state is `Closed`, and no rings
    /// are left.
    pub fn is_closed(&self) -> bool {
        let closed = if self.bus.mine.is_some() {
            self.bus.phase == Phase::Closed
        } else {
            !self.bus.attention.is_asked()
        };
        !self.wanted && !self.rings && closed
    }

    /// The backend's state, as of the last look.
    pub fn backend_state(&self) -> BusState {
        self.bus.peer
    }

    /// Publishes the rings that the device has made after [`FrontStep::Connect`]: every node of an
    /// earlier connection goes; then, in one transaction, `keys` (paths below our directory, and
    /// values) come, and our state becomes `Connected`.
    ///
    /// At most 140 requests to xenstore for 8 queues; what more there is of earlier connections goes at the
    /// next try. On an error nothing was published: the device takes its rings down again, and will be
    /// asked once more a little later.
    pub fn publish<K: AsRef<str>, V: AsRef<[u8]>>(
        &mut self,
        now: Instant,
        keys: &[(K, V)],
    ) -> Result<(), StoreError> {
        self.bus.deadline = Some(now);
        let connectable = self.bus.phase == Phase::Offering && !self.rings && self.bus.is_intact();
        if !connectable {
            self.bus.attention.ask();
            return Err(StoreError::Again);
        }
        let (from, to) = (BusState::Initialising, BusState::Connected);
        let published = self.remove_stale().and_then(|()| {
            self.bus.change_state(from, to, |dirs, transaction| {
                keys.iter().try_for_each(|(key, value)| {
                    let path = join(dirs.dir(), key.as_ref());
                    dirs.store().write(Some(transaction), &path, value.as_ref())
                })
            })
        });
        match published {
            Ok(true) => {
                self.rings = true;
                self.enter(Phase::Published, now);
                Ok(())
            }
            Ok(false) => Err(StoreError::Again),
            Err(error) => {
                self.bus.hold(now);
                Err(error)
            }
        }
    }

    /// Removes what earlier connections have left, before the backend looks: it does once we are
    /// `Connected`. [`StoreError::Again`] if there is more than one step removes.
    fn remove_stale(&self) -> Result<(), StoreError> {
        let (store, dir) = (self.bus.dirs.store(), self.bus.dirs.dir());
        let names = found(store.list(None, dir))?.unwrap_or_default();
        let mut stale = names.iter().filter(|name| is_connection_key(name));
        for name in stale.by_ref().take(MAX_STALE) {
            remove_if_there(store, None, &join(dir, name))?;
        }
        if stale.next().is_some() { Err(StoreError::Again) } else { Ok(()) }
    }

    /// The device has ended all use of its rings, after [`FrontStep::Release`].
    pub fn released(&mut self, now: Instant) {
        self.bus.standing = None;
        self.rings = false;
        self.bus.deadline = Some(now);
        match self.bus.phase {
            // Our directory was taken from under the connection.
            Phase::Published | Phase::Live => {
                self.lost(now);
                self.faulted = false;
                self.enter(Phase::Stale, now);
            }
            Phase::Stale | Phase::Offering | Phase::Closing | Phase::Closed => {
                self.enter(self.bus.phase, now);
            }
        }
    }

    /// The device found the backend at fault, or could not make its rings. The connection is
    /// closed ([`FrontStep::Release`] follows if there are rings) and tried anew.
    pub fn fail(&mut self, now: Instant) {
        match self.bus.phase {
            Phase::Published | Phase::Live => self.faulted = true,
            Phase::Offering => self.bus.hold(now),
            Phase::Stale | Phase::Closing | Phase::Closed => {}
        }
        self.bus.deadline = Some(now);
    }

    /// Disconnects in good order, and stays so until [`reopen`](FrontBus::reopen).
    pub fn close(&mut self, now: Instant) {
        if !self.wanted {
            // Asked again, it does not begin again.
            return;
        }
        self.wanted = false;
        self.enter(self.bus.phase, now);
        self.bus.deadline = Some(now);
    }

    /// Connects again after [`close`](FrontBus::close).
    pub fn reopen(&mut self, now: Instant) {
        self.wanted = true;
        self.bus.reconnect.reset();
        self.bus.held_until = now;
        self.enter(self.bus.phase, now);
        self.bus.deadline = Some(now);
    }

    /// Looks at xenstore at the next poll even if no watch has fired (the backend is silent).
    pub fn recheck(&mut self, now: Instant) {
        self.bus.attention.ask();
        self.bus.deadline = Some(now);
    }

    /// The domain has been resumed, maybe on another machine: nothing of the old connection
    /// holds. Start from what xenstore says now.
    pub fn resumed(&mut self, now: Instant) {
        self.bus.written = None;
        self.recheck(now);
    }
}

impl<S: Store> core::fmt::Debug for FrontBus<S> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("FrontBus")
            .field("backend", &self.domain)
            .field("phase", &self.bus.phase)
            .field("backend_state", &self.bus.peer)
            .field("rings", &self.rings)
            .finish_non_exhaustive()
    }
}
