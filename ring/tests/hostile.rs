//! Rings against a peer that writes what it likes (requirements F1 to F5, B1, B3, B4).
#![cfg(not(loom))]
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{Net, Page};
use proptest::prelude::*;
use xen_ring::{BackRing, FrontRing, InFlight, Notify, PeerFault};

const REQ_PROD: usize = 0;
const RSP_PROD: usize = 2;
const RSP_EVENT: usize = 3;

/// Where index arithmetic goes wrong, if it does.
fn boundaries() -> Vec<u32> {
    let around = |n: u32| [n.wrapping_sub(1), n, n.wrapping_add(1)];
    [0, 1, 255, 256, 257, 0x7fff_ffff, 0x8000_0000, 0xffff_ff00, u32::MAX]
        .into_iter()
        .flat_map(around)
        .collect()
}

#[test]
fn f1_every_impossible_response_index_is_a_fault() {
    for start in boundaries() {
        for published in [0, 1, 17, 255, 256] {
            for shared in boundaries().into_iter().chain((0..260).map(|n| start.wrapping_add(n))) {
                let page = Page::zeroed();
                let mut front = FrontRing::<Net, _>::starting_at(page.clone(), start);
                for n in 0..published {
                    front.push([n; 3]).unwrap();
                }
                let _ = front.publish();
                page.set(RSP_PROD, shared);
                let there = shared.wrapping_sub(start);
                if there <= published {
                    assert_eq!(front.refresh(), Ok(there), "{start} {published} {shared}");
                } else {
                    let fault =
                        PeerFault::IndexOverrun { shared, consumed: start, most: published };
                    assert_eq!(front.refresh(), Err(fault));
                    assert!(front.pop().is_none(), "nothing comes out of a poisoned ring");
                    page.set(RSP_PROD, start);
                    assert_eq!(front.refresh(), Err(fault), "and it stays poisoned");
                }
            }
        }
    }
}

#[test]
fn f1_a_response_index_that_goes_back_is_a_fault() {
    let page = Page::zeroed();
    let mut front = FrontRing::<Net, _>::new(page.clone());
    for n in 0..10 {
        front.push([n; 3]).unwrap();
    }
    let _ = front.publish();
    page.set(RSP_PROD, 5);
    assert_eq!(front.refresh(), Ok(5));
    page.set(RSP_PROD, 4);
    assert!(matches!(front.refresh(), Err(PeerFault::IndexOverrun { shared: 4, .. })));
}

#[test]
fn b1_every_impossible_request_index_is_a_fault() {
    for start in boundaries() {
        for shared in boundaries().into_iter().chain((0..260).map(|n| start.wrapping_add(n))) {
            let page = Page::zeroed();
            drop(FrontRing::<Net, _>::starting_at(page.clone(), start));
            let mut back = BackRing::<Net, _>::attach(page.clone()).unwrap();
            page.set(REQ_PROD, shared);
            let there = shared.wrapping_sub(start);
            match back.refresh() {
                Ok(found) => assert!(found == there && there <= 256),
                Err(_) => {
                    assert!(there > 256, "{start} {shared}");
                    assert!(back.pop().is_none());
                    assert!(back.arm().is_err());
                }
            }
        }
    }
}

#[test]
fn b1_requests_in_work_count_against_the_ring() {
    let page = Page::zeroed();
    let mut front = FrontRing::<Net, _>::new(page.clone());
    let mut back = BackRing::<Net, _>::attach(page.clone()).unwrap();
    for n in 0..256 {
        front.push([n; 3]).unwrap();
    }
    let _ = front.publish();
    assert_eq!(back.refresh(), Ok(256));
    for _ in 0..10 {
        back.pop().unwrap();
    }
    page.set(REQ_PROD, 257);
    assert!(back.refresh().is_err(), "10 are in work: slot 256 is still theirs");
}

#[test]
fn f2_each_word_read_once() {
    let page = Page::zeroed();
    let mut front = FrontRing::<Net, _>::new(page.clone());
    for n in 0..100 {
        front.push([n; 3]).unwrap();
    }
    let _ = front.publish();
    page.set(RSP_PROD, 100);
    page.forget_counts();
    assert_eq!(front.refresh(), Ok(100));
    while front.pop().is_some() {}
    assert_eq!(page.loads(RSP_PROD), 1, "the index once a batch");
    for slot in 0..100 {
        assert_eq!(page.loads(16 + slot * 3), 1, "the response's one word once");
        assert_eq!(page.loads(16 + slot * 3 + 1), 0);
    }
}

#[test]
fn f2_a_private_copy_does_not_change() {
    // Every load of a word sees another value than the one before; what was popped stays.
    let page = Page::zeroed();
    let mut front = FrontRing::<Net, _>::new(page.clone());
    front.push([0; 3]).unwrap();
    let _ = front.publish();
    page.set(RSP_PROD, 1);
    page.set(16, 100);
    page.drift(1);
    assert_eq!(front.refresh(), Ok(1));
    let (_, response) = front.pop().unwrap();
    assert_eq!(response, [100]);
    assert_eq!(page.get(16), 101, "it was looked at, once");
}

#[test]
fn b3_each_word_read_once() {
    let page = Page::zeroed();
    let mut front = FrontRing::<Net, _>::new(page.clone());
    let mut back = BackRing::<Net, _>::attach(page.clone()).unwrap();
    for n in 0..100 {
        front.push([n; 3]).unwrap();
    }
    let _ = front.publish();
    page.forget_counts();
    page.drift(1);
    assert_eq!(back.refresh(), Ok(100));
    for n in 0..100 {
        assert_eq!(back.pop().unwrap().1, [n; 3]);
    }
    assert_eq!(page.loads(REQ_PROD), 1);
    for slot in 0..100 {
        for word in 0..3 {
            assert_eq!(page.loads(16 + slot * 3 + word), 1);
        }
    }
}

#[test]
fn f3_every_published_word_was_written() {
    let page = Page::filled(0xa5a5_a5a5);
    let mut front = FrontRing::<Net, _>::new(page.clone());
    for word in 0..16 + 256 * 3 {
        assert_ne!(page.get(word), 0xa5a5_a5a5, "word {word} is what was there before");
    }
    front.push([1, 2, 3]).unwrap();
    let _ = front.publish();
    assert_eq!([page.get(16), page.get(17), page.get(18)], [1, 2, 3]);
}

#[test]
fn b4_a_response_writes_all_its_words() {
    enum Wide {}
    impl xen_ring::Protocol for Wide {
        type Request = [u32; 1];
        type Response = [u32; 4];
    }
    let page = Page::filled(0xa5a5_a5a5);
    let mut front = FrontRing::<Wide, _>::new(page.clone());
    front.push([7]).unwrap();
    let _ = front.publish();
    let mut back = BackRing::<Wide, _>::attach(page.clone()).unwrap();
    page.set(17, 0xa5a5_a5a5);
    back.pop().unwrap();
    back.push([0, 0, 0, 1]).unwrap();
    assert_eq!([page.get(16), page.get(17), page.get(18), page.get(19)], [0, 0, 0, 1]);
}

type Ids = InFlight<(), u32, 256>;

fn ids() -> Ids {
    InFlight::new([(); 256])
}

fn start(ids: &mut Ids, index: u32, value: u32) -> Option<u16> {
    ids.vacant()?.start(index, |()| (value, ())).map(|(id, ())| id)
}

fn complete(ids: &mut Ids, id: u16, published: u32) -> Result<u32, PeerFault> {
    let mut value = None;
    ids.complete(id, published, |was| {
        value = Some(was);
        Some(())
    })?;
    Ok(value.unwrap())
}

#[test]
fn f4_ids_are_free_staged_published_free() {
    let mut ids = ids();
    let id = start(&mut ids, 0, 42).unwrap();
    let not_outstanding = Err(PeerFault::NotOutstanding(id));
    assert_eq!(complete(&mut ids, id, 0), not_outstanding, "staged, not published");
    assert_eq!(complete(&mut ids, 256, 1), Err(PeerFault::UnknownId(256)));
    assert_eq!(complete(&mut ids, u16::MAX, 1), Err(PeerFault::UnknownId(u16::MAX)));
    let other = (id + 1) % 256;
    assert_eq!(complete(&mut ids, other, 1), Err(PeerFault::NotOutstanding(other)));
    assert_eq!(complete(&mut ids, id, 1), Ok(42));
    assert_eq!(complete(&mut ids, id, 1), not_outstanding, "answered already");
    assert!(ids.is_empty() && ids.free() == 256);
}

#[test]
fn f4_an_answer_may_be_overtaken_by_more_than_a_ring_of_others() {
    for first in [0, u32::MAX - 300] {
        let mut ids = ids();
        let slow = start(&mut ids, first, 42).unwrap();
        for n in 1..=1000_u32 {
            let index = first.wrapping_add(n);
            let id = start(&mut ids, index, n).unwrap();
            assert_eq!(complete(&mut ids, id, index), Err(PeerFault::NotOutstanding(id)));
            assert_eq!(complete(&mut ids, id, index.wrapping_add(1)), Ok(n));
        }
        assert_eq!(complete(&mut ids, slow, first.wrapping_add(1001)), Ok(42));
    }
}

#[test]
fn f4_each_id_is_out_once() {
    let mut ids = ids();
    let mut seen = std::collections::HashSet::new();
    for n in 0..256 {
        assert!(seen.insert(start(&mut ids, n, n).unwrap()), "an id twice");
    }
    assert_eq!(start(&mut ids, 256, 256), None);
    assert_eq!(ids.free(), 0);
    assert_eq!(ids.dissolve(|_| Some(())).count(), 256);
}

#[test]
fn f6_an_id_that_lost_what_it_owned_is_retired() {
    let mut ids = InFlight::<&str, &str, 4>::new(["a", "b", "c"]);
    assert_eq!(ids.free(), 3, "the fourth id owns nothing");
    let start = |ids: &mut InFlight<_, _, 4>, index| {
        Some(ids.vacant()?.start(index, |owned| (owned, ()))?.0)
    };
    let id = start(&mut ids, 0).unwrap();
    ids.complete(id, 1, |_| None).unwrap();
    assert_eq!((ids.free(), ids.len()), (2, 0));
    assert!(start(&mut ids, 1).is_some());
    assert!(start(&mut ids, 2).is_some());
    assert!(start(&mut ids, 3).is_none());
    assert_eq!(ids.complete(id, 9, Some), Err(PeerFault::NotOutstanding(id)));
    assert_eq!(ids.dissolve(Some).count(), 2);
}

#[test]
fn f6_an_id_that_was_retired_comes_back_with_something_to_own() {
    let mut ids = InFlight::<&str, &str, 4>::new(["a", "b"]);
    let start = |ids: &mut InFlight<_, _, 4>, index| {
        Some(ids.vacant()?.start(index, |owned| (owned, ()))?.0)
    };
    let lost = start(&mut ids, 0).unwrap();
    ids.complete(lost, 1, |_| None).unwrap();
    assert_eq!((ids.free(), ids.retired()), (1, 3));
    let kept = start(&mut ids, 1).unwrap();
    for owned in ["c", "d", "e"] {
        assert_eq!(ids.restore(owned), Ok(()));
    }
    assert_eq!((ids.restore("f"), ids.free(), ids.retired(), ids.len()), (Err("f"), 3, 0, 1));
    let again: Vec<_> = (2..5).map(|index| start(&mut ids, index).unwrap()).collect();
    assert!(!again.contains(&kept) && again.contains(&lost), "{again:?}");
    assert_eq!(start(&mut ids, 5), None);
    assert_eq!(ids.dissolve(Some).count(), 4);
}

#[test]
fn f5_nothing_published_is_read_back() {
    let page = Page::zeroed();
    let mut front = FrontRing::<Net, _>::new(page.clone());
    page.forget_counts();
    for round in 0..10 {
        for n in 0..20 {
            front.push([n; 3]).unwrap();
        }
        let _ = front.publish();
        page.set(RSP_PROD, (round + 1) * 20);
        // The peer scribbles over what we published; it is the truth of nothing.
        page.set(REQ_PROD, 0xdead_beef);
        assert_eq!(front.refresh(), Ok(20));
        while front.pop().is_some() {}
        assert_eq!(front.arm(1), Ok(false));
    }
    assert_eq!((page.loads(REQ_PROD), page.loads(RSP_EVENT)), (0, 0));
    for slot in 0..200 {
        assert_eq!((page.loads(17 + slot * 3), page.loads(18 + slot * 3)), (0, 0));
    }
    assert_eq!(page.get(REQ_PROD), 0xdead_beef, "until the next publish");
}

#[test]
fn a_poisoned_ring_publishes_nothing() {
    let page = Page::zeroed();
    let mut front = FrontRing::<Net, _>::new(page.clone());
    front.push([1; 3]).unwrap();
    page.set(RSP_PROD, 1);
    assert!(front.refresh().is_err(), "answered before it was published");
    page.forget_counts();
    assert_eq!(front.publish(), Notify::Suppressed);
    assert_eq!(page.stores(REQ_PROD), 0);
}

#[test]
fn attach_refuses_a_front_end_that_overfills() {
    let page = Page::zeroed();
    drop(FrontRing::<Net, _>::starting_at(page.clone(), u32::MAX - 3));
    page.set(REQ_PROD, (u32::MAX - 3).wrapping_add(257));
    assert!(BackRing::<Net, _>::attach(page).is_err());
}

proptest! {
    /// Whatever the peer writes, whenever: no panic, no endless loop, nothing that was not
    /// published comes back, nothing twice.
    #[test]
    fn any_peer_any_moment(
        at in prop_oneof![Just(0), Just(u32::MAX - 100), any::<u32>()],
        steps in prop::collection::vec((0u8..8, any::<u32>()), 1..200),
    ) {
        let page = Page::zeroed();
        let mut front = FrontRing::<Net, _>::starting_at(page.clone(), at);
        let mut ids = ids();
        let mut out = std::collections::HashSet::new();
        let mut next = 0;
        for (what, value) in steps {
            match what {
                0 | 1 => {
                    if front.free() > 0 && let Some(id) = start(&mut ids, front.next_index(), next) {
                        front.push([u32::from(id), next, 0]).unwrap();
                        out.insert(next);
                        next += 1;
                    }
                }
                2 => { let _ = front.publish(); }
                3 => { let _ = front.arm(value % 4); }
                4 => page.set(value as usize % 1024, value),
                5 => page.set(RSP_PROD, at.wrapping_add(value % 300)),
                6 => page.set(16 + (value as usize % 768), value >> 16 & 0x1ff),
                _ => {
                    let published = front.published();
                    if front.refresh().is_ok() {
                        while let Some((_, [word])) = front.pop() {
                            match complete(&mut ids, word as u16, published) {
                                Ok(value) => prop_assert!(out.remove(&value)),
                                Err(fault) => { front.poison(fault); break; }
                            }
                        }
                    }
                }
            }
            prop_assert!(front.free() <= 256);
            prop_assert_eq!(out.len(), ids.len());
        }
    }
}

/// The event a front end gets is never too late: with both ends sleeping whenever they are told
/// they may, everything that is asked is answered.
fn converse(start: u32, batches: &[(u32, u32)], ahead: u32) {
    let page = Page::zeroed();
    let mut front = FrontRing::<Net, _>::starting_at(page.clone(), start);
    let mut back = BackRing::<Net, _>::attach(page.clone()).unwrap();
    let (mut front_event, mut back_event) = (true, false);
    let mut answered = 0;
    let total: u32 = batches.iter().map(|(ask, _)| ask).sum();
    let mut asked = 0;
    let mut batches = batches.iter().copied().cycle();
    let (mut ask, mut answer) = batches.next().unwrap();
    while answered < total {
        assert!(front_event || back_event, "both sleep, {answered} of {total} answered");
        if std::mem::take(&mut front_event) {
            loop {
                front.refresh().unwrap();
                while front.pop().is_some() {
                    answered += 1;
                }
                while ask > 0 && asked < total && front.push([asked; 3]).is_ok() {
                    asked += 1;
                    ask -= 1;
                }
                back_event |= front.publish() == Notify::Needed;
                // Nothing outstanding means nothing to wait for: ask for the next batch.
                if front.outstanding() == 0 {
                    (ask, answer) = batches.next().unwrap();
                    if asked == total {
                        break;
                    }
                    continue;
                }
                if !front.arm(ahead.min(front.outstanding())).unwrap() {
                    break;
                }
            }
        }
        if std::mem::take(&mut back_event) {
            loop {
                back.refresh().unwrap();
                let mut popped = 0;
                while popped < answer.max(1) && back.pop().is_some() {
                    popped += 1;
                    back.push([0]).unwrap();
                }
                front_event |= back.publish() == Notify::Needed;
                if back.waiting() == 0 && !back.arm().unwrap() {
                    break;
                }
            }
        }
    }
    assert_eq!(answered, total);
}

proptest! {
    #[test]
    fn nobody_sleeps_for_ever(
        start in prop_oneof![Just(0), (0u32..600).prop_map(|n| u32::MAX - n), any::<u32>()],
        batches in prop::collection::vec((1u32..300, 1u32..64), 1..8),
        ahead in 1u32..128,
    ) {
        converse(start, &batches, ahead);
    }
}
