//! Grant tables as a domain and its peer meet them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::num::NonZeroU64;
use std::sync::atomic::Ordering;

use xen_grant::{CopyEnd, CopyOp, DomId, ForeignMemory, Gfn, GrantStatus, Memory};
use xen_sim::memory::{Entry, GTF_PERMIT_ACCESS, GTF_READING, GTF_READONLY, GTF_WRITING};
use xen_sim::{Domain, DomainConfig, FaultRule, Faults, Host, OwnPage, Violation};

const FRONT: DomId = DomId(1);
const BACK: DomId = DomId(2);
const OTHER: DomId = DomId(3);

fn pair() -> (Host, Domain, Domain) {
    let host = Host::new(1);
    let (front, back) = (host.add_domain(FRONT, 32), host.add_domain(BACK, 32));
    (host, front, back)
}

fn granted(front: &Domain, readonly: bool) -> (OwnPage, u32) {
    let page = front.own_page().unwrap();
    let gref = front.grant(BACK, page.gfn(), readonly).unwrap();
    (page, gref)
}

fn flags(domain: &Domain, gref: u32) -> u32 {
    domain.grant_entry(gref).unwrap().flags
}

fn copy(domain: &Domain, source: CopyEnd, dest: CopyEnd, len: u16) -> GrantStatus {
    let mut ops = [CopyOp { source, dest, len, status: GrantStatus(1) }];
    // SAFETY: the tests hold no reference to page bytes, only words.
    unsafe { domain.grant_copy(&mut ops) };
    ops[0].status
}

fn own(gfn: Gfn, offset: u16) -> CopyEnd {
    CopyEnd::Own { gfn, offset }
}

fn foreign(gref: u32, offset: u16) -> CopyEnd {
    CopyEnd::Foreign { domain: FRONT, gref, offset }
}

#[test]
fn a_mapping_shares_the_page_and_marks_the_entry() {
    let (host, front, back) = pair();
    let (page, gref) = granted(&front, false);
    let mapping = back.map_grant(FRONT, gref).unwrap();
    assert_eq!(flags(&front, gref), GTF_PERMIT_ACCESS | GTF_READING | GTF_WRITING);
    // SAFETY: mapped until `unmap_grant` below, and both sides use words only.
    let words = unsafe { mapping.words.as_ref() };
    words[7].store(77, Ordering::Release);
    assert_eq!(page.words()[7].load(Ordering::Acquire), 77);
    let second = back.map_page(FRONT, gref, false).unwrap();
    // SAFETY: `words` is not used any more.
    unsafe { back.unmap_grant(mapping) };
    assert_eq!(flags(&front, gref), GTF_PERMIT_ACCESS | GTF_READING, "one reader is left");
    assert_eq!(second.load(7), 77);
    assert!(!front.end_grant(gref));
    drop(second);
    assert_eq!(flags(&front, gref), GTF_PERMIT_ACCESS);
    assert!(front.end_grant(gref));
    assert_eq!(back.mappings(), 0);
    let counts = back.counts();
    assert_eq!((counts.maps, counts.unmaps), (2, 2));
    assert_eq!(host.violations(), []);
}

#[test]
fn maps_are_refused_with_xens_status() {
    let (host, front, back) = pair();
    let other = host.add_domain(OTHER, 4);
    let (page, gref) = granted(&front, true);
    let refused = |domain: &Domain, owner, gref, write| {
        domain.map_page(owner, gref, write).map(|_| ()).unwrap_err()
    };
    assert_eq!(refused(&back, FRONT, gref, true), GrantStatus::GENERAL_ERROR, "read-only");
    assert_eq!(refused(&other, FRONT, gref, false), GrantStatus::GENERAL_ERROR, "not for you");
    assert_eq!(refused(&back, FRONT, gref + 1, false), GrantStatus::GENERAL_ERROR, "no permit");
    assert_eq!(refused(&back, FRONT, 512, false), GrantStatus::BAD_GNTREF);
    assert_eq!(refused(&back, FRONT, u32::MAX, false), GrantStatus::BAD_GNTREF);
    assert_eq!(refused(&back, OTHER, 8, false), GrantStatus::BAD_GNTREF, "no table at all");
    assert_eq!(refused(&back, DomId(9), gref, false), GrantStatus::BAD_DOMAIN);
    let entry = front.grant_entry(gref).unwrap();
    for frame in [0, entry.frame + 32, u32::MAX] {
        front.set_grant_entry(gref, Entry { frame, ..entry });
        assert_eq!(refused(&back, FRONT, gref, false), GrantStatus::BAD_PAGE);
        assert_eq!(flags(&front, gref), entry.flags, "no mark is left behind");
    }
    for kind in [0, 2, 3] {
        front.set_grant_entry(gref, Entry { flags: kind, ..entry });
        assert_eq!(refused(&back, FRONT, gref, false), GrantStatus::GENERAL_ERROR);
    }
    drop(page);
    assert_eq!(host.violations(), []);
}

#[test]
fn an_entry_in_use_stays_with_its_page_and_its_peer() {
    let (host, front, back) = pair();
    let other = host.add_domain(OTHER, 4);
    let (page, gref) = granted(&front, false);
    let mapped = back.map_page(FRONT, gref, true).unwrap();
    page.words()[0].store(5, Ordering::Relaxed);
    let decoy = front.own_page().unwrap();
    let entry = front.grant_entry(gref).unwrap();
    front.set_grant_entry(gref, Entry { frame: decoy.gfn().0 as u32, ..entry });
    assert_eq!(back.map_page(FRONT, gref, true).unwrap().load(0), 5, "still the first page");
    front.set_grant_entry(gref, Entry { peer: OTHER, ..entry });
    assert_eq!(other.map_page(FRONT, gref, true).err(), Some(GrantStatus::GENERAL_ERROR));
    front.set_grant_entry(gref, Entry { flags: 0, ..entry });
    drop(mapped);
    assert_eq!(host.violations(), [Violation::EntryLostInUse { domain: FRONT, gref }]);
}

#[test]
fn copies_move_exactly_the_named_bytes() {
    let (host, front, back) = pair();
    let (page, gref) = granted(&front, false);
    let (raw, gfn) = back.alloc_page().unwrap();
    page.write(3, b"hello, world");
    assert_eq!(copy(&back, foreign(gref, 3), own(gfn, 1001), 12), GrantStatus::OKAY);
    assert_eq!(flags(&front, gref), GTF_PERMIT_ACCESS, "the marks are gone after the copy");
    // SAFETY: allocated above, never granted, and no other reference exists.
    let bytes = unsafe { &mut (*raw.as_ptr()).0 };
    assert_eq!(&bytes[1000..1014], b"\0hello, world\0");
    bytes[1001] = b'j';
    assert_eq!(copy(&back, own(gfn, 1001), foreign(gref, 4091), 5), GrantStatus::OKAY);
    let mut end = [0; 6];
    page.read(4090, &mut end);
    assert_eq!(&end, b"\0jello");
    assert_eq!(copy(&back, foreign(gref, 0), foreign(gref, 4094), 2), GrantStatus::OKAY);
    let counts = back.counts();
    assert_eq!((counts.copies, counts.copy_calls, counts.copy_bytes), (3, 3, 19));
    // SAFETY: from `alloc_page`, and `bytes` is not used any more.
    unsafe { back.free_page(raw, gfn) };
    assert_eq!(host.violations(), []);
    assert_eq!(back.pages_in_use(), 0);
}

/// Copies between plain pages, the case of data buffers: no word access on either side.
#[test]
fn plain_pages_are_copied_plainly() {
    let (host, front, back) = pair();
    let (theirs, their_gfn) = front.alloc_page().unwrap();
    let (ours, our_gfn) = back.alloc_page().unwrap();
    // SAFETY: not granted yet, and no other reference exists.
    unsafe { (*theirs.as_ptr()).0.fill(0xab) };
    let gref = front.grant(BACK, their_gfn, true).unwrap();
    assert_eq!(copy(&back, foreign(gref, 1), own(our_gfn, 2), 4094), GrantStatus::OKAY);
    assert_eq!(copy(&back, own(our_gfn, 0), foreign(gref, 0), 1), GrantStatus::GENERAL_ERROR);
    // SAFETY: not granted, and no other reference exists.
    let bytes = unsafe { &(*ours.as_ptr()).0 };
    assert!(bytes[..2] == [0, 0] && bytes[2..].iter().all(|&b| b == 0xab));
    let dump = back.dump_granted(FRONT);
    assert_eq!(dump.len(), 1);
    assert!(dump[0].gref == gref && dump[0].bytes.iter().all(|&b| b == 0xab));
    assert!(front.end_grant(gref));
    assert!(back.dump_granted(FRONT).is_empty());
    // SAFETY: both from `alloc_page`, with nothing left pointing there.
    unsafe { front.free_page(theirs, their_gfn) };
    // SAFETY: as above.
    unsafe { back.free_page(ours, our_gfn) };
    assert_eq!(host.violations(), []);
}

#[test]
fn copies_are_refused_with_xens_status() {
    let (_host, front, back) = pair();
    let (_page, gref) = granted(&front, true);
    let scratch = back.own_page().unwrap();
    let here = own(scratch.gfn(), 0);
    assert_eq!(copy(&back, foreign(gref, 4090), here, 7), GrantStatus::BAD_COPY_ARG);
    assert_eq!(
        copy(&back, foreign(gref, 0), own(scratch.gfn(), 4090), 7),
        GrantStatus::BAD_COPY_ARG
    );
    assert_eq!(copy(&back, foreign(gref, 65535), here, 65535), GrantStatus::BAD_COPY_ARG);
    assert_eq!(flags(&front, gref), GTF_PERMIT_ACCESS | GTF_READONLY);
    assert_eq!(copy(&back, here, foreign(gref, 0), 1), GrantStatus::GENERAL_ERROR, "read-only");
    assert_eq!(copy(&back, foreign(gref + 1, 0), here, 1), GrantStatus::GENERAL_ERROR);
    assert_eq!(copy(&back, foreign(4096, 0), here, 1), GrantStatus::BAD_GNTREF);
    assert_eq!(copy(&back, foreign(gref, 0), own(Gfn(3), 0), 1), GrantStatus::BAD_PAGE);
    let nobody = CopyEnd::Foreign { domain: DomId(9), gref, offset: 0 };
    assert_eq!(copy(&back, nobody, here, 1), GrantStatus::BAD_DOMAIN);
    assert_eq!(back.counts().copy_errors, 8);
    assert_eq!(
        copy(&back, foreign(gref, 4096), here, 0),
        GrantStatus::OKAY,
        "no bytes, no crossing"
    );
}

#[test]
fn the_table_grows_in_order_to_its_limit() {
    let host = Host::new(0);
    let config = DomainConfig { pages: 1, max_grant_frames: 2, ..DomainConfig::default() };
    let domain = host.add_domain_with(FRONT, config);
    assert_eq!(domain.max_grant_frames(), 2);
    let first = domain.grant_frame(0).unwrap();
    // SAFETY: a grant frame stays as long as the domain.
    let words = unsafe { first.as_ref() };
    assert_eq!(words[0].load(Ordering::Relaxed), 0x19, "the console's entry");
    assert_eq!(words[2].load(Ordering::Relaxed), 0x19, "xenstore's entry");
    assert!(domain.grant_frame(1).is_ok());
    assert_eq!(domain.grant_frame(2), Err(GrantStatus::GENERAL_ERROR));
    assert_eq!(host.violations(), []);
    assert!(domain.grant_frame(1).is_err());
    assert_eq!(host.violations(), [Violation::GrantFrameOrder { domain: FRONT, index: 1 }]);
    words[2 * 5].store(1, Ordering::Relaxed);
    assert_eq!(host.violations()[1], Violation::ReservedEntry { domain: FRONT, gref: 5 });
}

#[test]
fn pages_freed_wrongly_are_violations() {
    let (host, front, back) = pair();
    let (page, gfn) = front.alloc_page().unwrap();
    let (second, second_gfn) = front.alloc_page().unwrap();
    let gref = front.grant(BACK, gfn, false).unwrap();
    let domain = FRONT;
    // SAFETY: wrong on purpose from here on; the host tells instead of misbehaving, and nothing
    // points into the pages.
    unsafe { front.free_page(page, second_gfn) };
    assert_eq!(host.violations(), [Violation::FreedMismatch { domain, gfn: second_gfn }]);
    let mapped = back.map_page(FRONT, gref, true).unwrap();
    // SAFETY: as above.
    unsafe { front.free_page(page, gfn) };
    assert_eq!(host.violations()[1], Violation::FreedWhileInUse { domain, gfn, gref });
    mapped.store(0, 1); // the page itself lives on
    drop(mapped);
    // SAFETY: as above.
    unsafe { front.free_page(page, gfn) };
    assert_eq!(host.violations()[2], Violation::FreedUnknown { domain, gfn });
    let (third, third_gfn) = front.alloc_page().unwrap();
    assert_eq!(third_gfn, gfn, "numbers are used again");
    // SAFETY: as above.
    unsafe { front.free_page(third, third_gfn) };
    assert_eq!(host.violations()[3], Violation::FreedWhileGranted { domain, gfn, gref });
    // SAFETY: this one is right.
    unsafe { front.free_page(second, second_gfn) };
    assert_eq!(host.violations().len(), 4);
    assert!(host.violations()[3].to_string().contains("freed page"));
    back.unmap_page_for_test();
}

trait Wrong {
    fn unmap_page_for_test(&self);
}

impl Wrong for Domain {
    fn unmap_page_for_test(&self) {
        let mapping = xen_grant::Mapping { words: std::ptr::NonNull::dangling(), handle: 3 };
        // SAFETY: wrong on purpose; the host looks the handle up and never follows the pointer.
        unsafe { self.unmap_grant(mapping) };
        let wrong = Violation::UnmappedUnknown { domain: BACK, handle: 3 };
        assert_eq!(self.host().violations().last(), Some(&wrong));
    }
}

#[test]
fn pages_are_zeroed_distinct_and_limited() {
    let host = Host::new(0);
    let domain = host.add_domain(FRONT, 3);
    let pages: Vec<_> = (0..3).map(|_| domain.alloc_page().unwrap()).collect();
    assert!(domain.alloc_page().is_none());
    for (page, gfn) in &pages {
        // SAFETY: ours, not granted, no other reference.
        let bytes = unsafe { &mut (*page.as_ptr()).0 };
        assert!(bytes.iter().all(|&b| b == 0));
        assert_eq!(bytes.as_ptr() as usize % 4096, 0);
        bytes.fill(1);
        assert!(pages.iter().filter(|(_, other)| other == gfn).count() == 1);
    }
    // SAFETY: ours, and nothing points there.
    unsafe { domain.free_page(pages[1].0, pages[1].1) };
    let (page, _) = domain.alloc_page().unwrap();
    // SAFETY: ours, not granted, no other reference.
    assert!(unsafe { (*page.as_ptr()).0 }.iter().all(|&b| b == 0), "zeroed again");
    let other = host.add_domain(BACK, 1);
    let (_, gfn) = other.alloc_page().unwrap();
    assert!(pages.iter().all(|(_, ours)| *ours != gfn), "numbers tell domains apart");
}

#[test]
fn faults_strike_on_order() {
    let (_host, front, back) = pair();
    let (_page, gref) = granted(&front, false);
    let scratch = back.own_page().unwrap();
    back.set_faults(Faults {
        map: Some(FaultRule::next(GrantStatus::EAGAIN)),
        copy: Some(FaultRule::every(NonZeroU64::new(2).unwrap(), GrantStatus::ADDRESS_TOO_BIG)),
        alloc_page: Some(FaultRule::always(())),
        grant_frame: Some(FaultRule::next(GrantStatus::NO_SPACE)),
        ..Faults::default()
    });
    assert_eq!(back.map_page(FRONT, gref, true).err(), Some(GrantStatus::EAGAIN));
    assert!(back.map_page(FRONT, gref, true).is_ok());
    assert!(back.alloc_page().is_none());
    assert_eq!(back.grant_frame(0), Err(GrantStatus::NO_SPACE));
    assert!(back.grant_frame(0).is_ok());
    let op = CopyOp {
        source: foreign(gref, 0),
        dest: own(scratch.gfn(), 0),
        len: 1,
        status: GrantStatus(1),
    };
    let mut ops = [op; 4];
    // SAFETY: only words are used here.
    unsafe { back.grant_copy(&mut ops) };
    let (ok, bad) = (GrantStatus::OKAY, GrantStatus::ADDRESS_TOO_BIG);
    assert_eq!(ops.map(|op| op.status), [ok, bad, ok, bad]);
    assert_eq!(back.counts().copy_calls, 1);
}

/// One frame keeps track of 256 mappings, of which the last is never used.
#[test]
fn a_map_beyond_the_maptrack_frames_is_refused() {
    let host = Host::new(0);
    let front = host.add_domain(FRONT, 4);
    let config = DomainConfig { max_maptrack_frames: 1, ..DomainConfig::default() };
    let back = host.add_domain_with(BACK, config);
    let (_page, gref) = granted(&front, false);
    let map = || back.map_page(FRONT, gref, true);
    let mut mapped: Vec<_> = (0..255).map(|_| map().unwrap()).collect();
    assert_eq!(map().err(), Some(GrantStatus::NO_DEVICE_SPACE));
    assert_eq!(back.map_page(FRONT, 9999, true).err(), Some(GrantStatus::NO_DEVICE_SPACE));
    assert_eq!(back.map_page(DomId(9), gref, true).err(), Some(GrantStatus::BAD_DOMAIN));
    mapped.pop();
    mapped.push(map().unwrap());
    assert_eq!(map().err(), Some(GrantStatus::NO_DEVICE_SPACE));
    drop(mapped);
    assert_eq!((back.mappings(), host.violations()), (0, vec![]));
}

#[test]
fn a_dead_domain_lets_go_of_what_it_mapped() {
    let (host, front, back) = pair();
    let (_page, gref) = granted(&front, false);
    let mapped = back.map_page(FRONT, gref, true).unwrap();
    assert!(front.grant_in_use(gref));
    host.destroy_domain(BACK);
    assert!(!front.grant_in_use(gref));
    assert_eq!(flags(&front, gref), GTF_PERMIT_ACCESS);
    let zombie = back.map_page(FRONT, gref, true);
    assert_eq!(zombie.err(), Some(GrantStatus::BAD_DOMAIN), "a handle of the dead does nothing");
    drop(mapped);
    assert_eq!(host.violations(), []);
    assert!(host.domain(BACK).is_none());
}

/// A hostile owner flips its entry and scribbles over the page while the peer maps and copies.
#[test]
fn threads_race_for_an_entry() {
    let host = Host::threaded(0);
    let (front, back) = (host.add_domain(FRONT, 4), host.add_domain(BACK, 4));
    let (page, gref) = granted(&front, false);
    let scratch = back.own_page().unwrap();
    let entry = front.grant_entry(gref).unwrap();
    let rounds = if cfg!(miri) { 20 } else { 5000 };
    let (mut okay, mut refused) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..rounds {
                page.words()[round as usize % 64].store(round, Ordering::Relaxed);
                if round % 3 == 0 && front.end_grant(gref) {
                    std::thread::yield_now();
                    front.set_grant_entry(gref, entry);
                }
            }
        });
        for _ in 0..rounds {
            if let Ok(mapped) = back.map_page(FRONT, gref, true) {
                mapped.store(65, mapped.load(1));
            }
            match copy(&back, foreign(gref, 1), own(scratch.gfn(), 2), 255) {
                GrantStatus::OKAY => okay += 1,
                GrantStatus::GENERAL_ERROR => refused += 1,
                other => panic!("{other}"),
            }
        }
    });
    assert_eq!(okay + refused, rounds);
    let quiet = copy(&back, foreign(gref, 0), own(scratch.gfn(), 0), 64);
    assert_eq!(quiet, GrantStatus::OKAY, "nothing is left behind");
    assert_eq!(flags(&front, gref) & (GTF_READING | GTF_WRITING), 0);
    assert_eq!(host.violations(), []);
}
