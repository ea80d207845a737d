//! The frame pool: every page that may ever be granted, allocated once at start.
//!
//! Nothing else is granted, no heap memory, no page that held something unrelated. A frame in use
//! is one pointer to its page's record in the side table here:
//!
//! ```text
//! Pool  head ──► index of the first free record, how many are free, closed?, a tag against ABA
//!       records: [ page, gfn, next free, shares, exposure ] [ ... ] ...
//!                    │
//!                    └──► 4096 bytes, in the same place for the life of the pool
//! ```
//!
//! Taking and returning a frame are one compare-exchange each: no lock, no allocator. The pool
//! goes away with its last frame, so a frame still in some peer's hands is never freed.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ptr::NonNull;

use crate::exposure::Exposure;
use crate::frame::Frame;
use crate::memory::{Gfn, Memory, Page};
use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// What we know of one page.
pub(crate) struct Record {
    pub(crate) page: NonNull<Page>,
    pool: NonNull<Pool>,
    /// A version 1 grant entry has 32 bits for it.
    pub(crate) gfn: u32,
    index: u32,
    next: AtomicU32,
    /// How many `SharedFrame`s stand for the page. Leaked ones can't make 64 bits overflow.
    pub(crate) shares: AtomicU64,
    /// Whose bytes the page may hold.
    pub(crate) exposure: Exposure,
}

/// The free list's head, in one word so that one compare-exchange moves all of it.
#[derive(Clone, Copy)]
struct Head(u64);

/// Bits for an index and for a count: 2 million pages, 8 GB.
const BITS: u32 = 21;
const MASK: u64 = (1 << BITS) - 1;
const CLOSED: u64 = 1 << (2 * BITS);
const TAG: u64 = CLOSED << 1;

impl Head {
    fn first(self) -> usize {
        (self.0 & MASK) as usize
    }

    fn free(self) -> u64 {
        self.0 >> BITS & MASK
    }

    fn closed(self) -> bool {
        self.0 & CLOSED != 0
    }

    /// The head after a frame was taken (`free` one less) or returned (one more).
    fn then(self, first: u32, free: u64) -> Head {
        let kept = self.0 & !(MASK << BITS | MASK);
        Head(kept.wrapping_add(TAG) | free << BITS | u64::from(first))
    }
}

pub(crate) struct Pool {
    head: AtomicU64,
    /// The fewest frames that were ever free.
    least_free: AtomicU32,
    records: Box<[Record]>,
    /// Gives a page back to the platform. Called when the pool dies, never before.
    release: Box<dyn Fn(NonNull<Page>, Gfn) + Send + Sync>,
}

impl Pool {
    fn take(&self) -> Option<Frame> {
        let mut head = Head(self.head.load(Ordering::Acquire));
        loop {
            let record = self.records.get(head.first()).filter(|_| head.free() > 0)?;
            // Another thread may take this record meanwhile and change `next`; the tag in the
            // head has moved on then, and the exchange fails.
            let next = head.then(record.next.load(Ordering::Relaxed), head.free() - 1);
            match self.head.compare_exchange_weak(
                head.0,
                next.0,
                Ordering::AcqRel,
                Ordering::Acquire,
            ) {
                Ok(_) => {
                    let free = next.free() as u32;
                    if free < self.least_free.load(Ordering::Relaxed) {
                        self.least_free.store(free, Ordering::Relaxed);
                    }
                    return Some(Frame::from_record(NonNull::from(record)));
                }
                Err(now) => head = Head(now),
            }
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        for record in &self.records {
            (self.release)(record.page, Gfn(u64::from(record.gfn)));
        }
    }
}

/// Returns a page to its pool, and the pool to the platform if that was the last page out.
///
/// # Safety
///
/// The record is one that [`Pool::take`] gave out, and its last user gives it back.
#[inline(never)]
pub(crate) unsafe fn put_back(record: NonNull<Record>) {
    // SAFETY: a pool and its records live until all of them are home; this one is not.
    let entry = unsafe { record.as_ref() };
    // SAFETY: as above.
    let pool = unsafe { entry.pool.as_ref() };
    let (at, size) = (entry.pool, pool.records.len() as u64);
    let mut head = Head(pool.head.load(Ordering::Relaxed));
    let head = loop {
        entry.next.store(head.first() as u32, Ordering::Relaxed);
        let next = head.then(entry.index, head.free() + 1);
        match pool.head.compare_exchange_weak(head.0, next.0, Ordering::AcqRel, Ordering::Relaxed) {
            Ok(_) => break next,
            Err(now) => head = Head(now),
        }
    };
    // From here on another thread may free the pool, unless this was the exchange that brought
    // the last frame home: then only we see it so.
    if head.closed() && head.free() == size {
        // SAFETY: the box was leaked in `FramePool::new`, and nobody else has the pool any more.
        drop(unsafe { Box::from_raw(at.as_ptr()) });
    }
}

struct Owner(NonNull<Pool>);

// SAFETY: a pool is atomics, immutable records and a `Send + Sync` closure.
unsafe impl Send for Owner {}
// SAFETY: as above.
unsafe impl Sync for Owner {}

impl Owner {
    fn pool(&self) -> &Pool {
        // SAFETY: the pool lives at least until it is closed, which only dropping us does.
        unsafe { self.0.as_ref() }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let size = self.pool().records.len() as u64;
        let head = Head(self.pool().head.fetch_or(CLOSED, Ordering::AcqRel));
        if head.free() == size {
            // SAFETY: leaked in `FramePool::new`; all frames are home and the owner goes now.
            drop(unsafe { Box::from_raw(self.0.as_ptr()) });
        }
    }
}

/// A fixed number of zeroed pages, taken and returned as [`Frame`]s. Clones share it.
#[derive(Clone)]
pub struct FramePool(Arc<Owner>);

/// Why a pool could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolError {
    /// The platform ran out of pages after this many.
    OutOfPages(usize),
    /// A page lies above 16 TB, where a version 1 grant entry can't name it.
    GfnTooBig(Gfn),
    /// More pages than a pool can count (2097151).
    TooMany,
}

impl core::fmt::Display for PoolError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            PoolError::OutOfPages(had) => {
                write!(f, "the platform had only {had} pages for the frame pool")
            }
            PoolError::GfnTooBig(gfn) => {
                write!(f, "frame {:#x} does not fit a version 1 grant entry", gfn.0)
            }
            PoolError::TooMany => f.write_str("a frame pool holds at most 2097151 pages"),
        }
    }
}

impl core::error::Error for PoolError {}

impl FramePool {
    /// Takes `pages` pages from the platform.
    pub fn new<M: Memory>(memory: &M, pages: usize) -> Result<FramePool, PoolError> {
        if pages as u64 > MASK {
            return Err(PoolError::TooMany);
        }
        let mut taken = Vec::with_capacity(pages);
        let mut error = None;
        for had in 0..pages {
            match memory.alloc_page() {
                None => error = Some(PoolError::OutOfPages(had)),
                Some((page, gfn)) => {
                    if u32::try_from(gfn.0).is_err() {
                        error = Some(PoolError::GfnTooBig(gfn));
                    }
                    taken.push((page, gfn));
                }
            }
            if error.is_some() {
                break;
            }
        }
        let owner = memory.clone();
        let release = Box::new(move |page, gfn| {
            // SAFETY: page and gfn came from `alloc_page` of this memory; a pool that dies has
            // all its frames home, so nothing points to them and nobody has a grant.
            unsafe { owner.free_page(page, gfn) }
        });
        if let Some(error) = error {
            taken.into_iter().for_each(|(page, gfn)| release(page, gfn));
            return Err(error);
        }

        let pool = Box::new(Pool {
            head: AtomicU64::new((pages as u64) << BITS),
            least_free: AtomicU32::new(pages as u32),
            records: Box::default(),
            release,
        });
        let at = NonNull::from(Box::leak(pool));
        let records = taken.into_iter().enumerate().map(|(index, (page, gfn))| Record {
            page,
            pool: at,
            gfn: gfn.0 as u32,
            index: index as u32,
            next: AtomicU32::new(index as u32 + 1),
            shares: AtomicU64::new(0),
            exposure: Exposure::zeroed(),
        });
        let records = records.collect();
        // SAFETY: the pool has just been leaked, and nobody else knows of it yet.
        unsafe { (*at.as_ptr()).records = records };
        Ok(FramePool(Arc::new(Owner(at))))
    }

    /// Takes a frame; `None` when all are out. What it holds is not specified, so whoever grants
    /// it must say which bytes are meant (see [`Frame`]).
    #[inline]
    pub fn take(&self) -> Option<Frame> {
        self.0.pool().take()
    }

    /// Pages in the pool.
    pub fn size(&self) -> usize {
        self.0.pool().records.len()
    }

    /// Frames that are home.
    pub fn free(&self) -> usize {
        Head(self.0.pool().head.load(Ordering::Relaxed)).free() as usize
    }

    /// The most frames that were ever out at once.
    pub fn high_water(&self) -> usize {
        self.size() - self.0.pool().least_free.load(Ordering::Relaxed) as usize
    }
}

impl core::fmt::Debug for FramePool {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "FramePool({} of {} free)", self.free(), self.size())
    }
}
