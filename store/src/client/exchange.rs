//! One request and its answer, and what arrives unasked.

use alloc::vec::Vec;
use core::time::Duration;

use super::{ANSWERS, Client, Transport, transaction};
use crate::changes::place_below;
use crate::wire::{self, ERROR, Header, MAX_PAYLOAD, Message, Type, WATCH_EVENT};
use crate::{StoreError, Transaction};

/// The most bytes that may come before a request's answer is done. Who sends more answers nothing.
const MAX_BYTES: usize = 1 << 20;

/// A request whose answer has not come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pending {
    req_id: u32,
    kind: Type,
}

impl<T: Transport> Client<T> {
    /// By when a call that begins now is over.
    pub(super) fn deadline(&self) -> Duration {
        self.transport.now().saturating_add(self.limit)
    }

    /// A call that is one request.
    pub(super) fn request(
        &mut self,
        kind: Type,
        within: Option<Transaction>,
        parts: &[&[u8]],
    ) -> Result<Vec<u8>, StoreError> {
        let deadline = self.deadline();
        self.settle(deadline)?;
        self.exchange(kind, within, parts, deadline)
    }

    /// What is left over from earlier calls comes before a new one: an answer that is owed, and one
    /// thing that xenstored has not been told yet.
    pub(super) fn settle(&mut self, deadline: Duration) -> Result<(), StoreError> {
        self.drain();
        self.ready()?;
        self.tell_next(deadline)
    }

    /// Whether xenstored has answered, and taken in, all that it was sent.
    fn ready(&self) -> Result<(), StoreError> {
        if self.broken {
            return Err(StoreError::Disconnected);
        }
        let silent = self.pending.is_some() || self.sent < self.outbox.len();
        if silent { Err(StoreError::TimedOut) } else { Ok(()) }
    }

    /// Sends a request and waits for its answer.
    pub(super) fn exchange(
        &mut self,
        kind: Type,
        within: Option<Transaction>,
        parts: &[&[u8]],
        deadline: Duration,
    ) -> Result<Vec<u8>, StoreError> {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        if len > MAX_PAYLOAD {
            return Err(StoreError::Quota);
        }
        self.ready()?;
        self.next_id = self.next_id.wrapping_add(1);
        let header = Header {
            kind: kind as u32,
            req_id: self.next_id,
            tx_id: within.map_or(0, |transaction| transaction.0.get()),
            len: len as u32,
        };
        self.outbox.clear();
        self.sent = 0;
        self.outbox.extend_from_slice(&header.to_bytes());
        parts.iter().for_each(|part| self.outbox.extend_from_slice(part));
        self.pending = Some(Pending { req_id: self.next_id, kind });

        let mut most = MAX_BYTES;
        loop {
            self.send()?;
            while let Some(message) = self.receive(&mut most)? {
                if self.answers_pending(&message).is_some() {
                    // The channel's event may have stood for what is behind the answer, too.
                    self.drain();
                    return judge(kind, message);
                }
            }
            if most == 0 {
                return Err(self.give_up());
            }
            if self.transport.now() >= deadline {
                log::warn!("xenstore has not answered in time");
                return Err(StoreError::TimedOut);
            }
            self.transport.wait(deadline);
        }
    }

    /// Puts as much of the last request into the ring as there is room for.
    fn send(&mut self) -> Result<(), StoreError> {
        let rest = self.outbox.get(self.sent..).unwrap_or_default();
        if self.broken || rest.is_empty() {
            return Ok(());
        }
        match self.requests.write(self.transport.words(), rest) {
            Ok(written) => self.sent += written,
            Err(_) => return Err(self.give_up()),
        }
        self.transport.notify();
        Ok(())
    }

    /// The request that a message answers, which is over then.
    fn answers_pending(&mut self, message: &Message) -> Option<Pending> {
        self.pending.take_if(|pending| pending.req_id == message.header.req_id)
    }

    /// The next message that is not a watch event, if one has arrived within as many bytes as
    /// `most`, from which those that came are taken; watch events are noted.
    fn receive(&mut self, most: &mut usize) -> Result<Option<Message>, StoreError> {
        loop {
            if self.broken {
                return Err(StoreError::Disconnected);
            }
            // No more than belongs to this message, so that the next one starts a new read.
            let mut buffer = [0; 64];
            let room = self.inbox.wanted().min(buffer.len()).min(*most);
            let buffer = &mut buffer[..room];
            let (count, was_full) = match self.answers.read(self.transport.words(), buffer) {
                Ok(read) => read,
                Err(_) => return Err(self.give_up()),
            };
            if count == 0 {
                return Ok(None);
            }
            *most -= count;
            if was_full {
                self.transport.notify();
            }
            match self.inbox.feed(&mut &buffer[..count]) {
                Err(_) => return Err(self.give_up()),
                Ok(Some(event)) if event.header.kind == WATCH_EVENT => self.note(&event.payload),
                Ok(Some(message)) => return Ok(Some(message)),
                Ok(None) => {}
            }
        }
    }

    /// Takes all that has arrived, no more than the ring holds: an answer that was owed; any other
    /// answers nobody's question. What arrives meanwhile has an event of its own.
    pub(super) fn drain(&mut self) {
        // If it cannot be sent, nothing can be received either.
        let _ = self.send();
        let mut most = ANSWERS.size();
        while let Ok(Some(message)) = self.receive(&mut most) {
            let Some(late) = self.answers_pending(&message) else { continue };
            self.news = true;
            if late.kind == Type::TransactionStart
                && let Ok(payload) = judge(late.kind, message)
                && let Some(nobodys) = transaction(&payload)
            {
                self.orphan(nobodys);
            }
        }
    }

    fn note(&mut self, payload: &[u8]) {
        let Some((path, token)) = wire::watch_event(payload) else { return };
        let Some(watch) = self.watches.iter_mut().find(|watch| watch.token == token) else {
            return;
        };
        self.news = true;
        match &watch.part_of {
            None => {
                // A path that is no text, or not below the watched one, may stand for anything.
                let path = str::from_utf8(path).ok();
                let place = path.and_then(|path| place_below(path, &watch.path));
                watch.fired.note(place.unwrap_or_default(), watch.depth);
            }
            Some((whole, place)) => {
                let (whole, place) = (*whole, place.clone());
                self.note_at(whole, &place);
            }
        }
    }

    /// A part of a watch has fired.
    pub(super) fn note_at(&mut self, token: u32, place: &str) {
        if let Some(whole) = self.watches.iter_mut().find(|watch| watch.token == token) {
            whole.fired.note(place, usize::MAX);
        }
    }

    fn give_up(&mut self) -> StoreError {
        self.broken = true;
        log::error!("xenstore protocol error, connection given up");
        StoreError::Disconnected
    }
}

/// What an answer says about the request.
fn judge(kind: Type, answer: Message) -> Result<Vec<u8>, StoreError> {
    match answer.header.kind {
        ERROR => Err(wire::error(&answer.payload)),
        answered if answered == kind as u32 => Ok(answer.payload),
        _ => Err(StoreError::BadAnswer),
    }
}
