//! Transactions, optimistic as xenstored's: changes stay private until the end, and the end fails
//! with `EAGAIN` if any node that was looked at has changed meanwhile.

use alloc::borrow::ToOwned;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::num::NonZeroU32;

use super::tree::{Node, Tree};
use super::{Effects, MAX_NODES, MAX_TRANSACTIONS};
use crate::{StoreError, Transaction};

/// What a transaction did, to be done again on the live tree.
#[derive(Debug)]
pub(super) enum Operation {
    Write(String, Vec<u8>),
    Remove(String),
}

/// An open transaction.
#[derive(Debug)]
pub(super) struct Open {
    domain: u16,
    /// The nodes it has looked at or changed, with their generation at that time.
    seen: BTreeMap<String, Option<u64>>,
    /// The nodes it has changed; `None`: removed.
    pub(super) changes: BTreeMap<String, Option<Node>>,
    pub(super) operations: Vec<Operation>,
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
        let generation = self.generation_of(path);
        match self.transactions.get_mut(&transaction.0.get()) {
            Some(open) if open.domain == domain => {
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
        if domain != 0 && self.transactions_of(domain) >= MAX_TRANSACTIONS {
            return Err(StoreError::Quota);
        }
        self.last_transaction = self.last_transaction.wrapping_add(1).max(1);
        let id = NonZeroU32::new(self.last_transaction).unwrap_or(NonZeroU32::MIN);
        let open = Open {
            domain,
            seen: BTreeMap::new(),
            changes: BTreeMap::new(),
            operations: Vec::new(),
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

    /// Ends a transaction: all that it did is done, or nothing and [`StoreError::Again`], or
    /// [`StoreError::Quota`] if the domain has made nodes outside of it meanwhile.
    pub fn commit(&mut self, domain: u16, transaction: Transaction) -> Result<Effects, StoreError> {
        let open = self.take(domain, transaction)?;
        if open.seen.iter().any(|(path, seen)| self.generation_of(path) != *seen) {
            return Err(StoreError::Again);
        }
        if domain != 0 && self.owned_after(domain, &open) > MAX_NODES {
            return Err(StoreError::Quota);
        }
        let mut effects = Effects::default();
        for operation in open.operations {
            // It was allowed inside, and nothing it depends on has changed.
            effects.extend(match operation {
                Operation::Write(path, value) => self.put_node(domain, None, &path, &value)?,
                Operation::Remove(path) => self.cut(domain, None, &path)?,
            });
        }
        Ok(effects)
    }

    /// How many nodes the domain would own after a transaction.
    fn owned_after(&self, domain: u16, open: &Open) -> usize {
        let made = |(path, node): &(&String, &Option<Node>)| {
            node.as_ref().is_some_and(|node| node.perms.owner == domain) && !self.owns(domain, path)
        };
        let gone =
            |(path, node): &(&String, &Option<Node>)| node.is_none() && self.owns(domain, path);
        let (made, gone) =
            (open.changes.iter().filter(made).count(), open.changes.iter().filter(gone).count());
        (self.owned(domain) + made).saturating_sub(gone)
    }

    /// Ends a transaction and forgets what it did. [`StoreError::NotFound`] if it is not there.
    pub fn abort(&mut self, domain: u16, transaction: Transaction) -> Result<(), StoreError> {
        self.take(domain, transaction).map(drop)
    }

    /// Forgets what a dead domain had open, and tells which watches fire (`@releaseDomain`). Its nodes
    /// stay until the toolstack removes them.
    pub fn release(&mut self, domain: u16) -> Effects {
        self.transactions.retain(|_, open| open.domain != domain);
        self.watches.retain(|_, watch| watch.domain != domain);
        Effects { changes: Vec::new(), events: self.watchers_of_special("@releaseDomain") }
    }
}
