//! Room that is made at the start is enough: nothing is allocated where packets pass, nor where a
//! revoke fails.
#![cfg(not(loom))]
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use common::Domain;
use xen_grant::{
    CopyIn, CopyOut, DomId, Foreign, FramePool, GrantTable, Granted, Grantee, Quarantine, ReadWrite,
};

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: the system's allocator, which is asked for the same.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn allocations(what: impl FnOnce()) -> usize {
    let before = ALLOCATIONS.with(Cell::get);
    what();
    ALLOCATIONS.with(Cell::get) - before
}

const PEER: DomId = DomId(7);

#[test]
fn a_batch_has_the_room_that_was_asked_for() {
    let domain = Domain::new(8, 1);
    let pool = FramePool::new(&domain, 8).unwrap();
    let (mut into, mut out) = (CopyIn::with_capacity(4, 16), CopyOut::with_capacity(4, 16));
    let from = Foreign { domain: PEER, gref: 8, offset: 0 };
    let count = allocations(|| {
        for frame in pool.take_many(4) {
            into.frame(frame);
            out.frame(pool.take().unwrap().share());
            for at in 0..4 {
                into.push(from, at..at + 1).unwrap();
                out.push(at..at + 1, from).unwrap();
            }
        }
        into.truncate(2, 9);
        out.clear();
        drop(into.take());
    });
    assert_eq!((count, pool.free()), (0, 8));
}

#[test]
fn f6_a_failed_revoke_finds_room() {
    let domain = Domain::new(40, 1);
    let pool = FramePool::new(&domain, 40).unwrap();
    let table = GrantTable::new(&domain);
    let to = Grantee::new(PEER, true);
    let mut quarantine = Quarantine::new(20);
    let granted: Vec<_> = table
        .claim_many(40)
        .unwrap()
        .into_iter()
        .map(|reference| reference.grant::<ReadWrite>(pool.take().unwrap(), &to, 0..0).0)
        .collect();
    let grefs: Vec<u32> = granted.iter().map(Granted::number).collect();
    assert!(grefs.iter().all(|gref| domain.begin(PEER, *gref, true)));
    let count = allocations(|| {
        for granted in granted {
            quarantine.admit(granted.revoke().unwrap_err());
        }
        drop(quarantine);
        assert_eq!(table.sweep(), 0);
    });
    assert_eq!((count, table.usage().quarantined), (0, 40));
    grefs.iter().for_each(|gref| domain.end(*gref));
    assert_eq!((table.sweep(), pool.free()), (40, 40));
}
