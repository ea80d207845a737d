//! What the toolstack asks of the domain through `control/shutdown` (xen's
//! docs/misc/xenstore-paths.pandoc): it writes a word there, and we acknowledge it by emptying
//! the node, in a transaction, so that a word that replaces it meanwhile is not lost.
//!
//! A domain says with `control/feature-WORD` which words it obeys.

use xen_store::{Store, StoreError};

/// Where the words are written.
pub const NODE: &str = "control/shutdown";

/// What a domain that asks for requests promises to obey (`halt` has no key of its own).
pub const FEATURES: [&str; 3] =
    ["control/feature-poweroff", "control/feature-reboot", "control/feature-suspend"];

/// How often the acknowledgement is tried while others write to xenstore, before we come back later:
/// four round trips each.
const TRIES: u32 = 8;

/// What the toolstack asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Request {
    /// `poweroff`: stop, in good order (`xl shutdown`).
    PowerOff,
    /// `reboot`: stop, to be started again (`xl reboot`).
    Reboot,
    /// `halt`: stop.
    Halt,
    /// `suspend`: stop for a while (`xl save`, `xl migrate`).
    Suspend,
}

impl Request {
    /// The request that a word stands for.
    pub fn parse(word: &[u8]) -> Option<Request> {
        match word {
            b"poweroff" => Some(Request::PowerOff),
            b"reboot" => Some(Request::Reboot),
            b"halt" => Some(Request::Halt),
            b"suspend" => Some(Request::Suspend),
            _ => None,
        }
    }
}

/// Tells the toolstack what we obey.
pub fn announce<S: Store>(store: &S) -> Result<(), StoreError> {
    FEATURES.iter().try_for_each(|feature| store.write(None, feature, b"1"))
}

/// Takes a request and acknowledges it. One that we don't know is acknowledged too, and logged.
pub fn take<S: Store>(store: &S) -> Result<Option<Request>, StoreError> {
    for _ in 0..TRIES {
        let transaction = store.begin()?;
        let word = match store.read(Some(transaction), NODE) {
            Ok(word) if !word.is_empty() => word,
            other => {
                store.abort(transaction);
                return match other {
                    Ok(_) | Err(StoreError::NotFound) => Ok(None),
                    Err(error) => Err(error),
                };
            }
        };
        if let Err(error) = store.write(Some(transaction), NODE, b"") {
            store.abort(transaction);
            return Err(error);
        }
        match store.commit(transaction) {
            Ok(()) => {
                let request = Request::parse(&word);
                if request.is_none() {
                    log::warn!("{NODE}: unknown request {:?} ignored", word.escape_ascii());
                }
                return Ok(request);
            }
            Err(StoreError::Again) => {}
            Err(error) => return Err(error),
        }
    }
    Err(StoreError::Again)
}

#[cfg(target_os = "none")]
pub(crate) use machine::*;

#[cfg(target_os = "none")]
mod machine {
    use core::sync::atomic::{AtomicBool, Ordering};

    use spin::Mutex;
    use xen_store::{Store, StoreError, Watch};

    use super::{NODE, Request, announce, take};
    use crate::suspend::{self, Suspended};
    use crate::{Xen, events, power};

    /// The watch on the toolstack's requests, once somebody obeys them.
    static WATCH: Mutex<Option<Watch>> = Mutex::new(None);
    /// This domain's xenstore does not say yet what we obey.
    static UNANNOUNCED: AtomicBool = AtomicBool::new(true);
    /// The last look for a request failed; the watch won't fire again for it.
    static LOOK_AGAIN: AtomicBool = AtomicBool::new(false);

    /// A request of the toolstack's that is new.
    pub fn request(xen: Xen) -> Option<Request> {
        look(xen).unwrap_or_else(|error| {
            if error == StoreError::Again {
                // Nothing else wakes us for it: xenstore has no more to say.
                events::remember();
            }
            if !LOOK_AGAIN.swap(true, Ordering::Relaxed) {
                log::warn!("{NODE}: {error}");
            }
            None
        })
    }

    fn look(xen: Xen) -> Result<Option<Request>, StoreError> {
        let mut watch = WATCH.lock();
        let watch = match &mut *watch {
            Some(watch) => watch,
            none => none.insert(xen.watch(NODE)?),
        };
        if UNANNOUNCED.load(Ordering::Relaxed) {
            announce(&xen)?;
            UNANNOUNCED.store(false, Ordering::Relaxed);
        }
        if !xen.fired(watch) && !LOOK_AGAIN.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let request = take(&xen)?;
        LOOK_AGAIN.store(false, Ordering::Relaxed);
        Ok(request)
    }

    /// Does what the toolstack asks for; only a suspend comes back.
    pub fn obey(request: Request) -> Suspended {
        let reason = match request {
            Request::Suspend => {
                let suspended = suspend::suspend();
                if suspended == Suspended::Resumed {
                    UNANNOUNCED.store(true, Ordering::Relaxed);
                }
                return suspended;
            }
            Request::Reboot => xen_sys::SHUTDOWN_reboot,
            Request::PowerOff | Request::Halt => xen_sys::SHUTDOWN_poweroff,
        };
        log::info!("stopping: {request:?}");
        power::stop(reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::{Cell, RefCell};
    use std::num::NonZeroU32;

    use xen_store::{Transaction, Watch};

    /// `control/shutdown` and nothing else. Each commit fails while others still have words to
    /// write, which they do just before it.
    #[derive(Default)]
    struct Node {
        word: RefCell<Option<Vec<u8>>>,
        written: RefCell<Option<Vec<u8>>>,
        others: RefCell<Vec<&'static [u8]>>,
        open: Cell<u32>,
        refuses: Cell<bool>,
    }

    impl Store for Node {
        fn read(&self, within: Option<Transaction>, path: &str) -> Result<Vec<u8>, StoreError> {
            assert!(within.is_some() && path == NODE);
            self.word.borrow().clone().ok_or(StoreError::NotFound)
        }
        fn write(
            &self,
            within: Option<Transaction>,
            path: &str,
            value: &[u8],
        ) -> Result<(), StoreError> {
            assert!(within.is_some() && path == NODE);
            if self.refuses.get() {
                return Err(StoreError::Denied);
            }
            *self.written.borrow_mut() = Some(value.to_vec());
            Ok(())
        }
        fn begin(&self) -> Result<Transaction, StoreError> {
            self.open.set(self.open.get() + 1);
            Ok(Transaction(NonZeroU32::MIN))
        }
        fn commit(&self, _: Transaction) -> Result<(), StoreError> {
            self.open.set(self.open.get() - 1);
            let written = self.written.take();
            if let Some(word) = self.others.borrow_mut().pop() {
                *self.word.borrow_mut() = Some(word.to_vec());
                return Err(StoreError::Again);
            }
            *self.word.borrow_mut() = written;
            Ok(())
        }
        fn abort(&self, _: Transaction) {
            self.open.set(self.open.get() - 1);
            self.written.take();
        }
        fn list(&self, _: Option<Transaction>, _: &str) -> Result<Vec<String>, StoreError> {
            Err(StoreError::Denied)
        }
        fn remove(&self, _: Option<Transaction>, _: &str) -> Result<(), StoreError> {
            Err(StoreError::Denied)
        }
        fn watch(&self, _: &str) -> Result<Watch, StoreError> {
            Err(StoreError::Denied)
        }
        fn unwatch(&self, _: Watch) {}
        fn fired(&self, _: &Watch) -> bool {
            false
        }
    }

    fn node(word: &[u8]) -> Node {
        Node { word: RefCell::new(Some(word.to_vec())), ..Node::default() }
    }

    #[test]
    fn each_word_is_taken_once() {
        let words: [(&[u8], _); 5] = [
            (b"poweroff", Some(Request::PowerOff)),
            (b"reboot", Some(Request::Reboot)),
            (b"halt", Some(Request::Halt)),
            (b"suspend", Some(Request::Suspend)),
            (b"\xff sing", None),
        ];
        for (word, request) in words {
            let node = node(word);
            assert_eq!(take(&node), Ok(request));
            assert_eq!(node.word.borrow().as_deref(), Some(&b""[..]));
            assert_eq!(take(&node), Ok(None));
            assert_eq!(node.open.get(), 0);
        }
        assert_eq!(take(&Node::default()), Ok(None));
    }

    #[test]
    fn a_word_that_replaces_another_is_not_lost() {
        let node = node(b"poweroff");
        node.others.borrow_mut().push(b"suspend");
        assert_eq!(take(&node), Ok(Some(Request::Suspend)));
        assert_eq!(node.open.get(), 0);
    }

    #[test]
    fn what_cannot_be_acknowledged_is_not_obeyed() {
        let refused = node(b"poweroff");
        refused.refuses.set(true);
        assert_eq!(take(&refused), Err(StoreError::Denied));
        assert_eq!(refused.word.borrow().as_deref(), Some(&b"poweroff"[..]));
        let busy = node(b"poweroff");
        *busy.others.borrow_mut() = vec![b"poweroff"; 1000];
        assert_eq!(take(&busy), Err(StoreError::Again));
        assert_eq!((refused.open.get(), busy.open.get()), (0, 0));
    }
}
