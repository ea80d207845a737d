//! Packets of several blocks, for those who want one slice.

use alloc::vec::Vec;

use crate::buffer::{AnyPacket, Block, BufMut, PacketMut, View};

/// One slice for packets that have several blocks, and a count of what it was needed for.
#[derive(Debug, Default)]
pub struct Linear {
    memory: Vec<u8>,
    packets: u64,
    bytes: u64,
}

impl Linear {
    /// Memory for packets of up to `size` bytes, allocated now.
    pub fn with_capacity(size: usize) -> Linear {
        Linear { memory: Vec::with_capacity(size), packets: 0, bytes: 0 }
    }

    /// Packets that went through.
    pub fn packets(&self) -> u64 {
        self.packets
    }

    /// Their bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// `size` zero bytes to fill.
    pub fn blank(&mut self, size: usize) -> &mut [u8] {
        self.memory.clear();
        self.memory.resize(size, 0);
        &mut self.memory
    }

    /// The packet in one slice: a copy, counted.
    pub fn gather<V: View>(&mut self, packet: &AnyPacket<V>) -> &mut [u8] {
        self.memory.clear();
        for fragment in packet.fragments() {
            self.memory.extend_from_slice(fragment.bytes());
        }
        self.count(self.memory.len());
        &mut self.memory
    }

    /// What has been [gathered](Linear::gather) last, or filled.
    #[inline]
    pub fn contents(&self) -> &[u8] {
        &self.memory
    }

    /// The same, to change.
    #[inline]
    pub fn contents_mut(&mut self) -> &mut [u8] {
        &mut self.memory
    }

    /// Copies the first `len` bytes of what has been filled into `bufs`, as many as it takes, and
    /// counts it; `None` if they have too little room. Buffers not needed are dropped.
    pub fn scatter<B: Block>(
        &mut self,
        len: usize,
        bufs: impl IntoIterator<Item = BufMut<B>>,
    ) -> Option<PacketMut<B>> {
        let mut rest = self.memory.get(..len)?;
        let mut packet = AnyPacket::new();
        for mut buf in bufs {
            let (now, later) = rest.split_at_checked(buf.tailroom()).unwrap_or((rest, &[]));
            buf.append(now.len())?.copy_from_slice(now);
            packet.push(buf).ok()?;
            rest = later;
            if rest.is_empty() {
                self.count(len);
                return Some(packet);
            }
        }
        None
    }

    fn count(&mut self, len: usize) {
        self.packets += 1;
        self.bytes += len as u64;
    }
}
