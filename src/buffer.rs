//! Buffers and packets in pages that can be granted: `packet_views`' own, with [`Frame`] as their
//! memory.

use packet_views::buffer;
use xen_grant::{Frame, SharedFrame};

/// A page that is being written.
pub type BufMut = buffer::BufMut<Frame>;

/// A view of a page that is being read.
pub type Buf = buffer::Buf<SharedFrame>;

/// A packet that is being written.
pub type PacketMut = buffer::PacketMut<Frame>;

/// A packet with a head of its own, and a payload that others may read too.
pub type MixedPacket = buffer::MixedPacket<Frame>;

/// A packet that is being read.
pub type Packet = buffer::Packet<SharedFrame>;
