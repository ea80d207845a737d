//! Packets of several blocks, for those who want one slice.

use alloc::vec::Vec;

use crate::buffer::{AnyPacket, Block, BufMut, PacketMut, View};

/// One slice for packets that have several blocks, and a count of what it was needed for.
pub(super) struct Linear {
    memory: Vec<u8>,
    packets: u64,
    bytes: u64,
}

impl Linear {
    /// Memory for packets of up to `size` bytes, allocated now.
    pub(super) fn with_capacity(size: usize) -> Linear {
        Linear { memory: Vec::with_capacity(size), packets: 0, bytes: 0 }
    }

    /// Packets that went through.
    pub(super) fn packets(&self) -> u64 {
        self.packets
    }

    /// Their bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// `size` zero bytes to fill.
    pub(super) fn blank(&mut self, size: usize) -> &mut [u8] {
        self.memory.clear();
        self.memory.resize(size, 0);
        &mut self.memory
    }

    /// The packet in one slice: a copy, counted.
    pub(super) fn gather<V: View>(&mut self, packet: &AnyPacket<V>) -> &mut [u8] {
        self.memory.clear();
        for fragment in packet.fragments() {
            self.memory.extend_from_slice(fragment.bytes());
        }
        self.count(self.memory.len());
        &mut self.memory
    }

    /// What has been [gathered](Linear::gather) last, or filled.
    #[inline]
    pub(super) fn contents(&self) -> &[u8] {
        &self.memory
    }

    /// The same, to change.
    #[inline]
    pub(super) fn contents_mut(&mut self) -> &mut [u8] {
        &mut self.memory
    }

    /// Copies the first `len` bytes of what has been filled into `bufs`, and counts it: see
    /// [`AnyPacket::from_slice`].
    pub(super) fn scatter<B: Block>(
        &mut self,
        len: usize,
        bufs: impl IntoIterator<Item = BufMut<B>>,
    ) -> Option<PacketMut<B>> {
        let packet = AnyPacket::from_slice(self.memory.get(..len)?, bufs)?;
        self.count(len);
        Some(packet)
    }

    fn count(&mut self, len: usize) {
        self.packets += 1;
        self.bytes += len as u64;
    }
}
