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
use crate::sync::{AtomicU32, Ordering};

/// Nobody has seen the page: its clean part is zero.
const ZERO: u32 = 1 << 16;
/// The dirty range `PAGE_SIZE..0`, which is empty and grows rightly by minimum and maximum.
const CLEAN: u32 = pack(PAGE_SIZE, 0);

const fn pack(start: usize, end: usize) -> u32 {
    (start | end << 16) as u32
}

/// One page's record. Only the page's owner changes it, so no two accesses race; they are atomics
/// for want of a cheaper safe cell.
pub(crate) struct Exposure {
    known: AtomicU32,
    dirty: AtomicU32,
}

/// Which bytes must be cleared before a grant: two ranges, either may be empty.
pub(crate) type Stale = [Range<usize>; 2];

impl Exposure {
    pub(crate) fn zeroed() -> Exposure {
        Exposure { known: AtomicU32::new(ZERO), dirty: AtomicU32::new(CLEAN) }
    }

    fn dirty(&self) -> Range<usize> {
        let dirty = self.dirty.load(Ordering::Relaxed) as usize;
        dirty & 0xffff..dirty >> 16
    }

    /// Bytes `range` are about to be written.
    #[inline]
    pub(crate) fn mark(&self, range: Range<usize>) {
        let dirty = self.dirty();
        let (start, end) = (dirty.start.min(range.start), dirty.end.max(range.end));
        self.dirty.store(pack(start, end), Ordering::Relaxed);
    }

    /// The page is about to become visible to `peer`, who is told of the bytes `announced`.
    /// Returns what has to be cleared first; none in steady traffic.
    ///
    /// With `trust` false, everything outside `announced` must be cleared, whoever saw it.
    #[inline]
    pub(crate) fn show(&self, peer: DomId, announced: Range<usize>, trust: bool) -> Option<Stale> {
        let (known, dirty) = (self.known.load(Ordering::Relaxed), self.dirty());
        self.known.store(u32::from(peer.0), Ordering::Relaxed);
        self.dirty.store(CLEAN, Ordering::Relaxed);
        let stale = if trust && (known == u32::from(peer.0) || known == ZERO) {
            if announced.start <= dirty.start && dirty.end <= announced.end {
                return None;
            }
            dirty
        } else {
            0..PAGE_SIZE
        };
        Some([
            stale.start..stale.end.min(announced.start).max(stale.start),
            stale.start.max(announced.end).min(stale.end)..stale.end,
        ])
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const A: DomId = DomId(1);
    const B: DomId = DomId(2);

    fn bytes(stale: Option<Stale>) -> usize {
        stale.map_or(0, |ranges| ranges.iter().map(|range| range.len()).sum())
    }

    #[test]
    fn f7_steady_traffic_to_one_peer_clears_nothing() {
        let page = Exposure::zeroed();
        for len in [60, 1514, 60, 4096, 1] {
            page.mark(0..len);
            assert_eq!(bytes(page.show(A, 0..len, true)), 0);
        }
    }

    #[test]
    fn f7_bytes_written_but_not_announced_are_cleared() {
        let page = Exposure::zeroed();
        page.mark(10..200);
        assert_eq!(page.show(A, 50..100, true), Some([10..50, 100..200]));
        page.mark(10..200);
        assert_eq!(page.show(A, 300..400, true), Some([10..200, 200..200]));
        page.mark(10..200);
        assert_eq!(page.show(A, 0..5, true), Some([10..10, 10..200]));
    }

    #[test]
    fn f7_another_peer_sees_only_what_is_announced() {
        let page = Exposure::zeroed();
        page.mark(0..60);
        assert_eq!(page.show(A, 0..60, true), None);
        page.mark(0..60);
        assert_eq!(page.show(B, 0..60, true), Some([0..0, 60..4096]));
        // From here on the page is B's; A is the stranger.
        page.mark(0..60);
        assert_eq!(page.show(B, 0..60, true), None);
        assert_eq!(bytes(page.show(A, 0..0, true)), PAGE_SIZE);
    }

    #[test]
    fn f7_without_trust_everything_else_is_cleared_every_time() {
        let page = Exposure::zeroed();
        page.mark(0..60);
        assert_eq!(page.show(A, 0..60, false), Some([0..0, 60..4096]));
        assert_eq!(page.show(A, 0..60, false), Some([0..0, 60..4096]));
    }
}
