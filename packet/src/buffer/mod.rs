//! Buffers: views of memory that only narrow.
//!
//! A buffer is a block of memory and a range in it, so handing a layer its part costs nothing and
//! copies nothing:
//!
//! ```text
//!  BufMut    |  headroom   |======= bytes =======|   tailroom   |      one owner, writes
//!            ◄─ push_front                  append ─►
//!
//!  Buf    |             |======= bytes =======|              |      any number, read
//!                          advance ─►     ◄─ truncate
//! ```
//!
//! On the way out, the lowest layer takes the block and reserves headroom, and each layer pushes
//! its header in front of what is there. On the way in, each layer is handed a view that starts
//! at its header. Neither ever sees a byte outside its view, so an offset can't be forgotten.
//!
//! The memory is a type parameter, a [`Block`]: the heap ([`HeapBlock`]) for
//! devices that copy anyway, pages that a hypervisor can share (crate `xen-grant`) for those that need not. There is no `dyn` and no allocation here.

mod block;
mod buf;
mod buf_mut;
mod mixed;
mod packet;

pub use block::{Block, HeapBlock, SharedBlock, SharedHeapBlock};
pub use buf::Buf;
pub use buf_mut::BufMut;
pub use mixed::Fragment;
pub use packet::{AnyPacket, Checksum, Gso, GsoKind, MAX_FRAGMENTS, MAX_FRAME, MAX_PACKET, Meta};

/// A packet that is being read.
pub type Packet<S> = AnyPacket<Buf<S>>;

/// A packet that is being written.
pub type PacketMut<B> = AnyPacket<BufMut<B>>;

/// A packet with a head of its own, and a payload that others may read too.
pub type MixedPacket<B> = AnyPacket<Fragment<B>>;

/// A run of bytes, whoever owns it: what fragments of a packet have in common.
pub trait View {
    /// The bytes.
    fn bytes(&self) -> &[u8];
}
