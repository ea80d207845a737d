//! Xenstore between the domains of a host: the tree of `xen-store`, with a clock, faults, late watch
//! events, a trace of all changes, and domains that die.

use std::sync::Arc;

use xen_grant::DomId;
use xen_netfront::platform::Instant;
use xen_store::memory::{Effects, Event, Tree};
use xen_store::{Changes, Store, StoreError, Transaction, Watch};

use crate::host::{Delivery, HostInner, lock};
use crate::{Domain, Host};

pub use xen_store::memory::{
    Access, MAX_NODES, MAX_TRANSACTIONS, MAX_VALUE, MAX_WATCHES, Perms, Quota,
};

/// A change of the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// When.
    pub at: Instant,
    /// By whom.
    pub domain: DomId,
    /// Which node.
    pub path: String,
    /// Its new value; `None`: removed.
    pub value: Option<Vec<u8>>,
}

/// All of xenstore, and what has been seen of it.
#[derive(Default)]
pub(crate) struct StoreState {
    tree: Tree,
    trace: Option<Vec<Change>>,
}

/// Xenstore as one domain sees it. Clones stand for the same connection.
#[derive(Clone)]
pub struct StoreClient {
    host: Arc<HostInner>,
    id: DomId,
    /// Whether the domain has died; a dead domain reaches nothing.
    dead: bool,
}

impl Host {
    /// Xenstore as this domain sees it, whether the domain runs here or not. Domain 0 may do
    /// anything.
    pub fn store_as(&self, id: DomId) -> StoreClient {
        StoreClient { host: self.inner.clone(), id, dead: false }
    }

    /// Says what each domain but domain 0 may have in xenstore from now on, as xenstored's options do.
    pub fn set_store_quota(&self, quota: Quota) {
        lock(&self.inner.store).tree.set_quota(quota);
    }

    /// Starts to record changes, or stops and forgets.
    pub fn trace_store(&self, on: bool) {
        lock(&self.inner.store).trace = on.then(Vec::new);
    }

    /// The changes since the trace began.
    pub fn store_trace(&self) -> Vec<Change> {
        lock(&self.inner.store).trace.clone().unwrap_or_default()
    }

    /// The whole tree, `path = "value"` a line, for people to look at.
    pub fn dump_store(&self) -> String {
        let store = lock(&self.inner.store);
        let line =
            |(path, value): (&str, &[u8])| format!("{path} = \"{}\"\n", value.escape_ascii());
        store.tree.values().map(line).collect()
    }
}

impl HostInner {
    /// Makes a domain's home directory, as libxl does.
    pub(crate) fn store_home(&self, id: DomId) {
        let made = self.changed(DomId(0), |tree| Ok(tree.introduce(id.0)));
        debug_assert_eq!(made, Ok(()));
    }

    /// Forgets a domain that has died, removes what it owned, and fires `@releaseDomain`.
    pub(crate) fn store_forget(&self, id: DomId) {
        let gone = self.changed(id, |tree| Ok(tree.release(id.0)));
        debug_assert_eq!(gone, Ok(()));
    }

    /// A domain has a new connection: its transactions are gone, and its watches, set anew by its
    /// driver of xenstore, have fired.
    pub(crate) fn store_reconnect(&self, id: DomId) {
        let done = self.changed(id, |tree| Ok(tree.reconnect(id.0)));
        debug_assert_eq!(done, Ok(()));
    }

    pub(crate) fn fire_watch(&self, event: &Event) {
        let domain = lock(&self.store).tree.fire(event);
        if let Some(domain) = domain {
            self.raise_store(DomId(domain));
        }
    }

    /// Changes the tree in the name of a domain; watch events are on their way then.
    fn changed(
        &self,
        domain: DomId,
        change: impl FnOnce(&mut Tree) -> Result<Effects, StoreError>,
    ) -> Result<(), StoreError> {
        let at = self.now();
        let effects = {
            let mut store = lock(&self.store);
            let mut effects = change(&mut store.tree)?;
            if let Some(trace) = &mut store.trace {
                let changes = effects.changes.drain(..);
                trace.extend(changes.map(|change| Change {
                    at,
                    domain,
                    path: change.path,
                    value: change.value,
                }));
            }
            effects
        };
        for event in effects.events {
            self.deliver_late(Delivery::Watch(event));
        }
        Ok(())
    }
}

impl StoreClient {
    /// Xenstore, if the domain is alive.
    fn tree<T>(
        &self,
        look: impl FnOnce(&mut Tree) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        if self.dead { Err(StoreError::Denied) } else { look(&mut lock(&self.host.store).tree) }
    }

    fn changed(
        &self,
        change: impl FnOnce(&mut Tree) -> Result<Effects, StoreError>,
    ) -> Result<(), StoreError> {
        if self.dead { Err(StoreError::Denied) } else { self.host.changed(self.id, change) }
    }

    /// Sets a node's permissions; only its owner and domain 0 may, and only domain 0 its owner.
    pub fn set_perms(&self, path: &str, perms: Perms) -> Result<(), StoreError> {
        self.changed(|tree| tree.set_perms(self.id.0, None, path, perms))
    }

    /// [`set_perms`](StoreClient::set_perms) within a transaction.
    pub fn set_perms_within(
        &self,
        within: Transaction,
        path: &str,
        perms: Perms,
    ) -> Result<(), StoreError> {
        self.changed(|tree| tree.set_perms(self.id.0, Some(within), path, perms))
    }

    /// A node's owner and permissions.
    pub fn perms(&self, path: &str) -> Result<Perms, StoreError> {
        self.tree(|tree| tree.perms(self.id.0, path))
    }

    /// Makes the home of a domain that need not run here.
    pub(crate) fn introduce(&self, id: DomId) {
        self.host.store_home(id);
    }

    /// The value as text, if the node is there, readable, and valid UTF-8.
    pub fn get(&self, path: &str) -> Option<String> {
        String::from_utf8(self.read(None, path).ok()?).ok()
    }

    /// Writes text; panics if xenstore refuses, so for tests and the toolstack.
    #[track_caller]
    pub fn set(&self, path: &str, value: &str) {
        let done = self.write(None, path, value.as_bytes());
        assert!(done.is_ok(), "write of {path} by domain {}: {done:?}", self.id.0);
    }

    /// How many nodes this domain owns.
    pub fn owned_nodes(&self) -> usize {
        lock(&self.host.store).tree.owned(self.id.0)
    }

    /// How many watches this domain has.
    pub fn watches(&self) -> usize {
        lock(&self.host.store).tree.watches_of(self.id.0)
    }

    /// How many transactions this domain has open.
    pub fn transactions(&self) -> usize {
        lock(&self.host.store).tree.transactions_of(self.id.0)
    }
}

impl Store for StoreClient {
    fn read(&self, within: Option<Transaction>, path: &str) -> Result<Vec<u8>, StoreError> {
        self.tree(|tree| tree.read(self.id.0, within, path))
    }

    fn write(
        &self,
        within: Option<Transaction>,
        path: &str,
        value: &[u8],
    ) -> Result<(), StoreError> {
        self.changed(|tree| tree.write(self.id.0, within, path, value))
    }

    fn list(&self, within: Option<Transaction>, path: &str) -> Result<Vec<String>, StoreError> {
        self.tree(|tree| tree.list(self.id.0, within, path))
    }

    fn remove(&self, within: Option<Transaction>, path: &str) -> Result<(), StoreError> {
        self.changed(|tree| tree.remove(self.id.0, within, path))
    }

    fn begin(&self) -> Result<Transaction, StoreError> {
        self.tree(|tree| tree.begin(self.id.0))
    }

    fn commit(&self, transaction: Transaction) -> Result<(), StoreError> {
        let conflict = !self.host.threaded() && self.host.chance(self.host.chaos().conflicts);
        self.host.changed(self.id, |tree| match conflict {
            true => tree.abort(self.id.0, transaction).and(Err(StoreError::Again)),
            false => tree.commit(self.id.0, transaction),
        })
    }

    fn abort(&self, transaction: Transaction) {
        // What can fail is that it is not there, which is what was wanted.
        let _ = lock(&self.host.store).tree.abort(self.id.0, transaction);
    }

    fn watch(&self, path: &str) -> Result<Watch, StoreError> {
        let watch = self.tree(|tree| tree.watch(self.id.0, path))?;
        self.host.raise_store(self.id);
        Ok(watch)
    }

    fn watch_below(&self, path: &str, depth: usize) -> Result<Watch, StoreError> {
        let watch = self.tree(|tree| tree.watch_below(self.id.0, path, depth))?;
        self.host.raise_store(self.id);
        Ok(watch)
    }

    fn watch_also(&self, watch: &Watch, path: &str, place: &str) -> Result<Watch, StoreError> {
        let part = self.tree(|tree| tree.watch_also(self.id.0, watch, path, place))?;
        self.host.raise_store(self.id);
        Ok(part)
    }

    fn unwatch(&self, watch: Watch) {
        lock(&self.host.store).tree.unwatch(self.id.0, &watch);
    }

    fn fired(&self, watch: &Watch) -> bool {
        lock(&self.host.store).tree.fired(self.id.0, watch)
    }

    fn changes(&self, watch: &Watch) -> Changes {
        lock(&self.host.store).tree.changes(self.id.0, watch)
    }
}

impl Domain {
    /// This domain's xenstore connection, apart from its counters.
    pub fn store(&self) -> StoreClient {
        StoreClient { host: self.host.clone(), id: self.me.id, dead: !self.is_alive() }
    }

    fn request(&self) -> StoreClient {
        self.me.counters.store_calls.add(1);
        self.charge(self.host.costs().store);
        self.store()
    }
}

impl Store for Domain {
    fn read(&self, within: Option<Transaction>, path: &str) -> Result<Vec<u8>, StoreError> {
        self.request().read(within, path)
    }

    fn write(
        &self,
        within: Option<Transaction>,
        path: &str,
        value: &[u8],
    ) -> Result<(), StoreError> {
        self.request().write(within, path, value)
    }

    fn list(&self, within: Option<Transaction>, path: &str) -> Result<Vec<String>, StoreError> {
        self.request().list(within, path)
    }

    fn remove(&self, within: Option<Transaction>, path: &str) -> Result<(), StoreError> {
        self.request().remove(within, path)
    }

    fn begin(&self) -> Result<Transaction, StoreError> {
        self.request().begin()
    }

    fn commit(&self, transaction: Transaction) -> Result<(), StoreError> {
        self.request().commit(transaction)
    }

    fn abort(&self, transaction: Transaction) {
        self.request().abort(transaction);
    }

    fn watch(&self, path: &str) -> Result<Watch, StoreError> {
        self.request().watch(path)
    }

    fn watch_below(&self, path: &str, depth: usize) -> Result<Watch, StoreError> {
        self.request().watch_below(path, depth)
    }

    fn watch_also(&self, watch: &Watch, path: &str, place: &str) -> Result<Watch, StoreError> {
        self.request().watch_also(watch, path, place)
    }

    fn unwatch(&self, watch: Watch) {
        self.request().unwatch(watch);
    }

    // These ask nobody: what they look at is kept in the domain.

    fn fired(&self, watch: &Watch) -> bool {
        self.store().fired(watch)
    }

    fn changes(&self, watch: &Watch) -> Changes {
        self.store().changes(watch)
    }
}

impl std::fmt::Debug for StoreClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "StoreClient(domain {})", self.id.0)
    }
}
