//! A backend like Linux's, for our frontend to connect to.

use alloc::format;
use alloc::string::String;
use core::time::Duration;

use super::fake::FakeXen;
use super::world::{BACK_DIR, FRONT_DIR, World};
use crate::xenbus::{BusState, FrontStep};

/// Netback as Linux has it: one state at a time towards what the frontend's state asks for.
pub struct Netback {
    pub dir: String,
    pub state: BusState,
    pub hotplugged: bool,
}

impl Netback {
    pub fn start(xen: &FakeXen, dir: &str) -> Netback {
        xen.set(&format!("{dir}/feature-rx-copy"), "1");
        let netback = Netback { dir: dir.into(), state: BusState::InitWait, hotplugged: true };
        netback.show(xen);
        netback
    }

    pub fn show(&self, xen: &FakeXen) {
        xen.set(&format!("{}/state", self.dir), self.state.digit());
    }

    pub fn step(&mut self, xen: &FakeXen) {
        use BusState::{Closed, Closing, Connected, InitWait, Initialising, Unknown};
        let frontend = xen.get(&format!("{FRONT_DIR}/state")).unwrap_or_default();
        let wanted = match BusState::parse(frontend.as_bytes()) {
            Initialising => InitWait,
            Connected if self.hotplugged => Connected,
            Connected => InitWait,
            Closing => Closing,
            Closed | Unknown => Closed,
            InitWait | BusState::Initialised | BusState::Reconfiguring | BusState::Reconfigured => {
                return;
            }
        };
        let next = match (self.state, wanted) {
            (now, wanted) if now == wanted => return,
            (InitWait, Connected) => Connected,
            (InitWait | Connected, _) => Closing,
            (Closing, _) => Closed,
            (Closed, Closing) => Closing,
            (Closed, _) => InitWait,
            (_, _) => unreachable!(),
        };
        self.state = next;
        self.show(xen);
    }
}

/// A frontend with a netback, each step of which can be watched.
pub struct Lab {
    pub world: World,
    pub netback: Netback,
}

impl Lab {
    pub fn new() -> Lab {
        let world = World::new();
        world.attach();
        let netback = Netback::start(&world.xen, BACK_DIR);
        Lab { world, netback }
    }

    pub fn connected() -> Lab {
        let mut lab = Lab::new();
        lab.connect();
        lab
    }

    pub fn connect(&mut self) -> Duration {
        let start = self.world.now;
        for _ in 0..200 {
            if self.step() == FrontStep::Live && self.netback.state == BusState::Connected {
                return self.world.now.since(start);
            }
            self.netback.step(&self.world.xen);
            // Time passes only where the frontend waits for it.
            let idle = self.step() == FrontStep::Wait && self.netback.state != BusState::Connected;
            if let (true, Some(deadline)) = (idle, self.world.front.bus.next_deadline())
                && self.settled()
            {
                self.world.now = deadline.max(self.world.now);
            }
        }
        panic!("{}", self.world.picture());
    }

    /// Whether neither end would do anything now.
    pub fn settled(&mut self) -> bool {
        let before = self.world.xen.operations();
        let state = self.netback.state;
        self.netback.step(&self.world.xen);
        let _ = self.step();
        let _ = self.step();
        state == self.netback.state && self.world.xen.operations() == before
    }

    pub fn step(&mut self) -> FrontStep {
        self.world.poll_front()
    }

    /// Some steps of the frontend alone; which states it went through.
    pub fn states(&mut self, steps: usize, netback: bool) -> String {
        let mut seen = self.world.state_of(FRONT_DIR);
        for _ in 0..steps {
            let _ = self.step();
            let state = self.world.state_of(FRONT_DIR);
            if !seen.ends_with(&state) {
                seen.push_str(&state);
            }
            if netback {
                self.netback.step(&self.world.xen);
            }
        }
        seen
    }

    pub fn wait(&mut self, time: Duration) {
        self.world.now = self.world.now + time;
    }

    pub fn backend_says(&mut self, state: &str) {
        self.world.xen.set(&format!("{BACK_DIR}/state"), state);
    }
}
