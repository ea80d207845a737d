//! Xenstore as a driver sees it.

use alloc::string::String;
use alloc::vec::Vec;
use core::num::NonZeroU32;

use crate::{Changes, StoreError};

/// A transaction that has begun: a store makes one of its id, which is never 0 (0 on the wire means
/// "no transaction").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transaction(pub NonZeroU32);

/// A watch that has been set: a store makes one of a number of its own. It means something only to the
/// store that set it.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Watch(pub u32);

/// Xenstore: a tree of small values shared by all domains.
///
/// A path that does not start with `/` is below our own domain's directory. Values come from peers:
/// treat them as hostile bytes. A value longer than 4096 bytes does not fit xenstore's protocol, and
/// one above some 2000 is more than xenstored keeps: [`StoreError::Quota`].
///
/// Calls may block until xenstored has answered, but none for ever ([`StoreError::TimedOut`]), and may
/// allocate. Each is one round trip but [`fired`](Store::fired) and [`changes`](Store::changes), which are
/// none and do not block, and [`list`](Store::list), which takes more where a directory is longer than a
/// message. The packet
/// path makes no call; none may be made in an interrupt.
pub trait Store {
    /// The value of a node.
    fn read(&self, within: Option<Transaction>, path: &str) -> Result<Vec<u8>, StoreError>;

    /// Sets a node, making it and its parents where missing.
    fn write(
        &self,
        within: Option<Transaction>,
        path: &str,
        value: &[u8],
    ) -> Result<(), StoreError>;

    /// The names of a node's children.
    fn list(&self, within: Option<Transaction>, path: &str) -> Result<Vec<String>, StoreError>;

    /// Removes a node and everything below it. One that is not there is [`StoreError::NotFound`], or
    /// fine if the directory it would be in is there.
    fn remove(&self, within: Option<Transaction>, path: &str) -> Result<(), StoreError>;

    /// Begins a transaction.
    fn begin(&self) -> Result<Transaction, StoreError>;

    /// Ends a transaction: keeps what it did, or [`StoreError::Again`] and nothing was done. It has
    /// ended whatever comes back.
    fn commit(&self, transaction: Transaction) -> Result<(), StoreError>;

    /// Ends a transaction and forgets what it did.
    fn abort(&self, transaction: Transaction);

    /// Sets a watch on a node and everything below it. It has fired as soon as it is set, maybe
    /// twice: once by this contract, and once by an event of xenstored's own.
    ///
    /// The implementation keeps it alive over suspend, and remembers at most one event for it:
    /// however often a peer writes, a watch costs a bit.
    fn watch(&self, path: &str) -> Result<Watch, StoreError>;

    /// Sets a watch, like [`watch`](Store::watch), that remembers where below the node something has
    /// changed: paths of at most `depth` names, a bounded number of them. One watch serves for a
    /// directory of many things.
    fn watch_below(&self, path: &str, depth: usize) -> Result<Watch, StoreError>;

    /// Sets one more watch whose events count as events of `watch`, at `place`: with it many watches, of as
    /// many paths, are asked for [`changes`](Store::changes) at once. Taken away it is like any other; asked
    /// for itself it has never fired.
    fn watch_also(&self, watch: &Watch, path: &str, place: &str) -> Result<Watch, StoreError>;

    /// Takes a watch away.
    fn unwatch(&self, watch: Watch);

    /// Whether the watch has fired since this was last asked.
    fn fired(&self, watch: &Watch) -> bool;

    /// Where something has changed since this, or [`fired`](Store::fired), was last asked. A watch that
    /// remembers no places says [`Changes::Anywhere`].
    fn changes(&self, watch: &Watch) -> Changes;
}

/// A store that is lent: each call goes to it.
impl<S: Store + ?Sized> Store for &S {
    fn read(&self, within: Option<Transaction>, path: &str) -> Result<Vec<u8>, StoreError> {
        S::read(self, within, path)
    }

    fn write(
        &self,
        within: Option<Transaction>,
        path: &str,
        value: &[u8],
    ) -> Result<(), StoreError> {
        S::write(self, within, path, value)
    }

    fn list(&self, within: Option<Transaction>, path: &str) -> Result<Vec<String>, StoreError> {
        S::list(self, within, path)
    }

    fn remove(&self, within: Option<Transaction>, path: &str) -> Result<(), StoreError> {
        S::remove(self, within, path)
    }

    fn begin(&self) -> Result<Transaction, StoreError> {
        S::begin(self)
    }

    fn commit(&self, transaction: Transaction) -> Result<(), StoreError> {
        S::commit(self, transaction)
    }

    fn abort(&self, transaction: Transaction) {
        S::abort(self, transaction);
    }

    fn watch(&self, path: &str) -> Result<Watch, StoreError> {
        S::watch(self, path)
    }

    fn watch_below(&self, path: &str, depth: usize) -> Result<Watch, StoreError> {
        S::watch_below(self, path, depth)
    }

    fn watch_also(&self, watch: &Watch, path: &str, place: &str) -> Result<Watch, StoreError> {
        S::watch_also(self, watch, path, place)
    }

    fn unwatch(&self, watch: Watch) {
        S::unwatch(self, watch);
    }

    fn fired(&self, watch: &Watch) -> bool {
        S::fired(self, watch)
    }

    fn changes(&self, watch: &Watch) -> Changes {
        S::changes(self, watch)
    }
}
