//! The nodes, and what is done to them.

use alloc::borrow::ToOwned;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Bound;

use super::path::{absolute, below, parent};
use super::transaction::{Open, Operation};
use super::watch::WatchState;
use super::{Access, Change, Effects, Event, Perms, Quota};
use crate::wire::MAX_PAYLOAD;
use crate::{StoreError, Transaction};

#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) value: Vec<u8>,
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
    pub(super) nodes: BTreeMap<String, Node>,
    generation: u64,
    owned: BTreeMap<u16, usize>,
    pub(super) quota: Quota,
    /// The domains that there are.
    pub(super) introduced: BTreeSet<u16>,
    pub(super) watches: BTreeMap<u32, WatchState>,
    pub(super) last_watch: u32,
    pub(super) transactions: BTreeMap<u32, Open>,
    pub(super) last_transaction: u32,
}

impl Default for Tree {
    /// A tree with a root and `/local/domain`, domain 0's, and nobody there.
    fn default() -> Tree {
        let mut tree = Tree {
            nodes: BTreeMap::new(),
            generation: 0,
            owned: BTreeMap::new(),
            quota: Quota::default(),
            introduced: BTreeSet::new(),
            watches: BTreeMap::new(),
            last_watch: 0,
            transactions: BTreeMap::new(),
            last_transaction: 0,
        };
        for path in ["/", "/local", "/local/domain"] {
            tree.put(path, Vec::new(), Perms::of(0));
        }
        tree
    }
}

impl Tree {
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

    pub(super) fn open(&self, within: Option<Transaction>) -> Option<&Open> {
        self.transactions.get(&within?.0.get())
    }

    pub(super) fn open_mut(&mut self, within: Option<Transaction>) -> Option<&mut Open> {
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

    /// The names right below a path.
    pub(super) fn children(&self, within: Option<Transaction>, path: &str) -> Vec<String> {
        let skip = if path == "/" { 1 } else { path.len() + 1 };
        let paths = self.descendants(within, path);
        let names = paths.iter().filter_map(|path| path.get(skip..));
        names.filter(|name| !name.contains('/')).map(str::to_owned).collect()
    }

    /// What the names right below a path take up in its entry, a zero for each.
    pub(super) fn names_len(&self, within: Option<Transaction>, path: &str) -> usize {
        let skip = if path == "/" { 1 } else { path.len() + 1 };
        let (from, to) = below(path);
        let range = (Bound::Included(from), Bound::Excluded(to));
        let len = |path: &String| match path.get(skip..) {
            Some(name) if !name.contains('/') => name.len() + 1,
            Some(_) | None => 0,
        };
        let live = self.nodes.range(range.clone()).map(|(path, _)| path);
        let Some(open) = self.open(within) else { return live.map(len).sum() };
        let kept = live.filter(|path| !open.changes.contains_key(*path));
        let changed = open.changes.range(range).filter(|(_, node)| node.is_some());
        kept.chain(changed.map(|(path, _)| path)).map(len).sum()
    }

    /// The nodes that are to be made so that there is one at this path, the lowest first.
    pub(super) fn missing<'a>(&self, within: Option<Transaction>, path: &'a str) -> Vec<&'a str> {
        let upward = core::iter::successors(Some(path), |at| parent(at));
        upward.take_while(|at| self.node(within, at).is_none()).collect()
    }

    /// The lowest directory above a path that is there.
    pub(super) fn nearest(
        &self,
        within: Option<Transaction>,
        path: &str,
    ) -> Option<(String, &Node)> {
        let mut upward = core::iter::successors(parent(path), |at| parent(at));
        upward.find_map(|at| Some((at.to_owned(), self.node(within, at)?)))
    }

    /// Whether a node is there, on which the domain may do this. A missing one is
    /// [`StoreError::Denied`] if the lowest directory above it does not permit that either: nobody
    /// learns what is not his to know.
    ///
    /// A transaction depends on all that was looked at, the directories above a missing node too.
    fn check(
        &mut self,
        domain: u16,
        within: Option<Transaction>,
        path: &str,
        want: fn(Access) -> bool,
    ) -> Result<bool, StoreError> {
        let mut at = path;
        loop {
            self.touch(domain, within, at)?;
            if let Some(node) = self.node(within, at) {
                let allowed = want(node.perms.of_domain(domain));
                return if allowed { Ok(at == path) } else { Err(StoreError::Denied) };
            }
            at = parent(at).ok_or(StoreError::NotFound)?;
        }
    }

    /// A node that is there, on which the domain may do this.
    fn permitted(
        &mut self,
        domain: u16,
        within: Option<Transaction>,
        path: &str,
        want: fn(Access) -> bool,
    ) -> Result<&Node, StoreError> {
        self.check(domain, within, path, want)?;
        self.node(within, path).ok_or(StoreError::NotFound)
    }

    /// The value of a node.
    pub fn read(
        &mut self,
        domain: u16,
        within: Option<Transaction>,
        path: &str,
    ) -> Result<Vec<u8>, StoreError> {
        let path = absolute(domain, path)?;
        Ok(self.permitted(domain, within, &path, |a| a.read)?.value.clone())
    }

    /// The names of a node's children.
    pub fn list(
        &mut self,
        domain: u16,
        within: Option<Transaction>,
        path: &str,
    ) -> Result<Vec<String>, StoreError> {
        let path = absolute(domain, path)?;
        self.permitted(domain, within, &path, |a| a.read)?;
        Ok(self.children(within, &path))
    }

    /// A node's owner and permissions.
    pub fn perms(&mut self, domain: u16, path: &str) -> Result<Perms, StoreError> {
        let path = absolute(domain, path)?;
        Ok(self.permitted(domain, None, &path, |a| a.read)?.perms.clone())
    }

    /// Sets a node's permissions; only its owner and domain 0 may, and only domain 0 its owner.
    pub fn set_perms(
        &mut self,
        domain: u16,
        within: Option<Transaction>,
        path: &str,
        perms: Perms,
    ) -> Result<Effects, StoreError> {
        let path = absolute(domain, path)?;
        let privileged = domain == 0;
        if !privileged && perms.grants.len() >= self.quota.perms {
            return Err(StoreError::Quota);
        }
        let node = self.permitted(domain, within, &path, |a| a.write)?;
        let owner = node.perms.owner;
        if !privileged && (owner != domain || perms.owner != owner) {
            return Err(StoreError::Denied);
        }
        let value = node.value.len();
        let entry = self.entry(within, &path, &perms, value);
        self.afford_entry(domain, within, entry)?;
        Ok(self.permit(within, &path, perms))
    }

    /// Sets a node's permissions, which is allowed.
    pub(super) fn permit(
        &mut self,
        within: Option<Transaction>,
        path: &str,
        perms: Perms,
    ) -> Effects {
        let Some(node) = self.node(within, path).cloned() else { return Effects::default() };
        self.set(within, path, node.value, perms.clone());
        match self.open_mut(within) {
            Some(open) => {
                open.operations.push(Operation::Perms(path.to_owned(), perms));
                Effects::default()
            }
            None => Effects {
                changes: Vec::new(),
                events: self.watchers(path, false, Some(&node.perms)),
            },
        }
    }

    /// Sets a node, making it and its parents where missing.
    pub fn write(
        &mut self,
        domain: u16,
        within: Option<Transaction>,
        path: &str,
        value: &[u8],
    ) -> Result<Effects, StoreError> {
        if path.len() + 1 + value.len() > MAX_PAYLOAD {
            return Err(StoreError::Quota);
        }
        let path = absolute(domain, path)?;
        match self.check(domain, within, &path, |a| a.write)? {
            true => self.afford_value(domain, within, &path, value.len())?,
            false => self.afford_new(domain, within, &path, value.len())?,
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
        let (_, above) = self.nearest(within, path).ok_or(StoreError::NotFound)?;
        let perms = above.perms.clone();
        // Children inherit; what an unprivileged domain makes is its own.
        let perms = if domain == 0 { perms } else { Perms { owner: domain, ..perms } };
        for at in self.missing(within, path).into_iter().rev() {
            if let Some(above) = parent(at) {
                self.touch(domain, within, above)?;
                self.bump(within, above);
            }
            let value = if at == path { value.to_vec() } else { Vec::new() };
            self.set(within, at, value, perms.clone());
        }
        if let Some(open) = self.open_mut(within) {
            open.made = true;
        }
        Ok(())
    }

    /// Removes a node and all below, whoever's that is. Who may write the node may, whatever the
    /// directory permits that it is in. One that is not there is fine if its directory is.
    pub fn remove(
        &mut self,
        domain: u16,
        within: Option<Transaction>,
        path: &str,
    ) -> Result<Effects, StoreError> {
        let path = absolute(domain, path)?;
        if self.check(domain, within, &path, |a| a.write)? {
            return self.cut(domain, within, &path);
        }
        match parent(&path).is_some_and(|above| self.node(within, above).is_some()) {
            true => Ok(Effects::default()),
            false => Err(StoreError::NotFound),
        }
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
        let mut told = Vec::new();
        // The lowest first, while what is above still says who may know.
        let below = self.descendants(within, path);
        for at in below.iter().rev().map(String::as_str).chain([path]) {
            self.touch(domain, within, at)?;
            if within.is_none() {
                told.extend(self.watchers(at, at != path, None));
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
                events.extend(self.watchers(&path, false, None));
                Change { path, value: Some(value) }
            }
            Operation::Remove(path) => Change { path, value: None },
            Operation::Perms(..) => return Effects { changes: Vec::new(), events },
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
