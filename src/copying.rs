//! A device that copies: TAP, pcap, a test's loopback.
//!
//! Such a device reads and writes bytes where it is told to, so its packets live on the heap, at
//! any alignment, and everything above is the same code as on Xen. What it costs is written down:
//! one copy a packet each way, counted in [`Stats::copies`].
//!
//! ```text
//!   receive   io.recv(block) ──copy──► RxBuf ──► sink ──► recycle ┐
//!   send      TxBuf ──copy──► io.send(bytes)  ────────────────────┴─► free blocks ──► alloc
//! ```
//!
//! Blocks that have been sent or [recycled](Netif::recycle) are used again, so steady traffic
//! allocates nothing. Packets that are dropped instead are freed, and later ones allocated.

use alloc::vec::Vec;

use crate::buffer::{Block, HeapBlock, Packet, RxBuf, SharedBlock, TxBuf, TxPacket, View};
use crate::header::{ETHERNET_HEADER, MacAddr, checksum};
use crate::netif::{Capabilities, Linear, Netif, Permit, RxOf, Stats};
use crate::wire::{MAX_PACKET, MAX_SLOTS};

/// What a copying device does.
pub trait RawIo {
    /// Copies the next frame into `target`, Ethernet header first; returns its length, or `None`
    /// if none is waiting. A frame that is longer than `target` may be cut or dropped.
    fn recv(&mut self, target: &mut [u8]) -> Option<usize>;

    /// Copies a frame out of `bytes`; `false` if there is no room for it now. Then the same frame
    /// is offered again, later.
    fn send(&mut self, bytes: &[u8]) -> bool;
}

impl<Io: RawIo + ?Sized> RawIo for &mut Io {
    fn recv(&mut self, target: &mut [u8]) -> Option<usize> {
        (**self).recv(target)
    }

    fn send(&mut self, bytes: &[u8]) -> bool {
        (**self).send(bytes)
    }
}

/// Free bytes in front of a received packet, for whoever sends it on with more headers.
pub const HEADROOM: usize = 64;

/// Blocks kept for later. More than this are not in flight at once, usually.
const SPARE: usize = 64;

/// A device on top of a [`RawIo`].
pub struct Copying<Io> {
    io: Io,
    mac: MacAddr,
    mtu: usize,
    /// Free blocks, each of [`block_size`](Copying::block_size).
    spare: Vec<HeapBlock>,
    /// Sent, but `io` had no room yet.
    waiting: Option<TxBuf<HeapBlock>>,
    linear: Linear,
    stats: Stats,
}

impl<Io: RawIo> Copying<Io> {
    /// A device with this address and MTU, which is 65,521 at most.
    pub fn new(io: Io, mac: MacAddr, mtu: usize) -> Copying<Io> {
        Copying {
            io,
            mac,
            mtu: mtu.min(MAX_PACKET - ETHERNET_HEADER),
            spare: Vec::with_capacity(SPARE),
            waiting: None,
            linear: Linear::default(),
            stats: Stats::default(),
        }
    }

    /// What is below.
    pub fn io(&mut self) -> &mut Io {
        &mut self.io
    }

    fn block_size(&self) -> usize {
        self.max_frame().saturating_add(HEADROOM)
    }

    fn take_block(&mut self) -> HeapBlock {
        self.spare.pop().unwrap_or_else(|| HeapBlock::new(self.block_size()))
    }

    fn keep_block(&mut self, block: HeapBlock) {
        if self.spare.len() < SPARE && block.bytes().len() == self.block_size() {
            self.spare.push(block);
        }
    }

    /// A packet as it goes out: in one piece, its checksum filled in. `None` if this device
    /// can't send it.
    fn finish(&mut self, mut packet: TxPacket<HeapBlock>) -> Option<TxBuf<HeapBlock>> {
        let len = packet.len();
        if packet.meta.gso.is_some() || !(ETHERNET_HEADER..=self.max_frame()).contains(&len) {
            return None;
        }
        checksum::fill_blank(&mut packet)?;
        let packet = match packet.into_single() {
            Ok(buf) => return Some(buf),
            Err(packet) => packet,
        };
        let mut buf = TxBuf::new(self.take_block(), 0);
        packet.copy_to_slice(buf.append(len)?)?;
        self.stats.linearised_packets += 1;
        self.stats.linearised_bytes += len as u64;
        for fragment in packet.into_fragments() {
            self.keep_block(fragment.into_parts().0);
        }
        Some(buf)
    }

    /// Sends a frame, or lets it wait if there is no room below.
    fn transmit(&mut self, buf: TxBuf<HeapBlock>) {
        if !self.io.send(buf.bytes()) {
            self.waiting = Some(buf);
            return;
        }
        self.stats.copies += 1;
        self.stats.copied_bytes += buf.len() as u64;
        self.stats.tx_packets += 1;
        self.stats.tx_bytes += buf.len() as u64;
        self.keep_block(buf.into_parts().0);
    }

    fn retry(&mut self) {
        if let Some(buf) = self.waiting.take() {
            self.transmit(buf);
        }
    }
}

impl<Io: RawIo> Netif for Copying<Io> {
    type Block = HeapBlock;
    type Permit<'a>
        = CopyingPermit<'a, Io>
    where
        Self: 'a;

    fn mac(&self) -> MacAddr {
        self.mac
    }

    fn mtu(&self) -> usize {
        self.mtu
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            block_size: self.block_size(),
            max_fragments: MAX_SLOTS,
            ..Capabilities::default()
        }
    }

    fn stats(&self) -> Stats {
        Stats {
            linearised_packets: self.stats.linearised_packets + self.linear.packets(),
            linearised_bytes: self.stats.linearised_bytes + self.linear.bytes(),
            ..self.stats
        }
    }

    fn alloc(&mut self, headroom: usize) -> Option<TxBuf<HeapBlock>> {
        Some(TxBuf::new(self.take_block(), headroom))
    }

    fn reserve(&mut self, _slots: usize) -> Option<CopyingPermit<'_, Io>> {
        self.retry();
        if self.waiting.is_some() { None } else { Some(CopyingPermit(self)) }
    }

    fn receive(&mut self, budget: usize, mut sink: impl FnMut(RxOf<Self>)) -> usize {
        let max = self.max_frame();
        let mut received = 0;
        for _ in 0..budget {
            let mut block = self.take_block();
            let room = block.range_mut(HEADROOM..HEADROOM + max).unwrap_or_default();
            let Some(len) = self.io.recv(room) else {
                self.keep_block(block);
                break;
            };
            if len > room.len() {
                self.stats.rx_dropped += 1;
                self.keep_block(block);
                continue;
            }
            self.stats.copies += 1;
            self.stats.copied_bytes += len as u64;
            self.stats.rx_packets += 1;
            self.stats.rx_bytes += len as u64;
            if let Some(buf) = RxBuf::new(block.share(), HEADROOM..HEADROOM + len) {
                received += 1;
                sink(Packet::from(buf));
            }
        }
        received
    }

    fn flush(&mut self) {
        self.retry();
    }

    fn linear(&mut self) -> &mut Linear {
        &mut self.linear
    }

    fn recycle(&mut self, packet: RxOf<Self>) {
        for fragment in packet.into_fragments() {
            if let Ok(block) = fragment.into_parts().0.try_unshare() {
                self.keep_block(block);
            }
        }
    }
}

/// Room for one packet in a [`Copying`].
pub struct CopyingPermit<'a, Io>(&'a mut Copying<Io>);

impl<Io: RawIo> Permit for CopyingPermit<'_, Io> {
    type Block = HeapBlock;

    fn send(&mut self, packet: TxPacket<HeapBlock>) {
        match self.0.finish(packet) {
            Some(buf) => self.0.transmit(buf),
            None => self.0.stats.tx_dropped += 1,
        }
    }
}
