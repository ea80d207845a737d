//! Xenstore as xenstored keeps it: a tree with owners and permissions, watches, transactions,
//! quotas. [`tree`] holds the nodes, [`watch`] says who is told of what, and this module is the
//! wire between a domain and both.

mod path;
mod transaction;
pub(crate) mod tree;
mod watch;

use core::num::NonZeroU32;
use std::sync::Arc;

use xen_grant::DomId;
use xen_netfront::platform::Instant;
use xen_netfront::store::{Store, StoreError, Transaction, Watch};

use crate::host::{Delivery, HostInner, lock};
use crate::{Domain, Host};

pub use tree::{Access, Perms};

/// Nodes a domain may own (`quota-nb-entry-per-domain`).
pub const MAX_NODES: usize = 1000;
/// Watches a domain may set.
pub const MAX_WATCHES: usize = 128;
/// Transactions a domain may have open.
pub const MAX_TRANSACTIONS: usize = 10;
/// Bytes in a value.
pub const MAX_VALUE: usize = 4096;

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
        store.values().map(line).collect()
    }
}

impl HostInner {
    /// Makes a domain's home directory.
    pub(crate) fn store_home(&self, id: DomId) {
        let home = path::home(id);
        let events = {
            let mut store = lock(&self.store);
            match store.exists(&home) {
                true => Vec::new(),
                false => store.make(&home, Perms::of(id), self.now()),
            }
        };
        self.tell(events);
    }

    /// Forgets a domain that has died, and fires `@releaseDomain`.
    pub(crate) fn store_forget(&self, id: DomId) {
        let events = {
            let mut store = lock(&self.store);
            store.forget(id);
            store.watchers_of_special("@releaseDomain")
        };
        self.tell(events);
    }

    pub(crate) fn fire_watch(&self, id: u32) {
        let domain = lock(&self.store).set_fired(id);
        if let Some(domain) = domain {
            self.raise_store(domain);
        }
    }

    fn tell(&self, watches: Vec<u32>) {
        for id in watches {
            self.deliver_late(Delivery::Watch { id });
        }
    }
}

impl StoreClient {
    fn path(&self, path: &str) -> Result<String, StoreError> {
        if self.dead {
            return Err(StoreError::Denied);
        }
        path::absolute(self.id, path)
    }

    /// Sets a node's owner and permissions; only its owner and domain 0 may.
    pub fn set_perms(&self, path: &str, perms: Perms) -> Result<(), StoreError> {
        let path = self.path(path)?;
        let told = lock(&self.host.store).set_perms(self.id, &path, perms)?;
        self.host.tell(told);
        Ok(())
    }

    /// A node's owner and permissions.
    pub fn perms(&self, path: &str) -> Result<Perms, StoreError> {
        let path = self.path(path)?;
        lock(&self.host.store).perms(self.id, &path)
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
        lock(&self.host.store).owned(self.id)
    }

    /// How many watches this domain has.
    pub fn watches(&self) -> usize {
        lock(&self.host.store).watches_of(self.id)
    }

    /// How many transactions this domain has open.
    pub fn transactions(&self) -> usize {
        lock(&self.host.store).transactions_of(self.id)
    }
}

impl Store for StoreClient {
    fn read(&self, within: Option<Transaction>, path: &str) -> Result<Vec<u8>, StoreError> {
        let path = self.path(path)?;
        lock(&self.host.store).read(self.id, within, &path)
    }

    fn write(
        &self,
        within: Option<Transaction>,
        path: &str,
        value: &[u8],
    ) -> Result<(), StoreError> {
        let path = self.path(path)?;
        if value.len() > MAX_VALUE {
            return Err(StoreError::Quota);
        }
        let now = self.host.now();
        let told = lock(&self.host.store).write(self.id, within, &path, value, now)?;
        self.host.tell(told);
        Ok(())
    }

    fn list(&self, within: Option<Transaction>, path: &str) -> Result<Vec<String>, StoreError> {
        let path = self.path(path)?;
        lock(&self.host.store).list(self.id, within, &path)
    }

    fn remove(&self, within: Option<Transaction>, path: &str) -> Result<(), StoreError> {
        let path = self.path(path)?;
        let now = self.host.now();
        let told = lock(&self.host.store).remove(self.id, within, &path, now)?;
        self.host.tell(told);
        Ok(())
    }

    fn begin(&self) -> Result<Transaction, StoreError> {
        if self.dead {
            return Err(StoreError::Denied);
        }
        lock(&self.host.store).begin(self.id)
    }

    fn commit(&self, transaction: Transaction) -> Result<(), StoreError> {
        let refuse = !self.host.threaded() && self.host.chance(self.host.chaos().conflicts);
        let now = self.host.now();
        let told = lock(&self.host.store).commit(self.id, transaction, refuse, now)?;
        self.host.tell(told);
        Ok(())
    }

    fn abort(&self, transaction: Transaction) {
        lock(&self.host.store).abort(self.id, transaction);
    }

    fn watch(&self, path: &str) -> Result<Watch, StoreError> {
        let path = match path.starts_with('@') {
            true => path.to_owned(),
            false => self.path(path)?,
        };
        let id = lock(&self.host.store).add_watch(self.id, path)?;
        self.host.raise_store(self.id);
        Ok(Watch(id))
    }

    fn unwatch(&self, watch: Watch) {
        lock(&self.host.store).remove_watch(self.id, watch.0);
    }

    fn fired(&self, watch: &Watch) -> bool {
        lock(&self.host.store).take_fired(self.id, watch.0)
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

    fn unwatch(&self, watch: Watch) {
        self.request().unwatch(watch);
    }

    // Asks nobody: the bit is kept in the domain.
    fn fired(&self, watch: &Watch) -> bool {
        self.store().fired(watch)
    }
}

fn transaction(id: u32) -> Option<Transaction> {
    NonZeroU32::new(id).map(Transaction)
}
