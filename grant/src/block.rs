//! Frames as the memory that packets lie in.
//!
//! The traits are `packet-views`', so the impls are here, where the frames are: a newtype of
//! `xen-netfront`'s would be one more name for a page, and a copy of each method of it.

use core::ops::Range;

use packet_views::buffer::{Block, SharedBlock};

use crate::{Frame, SharedFrame};

impl Block for Frame {
    type Shared = SharedFrame;

    #[inline]
    fn bytes(&self) -> &[u8] {
        Frame::bytes(self)
    }

    #[inline]
    fn range_mut(&mut self, range: Range<usize>) -> Option<&mut [u8]> {
        Frame::range_mut(self, range)
    }

    fn conceal(&mut self, shown: Range<usize>) {
        Frame::conceal(self, shown);
    }

    #[inline]
    fn share(self) -> SharedFrame {
        Frame::share(self)
    }
}

impl SharedBlock for SharedFrame {
    type Block = Frame;

    #[inline]
    fn bytes(&self) -> &[u8] {
        SharedFrame::bytes(self)
    }

    #[inline]
    fn try_unshare(self) -> Result<Frame, SharedFrame> {
        SharedFrame::try_unshare(self)
    }
}
