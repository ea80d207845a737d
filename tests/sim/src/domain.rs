//! A domain and its handle.

use core::time::Duration;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use xen_grant::DomId;
use xen_netfront::platform::{BackendPlatform, Channel, EventError, Instant, Platform, Port};

use crate::counters::{Counters, Counts};
use crate::event::ESRCH;
use crate::fault::{Faults, strike};
use crate::grants::Map;
use crate::host::{Host, HostInner, lock};
use crate::memory::MemState;
use crate::page::SimPage;

/// `MAPTRACK_PER_PAGE`
const MAPS_PER_FRAME: usize = 256;

/// How a domain is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DomainConfig {
    /// Pages it can allocate; memory is taken only for those in use.
    pub pages: u32,
    /// Grant frames the hypervisor allows it.
    pub max_grant_frames: u32,
    /// Frames in which the hypervisor keeps track of what it has mapped: 256 mappings each, of which
    /// one is never used. 1024 by default, as on Xen.
    pub max_maptrack_frames: u32,
    /// The last event channel it may have: 1023 by default, as with libxl; 4095 is the last of the
    /// 2-level ABI on x86-64.
    pub max_event_channel: u32,
}

impl Default for DomainConfig {
    fn default() -> DomainConfig {
        DomainConfig {
            pages: 1024,
            max_grant_frames: 64,
            max_maptrack_frames: 1024,
            max_event_channel: 1023,
        }
    }
}

pub(crate) struct DomainInner {
    pub(crate) id: DomId,
    pub(crate) memory: Mutex<MemState>,
    pub(crate) maps: Mutex<Vec<Option<Map>>>,
    /// Pages of mappings that ended when the domain moved: who had them may still look at them.
    pub(crate) lost: Mutex<Vec<Arc<SimPage>>>,
    /// How many mappings it may have.
    pub(crate) max_maps: usize,
    pub(crate) faults: Mutex<Faults>,
    pub(crate) counters: Counters,
    /// Virtual nanoseconds that this domain's work has cost since the scheduler last asked.
    charged: AtomicU64,
    /// Destroyed; what is left of it are handles that can do nothing any more.
    dead: AtomicBool,
}

impl DomainInner {
    pub(crate) fn new(id: DomId, config: DomainConfig) -> Arc<DomainInner> {
        Arc::new(DomainInner {
            id,
            memory: Mutex::new(MemState::new(id, config.pages, config.max_grant_frames)),
            maps: Mutex::default(),
            lost: Mutex::default(),
            max_maps: (config.max_maptrack_frames as usize * MAPS_PER_FRAME).saturating_sub(1),
            faults: Mutex::default(),
            counters: Counters::default(),
            charged: AtomicU64::new(0),
            dead: AtomicBool::new(false),
        })
    }

    pub(crate) fn die(&self) {
        self.dead.store(true, Ordering::Release);
    }
}

/// A handle to a domain: [`Memory`](xen_grant::Memory), [`ForeignMemory`](xen_grant::ForeignMemory),
/// [`Platform`], [`BackendPlatform`] and [`Store`](xen_netfront::store::Store) in one. Clones stand
/// for the same domain.
#[derive(Clone)]
pub struct Domain {
    pub(crate) host: Arc<HostInner>,
    pub(crate) me: Arc<DomainInner>,
}

impl Domain {
    /// Its number.
    pub fn id(&self) -> DomId {
        self.me.id
    }

    /// The host it lives on.
    pub fn host(&self) -> Host {
        Host { inner: self.host.clone() }
    }

    /// What it has asked of the hypervisor so far.
    pub fn counts(&self) -> Counts {
        self.me.counters.get()
    }

    /// Sets what the hypervisor refuses from now on.
    pub fn set_faults(&self, faults: Faults) {
        *lock(&self.me.faults) = faults;
    }

    /// Changes what the hypervisor refuses from now on.
    pub fn change_faults(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut lock(&self.me.faults));
    }

    /// Pages allocated and not freed.
    pub fn pages_in_use(&self) -> usize {
        lock(&self.me.memory).used_pages()
    }

    /// Pages that can still be allocated.
    pub fn pages_free(&self) -> usize {
        lock(&self.me.memory).free_pages()
    }

    /// Pages of others that are mapped here.
    pub fn mappings(&self) -> usize {
        lock(&self.me.maps).iter().flatten().count()
    }

    /// Draws from the host's chance.
    pub fn random<T>(&self, draw: impl FnOnce(&mut fastrand::Rng) -> T) -> T {
        self.host.with_rng(draw)
    }

    /// Spends virtual time: under the [`Scheduler`](crate::Scheduler) this domain runs again only
    /// after it.
    pub fn charge(&self, cost: Duration) {
        let nanos = u64::try_from(cost.as_nanos()).unwrap_or(u64::MAX);
        self.me.charged.fetch_add(nanos, Ordering::Relaxed);
    }

    pub(crate) fn take_charge(&self) -> Duration {
        Duration::from_nanos(self.me.charged.swap(0, Ordering::Relaxed))
    }

    /// Whether the domain has not been destroyed.
    pub fn is_alive(&self) -> bool {
        !self.me.dead.load(Ordering::Acquire)
    }

    /// Suspends the domain and resumes it on another machine: its event channels are closed, its
    /// mappings have ended, nothing that it granted is there, its transactions in xenstore are gone.
    /// Its watches are set anew and have fired ([`Store::watch`](xen_netfront::store::Store::watch)).
    ///
    /// What xenstore says of its vifs is the toolstack's affair, and stays. Peers must have unmapped
    /// its pages.
    pub fn migrate(&self) {
        self.lose_maps();
        self.migrate_grants();
        lock(&self.host.events).close_all(self.me.id);
        self.host.store_reconnect(self.me.id);
    }

    fn other_call(&self) {
        self.me.counters.other_calls.add(1);
        self.charge(self.host.costs().hypercall);
    }
}

impl core::fmt::Debug for Domain {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Domain({})", self.me.id.0)
    }
}

impl Platform for Domain {
    fn now(&self) -> Instant {
        self.host.now()
    }

    fn alloc_unbound(&self, peer: DomId) -> Result<Port, EventError> {
        self.other_call();
        match strike(&mut lock(&self.me.faults).alloc_unbound) {
            Some(error) => Err(error),
            None if !self.is_alive() => Err(ESRCH),
            None => lock(&self.host.events).alloc_unbound(self.me.id, peer),
        }
    }

    fn opened(&self, port: Port, channel: Channel) {
        if self.is_alive() {
            lock(&self.host.events).set_wake(self.me.id, port, channel.wake);
        }
    }

    fn close(&self, port: Port) {
        self.other_call();
        if self.is_alive() {
            lock(&self.host.events).close(self.me.id, port);
        }
    }

    fn notify(&self, port: Port) {
        self.me.counters.notifies.add(1);
        self.charge(self.host.costs().hypercall);
        if self.is_alive() {
            self.host.send(&self.me, port);
        }
    }

    fn handled(&self, port: Port, progress: bool) {
        if self.is_alive() {
            lock(&self.host.events).count_handled(self.me.id, port, progress);
        }
    }
}

impl BackendPlatform for Domain {
    fn bind_interdomain(&self, peer: DomId, remote: Port) -> Result<Port, EventError> {
        self.other_call();
        if let Some(error) = strike(&mut lock(&self.me.faults).bind_interdomain) {
            return Err(error);
        }
        if !self.is_alive() {
            return Err(ESRCH);
        }
        let port = lock(&self.host.events).bind(self.me.id, peer, remote)?;
        // The channel may have been used before we bound to it: Xen starts it pending.
        self.host.raise(self.me.id, port.get(), None);
        Ok(port)
    }
}
