//! Who runs next, on a deterministic host: tasks of several domains, picked by the seed, in
//! virtual time.
//!
//! Every domain has one virtual processor. A task runs until it returns; what it cost
//! ([`Costs`](crate::Costs), [`Domain::charge`]) keeps its domain busy afterwards, while other
//! domains run. When nothing can run, time jumps to the next moment at which something happens.
//! If there is none, everybody waits for an event that nobody will send: the run is *stuck*, and
//! that is how a lost wakeup shows.

use core::fmt;
use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use xen_netfront::platform::{Instant, Port};

use crate::{Domain, Host};

/// What a task wants after a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Run again as soon as possible.
    Now,
    /// Run again after an event or a watch of its domain; also after one that came during this run.
    Wait,
    /// The same, but at this moment at the latest.
    WaitUntil(Instant),
    /// Run again after this time; events do not shorten it, but are kept.
    Sleep(Duration),
    /// Never run again.
    Done,
}

/// What a task learns when it runs.
#[derive(Debug)]
pub struct Ctx<'a> {
    /// The time now.
    pub now: Instant,
    /// The ports of its domain that became pending since the task's last run. Each task of a
    /// domain gets each event.
    pub ports: &'a [Port],
    /// Whether a watch of its domain has fired since then.
    pub store: bool,
    /// How many runs this task has had before.
    pub runs: u64,
}

/// Something that runs in a domain. Closures `FnMut(&mut Ctx) -> Next` are tasks.
pub trait Task {
    /// Runs once, without blocking.
    fn run(&mut self, ctx: &mut Ctx<'_>) -> Next;
}

impl<F: FnMut(&mut Ctx<'_>) -> Next> Task for F {
    fn run(&mut self, ctx: &mut Ctx<'_>) -> Next {
        self(ctx)
    }
}

/// How far a run may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Steps of all tasks together.
    pub steps: u64,
    /// Virtual time from now on.
    pub time: Duration,
    /// A wait for a deadline or a sleep that is longer than this, with nothing else going on,
    /// counts as stuck. For drivers whose watchdogs would otherwise hide a lost wakeup.
    pub patience: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { steps: 1_000_000, time: Duration::from_secs(3600), patience: Duration::MAX }
    }
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All foreground tasks are done.
    Done,
    /// These tasks wait, and nothing will ever happen, or not within the patience.
    Stuck(Vec<String>),
    /// The limit of steps was reached; these are not done.
    Steps(Vec<String>),
    /// The limit of time was reached; these are not done.
    Time(Vec<String>),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Done => f.write_str("done"),
            Outcome::Stuck(tasks) => write!(f, "stuck: nothing will wake {}", tasks.join(", ")),
            Outcome::Steps(tasks) => write!(f, "too many steps; not done: {}", tasks.join(", ")),
            Outcome::Time(tasks) => write!(f, "too long; not done: {}", tasks.join(", ")),
        }
    }
}

struct Entry<'a> {
    name: String,
    domain: Domain,
    task: Box<dyn Task + 'a>,
    background: bool,
    next: Next,
    /// When a sleep or a deadline ends.
    due: Option<Instant>,
    ports: Vec<Port>,
    store: bool,
    runs: u64,
}

impl Entry<'_> {
    fn done(&self) -> bool {
        self.next == Next::Done || !self.domain.is_alive()
    }

    fn woken(&self) -> bool {
        self.store || !self.ports.is_empty()
    }

    /// The earliest moment it can run, if it is known.
    fn ready_at(&self, busy: Instant) -> Option<Instant> {
        if self.done() {
            return None;
        }
        let at = match self.next {
            Next::Now => Instant(0),
            Next::Wait | Next::WaitUntil(_) if self.woken() => Instant(0),
            Next::Wait | Next::WaitUntil(_) | Next::Sleep(_) => self.due?,
            Next::Done => return None,
        };
        Some(at.max(busy))
    }
}

/// Runs tasks on a deterministic host.
pub struct Scheduler<'a> {
    host: Host,
    tasks: Vec<Entry<'a>>,
    busy: BTreeMap<u16, Instant>,
    steps: u64,
}

impl<'a> Scheduler<'a> {
    /// A scheduler without tasks.
    pub fn new(host: &Host) -> Scheduler<'a> {
        Scheduler { host: host.clone(), tasks: Vec::new(), busy: BTreeMap::new(), steps: 0 }
    }

    /// Adds a task; a run lasts until all of these are done.
    pub fn add(&mut self, name: &str, domain: &Domain, task: impl Task + 'a) -> &mut Self {
        self.push(name, domain, Box::new(task), false)
    }

    /// Adds a task that a run does not wait for.
    pub fn add_background(
        &mut self,
        name: &str,
        domain: &Domain,
        task: impl Task + 'a,
    ) -> &mut Self {
        self.push(name, domain, Box::new(task), true)
    }

    fn push(
        &mut self,
        name: &str,
        domain: &Domain,
        task: Box<dyn Task + 'a>,
        background: bool,
    ) -> &mut Self {
        self.tasks.push(Entry {
            name: name.to_owned(),
            domain: domain.clone(),
            task,
            background,
            next: Next::Now,
            due: None,
            ports: Vec::new(),
            store: false,
            runs: 0,
        });
        self
    }

    /// Steps taken so far.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Runs until all foreground tasks are done, nothing can happen, or a limit is reached. It may
    /// be called again.
    pub fn run(&mut self, limits: Limits) -> Outcome {
        let end = self.host.now() + limits.time;
        let mut steps = 0;
        // Tasks that only wait with deadlines keep no run alive: the last moment at which
        // somebody ran for another reason.
        let mut active = self.host.now();
        loop {
            self.hand_out_events();
            if self.tasks.iter().all(|task| task.background || task.done()) {
                return Outcome::Done;
            }
            let now = self.host.now();
            if let Some(index) = self.pick(now) {
                if steps == limits.steps {
                    return Outcome::Steps(self.unfinished());
                }
                steps += 1;
                if self.step(index) {
                    active = now;
                }
                continue;
            }
            let ready = self.tasks.iter().filter_map(|task| task.ready_at(self.busy(&task.domain)));
            let Some(next) = ready.chain(self.host.next_delivery()).min() else {
                return Outcome::Stuck(self.unfinished());
            };
            if next.since(active) > limits.patience {
                return Outcome::Stuck(self.unfinished());
            }
            if next > end {
                return Outcome::Time(self.unfinished());
            }
            self.host.advance_to(next);
        }
    }

    /// Runs one task that can run now, whichever the seed picks. False if there is none.
    pub fn step_once(&mut self) -> bool {
        self.hand_out_events();
        let picked = self.pick(self.host.now());
        picked.map(|index| self.step(index)).is_some()
    }

    /// The tasks that are not done, background left out.
    pub fn unfinished(&self) -> Vec<String> {
        let open = self.tasks.iter().filter(|task| !task.background && !task.done());
        open.map(|task| task.name.clone()).collect()
    }

    fn busy(&self, domain: &Domain) -> Instant {
        self.busy.get(&domain.id().0).copied().unwrap_or_default()
    }

    fn pick(&self, now: Instant) -> Option<usize> {
        let can = |&index: &usize| {
            let task = &self.tasks[index];
            task.ready_at(self.busy(&task.domain)).is_some_and(|at| at <= now)
        };
        let count = (0..self.tasks.len()).filter(can).count();
        if count == 0 {
            return None;
        }
        let nth = self.host.random(|rng| rng.usize(..count));
        (0..self.tasks.len()).filter(can).nth(nth)
    }

    /// Runs a task; tells whether it ran for another reason than a deadline.
    fn step(&mut self, index: usize) -> bool {
        self.steps += 1;
        let chaos = self.host.inner.chaos();
        if self.host.inner.chance(chaos.spurious) {
            self.host.inner.raise_spurious();
        }
        let now = self.host.now();
        let entry = &mut self.tasks[index];
        let active = entry.woken() || entry.next == Next::Now;
        let ports = std::mem::take(&mut entry.ports);
        let store = std::mem::take(&mut entry.store);
        let domain = entry.domain.clone();
        domain.charge(self.host.inner.costs().step);
        let mut ctx = Ctx { now, ports: &ports, store, runs: entry.runs };
        entry.next = entry.task.run(&mut ctx);
        entry.runs += 1;
        entry.due = match entry.next {
            Next::WaitUntil(deadline) => Some(deadline),
            Next::Sleep(time) => Some(now + time),
            Next::Now | Next::Wait | Next::Done => None,
        };
        self.busy.insert(domain.id().0, now + domain.take_charge());
        active
    }

    /// The upcall of every domain: each of its tasks learns of each event.
    fn hand_out_events(&mut self) {
        for index in 0..self.tasks.len() {
            let domain = self.tasks[index].domain.clone();
            if self.tasks[..index].iter().any(|earlier| earlier.domain.id() == domain.id()) {
                continue;
            }
            let store = domain.take_store_event();
            let ports = domain.take_pending();
            if !store && ports.is_empty() {
                continue;
            }
            for task in self.tasks.iter_mut().filter(|task| task.domain.id() == domain.id()) {
                task.store |= store;
                for &port in &ports {
                    if !task.ports.contains(&port) {
                        task.ports.push(port);
                    }
                }
            }
        }
    }
}

/// Runs a task on this thread, on a threaded host, until it is done or `stop` says so.
pub fn run_on_thread(domain: &Domain, task: &mut dyn Task, stop: &AtomicBool) {
    /// How often `stop` is looked at.
    const LOOK: Duration = Duration::from_millis(10);
    let mut ports = Vec::new();
    let mut runs = 0;
    while !stop.load(Ordering::Relaxed) && domain.is_alive() {
        ports.clear();
        domain.drain_pending(&mut ports);
        let store = domain.take_store_event();
        let now = domain.host().now();
        let next = task.run(&mut Ctx { now, ports: &ports, store, runs });
        runs += 1;
        let wait = |until: Instant| {
            while !stop.load(Ordering::Relaxed) {
                let left = until.since(domain.host().now());
                if domain.wait(left.min(LOOK)) || left.is_zero() {
                    break;
                }
            }
        };
        match next {
            Next::Now => {}
            Next::Wait => wait(Instant(u64::MAX)),
            Next::WaitUntil(deadline) => wait(deadline),
            Next::Sleep(time) => std::thread::sleep(time),
            Next::Done => return,
        }
    }
}

impl core::fmt::Debug for Scheduler<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Scheduler({} tasks)", self.tasks.len())
    }
}
