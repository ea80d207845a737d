//! Xenstore's nodes: read, removed, and changed together.
//!
//! A node that is missing, forbidden or too long reads as `None`, like one that makes no sense:
//! none of these is a reason to stop. Only a store that does not answer is an error, and the
//! caller asks again later.

use alloc::string::String;
use alloc::vec::Vec;

use crate::values::{parse_domain, parse_path, parse_u32};
use crate::{Store, StoreError, Transaction};

/// Runs `work` within a transaction, and again while it meets another one, `tries` times at most.
///
/// What `work` did is kept if it returns `Ok`. [`StoreError::Again`] if every try met another
/// transaction: come back later. A try is two round trips and those of `work`.
pub fn transact<S: Store, T>(
    store: &S,
    tries: usize,
    mut work: impl FnMut(Transaction) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    for _ in 0..tries {
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
pub fn found<T>(answer: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(StoreError::NotFound | StoreError::Denied | StoreError::Quota) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether a directory is there.
pub fn exists<S: Store>(
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
pub fn remove_if_there<S: Store>(
    store: &S,
    within: Option<Transaction>,
    path: &str,
) -> Result<(), StoreError> {
    match store.remove(within, path) {
        Ok(()) | Err(StoreError::NotFound) => Ok(()),
        Err(error) => Err(error),
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
    pub fn domain(&self, key: &str) -> Result<Option<u16>, StoreError> {
        Ok(self.bytes(key)?.as_deref().and_then(parse_domain))
    }

    /// The path of a directory of `owner`.
    pub fn path(&self, key: &str, owner: u16) -> Result<Option<String>, StoreError> {
        Ok(self.bytes(key)?.and_then(|value| parse_path(&value, owner)))
    }
}

/// A node below a directory.
pub fn join(dir: &str, key: &str) -> String {
    let mut path = String::with_capacity(dir.len() + 1 + key.len());
    path.push_str(dir);
    path.push('/');
    path.push_str(key);
    path
}

impl<S: Store> core::fmt::Debug for Reader<'_, S> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Reader({})", self.dir)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{MAX_VALUE, MemoryStore};

    #[test]
    fn f11_a_transaction_is_tried_again_but_not_for_ever() {
        let store = MemoryStore::new(1);
        let path = "/local/domain/1/data/a";
        // Writes what somebody else has written too, if not too often before.
        let write = |value: &[u8], meets: usize| {
            let mut runs = 0;
            let outcome = transact(&store, 3, |t| {
                runs += 1;
                store.write(Some(t), path, value)?;
                if runs <= meets { store.as_domain(0).write(None, path, b"other") } else { Ok(()) }
            });
            (outcome, runs, store.read(None, path).unwrap())
        };
        assert_eq!(write(b"1", 0), (Ok(()), 1, b"1".to_vec()));
        assert_eq!(write(b"2", 2), (Ok(()), 3, b"2".to_vec()));
        assert_eq!(write(b"3", 3), (Err(StoreError::Again), 3, b"other".to_vec()));

        let outcome: Result<(), _> = transact(&store, 3, |t| {
            store.write(Some(t), path, b"4")?;
            Err(StoreError::Quota)
        });
        assert_eq!(outcome, Err(StoreError::Quota));
        assert_eq!(store.read(None, path).unwrap(), b"other");
        assert_eq!(store.transactions(), 0);
    }

    #[test]
    fn what_is_not_there_or_not_ours_is_none_and_no_answer_an_error() {
        for none in [StoreError::NotFound, StoreError::Denied, StoreError::Quota] {
            assert_eq!(found::<u8>(Err(none)), Ok(None));
        }
        for error in [StoreError::TimedOut, StoreError::Again, StoreError::INVALID] {
            assert_eq!(found::<u8>(Err(error)), Err(error));
        }
        assert_eq!(found(Ok(1)), Ok(Some(1)));
    }

    #[test]
    fn a_directory_is_there_or_not_and_goes_once() {
        let store = MemoryStore::new(1);
        let foreign = "/local/domain/2/data/a";
        store.as_domain(2).write(None, foreign, b"").unwrap();
        store.write(None, "data/a/b", b"").unwrap();
        let there = |path| exists(&store, None, path);
        assert_eq!(
            (there("data/a"), there("data/c"), there(foreign)),
            (Ok(true), Ok(false), Ok(false))
        );
        assert_eq!(there("a b"), Err(StoreError::INVALID));
        assert_eq!(remove_if_there(&store, None, "data/a"), Ok(()));
        assert_eq!(there("data/a"), Ok(false));
        assert_eq!(remove_if_there(&store, None, "data/a"), Ok(()));
        assert_eq!(remove_if_there(&store, None, foreign), Err(StoreError::Denied));
        let transaction = store.begin().unwrap();
        store.write(Some(transaction), "data/c", b"").unwrap();
        assert_eq!(exists(&store, Some(transaction), "data/c"), Ok(true));
        remove_if_there(&store, Some(transaction), "data/c").unwrap();
        assert_eq!(exists(&store, Some(transaction), "data/c"), Ok(false));
    }

    #[test]
    fn a_node_reads_as_what_it_is_or_as_none() {
        let store = MemoryStore::new(1);
        for (key, value) in [("n", "7\n"), ("zero", "0"), ("x", "x"), ("p", "/local/domain/2/d")] {
            store.write(None, &join("data/d", key), value.as_bytes()).unwrap();
        }
        let dir = Reader { store: &store, within: None, dir: "data/d" };
        assert_eq!(dir.bytes("n"), Ok(Some(b"7\n".to_vec())));
        assert_eq!(
            (dir.u32("n"), dir.u32("x"), dir.u32("none")),
            (Ok(Some(7)), Ok(None), Ok(None))
        );
        assert_eq!((dir.domain("n"), dir.domain("x")), (Ok(Some(7)), Ok(None)));
        for default in [true, false] {
            assert_eq!((dir.flag("n", default), dir.flag("zero", default)), (Ok(true), Ok(false)));
            assert_eq!(
                (dir.flag("x", default), dir.flag("none", default)),
                (Ok(default), Ok(default))
            );
        }
        assert_eq!(dir.path("p", 2), Ok(Some("/local/domain/2/d".into())));
        assert_eq!((dir.path("p", 1), dir.path("none", 2)), (Ok(None), Ok(None)));
        let within = store.begin().ok();
        store.write(within, "data/d/n", &[b'1'; MAX_VALUE]).unwrap();
        assert_eq!((Reader { within, ..dir }.u32("n"), dir.u32("n")), (Ok(None), Ok(Some(7))));
    }
}
