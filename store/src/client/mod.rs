//! One end of a xenstore connection: requests, their answers, and watch events in between.
//!
//! The page (`struct xenstore_domain_interface`, xen/io/xs_wire.h):
//!
//! ```text
//!    0 req[1024]  1024 rsp[1024]  2048 req_cons  2052 req_prod  2056 rsp_cons  2060 rsp_prod
//! 2064 server_features            2068 connection               2072 error
//! ```
//!
//! One request is under way at a time. Everything that arrives is taken off the ring at once:
//! a watch event costs a bit, however often it comes, or a short path where somebody wants to know; an answer to nobody's question is dropped.
//!
//! A kernel brings the page, the port, a clock and its way to sleep:
//!
//! ```no_run
//! use core::cell::RefCell;
//! use core::time::Duration;
//! use xen_store::Store;
//! use xen_store::byte_ring::Words;
//! use xen_store::client::{Client, Transport};
//!
//! struct Xenstored {
//!     page: &'static Words, // HVM_PARAM_STORE_PFN, mapped
//!     port: u32,            // HVM_PARAM_STORE_EVTCHN
//! }
//!
//! # mod kernel {
//! #     pub fn notify(_port: u32) {}
//! #     pub fn nanoseconds() -> u64 { 0 }
//! #     pub fn sleep(_port: u32, _until: core::time::Duration) {}
//! # }
//! impl Transport for Xenstored {
//!     fn words(&self) -> &Words {
//!         self.page
//!     }
//!
//!     fn notify(&self) {
//!         kernel::notify(self.port);
//!     }
//!
//!     fn now(&self) -> Duration {
//!         Duration::from_nanos(kernel::nanoseconds())
//!     }
//!
//!     fn wait(&self, until: Duration) {
//!         kernel::sleep(self.port, until); // until the port fires, or it is that late
//!     }
//! }
//!
//! fn store(xenstored: Xenstored) -> impl Store {
//!     RefCell::new(Client::new(xenstored, Duration::from_secs(5)))
//! }
//! ```
//!
//! # No call waits for ever
//!
//! Each call has the client's time limit for all of it, and a bound on the bytes that it takes off
//! the ring. Where xenstored is silent for so long, the call ends with [`StoreError::TimedOut`], and
//! every call after it does at once, until the answer that is owed has come: a xenstored that is stuck
//! holds its guest up once. What came of the request is found out then. A transaction that nobody
//! waits for any more is ended, a watch is taken away, or set if it was to be set again: one such
//! leftover a call, so that none makes more than two round trips ([`Client::list`]: 66).

mod exchange;
mod leftovers;

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::num::NonZeroU32;
use core::time::Duration;

use crate::byte_ring::{Consumer, Layout, Producer, Words};
use crate::wire::{self, Inbox, Type};
use crate::{Changes, Store, StoreError, Transaction, Watch};
use exchange::Pending;
use leftovers::{Untold, Watched};

/// The ring of requests.
pub const REQUESTS: Layout = Layout::new(0, 256, 513, 512);
/// The ring of answers and watch events.
pub const ANSWERS: Layout = Layout::new(256, 256, 515, 514);

/// `EBUSY`
const BUSY: StoreError = StoreError::Other(16);
/// The most parts of a directory that are fetched, new beginnings included.
const MAX_PARTS: u32 = 64;
/// The most watches we set; xenstored allows a domain 128.
const MAX_WATCHES: usize = 128;
/// What lies between us and xenstored.
pub trait Transport {
    /// The page, the same one each time.
    fn words(&self) -> &Words;

    /// Fires the event channel.
    fn notify(&self);

    /// The time since some fixed moment. It never goes back, and does not stand still.
    fn now(&self) -> Duration;

    /// Sleeps until the event channel fires, or it is `until` by [`now`](Transport::now). It may come
    /// back earlier for no reason. An event that has come since the last call ends it at once.
    fn wait(&self, until: Duration);
}

/// The connection.
///
/// All calls but [`fired`](Client::fired) may block for the time limit, and allocate; none may be made
/// in an interrupt. A kernel with one thread has a [`Store`] in a `RefCell` of it; one with more puts
/// a lock around it.
pub struct Client<T> {
    transport: T,
    limit: Duration,
    requests: Producer,
    answers: Consumer,
    inbox: Inbox,
    /// The last request, and how much of it has gone into the ring.
    outbox: Vec<u8>,
    sent: usize,
    /// The request whose answer has not come.
    pending: Option<Pending>,
    next_id: u32,
    watches: Vec<Watched>,
    next_token: u32,
    /// Transactions that nobody has any more and that are not over.
    orphans: Vec<Transaction>,
    /// A watch event has come since this was last asked.
    news: bool,
    /// Indices or a length made no sense: nobody knows where the next message begins.
    broken: bool,
}

impl<T: Transport> Client<T> {
    /// The connection over this page. No call takes longer than `limit`: some seconds, as xenstored
    /// shares its processor with others.
    pub fn new(transport: T, limit: Duration) -> Client<T> {
        Client {
            requests: Producer::new(transport.words(), REQUESTS),
            answers: Consumer::new(transport.words(), ANSWERS),
            transport,
            limit,
            inbox: Inbox::default(),
            outbox: Vec::new(),
            sent: 0,
            pending: None,
            next_id: 0,
            watches: Vec::new(),
            next_token: 0,
            orphans: Vec::new(),
            news: false,
            broken: false,
        }
    }

    /// The domain has been resumed: another connection, over another page. Transactions are gone;
    /// every watch counts as fired and is set again, with a round trip each. Those for which the time
    /// limit leaves no time are set by the calls that follow, one each.
    pub fn resume(&mut self, transport: T) {
        let mut watches = core::mem::take(&mut self.watches);
        watches.retain(|watch| watch.untold != Some(Untold::Remove));
        for watch in &mut watches {
            if watch.part_of.is_none() {
                watch.fired = Changes::Anywhere;
            }
            watch.untold = Some(Untold::Set);
        }
        let next_token = self.next_token;
        *self = Client { watches, next_token, ..Client::new(transport, self.limit) };
        let deadline = self.deadline();
        for _ in 0..self.watches.len() {
            if self.tell_next(deadline).is_err() {
                return;
            }
        }
    }

    /// `XS_READ`
    pub fn read(&mut self, within: Option<Transaction>, path: &str) -> Result<Vec<u8>, StoreError> {
        self.request(Type::Read, within, &[checked(path)?, b"\0"])
    }

    /// `XS_WRITE`
    pub fn write(
        &mut self,
        within: Option<Transaction>,
        path: &str,
        value: &[u8],
    ) -> Result<(), StoreError> {
        self.request(Type::Write, within, &[checked(path)?, b"\0", value]).map(drop)
    }

    /// `XS_DIRECTORY`. Names that are no UTF-8 are left out.
    ///
    /// A directory that is longer than a message takes a round trip for each 4 KB, at most 64:
    /// [`StoreError::Quota`] if that is not enough, because it is that long, or keeps changing.
    pub fn list(
        &mut self,
        within: Option<Transaction>,
        path: &str,
    ) -> Result<Vec<String>, StoreError> {
        let deadline = self.deadline();
        self.settle(deadline)?;
        let whole = [checked(path)?, b"\0"];
        let names = match self.exchange(Type::Directory, within, &whole, deadline) {
            // Longer than a message.
            Err(StoreError::Quota) => self.list_in_parts(within, path, deadline)?,
            names => names?,
        };
        let names = names.split(|&byte| byte == 0).filter(|name| !name.is_empty());
        Ok(names.filter_map(|name| str::from_utf8(name).ok()).map(str::to_owned).collect())
    }

    /// `XS_DIRECTORY_PART`, as often as it takes: each part begins with a number that changes when
    /// the directory does, and the last ends with an empty name.
    fn list_in_parts(
        &mut self,
        within: Option<Transaction>,
        path: &str,
        deadline: Duration,
    ) -> Result<Vec<u8>, StoreError> {
        let mut names = Vec::new();
        let mut generation = Vec::new();
        for _ in 0..MAX_PARTS {
            let offset = Decimal::new(u32::try_from(names.len()).unwrap_or(u32::MAX));
            let parts = [checked(path)?, b"\0", offset.bytes(), b"\0"];
            let part = self.exchange(Type::DirectoryPart, within, &parts, deadline)?;
            let (now, part) = wire::split_at_zero(&part).ok_or(StoreError::BadAnswer)?;
            if !names.is_empty() && now != generation {
                names.clear();
                continue;
            }
            generation = now.to_vec();
            match part.strip_suffix(b"\0") {
                None => return Err(StoreError::BadAnswer),
                Some(last) if last.is_empty() || last.ends_with(b"\0") => {
                    names.extend_from_slice(last);
                    return Ok(names);
                }
                Some(_) => names.extend_from_slice(part),
            }
        }
        Err(StoreError::Quota)
    }

    /// `XS_RM`
    pub fn remove(&mut self, within: Option<Transaction>, path: &str) -> Result<(), StoreError> {
        self.request(Type::Rm, within, &[checked(path)?, b"\0"]).map(drop)
    }

    /// `XS_TRANSACTION_START`
    pub fn begin(&mut self) -> Result<Transaction, StoreError> {
        let id = self.request(Type::TransactionStart, None, &[b"\0"])?;
        transaction(&id).ok_or(StoreError::BadAnswer)
    }

    /// `XS_TRANSACTION_END`, which keeps what was done.
    pub fn commit(&mut self, transaction: Transaction) -> Result<(), StoreError> {
        self.end(transaction, b"T\0")
    }

    /// `XS_TRANSACTION_END`, which forgets what was done. It cannot fail: if xenstored does not answer
    /// now it is told later.
    pub fn abort(&mut self, transaction: Transaction) {
        // What can fail is that the transaction is gone, which is what was wanted.
        let _ = self.end(transaction, b"F\0");
    }

    fn end(&mut self, transaction: Transaction, verdict: &[u8]) -> Result<(), StoreError> {
        let deadline = self.deadline();
        if let Err(error) = self.settle(deadline) {
            self.orphan(transaction);
            return Err(error);
        }
        self.exchange(Type::TransactionEnd, Some(transaction), &[verdict], deadline).map(drop)
    }

    /// `XS_WATCH`. It has fired as soon as it is set.
    pub fn watch(&mut self, path: &str) -> Result<Watch, StoreError> {
        self.watch_below(path, 0)
    }

    /// `XS_WATCH`, and remembers where below the node something has changed, by paths of at most `depth`
    /// names. It has fired as soon as it is set.
    pub fn watch_below(&mut self, path: &str, depth: usize) -> Result<Watch, StoreError> {
        self.set_watch(path, depth, None)
    }

    /// `XS_WATCH`, for one more path whose events count as events of `watch`, at `place`. It has fired as soon
    /// as it is set.
    pub fn watch_also(
        &mut self,
        watch: &Watch,
        path: &str,
        place: &str,
    ) -> Result<Watch, StoreError> {
        let part = self.set_watch(path, 0, Some((watch.0, place.to_owned())))?;
        self.note_at(watch.0, place);
        Ok(part)
    }

    fn set_watch(
        &mut self,
        path: &str,
        depth: usize,
        part_of: Option<(u32, String)>,
    ) -> Result<Watch, StoreError> {
        let path_bytes = checked(path)?;
        if self.watches.len() >= MAX_WATCHES {
            return Err(StoreError::Quota);
        }
        let deadline = self.deadline();
        self.settle(deadline)?;
        self.next_token = self.next_token.wrapping_add(1);
        let token = self.next_token;
        // xenstored fires it as well; that event is not taken for granted and passed over, because
        // it stands for a change that follows closely, too: xenstored queues no second event for a
        // watch whose first has not been fetched.
        let fired = if part_of.is_none() { Changes::Anywhere } else { Changes::None };
        let path = path.to_owned();
        self.watches.push(Watched { token, path, depth, fired, part_of, untold: None });
        let text = Decimal::new(token);
        let parts = [path_bytes, b"\0", text.bytes(), b"\0"];
        let done = self.exchange(Type::Watch, None, &parts, deadline);
        match done {
            Ok(_) => return Ok(Watch(token)),
            // It may be set all the same.
            Err(StoreError::TimedOut | StoreError::BadAnswer) => self.forget(token),
            Err(_) => self.watches.retain(|watch| watch.token != token),
        }
        done.map(|_| Watch(token))
    }

    /// `XS_UNWATCH`. It cannot fail: if xenstored does not answer now it is told later.
    pub fn unwatch(&mut self, watch: Watch) {
        self.forget(watch.0);
        let _ = self.settle(self.deadline());
    }

    /// Whether the watch has fired since this was last asked. Does not block.
    pub fn fired(&mut self, watch: &Watch) -> bool {
        self.changes(watch) != Changes::None
    }

    /// Where something has changed since this was last asked. Does not block.
    pub fn changes(&mut self, watch: &Watch) -> Changes {
        self.drain();
        let alive = |kept: &&mut Watched| kept.untold != Some(Untold::Remove);
        let kept = self.watches.iter_mut().filter(alive).find(|kept| kept.token == watch.0);
        kept.map(|kept| core::mem::take(&mut kept.fired)).unwrap_or_default()
    }

    /// Whether something has come since this was last asked that somebody may sleep for: a watch
    /// event, or the answer that was owed. What comes while a call waits for its answer takes the
    /// channel's event with it, so a kernel asks this after each call, and does not sleep before it
    /// has asked its watches.
    pub fn take_news(&mut self) -> bool {
        core::mem::take(&mut self.news)
    }
}

/// A client that one thread uses. A call from within [`Transport::wait`] finds it busy:
/// [`StoreError::Other`] of 16, `EBUSY`.
impl<T: Transport> Store for RefCell<Client<T>> {
    fn read(&self, within: Option<Transaction>, path: &str) -> Result<Vec<u8>, StoreError> {
        self.try_borrow_mut().map_err(|_| BUSY)?.read(within, path)
    }

    fn write(
        &self,
        within: Option<Transaction>,
        path: &str,
        value: &[u8],
    ) -> Result<(), StoreError> {
        self.try_borrow_mut().map_err(|_| BUSY)?.write(within, path, value)
    }

    fn list(&self, within: Option<Transaction>, path: &str) -> Result<Vec<String>, StoreError> {
        self.try_borrow_mut().map_err(|_| BUSY)?.list(within, path)
    }

    fn remove(&self, within: Option<Transaction>, path: &str) -> Result<(), StoreError> {
        self.try_borrow_mut().map_err(|_| BUSY)?.remove(within, path)
    }

    fn begin(&self) -> Result<Transaction, StoreError> {
        self.try_borrow_mut().map_err(|_| BUSY)?.begin()
    }

    fn commit(&self, transaction: Transaction) -> Result<(), StoreError> {
        self.try_borrow_mut().map_err(|_| BUSY)?.commit(transaction)
    }

    fn abort(&self, transaction: Transaction) {
        if let Ok(mut client) = self.try_borrow_mut() {
            client.abort(transaction);
        }
    }

    fn watch(&self, path: &str) -> Result<Watch, StoreError> {
        self.try_borrow_mut().map_err(|_| BUSY)?.watch(path)
    }

    fn watch_below(&self, path: &str, depth: usize) -> Result<Watch, StoreError> {
        self.try_borrow_mut().map_err(|_| BUSY)?.watch_below(path, depth)
    }

    fn watch_also(&self, watch: &Watch, path: &str, place: &str) -> Result<Watch, StoreError> {
        self.try_borrow_mut().map_err(|_| BUSY)?.watch_also(watch, path, place)
    }

    fn unwatch(&self, watch: Watch) {
        if let Ok(mut client) = self.try_borrow_mut() {
            client.unwatch(watch);
        }
    }

    fn fired(&self, watch: &Watch) -> bool {
        self.try_borrow_mut().is_ok_and(|mut client| client.fired(watch))
    }

    fn changes(&self, watch: &Watch) -> Changes {
        self.try_borrow_mut().map(|mut client| client.changes(watch)).unwrap_or_default()
    }
}

/// A path as bytes, without zeros of its own.
fn checked(path: &str) -> Result<&[u8], StoreError> {
    let fine = !path.is_empty() && !path.contains('\0');
    fine.then_some(path.as_bytes()).ok_or(StoreError::INVALID)
}

/// The transaction that the answer to `XS_TRANSACTION_START` names.
fn transaction(payload: &[u8]) -> Option<Transaction> {
    wire::number(payload).and_then(NonZeroU32::new).map(Transaction)
}

/// A number as text, without the heap.
struct Decimal(arrayvec::ArrayString<10>);

impl Decimal {
    fn new(number: u32) -> Decimal {
        let mut text = arrayvec::ArrayString::new();
        // Ten digits are enough for any.
        let _ = core::fmt::write(&mut text, format_args!("{number}"));
        Decimal(text)
    }

    fn bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl<T> core::fmt::Debug for Client<T> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Client")
            .field("limit", &self.limit)
            .field("is_waiting", &self.pending.is_some())
            .field("watches", &self.watches.len())
            .field("is_broken", &self.broken)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
