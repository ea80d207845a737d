//! What the toolstack asks of the domain through `control/shutdown` (xen's
//! docs/misc/xenstore-paths.pandoc): it writes a word there, and we acknowledge it by emptying
//! the node, in a transaction, so that a word that replaces it meanwhile is not lost.
//!
//! A domain says with `control/feature-WORD` which words it obeys.

use xen_store::nodes::transact;
use xen_store::{Store, StoreError};

/// Where the words are written.
pub const NODE: &str = "control/shutdown";

/// What a domain that asks for requests promises to obey (`halt` has no key of its own).
pub const FEATURES: [&str; 3] =
    ["control/feature-poweroff", "control/feature-reboot", "control/feature-suspend"];

/// How often the acknowledgement is tried while others write to xenstore, before we come back later:
/// four round trips each.
const TRIES: usize = 8;

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
    let word = transact(store, TRIES, |transaction| {
        let within = Some(transaction);
        match store.read(within, NODE) {
            Ok(word) if word.is_empty() => Ok(None),
            Ok(word) => store.write(within, NODE, b"").map(|()| Some(word)),
            Err(StoreError::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    })?;
    let Some(word) = word else { return Ok(None) };
    let request = Request::parse(&word);
    if request.is_none() {
        log::warn!("{NODE}: unknown request {:?} ignored", word.escape_ascii());
    }
    Ok(request)
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
    use std::cell::RefCell;

    use xen_store::intercept::{self, Intercepted};
    use xen_store::memory::{Access, MemoryStore, Perms};

    /// A domain, and its toolstack who has written this word.
    fn told(word: &[u8]) -> (MemoryStore, MemoryStore) {
        let domain = MemoryStore::new(1);
        let toolstack = domain.as_domain(0);
        toolstack.write(None, PATH, word).unwrap();
        (domain, toolstack)
    }

    /// `control/shutdown` as the toolstack calls it.
    const PATH: &str = "/local/domain/1/control/shutdown";

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
            let (domain, toolstack) = told(word);
            assert_eq!(take(&domain), Ok(request));
            assert_eq!(toolstack.read(None, PATH).unwrap(), b"");
            assert_eq!(take(&domain), Ok(None));
            assert_eq!(domain.transactions(), 0);
        }
        assert_eq!(take(&MemoryStore::new(1)), Ok(None));
    }

    #[test]
    fn a_word_that_replaces_another_is_not_lost() {
        for moment in [intercept::Request::Write(NODE), intercept::Request::Commit] {
            let (domain, toolstack) = told(b"poweroff");
            let later = RefCell::new(vec![b"suspend"]);
            let replace = |request: intercept::Request<'_>| match later
                .borrow_mut()
                .pop_if(|_| request == moment)
            {
                Some(word) => toolstack.write(None, PATH, word),
                None => Ok(()),
            };
            let store = Intercepted { store: domain.clone(), by: replace };
            assert_eq!(take(&store), Ok(Some(Request::Suspend)), "{moment:?}");
            assert_eq!(toolstack.read(None, PATH).unwrap(), b"");
            assert_eq!(domain.transactions(), 0);
        }
    }

    #[test]
    fn what_cannot_be_acknowledged_is_not_obeyed() {
        let (domain, toolstack) = told(b"poweroff");
        toolstack.set_perms(PATH, Perms::of(0).with(1, Access::READ)).unwrap();
        assert_eq!(take(&domain), Err(StoreError::Denied));
        assert_eq!(
            (toolstack.read(None, PATH).unwrap(), domain.transactions()),
            (b"poweroff".to_vec(), 0)
        );

        let (domain, toolstack) = told(b"poweroff");
        let insist = |request: intercept::Request<'_>| match request {
            intercept::Request::Commit => toolstack.write(None, PATH, b"poweroff"),
            _ => Ok(()),
        };
        let busy = Intercepted { store: domain.clone(), by: insist };
        assert_eq!(take(&busy), Err(StoreError::Again));
        assert_eq!(
            (toolstack.read(None, PATH).unwrap(), domain.transactions()),
            (b"poweroff".to_vec(), 0)
        );
    }
}
