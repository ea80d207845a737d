//! Transactions, optimistic as xenstored's: changes stay private until the end, and the end fails
//! with `EAGAIN` if any node that was looked at has changed meanwhile.

use alloc::borrow::ToOwned;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::num::NonZeroU32;

use super::quota::SPOILED;
use super::tree::{Node, Tree};
use super::{Effects, Perms};
use crate::{StoreError, Transaction};

/// What a transaction did, to be done again on the live tree.
#[derive(Debug)]
pub(super) enum Operation {
    Write(String, Vec<u8>),
    Remove(String),
    Perms(String, Perms),
}

/// An open transaction.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) domain: u16,
    /// The nodes it has looked at or changed, with their generation at that time.
    seen: BTreeMap<String, Option<u64>>,
    /// The nodes it has changed; `None`: removed.
    pub(super) changes: BTreeMap<String, Option<Node>>,
    pub(super) operations: Vec<Operation>,
    /// A write was refused for want of quota: it can only be aborted.
    spoiled: bool,
    /// It has made a node, be it one that it has removed again.
    pub(super) made: bool,
}

impl Tree {
    /// Notes that a transaction depends on a node. Fails if the transaction is not there.
    pub(super) fn touch(
        &mut self,
        domain: u16,
        within: Option<Transaction>,
        path: &str,
    ) -> Result<(), StoreError> {
        let Some(transaction) = within else { return Ok(()) };
        let (generation, most) = (self.generation_of(path), self.quota.transaction_nodes);
        match self.transactions.get_mut(&transaction.0.get()) {
            Some(open) if open.domain == domain => {
                if domain != 0 && open.seen.len() >= most && !open.seen.contains_key(path) {
                    return Err(StoreError::Quota);
                }
                open.seen.entry(path.to_owned()).or_insert(generation);
                Ok(())
            }
            Some(_) | None => Err(StoreError::NotFound),
        }
    }

    /// How many transactions a domain has open.
    pub fn transactions_of(&self, domain: u16) -> usize {
        self.transactions.values().filter(|open| open.domain == domain).count()
    }

    /// Begins a transaction.
    pub fn begin(&mut self, domain: u16) -> Result<Transaction, StoreError> {
        if domain != 0 && self.transactions_of(domain) >= self.quota.transactions {
            return Err(StoreError::Quota);
        }
        self.last_transaction = self.last_transaction.wrapping_add(1).max(1);
        let id = NonZeroU32::new(self.last_transaction).unwrap_or(NonZeroU32::MIN);
        let open = Open {
            domain,
            seen: BTreeMap::new(),
            changes: BTreeMap::new(),
            operations: Vec::new(),
            spoiled: false,
            made: false,
        };
        self.transactions.insert(id.get(), open);
        Ok(Transaction(id))
    }

    fn take(&mut self, domain: u16, transaction: Transaction) -> Result<Open, StoreError> {
        let number = transaction.0.get();
        let mine = self.transactions.get(&number).is_some_and(|open| open.domain == domain);
        let open = if mine { self.transactions.remove(&number) } else { None };
        open.ok_or(StoreError::NotFound)
    }

    /// A write was refused within this transaction.
    pub(super) fn spoil(&mut self, within: Option<Transaction>) {
        if let Some(open) = self.open_mut(within) {
            open.spoiled = true;
        }
    }

    /// Ends a transaction: all that it did is done, or nothing and [`StoreError::Again`]. One that has
    /// made nodes ends in [`StoreError::Quota`] if the domain would own as many as its quota, which
    /// outside of a transaction it may; one in which a write was refused, in `ENOMEM`.
    pub fn commit(&mut self, domain: u16, transaction: Transaction) -> Result<Effects, StoreError> {
        let open = self.take(domain, transaction)?;
        if open.spoiled {
            return Err(SPOILED);
        }
        if domain != 0 && open.made && self.owned_after(domain, &open) >= self.quota.nodes {
            return Err(StoreError::Quota);
        }
        if open.seen.iter().any(|(path, seen)| self.generation_of(path) != *seen) {
            return Err(StoreError::Again);
        }
        let mut effects = Effects::default();
        for operation in open.operations {
            // It was allowed inside, and nothing it depends on has changed.
            effects.extend(match operation {
                Operation::Write(path, value) => self.put_node(domain, None, &path, &value)?,
                Operation::Remove(path) => self.cut(domain, None, &path)?,
                Operation::Perms(path, perms) => self.permit(None, &path, perms),
            });
        }
        Ok(effects)
    }

    /// How many nodes a domain owns, as seen from inside or outside a transaction.
    pub(super) fn owned_within(&self, domain: u16, within: Option<Transaction>) -> usize {
        self.open(within).map_or(self.owned(domain), |open| self.owned_after(domain, open))
    }

    /// How many nodes the domain would own after a transaction.
    fn owned_after(&self, domain: u16, open: &Open) -> usize {
        let ours = |node: &Option<Node>| node.as_ref().is_some_and(|n| n.perms.owner == domain);
        let (mut made, mut gone) = (0, 0);
        for (path, node) in &open.changes {
            match (self.owns(domain, path), ours(node)) {
                (false, true) => made += 1,
                (true, false) => gone += 1,
                (true, true) | (false, false) => {}
            }
        }
        (self.owned(domain) + made).saturating_sub(gone)
    }

    /// Ends a transaction and forgets what it did. [`StoreError::NotFound`] if it is not there.
    pub fn abort(&mut self, domain: u16, transaction: Transaction) -> Result<(), StoreError> {
        self.take(domain, transaction).map(drop)
    }
}
