//! Counts heap allocations, and whose they are.
//!
//! What a domain does in its turn is charged to it: the driver's calls and the stack's above it.
//! The simulated host's own work on the way (a grant copy, an event) would count too, but makes
//! none. What is measured and checked around that is nobody's and not counted.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

/// Who allocates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The program around the domains.
    Nobody,
    /// The client domain.
    Front,
    /// The backend domain.
    Back,
}

thread_local! {
    static OWNER: Cell<Owner> = const { Cell::new(Owner::Nobody) };
}

static FRONT: AtomicU64 = AtomicU64::new(0);
static BACK: AtomicU64 = AtomicU64::new(0);

/// Charges allocations of this thread to `owner` until it is dropped.
#[must_use]
pub struct Charge {
    before: Owner,
}

impl Charge {
    /// From now on allocations are this owner's.
    pub fn to(owner: Owner) -> Charge {
        Charge { before: OWNER.replace(owner) }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        OWNER.set(self.before);
    }
}

/// Allocations so far: the client's, the backend's.
pub fn counts() -> (u64, u64) {
    (FRONT.load(Ordering::Relaxed), BACK.load(Ordering::Relaxed))
}

fn count() {
    // A thread that is ending has no owner any more.
    match OWNER.try_with(Cell::get).unwrap_or(Owner::Nobody) {
        Owner::Nobody => {}
        Owner::Front => _ = FRONT.fetch_add(1, Ordering::Relaxed),
        Owner::Back => _ = BACK.fetch_add(1, Ordering::Relaxed),
    }
}

/// The system's allocator, counting.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: all is left to the system's allocator; counting allocates nothing and can't fail.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise is the one `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.realloc(at, layout, size) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allocations_are_charged_to_whose_turn_it_is() {
        let before = counts();
        let front = Charge::to(Owner::Front);
        let one = std::hint::black_box(Box::new(1));
        {
            let _back = Charge::to(Owner::Back);
            drop(std::hint::black_box(vec![*one; 100]));
        }
        drop(front);
        drop(std::hint::black_box(one.to_string()));
        let after = counts();
        assert_eq!((after.0 - before.0, after.1 - before.1), (1, 1));
    }
}
