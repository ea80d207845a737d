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

use core::ops::Range;

use crate::memory::{DomId, PAGE_SIZE};
use crate::sync::{AtomicU64, Ordering};

/// Nobody has seen the page: its clean part is zero.
const ZERO: u64 = 1 << 16;
/// The dirty range `PAGE_SIZE..0`, which is empty and grows rightly by minimum and maximum.
const CLEAN: Range<usize> = Range { start: PAGE_SIZE, end: 0 };

/// `known`, and the dirty range above it, in one word.
const fn pack(known: u64, dirty: Range<usize>) -> u64 {
    known | (dirty.start as u64) << 32 | (dirty.end as u64) << 48
}

/// One page's record. Only the page's owner changes it, so no two accesses race; it is atomic for
/// want of a cheaper safe cell.
pub(crate) struct Exposure(AtomicU64);

/// Which bytes must be cleared before a grant: two ranges, either may be empty.
pub(crate) type Stale = [Range<usize>; 2];

impl Exposure {
    pub(crate) fn zeroed() -> Exposure {
        Exposure(AtomicU64::new(pack(ZERO, CLEAN)))
    }

    #[inline]
    fn get(&self) -> (u64, Range<usize>) {
        let word = self.0.load(Ordering::Relaxed);
        (word & 0xffff_ffff, (word >> 32) as usize & 0xffff..(word >> 48) as usize)
    }

    /// Bytes `range` are about to be written.
    #[inline]
    pub(crate) fn mark(&self, range: Range<usize>) {
        let (known, dirty) = self.get();
        let dirty = dirty.start.min(range.start)..dirty.end.max(range.end);
        self.0.store(pack(known, dirty), Ordering::Relaxed);
    }

    /// The page is about to become visible to a peer, who is told of the bytes `announced`.
    /// Returns what has to be cleared first; none in steady traffic.
    #[inline]
    pub(crate) fn show(&self, to: &Grantee, announced: Range<usize>) -> Option<Stale> {
        let (known, dirty) = self.get();
        self.0.store(to.shown, Ordering::Relaxed);
        if known == to.trusted_with && announced.start <= dirty.start && dirty.end <= announced.end
        {
            return None;
        }
        stale(known == to.trusted_with || (known == ZERO && to.trusted()), dirty, announced)
    }
}

/// What is to be cleared: around the announced range, all of the page or what is dirty in it.
#[cold]
fn stale(clean: bool, dirty: Range<usize>, announced: Range<usize>) -> Option<Stale> {
    let stale = if clean { dirty } else { 0..PAGE_SIZE };
    let ranges = [
        stale.start..stale.end.min(announced.start).max(stale.start),
        stale.start.max(announced.end).min(stale.end)..stale.end,
    ];
    ranges.iter().any(|range| !range.is_empty()).then_some(ranges)
}

/// Nobody's number: a domid has 16 bits.
const NOBODY: u64 = u32::MAX as u64;

/// Who is granted a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grantee {
    domain: DomId,
    /// What a page is after it has been shown to the peer.
    shown: u64,
    /// Whose bytes the peer may see besides those that are meant.
    trusted_with: u64,
}

impl Grantee {
    /// A peer. Not `trusted` means that everything outside the announced range is cleared at every
    /// grant, also what this peer has seen before (xenstore's `trusted=0`).
    pub fn new(domain: DomId, trusted: bool) -> Grantee {
        let known = u64::from(domain.0);
        let trusted_with = if trusted { known } else { NOBODY };
        Grantee { domain, shown: pack(known, CLEAN), trusted_with }
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

    fn bytes(stale: Option<Stale>) -> usize {
        stale.map_or(0, |ranges| ranges.iter().map(|range| range.len()).sum())
    }

    #[test]
    fn f7_steady_traffic_to_one_peer_clears_nothing() {
        let page = Exposure::zeroed();
        for len in [60, 1514, 60, 4096, 1] {
            page.mark(0..len);
            assert_eq!(bytes(page.show(&a(), 0..len)), 0);
        }
    }

    #[test]
    fn f7_bytes_written_but_not_announced_are_cleared() {
        let page = Exposure::zeroed();
        page.mark(10..200);
        assert_eq!(page.show(&a(), 50..100), Some([10..50, 100..200]));
        page.mark(10..200);
        assert_eq!(page.show(&a(), 300..400), Some([10..200, 200..200]));
        page.mark(10..200);
        assert_eq!(page.show(&a(), 0..5), Some([10..10, 10..200]));
    }

    #[test]
    fn f7_another_peer_sees_only_what_is_announced() {
        let page = Exposure::zeroed();
        page.mark(0..60);
        assert_eq!(page.show(&a(), 0..60), None);
        page.mark(0..60);
        assert_eq!(page.show(&b(), 0..60), Some([0..0, 60..4096]));
        // From here on the page is B's; A is the stranger.
        page.mark(0..60);
        assert_eq!(page.show(&b(), 0..60), None);
        assert_eq!(bytes(page.show(&a(), 0..0)), PAGE_SIZE);
    }

    #[test]
    fn f7_without_trust_everything_else_is_cleared_every_time() {
        let page = Exposure::zeroed();
        let stranger = Grantee::new(DomId(1), false);
        page.mark(0..60);
        assert_eq!(page.show(&stranger, 0..60), Some([0..0, 60..4096]));
        assert_eq!(page.show(&stranger, 0..60), Some([0..0, 60..4096]));
    }
}
