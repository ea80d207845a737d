//! Whatever safe code does with these types, nothing undefined comes of it. The assertions say what
//! a user sees; that Miri has nothing to say is the proof.
#![cfg(not(loom))]
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::mem::forget;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use common::Domain;
use xen_grant::{
    CopyIn, CopyOut, DomId, Foreign, ForeignPage, Frame, FramePool, Gfn, GrantStatus, GrantTable,
    Granted, GrantedPage, Grantee, Memory, Page, Quarantine, ReadWrite, Reference, SharedFrame,
    SharedPage, Words,
};

const PEER: DomId = DomId(3);

fn to() -> Grantee {
    Grantee::new(PEER, true)
}

/// A page of `domain` that the peer offers, full of sevens.
fn offer(pool: &FramePool, table: &GrantTable) -> Granted<ReadWrite> {
    let mut theirs = pool.take().unwrap();
    theirs.bytes_mut().fill(7);
    table.claim().unwrap().grant(theirs, &to(), 0..4096).0
}

fn foreign(granted: &Granted<ReadWrite>) -> Foreign {
    Foreign { domain: PEER, gref: granted.number(), offset: 0 }
}

/// Every way to cut a batch short: no operation is left whose frame went home.
#[test]
fn n9_an_operation_goes_with_its_frame() {
    let step = if cfg!(miri) { 2 } else { 1 };
    for frames in (0..=4).step_by(step) {
        for ops in (0..=7).step_by(step) {
            let domain = Domain::new(5, 1);
            let pool = FramePool::new(&domain, 5).unwrap();
            let table = GrantTable::new(&domain);
            let granted = offer(&pool, &table);
            let mut batch = CopyIn::with_capacity(3, 6);
            for _ in 0..3 {
                batch.frame(pool.take().unwrap());
                batch.push(foreign(&granted), 0..64).unwrap();
                batch.push(foreign(&granted), 64..128).unwrap();
            }
            batch.truncate(frames, ops);
            assert_eq!(batch.len(), ops.min(frames * 2).min(6));
            assert_eq!(batch.frames(), frames.min(3));
            let mine: Vec<Frame> = pool.take_many(4).collect();
            let borrowed: Vec<&[u8; 4096]> = mine.iter().map(|frame| frame.bytes()).collect();
            batch.submit(&domain);
            assert!(borrowed.iter().all(|bytes| bytes[..128] == [0; 128]), "{frames} {ops}");
            assert!(batch.succeeded(0..batch.len()));
            // What was kept is as good as before.
            let filled: Vec<Frame> = batch.take().collect();
            for (at, frame) in filled.iter().enumerate() {
                let done = 64 * ops.saturating_sub(2 * at).min(2);
                assert_eq!(frame.bytes()[..done], [7_u8; 128][..done]);
                assert_eq!(frame.bytes()[done..128], [0_u8; 128][done..]);
            }
        }
    }
}

#[test]
fn n9_a_domain_has_one_table() {
    let domain = Domain::new(2, 1);
    let pool = FramePool::new(&domain, 2).unwrap();
    let (first, second) = (GrantTable::new(&domain), GrantTable::new(&domain));
    let granted = offer(&pool, &first);
    // With the same reference, a second table's grant would let go of the first one's page.
    assert_eq!(second.claim().unwrap_err().0, GrantStatus::GENERAL_ERROR);
    assert_eq!(second.usage(), Default::default());
    assert!(domain.begin(PEER, granted.number(), true));
    let granted = granted.revoke().unwrap_err().0;
    domain.end(granted.number());
    granted.revoke().unwrap();
    // Nor does it come free again with the first.
    drop(first);
    assert!(second.claim().is_err() && GrantTable::new(&domain).claim().is_err());
}

#[test]
fn n9_a_frame_of_another_domain_is_granted_to_nobody() {
    let (ours, theirs) = (Domain::new(1, 1), Domain::new(1, 1));
    let pool = FramePool::new(&ours, 1).unwrap();
    let mine = pool.take().unwrap();
    let bytes = mine.bytes();
    let stray = FramePool::new(&theirs, 1).unwrap().take().unwrap();
    let table = GrantTable::new(&ours);
    let granted = table.claim().unwrap().grant::<ReadWrite>(stray, &to(), 0..0).0;
    assert!(!ours.begin(PEER, granted.number(), true), "the number names no page of ours");
    assert!(ForeignPage::map(&ours, PEER, granted.number()).is_err());
    assert_eq!(bytes, &[0; 4096]);
    // It comes back like any other, and to its own pool.
    let (frame, _) = granted.revoke().unwrap();
    drop(frame);
    assert_eq!((pool.free(), theirs.pages_out()), (0, 0));
}

#[test]
fn n9_a_copy_in_another_domain_touches_no_frame() {
    let (ours, theirs) = (Domain::new(2, 1), Domain::new(2, 1));
    let [mine, other] = [&ours, &theirs].map(|domain| FramePool::new(domain, 2).unwrap());
    let granted = offer(&other, &GrantTable::new(&theirs));
    let bystander = other.take().unwrap();
    let bytes = bystander.bytes();

    let mut batch = CopyIn::default();
    batch.frame(mine.take().unwrap());
    batch.push(foreign(&granted), 0..64).unwrap();
    batch.submit(&theirs);
    assert!(!batch.succeeded(0..1));
    assert_eq!(batch.take().next().unwrap().bytes(), &[0; 4096]);

    let mut batch = CopyOut::default();
    let mut secret = mine.take().unwrap();
    secret.bytes_mut().fill(0xcc);
    batch.frame(secret.share());
    batch.push(0..64, foreign(&granted)).unwrap();
    batch.submit(&theirs);
    assert!(!batch.succeeded(0..1));
    assert_eq!(bytes, &[0; 4096]);
    assert_eq!(granted.revoke().unwrap().0.bytes(), &[7; 4096]);
}

/// A platform that can be told to panic when a page comes back: `Memory` does not forbid it.
#[derive(Clone)]
struct Grumbling(Domain, Arc<AtomicBool>);

// SAFETY: as the domain in it.
unsafe impl Memory for Grumbling {
    fn alloc_page(&self) -> Option<(NonNull<Page>, Gfn)> {
        self.0.alloc_page()
    }

    unsafe fn free_page(&self, page: NonNull<Page>, gfn: Gfn) {
        // SAFETY: the caller's promise.
        unsafe { self.0.free_page(page, gfn) }
        assert!(!self.1.swap(false, Ordering::SeqCst), "and what for?");
    }

    fn grant_frame(&self, index: u32) -> Result<NonNull<Words>, GrantStatus> {
        self.0.grant_frame(index)
    }

    fn max_grant_frames(&self) -> u32 {
        self.0.max_grant_frames()
    }
}

/// Runs `last`, which is to let the last frame of a pool go, with a platform that panics over it.
fn grumble(last: impl FnOnce(&Domain, &GrantTable, Granted<ReadWrite>)) {
    let domain = Domain::new(1, 1);
    let panics = Arc::new(AtomicBool::new(true));
    let platform = Grumbling(domain.clone(), panics.clone());
    let pool = FramePool::new(&platform, 1).unwrap();
    let table = GrantTable::new(&platform);
    let granted = table.claim().unwrap().grant(pool.take().unwrap(), &to(), 0..0).0;
    drop(pool);
    last(&domain, &table, granted);
    assert!(!panics.load(Ordering::SeqCst), "it was asked to take the page back");
    assert_eq!((table.usage().claimed, table.usage().quarantined), (0, 0));
}

fn panics(what: impl FnOnce()) {
    assert!(catch_unwind(AssertUnwindSafe(what)).is_err());
}

#[test]
fn n9_a_platform_that_panics_sees_no_page_twice() {
    grumble(|domain, _, granted| {
        let mut quarantine = Quarantine::new(4);
        domain.begin(PEER, granted.number(), true);
        let gref = granted.number();
        quarantine.admit(granted.revoke().unwrap_err());
        domain.end(gref);
        let late = std::time::Duration::from_secs(1);
        quarantine.retry(late);
        panics(|| _ = quarantine.retry(2 * late));
        quarantine.retry(4 * late);
        assert!(quarantine.is_empty());
    });
    grumble(|domain, table, granted| {
        let gref = granted.number();
        domain.begin(PEER, gref, true);
        drop(granted);
        domain.end(gref);
        panics(|| _ = table.sweep());
    });
    grumble(|_, _, granted| panics(|| drop(granted)));
    grumble(|_, _, granted| {
        let shared = granted.revoke().unwrap().0.share();
        drop(shared.clone());
        panics(|| drop(shared));
    });
}

#[test]
fn a_platform_that_panics_gets_the_other_pages_of_a_pool() {
    let domain = Domain::new(4, 1);
    let platform = Grumbling(domain.clone(), Arc::new(AtomicBool::new(true)));
    let pool = FramePool::new(&platform, 4).unwrap();
    let kept = pool.take().unwrap();
    panics(|| drop(pool));
    assert_eq!(domain.pages_out(), 1);
    platform.1.store(true, Ordering::SeqCst);
    panics(|| drop(kept));
    assert_eq!(domain.pages_out(), 0);
}

#[test]
fn a_batch_that_is_cleared_under_panic_keeps_no_operation() {
    for reading in [false, true] {
        let domain = Domain::new(2, 1);
        let (pool, table) = (FramePool::new(&domain, 1).unwrap(), GrantTable::new(&domain));
        let granted = offer(&pool, &table);
        let platform = Grumbling(domain.clone(), Arc::new(AtomicBool::new(true)));
        let frame = FramePool::new(&platform, 1).unwrap().take().unwrap();
        let (mut out, mut into) = (CopyOut::default(), CopyIn::default());
        if reading {
            out.frame(frame.share());
            out.push(0..64, foreign(&granted)).unwrap();
            panics(|| out.clear());
        } else {
            into.frame(frame);
            into.push(foreign(&granted), 0..64).unwrap();
            panics(|| into.truncate(0, 0));
        }
        assert!(out.is_empty() && into.is_empty());
        out.submit(&domain);
        into.submit(&domain);
    }
}

/// What ends a borrow without being dropped: the frames in it are lost, and nothing else happens.
/// (What owns its part of a pool or table may as well be kept for ever as forgotten.)
#[test]
fn frames_that_are_forgotten_stay_out() {
    // Kept for ever as well, so that Miri does not call it a leak.
    static POOL: Mutex<Option<FramePool>> = Mutex::new(None);
    let (domain, client) = (Domain::new(11, 0), Domain::new(1, 1));
    let source = offer(&FramePool::new(&client, 1).unwrap(), &GrantTable::new(&client));
    let pool = FramePool::new(&domain, 11).unwrap();
    *POOL.lock().unwrap() = Some(pool.clone());
    forget(pool.take());
    forget(pool.take().unwrap().share());
    let shared = pool.take().unwrap().share();
    forget(shared.clone());
    assert!(shared.try_unshare().is_err());
    let mut some = pool.take_many(3);
    let first = some.next().unwrap();
    forget(some);
    let mut batch = CopyIn::default();
    for frame in pool.take_many(3) {
        batch.frame(frame);
        batch.push(foreign(&source), 0..8).unwrap();
    }
    let mut filled = batch.take();
    let second = filled.next().unwrap();
    forget(filled);
    assert_eq!((batch.len(), batch.frames()), (0, 0));
    let rest: Vec<Frame> = pool.take_many(100).collect();
    assert_eq!(rest.len(), 2);
    let borrowed: Vec<&[u8; 4096]> = rest.iter().map(|frame| frame.bytes()).collect();
    batch.submit(&domain);
    assert!(borrowed.iter().all(|bytes| bytes[..8] == [0; 8]));
    drop((first, second, rest));
    assert_eq!(pool.free(), 4);
}

/// Everything there is, dropped in any order.
#[test]
fn pools_and_tables_may_go_first_or_last() {
    enum Thing {
        Pool(FramePool),
        Table(GrantTable),
        Frame(Frame),
        Shared(SharedFrame),
        Reference(Reference),
        Granted(Granted<ReadWrite>),
        Ring(GrantedPage),
        Quarantine(Quarantine),
        In(CopyIn),
        Out(CopyOut),
        Mapped(ForeignPage<Domain>),
    }
    let rounds = if cfg!(miri) { 6 } else { 500 };
    for seed in 0..rounds {
        let domain = Domain::new(8, 1);
        let pool = FramePool::new(&domain, 8).unwrap();
        let table = GrantTable::new(&domain);
        let mut things = Vec::new();
        let in_use = offer(&pool, &table);
        domain.begin(PEER, in_use.number(), true);
        let gref = in_use.number();
        let mut quarantine = Quarantine::new(1);
        quarantine.admit(in_use.revoke().unwrap_err());
        let ring = GrantedPage::new(pool.take().unwrap(), table.claim().unwrap(), &to());
        let mapped = ForeignPage::map(&domain, PEER, ring.number()).unwrap();
        mapped.words()[0].store(1, Ordering::Relaxed);
        let granted = offer(&pool, &table);
        let (mut into, mut out) = (CopyIn::default(), CopyOut::default());
        into.frame(pool.take().unwrap());
        into.push(foreign(&granted), 0..8).unwrap();
        let shared = pool.take().unwrap().share();
        out.frame(shared.clone());
        things.extend([
            Thing::Quarantine(quarantine),
            Thing::Ring(ring),
            Thing::Mapped(mapped),
            Thing::Granted(granted),
            Thing::In(into),
            Thing::Out(out),
            Thing::Shared(shared),
            Thing::Frame(pool.take().unwrap()),
            Thing::Reference(table.claim().unwrap()),
            Thing::Pool(pool.clone()),
            Thing::Pool(pool),
        ]);
        let mut rng = Rng(seed);
        let mut order: Vec<Thing> = Vec::new();
        while !things.is_empty() {
            order.push(things.swap_remove(rng.below(things.len())));
        }
        order.insert(rng.below(order.len()), Thing::Table(table.clone()));
        let mut at = 0;
        for thing in order {
            at += 1;
            if at == 4 {
                domain.end(gref);
            }
            match thing {
                Thing::Frame(frame) => assert_eq!(frame.bytes().len(), 4096),
                Thing::Shared(frame) => assert_eq!(frame.bytes().len(), 4096),
                Thing::Pool(pool) => drop(pool.take()),
                Thing::Table(table) => drop(table.claim()),
                Thing::Reference(reference) => assert!(reference.number() >= 8),
                Thing::Granted(granted) => drop(granted.revoke()),
                Thing::Ring(ring) => drop(ring),
                Thing::Mapped(page) => assert_eq!(page.words()[1].load(Ordering::Relaxed), 0),
                Thing::Quarantine(quarantine) => drop(quarantine),
                Thing::In(mut batch) => batch.submit(&domain),
                Thing::Out(mut batch) => batch.clear(),
            }
        }
        table.sweep();
        assert_eq!((domain.pages_out(), table.usage().claimed), (0, 0), "seed {seed}");
    }
}

/// Some numbers, the same every time (splitmix64).
struct Rng(u64);

impl Rng {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ mixed >> 31) % end.max(1) as u64) as usize
    }
}
