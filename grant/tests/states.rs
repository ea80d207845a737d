//! A page is in exactly one state (requirements F6 to F8, R8, R12).
#![cfg(not(loom))]
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::HashSet;
use std::time::Duration;

use common::{Domain, PERMIT, READ_ONLY};
use xen_grant::{
    CopyIn, DomId, ForeignPage, Frame, FramePool, Gfn, GrantStatus, GrantTable, Granted,
    GrantedPage, Grantee, PAGE_SIZE, PoolError, Quarantine, ReadOnly, ReadWrite, SharedPage,
    StillInUse,
};

const PEER: DomId = DomId(7);
fn to() -> Grantee {
    Grantee::new(PEER, true)
}

struct Machine {
    domain: Domain,
    pool: FramePool,
    table: GrantTable,
}

fn machine(pages: usize) -> Machine {
    let domain = Domain::new(pages, 4);
    Machine {
        pool: FramePool::new(&domain, pages).unwrap(),
        table: GrantTable::new(&domain),
        domain,
    }
}

fn grant(machine: &Machine, frame: Frame) -> Granted<ReadWrite> {
    machine.table.claim().unwrap().grant(frame, &to(), 0..0).0
}

#[test]
fn a_grant_writes_the_entry_and_a_revoke_clears_it() {
    let m = machine(2);
    let frame = m.pool.take().unwrap();
    let gfn = frame.gfn().0 as u32;
    let (granted, _) = m.table.claim().unwrap().grant::<ReadOnly>(frame, &to(), 0..60);
    let gref = granted.number();
    assert_eq!(m.domain.entry(gref, 0), PERMIT | READ_ONLY | 7 << 16);
    assert_eq!(m.domain.entry(gref, 1), gfn);
    let (frame, reference) = granted.revoke().unwrap();
    assert_eq!(m.domain.entry(gref, 0), 0);
    let (granted, _) = reference.grant::<ReadWrite>(frame, &to(), 0..60);
    assert_eq!(m.domain.entry(gref, 0), PERMIT | 7 << 16);
    drop(granted);
    assert_eq!(m.domain.entry(gref, 0), 0);
}

#[test]
fn reserved_entries_are_respected() {
    let m = machine(1);
    let mut numbers: Vec<u32> = Vec::new();
    let mut held = Vec::new();
    while let Ok(reference) = m.table.claim() {
        numbers.push(reference.number());
        held.push(reference);
    }
    let ours: Vec<u32> = (8..4 * 512).filter(|number| *number != 511).collect();
    assert_eq!(numbers, ours, "each once, none of the first 8, and not the one with the mark");
    assert_eq!((m.domain.entry(0, 0), m.domain.entry(1, 0)), (0x19, 0x19));
    assert_eq!(m.table.claim().unwrap_err().0, GrantStatus::NO_SPACE);
    assert_eq!(m.table.usage().claimed, 4 * 512 - 9);
    held.remove(100);
    assert_eq!(m.table.claim().unwrap().number(), 108, "the one that came back");
}

#[test]
fn f6_a_revoke_that_fails_keeps_page_and_reference() {
    let m = machine(1);
    let granted = grant(&m, m.pool.take().unwrap());
    let gref = granted.number();
    assert!(m.domain.begin(PEER, gref, true));
    let StillInUse(granted) = granted.revoke().unwrap_err();
    assert_ne!(m.domain.entry(gref, 0) & PERMIT, 0, "the grant is as it was");
    assert!(m.pool.take().is_none(), "the page is not reused");
    m.domain.end(gref);
    granted.revoke().unwrap();
    assert!(m.pool.take().is_some());
}

#[test]
fn f6_a_dropped_grant_in_use_goes_to_the_tables_quarantine() {
    let m = machine(1);
    let granted = grant(&m, m.pool.take().unwrap());
    let gref = granted.number();
    assert!(m.domain.begin(PEER, gref, false));
    drop(granted);
    assert_eq!((m.table.usage().quarantined, m.table.usage().claimed), (1, 1));
    assert_eq!(m.table.sweep(), 0);
    assert!(m.pool.take().is_none());
    assert_ne!(m.table.claim().unwrap().number(), gref, "the reference is not reused");
    m.domain.end(gref);
    assert_eq!(m.table.sweep(), 1);
    assert_eq!((m.table.usage().quarantined, m.table.usage().claimed), (0, 0));
    assert!(m.pool.take().is_some());
}

#[test]
fn f6_quarantine_retries_at_10_ms_doubling_to_1_s() {
    let m = machine(40);
    let mut quarantine = Quarantine::new(40);
    let mut grefs = Vec::new();
    for _ in 0..11 {
        let granted = grant(&m, m.pool.take().unwrap());
        m.domain.begin(PEER, granted.number(), true);
        grefs.push(granted.number());
        quarantine.admit(granted.revoke().unwrap_err());
    }
    assert!(quarantine.too_full(), "11 of 40 are more than a quarter");
    let ms = Duration::from_millis;
    let mut now = ms(12345);
    assert_eq!(quarantine.next_retry(), Some(Duration::ZERO));
    assert_eq!(quarantine.retry(now), 0);
    let mut waits = Vec::new();
    for _ in 0..10 {
        let next = quarantine.next_retry().unwrap();
        waits.push((next - now).as_millis());
        assert_eq!(quarantine.retry(next - ms(1)), 0);
        assert_eq!(quarantine.next_retry(), Some(next), "too early does nothing");
        now = next;
        assert_eq!(quarantine.retry(now), 0);
    }
    assert_eq!(waits, [10, 20, 40, 80, 160, 320, 640, 1000, 1000, 1000]);
    m.domain.end(grefs[3]);
    m.domain.end(grefs[5]);
    assert_eq!(quarantine.retry(now + ms(1000)), 2);
    assert_eq!(quarantine.len(), 9);
    assert!(!quarantine.too_full());
    // The device goes away: what is left is the table's.
    drop(quarantine);
    assert_eq!(m.table.usage().quarantined, 9);
    grefs.iter().for_each(|gref| m.domain.end(*gref));
    assert_eq!(m.table.sweep(), 9);
    assert_eq!(m.pool.free(), 40);
}

#[test]
fn f7_only_whole_pages_of_the_pool_and_no_stale_byte() {
    let m = machine(1);
    let other = Grantee::new(DomId(9), true);
    let mut frame = m.pool.take().unwrap();
    frame.bytes_mut().fill(0xcc); // a packet of somebody else, dropped by policy
    drop(frame);
    let mut frame = m.pool.take().unwrap();
    frame.range_mut(100..160).unwrap().fill(1);
    let (granted, cleared) = m.table.claim().unwrap().grant::<ReadOnly>(frame, &to(), 100..160);
    assert_eq!(cleared, PAGE_SIZE - 60);
    let seen = m.domain.dump(granted.number());
    assert!(seen.iter().all(|byte| *byte != 0xcc));
    assert_eq!(seen.iter().filter(|byte| **byte == 1).count(), 60);
    // To the same peer again: nothing to clear.
    let (mut frame, reference) = granted.revoke().unwrap();
    frame.range_mut(100..160).unwrap().fill(2);
    let (granted, cleared) = reference.grant::<ReadOnly>(frame, &to(), 100..160);
    assert_eq!(cleared, 0);
    // What it could write is its own; the next peer sees none of it.
    let (frame, reference) = granted.revoke().unwrap();
    let (granted, _) = reference.grant::<ReadWrite>(frame, &to(), 0..0);
    m.domain.scribble(granted.number(), 0xdd);
    let (frame, reference) = granted.revoke().unwrap();
    let (granted, cleared) = reference.grant::<ReadWrite>(frame, &other, 0..0);
    assert_eq!(cleared, PAGE_SIZE);
    assert!(m.domain.dump(granted.number()).iter().all(|byte| *byte == 0));
}

#[test]
fn f7_without_trust_even_what_the_peer_knows_is_cleared() {
    let m = machine(1);
    let distrusted = Grantee::new(PEER, false);
    let mut frame = m.pool.take().unwrap();
    frame.range_mut(0..60).unwrap().fill(1);
    let (granted, cleared) = m.table.claim().unwrap().grant::<ReadOnly>(frame, &distrusted, 0..60);
    assert_eq!(cleared, PAGE_SIZE - 60);
    let (frame, reference) = granted.revoke().unwrap();
    let (_granted, cleared) = reference.grant::<ReadOnly>(frame, &distrusted, 0..60);
    assert_eq!(cleared, PAGE_SIZE - 60);
}

#[test]
fn f8_a_shared_frame_is_written_only_when_alone() {
    let m = machine(1);
    let mut frame = m.pool.take().unwrap();
    frame.bytes_mut()[5] = 42;
    let first = frame.share();
    let second = first.clone();
    let first = first.try_unshare().expect_err("two owners");
    assert_eq!(second.bytes()[5], 42);
    drop(second);
    let frame = first.try_unshare().expect("one owner");
    assert!(m.pool.take().is_none());
    drop(frame);
    assert!(m.pool.take().is_some());
}

#[test]
fn r8_pages_are_aligned_and_outlive_their_pool() {
    let domain = Domain::new(8, 1);
    let pool = FramePool::new(&domain, 8).unwrap();
    let frames: Vec<Frame> = std::iter::from_fn(|| pool.take()).collect();
    assert!(frames.iter().all(|frame| frame.bytes().as_ptr().addr() % PAGE_SIZE == 0));
    assert_eq!((frames.len(), pool.free(), pool.high_water()), (8, 0, 8));
    drop(pool);
    assert_eq!(domain.pages_out(), 8, "frames are out: nothing was freed");
    let mut frames = frames;
    let last = frames.pop().unwrap().share();
    drop(frames);
    assert_eq!(domain.pages_out(), 1);
    assert_eq!(last.bytes()[0], 0);
    drop(last);
    assert_eq!(domain.pages_out(), 0);
}

#[test]
fn b7_one_kept_frame_does_not_pin_a_pool() {
    let domain = Domain::new(64, 1);
    let mut kept = Vec::new();
    for round in 1..=10 {
        let pool = FramePool::new(&domain, 64 - kept.len()).unwrap();
        let mut frames: Vec<Frame> = pool.take_many(3).collect();
        kept.extend(frames.pop());
        // A promise is a handle too.
        let promise = pool.reserve(1).unwrap();
        let second = pool.clone();
        drop(pool);
        drop(second);
        assert_eq!(domain.pages_out(), 64);
        assert_eq!((promise.pool().free(), promise.pool().high_water()), (62 - round, 3));
        drop(promise);
        assert_eq!(domain.pages_out(), round + 2, "what was free is the platform's");
        drop(frames);
        assert_eq!(domain.pages_out(), round, "and so is what has come home since");
    }
    let mut numbers: Vec<Gfn> = kept.iter().map(Frame::gfn).collect();
    numbers.dedup();
    assert_eq!(numbers.len(), 10);
    for (frame, left) in kept.into_iter().zip((0..10).rev()) {
        assert_eq!(frame.bytes(), &[0; PAGE_SIZE]);
        drop(frame);
        assert_eq!(domain.pages_out(), left);
    }
}

/// Whatever a page was used for: when that ends, it goes back.
#[test]
fn b7_every_way_home_leads_past_a_pool_that_is_gone() {
    let Machine { domain, pool, table } = machine(8);
    let take = || pool.take().unwrap();
    let grant = || table.claim().unwrap().grant::<ReadWrite>(take(), &to(), 0..0).0;
    let (held, dropped, waiting, swept) = (grant(), grant(), grant(), grant());
    let ring = GrantedPage::new(take(), table.claim().unwrap(), &to());
    let shared = take().share();
    let fit = shared.clone().fit(&to(), &(0..0)).unwrap();
    let granted = table.claim().unwrap().grant_shared(fit);
    let mut batch = CopyIn::default();
    batch.frame(take());
    let in_use = [waiting.number(), swept.number()];
    assert!(in_use.iter().all(|gref| domain.begin(PEER, *gref, true)));
    let mut quarantine = Quarantine::new(4);
    quarantine.admit(waiting.revoke().unwrap_err());
    drop(swept);
    assert_eq!((table.usage().quarantined, pool.free()), (1, 1));
    drop(pool);
    assert_eq!(domain.pages_out(), 7);

    let (mut frame, _) = held.revoke().unwrap();
    frame.bytes_mut().fill(3);
    assert_eq!(domain.pages_out(), 7);
    drop(frame);
    assert_eq!(domain.pages_out(), 6, "un-granted, then dropped");
    drop(dropped);
    assert_eq!(domain.pages_out(), 5, "dropped while it was granted");
    drop(ring);
    assert_eq!(domain.pages_out(), 4, "a ring's page");
    drop(shared);
    assert_eq!(domain.pages_out(), 4, "the peer reads it still");
    drop(granted.revoke().unwrap());
    assert_eq!(domain.pages_out(), 3, "with its last share");
    batch.truncate(0, 0);
    assert_eq!(domain.pages_out(), 2, "a batch's");
    let late = Duration::from_secs(1);
    assert_eq!((quarantine.retry(late), quarantine.retry(2 * late), table.sweep()), (0, 0, 0));
    assert_eq!(domain.pages_out(), 2, "never while the peer is in it");
    in_use.iter().for_each(|gref| domain.end(*gref));
    assert_eq!(quarantine.retry(4 * late), 1);
    assert_eq!(domain.pages_out(), 1, "out of a device's quarantine");
    assert_eq!(table.sweep(), 1);
    assert_eq!(domain.pages_out(), 0, "out of the table's");
}

#[test]
fn r8_a_page_still_granted_is_never_freed() {
    let m = machine(1);
    let granted = grant(&m, m.pool.take().unwrap());
    let gref = granted.number();
    m.domain.begin(PEER, gref, true);
    let Machine { domain, pool, table } = m;
    drop(granted);
    drop(pool);
    assert_eq!(domain.pages_out(), 1);
    domain.end(gref);
    assert_eq!(table.sweep(), 1);
    assert_eq!(domain.pages_out(), 0);
}

#[test]
fn a_pool_that_cannot_be_made_gives_back_what_it_took() {
    let domain = Domain::new(3, 1);
    assert_eq!(FramePool::new(&domain, 4).unwrap_err(), PoolError::OutOfPages(3));
    assert_eq!(domain.pages_out(), 0);
    let high = Domain::starting_at(8, 1, u32::MAX as usize - 1);
    assert!(matches!(FramePool::new(&high, 4).unwrap_err(), PoolError::GfnTooBig(_)));
    assert_eq!(high.pages_out(), 0);
    assert_eq!(FramePool::new(&domain, 1 << 21).unwrap_err(), PoolError::TooMany);
}

#[test]
fn r12_taking_and_returning_keeps_count_on_threads() {
    let rounds = if cfg!(miri) { 50 } else { 20_000 };
    let m = machine(16);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for round in 0..rounds {
                    let mut frames: Vec<Frame> =
                        (0..1 + round % 6).filter_map(|_| m.pool.take()).collect();
                    for frame in &mut frames {
                        let mark = frame.gfn().0 as u8;
                        frame.range_mut(0..8).unwrap().fill(mark);
                    }
                    for frame in frames {
                        let mark = frame.gfn().0 as u8;
                        assert_eq!(frame.bytes()[..8], [mark; 8], "somebody else has this page");
                    }
                }
            });
        }
    });
    assert_eq!((m.pool.free(), m.pool.size()), (16, 16));
}

#[test]
fn a_ring_page_is_seen_by_both() {
    let m = machine(1);
    let mut frame = m.pool.take().unwrap();
    frame.bytes_mut().fill(0xee);
    let ours = GrantedPage::new(frame, m.table.claim().unwrap(), &to());
    assert!(ForeignPage::map(&m.domain, DomId(8), ours.number()).is_err(), "not granted to 8");
    let theirs = ForeignPage::map(&m.domain, PEER, ours.number()).unwrap();
    assert_eq!(
        theirs.words()[17].load(std::sync::atomic::Ordering::SeqCst),
        0,
        "F3: nothing old is shown"
    );
    ours.words()[17].store(5, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(theirs.words()[17].load(std::sync::atomic::Ordering::SeqCst), 5);
    let StillInUse(_) = ours.revoke().unwrap_err();
    assert_eq!(m.table.usage().quarantined, 1);
    drop(theirs);
    assert_eq!(m.domain.mapped(), 0);
    assert_eq!(m.table.sweep(), 1);
}

#[test]
fn r12_many_frames_at_once() {
    let m = machine(4);
    let mut frames = m.pool.take_many(3);
    assert_eq!((frames.len(), m.pool.free()), (3, 1));
    let first = frames.next().unwrap();
    let one_more = m.pool.take().unwrap();
    assert_ne!(first.gfn(), one_more.gfn());
    drop(frames);
    assert_eq!(m.pool.free(), 2, "those not asked for go home");
    drop((first, one_more));
    assert_eq!(m.pool.take_many(0).count(), 0);
    let all: Vec<Frame> = m.pool.take_many(100).collect();
    let gfns: HashSet<u64> = all.iter().map(|frame| frame.gfn().0).collect();
    assert_eq!((all.len(), gfns.len(), m.pool.free(), m.pool.high_water()), (4, 4, 0, 4));
    assert_eq!(m.pool.take_many(2).len(), 0);
    assert!(m.pool.take().is_none());
    drop(all);
    assert_eq!(m.pool.free(), 4);
}
