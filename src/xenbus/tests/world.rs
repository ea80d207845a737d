//! A vif between two domains: its toolstack, and a device on either end that does what the bus
//! tells it to, and checks that it is told nothing absurd.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

use xen_grant::DomId;

use super::fake::{FakeStore, FakeXen};
use super::round_trips::{MAX_POLL, MAX_PUBLICATION};
use crate::platform::Instant;
use crate::xenbus::{
    BackBus, BackStep, FrontBus, FrontStep, FrontendOffer, Listing, Look, Removal,
};
use xen_store::StoreError;

pub const FRONT_DIR: &str = "/local/domain/1/device/vif/0";
pub const BACK_DIR: &str = "/local/domain/2/backend/vif/1/0";
const FRONT: u16 = 1;
const BACK: u16 = 2;
pub const FEATURES: [(&str, &str); 3] =
    [("feature-rx-copy", "1"), ("feature-sg", "1"), ("multi-queue-max-queues", "2")];

/// Opens something on a store that may fail now and then.
fn insist<T>(open: impl Fn() -> Result<T, StoreError>) -> T {
    (0..1000).find_map(|_| open().ok()).unwrap()
}

/// A frontend's device: the number of its ring, if it has one.
pub struct Front {
    pub bus: FrontBus<FakeStore>,
    pub ring: Option<u32>,
    pub last: FrontStep,
    pub connects: u32,
}

impl Front {
    pub fn open(xen: &FakeXen) -> Front {
        let bus = insist(|| FrontBus::open(xen.domain(FRONT), 0));
        Front { bus, ring: None, last: FrontStep::Wait, connects: 0 }
    }

    /// Polls and obeys. Ring numbers come from `rings`, each used once.
    pub fn poll(&mut self, now: Instant, rings: &mut u32) -> FrontStep {
        let step = self.bus.poll(now);
        self.last = step;
        match step {
            FrontStep::Wait => {}
            FrontStep::Connect => {
                assert_eq!(self.ring, None, "asked to connect with rings");
                *rings += 1;
                let keys = [
                    ("tx-ring-ref", rings.to_string()),
                    ("rx-ring-ref", (*rings + 1_000_000).to_string()),
                    ("event-channel", rings.to_string()),
                    ("request-rx-copy", String::from("1")),
                ];
                if self.bus.publish(now, &keys).is_ok() {
                    self.ring = Some(*rings);
                    self.connects += 1;
                }
            }
            FrontStep::Live => assert!(self.ring.is_some(), "live without rings"),
            FrontStep::Release => {
                assert!(self.ring.take().is_some(), "release without rings");
                self.bus.released(now);
            }
            FrontStep::Gone => assert_eq!(self.ring, None, "gone with rings"),
        }
        step
    }
}

/// A backend's device: what it has mapped.
pub struct Back {
    pub bus: BackBus<FakeStore>,
    pub mapped: Option<FrontendOffer>,
    pub gone: bool,
}

impl Back {
    pub fn open(xen: &FakeXen) -> Back {
        let bus =
            insist(|| BackBus::open(xen.domain(BACK), DomId(FRONT), 0, &FEATURES, Removal::Ours));
        Back { bus, mapped: None, gone: false }
    }

    /// Polls and obeys. Only ring `granted` can be mapped.
    pub fn poll(&mut self, now: Instant, granted: Option<u32>) -> BackStep {
        let step = self.bus.poll(now);
        match step {
            BackStep::Wait => {}
            BackStep::Connect => {
                assert_eq!(self.mapped, None, "asked to connect with rings mapped");
                self.mapped = self.bus.frontend_offer().cloned();
                assert!(self.ring().is_some());
                if self.ring() == granted {
                    self.bus.connected(now);
                } else {
                    self.mapped = None;
                    self.bus.failed(now, "no such grant");
                }
            }
            BackStep::Release => {
                assert!(self.mapped.take().is_some(), "release without rings");
                self.bus.released(now);
            }
            BackStep::Remove => {
                assert_eq!(self.mapped, None, "removed with rings mapped");
                self.gone = true;
            }
        }
        step
    }

    /// The ring that it has mapped.
    pub fn ring(&self) -> Option<u32> {
        self.mapped.as_ref().and_then(|offer| offer.queues.first()).map(|queue| queue.tx_ring)
    }
}

/// Everything together, in virtual time.
pub struct World {
    pub xen: FakeXen,
    pub now: Instant,
    pub rings: u32,
    pub front: Front,
    pub back: Option<Back>,
    listing: Listing<FakeStore>,
}

impl World {
    pub fn new() -> World {
        let xen = FakeXen::new();
        let (front, listing) = (Front::open(&xen), insist(|| Listing::open(xen.domain(BACK))));
        World { xen, now: Instant(0), rings: 0, front, back: None, listing }
    }

    /// What a toolstack writes when it attaches a vif.
    pub fn attach(&self) {
        self.xen.set(&format!("{FRONT_DIR}/state"), "1");
        self.xen.set(&format!("{FRONT_DIR}/mac"), "00:16:3e:00:00:01");
        self.xen.set(&format!("{BACK_DIR}/state"), "1");
        self.repair();
    }

    /// What it writes there and nobody else does.
    pub fn repair(&self) {
        self.xen.set(&format!("{BACK_DIR}/frontend"), FRONT_DIR);
        self.xen.set(&format!("{BACK_DIR}/frontend-id"), "1");
        self.xen.set(&format!("{BACK_DIR}/online"), "1");
        self.xen.set(&format!("{FRONT_DIR}/backend"), BACK_DIR);
        self.xen.set(&format!("{FRONT_DIR}/backend-id"), "2");
    }

    /// What it writes to detach it.
    pub fn detach(&self) {
        self.xen.set(&format!("{BACK_DIR}/online"), "0");
        self.xen.set(&format!("{BACK_DIR}/state"), "5");
    }

    pub fn poll_front(&mut self) -> FrontStep {
        let before = self.xen.operations();
        let step = self.front.poll(self.now, &mut self.rings);
        assert!(
            self.xen.operations() - before <= MAX_POLL + MAX_PUBLICATION,
            "n3: {}",
            self.picture()
        );
        step
    }

    /// The backend's driver: opens and drops vifs as they come and go.
    pub fn poll_back(&mut self) {
        let mut looks = Vec::new();
        self.listing.poll(self.now, |look| looks.push(look));
        for look in looks {
            if let Look::At(vif) = look {
                assert_eq!(vif, (DomId(FRONT), 0));
                self.back.get_or_insert_with(|| Back::open(&self.xen));
            }
        }
        if let Some(back) = &mut self.back {
            let before = self.xen.operations();
            let _ = back.poll(self.now, self.front.ring);
            assert!(self.xen.operations() - before <= MAX_POLL, "n3");
            if back.gone {
                self.back = None;
            }
        }
    }

    /// Another driver domain kernel takes over; what was mapped is unmapped with the old one.
    pub fn restart_back(&mut self) {
        self.back = None;
        self.listing = insist(|| Listing::open(self.xen.domain(BACK)));
    }

    pub fn state_of(&self, dir: &str) -> String {
        self.xen.get(&format!("{dir}/state")).unwrap_or_default()
    }

    /// Both ends say so, both nodes say so, and it is the same ring.
    pub fn connected(&self) -> bool {
        let ring = self.back.as_ref().filter(|back| back.bus.is_connected()).and_then(Back::ring);
        self.front.last == FrontStep::Live
            && ring.is_some()
            && ring == self.front.ring
            && self.state_of(FRONT_DIR) == "4"
            && self.state_of(BACK_DIR) == "4"
    }

    /// When something has to happen, if nothing else does.
    pub fn next_deadline(&self) -> Option<Instant> {
        let back = self.back.as_ref().and_then(|back| back.bus.next_deadline());
        let front = self.front.bus.next_deadline();
        self.listing.next_deadline(self.now).into_iter().chain(front).chain(back).min()
    }

    /// Lets everybody run until `done`; time passes only when nobody has anything to do. Returns
    /// how long it took, or `None` after `polls` rounds or if nothing would ever happen again.
    pub fn run_until(&mut self, polls: usize, done: impl Fn(&World) -> bool) -> Option<Duration> {
        let start = self.now;
        let mut idle = 0;
        for _ in 0..polls {
            let before = (self.xen.operations(), self.rings);
            self.poll_back();
            let _ = self.poll_front();
            if done(self) {
                return Some(self.now.since(start));
            }
            // A poll may only have consumed a stale watch event, hence two idle rounds.
            idle = if before == (self.xen.operations(), self.rings) { idle + 1 } else { 0 };
            if idle > 2 {
                self.now = self.next_deadline()?.max(self.now);
                idle = 0;
            }
        }
        None
    }

    pub fn connect(&mut self) {
        let took = self.run_until(100, World::connected);
        assert_eq!(took, Some(Duration::ZERO), "{}", self.picture());
    }

    pub fn picture(&self) -> String {
        let back = self.back.as_ref().map(|back| (back.ring(), back.bus.is_connected()));
        format!(
            "at {:?}: front {} {:?} ring {:?} until {:?}, back {} {back:?} until {:?}",
            self.now.since(Instant(0)),
            self.state_of(FRONT_DIR),
            self.front.last,
            self.front.ring,
            self.front.bus.next_deadline(),
            self.state_of(BACK_DIR),
            self.back.as_ref().map(|back| back.bus.next_deadline()),
        )
    }
}
