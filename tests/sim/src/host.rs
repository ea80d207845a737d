//! The host: domains, time, chance.
//!
//! A host is either *deterministic*: time is virtual and one seed decides every chance, or
//! *threaded*: time is real, domains run on threads, and events arrive at once.

use core::ops::Range;
use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use xen_grant::DomId;
use xen_netfront::platform::Instant;
use xen_store::memory::Event;

use crate::Domain;
use crate::domain::{DomainConfig, DomainInner};
use crate::event::Events;
use crate::store::StoreState;
use crate::violation::Violation;

/// Takes a lock. A thread that panicked inside leaves the state as it was.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What goes wrong by chance on a deterministic host, with no fault of the driver. The default is
/// nothing: every event arrives at once.
#[derive(Clone, Debug, PartialEq)]
pub struct Chaos {
    /// How late an event or a watch may be; drawn anew for each. An empty range: at once.
    pub delay: Range<Duration>,
    /// How likely an event is lost. Only for drivers that poll anyway.
    pub lost: f64,
    /// How likely, at each step of the scheduler, some open port gets an event that nobody sent.
    pub spurious: f64,
    /// How likely a transaction fails with `EAGAIN` for no reason that its owner can see.
    pub conflicts: f64,
}

impl Default for Chaos {
    fn default() -> Chaos {
        Chaos { delay: Duration::ZERO..Duration::ZERO, lost: 0.0, spurious: 0.0, conflicts: 0.0 }
    }
}

impl Chaos {
    /// Late and spurious events and transaction conflicts; nothing is lost.
    pub fn rough() -> Chaos {
        Chaos {
            delay: Duration::ZERO..Duration::from_micros(200),
            lost: 0.0,
            spurious: 0.02,
            conflicts: 0.2,
        }
    }
}

/// What an operation costs the domain that asks for it, in virtual time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Costs {
    /// One run of a task.
    pub step: Duration,
    /// A hypercall.
    pub hypercall: Duration,
    /// Mapping or unmapping one grant.
    pub map: Duration,
    /// One operation of a grant copy.
    pub copy_op: Duration,
    /// Copying one page's worth of bytes.
    pub copy_page: Duration,
    /// A xenstore request.
    pub store: Duration,
}

impl Costs {
    /// Everything but running takes no time at all.
    pub fn free() -> Costs {
        Costs {
            step: Duration::from_nanos(100),
            hypercall: Duration::ZERO,
            map: Duration::ZERO,
            copy_op: Duration::ZERO,
            copy_page: Duration::ZERO,
            store: Duration::ZERO,
        }
    }

    pub(crate) fn copy_bytes(&self, len: u32) -> Duration {
        self.copy_page * len / 4096
    }
}

impl Default for Costs {
    /// In the order of what real machines show.
    fn default() -> Costs {
        Costs {
            step: Duration::from_micros(1),
            hypercall: Duration::from_nanos(500),
            map: Duration::from_micros(2),
            copy_op: Duration::from_nanos(100),
            copy_page: Duration::from_nanos(400),
            store: Duration::from_micros(20),
        }
    }
}

/// Something that happens later.
pub(crate) enum Delivery {
    /// An event on a port.
    Event { domain: DomId, port: u32, generation: u64 },
    /// A watch.
    Watch(Event),
}

#[derive(Default)]
struct Timeline {
    queue: BTreeMap<(u64, u64), Delivery>,
    sequence: u64,
}

pub(crate) struct HostInner {
    seed: u64,
    started: Option<std::time::Instant>,
    now: AtomicU64,
    timeline: Mutex<Timeline>,
    rng: Mutex<fastrand::Rng>,
    chaos: Mutex<Chaos>,
    costs: RwLock<Costs>,
    domains: RwLock<BTreeMap<u16, Arc<DomainInner>>>,
    violations: Mutex<Vec<Violation>>,
    pub(crate) events: Mutex<Events>,
    pub(crate) store: Mutex<StoreState>,
}

impl HostInner {
    pub(crate) fn domain(&self, id: DomId) -> Option<Arc<DomainInner>> {
        self.domains.read().unwrap_or_else(PoisonError::into_inner).get(&id.0).cloned()
    }

    pub(crate) fn now(&self) -> Instant {
        match self.started {
            Some(started) => {
                Instant(u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX))
            }
            None => Instant(self.now.load(Ordering::Relaxed)),
        }
    }

    pub(crate) fn threaded(&self) -> bool {
        self.started.is_some()
    }

    pub(crate) fn violate(&self, violation: Violation) {
        lock(&self.violations).push(violation);
    }

    pub(crate) fn costs(&self) -> Costs {
        *self.costs.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// True with this probability. Draws nothing for 0 on either side of deterministic.
    pub(crate) fn chance(&self, probability: f64) -> bool {
        probability > 0.0 && lock(&self.rng).f64() < probability
    }

    pub(crate) fn chaos(&self) -> Chaos {
        lock(&self.chaos).clone()
    }

    pub(crate) fn with_rng<T>(&self, draw: impl FnOnce(&mut fastrand::Rng) -> T) -> T {
        draw(&mut lock(&self.rng))
    }

    /// Delivers now, or as late as chance wants.
    pub(crate) fn deliver_late(&self, delivery: Delivery) {
        let range = lock(&self.chaos).delay.clone();
        let delay = if self.threaded() || range.is_empty() {
            Duration::ZERO
        } else {
            let nanos = |d: Duration| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX);
            let drawn = self.with_rng(|rng| rng.u64(nanos(range.start)..nanos(range.end)));
            Duration::from_nanos(drawn)
        };
        if delay.is_zero() {
            return self.deliver(delivery);
        }
        let at = self.now() + delay;
        let mut timeline = lock(&self.timeline);
        timeline.sequence += 1;
        let key = (at.0, timeline.sequence);
        timeline.queue.insert(key, delivery);
    }

    fn deliver(&self, delivery: Delivery) {
        match delivery {
            Delivery::Event { domain, port, generation } => {
                self.raise(domain, port, Some(generation));
            }
            Delivery::Watch(event) => self.fire_watch(&event),
        }
    }
}

/// A simulated Xen host. Clones stand for the same host.
#[derive(Clone)]
pub struct Host {
    pub(crate) inner: Arc<HostInner>,
}

impl Host {
    /// A deterministic host in virtual time: everything that is left to chance comes from `seed`.
    pub fn new(seed: u64) -> Host {
        Host::build(seed, None)
    }

    /// A host whose domains run on threads in real time. `seed` still decides what a
    /// [`Domain::random`] caller draws.
    pub fn threaded(seed: u64) -> Host {
        Host::build(seed, Some(std::time::Instant::now()))
    }

    fn build(seed: u64, started: Option<std::time::Instant>) -> Host {
        let inner = HostInner {
            seed,
            started,
            now: AtomicU64::new(0),
            timeline: Mutex::default(),
            rng: Mutex::new(fastrand::Rng::with_seed(seed)),
            chaos: Mutex::default(),
            costs: RwLock::default(),
            domains: RwLock::default(),
            violations: Mutex::default(),
            events: Mutex::default(),
            store: Mutex::default(),
        };
        Host { inner: Arc::new(inner) }
    }

    /// The seed, to be printed when a run fails.
    pub fn seed(&self) -> u64 {
        self.inner.seed
    }

    /// The time now.
    pub fn now(&self) -> Instant {
        self.inner.now()
    }

    /// Sets what goes wrong by chance.
    pub fn set_chaos(&self, chaos: Chaos) {
        *lock(&self.inner.chaos) = chaos;
    }

    /// Sets what operations cost.
    pub fn set_costs(&self, costs: Costs) {
        *self.inner.costs.write().unwrap_or_else(PoisonError::into_inner) = costs;
    }

    /// Draws from the host's chance.
    pub fn random<T>(&self, draw: impl FnOnce(&mut fastrand::Rng) -> T) -> T {
        self.inner.with_rng(draw)
    }

    /// Creates a domain with this many pages, or tells the existing one with that number. Its
    /// xenstore home `/local/domain/N` is made too, as libxl makes it: domain 0's, but for a few nodes.
    pub fn add_domain(&self, id: DomId, pages: u32) -> Domain {
        self.add_domain_with(id, DomainConfig { pages, ..DomainConfig::default() })
    }

    /// [`add_domain`](Host::add_domain) with more choices.
    pub fn add_domain_with(&self, id: DomId, config: DomainConfig) -> Domain {
        let me = {
            let mut domains = self.inner.domains.write().unwrap_or_else(PoisonError::into_inner);
            domains.entry(id.0).or_insert_with(|| DomainInner::new(id, config)).clone()
        };
        lock(&self.inner.events).add(id, config.max_event_channel);
        let domain = Domain { host: self.inner.clone(), me };
        self.inner.store_home(id);
        domain
    }

    /// The handle of a domain that exists.
    pub fn domain(&self, id: DomId) -> Option<Domain> {
        let me = self.inner.domain(id)?;
        Some(Domain { host: self.inner.clone(), me })
    }

    /// Ends a domain as a crash or a reboot does: its event channels close, its mappings end, its
    /// watches and transactions go, and so do the xenstore nodes that it owns. Domain 0's stay until the
    /// toolstack removes them, and handles that are still around keep the domain's pages.
    pub fn destroy_domain(&self, id: DomId) {
        let Some(domain) = self.domain(id) else { return };
        domain.me.die();
        domain.unmap_all();
        lock(&self.inner.events).remove(id);
        self.inner.store_forget(id);
        self.inner.domains.write().unwrap_or_else(PoisonError::into_inner).remove(&id.0);
    }

    /// What correct drivers never do, in the order it happened.
    pub fn violations(&self) -> Vec<Violation> {
        let mut all = lock(&self.inner.violations).clone();
        let domains = self.inner.domains.read().unwrap_or_else(PoisonError::into_inner);
        for domain in domains.values() {
            all.extend(lock(&domain.memory).spoiled_entries());
        }
        all
    }

    /// The violations of one domain, where others are hostile on purpose.
    pub fn violations_of(&self, id: DomId) -> Vec<Violation> {
        self.violations().into_iter().filter(|violation| violation.domain() == id).collect()
    }

    /// Moves virtual time on and delivers what was due meanwhile. Does nothing on a threaded host.
    pub fn advance(&self, by: Duration) {
        self.advance_to(self.now() + by);
    }

    /// [`advance`](Host::advance) to a moment; time never goes back.
    pub fn advance_to(&self, to: Instant) {
        if self.inner.threaded() {
            return;
        }
        loop {
            let next = {
                let mut timeline = lock(&self.inner.timeline);
                match timeline.queue.first_entry() {
                    Some(first) if first.key().0 <= to.0 => Some((first.key().0, first.remove())),
                    Some(_) | None => None,
                }
            };
            let Some((at, delivery)) = next else { break };
            self.inner.now.fetch_max(at, Ordering::Relaxed);
            self.inner.deliver(delivery);
        }
        self.inner.now.fetch_max(to.0, Ordering::Relaxed);
    }

    /// When the next late event or watch is due.
    pub fn next_delivery(&self) -> Option<Instant> {
        lock(&self.inner.timeline).queue.keys().next().map(|&(at, _)| Instant(at))
    }
}

impl core::fmt::Debug for Host {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Host")
    }
}
