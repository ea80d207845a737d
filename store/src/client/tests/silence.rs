//! A xenstored that sometimes says nothing.

use alloc::format;
use alloc::string::ToString;

use super::xenstored::{Mood, Xenstored};
use super::*;

const LIMIT: Duration = Duration::from_secs(5);

type Call = fn(&mut Client<&Xenstored<'_>>) -> Result<(), StoreError>;

fn unknown() -> Transaction {
    Transaction(NonZeroU32::MAX)
}

/// Every call that asks xenstored.
const CALLS: [(&str, Call); 10] = [
    ("read", |client| client.read(None, "a").map(drop)),
    ("write", |client| client.write(None, "a", b"1")),
    ("a long write", |client| client.write(None, "a", &[1; 4000])),
    ("list", |client| client.list(None, "a").map(drop)),
    ("remove", |client| client.remove(None, "a")),
    ("begin", |client| client.begin().map(drop)),
    ("commit", |client| client.commit(unknown())),
    ("abort", |client| {
        client.abort(unknown());
        Err(StoreError::TimedOut)
    }),
    ("watch", |client| client.watch("a").map(drop)),
    ("unwatch", |client| {
        client.unwatch(Watch(1));
        Err(StoreError::TimedOut)
    }),
];

#[test]
fn n3_every_call_ends_by_its_deadline() {
    for mood in [Mood::Mute, Mood::Deaf] {
        for (name, call) in CALLS {
            let page = page();
            let daemon = Xenstored::new(&page);
            let mut client = Client::new(&daemon, LIMIT);
            client.watch("w").unwrap();
            daemon.mood.set(mood);
            let (time, outcome) = daemon.time(|| call(&mut client));
            assert_eq!(outcome, Err(StoreError::TimedOut), "{name}, {mood:?}");
            assert_eq!(time, LIMIT, "{name}, {mood:?}");
        }
    }
}

#[test]
fn n3_a_silent_xenstored_holds_its_guest_up_once() {
    for mood in [Mood::Mute, Mood::Deaf] {
        let page = page();
        let daemon = Xenstored::new(&page);
        let mut client = Client::new(&daemon, LIMIT);
        client.watch("w").unwrap();
        client.take_news();
        daemon.mood.set(mood);
        assert_eq!(client.read(None, "a"), Err(StoreError::TimedOut));
        for (name, call) in CALLS {
            let (time, outcome) = daemon.time(|| call(&mut client));
            let expected = (Duration::ZERO, Err(StoreError::TimedOut));
            assert_eq!((time, outcome), expected, "{name}, {mood:?}");
        }
        // It answers again, which ends the guest's sleep: the guest knows that it was for something.
        daemon.mood.set(Mood::Answers);
        daemon.run();
        assert!(!client.fired(&Watch(9)) && client.take_news());
        assert_eq!(client.write(None, "a", b"1"), Ok(()));
        assert_eq!(client.read(None, "a"), Ok(b"1".to_vec()));
    }
}

#[test]
fn n3_a_directory_in_parts_is_one_call_with_one_deadline() {
    let page = page();
    // Each answer comes in time, and there is no end to them.
    let endless = Daemon::new(
        &page,
        Box::new(|request| match request {
            Some((Header { kind: 1, req_id, .. }, _)) => answer(ERROR, req_id, b"E2BIG\0"),
            Some((Header { req_id, .. }, _)) => answer(22, req_id, b"1\0name\0"),
            None => Vec::new(),
        }),
    );
    let mut client = Client::new(&endless, LIMIT);
    assert_eq!(client.list(None, "d"), Err(StoreError::TimedOut));
    assert_eq!(endless.waits.get(), 5, "a second each");
    // A longer limit, and the count of parts ends it.
    let mut client = Client::new(&endless, Duration::from_secs(1000));
    endless.waits.set(0);
    assert_eq!(client.list(None, "d"), Err(StoreError::Quota));
    assert_eq!(endless.waits.get(), 1 + MAX_PARTS);
}

#[test]
fn a_request_that_was_half_sent_is_sent_whole() {
    let page = page();
    let daemon = Xenstored::new(&page);
    let mut client = Client::new(&daemon, LIMIT);
    daemon.mood.set(Mood::Deaf);
    assert_eq!(client.write(None, "a", &[7; 3000]), Err(StoreError::TimedOut));
    daemon.mood.set(Mood::Answers);
    // Each look lets it have what the ring has room for.
    for _ in 0..4 {
        daemon.run();
        client.fired(&Watch(9));
    }
    assert_eq!(client.read(None, "a"), Ok(vec![7; 3000]));
}

#[test]
fn a_transaction_that_nobody_waits_for_is_ended() {
    let page = page();
    let daemon = Xenstored::new(&page);
    let mut client = Client::new(&daemon, LIMIT);
    daemon.mood.set(Mood::Mute);
    assert_eq!(client.begin(), Err(StoreError::TimedOut));
    assert_eq!(daemon.transactions(), 1);
    daemon.mood.set(Mood::Answers);
    daemon.run();
    assert_eq!(client.read(None, "a"), Err(StoreError::NotFound));
    assert_eq!(daemon.transactions(), 0);

    // Those that could not be ended in time are ended later, and keep nothing.
    let open: Vec<_> = (0..3).map(|_| client.begin().unwrap()).collect();
    client.write(Some(open[2]), "a", b"1").unwrap();
    daemon.mood.set(Mood::Deaf);
    assert_eq!(client.read(None, "a"), Err(StoreError::TimedOut));
    client.abort(open[0]);
    client.abort(open[1]);
    assert_eq!(client.commit(open[2]), Err(StoreError::TimedOut));
    daemon.mood.set(Mood::Answers);
    daemon.run();
    for left in [2, 1, 0] {
        daemon.seen.borrow_mut().clear();
        assert_eq!(client.read(None, "a"), Err(StoreError::NotFound));
        assert_eq!(*daemon.seen.borrow(), [7, 2], "one more in each call");
        assert_eq!(daemon.transactions(), left);
    }
}

#[test]
fn a_watch_that_nobody_has_is_taken_away() {
    let page = page();
    let daemon = Xenstored::new(&page);
    let mut client = Client::new(&daemon, LIMIT);
    let kept = client.watch("w").unwrap();
    let given_back = client.watch("w").unwrap();
    daemon.mood.set(Mood::Mute);
    assert_eq!(client.watch("w"), Err(StoreError::TimedOut));
    assert_eq!(daemon.watches(), 3, "it has been set all the same");
    // And what is refused at once leaves nothing behind, however often.
    for _ in 0..1000 {
        assert_eq!(client.watch("w"), Err(StoreError::TimedOut));
    }
    let gone = Watch(given_back.0);
    client.unwatch(given_back);
    daemon.mood.set(Mood::Answers);
    daemon.run();
    client.fired(&kept);
    assert!(!client.fired(&gone), "for its owner it is gone at once");
    daemon.set("/local/domain/1/w");
    assert!(client.fired(&kept));
    for left in [2, 1, 1] {
        let _ = client.read(None, "w");
        assert_eq!(daemon.watches(), left);
    }
    assert_eq!(client.watches.len(), 1);
}

#[test]
fn n3_resuming_ends_by_its_deadline_and_no_watch_is_lost() {
    let (old, new) = (page(), page());
    let before = Xenstored::new(&old);
    let mut client = Client::new(&before, LIMIT);
    let watches: Vec<_> =
        (0..4).map(|number: u8| client.watch(&number.to_string()).unwrap()).collect();
    watches.iter().for_each(|watch| assert!(client.fired(watch)));
    let after = Xenstored::new(&new);
    after.mood.set(Mood::Mute);
    let (time, ()) = after.time(|| client.resume(&after));
    assert_eq!(time, LIMIT);
    watches.iter().for_each(|watch| assert!(client.fired(watch), "all is looked at again"));
    after.mood.set(Mood::Answers);
    after.run();
    for call in 0..4 {
        after.seen.borrow_mut().clear();
        let _ = client.read(None, "a");
        assert_eq!(*after.seen.borrow(), [4, 2], "one more in call {call}");
    }
    assert_eq!(after.watches(), 4);
    for (number, watch) in watches.iter().enumerate() {
        assert!(client.fired(watch), "what changed before it was set");
        after.set(&format!("/local/domain/1/{number}"));
        assert!(client.fired(watch) && !client.fired(watch));
    }
}

#[test]
fn a_watch_given_back_in_silence_is_not_set_again_after_resuming() {
    let (old, new) = (page(), page());
    let before = Xenstored::new(&old);
    let mut client = Client::new(&before, LIMIT);
    let [kept, given_back] = ["a", "b"].map(|path| client.watch(path).unwrap());
    before.mood.set(Mood::Deaf);
    client.unwatch(given_back);
    assert_eq!(client.read(None, "a"), Err(StoreError::TimedOut));
    let after = Xenstored::new(&new);
    client.resume(&after);
    assert_eq!(client.read(None, "a"), Err(StoreError::NotFound));
    assert_eq!(*after.seen.borrow(), [4, 2], "one watch, and nothing of the old ones");
    assert!(client.fired(&kept));
}

#[test]
fn p2_watches_and_what_is_left_over_are_bounded() {
    let page = page();
    let daemon = Xenstored::new(&page);
    let mut client = Client::new(&daemon, LIMIT);
    for _ in 0..MAX_WATCHES {
        client.watch("w").unwrap();
    }
    daemon.seen.borrow_mut().clear();
    assert_eq!(client.watch("w"), Err(StoreError::Quota));
    assert!(daemon.seen.borrow().is_empty(), "xenstored isn't even asked");
    daemon.mood.set(Mood::Deaf);
    for _ in 0..1000 {
        client.abort(unknown());
    }
    assert!(client.orphans.len() <= 16);
}

#[test]
fn p3_an_answer_before_the_request_has_been_read() {
    let page = page();
    let mut client = Client::new(Hasty { page: &page, waits: Cell::default() }, LIMIT);
    assert_eq!(client.write(None, "a", &[7; 3000]), Ok(()));
    // The rest goes first, and while there is no room for it nothing does.
    let sent = page[513].load(Ordering::Relaxed);
    assert_eq!(sent, 1024);
    assert_eq!(client.read(None, "a"), Err(StoreError::TimedOut));
    page[512].store(1024, Ordering::Relaxed);
    assert_eq!(client.read(None, "a"), Err(StoreError::TimedOut));
    assert_eq!(page[513].load(Ordering::Relaxed), 2048);
    page[512].store(2048, Ordering::Relaxed);
    client.fired(&Watch(1));
    assert_eq!(page[513].load(Ordering::Relaxed), 16 + 2 + 3000);
}

/// Answers the first request before it has read it.
struct Hasty<'a> {
    page: &'a Words,
    waits: Cell<u32>,
}

impl Transport for Hasty<'_> {
    fn words(&self) -> &Words {
        self.page
    }

    fn notify(&self) {}

    fn now(&self) -> Duration {
        Duration::from_secs(self.waits.get().into())
    }

    fn wait(&self, _: Duration) {
        if self.waits.replace(self.waits.get() + 1) == 0 {
            let mut answers = Producer::new(self.page, ANSWERS);
            answers.write(self.page, &answer(11, 1, b"OK\0")).unwrap();
        }
    }
}

#[test]
fn p2_a_flood_of_events_for_anybody_is_kept_in_a_bit() {
    let page = page();
    let daemon = Xenstored::new(&page);
    let mut client = Client::new(&daemon, LIMIT);
    let watch = client.watch("w").unwrap();
    for round in 0..1000 {
        daemon.unsent.borrow_mut().extend(answer(15, 0, format!("w\0{round}\0").as_bytes()));
        daemon.set("/local/domain/1/w/below");
        if round % 10 == 0 {
            client.fired(&watch);
        }
    }
    while !daemon.unsent.borrow().is_empty() {
        daemon.run();
        client.fired(&watch);
    }
    client.fired(&watch);
    assert!(client.take_news() && !client.fired(&watch));
    assert_eq!((client.watches.len(), client.outbox.len()), (1, 16 + 4));
    assert_eq!(client.read(None, "w/below"), Ok(b"x".to_vec()));
}

#[test]
fn a_client_in_a_cell_is_a_store() {
    let page = page();
    let daemon = Xenstored::new(&page);
    let client = RefCell::new(Client::new(&daemon, LIMIT));
    fn use_it<S: Store>(store: S) {
        let watch = store.watch("d").unwrap();
        assert!(store.fired(&watch));
        let transaction = store.begin().unwrap();
        store.write(Some(transaction), "d/a", b"1").unwrap();
        assert_eq!(store.read(None, "d/a"), Err(StoreError::NotFound));
        store.commit(transaction).unwrap();
        assert!(store.fired(&watch));
        assert_eq!(store.list(None, "d").unwrap(), ["a"]);
        let transaction = store.begin().unwrap();
        store.remove(Some(transaction), "d").unwrap();
        store.abort(transaction);
        assert_eq!(store.read(None, "d/a").unwrap(), b"1");
        store.remove(None, "d").unwrap();
        store.unwatch(watch);
    }
    use_it(&client);
    assert_eq!((daemon.watches(), daemon.transactions()), (0, 0));
    let busy = client.borrow_mut();
    assert_eq!(client.read(None, "d"), Err(BUSY));
    drop(busy);
}

proptest! {
    /// Whenever xenstored falls silent: no call is late, no answer is taken for another's, and in the
    /// end xenstored keeps nothing for us that we don't know of.
    #[test]
    fn n3_silence_at_any_moment(
        steps in prop::collection::vec((0..10usize, 0..8u8), 1..120),
    ) {
        let page = page();
        let daemon = Xenstored::new(&page);
        let mut client = Client::new(&daemon, LIMIT);
        let (mut watches, mut open) = (Vec::new(), Vec::new());
        for (step, mood) in steps {
            daemon.mood.set(match mood {
                0 => Mood::Mute,
                1 => Mood::Deaf,
                _ => Mood::Answers,
            });
            daemon.run();
            let begun = daemon.now.get();
            match step {
                0 => watches.extend(client.watch("w")),
                1 => watches.pop().into_iter().for_each(|watch| client.unwatch(watch)),
                2 => open.extend(client.begin()),
                3 => open.pop().into_iter().for_each(|begun| client.abort(begun)),
                4 => drop(open.pop().map(|begun| client.commit(begun))),
                5 => drop(client.write(None, "w", &[5; 1500])),
                6 => drop(open.last().map(|begun| client.write(Some(*begun), "w", b"1"))),
                7 => {
                    let names = client.list(None, "/local/domain/1").unwrap_or_default();
                    prop_assert!(names.is_empty() || names == ["w"]);
                }
                _ => {
                    let value = client.read(None, "w").unwrap_or_default();
                    prop_assert!(value.is_empty() || value == b"1" || value == [5; 1500]);
                }
            }
            prop_assert!(daemon.now.get() - begun <= LIMIT);
        }
        daemon.mood.set(Mood::Answers);
        // One leftover a call; there are no more than steps.
        for _ in 0..120 {
            daemon.run();
            let _ = client.read(None, "/local");
        }
        prop_assert_eq!(daemon.watches(), watches.len());
        prop_assert_eq!(daemon.transactions(), open.len());
        prop_assert_eq!(client.watches.len(), watches.len());
        prop_assert!(client.read(None, "/local").is_ok());
    }
}

#[test]
fn p2_a_watch_remembers_where_if_it_is_asked_to() {
    let page = page();
    let xenstored = Xenstored::new(&page);
    let mut client = Client::new(&xenstored, LIMIT);
    let watch = client.watch_below("backend/vif", 2).unwrap();
    assert_eq!(client.changes(&watch), Changes::Anywhere, "it is new");
    assert_eq!(client.changes(&watch), Changes::None);
    for node in ["3/0/state", "3/0/online", "4/0/state", "5"] {
        xenstored.set(&format!("/local/domain/1/backend/vif/{node}"));
    }
    let at = |places: &[&str]| Changes::At(places.iter().map(|place| place.to_string()).collect());
    assert_eq!(client.changes(&watch), at(&["3/0", "4/0", "5"]));
    assert_eq!(client.changes(&watch), Changes::None);
    xenstored.set("/local/domain/1/backend/vif");
    xenstored.set("/local/domain/1/backend/vif/3/0/state");
    assert_eq!(client.changes(&watch), Changes::Anywhere);

    // A further path, which is somewhere else.
    let part = client.watch_also(&watch, "data/3", "3/0").unwrap();
    assert_eq!(client.changes(&watch), at(&["3/0"]), "it fires as soon as it is set");
    xenstored.set("/local/domain/1/data/3/state");
    xenstored.set("/local/domain/1/backend/vif/7/0/state");
    assert_eq!(
        (client.changes(&part), client.changes(&watch)),
        (Changes::None, at(&["3/0", "7/0"]))
    );
    assert_eq!(xenstored.watches(), 2);

    // One that remembers nothing.
    let plain = client.watch("data").unwrap();
    let _ = client.changes(&plain);
    xenstored.set("/local/domain/1/data/x");
    assert_eq!(client.changes(&plain), Changes::Anywhere);
    client.resume(&xenstored);
    assert_eq!(client.changes(&watch), Changes::Anywhere, "after a resume all is looked at");

    client.unwatch(part);
    client.unwatch(plain);
    let _ = client.changes(&watch);
    xenstored.set("/local/domain/1/data/3/state");
    assert_eq!((client.changes(&watch), xenstored.watches()), (Changes::None, 1));
}
