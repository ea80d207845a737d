//! A store with somebody in front who sees each request: to count them, or to let some fail.

use alloc::string::String;
use alloc::vec::Vec;

use crate::{Changes, Store, StoreError, Transaction, Watch};

/// A request to xenstore, with the path that was given, and not yet made absolute.
/// [`Store::fired`] and [`Store::changes`] are none: they look at what is kept here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Request<'a> {
    /// [`Store::read`]
    Read(&'a str),
    /// [`Store::write`]
    Write(&'a str),
    /// [`Store::list`]
    List(&'a str),
    /// [`Store::remove`]
    Remove(&'a str),
    /// [`Store::begin`]
    Begin,
    /// [`Store::commit`]
    Commit,
    /// [`Store::abort`]
    Abort,
    /// [`Store::watch`], [`Store::watch_below`], [`Store::watch_also`]
    Watch(&'a str),
    /// [`Store::unwatch`]
    Unwatch,
}

/// Who sees each request to a store before the store does. A closure may be it.
pub trait Intercept {
    /// An error is the answer, and the store is not asked. A commit that fails so is an abort; aborts
    /// and unwatches are made whatever is returned.
    fn before(&self, request: Request<'_>) -> Result<(), StoreError>;
}

impl<F: Fn(Request<'_>) -> Result<(), StoreError>> Intercept for F {
    fn before(&self, request: Request<'_>) -> Result<(), StoreError> {
        self(request)
    }
}

/// A store whose requests are seen by `by` first.
#[derive(Clone, Debug)]
pub struct Intercepted<S, I> {
    /// The store that is asked.
    pub store: S,
    /// Who sees what it is asked.
    pub by: I,
}

impl<S: Store, I: Intercept> Intercepted<S, I> {
    fn ask(&self, request: Request<'_>) -> Result<&S, StoreError> {
        self.by.before(request).map(|()| &self.store)
    }
}

impl<S: Store, I: Intercept> Store for Intercepted<S, I> {
    fn read(&self, within: Option<Transaction>, path: &str) -> Result<Vec<u8>, StoreError> {
        self.ask(Request::Read(path))?.read(within, path)
    }

    fn write(
        &self,
        within: Option<Transaction>,
        path: &str,
        value: &[u8],
    ) -> Result<(), StoreError> {
        self.ask(Request::Write(path))?.write(within, path, value)
    }

    fn list(&self, within: Option<Transaction>, path: &str) -> Result<Vec<String>, StoreError> {
        self.ask(Request::List(path))?.list(within, path)
    }

    fn remove(&self, within: Option<Transaction>, path: &str) -> Result<(), StoreError> {
        self.ask(Request::Remove(path))?.remove(within, path)
    }

    fn begin(&self) -> Result<Transaction, StoreError> {
        self.ask(Request::Begin)?.begin()
    }

    fn commit(&self, transaction: Transaction) -> Result<(), StoreError> {
        match self.ask(Request::Commit) {
            Ok(store) => store.commit(transaction),
            Err(error) => {
                // It has ended whatever comes back.
                self.store.abort(transaction);
                Err(error)
            }
        }
    }

    fn abort(&self, transaction: Transaction) {
        let _ = self.ask(Request::Abort);
        self.store.abort(transaction);
    }

    fn watch(&self, path: &str) -> Result<Watch, StoreError> {
        self.ask(Request::Watch(path))?.watch(path)
    }

    fn watch_below(&self, path: &str, depth: usize) -> Result<Watch, StoreError> {
        self.ask(Request::Watch(path))?.watch_below(path, depth)
    }

    fn watch_also(&self, watch: &Watch, path: &str, place: &str) -> Result<Watch, StoreError> {
        self.ask(Request::Watch(path))?.watch_also(watch, path, place)
    }

    fn unwatch(&self, watch: Watch) {
        let _ = self.ask(Request::Unwatch);
        self.store.unwatch(watch);
    }

    fn fired(&self, watch: &Watch) -> bool {
        self.store.fired(watch)
    }

    fn changes(&self, watch: &Watch) -> Changes {
        self.store.changes(watch)
    }
}

#[cfg(test)]
mod tests {
    use core::cell::{Cell, RefCell};

    use alloc::format;
    use alloc::vec;

    use super::*;
    use crate::memory::MemoryStore;

    #[test]
    fn each_request_is_seen_once_before_it_is_made() {
        let seen = RefCell::new(Vec::new());
        let memory = MemoryStore::new(1);
        let store = Intercepted {
            store: memory.clone(),
            by: |request: Request<'_>| {
                seen.borrow_mut().push((format!("{request:?}"), memory.read(None, "data/a").ok()));
                Ok(())
            },
        };
        let watch = store.watch("data/a").unwrap();
        assert!(store.fired(&watch));
        store.write(None, "data/a", b"1").unwrap();
        assert_eq!(store.read(None, "data/a").unwrap(), b"1");
        assert!(store.list(None, "data/a").unwrap().is_empty());
        let transaction = store.begin().unwrap();
        store.remove(Some(transaction), "data/a").unwrap();
        store.commit(transaction).unwrap();
        store.abort(store.begin().unwrap());
        assert!(store.fired(&watch));
        store.unwatch(watch);
        let one = || Some(vec![b'1']);
        let expected = [
            ("Watch(\"data/a\")", None),
            ("Write(\"data/a\")", None),
            ("Read(\"data/a\")", one()),
            ("List(\"data/a\")", one()),
            ("Begin", one()),
            ("Remove(\"data/a\")", one()),
            ("Commit", one()),
            ("Begin", None),
            ("Abort", None),
            ("Unwatch", None),
        ];
        let seen = seen.take();
        assert!(seen.iter().map(|(request, before)| (&**request, before.clone())).eq(expected));
        assert_eq!((memory.watches(), memory.transactions()), (0, 0));
    }

    #[test]
    fn what_is_refused_is_not_done_and_leaves_nothing_open() {
        let refuses = Cell::new(false);
        let refuse =
            |_: Request<'_>| if refuses.get() { Err(StoreError::TimedOut) } else { Ok(()) };
        let store = Intercepted { store: MemoryStore::new(1), by: refuse };
        store.write(None, "data/a", b"1").unwrap();
        let (watch, first, second) =
            (store.watch("data/a").unwrap(), store.begin().unwrap(), store.begin().unwrap());
        store.write(Some(first), "data/a", b"2").unwrap();

        refuses.set(true);
        let late = Err(StoreError::TimedOut);
        assert_eq!(store.read(None, "data/a").map(drop), late);
        assert_eq!(store.list(None, "data/a").map(drop), late);
        assert_eq!(store.write(None, "data/a", b"3"), late);
        assert_eq!(store.remove(None, "data/a"), late);
        assert_eq!(store.begin().map(drop), late);
        assert_eq!(store.watch("data/a").map(drop), late);
        assert_eq!(store.commit(first), late);
        assert_eq!((store.store.watches(), store.store.transactions()), (1, 1));
        store.abort(second);
        store.unwatch(watch);
        assert_eq!((store.store.watches(), store.store.transactions()), (0, 0));
        assert_eq!(store.store.read(None, "data/a").unwrap(), b"1");
    }
}
