//! An async guest on a deterministic host: embassy's clock, and futures as a task.
//!
//! ```text
//!   Scheduler ─► Async::run ─► time has come? a watch fired?  ─► woken? ─► Future::poll
//!                                        │                         ▲
//!                                        └──────── Waker ──────────┘
//!                                  events wake the device by its port
//! ```
//!
//! A future is polled only when its waker has said so, whatever else happens in its domain: what a driver
//! forgets to wake ends the run as [`Outcome::Stuck`](crate::Outcome::Stuck). The clock is virtual, and
//! each thread's own: one host on a thread at a time.

use std::cell::RefCell;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Waker};

use embassy_time_driver::{Driver, TICK_HZ, time_driver_impl};
use packet_views::Wake;
use xen_netfront::platform::Instant;

use crate::sched::{Ctx, Next, Task};

/// Nanoseconds of a tick of embassy's clock.
const TICK: u64 = 1_000_000_000 / TICK_HZ;

/// The clock that embassy asks: what it says is each thread's own.
struct Clock;

#[derive(Default)]
struct Time {
    /// Ticks.
    now: u64,
    timers: Vec<(u64, Waker)>,
}

thread_local! {
    static TIME: RefCell<Time> = RefCell::default();
}

time_driver_impl!(static CLOCK: Clock = Clock);

impl Driver for Clock {
    fn now(&self) -> u64 {
        TIME.with_borrow(|time| time.now)
    }

    fn schedule_wake(&self, at: u64, waker: &Waker) {
        TIME.with_borrow_mut(|time| {
            match time.timers.iter_mut().find(|(_, other)| other.will_wake(waker)) {
                Some((earliest, _)) => *earliest = at.min(*earliest),
                None => time.timers.push((at, waker.clone())),
            }
        });
    }
}

/// It is this late: wakes whose time has come.
fn advance(now: Instant) {
    let due: Vec<Waker> = TIME.with_borrow_mut(|time| {
        time.now = now.0 / TICK;
        time.timers.extract_if(.., |(at, _)| *at <= time.now).map(|(_, waker)| waker).collect()
    });
    due.into_iter().for_each(Waker::wake);
}

/// When the next timer's time comes.
fn next_timer() -> Option<Instant> {
    let first = TIME.with_borrow(|time| time.timers.iter().map(|(at, _)| *at).min())?;
    Some(Instant(first.saturating_mul(TICK)))
}

/// A future, and whether it is to be polled.
struct Job<'a> {
    future: Pin<Box<dyn Future<Output = ()> + 'a>>,
    woken: Arc<Woken>,
}

struct Woken(AtomicBool);

impl std::task::Wake for Woken {
    fn wake(self: Arc<Woken>) {
        self.0.store(true, Ordering::Release);
    }
}

impl<'a> Job<'a> {
    fn new(future: impl Future<Output = ()> + 'a) -> Job<'a> {
        Job { future: Box::pin(future), woken: Arc::new(Woken(AtomicBool::new(true))) }
    }

    /// Polls it, if it has been woken; whether it is done.
    fn run(&mut self) -> bool {
        if !self.woken.0.swap(false, Ordering::Acquire) {
            return false;
        }
        let waker = Waker::from(self.woken.clone());
        self.future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready()
    }

    fn is_woken(&self) -> bool {
        self.woken.0.load(Ordering::Acquire)
    }
}

/// Futures as one task of a domain.
pub struct Async<'a> {
    main: Job<'a>,
    others: Vec<Job<'a>>,
    watchers: Vec<Wake>,
}

impl<'a> Async<'a> {
    /// A task that is done when this future is.
    pub fn new(main: impl Future<Output = ()> + 'a) -> Async<'a> {
        Async { main: Job::new(main), others: Vec::new(), watchers: Vec::new() }
    }

    /// With one more future, with a waker of its own, that is not waited for: a stack's runner.
    #[must_use]
    pub fn beside(mut self, future: impl Future<Output = Infallible> + 'a) -> Async<'a> {
        self.others.push(Job::new(async { match future.await {} }));
        self
    }

    /// Wakes this when a xenstore watch of the domain fires.
    #[must_use]
    pub fn watching(mut self, wake: &Wake) -> Async<'a> {
        self.watchers.push(wake.clone());
        self
    }
}

impl Task for Async<'_> {
    fn run(&mut self, ctx: &mut Ctx<'_>) -> Next {
        advance(ctx.now);
        if ctx.store {
            self.watchers.iter().for_each(Wake::wake);
        }
        for other in &mut self.others {
            other.run();
        }
        if self.main.run() {
            return Next::Done;
        }
        if self.main.is_woken() || self.others.iter().any(Job::is_woken) {
            return Next::Now;
        }
        next_timer().map_or(Next::Wait, Next::WaitUntil)
    }
}

impl std::fmt::Debug for Async<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Async({} tasks)", 1 + self.others.len())
    }
}
