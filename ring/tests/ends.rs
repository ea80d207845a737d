//! What each end counts, shows and asks for, index by index.
#![cfg(not(loom))]
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{Net, Page};
use xen_ring::{BackRing, FrontRing, Full, InFlight, Notify, PeerFault};

const REQ_PROD: usize = 0;
const REQ_EVENT: usize = 1;
const RSP_PROD: usize = 2;
const RSP_EVENT: usize = 3;

type Front = FrontRing<Net, Page>;
type Back = BackRing<Net, Page>;

/// Starts before, at and after the wrap.
const STARTS: &[u32] =
    if cfg!(miri) { &[u32::MAX - 2] } else { &[0, 7, u32::MAX - 2, 0x8000_0000] };

fn pair(start: u32) -> (Page, Front, Back) {
    let page = Page::zeroed();
    let front = Front::starting_at(page.clone(), start);
    let back = Back::attach(page.clone()).unwrap();
    (page, front, back)
}

fn ask(front: &mut Front, count: u32) {
    for n in 0..count {
        front.push([n; 3]).unwrap();
    }
}

#[test]
fn each_end_knows_how_far_it_is() {
    for &start in STARTS {
        let at = |n: u32| start.wrapping_add(n);
        let (page, mut front, mut back) = pair(start);
        assert_eq!((Front::SIZE, Back::SIZE), (256, 256));
        assert_eq!((front.free(), front.staged(), front.outstanding()), (256, 0, 0));
        assert_eq!((page.get(REQ_EVENT), page.get(RSP_EVENT)), (at(1), at(1)));

        ask(&mut front, 5);
        assert_eq!(front.slot().unwrap().index(), at(5));
        assert_eq!(
            (front.next_index(), front.published(), front.consumed()),
            (at(5), at(0), at(0))
        );
        assert_eq!((front.free(), front.staged(), front.outstanding()), (251, 5, 0));
        assert_eq!(back.refresh(), Ok(0), "staged is not shown");
        assert_eq!(front.publish(), Notify::Needed);
        assert_eq!((front.free(), front.staged(), front.outstanding()), (251, 0, 5));
        assert_eq!((front.published(), page.get(REQ_PROD)), (at(5), at(5)));

        assert_eq!((back.waiting(), back.in_work()), (0, 0), "not looked yet");
        assert_eq!(back.refresh(), Ok(5));
        assert_eq!((back.waiting(), back.in_work()), (5, 0));
        assert_eq!(back.push([1]), Err(Full), "nothing is asked");
        for n in 0..3 {
            assert_eq!(back.pop(), Some((at(n), [n; 3])));
        }
        assert_eq!((back.waiting(), back.in_work(), back.refresh()), (2, 3, Ok(2)));
        assert_eq!((back.push([8]), back.push([9])), (Ok(at(0)), Ok(at(1))));
        assert_eq!((back.waiting(), back.in_work()), (2, 1));
        assert_eq!(front.refresh(), Ok(0), "not shown yet");
        assert_eq!(back.publish(), Notify::Needed);
        assert_eq!(page.get(RSP_PROD), at(2));

        assert_eq!((front.refresh(), front.outstanding()), (Ok(2), 5));
        assert_eq!(front.pop(), Some((at(0), [8])));
        assert_eq!((front.consumed(), front.free(), front.outstanding()), (at(1), 252, 4));
        assert_eq!(front.refresh(), Ok(1), "one is left of those");
        assert_eq!(front.pop_all().collect::<Vec<_>>(), [(at(1), [9])]);
        assert_eq!((front.pop(), front.consumed()), (None, at(2)));
        // What is published once is not published again.
        page.forget_counts();
        assert_eq!((front.publish(), back.publish()), (Notify::Suppressed, Notify::Suppressed));
        assert_eq!((page.stores(REQ_PROD), page.stores(RSP_PROD)), (0, 0));
    }
}

#[test]
fn responses_that_were_not_asked_for_stay() {
    let (page, mut front, _) = pair(u32::MAX);
    ask(&mut front, 4);
    let _ = front.publish();
    page.set(RSP_PROD, 3);
    assert_eq!(front.refresh(), Ok(4));
    assert_eq!(front.pop_all().next().map(|(index, _)| index), Some(u32::MAX));
    assert_eq!(front.pop_all().take(2).map(|(index, _)| index).collect::<Vec<_>>(), [0, 1]);
    assert_eq!((front.pop().map(|(index, _)| index), front.pop_all().count()), (Some(2), 0));
}

#[test]
fn a_full_ring_takes_one_request_for_each_response() {
    for &start in STARTS {
        let (page, mut front, _) = pair(start);
        ask(&mut front, 256);
        assert_eq!((front.push([0; 3]), front.free()), (Err(Full), 0));
        let _ = front.publish();
        for n in 1..if cfg!(miri) { 20 } else { 600 } {
            page.set(RSP_PROD, start.wrapping_add(n));
            assert_eq!((front.refresh(), front.slot().is_err()), (Ok(1), true), "not popped yet");
            front.pop().unwrap();
            assert_eq!(front.free(), 1);
            assert_eq!(front.push([n; 3]), Ok(start.wrapping_add(255 + n)));
            assert_eq!(front.push([n; 3]), Err(Full));
            let _ = front.publish();
        }
    }
}

/// `old < event <= new`, whatever the peer has written there, and whether or not it wraps.
#[test]
fn the_peer_is_told_when_its_threshold_is_passed() {
    for &start in STARTS {
        let step = if cfg!(miri) { 50 } else { 1 };
        for event in (-300..300).step_by(step).map(|n| start.wrapping_add_signed(n)) {
            let ahead = event.wrapping_sub(start.wrapping_add(3));
            let told = |count| match ahead {
                1.. if ahead <= count => Notify::Needed,
                _ => Notify::Suppressed,
            };
            let (page, mut front, mut back) = pair(start);
            ask(&mut front, 3);
            let _ = front.publish();
            page.set(REQ_EVENT, event);
            ask(&mut front, 4);
            assert_eq!(front.publish(), told(4), "{start} {event}");

            back.refresh().unwrap();
            for count in [3, 4] {
                page.set(RSP_EVENT, event);
                for _ in 0..count {
                    back.pop().unwrap();
                    back.push([0]).unwrap();
                }
                let notify = back.publish();
                assert!(count == 3 || notify == told(4), "{start} {event}");
            }
        }
    }
}

#[test]
fn whoever_arms_is_told_what_is_there_already() {
    for &start in STARTS {
        let at = |n: u32| start.wrapping_add(n);
        let (page, mut front, mut back) = pair(start);
        ask(&mut front, 6);
        let _ = front.publish();
        assert_eq!(back.arm(), Ok(true));
        back.pop().unwrap();
        assert_eq!((back.arm(), page.get(REQ_EVENT)), (Ok(true), at(2)));
        while back.pop().is_some() {}
        assert_eq!((back.arm(), page.get(REQ_EVENT)), (Ok(false), at(7)));

        page.set(RSP_PROD, at(3));
        for (ahead, there) in [(0, true), (1, true), (2, true), (3, true), (4, false), (6, false)] {
            assert_eq!(front.arm(ahead), Ok(there), "{ahead}");
            assert_eq!(page.get(RSP_EVENT), at(ahead.max(1)));
        }
        front.pop().unwrap();
        assert_eq!((front.arm(2), page.get(RSP_EVENT)), (Ok(true), at(3)));
        assert_eq!((front.arm(3), page.get(RSP_EVENT)), (Ok(false), at(4)));
    }
}

/// Also what was seen before it broke stays where it is, however one asks.
#[test]
fn f1_nothing_comes_out_of_a_poisoned_ring() {
    let fault = PeerFault::NotOutstanding(3);
    let (page, mut front, mut back) = pair(0);
    ask(&mut front, 5);
    let _ = front.publish();
    page.set(RSP_PROD, 4);
    assert_eq!((front.refresh(), front.fault()), (Ok(4), None));
    front.pop().unwrap();
    assert_eq!(front.poison(fault), fault);
    assert_eq!((front.pop(), front.pop_all().next()), (None, None));
    assert_eq!((front.refresh(), front.arm(1)), (Err(fault), Err(fault)));
    ask(&mut front, 1);
    assert_eq!(front.publish(), Notify::Suppressed);
    // What broke it first is what is told.
    assert_eq!(front.poison(PeerFault::UnknownId(9)), fault);
    assert_eq!(front.fault(), Some(fault));

    page.set(RSP_PROD, 0);
    assert_eq!(back.refresh(), Ok(5));
    back.pop().unwrap();
    assert_eq!(back.poison(fault), fault);
    assert_eq!((back.pop(), back.waiting()), (None, 0));
    assert_eq!((back.refresh(), back.arm()), (Err(fault), Err(fault)));
    page.forget_counts();
    back.push([1]).unwrap();
    assert_eq!((back.publish(), page.stores(RSP_PROD)), (Notify::Suppressed, 0));
}

#[test]
fn the_page_comes_back() {
    let (page, front, back) = pair(0);
    page.set(20, 99);
    assert_eq!((front.into_page().get(20), back.into_page().get(20)), (99, 99));
}

/// An answer counts only for what has been published, up to the last index and not one further,
/// be it the first that is staged or any other.
#[test]
fn f4_no_staged_id_is_answered() {
    for &start in STARTS {
        for published in if cfg!(miri) { &[2, 255][..] } else { &[0, 1, 2, 5, 255, 256] } {
            let published = *published;
            let mut ids = InFlight::<u32, u32, 256>::new(0..256);
            let started: Vec<u16> = (0..256)
                .map(|n| ids.vacant().unwrap().start(start.wrapping_add(n), |_| (n, ())).unwrap().0)
                .collect();
            let until = start.wrapping_add(published);
            for (n, &id) in started.iter().enumerate() {
                let answered = ids.complete(id, until, Some);
                if n < published as usize {
                    assert_eq!(answered, Ok(()), "{start} {published} {n}");
                } else {
                    assert_eq!(answered, Err(PeerFault::NotOutstanding(id)), "{published} {n}");
                }
            }
            assert_eq!((ids.free(), ids.len()), (published as usize, 256 - published as usize));
            // What is not staged is behind, by as many as the indices can tell.
            if let Some(&id) = started.get(published as usize) {
                assert_eq!(ids.complete(id, until.wrapping_sub(256), Some), Ok(()));
            }
        }
    }
}

#[test]
fn ids_come_back_last_in_first_out() {
    let mut ids = InFlight::<u8, u8, 4>::new([10, 11, 12, 13]);
    assert!(ids.is_empty());
    let start = |ids: &mut InFlight<u8, u8, 4>, index| {
        ids.vacant()?.start(index, |owned| (owned + 100, owned))
    };
    let first = start(&mut ids, 0).unwrap();
    let second = start(&mut ids, 1).unwrap();
    assert_eq!((first.1, second.1, ids.free(), ids.len()), (13, 12, 2, 2));
    assert!(!ids.is_empty());
    ids.complete(first.0, 2, |busy| (busy == 113).then_some(50)).unwrap();
    assert_eq!(start(&mut ids, 2), Some((first.0, 50)));
    let mut left: Vec<u8> = ids.dissolve(|busy| Some(busy - 100)).collect();
    left.sort_unstable();
    assert_eq!(left, [10, 11, 12, 50], "each once, with what it owns now");
}

#[test]
fn what_went_wrong_is_said() {
    let overrun = PeerFault::IndexOverrun { shared: 900, consumed: 300, most: 256 };
    assert_eq!(
        overrun.to_string(),
        "the peer's producer index 900 is more than 256 ahead of our 300"
    );
    let said = [PeerFault::UnknownId(300), PeerFault::NotOutstanding(7)].map(|f| f.to_string());
    assert_eq!(said[0], "a response to request id 300, which does not exist");
    assert_eq!(said[1], "a response to request id 7, which is not outstanding");
    assert_eq!(Full.to_string(), "the ring has no room");
}
