//! The client against a xenstored of a few lines, and against one that has gone mad.

mod silence;
mod xenstored;

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec;
use core::cell::Cell;
use core::sync::atomic::{AtomicU32, Ordering};
use std::format;

use proptest::prelude::*;

use super::*;
use crate::wire::{ERROR, HEADER, Header};

/// Each wait takes a second here, and a test that waits too often has failed before this is over.
const LIMIT: Duration = Duration::from_secs(20_000);

fn page() -> Words {
    [const { AtomicU32::new(0) }; 1024]
}

/// What the other end does each time the client waits for it: takes a request, gives answers.
type Behaviour<'a> = Box<dyn FnMut(Option<(Header, Vec<u8>)>) -> Vec<u8> + 'a>;

struct Daemon<'a> {
    page: &'a Words,
    requests: RefCell<Consumer>,
    answers: RefCell<Producer>,
    inbox: RefCell<Inbox>,
    behaviour: RefCell<Behaviour<'a>>,
    unsent: RefCell<Vec<u8>>,
    waits: Cell<u32>,
}

impl<'a> Daemon<'a> {
    fn new(page: &'a Words, behaviour: Behaviour<'a>) -> Daemon<'a> {
        Daemon {
            page,
            requests: RefCell::new(Consumer::new(page, REQUESTS)),
            answers: RefCell::new(Producer::new(page, ANSWERS)),
            inbox: RefCell::default(),
            behaviour: RefCell::new(behaviour),
            unsent: RefCell::default(),
            waits: Cell::new(0),
        }
    }
}

impl Transport for &Daemon<'_> {
    fn words(&self) -> &Words {
        self.page
    }

    fn notify(&self) {}

    fn now(&self) -> Duration {
        Duration::from_secs(self.waits.get().into())
    }

    fn wait(&self, _: Duration) {
        self.waits.set(self.waits.get() + 1);
        assert!(self.waits.get() < 10_000, "the client waits for ever");
        let mut buffer = [0; 100];
        let (count, _) =
            self.requests.borrow_mut().read(self.page, &mut buffer).unwrap_or((0, false));
        let mut rest = &buffer[..count];
        let mut unsent = self.unsent.borrow_mut();
        if rest.is_empty() {
            unsent.extend((self.behaviour.borrow_mut())(None));
        }
        while !rest.is_empty() {
            if let Some(message) = self.inbox.borrow_mut().feed(&mut rest).unwrap() {
                let request = (message.header, message.payload);
                unsent.extend((self.behaviour.borrow_mut())(Some(request)));
            }
        }
        let sent = self.answers.borrow_mut().write(self.page, &unsent).unwrap_or(0);
        unsent.drain(..sent);
    }
}

fn answer(kind: u32, req_id: u32, payload: &[u8]) -> Vec<u8> {
    let header = Header { kind, req_id, tx_id: 0, len: payload.len() as u32 };
    [&header.to_bytes()[..], payload].concat()
}

/// A xenstored that knows no permissions, and fires every watch at every write, many times.
fn honest<'a>() -> Behaviour<'a> {
    let mut nodes = BTreeMap::<Vec<u8>, Vec<u8>>::new();
    let mut tokens = Vec::<Vec<u8>>::new();
    Box::new(move |request| {
        let Some((header, payload)) = request else { return Vec::new() };
        let mut parts = payload.splitn(2, |&byte| byte == 0);
        let path = parts.next().unwrap_or_default().to_vec();
        let rest = parts.next().unwrap_or_default().to_vec();
        let mut out = Vec::new();
        let result: Result<Vec<u8>, &[u8]> = match header.kind {
            1 => Ok(nodes
                .keys()
                .filter_map(|key| key.strip_prefix(&[&path[..], b"/"].concat()[..]))
                .flat_map(|name| [name, b"\0"].concat())
                .collect()),
            2 => nodes.get(&path).cloned().ok_or(b"ENOENT\0"),
            4 => {
                tokens.push(rest.strip_suffix(b"\0").unwrap().to_vec());
                Ok(b"OK\0".to_vec())
            }
            5 => Ok(b"OK\0".to_vec()),
            6 => Ok(b"23\0".to_vec()),
            7 => Err(b"EAGAIN\0"),
            11 => {
                nodes.insert(path.clone(), rest);
                for token in &tokens {
                    for _ in 0..100 {
                        out.extend(answer(15, 0, &[&path[..], b"\0", token, b"\0"].concat()));
                    }
                }
                Ok(b"OK\0".to_vec())
            }
            13 => nodes.remove(&path).map(|_| b"OK\0".to_vec()).ok_or(b"ENOENT\0"),
            kind => panic!("request {kind}"),
        };
        out.extend(match result {
            Ok(payload) => answer(header.kind, header.req_id, &payload),
            Err(name) => answer(16, header.req_id, name),
        });
        out
    })
}

#[test]
fn an_honest_xenstored_is_understood() {
    let page = page();
    let daemon = Daemon::new(&page, honest());
    let mut client = Client::new(&daemon, LIMIT);
    assert_eq!(client.read(None, "a"), Err(StoreError::NotFound));
    assert_eq!(client.write(None, "d/a", b"1"), Ok(()));
    assert_eq!(client.write(None, "d/b", &[0xff; 4000]), Ok(()));
    assert_eq!(client.read(None, "d/a"), Ok(b"1".to_vec()));
    assert_eq!(client.read(None, "d/b"), Ok(vec![0xff; 4000]));
    assert_eq!(client.list(None, "d"), Ok(vec!["a".to_owned(), "b".to_owned()]));
    let transaction = client.begin().unwrap();
    assert_eq!(transaction.0.get(), 23);
    assert_eq!(client.commit(transaction), Err(StoreError::Again));
    assert_eq!(client.remove(None, "d/a"), Ok(()));
    assert_eq!(client.remove(None, "d/a"), Err(StoreError::NotFound));
}

#[test]
fn requests_that_cannot_be_sent_are_refused() {
    let page = page();
    let daemon = Daemon::new(&page, honest());
    let mut client = Client::new(&daemon, LIMIT);
    assert_eq!(client.read(None, "a\0b"), Err(StoreError::INVALID));
    assert_eq!(client.read(None, ""), Err(StoreError::INVALID));
    assert_eq!(client.write(None, "a", &[0; 4095]), Err(StoreError::Quota));
    assert_eq!(daemon.waits.get(), 0);
}

#[test]
fn p2_a_watch_is_one_bit_however_often_it_fires() {
    let page = page();
    let daemon = Daemon::new(&page, honest());
    let mut client = Client::new(&daemon, LIMIT);
    let one = client.watch("x").unwrap();
    let two = client.watch("y").unwrap();
    assert!(client.fired(&one), "it fires as soon as it is set");
    assert!(!client.fired(&one));
    for _ in 0..20 {
        client.write(None, "x", b"1").unwrap();
    }
    assert!(client.take_news(), "whoever sleeps has to know that events came with the answers");
    assert!(!client.take_news());
    assert!(client.fired(&one) && client.fired(&two));
    assert!(!client.fired(&one) && !client.fired(&two));
    client.read(None, "x").unwrap();
    assert!(!client.take_news());
    let gone = Watch(two.0);
    client.unwatch(two);
    client.write(None, "x", b"2").unwrap();
    assert!(client.fired(&one) && !client.fired(&gone));
    assert_eq!(client.watches.len(), 1);
}

#[test]
fn a_watch_event_behind_an_answer_is_not_left_there() {
    let page = page();
    let daemon = Daemon::new(
        &page,
        Box::new(|request| {
            let Some((header, _)) = request else { return Vec::new() };
            let event = answer(15, 0, b"d/a\x001\0");
            [answer(header.kind, header.req_id, b"OK\0"), event].concat()
        }),
    );
    let mut client = Client::new(&daemon, LIMIT);
    assert_eq!(client.watch("d"), Ok(Watch(1)));
    assert!(client.take_news(), "nobody announces that event again");
    assert_eq!(client.read(None, "d/a"), Ok(b"OK\0".to_vec()));
    assert!(client.take_news());
}

#[test]
fn a_resumed_client_talks_to_another_xenstored_and_watches_on() {
    let (old, new) = (page(), page());
    let (before, after) = (Daemon::new(&old, honest()), Daemon::new(&new, honest()));
    let mut client = Client::new(&before, LIMIT);
    let tokens = [client.watch("x").unwrap(), client.watch("y").unwrap()];
    for token in &tokens {
        assert!(client.fired(token));
    }
    client.write(None, "kept", b"1").unwrap();
    assert!(tokens.each_ref().map(|token| client.fired(token)) == [true; 2]);
    // Even if nothing went between them any more.
    old[515].store(5000, Ordering::Relaxed);
    assert_eq!(client.read(None, "kept"), Err(StoreError::Disconnected));

    client.resume(&after);
    assert_eq!(client.read(None, "kept"), Err(StoreError::NotFound));
    for _ in 0..2 {
        assert!(tokens.each_ref().map(|token| client.fired(token)) == [true; 2]);
        assert!(tokens.each_ref().map(|token| client.fired(token)) == [false; 2]);
        // The new one knows them by their old tokens.
        client.write(None, "x", b"1").unwrap();
    }
    let [first, second] = tokens;
    let old = [first.0, second.0];
    client.unwatch(first);
    let another = client.watch("z").unwrap();
    assert!(!old.contains(&another.0));
}

/// A directory of `names`, which changes after `changes[i]` parts have been sent.
fn large<'a>(mut names: Vec<Vec<u8>>, mut changes: Vec<u32>) -> Behaviour<'a> {
    let (mut generation, mut sent) = (1u32, 0);
    Box::new(move |request| {
        let Some((header, payload)) = request else { return Vec::new() };
        let list = names.iter().flat_map(|name| [&name[..], b"\0"].concat()).collect::<Vec<u8>>();
        let (path, rest) = wire::split_at_zero(&payload).unwrap();
        assert_eq!(path, b"d");
        if header.kind == 1 {
            return answer(16, header.req_id, b"E2BIG\0");
        }
        assert_eq!(header.kind, 22);
        let offset = wire::number(rest).unwrap() as usize;
        let part = &list[offset.min(list.len())..];
        let len = match part.get(..100) {
            Some(start) => start.iter().rposition(|&byte| byte == 0).unwrap() + 1,
            None => part.len(),
        };
        let end: &[u8] = if len == part.len() { b"\0" } else { b"" };
        let payload = [format!("{generation}\0").as_bytes(), &part[..len], end].concat();
        sent += 1;
        if changes.last() == Some(&sent) {
            changes.pop();
            names.push(b"new".to_vec());
            generation += 1;
            sent = 0;
        }
        answer(22, header.req_id, &payload)
    })
}

#[test]
fn a_directory_longer_than_a_message_comes_in_parts() {
    let names: Vec<String> = (0..200).map(|number| format!("name-{number}")).collect();
    let bytes = || names.iter().map(|name| name.clone().into_bytes()).collect::<Vec<_>>();
    let list = |behaviour| {
        let page = page();
        let daemon = Daemon::new(&page, behaviour);
        Client::new(&daemon, LIMIT).list(None, "d")
    };
    assert_eq!(list(large(bytes(), vec![])).unwrap(), names);
    assert_eq!(list(large(vec![], vec![])).unwrap(), Vec::<String>::new());
    // It grows while it is read.
    let grown = list(large(bytes(), vec![3, 7])).unwrap();
    assert_eq!(grown[..200], names);
    assert_eq!(grown[200..], ["new", "new"]);
    // It never stops growing.
    assert_eq!(list(large(bytes(), vec![1; 1000])), Err(StoreError::Quota));
}

#[test]
fn p3_a_directory_without_end_is_given_up() {
    for part in [&b"1\0x\0"[..], b"1\0x", b"1", b"1\0", b""] {
        let page = page();
        let daemon = Daemon::new(
            &page,
            Box::new(move |request| match request {
                Some((Header { kind: 1, req_id, .. }, _)) => answer(16, req_id, b"E2BIG\0"),
                Some((Header { req_id, .. }, _)) => answer(22, req_id, part),
                None => Vec::new(),
            }),
        );
        assert!(Client::new(&daemon, LIMIT).list(None, "d").is_err());
    }
}

#[test]
fn p3_types_and_ids_must_match() {
    let page = page();
    let mut round = 0;
    let daemon = Daemon::new(
        &page,
        Box::new(move |request| {
            let Some((header, _)) = request else { return Vec::new() };
            round += 1;
            match round {
                // Answers to nobody's question come first, then the wrong type.
                1 => [
                    answer(2, header.req_id + 1, b"no"),
                    answer(2, header.req_id.wrapping_sub(1), b"no"),
                    answer(11, header.req_id, b"no"),
                ]
                .concat(),
                2 => answer(2, header.req_id, b"yes"),
                // A payload beyond what is allowed, of the right type.
                _ => answer(2, header.req_id, &[1; 4097]),
            }
        }),
    );
    let mut client = Client::new(&daemon, LIMIT);
    assert_eq!(client.read(None, "a"), Err(StoreError::BadAnswer));
    assert_eq!(client.read(None, "a"), Ok(b"yes".to_vec()));
    assert_eq!(client.read(None, "a"), Err(StoreError::Disconnected));
}

#[test]
fn p3_any_type_and_length_of_an_answer_is_survived() {
    let page = page();
    let (kind, len) = (Cell::new(0), Cell::new(0));
    let daemon = Daemon::new(
        &page,
        Box::new(|request| {
            let Some((header, _)) = request else { return Vec::new() };
            answer(kind.get(), header.req_id, &vec![b'7'; len.get()])
        }),
    );
    let mut client = Client::new(&daemon, LIMIT);
    let transaction = Transaction(NonZeroU32::MIN);
    for answered in (0..30).filter(|kind| *kind != wire::WATCH_EVENT) {
        for length in [0, 1, 15, 16, 17, 4095, 4096] {
            kind.set(answered);
            len.set(length);
            let expected = |asked: Type| match answered {
                ERROR => Err(StoreError::Other(0)),
                answered if answered == asked as u32 => Ok(vec![b'7'; length]),
                _ => Err(StoreError::BadAnswer),
            };
            assert_eq!(client.read(None, "a"), expected(Type::Read));
            assert_eq!(client.write(None, "a", b"1"), expected(Type::Write).map(drop));
            assert_eq!(client.remove(None, "a"), expected(Type::Rm).map(drop));
            assert_eq!(client.commit(transaction), expected(Type::TransactionEnd).map(drop));
            let begun = client.begin();
            let is_number = answered == Type::TransactionStart as u32 && length == 1;
            assert_eq!(begun.is_ok(), is_number, "{begun:?}");
            let listed = client.list(None, "a").map(|names| names.concat().into_bytes());
            assert_eq!(listed, expected(Type::Directory));
        }
    }
}

#[test]
fn p3_mad_indices_break_the_connection_for_good() {
    let page = page();
    let daemon = Daemon::new(&page, Box::new(|_| Vec::new()));
    let mut client = Client::new(&daemon, LIMIT);
    page[515].store(5000, Ordering::Relaxed);
    assert_eq!(client.read(None, "a"), Err(StoreError::Disconnected));
    page[515].store(0, Ordering::Relaxed);
    assert_eq!(client.read(None, "a"), Err(StoreError::Disconnected));
    assert!(!client.fired(&Watch(1)));
}

#[test]
fn p3_names_and_values_are_hostile_bytes() {
    let page = page();
    let daemon = Daemon::new(
        &page,
        Box::new(|request| {
            let Some((header, _)) = request else { return Vec::new() };
            let payload: &[u8] = match header.kind {
                1 => b"\0\0ok\0\xff\xfe\0also",
                6 => b"0\0",
                _ => b"\0\xff",
            };
            answer(header.kind, header.req_id, payload)
        }),
    );
    let mut client = Client::new(&daemon, LIMIT);
    assert_eq!(client.list(None, "d"), Ok(vec!["ok".to_owned(), "also".to_owned()]));
    assert_eq!(client.read(None, "d"), Ok(b"\0\xff".to_vec()));
    assert_eq!(client.begin(), Err(StoreError::BadAnswer));
}

/// A xenstored that writes only when it is told that there is room, and what it does then.
struct WhenTold<'a> {
    page: &'a Words,
    answers: RefCell<Producer>,
    unsent: RefCell<Vec<u8>>,
    /// What to go on with when all is sent.
    again: &'a [u8],
    waits: Cell<u32>,
}

impl<'a> WhenTold<'a> {
    fn new(page: &'a Words, first: Vec<u8>, again: &'a [u8]) -> WhenTold<'a> {
        let answers = RefCell::new(Producer::new(page, ANSWERS));
        WhenTold { page, answers, unsent: RefCell::new(first), again, waits: Cell::default() }
    }
}

impl Transport for &WhenTold<'_> {
    fn words(&self) -> &Words {
        self.page
    }

    fn now(&self) -> Duration {
        Duration::from_secs(self.waits.get().into())
    }

    fn notify(&self) {
        let (mut unsent, mut answers) = (self.unsent.borrow_mut(), self.answers.borrow_mut());
        loop {
            if unsent.is_empty() {
                unsent.extend_from_slice(self.again);
            }
            let sent = answers.write(self.page, &unsent).unwrap();
            unsent.drain(..sent);
            if sent == 0 {
                return;
            }
        }
    }

    fn wait(&self, _: Duration) {
        self.waits.set(self.waits.get() + 1);
        assert!(self.waits.get() < 10_000, "the client waits for ever");
    }
}

#[test]
fn a_xenstored_that_waits_for_room_is_told_of_it() {
    let page = page();
    // Three times as long as the ring.
    let daemon = WhenTold::new(&page, answer(2, 1, &[7; 3000]), &[]);
    assert_eq!(Client::new(&daemon, LIMIT).read(None, "a"), Ok(vec![7; 3000]));
    assert_eq!(daemon.waits.get(), 0);
}

#[test]
fn p3_a_xenstored_that_never_stops_talking_is_not_listened_to_for_ever() {
    let event = answer(15, 0, b"x\x009\0");
    let stray = answer(2, 77, b"no");
    for chatter in [event, stray] {
        let page = page();
        let daemon = WhenTold::new(&page, Vec::new(), &chatter);
        let mut client = Client::new(&daemon, LIMIT);
        (&daemon).notify();
        assert!(!client.fired(&Watch(1)), "what is there is looked through once");
        assert_eq!(client.read(None, "a"), Err(StoreError::Disconnected));
        assert_eq!(client.read(None, "a"), Err(StoreError::Disconnected));
    }
}

#[test]
fn p3_nor_one_that_talks_instead_of_reading() {
    let page = page();
    let noise = answer(2, 77, &[0; 80]);
    let daemon = WhenTold::new(&page, Vec::new(), &noise);
    let mut client = Client::new(&daemon, LIMIT);
    // More than the ring of requests holds.
    assert_eq!(client.write(None, "a", &[0; 2000]), Err(StoreError::Disconnected));
}

proptest! {
    /// Whatever bytes come back, the client neither panics nor stops taking them.
    #[test]
    fn p3_any_bytes_are_survived(
        bytes in prop::collection::vec(any::<u8>(), 0..2000),
        kinds in prop::collection::vec(0u32..20, 0..10),
    ) {
        let page = page();
        let mut noise = bytes.chunks(HEADER * 7);
        let mut kinds = kinds.into_iter();
        let daemon = Daemon::new(
            &page,
            Box::new(move |request| {
                let noise = noise.next().unwrap_or(&[]);
                match (request, kinds.next()) {
                    (Some((header, _)), Some(kind)) => answer(kind, header.req_id, noise),
                    // In the end, what answers any request.
                    (_, None) => (0..50).flat_map(|id| answer(16, id, b"EIO\0")).collect(),
                    (None, _) => noise.to_vec(),
                }
            }),
        );
        let mut client = Client::new(&daemon, LIMIT);
        let _ = client.watch("w");
        for _ in 0..10 {
            let _ = client.read(None, "a");
            let _ = client.list(None, "a");
            client.fired(&Watch(1));
        }
    }
}
