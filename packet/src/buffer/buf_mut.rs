//! A buffer that is being written.

use core::ops::Range;

use super::{Block, Buf, View};

/// Bytes with one owner, who writes them: a packet in the making. Handed to a device it is gone,
/// so nobody writes what has been sent.
///
/// ```compile_fail
/// # use packet_views::buffer::{HeapBlock, BufMut};
/// # fn send(buf: BufMut<HeapBlock>) {}
/// let mut buf = BufMut::new(HeapBlock::new(64), 0);
/// send(buf);
/// buf.bytes_mut(); // R5: transmitted bytes are out of reach
/// ```
///
/// ```
/// # use packet_views::buffer::{HeapBlock, BufMut};
/// # fn send(buf: BufMut<HeapBlock>) {}
/// let mut buf = BufMut::new(HeapBlock::new(64), 0);
/// buf.bytes_mut();
/// send(buf);
/// ```
pub struct BufMut<B: Block> {
    block: B,
    /// `start + len` lies within the block, whose length fits.
    start: u32,
    len: u32,
}

impl<B: Block> BufMut<B> {
    /// An empty buffer with `headroom` bytes reserved in front, or all of the block if it is
    /// smaller.
    #[inline]
    pub fn new(block: B, headroom: usize) -> BufMut<B> {
        let size = block.bytes().len().min(u32::MAX as usize);
        BufMut { start: headroom.min(size) as u32, len: 0, block }
    }

    /// The bytes `range` of a block that holds them already; `None` if the block has no such.
    #[inline]
    pub fn with_range(block: B, range: Range<usize>) -> Option<BufMut<B>> {
        let len = range.end.checked_sub(range.start)?;
        if range.end > block.bytes().len() {
            return None;
        }
        Some(BufMut {
            start: u32::try_from(range.start).ok()?,
            len: u32::try_from(len).ok()?,
            block,
        })
    }

    /// For `Buf`, whose range has been checked.
    #[inline]
    pub(super) fn from_parts(block: B, start: u32, len: u32) -> BufMut<B> {
        BufMut { block, start, len }
    }

    #[inline]
    fn range(&self) -> Range<usize> {
        let start = self.start as usize;
        start..start + self.len as usize
    }

    /// Bytes in the buffer.
    #[inline]
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether the buffer has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes that can still be pushed in front.
    pub fn headroom(&self) -> usize {
        self.start as usize
    }

    /// Bytes that can still be appended.
    pub fn tailroom(&self) -> usize {
        self.block.bytes().len() - self.range().end
    }

    /// Grows the buffer by `count` bytes in front, a header to write; `None`, and nothing
    /// happens, without that much headroom.
    #[inline]
    pub fn push_front(&mut self, count: usize) -> Option<&mut [u8]> {
        let range = (self.start as usize).checked_sub(count)?..self.start as usize;
        let start = range.start as u32;
        let header = self.block.range_mut(range)?;
        self.len += self.start - start;
        self.start = start;
        Some(header)
    }

    /// Drops `count` bytes in front, which become headroom again; `None`, and nothing happens, if
    /// there are not that many.
    #[inline]
    #[must_use = "None means that the buffer is unchanged"]
    pub fn pull_front(&mut self, count: usize) -> Option<()> {
        let count = u32::try_from(count).ok()?;
        self.len = self.len.checked_sub(count)?;
        self.start += count;
        Some(())
    }

    /// Grows the buffer by `count` bytes behind, to write; `None`, and nothing happens, without
    /// that much tailroom.
    #[inline]
    pub fn append(&mut self, count: usize) -> Option<&mut [u8]> {
        let end = self.range().end;
        let tail = self.block.range_mut(end..end.checked_add(count)?)?;
        self.len += tail.len() as u32;
        Some(tail)
    }

    /// Keeps the first `len` bytes. Longer than the buffer does nothing.
    #[inline]
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(u32::try_from(len).unwrap_or(u32::MAX));
    }

    /// The bytes, to write.
    #[inline]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        let range = self.range();
        self.block.range_mut(range).unwrap_or_default()
    }

    /// Makes the block fit for whoever is shown these bytes ([`Block::conceal`]).
    pub fn conceal(&mut self) {
        let range = self.range();
        self.block.conceal(range);
    }

    /// No more writing: a view that others can share.
    #[inline]
    pub fn freeze(self) -> Buf<B::Shared> {
        let (start, len) = (self.start, self.len);
        Buf::from_parts(self.block.share(), start, len)
    }

    /// Block and range, for the device that sends them.
    #[inline]
    pub fn into_parts(self) -> (B, Range<usize>) {
        let range = self.range();
        (self.block, range)
    }
}

impl<B: Block> View for BufMut<B> {
    #[inline]
    fn bytes(&self) -> &[u8] {
        self.block.bytes().get(self.range()).unwrap_or_default()
    }
}

impl<B: Block> core::fmt::Debug for BufMut<B> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "BufMut({} bytes at {})", self.len, self.start)
    }
}
