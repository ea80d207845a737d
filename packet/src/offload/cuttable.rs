//! What a packet is cut into: fragments that can be shared, moved or, at the worst, copied.
//!
//! ```text
//!  Buf   |#####|#######|#####|     any part is a view of its own           nothing is copied
//!  BufMut   |#####|#######|#####|     the last part takes the block along,    the others are copied
//!           copy   copy    move      and headers fit in front of it
//! ```

use crate::buffer::{Block, Buf, BufMut, SharedBlock, View};
use crate::header::Narrow;

/// A fragment that [`Segments`](super::Segments) can cut.
pub trait Cuttable: View + Narrow + Sized {
    /// The memory that headers are written into.
    type Block: Block;

    /// Whether [`share_front`](Cuttable::share_front) gives views.
    const SHARED: bool;

    /// A buffer that has been written, as such a fragment.
    fn from_buf(buf: BufMut<Self::Block>) -> Self;

    /// A view of the first `count` bytes, which are dropped here; `None`, and nothing happens, if
    /// they can only be had by copying.
    fn share_front(&mut self, count: usize) -> Option<Self>;

    /// Grows by `count` bytes in front, to write; `None`, and nothing happens, if there is no
    /// headroom or somebody else reads it.
    fn grow_front(&mut self, count: usize) -> Option<&mut [u8]>;
}

impl<S: SharedBlock> Cuttable for Buf<S> {
    type Block = S::Block;
    const SHARED: bool = true;

    #[inline]
    fn from_buf(buf: BufMut<S::Block>) -> Buf<S> {
        buf.freeze()
    }

    #[inline]
    fn share_front(&mut self, count: usize) -> Option<Buf<S>> {
        self.split_to(count)
    }

    #[inline]
    fn grow_front(&mut self, _count: usize) -> Option<&mut [u8]> {
        None
    }
}

impl<B: Block> Cuttable for BufMut<B> {
    type Block = B;
    const SHARED: bool = false;

    #[inline]
    fn from_buf(buf: BufMut<B>) -> BufMut<B> {
        buf
    }

    #[inline]
    fn share_front(&mut self, _count: usize) -> Option<BufMut<B>> {
        None
    }

    #[inline]
    fn grow_front(&mut self, count: usize) -> Option<&mut [u8]> {
        self.push_front(count)
    }
}
