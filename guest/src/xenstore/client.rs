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
//! a watch event costs a bit, however often it comes; an answer to nobody's question is dropped.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;
use core::num::NonZeroU32;
use core::sync::atomic::AtomicU32;

use xen_netfront::store::{StoreError, Transaction};

use super::wire::{self, ERROR, Header, Inbox, MAX_PAYLOAD, Message, Type, WATCH_EVENT};
use crate::byte_ring::{Consumer, Producer};

/// `EINVAL`
const INVALID: StoreError = StoreError::Other(22);
/// An answer that made no sense, or a connection that is broken.
const NONSENSE: StoreError = StoreError::Other(0);
/// The most parts of a directory that are fetched, new beginnings included.
const MAX_PARTS: u32 = 64;
/// The most bytes that may come before a request's answer is done. Who sends more answers nothing.
const PATIENCE: usize = 1 << 20;
/// Bytes of the ring of answers.
const RING: usize = 1024;
/// The most watches we set; xenstored allows a domain 128.
const MAX_WATCHES: usize = 128;

/// What lies between us and xenstored.
pub trait Line {
    /// Fires the event channel.
    fn notify(&self);
    /// Sleeps until the event channel fires; may come back for no reason.
    fn wait(&self);
}

/// The connection.
pub struct Client<'a, L> {
    requests: Producer<'a>,
    answers: Consumer<'a>,
    line: L,
    inbox: Inbox,
    next_id: u32,
    watches: Vec<Watched>,
    next_token: u32,
    /// A watch event has come since this was last asked.
    news: bool,
    /// Indices or a length made no sense: nobody knows where the next message begins.
    broken: bool,
}

struct Watched {
    token: u32,
    path: String,
    fired: bool,
}

impl<'a, L: Line> Client<'a, L> {
    /// The connection over this page.
    pub fn new(page: &'a [AtomicU32], line: L) -> Client<'a, L> {
        Client {
            requests: Producer::new(page, 0..256, 513, 512),
            answers: Consumer::new(page, 256..512, 515, 514),
            line,
            inbox: Inbox::default(),
            next_id: 0,
            watches: Vec::new(),
            next_token: 0,
            news: false,
            broken: false,
        }
    }

    /// The domain has been resumed: another connection, over this page. Transactions are gone;
    /// every watch is set again, and counts as fired.
    pub fn resume(&mut self, page: &'a [AtomicU32], line: L) {
        let watches = core::mem::take(&mut self.watches);
        let next_token = self.next_token;
        *self = Client { watches, next_token, ..Client::new(page, line) };
        for index in 0..self.watches.len() {
            let Some(watch) = self.watches.get_mut(index) else { break };
            watch.fired = true;
            let (path, text) = (watch.path.clone(), Decimal::new(watch.token));
            let parts = [path.as_bytes(), b"\0", text.bytes(), b"\0"];
            if let Err(error) = self.request(Type::Watch, None, &parts) {
                log::error!("watch on {path} lost after resume: {error}");
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
    pub fn list(
        &mut self,
        within: Option<Transaction>,
        path: &str,
    ) -> Result<Vec<String>, StoreError> {
        let names = match self.request(Type::Directory, within, &[checked(path)?, b"\0"]) {
            // Longer than a message.
            Err(StoreError::Quota) => self.list_in_parts(within, path)?,
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
    ) -> Result<Vec<u8>, StoreError> {
        let mut names = Vec::new();
        let mut generation = Vec::new();
        for _ in 0..MAX_PARTS {
            let offset = Decimal::new(u32::try_from(names.len()).unwrap_or(u32::MAX));
            let parts = [checked(path)?, b"\0", offset.bytes(), b"\0"];
            let part = self.request(Type::DirectoryPart, within, &parts)?;
            let (now, part) = wire::split_at_zero(&part).ok_or(NONSENSE)?;
            if !names.is_empty() && now != generation {
                names.clear();
                continue;
            }
            generation = now.to_vec();
            match part.strip_suffix(b"\0") {
                None => return Err(NONSENSE),
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
        wire::number(&id).and_then(NonZeroU32::new).map(Transaction).ok_or(NONSENSE)
    }

    /// `XS_TRANSACTION_END`
    pub fn end(&mut self, transaction: Transaction, keep: bool) -> Result<(), StoreError> {
        let verdict: &[u8] = if keep { b"T\0" } else { b"F\0" };
        self.request(Type::TransactionEnd, Some(transaction), &[verdict]).map(drop)
    }

    /// `XS_WATCH`. Gives the token that names the watch.
    pub fn watch(&mut self, path: &str) -> Result<u32, StoreError> {
        let path_bytes = checked(path)?;
        if self.watches.len() >= MAX_WATCHES {
            return Err(StoreError::Quota);
        }
        self.next_token = self.next_token.wrapping_add(1);
        let token = self.next_token;
        // It has fired as soon as it is set. xenstored fires it as well; that event is not taken
        // for granted and passed over, because it stands for a change that follows closely, too:
        // xenstored queues no second event for a watch whose first has not been fetched.
        self.watches.push(Watched { token, path: path.to_owned(), fired: true });
        let text = Decimal::new(token);
        let done = self.request(Type::Watch, None, &[path_bytes, b"\0", text.bytes(), b"\0"]);
        if done.is_err() {
            self.watches.retain(|watch| watch.token != token);
        }
        done.map(|_| token)
    }

    /// `XS_UNWATCH`
    pub fn unwatch(&mut self, token: u32) {
        let Some(index) = self.watches.iter().position(|watch| watch.token == token) else {
            return;
        };
        let path = self.watches.swap_remove(index).path;
        let text = Decimal::new(token);
        // What can fail is that xenstored does not know it.
        let _ = self.request(Type::Unwatch, None, &[path.as_bytes(), b"\0", text.bytes(), b"\0"]);
    }

    /// Whether the watch has fired since this was last asked.
    pub fn fired(&mut self, token: u32) -> bool {
        self.drain();
        let watch = self.watches.iter_mut().find(|watch| watch.token == token);
        watch.is_some_and(|watch| core::mem::take(&mut watch.fired))
    }

    /// Whether a watch event has come since this was last asked. One that comes while somebody
    /// waits for an answer takes the channel's event with it: whoever sleeps next has to know.
    pub fn take_news(&mut self) -> bool {
        core::mem::take(&mut self.news)
    }

    /// Sends a request and waits for its answer.
    fn request(
        &mut self,
        kind: Type,
        within: Option<Transaction>,
        parts: &[&[u8]],
    ) -> Result<Vec<u8>, StoreError> {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        if len > MAX_PAYLOAD {
            return Err(StoreError::Quota);
        }
        self.next_id = self.next_id.wrapping_add(1);
        let header = Header {
            kind: kind as u32,
            req_id: self.next_id,
            tx_id: within.map_or(0, |transaction| transaction.0.get()),
            len: len as u32,
        };
        let mut patience = PATIENCE;
        for part in [&header.to_bytes()[..]].iter().chain(parts) {
            self.send(part, &mut patience)?;
        }
        self.line.notify();
        loop {
            match self.receive(&mut patience)? {
                Some(answer) if answer.header.req_id == header.req_id => {
                    // The channel's event may have stood for what is behind the answer, too.
                    self.drain();
                    return judge(kind, answer);
                }
                Some(_) => {}
                None => self.wait(patience)?,
            }
        }
    }

    fn wait(&mut self, patience: usize) -> Result<(), StoreError> {
        if patience == 0 {
            return Err(self.give_up());
        }
        self.line.wait();
        Ok(())
    }

    fn send(&mut self, mut bytes: &[u8], patience: &mut usize) -> Result<(), StoreError> {
        while !bytes.is_empty() {
            if self.broken {
                return Err(NONSENSE);
            }
            let written = self.requests.write(bytes).map_err(|_| self.give_up())?;
            bytes = &bytes[written..];
            if written == 0 {
                self.line.notify();
                // It may be waiting for us to make room in the other ring.
                while self.receive(patience)?.is_some() {}
                self.wait(*patience)?;
            }
        }
        Ok(())
    }

    /// The next message that is not a watch event, if one has arrived within as many bytes as
    /// `most`, from which those that came are taken; watch events are noted.
    fn receive(&mut self, most: &mut usize) -> Result<Option<Message>, StoreError> {
        loop {
            if self.broken {
                return Err(NONSENSE);
            }
            // No more than belongs to this message, so that the next one starts a new read.
            let mut buffer = [0; 64];
            let room = self.inbox.wanted().min(buffer.len()).min(*most);
            let buffer = &mut buffer[..room];
            let (count, was_full) = self.answers.read(buffer).map_err(|_| self.give_up())?;
            if count == 0 {
                return Ok(None);
            }
            *most -= count;
            if was_full {
                self.line.notify();
            }
            match self.inbox.feed(&mut &buffer[..count]).map_err(|_| self.give_up())? {
                Some(event) if event.header.kind == WATCH_EVENT => self.note(&event.payload),
                Some(message) => return Ok(Some(message)),
                None => {}
            }
        }
    }

    /// Takes all that has arrived; what is no watch event answers nobody's question. What arrives
    /// meanwhile has an event of its own.
    fn drain(&mut self) {
        let mut most = RING;
        while let Ok(Some(_)) = self.receive(&mut most) {}
    }

    fn note(&mut self, payload: &[u8]) {
        let token = wire::token(payload);
        if let Some(watch) = self.watches.iter_mut().find(|watch| Some(watch.token) == token) {
            watch.fired = true;
            self.news = true;
        }
    }

    fn give_up(&mut self) -> StoreError {
        self.broken = true;
        log::error!("xenstore protocol error, connection given up");
        NONSENSE
    }
}

/// A path as bytes, without zeros of its own.
fn checked(path: &str) -> Result<&[u8], StoreError> {
    if path.is_empty() || path.contains('\0') { Err(INVALID) } else { Ok(path.as_bytes()) }
}

/// What an answer says about the request.
fn judge(kind: Type, answer: Message) -> Result<Vec<u8>, StoreError> {
    match answer.header.kind {
        ERROR => Err(wire::error(&answer.payload)),
        answered if answered == kind as u32 => Ok(answer.payload),
        _ => Err(NONSENSE),
    }
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

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
