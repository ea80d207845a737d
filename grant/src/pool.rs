//! The frame pool: every page that may ever be granted, allocated once at start.
//!
//! Nothing else is granted, no heap memory, no page that held something unrelated. A frame in use
//! is one pointer to its page's record in the side table here:
//!
//! ```text
//! Pool  head ──► index of the first free record, how many are free, a tag against ABA;
//!                or closed, and who still needs the pool
//!       records: [ page, gfn, next free, shares, exposure ] [ ... ] ...
//!                    │
//!                    └──► 4096 bytes, in the same place for the life of the pool
//! ```
//!
//! Taking a frame, or several, and returning one are a compare-exchange each: no lock, no
//! allocator.
//!
//! With its last handle a pool is closed: its free pages go back to the platform. A frame that is
//! still out, in some peer's hands maybe, is never freed; when it comes home its page goes the same
//! way. The records stay where they are until then, a small part of the pages.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ptr::NonNull;

use crate::exposure::Exposure;
use crate::frame::Frame;
use crate::memory::{Gfn, Memory, Page};
use crate::sync::{AtomicU32, AtomicU64, Ordering, fence};

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

/// The free list's head, in one word so that one compare-exchange moves all of it. In a pool that is
/// closed the list is empty, and the word says how many [`Need`]s there are.
#[derive(Clone, Copy)]
struct Head(u64);

/// Bits for an index and for a count: 2 million pages, 8 GB.
const BITS: u32 = 21;
const MASK: u64 = (1 << BITS) - 1;
/// One frame in the count.
const ONE: u64 = 1 << BITS;
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

    /// The head when a frame has been returned.
    fn returned(self, first: u32) -> Head {
        Head((self.0 & !MASK).wrapping_add(TAG + ONE) | u64::from(first))
    }

    /// The head when `count` frames have been taken, of so many at least.
    fn taken(self, count: u64, first: u32) -> Head {
        Head((self.0 & !MASK).wrapping_add(TAG - count * ONE) | u64::from(first))
    }
}

pub(crate) struct Pool {
    head: AtomicU64,
    /// The fewest frames that were ever free.
    least_free: AtomicU32,
    /// Pages promised to nobody: see `reservation.rs`.
    unreserved: AtomicU32,
    records: Box<[Record]>,
    /// Gives a page back to the platform. Called when the pool is closed, never before.
    release: Box<dyn Fn(NonNull<Page>, Gfn) + Send + Sync>,
}

impl Pool {
    /// Takes up to `most` frames with one exchange: the index of the first, and how many.
    #[inline(never)]
    fn take(&self, most: usize) -> Frames<'_> {
        let mut head = Head(self.head.load(Ordering::Acquire));
        loop {
            let (mut after, mut count) = (head.first(), 0);
            // Other threads may take these records meanwhile and change `next`; the tag in the
            // head has moved on then, and the exchange fails. The last one names no record.
            while count < most
                && let Some(record) = self.records.get(after)
            {
                after = record.next.load(Ordering::Relaxed) as usize;
                count += 1;
            }
            if count == 0 {
                return Frames { pool: self, next: 0, left: 0 };
            }
            let next = head.taken(count as u64, after as u32);
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
                    return Frames { pool: self, next: head.first() as u32, left: count };
                }
                Err(now) => head = Head(now),
            }
        }
    }
}

/// Frames taken together; see [`FramePool::take_many`]. Those not asked for go home when it is
/// dropped.
pub struct Frames<'a> {
    pool: &'a Pool,
    /// They are ours, and still linked as they were in the pool.
    next: u32,
    left: usize,
}

impl Iterator for Frames<'_> {
    type Item = Frame;

    #[inline]
    fn next(&mut self) -> Option<Frame> {
        self.left = self.left.checked_sub(1)?;
        let record = self.pool.records.get(self.next as usize)?;
        self.next = record.next.load(Ordering::Relaxed);
        Some(Frame::from_record(NonNull::from(record)))
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Frames<'_> {}

impl Drop for Frames<'_> {
    #[inline]
    fn drop(&mut self) {
        self.for_each(drop);
    }
}

/// Returns a page to its pool, or to the platform if the pool is closed.
///
/// # Safety
///
/// The record is one that [`Frames`] gave out, and its last user gives it back.
#[inline(never)]
pub(crate) unsafe fn put_back(record: NonNull<Record>) {
    // SAFETY: a pool and its records live until nobody needs them; whoever has a frame does.
    let entry = unsafe { record.as_ref() };
    // SAFETY: as above.
    let pool = unsafe { entry.pool.as_ref() };
    let mut head = Head(pool.head.load(Ordering::Relaxed));
    while !head.closed() {
        entry.next.store(head.first() as u32, Ordering::Relaxed);
        let next = head.returned(entry.index);
        match pool.head.compare_exchange_weak(head.0, next.0, Ordering::Release, Ordering::Relaxed)
        {
            // From here on another thread may close the pool and free it.
            Ok(_) => return,
            Err(now) => head = Head(now),
        }
    }
    // SAFETY: the caller's promise; and a closed pool stays closed.
    unsafe { retire(record) }
}

/// Gives a page back to the platform.
///
/// # Safety
///
/// As for [`put_back`], and the pool is closed.
#[cold]
#[inline(never)]
unsafe fn retire(record: NonNull<Record>) {
    // SAFETY: the frame's need, which `Owner` counted when it closed the pool, is ours now.
    let entry = unsafe { record.as_ref() };
    let need = Need(entry.pool);
    // SAFETY: as long as we need it, the pool lives.
    let pool = unsafe { need.0.as_ref() };
    // The platform gets it after all that was done with the pool.
    fence(Ordering::Acquire);
    (pool.release)(entry.page, Gfn(u64::from(entry.gfn)));
}

/// One that needs a closed pool: a page that is not the platform's yet, or the owner while it goes.
/// The last one dropped frees the pool.
struct Need(NonNull<Pool>);

impl Drop for Need {
    fn drop(&mut self) {
        // SAFETY: the pool lives until all needs are dropped, and this one is not.
        let pool = unsafe { self.0.as_ref() };
        if pool.head.fetch_sub(1, Ordering::AcqRel) == CLOSED | 1 {
            // SAFETY: the box was leaked in `FramePool::new`, and nobody has it any more.
            drop(unsafe { Box::from_raw(self.0.as_ptr()) });
        }
    }
}

struct Owner(NonNull<Pool>);

// SAFETY: a pool is atomics, a `Send + Sync` closure, and records that are immutable but for atomics
// and what belongs to whoever holds the frame.
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
        let need = Need(self.0);
        // SAFETY: as long as we need it, the pool lives.
        let pool = unsafe { need.0.as_ref() };
        // We, and all frames: those that are home as well, which `free` stands for.
        let needs = pool.records.len() as u64 + 1;
        let head = Head(pool.head.swap(CLOSED | needs, Ordering::AcqRel));
        let free = Frames { pool, next: head.first() as u32, left: head.free() as usize };
        // By value: should the platform panic over one of them, the others still go.
        free.for_each(drop);
    }
}

/// A fixed number of zeroed pages, taken and returned as [`Frame`]s. Clones share it.
///
/// When the last clone and the last [`Reservation`](crate::Reservation) are gone, the pages that are
/// free go back to the [`Memory`], and each of the others when its frame is dropped.
#[derive(Clone)]
pub struct FramePool(Arc<Owner>);

/// Why a pool could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
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
            // SAFETY: page and gfn came from `alloc_page` of this memory; it is called for a frame
            // that is home, once, so nothing points to the page and nobody has a grant.
            unsafe { owner.free_page(page, gfn) }
        });
        if let Some(error) = error {
            taken.into_iter().for_each(|(page, gfn)| release(page, gfn));
            return Err(error);
        }

        let pool = Box::new(Pool {
            head: AtomicU64::new((pages as u64) << BITS),
            least_free: AtomicU32::new(pages as u32),
            unreserved: AtomicU32::new(pages as u32),
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
        self.take_many(1).next()
    }

    /// Takes up to `most` frames, with one exchange for all of them.
    #[inline]
    pub fn take_many(&self, most: usize) -> Frames<'_> {
        self.0.pool().take(most)
    }

    /// Promises up to `most` of the pages that are nobody's; how many.
    pub(crate) fn promise(&self, most: u32) -> u32 {
        let left = &self.0.pool().unreserved;
        let mut now = left.load(Ordering::Relaxed);
        loop {
            let drawn = now.min(most);
            let next = now - drawn;
            match left.compare_exchange_weak(now, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return drawn,
                Err(changed) => now = changed,
            }
        }
    }

    pub(crate) fn take_promise_back(&self, pages: u32) {
        self.0.pool().unreserved.fetch_add(pages, Ordering::Relaxed);
    }

    /// Pages in the pool.
    pub fn size(&self) -> usize {
        self.0.pool().records.len()
    }

    /// Frames that are home.
    pub fn free(&self) -> usize {
        Head(self.0.pool().head.load(Ordering::Relaxed)).free() as usize
    }

    /// Pages that are promised to nobody ([`reserve`](FramePool::reserve)).
    pub fn unreserved(&self) -> usize {
        self.0.pool().unreserved.load(Ordering::Relaxed) as usize
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

impl core::fmt::Debug for Frames<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Frames({} left)", self.left)
    }
}
