//! The nodes, and what is done to them.

use alloc::borrow::ToOwned;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Bound;

use super::path::{absolute, below, home, parent};
use super::transaction::{Open, Operation};
use super::watch::WatchState;
use super::{Access, Change, Effects, Event, MAX_NODES, MAX_VALUE, Perms};
use crate::{StoreError, Transaction};

#[derive(Clone, Debug)]
pub(super) struct Node {
    value: Vec<u8>,
    pub(super) perms: Perms,
    /// When the node or its list of children last changed.
    pub(super) generation: u64,
}

/// All of xenstore, without anybody between it and its domains: each call says which domain makes it,
/// and what changes the tree tells what follows from it. No call blocks.
///
/// A path that does not begin with `/` is below the directory of the domain that asks. Domain 0 may do
/// anything, and has no quota.
pub struct Tree {
    nodes: BTreeMap<String, Node>,
    generation: u64,
    owned: BTreeMap<u16, usize>,
    pub(super) watches: BTreeMap<u32, WatchState>,
    pub(super) last_watch: u32,
    pub(super) transactions: BTreeMap<u32, Open>,
    pub(super) last_transaction: u32,
}

impl Default for Tree {
    /// A tree with a root and `/local/domain`, and nobody there.
    fn default() -> Tree {
        let mut tree = Tree {
            nodes: BTreeMap::new(),
            generation: 0,
            owned: BTreeMap::new(),
            watches: BTreeMap::new(),
            last_watch: 0,
            transactions: BTreeMap::new(),
            last_transaction: 0,
        };
        let perms = Perms { others: Access::READ, ..Perms::of(0) };
        for path in ["/", "/local", "/local/domain"] {
            tree.put(path, Vec::new(), perms.clone());
        }
        tree
    }
}

impl Tree {
    /// Makes a domain's home directory, if it has none.
    pub fn introduce(&mut self, domain: u16) -> Effects {
        let home = home(domain);
        if self.nodes.contains_key(&home) {
            return Effects::default();
        }
        let effects = self.write(0, None, &home, b"").unwrap_or_default();
        self.put(&home, Vec::new(), Perms::of(domain));
        effects
    }

    /// All nodes, in the order of their paths, and their values.
    pub fn values(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.nodes.iter().map(|(path, node)| (path.as_str(), node.value.as_slice()))
    }

    /// How many nodes a domain owns.
    pub fn owned(&self, domain: u16) -> usize {
        self.owned.get(&domain).copied().unwrap_or(0)
    }

    pub(super) fn owns(&self, domain: u16, path: &str) -> bool {
        self.nodes.get(path).is_some_and(|node| node.perms.owner == domain)
    }

    pub(super) fn generation_of(&self, path: &str) -> Option<u64> {
        self.nodes.get(path).map(|node| node.generation)
    }

    fn open(&self, within: Option<Transaction>) -> Option<&Open> {
        self.transactions.get(&within?.0.get())
    }

    fn open_mut(&mut self, within: Option<Transaction>) -> Option<&mut Open> {
        self.transactions.get_mut(&within?.0.get())
    }

    /// A node as seen from inside or outside a transaction.
    pub(super) fn node(&self, within: Option<Transaction>, path: &str) -> Option<&Node> {
        match self.open(within).and_then(|open| open.changes.get(path)) {
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
        if let Some(open) = self.open(within) {
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
        domain: u16,
        within: Option<Transaction>,
        path: &str,
        want: fn(Access) -> bool,
    ) -> Result<Option<&Node>, StoreError> {
        let mut at = path;
        loop {
            if let Some(node) = self.node(within, at) {
                return match want(node.perms.of_domain(domain)) {
                    true => Ok((at == path).then_some(node)),
                    false => Err(StoreError::Denied),
                };
            }
            at = parent(at).ok_or(StoreError::NotFound)?;
        }
    }

    /// The value of a node.
    pub fn read(
        &mut self,
        domain: u16,
        within: Option<Transaction>,
        path: &str,
    ) -> Result<Vec<u8>, StoreError> {
        let path = absolute(domain, path)?;
        self.touch(domain, within, &path)?;
        let node = self.check(domain, within, &path, |a| a.read)?.ok_or(StoreError::NotFound)?;
        Ok(node.value.clone())
    }

    /// The names of a node's children.
    pub fn list(
        &mut self,
        domain: u16,
        within: Option<Transaction>,
        path: &str,
    ) -> Result<Vec<String>, StoreError> {
        let path = absolute(domain, path)?;
        self.touch(domain, within, &path)?;
        self.check(domain, within, &path, |a| a.read)?.ok_or(StoreError::NotFound)?;
        let skip = if path == "/" { 1 } else { path.len() + 1 };
        let paths = self.descendants(within, &path);
        let names = paths.iter().filter_map(|path| path.get(skip..));
        Ok(names.filter(|name| !name.contains('/')).map(str::to_owned).collect())
    }

    /// A node's owner and permissions.
    pub fn perms(&self, domain: u16, path: &str) -> Result<Perms, StoreError> {
        let path = absolute(domain, path)?;
        let node = self.check(domain, None, &path, |a| a.read)?.ok_or(StoreError::NotFound)?;
        Ok(node.perms.clone())
    }

    /// Sets a node's owner and permissions; only its owner and domain 0 may.
    pub fn set_perms(
        &mut self,
        domain: u16,
        path: &str,
        perms: Perms,
    ) -> Result<Effects, StoreError> {
        let path = absolute(domain, path)?;
        let node = self.nodes.get(&path).ok_or(StoreError::NotFound)?;
        if domain != 0 && domain != node.perms.owner {
            return Err(StoreError::Denied);
        }
        let value = node.value.clone();
        self.put(&path, value, perms);
        Ok(Effects { changes: Vec::new(), events: self.watchers(&path, None) })
    }

    /// Sets a node, making it and its parents where missing.
    pub fn write(
        &mut self,
        domain: u16,
        within: Option<Transaction>,
        path: &str,
        value: &[u8],
    ) -> Result<Effects, StoreError> {
        let path = absolute(domain, path)?;
        if value.len() > MAX_VALUE {
            return Err(StoreError::Quota);
        }
        self.touch(domain, within, &path)?;
        if self.check(domain, within, &path, |a| a.write)?.is_none() && domain != 0 {
            let missing = core::iter::successors(Some(&*path), |at| parent(at));
            let missing = missing.take_while(|at| self.node(within, at).is_none()).count();
            if self.owned(domain) + self.uncommitted(within) + missing > MAX_NODES {
                return Err(StoreError::Quota);
            }
        }
        self.put_node(domain, within, &path, value)
    }

    /// Writes a node, which is allowed.
    pub(super) fn put_node(
        &mut self,
        domain: u16,
        within: Option<Transaction>,
        path: &str,
        value: &[u8],
    ) -> Result<Effects, StoreError> {
        match self.node(within, path) {
            Some(node) => {
                let perms = node.perms.clone();
                self.set(within, path, value.to_vec(), perms);
            }
            None => self.create(domain, within, path, value)?,
        }
        let operation = Operation::Write(path.to_owned(), value.to_vec());
        Ok(self.done(within, operation, Vec::new()))
    }

    /// Makes a node and the directories above it that are missing.
    fn create(
        &mut self,
        domain: u16,
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
        let perms = if domain == 0 { perms } else { Perms { owner: domain, ..perms } };
        for at in missing.into_iter().rev() {
            if let Some(above) = parent(at) {
                self.touch(domain, within, above)?;
                self.bump(within, above);
            }
            let value = if at == path { value.to_vec() } else { Vec::new() };
            self.set(within, at, value, perms.clone());
        }
        Ok(())
    }

    /// How many nodes a transaction has made so far.
    fn uncommitted(&self, within: Option<Transaction>) -> usize {
        let new = |(path, node): &(&String, &Option<Node>)| {
            node.is_some() && !self.nodes.contains_key(*path)
        };
        self.open(within).map_or(0, |open| open.changes.iter().filter(new).count())
    }

    /// Removes a node and all below.
    pub fn remove(
        &mut self,
        domain: u16,
        within: Option<Transaction>,
        path: &str,
    ) -> Result<Effects, StoreError> {
        let path = absolute(domain, path)?;
        self.touch(domain, within, &path)?;
        self.check(domain, within, &path, |a| a.write)?.ok_or(StoreError::NotFound)?;
        self.cut(domain, within, &path)
    }

    /// Removes a node that is there, which is allowed.
    pub(super) fn cut(
        &mut self,
        domain: u16,
        within: Option<Transaction>,
        path: &str,
    ) -> Result<Effects, StoreError> {
        let above = parent(path).ok_or(StoreError::INVALID)?;
        self.touch(domain, within, above)?;
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
        Ok(self.done(within, Operation::Remove(path.to_owned()), told))
    }

    /// Notes an operation in its transaction, or says what follows from it.
    fn done(
        &mut self,
        within: Option<Transaction>,
        operation: Operation,
        mut events: Vec<Event>,
    ) -> Effects {
        if within.is_some() {
            if let Some(open) = self.open_mut(within) {
                open.operations.push(operation);
            }
            return Effects::default();
        }
        let change = match operation {
            Operation::Write(path, value) => {
                events.extend(self.watchers(&path, None));
                Change { path, value: Some(value) }
            }
            Operation::Remove(path) => Change { path, value: None },
        };
        let mut effects = Effects { changes: vec![change], events };
        effects.tell_each_once();
        effects
    }

    fn set(&mut self, within: Option<Transaction>, path: &str, value: Vec<u8>, perms: Perms) {
        match self.open_mut(within) {
            Some(open) => {
                open.changes.insert(path.to_owned(), Some(Node { value, perms, generation: 0 }));
            }
            None => self.put(path, value, perms),
        }
    }

    fn put(&mut self, path: &str, value: Vec<u8>, perms: Perms) {
        self.generation += 1;
        *self.owned.entry(perms.owner).or_default() += 1;
        let node = Node { value, perms, generation: self.generation };
        if let Some(old) = self.nodes.insert(path.to_owned(), node) {
            self.disown(old.perms.owner);
        }
    }

    fn unset(&mut self, within: Option<Transaction>, path: &str) {
        match self.open_mut(within) {
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

    fn disown(&mut self, owner: u16) {
        if let Some(count) = self.owned.get_mut(&owner) {
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

impl core::fmt::Debug for Tree {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Tree")
            .field("nodes", &self.nodes.len())
            .field("watches", &self.watches.len())
            .field("transactions", &self.transactions.len())
            .finish_non_exhaustive()
    }
}
