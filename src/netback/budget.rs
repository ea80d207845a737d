//! How many frames of ours wait for clients: a reserve for each, and a part that all share.
//!
//! ```text
//!   | client 1: reserve | client 2: reserve | ... | shared: drawn by 1 | drawn by 3 |   free   |
//!                                                                     as much may be drawn ──┘
//! ```
//!
//! A client may draw from the shared part as long as it has drawn no more than is still free. So one that
//! is slow gets half of it, two get a third each, and k leave the others 1/(k + 1); and one that has taken
//! nothing for a moment is left with its reserve.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU32, Ordering};

use super::from_client::BATCH_OPS;
use crate::wire::MAX_SLOTS;

/// The frames that may wait for clients, of all vifs of one backend. Clones are the same budget.
#[derive(Clone, Debug)]
pub struct Budget(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    reserve: u32,
    /// Reserves that nobody has.
    reserves: AtomicU32,
    shared: u32,
    /// Frames of the shared part that nobody has drawn.
    free: AtomicU32,
}

/// Bounds that do not fit the pool, or a reserve that the largest packet does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BudgetError {
    /// Frames that all bounds add up to.
    pub needed: usize,
    /// Frames of the pool.
    pub pages: usize,
    /// The reserve of each client.
    pub reserve: usize,
}

impl core::fmt::Display for BudgetError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let BudgetError { needed, pages, reserve } = self;
        if *reserve < MAX_SLOTS {
            return write!(
                f,
                "a client's reserve is {reserve} frames, and a packet takes {MAX_SLOTS}"
            );
        }
        write!(f, "{needed} frames may be in use, and the pool has {pages}")
    }
}

impl core::error::Error for BudgetError {}

/// What a hypercall copies, and a packet that is being cut or filled in.
pub(super) const IN_WORK: usize = BATCH_OPS + MAX_SLOTS;

impl Budget {
    /// A budget for up to `clients` clients of `reserve` frames each, at least 18, and `shared` frames
    /// that they share, in a pool of `pages` pages: an error if all of it does not fit, with the frames
    /// of one batch of copies and of a packet in work.
    ///
    /// What the layers above keep, or a frontend has in flight, comes on top.
    pub fn new(
        pages: usize,
        clients: usize,
        reserve: usize,
        shared: usize,
    ) -> Result<Budget, BudgetError> {
        let reserves = clients.saturating_mul(reserve);
        let needed = reserves.saturating_add(shared).saturating_add(IN_WORK);
        let error = BudgetError { needed, pages, reserve };
        if needed > pages || reserve < MAX_SLOTS {
            return Err(error);
        }
        let all = u32::try_from(needed).map_err(|_| error)?;
        // None is more than all of them together.
        let (clients, reserve, shared) = (clients as u32, reserve as u32, shared as u32);
        debug_assert!(clients.max(shared) <= all);
        Ok(Budget::of(clients, reserve, shared))
    }

    /// The budget that divides a pool of `pages` pages between up to `clients` clients: half of it for their
    /// reserves, as far as each needs no more than 64 frames, and what is left for all.
    pub fn dividing(pages: usize, clients: usize) -> Result<Budget, BudgetError> {
        let left = pages.saturating_sub(IN_WORK);
        let reserve = (left / 2 / clients.max(1)).clamp(MAX_SLOTS, 64);
        let shared = left.saturating_sub(clients.saturating_mul(reserve));
        Budget::new(pages, clients, reserve, shared)
    }

    fn of(clients: u32, reserve: u32, shared: u32) -> Budget {
        let (reserves, free) = (AtomicU32::new(clients), AtomicU32::new(shared));
        Budget(Arc::new(Parts { reserve, reserves, shared, free }))
    }

    /// The account of the only client, who may have so many frames.
    pub(super) fn of_one(frames: usize) -> Account {
        let reserve = u32::try_from(frames).unwrap_or(u32::MAX);
        let budget = Budget::of(0, reserve, 0);
        Account { held: 0, most: reserve, budget }
    }

    /// A client's account; `None` if as many have one as there may be.
    pub(super) fn account(&self) -> Option<Account> {
        let less = |left: u32| left.checked_sub(1);
        self.0.reserves.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).ok()?;
        Some(Account { held: 0, most: self.0.reserve, budget: self.clone() })
    }

    /// Frames of each client's reserve.
    pub fn reserve(&self) -> usize {
        self.0.reserve as usize
    }

    /// Frames that all share.
    pub fn shared(&self) -> usize {
        self.0.shared as usize
    }

    /// Those of them that nobody has drawn.
    pub fn free(&self) -> usize {
        self.0.free.load(Ordering::Relaxed) as usize
    }

    /// Draws from the shared part for somebody who has `drawn` so far: no more than is left.
    fn draw(&self, count: u32, drawn: u32) -> bool {
        let less = |free: u32| free.checked_sub(count).filter(|left| drawn + count <= *left);
        self.0.free.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }

    fn give_back(&self, count: u32) {
        self.0.free.fetch_add(count, Ordering::Relaxed);
    }
}

/// What one client holds of the budget. Dropped, all of it is free again.
pub(super) struct Account {
    held: u32,
    /// How much it may hold: its reserve, and what it has drawn.
    most: u32,
    budget: Budget,
}

impl Account {
    /// Charges it with so many frames, if it may have them; no more than the reserve if it `is_quiet`.
    #[inline]
    pub(super) fn charge(&mut self, frames: usize, is_quiet: bool) -> bool {
        // At most a packet's.
        let held = self.held + frames as u32;
        if held > self.most && !self.draw(held - self.most, is_quiet) {
            return false;
        }
        self.held = held;
        true
    }

    #[cold]
    #[inline(never)]
    fn draw(&mut self, count: u32, is_quiet: bool) -> bool {
        let drawn = self.most - self.budget.0.reserve;
        let is_drawn = !is_quiet && self.budget.draw(count, drawn);
        self.most += if is_drawn { count } else { 0 };
        is_drawn
    }

    /// So many frames wait no more.
    #[inline]
    pub(super) fn give_back(&mut self, frames: usize) {
        self.held = self.held.saturating_sub(frames as u32);
        if self.most > self.budget.0.reserve {
            self.settle();
        }
    }

    #[cold]
    #[inline(never)]
    fn settle(&mut self) {
        let needed = self.held.max(self.budget.0.reserve);
        self.budget.give_back(self.most - needed);
        self.most = needed;
    }

    /// Whether it holds more than its reserve.
    #[inline]
    pub(super) fn has_drawn(&self) -> bool {
        self.most > self.budget.0.reserve
    }

    /// What another account was charged with is this one's, whether it may hold as much or not.
    pub(super) fn take_over(&mut self, other: &Account) {
        self.held = other.held;
    }

    /// Nothing waits any more.
    pub(super) fn clear(&mut self) {
        self.give_back(self.held as usize);
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.clear();
        self.budget.0.reserves.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b7_all_bounds_fit_the_pool_or_the_error_says_the_numbers() {
        let budget = Budget::new(64 * 32 + 1000 + 274, 64, 32, 1000).unwrap();
        assert_eq!((budget.reserve(), budget.shared(), budget.free()), (32, 1000, 1000));
        let error = Budget::new(64 * 32 + 1000 + 273, 64, 32, 1000).unwrap_err();
        assert_eq!((error.needed, error.pages), (3322, 3321));
        assert_eq!(alloc::format!("{error}"), "3322 frames may be in use, and the pool has 3321");
        let error = Budget::new(10_000, 64, 17, 0).unwrap_err();
        assert!(alloc::format!("{error}").contains("17 frames, and a packet takes 18"));
        for huge in [usize::MAX, u32::MAX as usize] {
            assert!(Budget::new(usize::MAX, huge, huge, huge).is_err());
            assert!(Budget::new(1000, 1, 18, huge).is_err());
        }
        // As many accounts as clients, and one that is dropped leaves its place.
        let budget = Budget::new(500, 2, 20, 0).unwrap();
        let both = [budget.account().unwrap(), budget.account().unwrap()];
        assert!(budget.account().is_none());
        drop(both);
        assert!(budget.account().is_some());
    }

    #[test]
    fn b7_a_pool_is_divided_and_nothing_of_it_left() {
        for (pages, clients) in [(6000, 64), (2000, 64), (1000, 1), (292, 1), (786, 3)] {
            let budget = Budget::dividing(pages, clients).unwrap();
            let all = clients * budget.reserve() + budget.shared() + IN_WORK;
            assert_eq!(all, pages, "{budget:?}");
            assert!((MAX_SLOTS..=64).contains(&budget.reserve()));
        }
        for (pages, clients) in [(291, 1), (0, 0), (1000, 64)] {
            assert!(Budget::dividing(pages, clients).is_err(), "{pages} for {clients}");
        }
    }

    /// Each takes all that it gets: k of them leave 1/(k + 1) of the shared part.
    #[test]
    fn n5_silent_clients_leave_their_share_to_the_next() {
        for silent in [1, 2, 10, 60] {
            let budget = Budget::new(10_000, 64, 20, 1200).unwrap();
            let mut accounts: alloc::vec::Vec<_> =
                (0..silent).map(|_| budget.account().unwrap()).collect();
            for _ in 0..2000 {
                for account in &mut accounts {
                    account.charge(1, false);
                }
            }
            let left = 1200 / (silent + 1);
            assert!(budget.free().abs_diff(left) <= silent, "{silent}: {} left", budget.free());
            let mut honest = budget.account().unwrap();
            let mut got = 0;
            while honest.charge(1, false) {
                got += 1;
            }
            assert!(got + 1 >= 20 + left / 2, "{silent}: {got}");
            // What is given back is free for others at once, and what is left of it is a reserve.
            let before = budget.free();
            honest.give_back(got - 20);
            assert_eq!(budget.free(), before + got - 20);
            assert!(!honest.has_drawn() && !honest.charge(1, true) && honest.charge(1, false));
            honest.clear();
            drop((honest, accounts));
            assert_eq!(budget.free(), 1200);
        }
    }
}
