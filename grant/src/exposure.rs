//! Whose bytes a page may hold, and what must be cleared before the next peer sees it.
//!
//! A grant covers a whole page, so everything that an earlier user left there is visible to the
//! next peer. Clearing every page every time would cost more than the packet; remembering two
//! things makes it free where traffic is steady:
//!
//! * `known`: all bytes outside the dirty range are zero, or have been visible to this domain;
//! * `dirty`: the range that has been written since.
//!
//! ```text
//!     0      dirty.start      announced range      dirty.end      4096
//!     |---------|#################================####|--------------|
//!      known to    cleared          what the        cleared   known to
//!      the peer                  message is about             the peer
//! ```
//!
//! A page that goes to another domain than before is cleared outside the announced range.

use core::cell::Cell;
use core::ops::Range;

use crate::memory::{DomId, PAGE_SIZE};

/// Nobody has seen the page: its clean part is zero.
const ZERO: u32 = 1 << 16;
/// The dirty range `PAGE_SIZE..0`, which is empty and grows rightly by minimum and maximum.
const CLEAN: (u16, u16) = (PAGE_SIZE as u16, 0);

/// One page's record. Only who holds the page as a [`Frame`](crate::Frame), which is exclusive,
/// changes it; who holds a share of it reads it.
pub(crate) struct Exposure {
    /// A domain's [`Grantee::identity`], or [`ZERO`].
    known: Cell<u32>,
    /// Start and end of the dirty range.
    dirty: Cell<(u16, u16)>,
}

/// Which bytes must be cleared before a grant: two ranges, either may be empty.
pub(crate) type Stale = [Range<usize>; 2];

impl Exposure {
    pub(crate) fn zeroed() -> Exposure {
        Exposure { known: Cell::new(ZERO), dirty: Cell::new(CLEAN) }
    }

    /// What has been written since the page was last shown.
    #[inline]
    fn dirty(&self) -> Range<usize> {
        let (start, end) = self.dirty.get();
        usize::from(start)..usize::from(end)
    }

    /// Bytes `range`, which lie within the page, are about to be written.
    #[inline]
    pub(crate) fn mark(&self, range: Range<usize>) {
        let (start, end) = self.dirty.get();
        self.dirty.set((start.min(range.start as u16), end.max(range.end as u16)));
    }

    /// Steady traffic: whether a peer who is told of the bytes `announced` may see the page as it
    /// is, because this peer has seen all the rest of it. If so, the page counts as shown.
    #[inline]
    pub(crate) fn show_as_is(&self, to: &Grantee, announced: &Range<usize>) -> bool {
        let dirty = self.dirty();
        // A peer without trust is trusted with no page.
        let as_is = self.known.get() == to.trusted_with
            && announced.start <= dirty.start
            && dirty.end <= announced.end;
        if as_is {
            self.dirty.set(CLEAN);
        }
        as_is
    }

    /// Whether a peer who is told of the bytes `announced` may see the page as it is though nothing of
    /// it can be cleared: all the rest is zero, or this peer has seen it. What is shown so changes
    /// nothing here: the rest is still zero, or known to whom it was known.
    #[inline]
    pub(crate) fn is_fit(&self, to: &Grantee, announced: &Range<usize>) -> bool {
        let (dirty, known) = (self.dirty(), self.known.get());
        (known == ZERO || known == to.trusted_with)
            && announced.start <= dirty.start
            && dirty.end <= announced.end
    }

    /// The page is to be fit for every peer who is told of the bytes `shown`: returns what has to be
    /// cleared for it.
    pub(crate) fn conceal(&self, shown: Range<usize>) -> Stale {
        let stale = if self.known.replace(ZERO) == ZERO { self.dirty() } else { 0..PAGE_SIZE };
        let meant = (shown.start as u16, shown.end as u16);
        self.dirty.set(if shown.is_empty() { CLEAN } else { meant });
        around(stale, &shown)
    }

    /// The page is about to become visible to a peer, who is told of the bytes `announced`.
    /// Returns what has to be cleared first: around the announced range, all of the page or what
    /// is dirty in it.
    #[cold]
    pub(crate) fn show(&self, to: &Grantee, announced: Range<usize>) -> Stale {
        let known = self.known.get();
        let clean = known == to.trusted_with || (known == ZERO && to.trusted());
        let stale = if clean { self.dirty() } else { 0..PAGE_SIZE };
        self.known.set(to.identity);
        self.dirty.set(CLEAN);
        around(stale, &announced)
    }
}

/// What of `stale` lies before and behind the bytes `meant`.
fn around(stale: Range<usize>, meant: &Range<usize>) -> Stale {
    [
        stale.start..stale.end.min(meant.start).max(stale.start),
        stale.start.max(meant.end).min(stale.end)..stale.end,
    ]
}

/// Nobody's number: a domid has 16 bits, a machine's number 14 above [`ZERO`]'s.
const NOBODY: u32 = u32::MAX;

/// Who is granted a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grantee {
    domain: DomId,
    /// Its number, and its machine's above it.
    identity: u32,
    /// Whose bytes the peer may see besides those that are meant.
    trusted_with: u32,
    /// The domain as it stands in a grant entry.
    pub(crate) permit: u32,
}

impl Grantee {
    /// A peer. Not `trusted` means that everything outside the announced range is cleared at every
    /// grant, also what this peer has seen before (xenstore's `trusted=0`).
    pub fn new(domain: DomId, trusted: bool) -> Grantee {
        let identity = u32::from(domain.0);
        let trusted_with = if trusted { identity } else { NOBODY };
        Grantee { domain, identity, trusted_with, permit: u32::from(domain.0) << 16 }
    }

    /// The same on another machine: whoever has been saved or migrated counts the machines it has
    /// been on. A domain of the next one that happens to have the same number has seen nothing yet.
    #[must_use]
    pub fn on_machine(self, number: u64) -> Grantee {
        let identity = u32::from(self.domain.0) | (number as u32 & 0x3fff) << 17;
        let trusted_with = if self.trusted() { identity } else { NOBODY };
        Grantee { identity, trusted_with, ..self }
    }

    /// Its domain.
    #[inline]
    pub fn domain(&self) -> DomId {
        self.domain
    }

    fn trusted(&self) -> bool {
        self.trusted_with != NOBODY
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn a() -> Grantee {
        Grantee::new(DomId(1), true)
    }

    fn b() -> Grantee {
        Grantee::new(DomId(2), true)
    }

    /// As a grant does it: what it would clear, if anything.
    fn show(page: &Exposure, to: &Grantee, announced: Range<usize>) -> Option<Stale> {
        if page.show_as_is(to, &announced) {
            return None;
        }
        let stale = page.show(to, announced);
        stale.iter().any(|range| !range.is_empty()).then_some(stale)
    }

    fn bytes(stale: Option<Stale>) -> usize {
        stale.map_or(0, |ranges| ranges.iter().map(|range| range.len()).sum())
    }

    #[test]
    fn f7_steady_traffic_to_one_peer_clears_nothing() {
        let page = Exposure::zeroed();
        for len in [60, 1514, 60, 4096, 1] {
            page.mark(0..len);
            assert_eq!(bytes(show(&page, &a(), 0..len)), 0);
        }
    }

    #[test]
    fn f7_bytes_written_but_not_announced_are_cleared() {
        let page = Exposure::zeroed();
        page.mark(10..200);
        assert_eq!(show(&page, &a(), 50..100), Some([10..50, 100..200]));
        page.mark(10..200);
        assert_eq!(show(&page, &a(), 300..400), Some([10..200, 200..200]));
        page.mark(10..200);
        assert_eq!(show(&page, &a(), 0..5), Some([10..10, 10..200]));
    }

    #[test]
    fn f7_another_peer_sees_only_what_is_announced() {
        let page = Exposure::zeroed();
        page.mark(0..60);
        assert_eq!(show(&page, &a(), 0..60), None);
        page.mark(0..60);
        assert_eq!(show(&page, &b(), 0..60), Some([0..0, 60..4096]));
        // From here on the page is B's; A is the stranger.
        page.mark(0..60);
        assert_eq!(show(&page, &b(), 0..60), None);
        assert_eq!(bytes(show(&page, &a(), 0..0)), PAGE_SIZE);
    }

    #[test]
    fn f7_the_same_domid_on_another_machine_is_another_peer() {
        let page = Exposure::zeroed();
        page.mark(0..60);
        assert_eq!(show(&page, &a().on_machine(0), 0..60), None);
        assert_eq!(show(&page, &a(), 0..60), None);
        page.mark(0..60);
        assert_eq!(show(&page, &a().on_machine(1), 0..60), Some([0..0, 60..4096]));
        assert_eq!(show(&page, &a().on_machine(1), 0..60), None);
        // Numbers that wrap are never taken for nobody's, nor for a page that is all zero.
        for number in [0x3fff, 0x7fff, u64::MAX] {
            let peer = Grantee::new(DomId(u16::MAX), true).on_machine(number);
            assert!(peer.trusted() && ![ZERO, NOBODY].contains(&peer.identity));
        }
        assert!(!Grantee::new(DomId(1), false).on_machine(1).trusted());
    }

    #[test]
    fn f7_domain_0_is_a_peer_like_any_other() {
        let page = Exposure::zeroed();
        let control = Grantee::new(DomId(0), true);
        page.mark(0..60);
        assert_eq!(show(&page, &control, 0..60), None);
        page.mark(0..60);
        assert_eq!(show(&page, &a(), 0..60), Some([0..0, 60..4096]));
    }

    #[test]
    fn f7_a_page_that_can_not_be_cleared_is_fit_for_whom_the_rest_is_known_or_zero() {
        let stranger = Grantee::new(DomId(3), false);
        let page = Exposure::zeroed();
        page.mark(100..160);
        for peer in [a(), b(), stranger] {
            assert!(page.is_fit(&peer, &(100..160)) && page.is_fit(&peer, &(0..4096)));
            assert!(!page.is_fit(&peer, &(101..160)) && !page.is_fit(&peer, &(100..159)));
        }
        // Known to A: fit for A alone, and for nobody with what was written since.
        assert_eq!(show(&page, &a(), 100..160), None);
        assert!(page.is_fit(&a(), &(0..0)));
        assert!(!page.is_fit(&b(), &(0..4096)) && !page.is_fit(&stranger, &(0..4096)));
        page.mark(0..60);
        assert!(page.is_fit(&a(), &(0..60)) && !page.is_fit(&a(), &(14..60)));
        // Concealed, it is fit for all who are told of the rest, and no other part.
        assert_eq!(page.conceal(14..60), [0..14, 60..4096]);
        for peer in [a(), b(), stranger] {
            assert!(page.is_fit(&peer, &(14..60)) && !page.is_fit(&peer, &(15..60)));
        }
        // What nobody has seen needs no more than what was written.
        page.mark(0..10);
        assert_eq!(page.conceal(20..30), [0..20, 30..60]);
        assert_eq!(show(&page, &a(), 20..30), None);
    }

    #[test]
    fn f7_without_trust_everything_else_is_cleared_every_time() {
        let page = Exposure::zeroed();
        let stranger = Grantee::new(DomId(1), false);
        page.mark(0..60);
        assert_eq!(show(&page, &stranger, 0..60), Some([0..0, 60..4096]));
        assert_eq!(show(&page, &stranger, 0..60), Some([0..0, 60..4096]));
    }
}
