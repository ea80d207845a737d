//! Xenstore in memory, as xenstored keeps it and libxl fills it: a tree with owners and permissions,
//! watches, transactions, quotas.
//!
//! [`MemoryStore`] is for examples and tests on one thread. [`Tree`] is what is behind it, for who
//! builds a host of its own: it waits for nobody and tells nobody, and says what is to be told.

mod home;
mod path;
mod perms;
mod quota;
mod transaction;
mod tree;
mod watch;

use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::RefCell;

use crate::{Changes, Store, StoreError, Transaction, Watch};

pub use perms::{Access, Perms};
pub use quota::Quota;
pub use tree::Tree;

/// Nodes a domain may own, if nobody has raised its [`Quota`].
pub const MAX_NODES: usize = 1000;
/// Watches a domain may set, likewise.
pub const MAX_WATCHES: usize = 128;
/// Transactions a domain may have open, likewise.
pub const MAX_TRANSACTIONS: usize = 10;
/// Bytes in the value of a node that is one domain's alone and has no children ([`Quota::entry`]).
pub const MAX_VALUE: usize = 2015;

/// What follows from a change of the tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use = "a watch that is not fired is slept over"]
#[non_exhaustive]
pub struct Effects {
    /// The nodes that have changed, in the order in which they have; none within a transaction.
    pub changes: Vec<Change>,
    /// The watch events that are to be delivered ([`Tree::fire`]), each once.
    pub events: Vec<Event>,
}

impl Effects {
    fn extend(&mut self, more: Effects) {
        self.changes.extend(more.changes);
        self.events.extend(more.events);
        self.tell_each_once();
    }

    fn tell_each_once(&mut self) {
        self.events.sort_unstable();
        self.events.dedup();
    }
}

/// A watch fires.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub struct Event {
    /// Which watch.
    pub watch: u32,
    /// The node that has changed, or the special path.
    pub path: String,
}

/// A node that has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Change {
    /// Which.
    pub path: String,
    /// Its new value; `None`: it has been removed, with all below.
    pub value: Option<Vec<u8>>,
}

/// Xenstore in memory as one domain sees it. Clones stand for the same domain, and
/// [`as_domain`](MemoryStore::as_domain) for another.
///
/// No call blocks. A watch has fired when the call that changes a node returns.
#[derive(Clone)]
pub struct MemoryStore {
    tree: Rc<RefCell<Tree>>,
    domain: u16,
}

impl MemoryStore {
    /// A new xenstore, as this domain sees it. Domain 0 may do anything.
    pub fn new(domain: u16) -> MemoryStore {
        MemoryStore { tree: Rc::default(), domain }.as_domain(domain)
    }

    /// The same xenstore as another domain sees it, whose home directory `/local/domain/N` is made if
    /// it has none ([`Tree::introduce`]).
    pub fn as_domain(&self, domain: u16) -> MemoryStore {
        let store = MemoryStore { tree: self.tree.clone(), domain };
        let _ = store.changed(|tree| Ok(tree.introduce(domain)));
        store
    }

    /// A node's owner and permissions.
    pub fn perms(&self, path: &str) -> Result<Perms, StoreError> {
        self.tree.borrow_mut().perms(self.domain, path)
    }

    /// Sets a node's permissions; only its owner and domain 0 may, and only domain 0 its owner.
    pub fn set_perms(&self, path: &str, perms: Perms) -> Result<(), StoreError> {
        self.changed(|tree| tree.set_perms(self.domain, None, path, perms))
    }

    /// Says what each domain may have from now on.
    pub fn set_quota(&self, quota: Quota) {
        self.tree.borrow_mut().set_quota(quota);
    }

    /// How many watches this domain has.
    pub fn watches(&self) -> usize {
        self.tree.borrow().watches_of(self.domain)
    }

    /// How many transactions this domain has open.
    pub fn transactions(&self) -> usize {
        self.tree.borrow().transactions_of(self.domain)
    }

    /// Changes the tree and fires what watches it.
    fn changed(
        &self,
        change: impl FnOnce(&mut Tree) -> Result<Effects, StoreError>,
    ) -> Result<(), StoreError> {
        let mut tree = self.tree.borrow_mut();
        for event in change(&mut tree)?.events {
            tree.fire(&event);
        }
        Ok(())
    }
}

impl Store for MemoryStore {
    fn read(&self, within: Option<Transaction>, path: &str) -> Result<Vec<u8>, StoreError> {
        self.tree.borrow_mut().read(self.domain, within, path)
    }

    fn write(
        &self,
        within: Option<Transaction>,
        path: &str,
        value: &[u8],
    ) -> Result<(), StoreError> {
        self.changed(|tree| tree.write(self.domain, within, path, value))
    }

    fn list(&self, within: Option<Transaction>, path: &str) -> Result<Vec<String>, StoreError> {
        self.tree.borrow_mut().list(self.domain, within, path)
    }

    fn remove(&self, within: Option<Transaction>, path: &str) -> Result<(), StoreError> {
        self.changed(|tree| tree.remove(self.domain, within, path))
    }

    fn begin(&self) -> Result<Transaction, StoreError> {
        self.tree.borrow_mut().begin(self.domain)
    }

    fn commit(&self, transaction: Transaction) -> Result<(), StoreError> {
        self.changed(|tree| tree.commit(self.domain, transaction))
    }

    fn abort(&self, transaction: Transaction) {
        // What can fail is that it is not there, which is what was wanted.
        let _ = self.tree.borrow_mut().abort(self.domain, transaction);
    }

    fn watch(&self, path: &str) -> Result<Watch, StoreError> {
        self.tree.borrow_mut().watch(self.domain, path)
    }

    fn watch_below(&self, path: &str, depth: usize) -> Result<Watch, StoreError> {
        self.tree.borrow_mut().watch_below(self.domain, path, depth)
    }

    fn watch_also(&self, watch: &Watch, path: &str, place: &str) -> Result<Watch, StoreError> {
        self.tree.borrow_mut().watch_also(self.domain, watch, path, place)
    }

    fn unwatch(&self, watch: Watch) {
        self.tree.borrow_mut().unwatch(self.domain, &watch);
    }

    fn fired(&self, watch: &Watch) -> bool {
        self.tree.borrow_mut().fired(self.domain, watch)
    }

    fn changes(&self, watch: &Watch) -> Changes {
        self.tree.borrow_mut().changes(self.domain, watch)
    }
}

impl core::fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "MemoryStore(domain {})", self.domain)
    }
}

#[cfg(test)]
mod tests;
