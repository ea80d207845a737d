//! A page that is ours: the only state in which it has bytes.

use core::ops::Range;
use core::ptr::NonNull;

use crate::exposure::{Grantee, Stale};
use crate::memory::{Gfn, PAGE_SIZE};
use crate::pool::{Record, put_back};
use crate::sync::Ordering;

/// A page that nobody else can touch, one pointer wide. Dropped, it goes back to its pool.
///
/// A fresh frame may hold bytes of an earlier use: ours, or such as an earlier peer sent. They are
/// never shown to a peer who has not seen them: [`Reference::grant`](crate::Reference::grant)
/// clears what lies outside the range that the message is about. For that, a frame keeps account
/// of what is written through it.
pub struct Frame {
    record: NonNull<Record>,
}

// SAFETY: a frame is the only way to its page and to the record of its exposure; the record's
// other fields that change are atomics.
unsafe impl Send for Frame {}
// SAFETY: with `&Frame` the page is only read, and the exposure is not touched.
unsafe impl Sync for Frame {}

impl Frame {
    #[inline]
    pub(crate) fn from_record(record: NonNull<Record>) -> Frame {
        Frame { record }
    }

    pub(crate) fn into_record(self) -> NonNull<Record> {
        let record = self.record;
        core::mem::forget(self);
        record
    }

    fn record(&self) -> &Record {
        // SAFETY: a pool's records live until all frames are home, and this one is out.
        unsafe { self.record.as_ref() }
    }

    /// The frame number.
    pub fn gfn(&self) -> Gfn {
        Gfn(u64::from(self.record().gfn))
    }

    /// The bytes.
    #[inline]
    pub fn bytes(&self) -> &[u8; PAGE_SIZE] {
        // SAFETY: the page is valid and initialised, and nobody writes it while we are borrowed.
        unsafe { &self.record().page.as_ref().0 }
    }

    /// The bytes, to write anywhere.
    pub fn bytes_mut(&mut self) -> &mut [u8; PAGE_SIZE] {
        self.record().exposure.mark(0..PAGE_SIZE);
        self.page_mut()
    }

    /// The bytes of `range`, to write; `None` if the page does not have them.
    #[inline]
    pub fn range_mut(&mut self, range: Range<usize>) -> Option<&mut [u8]> {
        if range.start > range.end || range.end > PAGE_SIZE {
            return None;
        }
        self.record().exposure.mark(range.clone());
        self.page_mut().get_mut(range)
    }

    fn page_mut(&mut self) -> &mut [u8; PAGE_SIZE] {
        // SAFETY: the page is valid and initialised, and the frame is borrowed exclusively.
        unsafe { &mut (*self.record().page.as_ptr()).0 }
    }

    /// Notes that somebody writes `range` on our behalf (a grant copy).
    pub(crate) fn mark(&mut self, range: Range<usize>) {
        self.record().exposure.mark(range);
    }

    /// Whether the page is fit to be seen by a peer as it is; if so, it counts as shown.
    #[inline]
    pub(crate) fn show_as_is(&mut self, to: &Grantee, announced: &Range<usize>) -> bool {
        self.record().exposure.show_as_is(to, announced)
    }

    /// Makes the page fit to be seen by a peer; returns how many bytes were cleared for it.
    #[cold]
    #[inline(never)]
    pub(crate) fn show(&mut self, to: &Grantee, announced: Range<usize>) -> usize {
        let stale = self.record().exposure.show(to, announced);
        self.clear(stale)
    }

    /// Clears what the page holds besides the bytes `shown`, so that it can be shown to every peer who
    /// is told of these, even when several read it ([`SharedFrame::fit`]).
    /// Returns how many bytes were cleared. A range beyond the page conceals all of it.
    pub fn conceal(&mut self, shown: Range<usize>) -> usize {
        let shown = if shown.start <= shown.end && shown.end <= PAGE_SIZE { shown } else { 0..0 };
        let stale = self.record().exposure.conceal(shown);
        self.clear(stale)
    }

    fn clear(&mut self, stale: Stale) -> usize {
        let page = self.page_mut();
        let mut cleared = 0;
        for range in stale {
            if let Some(bytes) = page.get_mut(range) {
                bytes.fill(0);
                cleared += bytes.len();
            }
        }
        cleared
    }

    /// Lets several owners read the page.
    #[inline]
    pub fn share(self) -> SharedFrame {
        self.record().shares.store(1, Ordering::Relaxed);
        SharedFrame { record: self.into_record() }
    }
}

impl Drop for Frame {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: the record came from the pool, and we were its one user.
        unsafe { put_back(self.record) }
    }
}

impl core::fmt::Debug for Frame {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Frame({:#x})", self.record().gfn)
    }
}

/// A page that is ours and that several owners read. Clones are counted in the pool's side table:
/// no allocation. The last one dropped returns it to the pool.
pub struct SharedFrame {
    record: NonNull<Record>,
}

// SAFETY: shared frames only read the page, and count themselves with atomics.
unsafe impl Send for SharedFrame {}
// SAFETY: as above.
unsafe impl Sync for SharedFrame {}

impl SharedFrame {
    #[inline]
    pub(crate) fn from_record(record: NonNull<Record>) -> SharedFrame {
        SharedFrame { record }
    }

    pub(crate) fn into_record(self) -> NonNull<Record> {
        let record = self.record;
        core::mem::forget(self);
        record
    }

    /// Whether a peer who is told of the bytes `announced` may see the page as it is: all the rest is
    /// zero, or known to this peer.
    #[inline]
    pub fn is_fit(&self, to: &Grantee, announced: &Range<usize>) -> bool {
        self.record().exposure.is_fit(to, announced)
    }

    /// The share, to be granted to such a peer. It comes back if the page is not fit to be seen: nobody
    /// writes what is shared, so nothing of it can be cleared.
    #[inline]
    pub fn fit(self, to: &Grantee, announced: &Range<usize>) -> Result<FitFrame, SharedFrame> {
        if self.is_fit(to, announced) { Ok(FitFrame { frame: self, to: *to }) } else { Err(self) }
    }

    fn record(&self) -> &Record {
        // SAFETY: as in `Frame::record`.
        unsafe { self.record.as_ref() }
    }

    /// The frame number.
    pub fn gfn(&self) -> Gfn {
        Gfn(u64::from(self.record().gfn))
    }

    /// The bytes.
    #[inline]
    pub fn bytes(&self) -> &[u8; PAGE_SIZE] {
        // SAFETY: the page is valid and initialised, and nobody writes a page that is shared.
        unsafe { &self.record().page.as_ref().0 }
    }

    /// The page alone, if nobody else has a share of it.
    #[inline]
    pub fn try_unshare(self) -> Result<Frame, SharedFrame> {
        // A count of one can't rise any more: only an owner clones, and that is us.
        if self.record().shares.load(Ordering::Acquire) != 1 {
            return Err(self);
        }
        let frame = Frame { record: self.record };
        core::mem::forget(self);
        Ok(frame)
    }
}

/// A share of a page that this peer may see as it is. It stays so: whoever holds a share keeps all from
/// writing. See [`SharedFrame::fit`].
#[derive(Debug)]
pub struct FitFrame {
    pub(crate) frame: SharedFrame,
    pub(crate) to: Grantee,
}

impl Clone for SharedFrame {
    #[inline]
    fn clone(&self) -> SharedFrame {
        self.record().shares.fetch_add(1, Ordering::Relaxed);
        SharedFrame { record: self.record }
    }
}

impl Drop for SharedFrame {
    #[inline]
    fn drop(&mut self) {
        // The usual case, a single owner, needs no locked instruction.
        let shares = &self.record().shares;
        if shares.load(Ordering::Acquire) == 1 || shares.fetch_sub(1, Ordering::AcqRel) == 1 {
            // SAFETY: the record came from the pool, and we were its last user.
            unsafe { put_back(self.record) }
        }
    }
}

impl core::fmt::Debug for SharedFrame {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "SharedFrame({:#x})", self.record().gfn)
    }
}
