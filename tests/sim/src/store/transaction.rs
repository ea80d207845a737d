//! Transactions, optimistic as xenstored's: changes stay private until the end, and the end fails
//! with `EAGAIN` if any node that was looked at has changed meanwhile.

use std::collections::BTreeMap;

use xen_grant::DomId;
use xen_netfront::platform::Instant;
use xen_netfront::store::{StoreError, Transaction};

use super::tree::{Node, StoreState};
use super::{MAX_TRANSACTIONS, transaction};

/// What a transaction did, to be done again on the live tree.
pub(super) enum Operation {
    Write(String, Vec<u8>),
    Remove(String),
}

/// An open transaction.
pub(super) struct Open {
    domain: DomId,
    /// The nodes it has looked at or changed, with their generation at that time.
    seen: BTreeMap<String, Option<u64>>,
    /// The nodes it has changed; `None`: removed.
    pub(super) changes: BTreeMap<String, Option<Node>>,
    pub(super) operations: Vec<Operation>,
}

impl StoreState {
    /// Notes that a transaction depends on a node. Fails if the transaction is not there.
    pub(super) fn touch(
        &mut self,
        id: DomId,
        within: Option<Transaction>,
        path: &str,
    ) -> Result<(), StoreError> {
        let Some(transaction) = within else { return Ok(()) };
        let generation = self.nodes.get(path).map(|node| node.generation);
        match self.transactions.get_mut(&transaction.0.get()) {
            Some(open) if open.domain == id => {
                open.seen.entry(path.to_owned()).or_insert(generation);
                Ok(())
            }
            Some(_) | None => Err(StoreError::NotFound),
        }
    }

    pub(super) fn transactions_of(&self, id: DomId) -> usize {
        self.transactions.values().filter(|open| open.domain == id).count()
    }

    pub(super) fn begin(&mut self, id: DomId) -> Result<Transaction, StoreError> {
        if id != DomId(0) && self.transactions_of(id) >= MAX_TRANSACTIONS {
            return Err(StoreError::Quota);
        }
        self.last_transaction = self.last_transaction.wrapping_add(1).max(1);
        let begun = transaction(self.last_transaction).ok_or(StoreError::Quota)?;
        let open = Open {
            domain: id,
            seen: BTreeMap::new(),
            changes: BTreeMap::new(),
            operations: Vec::new(),
        };
        self.transactions.insert(self.last_transaction, open);
        Ok(begun)
    }

    fn take(&mut self, id: DomId, transaction: Transaction) -> Result<Open, StoreError> {
        let number = transaction.0.get();
        match self.transactions.get(&number) {
            Some(open) if open.domain == id => {
                self.transactions.remove(&number).ok_or(StoreError::NotFound)
            }
            Some(_) | None => Err(StoreError::NotFound),
        }
    }

    /// Ends a transaction; tells which watches fire. `refuse` makes it a conflict anyway.
    pub(super) fn commit(
        &mut self,
        id: DomId,
        transaction: Transaction,
        refuse: bool,
        now: Instant,
    ) -> Result<Vec<u32>, StoreError> {
        let open = self.take(id, transaction)?;
        let current = |path: &String| self.nodes.get(path).map(|node| node.generation);
        if refuse || open.seen.iter().any(|(path, seen)| current(path) != *seen) {
            return Err(StoreError::Again);
        }
        let mut told = Vec::new();
        for operation in open.operations {
            // It was allowed inside, and nothing it depends on has changed.
            told.extend(match operation {
                Operation::Write(path, value) => self.write(id, None, &path, &value, now)?,
                Operation::Remove(path) => self.remove(id, None, &path, now)?,
            });
        }
        told.sort_unstable();
        told.dedup();
        Ok(told)
    }

    pub(super) fn abort(&mut self, id: DomId, transaction: Transaction) {
        drop(self.take(id, transaction));
    }

    /// Forgets what a dead domain had open.
    pub(super) fn forget(&mut self, id: DomId) {
        self.transactions.retain(|_, open| open.domain != id);
        self.watches.retain(|_, watch| watch.domain != id);
    }
}
