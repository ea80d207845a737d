//! A xenstored behind the wire: the tree in memory, and moods.

use core::cell::Cell;

use super::*;
use crate::client::leftovers::EXISTS;
use crate::memory::{Access, Effects, Perms, Quota, Tree};
use crate::wire::MAX_PAYLOAD;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// Takes a request in and answers it.
    Answers,
    /// Takes requests in, and keeps its answers for later.
    Mute,
    /// Takes nothing in.
    Deaf,
}

/// Domain 1's end of a xenstored.
pub(super) struct Xenstored<'a> {
    page: &'a Words,
    requests: RefCell<Consumer>,
    answers: RefCell<Producer>,
    inbox: RefCell<Inbox>,
    pub unsent: RefCell<Vec<u8>>,
    tree: RefCell<Tree>,
    /// The tree's watches: what the client watches, and what it calls that.
    tokens: RefCell<BTreeMap<u32, (String, Vec<u8>)>>,
    pub mood: Cell<Mood>,
    /// How long an answer takes.
    pace: Cell<Duration>,
    pub now: Cell<Duration>,
    /// What has been asked.
    pub seen: RefCell<Vec<u32>>,
}

impl<'a> Xenstored<'a> {
    pub fn new(page: &'a Words) -> Xenstored<'a> {
        // What is said is tested here, not who may: the home is the domain's own, and takes all that
        // fits a message.
        let mut tree = Tree::default();
        tree.set_quota(Quota { entry: 2 * MAX_PAYLOAD, ..Quota::default() });
        let everybody = |owner| Perms { others: Access::READ, ..Perms::of(owner) };
        for (path, owner) in [("/local", 0), ("/local/domain/1", 1)] {
            let _ = tree.write(0, None, path, b"");
            let _ = tree.set_perms(0, None, path, everybody(owner));
        }
        Xenstored {
            page,
            requests: RefCell::new(Consumer::new(page, REQUESTS)),
            answers: RefCell::new(Producer::new(page, ANSWERS)),
            inbox: RefCell::default(),
            unsent: RefCell::default(),
            tree: RefCell::new(tree),
            tokens: RefCell::default(),
            mood: Cell::new(Mood::Answers),
            pace: Cell::new(Duration::from_millis(1)),
            now: Cell::default(),
            seen: RefCell::default(),
        }
    }

    /// How long a call takes, and what comes of it.
    pub fn time<T>(&self, call: impl FnOnce() -> T) -> (Duration, T) {
        let begun = self.now.get();
        let outcome = call();
        (self.now.get() - begun, outcome)
    }

    pub fn run(&self) {
        if self.mood.get() == Mood::Deaf {
            return;
        }
        let mut buffer = [0; 1024];
        let (count, _) = self.requests.borrow_mut().read(self.page, &mut buffer).unwrap();
        let mut rest = &buffer[..count];
        while !rest.is_empty() {
            let message = self.inbox.borrow_mut().feed(&mut rest).unwrap();
            if let Some(message) = message {
                self.serve(message.header, &message.payload);
            }
        }
        if self.mood.get() == Mood::Answers {
            let mut unsent = self.unsent.borrow_mut();
            let sent = self.answers.borrow_mut().write(self.page, &unsent).unwrap();
            unsent.drain(..sent);
        }
    }

    fn serve(&self, header: Header, payload: &[u8]) {
        self.seen.borrow_mut().push(header.kind);
        let mut tree = self.tree.borrow_mut();
        let within = NonZeroU32::new(header.tx_id).map(Transaction);
        let (path, rest) = wire::split_at_zero(payload).unwrap_or((payload, b""));
        let path = str::from_utf8(path).unwrap();
        let (mut events, mut set) = (Vec::new(), None);
        let changed = |effects: Effects| {
            events = effects.events;
            b"OK\0".to_vec()
        };
        let outcome = match header.kind {
            1 => tree.list(1, within, path).map(|names| {
                names.iter().flat_map(|name| [name.as_bytes(), b"\0"].concat()).collect()
            }),
            2 => tree.read(1, within, path),
            4 => {
                let mut tokens = self.tokens.borrow_mut();
                let token = rest.strip_suffix(b"\0").unwrap();
                match tokens.values().any(|(_, known)| known == token) {
                    true => Err(EXISTS),
                    false => tree.watch(1, path).map(|watch| {
                        tokens.insert(watch.0, (path.to_owned(), token.to_vec()));
                        set = Some(watch.0);
                        b"OK\0".to_vec()
                    }),
                }
            }
            5 => {
                let mut tokens = self.tokens.borrow_mut();
                let token = rest.strip_suffix(b"\0").unwrap();
                let watch = tokens.iter().find(|(_, (_, known))| known == token).map(|(id, _)| *id);
                watch.ok_or(StoreError::NotFound).map(|id| {
                    tokens.remove(&id);
                    tree.unwatch(1, &Watch(id));
                    b"OK\0".to_vec()
                })
            }
            6 => tree.begin(1).map(|begun| format!("{}\0", begun.0).into_bytes()),
            7 => match payload {
                b"T\0" => tree.commit(1, within.unwrap()).map(changed),
                _ => tree.abort(1, within.unwrap()).map(|()| b"OK\0".to_vec()),
            },
            11 => tree.write(1, within, path, rest).map(changed),
            13 => tree.remove(1, within, path).map(changed),
            kind => panic!("request {kind}"),
        };
        let mut unsent = self.unsent.borrow_mut();
        unsent.extend(match outcome {
            Ok(payload) => answer(header.kind, header.req_id, &payload),
            Err(StoreError::NotFound) => answer(ERROR, header.req_id, b"ENOENT\0"),
            Err(StoreError::Again) => answer(ERROR, header.req_id, b"EAGAIN\0"),
            Err(StoreError::Quota) => answer(ERROR, header.req_id, b"EQUOTA\0"),
            Err(EXISTS) => answer(ERROR, header.req_id, b"EEXIST\0"),
            Err(_) => answer(ERROR, header.req_id, b"EINVAL\0"),
        });
        // One that is set fires with the path that it has.
        let first = set.map(|watch| (watch, path.to_owned()));
        let events = events.into_iter().map(|event| (event.watch, event.path));
        for (watch, path) in events.chain(first) {
            unsent.extend(self.event(watch, &path));
        }
    }

    /// Changes a node behind the client's back.
    pub fn set(&self, path: &str) {
        let effects = self.tree.borrow_mut().write(0, None, path, b"x").unwrap();
        for event in effects.events {
            self.unsent.borrow_mut().extend(self.event(event.watch, &event.path));
        }
        self.run();
    }

    /// A watch event, if the watch is still there: its path begins as the watch's does.
    fn event(&self, watch: u32, path: &str) -> Vec<u8> {
        let tokens = self.tokens.borrow();
        let Some((watched, token)) = tokens.get(&watch) else { return Vec::new() };
        let home = if watched.starts_with('/') { "" } else { "/local/domain/1/" };
        let path = path.strip_prefix(home).unwrap_or(path);
        answer(15, 0, &[path.as_bytes(), b"\0", token, b"\0"].concat())
    }

    pub fn watches(&self) -> usize {
        self.tree.borrow().watches_of(1)
    }

    pub fn transactions(&self) -> usize {
        self.tree.borrow().transactions_of(1)
    }
}

impl Transport for &Xenstored<'_> {
    fn words(&self) -> &Words {
        self.page
    }

    fn notify(&self) {}

    fn now(&self) -> Duration {
        self.now.get()
    }

    fn wait(&self, until: Duration) {
        let pause = match self.mood.get() {
            Mood::Answers => self.pace.get(),
            // Comes back early, too.
            Mood::Mute | Mood::Deaf => Duration::from_millis(700),
        };
        assert!(self.now.get() < until, "it is over, and the client waits");
        self.now.set((self.now.get() + pause).min(until));
        self.run();
    }
}
