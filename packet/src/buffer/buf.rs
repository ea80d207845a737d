//! A received buffer.

use core::ops::Range;

use super::{Block, BufMut, SharedBlock, View};

/// A read-only view of received bytes. Copying the view copies no bytes, and it can only narrow.
///
/// ```compile_fail
/// # use packet_views::buffer::{HeapBlock, Buf, SharedHeapBlock, BufMut};
/// # let mut buf: Buf<SharedHeapBlock> = BufMut::new(HeapBlock::new(64), 0).freeze();
/// buf.bytes_mut(); // R5: received bytes are not written, another view may show them
/// ```
///
/// ```
/// # use packet_views::buffer::{HeapBlock, Buf, SharedHeapBlock, BufMut, View};
/// # let mut buf: Buf<SharedHeapBlock> = BufMut::new(HeapBlock::new(64), 0).freeze();
/// buf.bytes();
/// ```
#[derive(Clone)]
pub struct Buf<S: SharedBlock> {
    block: S,
    /// `start + len` lies within the block, whose length fits.
    start: u32,
    len: u32,
}

impl<S: SharedBlock> Buf<S> {
    /// The bytes `range` of a block; `None` if the block does not have them.
    #[inline]
    pub fn new(block: S, range: Range<usize>) -> Option<Buf<S>> {
        let len = range.end.checked_sub(range.start)?;
        if range.end > block.bytes().len() {
            return None;
        }
        Some(Buf { block, start: u32::try_from(range.start).ok()?, len: u32::try_from(len).ok()? })
    }

    /// For `BufMut`, whose range has been checked.
    #[inline]
    pub(super) fn from_parts(block: S, start: u32, len: u32) -> Buf<S> {
        Buf { block, start, len }
    }

    /// Bytes in the view.
    #[inline]
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether the view has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Drops `count` bytes at the front: a header that has been read. `None`, and nothing
    /// happens, if there are not that many.
    #[inline]
    #[must_use = "None means that the view is unchanged"]
    pub fn advance(&mut self, count: usize) -> Option<()> {
        let count = u32::try_from(count).ok()?;
        self.len = self.len.checked_sub(count)?;
        self.start += count;
        Some(())
    }

    /// Keeps the first `len` bytes: what follows is padding. Longer than the view does nothing.
    #[inline]
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(u32::try_from(len).unwrap_or(u32::MAX));
    }

    /// A view of a part of the view; `None` if it does not lie within.
    #[inline]
    pub fn slice(&self, range: Range<usize>) -> Option<Buf<S>> {
        let len = range.end.checked_sub(range.start)?;
        if range.end > self.len() {
            return None;
        }
        // Both are at most `self.len`.
        let (start, len) = (self.start + range.start as u32, len as u32);
        Some(Buf { block: self.block.clone(), start, len })
    }

    /// Splits off the first `at` bytes; `None` if there are not that many.
    #[inline]
    pub fn split_to(&mut self, at: usize) -> Option<Buf<S>> {
        let head = self.slice(0..at)?;
        self.advance(at)?;
        Some(head)
    }

    /// The buffer to write in place, if no other view of its block is left. What lay in front of
    /// the view becomes headroom, what lay behind it tailroom.
    #[inline]
    pub fn try_into_mut(self) -> Result<BufMut<S::Block>, Buf<S>> {
        let (start, len) = (self.start, self.len);
        match self.block.try_unshare() {
            Ok(block) => Ok(BufMut::from_parts(block, start, len)),
            Err(block) => Err(Buf { block, start, len }),
        }
    }

    /// Block and range, for whoever passes the block on.
    #[inline]
    pub fn into_parts(self) -> (S, Range<usize>) {
        let start = self.start as usize;
        (self.block, start..start + self.len as usize)
    }
}

impl<S: SharedBlock> View for Buf<S> {
    #[inline]
    fn bytes(&self) -> &[u8] {
        let start = self.start as usize;
        self.block.bytes().get(start..start + self.len()).unwrap_or_default()
    }
}

impl<S: SharedBlock> core::fmt::Debug for Buf<S> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Buf({} bytes at {})", self.len, self.start)
    }
}

impl<B: Block> From<BufMut<B>> for Buf<B::Shared> {
    fn from(buf: BufMut<B>) -> Buf<B::Shared> {
        buf.freeze()
    }
}
