//! Promises of a pool's pages: to several, none of them twice.
#![cfg(not(loom))]
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::Domain;
use xen_grant::{FramePool, ReserveError};

fn pool(pages: usize) -> FramePool {
    FramePool::new(&Domain::new(pages, 1), pages).unwrap()
}

#[test]
fn pages_are_promised_once() {
    let pool = pool(10);
    assert_eq!((pool.unreserved(), pool.size()), (10, 10));
    let mut first = pool.reserve(6).unwrap();
    assert_eq!((first.pages(), pool.unreserved()), (6, 4));
    let overbooked = pool.reserve(5).unwrap_err();
    assert_eq!((overbooked.wanted, overbooked.left), (5, 4));
    assert_eq!(
        overbooked.to_string(),
        "5 pages of the frame pool are needed, and 4 are nobody else's"
    );
    assert_eq!(pool.unreserved(), 4, "what was there goes back");
    let second = pool.reserve(4).unwrap();
    assert_eq!((second.pages(), pool.unreserved()), (4, 0));
    assert_eq!(pool.reserve(0).unwrap().pages(), 0);
    assert!(matches!(pool.reserve(1), Err(ReserveError { wanted: 1, left: 0, .. })));
    assert_eq!(first.draw(1), 0);
    drop(second);
    assert_eq!((first.draw(3), first.pages(), pool.unreserved()), (3, 9, 1));
    drop(first);
    assert_eq!(pool.unreserved(), 10);
}

#[test]
fn what_is_drawn_is_given_back_and_no_more() {
    let pool = pool(10);
    let mut some = pool.clone().reserve(4).unwrap();
    assert_eq!((some.draw(0), some.pages()), (0, 4));
    assert_eq!((some.draw(u32::MAX), some.pages(), pool.unreserved()), (6, 10, 0));
    some.give_back(7);
    assert_eq!((some.pages(), pool.unreserved()), (3, 7));
    // Nobody gives back what he has not.
    for _ in 0..3 {
        some.give_back(u32::MAX);
        assert_eq!((some.pages(), pool.unreserved()), (0, 10));
    }
    assert_eq!((some.draw(2), some.pages()), (2, 2));
    drop(some);
    assert_eq!(pool.unreserved(), 10);
}

/// More than a pool can count is no small number.
#[test]
fn no_number_of_pages_is_cut_short() {
    let pool = pool(10);
    for wanted in [11, 1 << 32, (1 << 32) + 1, usize::MAX] {
        let overbooked = pool.reserve(wanted).unwrap_err();
        assert_eq!((overbooked.wanted, overbooked.left), (wanted, 10));
        assert_eq!(pool.unreserved(), 10);
    }
}

/// A promise is a number: it takes no frame, and keeps none from being taken.
#[test]
fn a_promise_moves_no_frame_and_keeps_the_pool() {
    let domain = Domain::new(10, 1);
    let pool = FramePool::new(&domain, 10).unwrap();
    let mut all = pool.reserve(10).unwrap();
    assert_eq!(pool.free(), 10);
    let held: Vec<_> = pool.take_many(10).collect();
    assert_eq!((held.len(), pool.unreserved()), (10, 0));
    all.give_back(10);
    assert_eq!((pool.free(), pool.unreserved()), (0, 10));
    drop(held);
    drop(pool);
    assert_eq!((all.pool().free(), domain.pages_out()), (10, 10), "its owner has it still");
    drop(all);
    assert_eq!(domain.pages_out(), 0);
}
