//! The nodes, and who may do what to them.

use std::collections::BTreeMap;
use std::ops::Bound;

use xen_grant::DomId;
use xen_netfront::platform::Instant;
use xen_netfront::store::{StoreError, Transaction};

use super::path::{EINVAL, below, parent};
use super::transaction::{Open, Operation};
use super::watch::WatchState;
use super::{Change, MAX_NODES};

/// What somebody may do to a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// Read it and list its children.
    pub read: bool,
    /// Write and remove it, and make children.
    pub write: bool,
}

impl Access {
    /// Nothing.
    pub const NONE: Access = Access { read: false, write: false };
    /// Reading only.
    pub const READ: Access = Access { read: true, write: false };
    /// Both.
    pub const BOTH: Access = Access { read: true, write: true };
}

/// A node's owner and permissions. The owner may do anything, and so may domain 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Perms {
    /// Whose node it is, also for the quota.
    pub owner: DomId,
    /// What everybody else may do.
    pub others: Access,
    /// What these domains may do instead.
    pub grants: Vec<(DomId, Access)>,
}

impl Perms {
    /// Owned by this domain, closed to others.
    pub fn of(owner: DomId) -> Perms {
        Perms { owner, others: Access::NONE, grants: Vec::new() }
    }

    /// And this one may do that.
    #[must_use]
    pub fn with(mut self, domain: DomId, access: Access) -> Perms {
        self.grants.push((domain, access));
        self
    }

    pub(super) fn of_domain(&self, id: DomId) -> Access {
        if id == DomId(0) || id == self.owner {
            return Access::BOTH;
        }
        self.grants.iter().find(|(domain, _)| *domain == id).map_or(self.others, |grant| grant.1)
    }
}

#[derive(Clone)]
pub(super) struct Node {
    value: Vec<u8>,
    pub(super) perms: Perms,
    /// When the node or its list of children last changed.
    pub(super) generation: u64,
}

/// All of xenstore.
pub(crate) struct StoreState {
    pub(super) nodes: BTreeMap<String, Node>,
    pub(super) generation: u64,
    owned: BTreeMap<u16, usize>,
    pub(super) watches: BTreeMap<u32, WatchState>,
    pub(super) last_watch: u32,
    pub(super) transactions: BTreeMap<u32, Open>,
    pub(super) last_transaction: u32,
    pub(super) trace: Option<Vec<Change>>,
}

impl Default for StoreState {
    fn default() -> StoreState {
        let mut store = StoreState {
            nodes: BTreeMap::new(),
            generation: 0,
            owned: BTreeMap::new(),
            watches: BTreeMap::new(),
            last_watch: 0,
            transactions: BTreeMap::new(),
            last_transaction: 0,
            trace: None,
        };
        let perms = Perms { others: Access::READ, ..Perms::of(DomId(0)) };
        for path in ["/", "/local", "/local/domain"] {
            store.put(path, Vec::new(), perms.clone());
        }
        store
    }
}

impl StoreState {
    pub(super) fn exists(&self, path: &str) -> bool {
        self.nodes.contains_key(path)
    }

    pub(super) fn values(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.nodes.iter().map(|(path, node)| (path.as_str(), node.value.as_slice()))
    }

    pub(super) fn owned(&self, id: DomId) -> usize {
        self.owned.get(&id.0).copied().unwrap_or(0)
    }

    /// A node as seen from inside or outside a transaction.
    pub(super) fn node(&self, within: Option<Transaction>, path: &str) -> Option<&Node> {
        let open = within.and_then(|t| self.transactions.get(&t.0.get()));
        match open.and_then(|open| open.changes.get(path)) {
            Some(changed) => changed.as_ref(),
            None => self.nodes.get(path),
        }
    }

    /// All paths below this one.
    fn descendants(&self, within: Option<Transaction>, path: &str) -> Vec<String> {
        let (from, to) = below(path);
        let range = (Bound::Included(from), Bound::Excluded(to));
        let mut paths: Vec<String> =
            self.nodes.range(range.clone()).map(|(path, _)| path.clone()).collect();
        if let Some(open) = within.and_then(|t| self.transactions.get(&t.0.get())) {
            paths.retain(|path| !open.changes.contains_key(path));
            let changed = open.changes.range(range).filter(|(_, node)| node.is_some());
            paths.extend(changed.map(|(path, _)| path.clone()));
        }
        paths
    }

    /// Checks a permission; a missing node is `Denied` if the nearest directory that exists is
    /// closed too, and otherwise what `missing` says.
    fn check(
        &self,
        id: DomId,
        within: Option<Transaction>,
        path: &str,
        want: fn(Access) -> bool,
    ) -> Result<Option<&Node>, StoreError> {
        let mut at = path;
        loop {
            if let Some(node) = self.node(within, at) {
                return match want(node.perms.of_domain(id)) {
                    true => Ok((at == path).then_some(node)),
                    false => Err(StoreError::Denied),
                };
            }
            at = parent(at).ok_or(StoreError::NotFound)?;
        }
    }

    pub(super) fn read(
        &mut self,
        id: DomId,
        within: Option<Transaction>,
        path: &str,
    ) -> Result<Vec<u8>, StoreError> {
        self.touch(id, within, path)?;
        let node = self.check(id, within, path, |a| a.read)?.ok_or(StoreError::NotFound)?;
        Ok(node.value.clone())
    }

    pub(super) fn list(
        &mut self,
        id: DomId,
        within: Option<Transaction>,
        path: &str,
    ) -> Result<Vec<String>, StoreError> {
        self.touch(id, within, path)?;
        self.check(id, within, path, |a| a.read)?.ok_or(StoreError::NotFound)?;
        let skip = if path == "/" { 1 } else { path.len() + 1 };
        let paths = self.descendants(within, path);
        let names = paths.iter().map(|path| &path[skip..]).filter(|name| !name.contains('/'));
        Ok(names.map(str::to_owned).collect())
    }

    pub(super) fn perms(&self, id: DomId, path: &str) -> Result<Perms, StoreError> {
        let node = self.check(id, None, path, |a| a.read)?.ok_or(StoreError::NotFound)?;
        Ok(node.perms.clone())
    }

    pub(super) fn set_perms(
        &mut self,
        id: DomId,
        path: &str,
        perms: Perms,
    ) -> Result<Vec<u32>, StoreError> {
        let node = self.nodes.get_mut(path).ok_or(StoreError::NotFound)?;
        if id != DomId(0) && id != node.perms.owner {
            return Err(StoreError::Denied);
        }
        let value = node.value.clone();
        self.put(path, value, perms);
        Ok(self.watchers(path, None))
    }

    /// Writes a node; tells which watches fire.
    pub(super) fn write(
        &mut self,
        id: DomId,
        within: Option<Transaction>,
        path: &str,
        value: &[u8],
        now: Instant,
    ) -> Result<Vec<u32>, StoreError> {
        self.touch(id, within, path)?;
        if let Some(node) = self.check(id, within, path, |a| a.write)? {
            let perms = node.perms.clone();
            self.set(within, path, value.to_vec(), perms);
        } else {
            self.create(id, within, path, value)?;
        }
        Ok(self.done(
            id,
            within,
            Operation::Write(path.to_owned(), value.to_vec()),
            now,
            Vec::new(),
        ))
    }

    /// Makes a node and the directories above it that are missing.
    fn create(
        &mut self,
        id: DomId,
        within: Option<Transaction>,
        path: &str,
        value: &[u8],
    ) -> Result<(), StoreError> {
        let mut missing = vec![path];
        let perms = loop {
            let above = missing.last().and_then(|at| parent(at)).ok_or(StoreError::NotFound)?;
            match self.node(within, above) {
                Some(node) => break node.perms.clone(),
                None => missing.push(above),
            }
        };
        // Children inherit; what an unprivileged domain makes is its own.
        let perms = if id == DomId(0) { perms } else { Perms { owner: id, ..perms } };
        let uncommitted = self.uncommitted(within);
        if id != DomId(0) && self.owned(id) + uncommitted + missing.len() > MAX_NODES {
            return Err(StoreError::Quota);
        }
        for at in missing.into_iter().rev() {
            if let Some(above) = parent(at) {
                self.touch(id, within, above)?;
                self.bump(within, above);
            }
            let value = if at == path { value.to_vec() } else { Vec::new() };
            self.set(within, at, value, perms.clone());
        }
        Ok(())
    }

    /// How many nodes a transaction has made so far.
    fn uncommitted(&self, within: Option<Transaction>) -> usize {
        let open = within.and_then(|t| self.transactions.get(&t.0.get()));
        let new = |(path, node): &(&String, &Option<Node>)| node.is_some() && !self.exists(path);
        open.map_or(0, |open| open.changes.iter().filter(new).count())
    }

    /// Removes a node and all below; tells which watches fire.
    pub(super) fn remove(
        &mut self,
        id: DomId,
        within: Option<Transaction>,
        path: &str,
        now: Instant,
    ) -> Result<Vec<u32>, StoreError> {
        self.touch(id, within, path)?;
        self.check(id, within, path, |a| a.write)?.ok_or(StoreError::NotFound)?;
        let above = parent(path).ok_or(EINVAL)?;
        self.touch(id, within, above)?;
        let mut gone = self.descendants(within, path);
        gone.push(path.to_owned());
        let mut told = Vec::new();
        for at in &gone {
            if within.is_none() {
                let exact = at != path;
                told.extend(self.watchers(at, Some(exact)));
            }
            self.unset(within, at);
        }
        self.bump(within, above);
        Ok(self.done(id, within, Operation::Remove(path.to_owned()), now, told))
    }

    /// Notes an operation in its transaction, or in the trace and for the watches.
    fn done(
        &mut self,
        id: DomId,
        within: Option<Transaction>,
        operation: Operation,
        now: Instant,
        mut told: Vec<u32>,
    ) -> Vec<u32> {
        if let Some(transaction) = within {
            if let Some(open) = self.transactions.get_mut(&transaction.0.get()) {
                open.operations.push(operation);
            }
            return Vec::new();
        }
        let (path, value) = match operation {
            Operation::Write(path, value) => {
                told.extend(self.watchers(&path, None));
                (path, Some(value))
            }
            Operation::Remove(path) => (path, None),
        };
        if let Some(trace) = &mut self.trace {
            trace.push(Change { at: now, domain: id, path, value });
        }
        told.sort_unstable();
        told.dedup();
        told
    }

    /// Makes a directory with these permissions, as domain 0 does.
    pub(super) fn make(&mut self, path: &str, perms: Perms, now: Instant) -> Vec<u32> {
        let told = self.write(DomId(0), None, path, b"", now).unwrap_or_default();
        self.put(path, Vec::new(), perms);
        told
    }

    fn set(&mut self, within: Option<Transaction>, path: &str, value: Vec<u8>, perms: Perms) {
        let open = within.and_then(|t| self.transactions.get_mut(&t.0.get()));
        match open {
            Some(open) => {
                open.changes.insert(path.to_owned(), Some(Node { value, perms, generation: 0 }));
            }
            None => self.put(path, value, perms),
        }
    }

    fn put(&mut self, path: &str, value: Vec<u8>, perms: Perms) {
        self.generation += 1;
        *self.owned.entry(perms.owner.0).or_default() += 1;
        let node = Node { value, perms, generation: self.generation };
        if let Some(old) = self.nodes.insert(path.to_owned(), node) {
            self.disown(old.perms.owner);
        }
    }

    fn unset(&mut self, within: Option<Transaction>, path: &str) {
        let open = within.and_then(|t| self.transactions.get_mut(&t.0.get()));
        match open {
            Some(open) => {
                open.changes.insert(path.to_owned(), None);
            }
            None => {
                if let Some(old) = self.nodes.remove(path) {
                    self.disown(old.perms.owner);
                }
            }
        }
    }

    fn disown(&mut self, owner: DomId) {
        if let Some(count) = self.owned.get_mut(&owner.0) {
            *count = count.saturating_sub(1);
        }
    }

    /// The list of children of a node changes.
    fn bump(&mut self, within: Option<Transaction>, path: &str) {
        if within.is_none() {
            self.generation += 1;
            if let Some(node) = self.nodes.get_mut(path) {
                node.generation = self.generation;
            }
        }
    }
}
