//! Xenstore as the driver sees it.

use alloc::string::String;
use alloc::vec::Vec;

/// Why xenstore refused (the errno names of xen/io/xs_wire.h, as far as a driver tells them apart).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreError {
    /// `ENOENT`: no such node.
    NotFound,
    /// `EACCES` or `EPERM`: not ours to touch.
    Denied,
    /// `EAGAIN`: the transaction met another one; run it again.
    Again,
    /// `ENOSPC`, `EQUOTA` or `E2BIG`: over this domain's quota, or longer than xenstore carries.
    Quota,
    /// Any other errno, or an answer that made no sense (0).
    Other(u32),
}

impl core::fmt::Display for StoreError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            StoreError::NotFound => f.write_str("no such xenstore node"),
            StoreError::Denied => f.write_str("xenstore permission denied"),
            StoreError::Again => f.write_str("xenstore transaction must be retried"),
            StoreError::Quota => f.write_str("xenstore quota or size limit reached"),
            StoreError::Other(errno) => write!(f, "xenstore error {errno}"),
        }
    }
}

impl core::error::Error for StoreError {}

/// A transaction that has begun: a store makes one of its id, which is never 0 (0 on the wire means
/// "no transaction").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transaction(pub core::num::NonZeroU32);

/// A watch that has been set: a store makes one of a number of its own. It means something only to the
/// store that set it.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Watch(pub u32);

/// Xenstore: a tree of small values shared by all domains.
///
/// A path that does not start with `/` is below our own domain's directory. Calls may block until
/// xenstored has answered; the packet path makes none. Values come from peers: treat them as
/// hostile bytes. A value longer than 4096 bytes does not fit xenstore's protocol, and one above
/// some 2000 is more than xenstored keeps: [`StoreError::Quota`].
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

    /// Removes a node and everything below it. [`StoreError::NotFound`] if it is not there.
    fn remove(&self, within: Option<Transaction>, path: &str) -> Result<(), StoreError>;

    /// Begins a transaction.
    fn begin(&self) -> Result<Transaction, StoreError>;

    /// Ends a transaction: keeps what it did, or [`StoreError::Again`] and nothing was done.
    fn commit(&self, transaction: Transaction) -> Result<(), StoreError>;

    /// Ends a transaction and forgets what it did.
    fn abort(&self, transaction: Transaction);

    /// Sets a watch on a node and everything below it. It has fired as soon as it is set, maybe
    /// twice: once by this contract, and once by an event of xenstored's own.
    ///
    /// The implementation keeps it alive over suspend, and remembers at most one event for it:
    /// however often a peer writes, a watch costs a bit.
    fn watch(&self, path: &str) -> Result<Watch, StoreError>;

    /// Takes a watch away.
    fn unwatch(&self, watch: Watch);

    /// Whether the watch has fired since this was last asked.
    fn fired(&self, watch: &Watch) -> bool;
}
