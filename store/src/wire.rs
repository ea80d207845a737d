//! Xenstore messages as bytes (xen/io/xs_wire.h).
//!
//! ```text
//! 0 type u32   4 req_id u32   8 tx_id u32   12 len u32   16 payload[len], at most 4096
//! ```

use alloc::vec::Vec;

use arrayvec::ArrayVec;

use crate::StoreError;

/// `sizeof(struct xsd_sockmsg)`
pub const HEADER: usize = 16;
/// `XENSTORE_PAYLOAD_MAX`
pub const MAX_PAYLOAD: usize = 4096;

/// `enum xsd_sockmsg_type`, as far as we use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[repr(u32)]
pub enum Type {
    /// `XS_DIRECTORY`
    Directory = 1,
    /// `XS_READ`
    Read = 2,
    /// `XS_WATCH`
    Watch = 4,
    /// `XS_UNWATCH`
    Unwatch = 5,
    /// `XS_TRANSACTION_START`
    TransactionStart = 6,
    /// `XS_TRANSACTION_END`
    TransactionEnd = 7,
    /// `XS_WRITE`
    Write = 11,
    /// `XS_RM`
    Rm = 13,
    /// `XS_DIRECTORY_PART`
    DirectoryPart = 22,
}

/// `XS_WATCH_EVENT`: comes unasked.
pub const WATCH_EVENT: u32 = 15;
/// `XS_ERROR`: the answer to whatever failed.
pub const ERROR: u32 = 16;

/// A message's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// `XS_*`
    pub kind: u32,
    /// Chosen by us, returned with the answer.
    pub req_id: u32,
    /// The transaction, or 0.
    pub tx_id: u32,
    /// Bytes of payload.
    pub len: u32,
}

impl Header {
    /// As it goes over the wire.
    pub fn to_bytes(self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        let words = [self.kind, self.req_id, self.tx_id, self.len];
        for (chunk, word) in bytes.as_chunks_mut().0.iter_mut().zip(words) {
            *chunk = word.to_le_bytes();
        }
        bytes
    }

    /// From the wire.
    pub fn from_bytes(bytes: [u8; HEADER]) -> Header {
        let mut words = [0; 4];
        for (word, chunk) in words.iter_mut().zip(bytes.as_chunks().0) {
            *word = u32::from_le_bytes(*chunk);
        }
        let [kind, req_id, tx_id, len] = words;
        Header { kind, req_id, tx_id, len }
    }
}

/// A message that has arrived whole.
#[derive(PartialEq, Eq)]
pub struct Message {
    /// Its header.
    pub header: Header,
    /// Its payload.
    pub payload: Vec<u8>,
}

impl core::fmt::Debug for Message {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Message({:?})", self.header)
    }
}

/// A message's payload is longer than [`MAX_PAYLOAD`]: what follows cannot be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong;

impl core::fmt::Display for TooLong {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "a xenstore message of more than {MAX_PAYLOAD} bytes")
    }
}

impl core::error::Error for TooLong {}

/// Puts messages together from whatever pieces they arrive in.
#[derive(Default)]
pub struct Inbox {
    head: ArrayVec<u8, HEADER>,
    body: Vec<u8>,
    /// Bytes of the payload that are still to come.
    missing: usize,
}

impl Inbox {
    /// How many bytes the message under way still lacks; of a new one, its header's.
    pub fn wanted(&self) -> usize {
        if self.head.is_full() { self.missing } else { self.head.remaining_capacity() }
    }

    /// Takes bytes off the front of `bytes` until a message is whole.
    pub fn feed(&mut self, bytes: &mut &[u8]) -> Result<Option<Message>, TooLong> {
        if !self.head.is_full() {
            let part = take(bytes, self.head.remaining_capacity());
            self.head.extend(part.iter().copied());
            if !self.head.is_full() {
                return Ok(None);
            }
            self.missing = self.header().len as usize;
            if self.missing > MAX_PAYLOAD {
                return Err(TooLong);
            }
        }
        let part = take(bytes, self.missing);
        self.missing -= part.len();
        self.body.extend_from_slice(part);
        if self.missing > 0 {
            return Ok(None);
        }
        let header = self.header();
        self.head.clear();
        Ok(Some(Message { header, payload: core::mem::take(&mut self.body) }))
    }

    fn header(&self) -> Header {
        let mut bytes = [0; HEADER];
        for (to, from) in bytes.iter_mut().zip(&self.head) {
            *to = *from;
        }
        Header::from_bytes(bytes)
    }
}

fn take<'a>(bytes: &mut &'a [u8], most: usize) -> &'a [u8] {
    let (part, rest) = bytes.split_at(most.min(bytes.len()));
    *bytes = rest;
    part
}

/// The error that an `XS_ERROR` payload names (`xsd_errors`).
pub fn error(payload: &[u8]) -> StoreError {
    let name = payload.strip_suffix(b"\0").unwrap_or(payload);
    match name {
        b"ENOENT" => StoreError::NotFound,
        b"EACCES" | b"EPERM" => StoreError::Denied,
        b"EAGAIN" => StoreError::Again,
        b"ENOSPC" | b"E2BIG" | b"EQUOTA" => StoreError::Quota,
        b"EIO" => StoreError::Other(5),
        b"ENOMEM" => StoreError::Other(12),
        b"EBUSY" => StoreError::Other(16),
        b"EEXIST" => StoreError::Other(17),
        b"EISDIR" => StoreError::Other(21),
        b"EINVAL" => StoreError::Other(22),
        b"EROFS" => StoreError::Other(30),
        b"ENOSYS" => StoreError::Other(38),
        b"ENOTEMPTY" => StoreError::Other(39),
        b"EISCONN" => StoreError::Other(106),
        _ => StoreError::Other(0),
    }
}

/// The number in a payload that is a decimal number: a transaction's id, a watch's token.
pub fn number(payload: &[u8]) -> Option<u32> {
    let text = payload.strip_suffix(b"\0").unwrap_or(payload);
    core::str::from_utf8(text).ok()?.parse().ok()
}

/// What comes before the first zero of a payload, and after it.
pub fn split_at_zero(payload: &[u8]) -> Option<(&[u8], &[u8])> {
    let zero = payload.iter().position(|&byte| byte == 0)?;
    let (before, rest) = payload.split_at_checked(zero)?;
    Some((before, rest.strip_prefix(b"\0")?))
}

/// The path and the token in the payload of an `XS_WATCH_EVENT`: path, zero, token, zero.
pub fn watch_event(payload: &[u8]) -> Option<(&[u8], u32)> {
    let (path, rest) = split_at_zero(payload)?;
    let token = rest.split(|&byte| byte == 0).next()?;
    Some((path, number(token)?))
}

impl core::fmt::Debug for Inbox {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Inbox({} bytes wanted)", self.wanted())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message(kind: u32, req_id: u32, payload: &[u8]) -> Vec<u8> {
        let header = Header { kind, req_id, tx_id: 0, len: payload.len() as u32 };
        [&header.to_bytes()[..], payload].concat()
    }

    fn feed_all(inbox: &mut Inbox, mut bytes: &[u8]) -> Result<Vec<Message>, TooLong> {
        let mut messages = Vec::new();
        while !bytes.is_empty() {
            messages.extend(inbox.feed(&mut bytes)?);
        }
        Ok(messages)
    }

    #[test]
    fn p3_a_payload_is_4096_bytes_at_most() {
        let longest = message(2, 1, &[b'x'; 4096]);
        assert_eq!(feed_all(&mut Inbox::default(), &longest).unwrap().len(), 1);
        for len in [4097, 1 << 31, u32::MAX] {
            let header = Header { kind: 2, req_id: 1, tx_id: 0, len };
            assert_eq!(feed_all(&mut Inbox::default(), &header.to_bytes()), Err(TooLong));
        }
    }

    #[test]
    fn names_numbers_and_tokens() {
        assert_eq!(error(b"ENOENT\0"), StoreError::NotFound);
        assert_eq!(error(b"EAGAIN"), StoreError::Again);
        assert_eq!(error(b"\xff\0"), StoreError::Other(0));
        assert_eq!(number(b"17\0"), Some(17));
        assert_eq!(number(b"17x"), None);
        assert_eq!(number(b"4294967296"), None);
        assert_eq!(watch_event(b"a/b\x007\0"), Some((&b"a/b"[..], 7)));
        assert_eq!(watch_event(b"a/b"), None);
        assert_eq!(watch_event(b""), None);
    }

    proptest! {
        #[test]
        fn messages_survive_any_cutting(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..8),
            cuts in prop::collection::vec(1usize..40, 1..20),
        ) {
            let bytes: Vec<u8> = payloads
                .iter()
                .enumerate()
                .flat_map(|(i, payload)| message(2, i as u32, payload))
                .collect();
            let mut inbox = Inbox::default();
            let mut messages = Vec::new();
            let mut rest = &bytes[..];
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (part, after) = rest.split_at((*cut).min(rest.len()));
                messages.extend(feed_all(&mut inbox, part).unwrap());
                rest = after;
            }
            prop_assert_eq!(messages.len(), payloads.len());
            for (i, (message, payload)) in messages.iter().zip(&payloads).enumerate() {
                prop_assert_eq!(message.header.req_id, i as u32);
                prop_assert_eq!(&message.payload, payload);
            }
        }

        #[test]
        fn p3_no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = feed_all(&mut Inbox::default(), &bytes);
            error(&bytes);
            number(&bytes);
            watch_event(&bytes);
        }
    }
}
