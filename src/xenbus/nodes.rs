//! Xenstore's nodes: read, removed, and changed together.
//!
//! A node that is missing, forbidden or too long reads as `None`, like one that makes no sense:
//! none of these is a reason to stop. Only a store that does not answer is an error, and the
//! caller asks again later.

use alloc::string::String;
use alloc::vec::Vec;
use core::ops::RangeInclusive;

use xen_grant::DomId;

use super::values::{parse_domain, parse_mac, parse_path, parse_u32};
use crate::wire::MAX_PACKET;
use packet_views::header::ETHERNET_HEADER;
use xen_store::{Store, StoreError, Transaction};

/// A vif's MTU where nobody says another.
const DEFAULT_MTU: u16 = 1500;

/// From the smallest MTU of IPv4 to what fits a packet of `XEN_NETIF_MAX_TX_SIZE`, which counts the
/// Ethernet header.
const MTUS: RangeInclusive<u16> = 68..=(MAX_PACKET - ETHERNET_HEADER) as u16;

/// How often a transaction is run that meets another one each time, before we come back later.
pub(super) const TRIES: usize = 2;

/// Runs `work` within a transaction; once more if it met another one.
///
/// What `work` did is kept if it returns `Ok`. [`StoreError::Again`] if both tries met another
/// transaction: come back later.
pub fn transact<S: Store, T>(
    store: &S,
    mut work: impl FnMut(Transaction) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    for _ in 0..TRIES {
        let transaction = store.begin()?;
        let outcome = match work(transaction) {
            Ok(value) => store.commit(transaction).map(|()| value),
            Err(error) => {
                store.abort(transaction);
                Err(error)
            }
        };
        match outcome {
            Err(StoreError::Again) => {}
            Ok(_) | Err(_) => return outcome,
        }
    }
    Err(StoreError::Again)
}

/// Keeps the errors that mean "the store did not answer".
pub(super) fn found<T>(answer: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(StoreError::NotFound | StoreError::Denied | StoreError::Quota) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether a directory is there.
pub(super) fn exists<S: Store>(
    store: &S,
    within: Option<Transaction>,
    path: &str,
) -> Result<bool, StoreError> {
    match store.list(within, path) {
        Ok(_) | Err(StoreError::Quota) => Ok(true),
        Err(StoreError::NotFound | StoreError::Denied) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Removes a node and everything below it, if it is there.
pub(super) fn remove_if_there<S: Store>(
    store: &S,
    within: Option<Transaction>,
    path: &str,
) -> Result<(), StoreError> {
    match store.remove(within, path) {
        Ok(()) | Err(StoreError::NotFound) => Ok(()),
        Err(error) => Err(error),
    }
}

/// What the toolstack says of a vif, to each end in its own directory, where the peer does not
/// write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Identity {
    /// `mac`: the frontend's address. `None` where there is none.
    pub mac: Option<[u8; 6]>,
    /// `mtu`: octets above Ethernet, 1500 where there is none that fits a packet.
    pub mtu: u16,
}

impl Default for Identity {
    fn default() -> Identity {
        Identity { mac: None, mtu: DEFAULT_MTU }
    }
}

/// The nodes of one directory, read defensively.
#[derive(Clone, Copy)]
pub struct Reader<'a, S: Store> {
    /// Where to read.
    pub store: &'a S,
    /// In which transaction.
    pub within: Option<Transaction>,
    /// The directory.
    pub dir: &'a str,
}

impl<S: Store> Reader<'_, S> {
    /// A node's bytes.
    pub fn bytes(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        found(self.store.read(self.within, &join(self.dir, key)))
    }

    /// A decimal number.
    pub fn u32(&self, key: &str) -> Result<Option<u32>, StoreError> {
        Ok(self.bytes(key)?.as_deref().and_then(parse_u32))
    }

    /// A flag: 0 or another number. `default` where there is no number.
    pub fn flag(&self, key: &str, default: bool) -> Result<bool, StoreError> {
        Ok(self.u32(key)?.map_or(default, |number| number != 0))
    }

    /// A domain's number.
    pub fn domain(&self, key: &str) -> Result<Option<DomId>, StoreError> {
        Ok(self.bytes(key)?.as_deref().and_then(parse_domain))
    }

    /// What the toolstack says of a vif, in the directory of the end that it tells.
    pub fn identity(&self) -> Result<Identity, StoreError> {
        let mtu = self.u32("mtu")?.and_then(|mtu| u16::try_from(mtu).ok());
        Ok(Identity {
            mac: self.bytes("mac")?.as_deref().and_then(parse_mac),
            mtu: mtu.filter(|mtu| MTUS.contains(mtu)).unwrap_or(DEFAULT_MTU),
        })
    }

    /// The path of a directory of `owner`.
    pub fn path(&self, key: &str, owner: DomId) -> Result<Option<String>, StoreError> {
        Ok(self.bytes(key)?.and_then(|value| parse_path(value, owner)))
    }
}

impl<S: Store> core::fmt::Debug for Reader<'_, S> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Reader({})", self.dir)
    }
}

/// A node below a directory.
pub(super) fn join(dir: &str, key: &str) -> String {
    let mut path = String::with_capacity(dir.len() + 1 + key.len());
    path.push_str(dir);
    path.push('/');
    path.push_str(key);
    path
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xenbus::tests::fake::FakeXen;

    #[test]
    fn f11_a_transaction_is_tried_again_but_not_for_ever() {
        let xen = FakeXen::new();
        let store = xen.domain(1);
        xen.refuse_commits(TRIES - 1);
        let mut runs = 0;
        let outcome = transact(&store, |t| {
            runs += 1;
            store.write(Some(t), "data/a", b"1")
        });
        assert_eq!((outcome, runs), (Ok(()), TRIES));
        assert_eq!(xen.get("/local/domain/1/data/a").as_deref(), Some("1"));

        xen.refuse_commits(TRIES);
        let outcome = transact(&store, |t| store.write(Some(t), "data/a", b"2"));
        assert_eq!(outcome, Err(StoreError::Again));
        assert_eq!(xen.get("/local/domain/1/data/a").as_deref(), Some("1"));

        let outcome: Result<(), _> = transact(&store, |t| {
            store.write(Some(t), "data/a", b"3")?;
            Err(StoreError::Quota)
        });
        assert_eq!(outcome, Err(StoreError::Quota));
        assert_eq!(xen.get("/local/domain/1/data/a").as_deref(), Some("1"));
        assert_eq!(xen.open_transactions(), 0);
    }
}
