//! The backend's end of a vif.
//!
//! ```text
//!                 poll ──► Wait      nothing to do until an event or `next_deadline`
//!                          Connect   map the rings of `frontend_offer`, then `connected`
//!                          Release   end all use of the rings, then `released`
//!                          Remove    the vif is gone, and so is its directory: drop this
//! ```
//!
//! What is decided, and why, is in `rules.rs`; how that is carried out, in `work.rs`; what the
//! frontend has published, in `offer.rs`.
//!
//! In a driver domain nobody else answers the toolstack, so the directory must say `InitWait` soon
//! after it has appeared, `Closed` soon after the toolstack asked for it, and then be removed:
//! poll as soon as there is news.

mod offer;
mod rules;
mod spec;
mod work;

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use xen_grant::DomId;

use super::backoff::Backoff;
use super::bus::{Bus, End};
use super::directories::Directories;
use super::state::BusState;
use crate::platform::Instant;
use xen_store::values::parse_u32;
use xen_store::{Store, StoreError, Watch};

use offer::Reading;
pub use offer::{EventChannels, FrontendOffer, MAX_QUEUES, OfferError, QueueOffer};
use rules::Phase;
pub use spec::VifSpec;
use work::PATIENCE;

/// What the device is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum BackStep {
    /// Nothing new: go on with the rings if they are mapped.
    Wait,
    /// Map the rings of [`BackBus::frontend_offer`], then call [`BackBus::connected`]; if that
    /// can't be done, [`BackBus::postpone`] if it may be done later, [`BackBus::failed`] if not.
    Connect,
    /// End all use of the frontend's rings, then call [`BackBus::released`].
    Release,
    /// The vif is gone and its watches too. Drop this.
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
    bus: Bus<S, Phase, BackStep>,
    frontend: DomId,
    features: Vec<(String, String)>,
    max_queues: u32,
    removal: Removal,
    mapped: bool,
    /// Why the frontend is at fault.
    fault: Option<String>,
    /// What `carrier` is to say; `None`: nothing, which frontends take for up.
    carrier: Option<bool>,
    /// What we left there.
    carrier_written: Option<bool>,
    /// What the toolstack says.
    spec: VifSpec,
    /// Whether that has been read since we last offered anything.
    informed: bool,
    /// What an earlier offer has left in our directory.
    offered: Vec<String>,
    /// What the frontend has published, as of the last look.
    offer: Reading,
    /// We shut down.
    leaving: bool,
    /// There is no room for another client.
    refused: bool,
    /// `InitWait` was written once.
    was_offered: bool,
    /// What the device has connected to, or was told to.
    connection: Option<FrontendOffer>,
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
        let dirs = Directories::open(store, own_dir(frontend, index), "/state")?;
        Ok(BackBus::on(dirs, frontend, features, removal))
    }

    /// The same, where `watch` tells somebody else of changes in either directory, at the place
    /// [`vif_place`], who [tells](BackBus::ask) us. A poll begins nothing more after `slice` requests.
    pub(crate) fn part_of(
        store: S,
        watch: &Watch,
        frontend: DomId,
        index: u32,
        features: &[(&str, &str)],
        removal: Removal,
        slice: u32,
    ) -> BackBus<S> {
        let (own, place) = (own_dir(frontend, index), vif_place(frontend, index));
        let dirs = Directories::part_of(store, own, "/state", watch, place);
        let mut this = BackBus::on(dirs, frontend, features, removal);
        this.bus.slice = slice;
        this
    }

    fn on(
        dirs: Directories<S>,
        frontend: DomId,
        features: &[(&str, &str)],
        removal: Removal,
    ) -> BackBus<S> {
        let max_queues = features
            .iter()
            .find(|(key, _)| *key == "multi-queue-max-queues")
            .and_then(|(_, value)| parse_u32(value.as_bytes()))
            .map_or(1, |queues| queues.clamp(1, MAX_QUEUES));
        BackBus {
            bus: Bus::new(dirs, Phase::Fresh, Backoff::new(PATIENCE, PATIENCE)),
            frontend,
            features: features.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(),
            max_queues,
            removal,
            mapped: false,
            fault: None,
            carrier: None,
            carrier_written: None,
            spec: VifSpec::default(),
            informed: false,
            offered: Vec::new(),
            offer: Reading::Unread,
            leaving: false,
            refused: false,
            was_offered: false,
            connection: None,
        }
    }

    /// Looks what has changed, does our part, and says what the device is to do.
    ///
    /// Nothing is asked of xenstore unless a watch has fired or a deadline has passed, and then at
    /// most 60 requests are made; if there is more to do [`next_deadline`](BackBus::next_deadline) is now.
    pub fn poll(&mut self, now: Instant) -> BackStep {
        self.poll_end(now)
    }

    /// When to call [`poll`](BackBus::poll) at the latest; `None` if only an event can matter.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.bus.deadline
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
        self.bus.phase == Phase::Connected
            && self.mapped
            && self.bus.standing.is_none()
            && self.fault.is_none()
    }

    /// The frontend's state, as of the last look.
    pub fn frontend_state(&self) -> BusState {
        self.bus.peer
    }

    /// What the toolstack says of the vif: read before the frontend is offered anything, and before each
    /// further connection.
    pub fn spec(&self) -> &VifSpec {
        &self.spec
    }

    /// Whether the vif is shut after [`close`](BackBus::close).
    pub fn is_closed(&self) -> bool {
        // One that was refused has never been open.
        self.leaving && !self.mapped && (self.refused || self.bus.phase == Phase::Closed)
    }

    /// Whether xenstored's quota has no room for this vif: so many more nodes of ours are needed at most,
    /// and a watch. It is tried again every five seconds.
    pub fn lacks_quota(&self) -> Option<usize> {
        // Those that we offer, and `error` or `carrier`.
        self.bus.over_quota.then_some(self.features.len() + 1)
    }

    /// Whether the frontend has ever been offered a connection.
    pub(crate) fn was_offered(&self) -> bool {
        self.was_offered
    }

    /// Whether there is no room for this client: as long as there is none the vif is left as it is, and only
    /// answered when it is detached.
    pub(crate) fn set_refused(&mut self, refused: bool) {
        self.refused = refused;
        self.ask();
    }

    /// Requests to xenstore so far; wraps.
    pub(crate) fn requests(&self) -> u32 {
        self.bus.dirs.requests()
    }

    /// Something has changed in either directory.
    pub(crate) fn ask(&mut self) {
        self.bus.ask();
        self.bus.deadline = Some(Instant(0));
    }

    /// Tells the frontend whether there is a network behind this vif. The next poll writes it, as
    /// soon as the frontend is being, or has been, offered something; later again if the store
    /// fails.
    pub fn set_carrier(&mut self, up: bool) {
        self.carrier = Some(up);
        if self.carrier_written != self.carrier && self.offers() {
            self.bus.deadline = Some(Instant(0));
        }
    }

    /// The device has mapped the rings, after [`BackStep::Connect`]. The next poll tells the
    /// frontend; from then on it may transmit.
    pub fn connected(&mut self, now: Instant) {
        self.mapped = true;
        self.bus.deadline = Some(now);
    }

    /// The device can't connect now, though nothing is wrong with what the frontend has published. It
    /// is told to again, later each time.
    pub fn postpone(&mut self, now: Instant) {
        self.connection = None;
        self.bus.hold(now);
        self.bus.deadline = Some(now);
    }

    /// We shut down: the connection ends as if the frontend had ended it, and the vif stays closed. Poll until
    /// it [is](BackBus::is_closed); a frontend that does not go along is waited for a second.
    pub fn close(&mut self, now: Instant) {
        self.leaving = true;
        self.bus.stir();
        self.bus.deadline = Some(now);
    }

    /// The domain has been resumed elsewhere: nothing is mapped any more, and all is looked at anew.
    pub fn resumed(&mut self, now: Instant) {
        self.mapped = false;
        self.connection = None;
        self.bus.standing = None;
        self.fault = None;
        self.carrier_written = None;
        self.bus.connection_ended(now);
        self.ask();
    }

    /// The frontend has broken a rule. `reason` is left in the `error`
    /// node of our directory, and the frontend has to close and start over. If rings are mapped [`BackStep::Release`] follows, once.
    pub fn failed(&mut self, now: Instant, reason: &str) {
        match self.bus.phase {
            Phase::InitWait | Phase::Connected => {
                self.fault.get_or_insert_with(|| reason.chars().take(200).collect());
            }
            Phase::Fresh | Phase::Stale | Phase::Closing | Phase::Closed => {}
        }
        self.bus.deadline = Some(now);
    }

    /// The device has ended all use of the frontend's rings, after [`BackStep::Release`].
    pub fn released(&mut self, now: Instant) {
        self.bus.standing = None;
        self.mapped = false;
        self.connection = None;
        self.bus.connection_ended(now);
        self.bus.deadline = Some(now);
    }
}

/// A vif's place below `backend/vif`.
pub(super) fn vif_place(frontend: DomId, index: u32) -> String {
    format!("{}/{index}", frontend.0)
}

fn own_dir(frontend: DomId, index: u32) -> String {
    format!("backend/vif/{}", vif_place(frontend, index))
}

impl<S: Store> core::fmt::Debug for BackBus<S> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("BackBus")
            .field("frontend", &self.frontend)
            .field("phase", &self.bus.phase)
            .field("frontend_state", &self.bus.peer)
            .field("mapped", &self.mapped)
            .field("fault", &self.fault)
            .finish_non_exhaustive()
    }
}
