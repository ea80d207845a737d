//! Edges: the last byte of a page, the last one of a quota, and what is said about each thing.
#![cfg(not(loom))]
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::time::Duration;

use common::Domain;
use xen_grant::{
    ClaimError, CopyError, CopyIn, CopyOut, DomId, Foreign, FramePool, Gfn, GrantStatus,
    GrantTable, Granted, Grantee, PAGE_SIZE, PoolError, Quarantine, ReadOnly, ReadWrite, Reference,
};

const PEER: DomId = DomId(7);

fn to() -> Grantee {
    Grantee::new(PEER, true)
}

fn world(pages: usize) -> (Domain, FramePool, GrantTable) {
    let domain = Domain::new(pages, 2);
    (domain.clone(), FramePool::new(&domain, pages).unwrap(), GrantTable::new(&domain))
}

fn grant(pool: &FramePool, table: &GrantTable) -> Granted<ReadWrite> {
    table.claim().unwrap().grant(pool.take().unwrap(), &to(), 0..0).0
}

/// A grant whose revoke fails.
fn stuck(world: &(Domain, FramePool, GrantTable)) -> Granted<ReadWrite> {
    let granted = grant(&world.1, &world.2);
    assert!(world.0.begin(PEER, granted.number(), true));
    granted
}

#[test]
fn a_copy_may_reach_the_last_byte_on_either_side() {
    let (domain, pool, table) = world(4);
    let theirs = grant(&pool, &table);
    let at = |offset| Foreign { domain: PEER, gref: theirs.number(), offset };
    domain.scribble(theirs.number(), 0x77);
    let ours = pool.take().unwrap().share();
    let (mut into, mut out) = (CopyIn::default(), CopyOut::default());
    assert_eq!(out.push(0..1, at(0)), Err(CopyError), "no frame yet");
    into.frame(pool.take().unwrap());
    out.frame(ours);
    let end = PAGE_SIZE as u16;
    let cases = [
        (0, 0..4096, true),
        (96, 96..4096, true),
        (100, 3000..3100, true),
        (4000, 4000..4096, true),
        (end, 4096..4096, true),
        (0, 1..4097, false),
        (1, 0..4096, false),
        (4000, 0..97, false),
        (end, 0..1, false),
        (u16::MAX, 0..1, false),
    ];
    let mut pushed = 0;
    for (offset, own, fits) in cases {
        let expected = if fits { Ok(()) } else { Err(CopyError) };
        assert_eq!(into.push(at(offset), own.clone()), expected, "{offset} {own:?}");
        assert_eq!(out.push(own.clone(), at(offset)), expected, "{offset} {own:?}");
        pushed += usize::from(fits);
        assert_eq!((into.len(), out.len()), (pushed, pushed));
    }
    assert!(!into.is_empty() && !out.is_empty() && into.frames() == 1);
    assert!(!into.succeeded(0..1) && !out.succeeded(0..1), "not before they are submitted");
    into.submit(&domain);
    assert!(into.succeeded(0..pushed));
    domain.fail_copies(&[GrantStatus::OKAY, GrantStatus::BAD_PAGE]);
    out.submit(&domain);
    assert!(out.succeeded(0..1) && !out.succeeded(0..2) && out.succeeded(2..pushed));
    assert!(!out.succeeded(0..pushed + 1));
    assert_eq!(into.take().next().unwrap().bytes(), &[0x77; PAGE_SIZE]);
    out.clear();
    assert!(into.is_empty() && out.is_empty());
    assert_eq!((into.len(), out.len()), (0, 0));
    assert_eq!(out.push(0..1, at(0)), Err(CopyError), "the frame has gone, too");
}

/// A copy's bytes are somebody else's: they count as written.
#[test]
fn f7_what_a_copy_brought_is_not_shown_to_the_next_peer() {
    let (domain, pool, table) = world(2);
    let (first, _) = table.claim().unwrap().grant::<ReadOnly>(pool.take().unwrap(), &to(), 0..0);
    let (frame, reference) = first.revoke().unwrap();
    let theirs = grant(&pool, &table);
    domain.scribble(theirs.number(), 0x77);
    let mut batch = CopyIn::default();
    batch.frame(frame);
    let from = Foreign { domain: PEER, gref: theirs.number(), offset: 0 };
    batch.push(from, 200..300).unwrap();
    batch.submit(&domain);
    let frame = batch.take().next().unwrap();
    let (again, cleared) = reference.grant::<ReadOnly>(frame, &to(), 250..260);
    assert_eq!(cleared, 90, "all of it but what the message is about");
    let seen = domain.dump(again.number());
    assert_eq!(seen.iter().filter(|byte| **byte == 0x77).count(), 10);
}

/// A range that the page does not have is not written, and not noted as written either: what was, is
/// cleared.
#[test]
fn f7_a_range_beyond_the_page_hides_nothing_that_was_written() {
    let (_domain, pool, table) = world(1);
    let (granted, _) = table.claim().unwrap().grant::<ReadOnly>(pool.take().unwrap(), &to(), 0..0);
    let (mut frame, reference) = granted.revoke().unwrap();
    frame.range_mut(30..40).unwrap().fill(7);
    for (start, end) in [(10, PAGE_SIZE + 1), (20, 10), (PAGE_SIZE + 1, PAGE_SIZE + 2)] {
        assert!(frame.range_mut(start..end).is_none(), "{start}..{end}");
    }
    let (_granted, cleared) = reference.grant::<ReadOnly>(frame, &to(), 0..0);
    assert_eq!(cleared, 10);
}

#[test]
fn a_frame_gives_the_ranges_that_it_has() {
    let (_, pool, _) = world(1);
    let mut frame = pool.take().unwrap();
    let backwards = std::ops::Range { start: 5, end: 4 };
    let cases = [
        (0..4096, Some(4096)),
        (0..0, Some(0)),
        (9..9, Some(0)),
        (4096..4096, Some(0)),
        (4095..4096, Some(1)),
        (0..4097, None),
        (4097..4097, None),
        (4096..5000, None),
        (backwards, None),
    ];
    for (range, len) in cases {
        let got = frame.range_mut(range.clone()).map(|bytes| bytes.len());
        assert_eq!(got, len, "{range:?}");
    }
    frame.bytes_mut()[4095] = 9;
    assert_eq!(frame.range_mut(4095..4096).unwrap(), [9]);
    let gfn = frame.gfn();
    let shared = frame.share();
    assert_eq!((shared.gfn(), shared.bytes()[4095]), (gfn, 9));
}

#[test]
fn f6_a_quarantine_takes_its_quota_and_the_table_the_rest() {
    let world = world(8);
    let mut quarantine = Quarantine::new(4);
    assert!(quarantine.is_empty() && !quarantine.too_full());
    assert_eq!((quarantine.next_retry(), quarantine.retry(Duration::ZERO)), (None, 0));
    let mut grefs = Vec::new();
    for (at, full) in [false, true, true, true, true].into_iter().enumerate() {
        let granted = stuck(&world);
        grefs.push(granted.number());
        quarantine.admit(granted.revoke().unwrap_err());
        assert_eq!(quarantine.too_full(), full, "more than a quarter");
        assert_eq!((quarantine.len(), quarantine.is_empty()), ((at + 1).min(4), false));
    }
    assert_eq!(world.2.usage().quarantined, 1);
    let late = Duration::from_secs(100);
    assert_eq!((quarantine.retry(late), quarantine.retry(2 * late)), (0, 0));
    assert_eq!(quarantine.next_retry(), Some(2 * late + Duration::from_millis(20)));
    grefs.iter().for_each(|gref| world.0.end(*gref));
    assert_eq!((quarantine.retry(3 * late), quarantine.len()), (4, 0));
    assert_eq!((quarantine.next_retry(), world.2.sweep(), world.1.free()), (None, 1, 8));
    // The next one that is stuck is looked at soon again, however long the last ones took.
    let granted = stuck(&world);
    let gref = granted.number();
    quarantine.admit(granted.revoke().unwrap_err());
    assert_eq!(quarantine.next_retry(), Some(Duration::ZERO));
    assert_eq!(quarantine.retry(4 * late), 0);
    assert_eq!(quarantine.next_retry(), Some(4 * late + Duration::from_millis(10)));
    // A device that goes away tries once more; what is free by now goes home.
    world.0.end(gref);
    drop(quarantine);
    assert_eq!((world.2.usage().quarantined, world.1.free()), (0, 8));
}

#[test]
fn f6_a_sweep_keeps_what_is_still_in_use() {
    let world = world(3);
    let grefs = [(); 3].map(|()| {
        let granted = stuck(&world);
        granted.number()
    });
    assert_eq!(world.2.usage().quarantined, 3);
    world.0.end(grefs[1]);
    assert_eq!((world.2.sweep(), world.2.sweep()), (1, 0));
    assert_eq!((world.2.usage().quarantined, world.2.usage().claimed), (2, 2));
    grefs.iter().for_each(|gref| world.0.end(*gref));
    assert_eq!((world.2.sweep(), world.2.usage().quarantined), (2, 0));
}

#[test]
fn the_lowest_free_reference_is_claimed() {
    let (_, _, table) = world(0);
    assert_eq!(table.usage(), Default::default());
    let mut held: Vec<Option<Reference>> =
        table.claim_many(600).unwrap().into_iter().map(Some).collect();
    assert_eq!((table.usage().entries, table.usage().claimed), (1024, 600));
    for at in [40, 590, 52, 41] {
        held[at] = None;
    }
    let next: Vec<u32> = table.claim_many(5).unwrap().iter().map(Reference::number).collect();
    // Behind the entry with the mark, one further.
    assert_eq!(next, [48, 49, 60, 599, 609]);
    assert_eq!(table.usage().claimed, 596);
    // More than there are: none.
    assert_eq!(table.claim_many(420).unwrap_err().0, GrantStatus::NO_SPACE);
    assert_eq!(table.usage().claimed, 596);
    assert_eq!(table.claim_many(419).unwrap().len(), 419);
}

#[test]
fn statuses_are_the_headers() {
    let numbers = [
        (GrantStatus::OKAY, 0),
        (GrantStatus::GENERAL_ERROR, -1),
        (GrantStatus::BAD_DOMAIN, -2),
        (GrantStatus::BAD_GNTREF, -3),
        (GrantStatus::BAD_HANDLE, -4),
        (GrantStatus::NO_DEVICE_SPACE, -7),
        (GrantStatus::PERMISSION_DENIED, -8),
        (GrantStatus::BAD_PAGE, -9),
        (GrantStatus::BAD_COPY_ARG, -10),
        (GrantStatus::ADDRESS_TOO_BIG, -11),
        (GrantStatus::EAGAIN, -12),
        (GrantStatus::NO_SPACE, -13),
    ];
    for (status, number) in numbers {
        assert_eq!((status.0, status.is_okay()), (number, number == 0));
        assert_eq!(status.to_string(), format!("grant status {number}"));
    }
}

#[test]
fn each_thing_says_what_it_is() {
    let (_, pool, table) = world(4);
    let frame = pool.take().unwrap();
    let number = frame.gfn().0;
    assert_eq!(format!("{pool:?}"), "FramePool(3 of 4 free)");
    assert_eq!((pool.size(), pool.free(), pool.high_water()), (4, 3, 1));
    assert_eq!(format!("{frame:?}"), format!("Frame({number:#x})"));
    let shared = frame.share();
    assert_eq!(format!("{shared:?}"), format!("SharedFrame({number:#x})"));
    let reference = table.claim().unwrap();
    assert_eq!(format!("{reference:?}"), "Reference(8)");
    let (granted, _) = reference.grant::<ReadOnly>(shared.try_unshare().unwrap(), &to(), 0..0);
    assert_eq!(format!("{granted:?}"), "Granted(8)");
    assert_eq!((to().domain(), Grantee::new(PEER, false).domain()), (PEER, PEER));
    let said = [
        ClaimError(GrantStatus::NO_SPACE).to_string(),
        CopyError.to_string(),
        PoolError::OutOfPages(3).to_string(),
        PoolError::GfnTooBig(Gfn(1 << 32)).to_string(),
        PoolError::TooMany.to_string(),
    ];
    assert_eq!(
        said,
        [
            "no grant reference is free (grant status -13)",
            "a grant copy would cross the end of a page",
            "the platform had only 3 pages for the frame pool",
            "frame 0x100000000 does not fit a version 1 grant entry",
            "a frame pool holds at most 2097151 pages",
        ]
    );
}
