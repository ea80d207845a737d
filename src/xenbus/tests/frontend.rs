//! A frontend that writes what a test wants, for our backend to connect to.

use alloc::format;
use alloc::string::String;

use xen_grant::DomId;

use super::fake::{FakeStore, FakeXen};
use super::world::{BACK_DIR, FRONT_DIR};
use crate::platform::Instant;
use crate::xenbus::{BackBus, BackStep, Removal};

/// Nodes below a directory, and their values.
pub type Nodes<'a> = &'a [(&'a str, &'a str)];

/// A frontend's nodes of one queue.
pub const KEYS: [(&str, &str); 5] = [
    ("tx-ring-ref", "8"),
    ("rx-ring-ref", "9"),
    ("event-channel", "3"),
    ("request-rx-copy", "1"),
    ("feature-sg", "1"),
];

/// A backend whose device does as it is told, and a frontend that is a test.
pub struct Lab {
    pub xen: FakeXen,
    pub bus: BackBus<FakeStore>,
    pub mapped: bool,
    pub releases: u32,
    pub now: Instant,
}

impl Lab {
    pub fn new() -> Lab {
        Lab::with(&[("feature-sg", "1")], Removal::Ours)
    }

    pub fn with(features: Nodes<'_>, removal: Removal) -> Lab {
        let xen = FakeXen::new();
        for (key, value) in [("frontend", FRONT_DIR), ("frontend-id", "1"), ("online", "1")] {
            xen.set(&format!("{BACK_DIR}/{key}"), value);
        }
        xen.set(&format!("{BACK_DIR}/state"), "1");
        xen.set(&format!("{FRONT_DIR}/state"), "1");
        let bus = BackBus::open(xen.domain(2), DomId(1), 0, features, removal).unwrap();
        Lab { xen, bus, mapped: false, releases: 0, now: Instant(0) }
    }

    pub fn connected() -> Lab {
        let mut lab = Lab::new();
        lab.poll();
        lab.publish(&KEYS);
        lab.poll();
        assert!(lab.mapped && lab.bus.is_connected() && lab.state() == "4");
        lab
    }

    /// Polls until there is nothing left to do. Returns the states that were seen on the way.
    pub fn poll(&mut self) -> String {
        let mut seen = String::new();
        for _ in 0..20 {
            let step = self.bus.poll(self.now);
            // Rings are never mapped where 5 or 6 tells the frontend that they are not.
            let state = self.state();
            assert!(!self.mapped || (state != "5" && state != "6") || step == BackStep::Release);
            if !seen.ends_with(&state) {
                seen.push_str(&state);
            }
            match step {
                BackStep::Wait => {}
                BackStep::Connect => {
                    assert!(!self.mapped);
                    self.mapped = true;
                    self.bus.connected(self.now);
                }
                BackStep::Release => {
                    assert!(self.mapped);
                    self.mapped = false;
                    self.releases += 1;
                    self.bus.released(self.now);
                }
                BackStep::Remove => break,
            }
        }
        seen
    }

    pub fn publish(&self, keys: Nodes<'_>) {
        for (key, value) in keys {
            self.xen.set(&format!("{FRONT_DIR}/{key}"), value);
        }
        self.frontend_says("4");
    }

    pub fn frontend_says(&self, state: &str) {
        self.xen.set(&format!("{FRONT_DIR}/state"), state);
    }

    pub fn own(&self, key: &str) -> Option<String> {
        self.xen.get(&format!("{BACK_DIR}/{key}"))
    }

    pub fn set_own(&self, key: &str, value: &str) {
        self.xen.set(&format!("{BACK_DIR}/{key}"), value);
    }

    pub fn state(&self) -> String {
        self.own("state").unwrap_or_default()
    }
}
