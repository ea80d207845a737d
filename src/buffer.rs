//! Buffers and packets in pages that can be granted: `packet_views`' own, with [`Frame`] as their
//! memory.

use packet_views::buffer;
use xen_grant::{Frame, SharedFrame};

/// A page that is being written.
pub type TxBuf = buffer::TxBuf<Frame>;

/// A view of a page that is being read.
pub type RxBuf = buffer::RxBuf<SharedFrame>;

/// A packet that is being written.
pub type TxPacket = buffer::TxPacket<Frame>;

/// A packet that is being read.
pub type RxPacket = buffer::RxPacket<SharedFrame>;
