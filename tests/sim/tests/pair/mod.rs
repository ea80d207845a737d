//! A real frontend and a real backend on one simulated host, each run as a driver's loop would run
//! it. Packets are numbered, and looked at when they arrive.
#![allow(dead_code, unused_imports)]

mod back;
mod blow;
mod front;
mod ledger;
#[path = "../packets/mod.rs"]
mod packets;

use std::cell::RefCell;
use std::time::Duration;

use packet_views::features::Features;
use xen_grant::DomId;
use xen_netfront::netback;
use xen_netfront::netfront;
use xen_sim::{Ctx, Domain, Host, Limits, Next, Outcome, Scheduler, Toolstack, Vif};

pub use back::Back;
pub use blow::Blow;
pub use front::Front;
pub use ledger::{Kind, Ledger, Shape};
pub use packets::Flow;

pub const FRONT: DomId = DomId(1);
pub const BACK: DomId = DomId(2);

/// Longer than any recovery may take, in virtual time.
pub const RECOVERY: Duration = Duration::from_secs(5);

/// How a pair is built.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub seed: u64,
    pub front: netfront::Config,
    pub back: netback::Config,
    pub mtu: u16,
    pub front_frames: usize,
    pub back_frames: usize,
}

impl Plan {
    /// Whether flows may overtake each other.
    pub fn several_queues(&self) -> bool {
        self.front.queues.min(self.back.max_queues) > 1
    }

    /// The same with random features, queues, channels and bounds.
    pub fn with_any_features(mut self, rng: &mut fastrand::Rng) -> Plan {
        let mut any = || match rng.u8(..4) {
            0 => Features::NONE,
            1 => Features::ALL,
            _ => Features::NONE
                .with_scatter_gather(rng.u8(..4) > 0)
                .with_checksum_v4(rng.bool())
                .with_checksum_v6(rng.bool())
                .with_gso_v4(rng.bool())
                .with_gso_v6(rng.bool()),
        };
        (self.front.features, self.back.features) = (any(), any());
        self.front.queues = [1, 1, 2, 3][rng.usize(..4)];
        self.back.max_queues = rng.u32(1..=4);
        // Queues share the bounds, and the largest packet must fit each.
        self.back.queue_frames = self.back.queue_frames.max(18 * self.back.max_queues as usize);
        self.back.queue_packets = self.back.queue_packets.max(self.back.max_queues as usize);
        self.front.split_event_channels = rng.bool();
        self.front.rx_floor = rng.u16(..100);
        self.front.tx_bytes = (rng.u8(..4) == 0).then(|| rng.u32(..100_000));
        // Some frames are left to send with.
        let queues = self.front.queues as usize;
        let share = (self.front_frames - 44) / queues - 2;
        self.front.rx_ceiling = rng.usize(20..=share.clamp(20, 256)) as u16;
        self.front_frames = self.front_frames.max(self.front.least_pages() + 44);
        self
    }
}

impl Default for Plan {
    fn default() -> Plan {
        Plan {
            seed: 1,
            front: netfront::Config::default(),
            back: netback::Config::default(),
            mtu: 1500,
            front_frames: 700,
            back_frames: 512,
        }
    }
}

/// So much virtual time, and more steps than that should take.
pub fn limits(time: Duration) -> Limits {
    Limits { time, steps: 2_000_000, ..Limits::default() }
}

/// Sleeps for longer and longer: for whoever waits for something.
pub struct Nap(Duration);

impl Default for Nap {
    fn default() -> Nap {
        Nap(Duration::from_micros(20))
    }
}

impl Nap {
    pub fn next(&mut self) -> Next {
        let now = self.0;
        self.0 = (now * 3 / 2).min(Duration::from_millis(5));
        Next::Sleep(now)
    }
}

/// A machine with one vif. `up` is what goes from the frontend to the backend.
pub struct Pair {
    pub host: Host,
    pub toolstack: Toolstack,
    pub vif: Vif,
    pub plan: Plan,
    pub front: RefCell<Front>,
    pub back: RefCell<Back>,
    pub up: RefCell<Ledger>,
    pub down: RefCell<Ledger>,
    /// Both ends look again after a millisecond, for hosts that lose events.
    pub impatient: bool,
    /// Where whoever plays fate lives.
    nowhere: Domain,
}

/// A third task, and the domain it runs in.
pub type Beside<'a> = (&'a Domain, &'a mut dyn FnMut(&mut Ctx<'_>) -> Next);

impl Pair {
    /// The vif is there, and both ends are open.
    pub fn new(plan: Plan) -> Pair {
        let pair = Pair::apart(plan);
        pair.toolstack.add_vif(&pair.vif);
        pair.front.borrow_mut().open();
        pair.back.borrow_mut().open();
        pair
    }

    /// Two domains, and nothing between them yet.
    pub fn apart(plan: Plan) -> Pair {
        let host = Host::new(plan.seed);
        let nowhere = host.add_domain(DomId(0), 8);
        let front = Front::new(host.add_domain(FRONT, plan.front_frames as u32 + 8), &plan);
        let back = Back::new(host.add_domain(BACK, 4096), &plan);
        Pair {
            toolstack: host.toolstack(),
            vif: Vif::new(FRONT, BACK, 0).front_key("mtu", &plan.mtu.to_string()),
            front: RefCell::new(front),
            back: RefCell::new(back),
            up: RefCell::new(Ledger::new(plan.several_queues())),
            down: RefCell::new(Ledger::new(plan.several_queues())),
            impatient: false,
            plan,
            nowhere,
            host,
        }
    }

    /// Runs both ends until `fate` is done. It may do what it likes to them between their turns.
    pub fn run(&self, limits: Limits, fate: impl FnMut(&mut Ctx<'_>) -> Next) -> Outcome {
        self.run_beside(None, limits, fate)
    }

    /// As [`run`](Pair::run), with a third task in a domain of its own.
    pub fn run_beside(
        &self,
        other: Option<Beside<'_>>,
        limits: Limits,
        fate: impl FnMut(&mut Ctx<'_>) -> Next,
    ) -> Outcome {
        let mut scheduler = Scheduler::new(&self.host);
        if let Some((domain, task)) = other {
            scheduler.add_background("other", domain, task);
        }
        let (front, back) = (self.front_domain(), self.back_domain());
        scheduler.add_background("front", &front, |ctx: &mut Ctx| self.step_front(ctx));
        scheduler.add_background("back", &back, |ctx: &mut Ctx| self.step_back(ctx));
        scheduler.add("fate", &self.nowhere, fate);
        scheduler.run(limits)
    }

    /// Runs both ends until something is so; panics if that takes too long.
    #[track_caller]
    pub fn run_until(&self, what: &str, time: Duration, mut done: impl FnMut(&Pair) -> bool) {
        let mut nap = Nap::default();
        let outcome = self.run(limits(time), |_: &mut Ctx| match done(self) {
            true => Next::Done,
            false => nap.next(),
        });
        assert_eq!(outcome, Outcome::Done, "{what}; {}", self.describe());
    }

    /// One turn of the frontend's loop.
    pub fn step_front(&self, ctx: &mut Ctx<'_>) -> Next {
        let (mut up, mut down) = (self.up.borrow_mut(), self.down.borrow_mut());
        let next = self.front.borrow_mut().step(&mut up, &mut down);
        self.look_again(next, ctx)
    }

    /// One turn of the backend's loop.
    pub fn step_back(&self, ctx: &mut Ctx<'_>) -> Next {
        let (mut up, mut down) = (self.up.borrow_mut(), self.down.borrow_mut());
        if self.impatient {
            self.back.borrow_mut().look_at_all();
        }
        let next = self.back.borrow_mut().step(ctx.now, &mut up, &mut down);
        self.look_again(next, ctx)
    }

    fn look_again(&self, next: Next, ctx: &Ctx<'_>) -> Next {
        let soon = ctx.now + Duration::from_millis(1);
        match next {
            Next::Wait if self.impatient => Next::WaitUntil(soon),
            Next::WaitUntil(at) if self.impatient => Next::WaitUntil(at.min(soon)),
            other => other,
        }
    }

    pub fn front_domain(&self) -> Domain {
        self.front.borrow().domain.clone()
    }

    pub fn back_domain(&self) -> Domain {
        self.back.borrow().domain.clone()
    }

    /// Whether packets can go both ways.
    pub fn is_up(&self) -> bool {
        self.front.borrow().is_up() && self.back.borrow().is_connected()
    }

    /// Whether nothing waits to be sent, and all that was sent has been answered.
    pub fn is_idle(&self) -> bool {
        let (front, back) = (self.front.borrow(), self.back.borrow());
        front.outbox.is_empty()
            && front.outstanding() == 0
            && back.outbox.is_empty()
            && back.queued() == 0
    }

    /// Runs until everything has been sent, and has had the time to arrive: then all that was
    /// accepted has arrived, or one of the two has counted it as dropped.
    #[track_caller]
    pub fn settle(&self) {
        self.run_until("all is sent", Duration::from_secs(60), Pair::is_idle);
        let until = self.host.now() + Duration::from_millis(20);
        self.run_until("a moment passes", RECOVERY, |pair| pair.host.now() >= until);
        self.front.borrow().assert_grants_add_up();
        let (up, down) = (self.up.borrow(), self.down.borrow());
        assert!(up.lost() <= self.dropped_up(), "lost on the way up: {}", self.describe());
        assert!(down.lost() <= self.dropped_down(), "lost on the way down: {}", self.describe());
    }

    /// Sends packets each way through a pair where nothing is under way: a few, then more than a
    /// ring holds. Both ends sleep beforehand, and only the sender is told: the other one, and the
    /// sender of many, must be woken by their peers.
    #[track_caller]
    pub fn ping(&self) {
        for (count, up) in [(1, false), (1, true), (3, false), (2, true), (600, true), (600, false)]
        {
            // With few frames, the backend drops some of many.
            let done = || match up {
                true => self.up.borrow().arrived() + self.back.borrow().dropped().0,
                false => self.down.borrow().arrived(),
            };
            let (before, mut looks) = (done(), 0);
            let outcome = self.run(limits(Duration::from_millis(200)), |_: &mut Ctx| {
                looks += 1;
                match looks {
                    // By then all that a run begins with is over.
                    1 => return Next::Sleep(Duration::from_millis(5)),
                    2 => self.send_short(up, count),
                    _ if done() == before + count => return Next::Done,
                    _ => {}
                }
                Next::Sleep(Duration::from_micros(20))
            });
            assert_eq!(outcome, Outcome::Done, "{count} packets, up: {up}; {}", self.describe());
        }
    }

    /// Has one end send so many short packets.
    pub fn send_short(&self, up: bool, count: u64) {
        let shapes = (0..count).map(|_| Shape::single(60));
        if up {
            let mut front = self.front.borrow_mut();
            front.outbox.extend(shapes);
            front.domain.wake();
        } else {
            let mut back = self.back.borrow_mut();
            back.outbox.extend(shapes);
            back.domain.wake();
        }
    }

    /// Packets, or slots, that either end says it dropped. Some count twice.
    pub fn dropped_up(&self) -> u64 {
        self.front.borrow().dropped().0 + self.back.borrow().dropped().0
    }

    pub fn dropped_down(&self) -> u64 {
        self.front.borrow().dropped().1 + self.back.borrow().dropped().1
    }

    /// For a message.
    pub fn describe(&self) -> String {
        let (front, back) = (self.front.borrow(), self.back.borrow());
        format!(
            "at {} us; {:?}\nup {:?}, down {:?}\nfront: {} to send, {} frames free, {:?}\nback: {} to send, {} frames free, {:?}\n{}",
            self.host.now().0 / 1000,
            self.plan,
            self.up.borrow(),
            self.down.borrow(),
            front.outbox.len(),
            front.pool.free(),
            front.net.as_ref().map(|net| (net.link(), *net.counters())),
            back.outbox.len(),
            back.pool.free(),
            back.served().map(|vif| (vif.is_connected(), *vif.counters())),
            self.host.dump_store(),
        )
    }

    /// Takes both ends down: nothing may be left of them, and nobody has broken a rule of the host.
    pub fn tear_down(self) {
        self.front.borrow_mut().close();
        self.back.borrow_mut().close();
        self.assert_nothing_left();
    }

    /// After both ends are gone.
    pub fn assert_nothing_left(self) {
        let Pair { host, front, back, .. } = self;
        front.into_inner().assert_nothing_left();
        back.into_inner().assert_nothing_left();
        assert_eq!(host.violations_of(FRONT), []);
        assert_eq!(host.violations_of(BACK), []);
    }
}
