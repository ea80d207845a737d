//! Shares of a pool that are promised to somebody.
//!
//! Several devices, or several parts of one, may live on one pool. Without a promise one of them can
//! take every page, and hold it until another one acts who waits for a page:
//!
//! ```text
//!   pool   | promised to A | promised to B |   nobody's: drawn by whoever needs more, ...   |
//!                                              ◄─────────── ... and given back ──────────
//! ```
//!
//! A reservation is a number, not a set of pages: it moves nothing, and taking a frame asks nobody.
//! Whoever holds no more pages than its reservation says leaves the others theirs.

use crate::pool::FramePool;

/// A promise of so many pages of a pool, taken back when dropped. See [`FramePool::reserve`].
#[derive(Debug)]
pub struct Reservation {
    pool: FramePool,
    pages: u32,
}

/// A pool has not so many pages left that nobody else was promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReserveError {
    /// Pages asked for.
    pub wanted: usize,
    /// Pages that are nobody's.
    pub left: usize,
}

impl core::fmt::Display for ReserveError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let ReserveError { wanted, left } = self;
        write!(f, "{wanted} pages of the frame pool are needed, and {left} are nobody else's")
    }
}

impl core::error::Error for ReserveError {}

impl FramePool {
    /// Promises `pages` pages to the caller, if so many are promised to nobody else.
    ///
    /// A promise is kept by those who have one: hold no more frames than [`Reservation::pages`], and
    /// the others find theirs. [`take`](FramePool::take) does not look at it.
    pub fn reserve(&self, pages: usize) -> Result<Reservation, ReserveError> {
        let mut reservation = Reservation { pool: self.clone(), pages: 0 };
        let drawn = reservation.draw(u32::try_from(pages).unwrap_or(u32::MAX)) as usize;
        // What was drawn goes back with the reservation.
        if drawn < pages {
            Err(ReserveError { wanted: pages, left: drawn })
        } else {
            Ok(reservation)
        }
    }
}

impl Reservation {
    /// The pool.
    #[inline]
    pub fn pool(&self) -> &FramePool {
        &self.pool
    }

    /// Pages promised, those drawn included.
    pub fn pages(&self) -> u32 {
        self.pages
    }

    /// Has up to `most` more pages promised, of those that are nobody's; returns how many.
    pub fn draw(&mut self, most: u32) -> u32 {
        let drawn = self.pool.promise(most);
        self.pages += drawn;
        drawn
    }

    /// Gives up to `pages` pages of the promise back.
    pub fn give_back(&mut self, pages: u32) {
        let pages = pages.min(self.pages);
        self.pages -= pages;
        self.pool.take_promise_back(pages);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.give_back(self.pages);
    }
}
