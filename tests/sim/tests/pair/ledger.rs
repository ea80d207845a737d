//! What went one way: numbered packets, each looked at when it arrives.

use fastrand::Rng;
use xen_netfront::buffer::{Packet, View};

/// The fragments of a packet: room in front, and bytes, of each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape(pub Vec<(u16, u16)>);

impl Shape {
    /// One fragment from the start of its page.
    pub fn single(len: u16) -> Shape {
        Shape(vec![(0, len)])
    }

    /// `len` bytes in `count` fragments, or in as many as it takes.
    pub fn random(rng: &mut Rng, len: usize, count: usize) -> Shape {
        let count = count.clamp(len.div_ceil(4096).max(1), 18);
        let mut left = len;
        let mut fragments = Vec::with_capacity(count);
        for nth in 0..count {
            let later = (count - nth - 1) * 4096;
            let range = left.saturating_sub(later)..=left.min(4096);
            let size = if nth + 1 == count { left } else { rng.usize(range) };
            let room = if rng.bool() { 0 } else { rng.usize(..=4096 - size) };
            fragments.push((room as u16, size as u16));
            left -= size;
        }
        Shape(fragments)
    }

    /// Bytes in all.
    pub fn len(&self) -> usize {
        self.0.iter().map(|&(_, len)| usize::from(len)).sum()
    }
}

/// Packets that a driver has accepted, and what has become of them.
#[derive(Default)]
pub struct Ledger {
    lengths: Vec<u16>,
    /// Numbers below have arrived, or never will.
    next: usize,
    arrived: u64,
    bytes: u64,
    /// Any bytes may come: the peer is hostile.
    pub lenient: bool,
}

impl Ledger {
    /// The bytes of the next packet to send.
    pub fn next_packet(&self, len: usize) -> Vec<u8> {
        pattern(self.lengths.len(), len)
    }

    /// That packet has been accepted.
    pub fn accepted(&mut self, len: usize) {
        self.lengths.push(len as u16);
    }

    /// A packet has come: one that was accepted, later than all that came before, unchanged.
    pub fn arrive<V: View>(&mut self, packet: &Packet<V>) {
        let mut bytes = vec![0; packet.len()];
        packet.copy_to_slice(&mut bytes).unwrap();
        self.arrived += 1;
        self.bytes += bytes.len() as u64;
        if self.lenient {
            return;
        }
        let number = u32::from_le_bytes(bytes[..4].try_into().unwrap()) as usize;
        let expected = self.next;
        assert!(number >= expected, "packet {number} after {expected}: out of order, or twice");
        let len = self.lengths.get(number).copied().map(usize::from);
        assert_eq!(Some(bytes.len()), len, "the length of packet {number}");
        assert!(bytes == pattern(number, bytes.len()), "packet {number} has changed");
        self.next = number + 1;
    }

    /// Packets accepted.
    pub fn sent(&self) -> u64 {
        self.lengths.len() as u64
    }

    /// Packets that have arrived.
    pub fn arrived(&self) -> u64 {
        self.arrived
    }

    /// Packets that were accepted and have not arrived.
    pub fn lost(&self) -> u64 {
        self.sent().saturating_sub(self.arrived)
    }
}

impl core::fmt::Debug for Ledger {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{} sent, {} arrived, {} bytes", self.sent(), self.arrived, self.bytes)
    }
}

/// Packet `number`: its number, then bytes that are its own.
fn pattern(number: usize, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    Rng::with_seed(number as u64).fill(&mut bytes);
    let head = (number as u32).to_le_bytes();
    let at = head.len().min(len);
    bytes[..at].copy_from_slice(&head[..at]);
    bytes
}
