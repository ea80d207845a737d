//! A device that copies: TAP, pcap, a test's loopback.
//!
//! Such a device reads and writes bytes where it is told to, so its packets live on the heap, at
//! any alignment, and everything above is the same code as on Xen. What it costs is written down:
//! one copy a packet each way, counted in [`Totals::copies`].
//!
//! ```text
//!   receive   io.recv(block) ──copy──► Buf ──► sink ──► recycle ┐
//!   send      BufMut ──copy──► io.send(bytes)  ────────────────────┴─► free blocks ──► alloc
//!                │     ▲
//!                └─────┘ what it does not take: checksums filled in, large packets cut
//! ```
//!
//! Blocks that have been sent or [recycled](NetDevice::recycle) are used again, so steady traffic
//! allocates nothing. Packets that are dropped instead are freed, and later ones allocated. A call blocks
//! as long as the [`RawIo`] below does.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use crate::buffer::{
    AnyPacket, Block, BufMut, HeapBlock, Meta, Packet, PacketMut, SharedHeapBlock, View,
};
use crate::buffer::{MAX_FRAGMENTS, MAX_FRAME, MAX_PACKET};
use crate::device::{NetDevice, PacketOf, Permit, SendError, SendErrorKind, Totals, slots};
use crate::features::{Capabilities, Features};
use crate::header::checksum::settle_blank;
use crate::header::{ETHERNET_HEADER, LINK_HEADER, MTUS, MacAddr, longest_frame};
use crate::offload::{Segments, Sums, make_blank};

/// What a copying device does: two methods, three more if its frames carry a [`Meta`].
pub trait RawIo {
    /// Copies the next frame into `target`, Ethernet header first; returns its length, or `None`
    /// if none is waiting. A frame that is longer than `target` may be cut or dropped.
    fn recv(&mut self, target: &mut [u8]) -> Option<usize>;

    /// Copies a frame out of `bytes`; `false` if there is no room for it now. Then the same frame
    /// is offered again, later.
    fn send(&mut self, bytes: &[u8]) -> bool;

    /// What [`send_meta`](RawIo::send_meta) takes besides plain frames, and
    /// [`recv_meta`](RawIo::recv_meta) may give: a TAP with a virtio-net header has these. Nothing
    /// unless said otherwise. Frames are always in one piece, so `scatter_gather` says nothing.
    fn features(&self) -> Features {
        Features::NONE
    }

    /// As [`recv`](RawIo::recv), with what is known about the frame. `target` has room for
    /// [`MAX_FRAME`] bytes if there is GSO in the [`features`](RawIo::features).
    fn recv_meta(&mut self, target: &mut [u8]) -> Option<(usize, Meta)> {
        Some((self.recv(target)?, Meta::default()))
    }

    /// As [`send`](RawIo::send), with what is known about the frame: within the
    /// [`features`](RawIo::features), and large only with GSO, whose checksum is blank.
    fn send_meta(&mut self, bytes: &[u8], _meta: Meta) -> bool {
        self.send(bytes)
    }
}

impl<Io: RawIo + ?Sized> RawIo for &mut Io {
    fn recv(&mut self, target: &mut [u8]) -> Option<usize> {
        (**self).recv(target)
    }

    fn send(&mut self, bytes: &[u8]) -> bool {
        (**self).send(bytes)
    }

    fn features(&self) -> Features {
        (**self).features()
    }

    fn recv_meta(&mut self, target: &mut [u8]) -> Option<(usize, Meta)> {
        (**self).recv_meta(target)
    }

    fn send_meta(&mut self, bytes: &[u8], meta: Meta) -> bool {
        (**self).send_meta(bytes, meta)
    }
}

/// Free bytes in front of a received packet, for whoever sends it on with more headers.
pub const HEADROOM: usize = 64;

/// Frames in a row that a look passes over because they are dropped.
const MOST_PASSED_OVER: usize = 64;

/// Blocks kept for later. More than this are not in flight at once, usually: a
/// [`Coalescer`](crate::offload::Coalescer) above may keep 144.
const SPARE: usize = 160;

/// The same, of blocks for large packets.
const SPARE_LARGE: usize = 16;

/// A device on top of a [`RawIo`].
pub struct Copying<Io> {
    io: Io,
    mac: MacAddr,
    mtu: usize,
    /// Free blocks, each of [`block_size`](Copying::block_size).
    spare: Vec<HeapBlock>,
    /// Free blocks, each of [`large_size`](Copying::large_size), if that is more.
    large: Vec<HeapBlock>,
    /// Sent, but `io` has no room yet: a frame, then what is left of the packet that it was cut
    /// from, then more packets.
    frame: Option<(BufMut<HeapBlock>, Meta)>,
    segments: Option<Segments<BufMut<HeapBlock>>>,
    packets: VecDeque<PacketMut<HeapBlock>>,
    /// Received, and not handed up yet.
    next: Option<Packet<SharedHeapBlock>>,
    counters: Totals,
}

impl<Io: RawIo> Copying<Io> {
    /// A device with this address and MTU, which is 65,521 at most.
    pub fn new(io: Io, mac: MacAddr, mtu: usize) -> Copying<Io> {
        Copying {
            io,
            mac,
            mtu: mtu.min(*MTUS.end()),
            spare: Vec::with_capacity(SPARE),
            large: Vec::with_capacity(SPARE_LARGE),
            frame: None,
            segments: None,
            packets: VecDeque::with_capacity(MAX_FRAGMENTS),
            next: None,
            counters: Totals::default(),
        }
    }

    /// What is below.
    pub fn io(&mut self) -> &mut Io {
        &mut self.io
    }

    fn features(&self) -> Features {
        Features { scatter_gather: true, ..self.io.features() }.coherent()
    }

    /// Bytes of a block for a frame.
    fn block_size(&self) -> usize {
        self.mtu + LINK_HEADER + HEADROOM
    }

    /// Bytes of a block for whatever `io` takes and gives.
    fn large_size(&self) -> usize {
        let features = self.features();
        if features.gso_v4 || features.gso_v6 {
            MAX_FRAME.saturating_add(HEADROOM)
        } else {
            self.block_size()
        }
    }

    /// Passes on what waits, until `io` has no room; whether nothing is left.
    fn drain(&mut self) -> bool {
        loop {
            if let Some((buf, meta)) = self.frame.take() {
                if !self.io.send_meta(buf.bytes(), meta) {
                    self.frame = Some((buf, meta));
                    return false;
                }
                self.counters.copies += 1;
                self.counters.copied_bytes += buf.len() as u64;
                self.counters.tx_packets += 1;
                self.counters.tx_bytes += buf.len() as u64;
                self.keep_block(buf);
            } else if let Some(segments) = self.segments.take() {
                self.cut(segments);
            } else if let Some(packet) = self.packets.pop_front() {
                self.begin(packet);
            } else {
                return true;
            }
        }
    }

    /// Makes a packet as `io` takes it, but for what is done when it is its turn: cut, or put in one
    /// piece.
    fn prepare(&self, packet: &mut PacketMut<HeapBlock>) -> Result<(), SendErrorKind> {
        let len = packet.len();
        if len < ETHERNET_HEADER {
            return Err(SendErrorKind::TooShort);
        }
        if self.is_to_be_cut(packet) {
            let plan = Segments::plan(packet).map_err(SendErrorKind::Gso)?;
            return if plan.longest > longest_frame(self.mtu, packet.head()) {
                Err(SendErrorKind::TooLong)
            } else {
                Ok(())
            };
        }
        if packet.meta.gso.is_some() {
            return make_blank(packet).map_err(SendErrorKind::Gso);
        }
        if len > longest_frame(self.mtu, packet.head()) {
            return Err(SendErrorKind::TooLong);
        }
        if !self.features().takes_packet(packet) {
            settle_blank(packet).map_err(SendErrorKind::Checksum)?;
        }
        Ok(())
    }

    fn is_to_be_cut(&self, packet: &PacketMut<HeapBlock>) -> bool {
        packet.meta.gso.is_some()
            && (packet.len() > MAX_PACKET || !self.features().takes_packet(packet))
    }

    /// Makes a packet the next frame, or begins to cut it. It is as `io` takes it.
    fn begin(&mut self, packet: PacketMut<HeapBlock>) {
        let meta = packet.meta;
        if self.is_to_be_cut(&packet) {
            self.segments = Segments::new(packet, Sums::Fill).ok();
            self.counters.tx_dropped += u64::from(self.segments.is_none());
        } else if let Some(buf) = self.in_one_piece(packet) {
            self.frame = Some((buf, meta));
        } else {
            self.counters.tx_dropped += 1;
        }
    }

    /// Makes the next segment.
    fn cut(&mut self, mut segments: Segments<BufMut<HeapBlock>>) {
        let before = segments.copied().payload;
        let segment = segments.cut(|| Some(BufMut::new(self.take_block(self.block_size()), 0)));
        let copied = segments.copied().payload - before;
        self.counters.copies += u64::from(copied > 0);
        self.counters.copied_bytes += copied;
        match segment {
            None => {}
            Some(Ok(segment)) => {
                self.begin(segment);
                self.segments = Some(segments);
            }
            // Blocks that hold no headers.
            Some(Err(_)) => self.counters.tx_dropped += segments.remaining() as u64,
        }
    }

    /// A packet in one block.
    fn in_one_piece(&mut self, packet: PacketMut<HeapBlock>) -> Option<BufMut<HeapBlock>> {
        let packet = match packet.into_single() {
            Ok(buf) => return Some(buf),
            Err(packet) => packet,
        };
        let len = packet.len();
        let size =
            if len > self.block_size() - HEADROOM { self.large_size() } else { self.block_size() };
        let mut buf = BufMut::new(self.take_block(size), 0);
        packet.copy_to_slice(buf.append(len)?)?;
        self.counters.linearised_packets += 1;
        self.counters.linearised_bytes += len as u64;
        packet.into_fragments().into_iter().for_each(|fragment| self.keep_block(fragment));
        Some(buf)
    }

    /// Reads the next frame; `None` if there is none, `Some(None)` if it is dropped.
    fn fetch(&mut self) -> Option<Option<Packet<SharedHeapBlock>>> {
        let size = self.large_size();
        let mut buf = BufMut::new(self.take_block(size), HEADROOM);
        let target = buf.append(size - HEADROOM).unwrap_or_default();
        let Some((len, meta)) = self.io.recv_meta(target) else {
            self.keep_block(buf);
            return None;
        };
        let is_large = meta.gso.is_some();
        let longest = if is_large { size - HEADROOM } else { longest_frame(self.mtu, buf.bytes()) };
        if len > longest {
            self.counters.rx_dropped += 1;
            self.keep_block(buf);
            return Some(None);
        }
        self.counters.copies += 1;
        self.counters.copied_bytes += len as u64;
        buf.truncate(len);
        let mut packet = AnyPacket::from(buf.freeze());
        packet.meta = meta;
        Some(Some(packet))
    }

    fn take_block(&mut self, size: usize) -> HeapBlock {
        let spare = if size == self.block_size() { &mut self.spare } else { &mut self.large };
        let block = spare.pop().filter(|block| block.bytes().len() == size);
        block.unwrap_or_else(|| HeapBlock::new(size))
    }

    fn keep_block(&mut self, buf: BufMut<HeapBlock>) {
        let block = buf.into_parts().0;
        let size = block.bytes().len();
        if size == self.block_size() {
            if self.spare.len() < SPARE {
                self.spare.push(block);
            }
        } else if size == self.large_size() && self.large.len() < SPARE_LARGE {
            self.large.push(block);
        }
    }
}

impl<Io: RawIo> NetDevice for Copying<Io> {
    type Block = HeapBlock;
    type Permit<'a>
        = CopyingPermit<'a, Io>
    where
        Self: 'a;

    fn mac(&self) -> Option<MacAddr> {
        Some(self.mac)
    }

    fn mtu(&self) -> usize {
        self.mtu
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            block_size: self.block_size(),
            max_fragments: MAX_FRAGMENTS,
            features: self.features(),
        }
    }

    fn totals(&self) -> Totals {
        self.counters
    }

    fn alloc(&mut self, headroom: usize) -> Option<BufMut<HeapBlock>> {
        Some(BufMut::new(self.take_block(self.block_size()), headroom))
    }

    fn reserve(&mut self, slots: usize) -> Option<CopyingPermit<'_, Io>> {
        self.drain().then_some(CopyingPermit { device: self, slots })
    }

    fn receive(&mut self, budget: usize, mut sink: impl FnMut(PacketOf<Self>)) -> usize {
        for looked in 0..budget {
            match self.next.take().map(Some).or_else(|| self.fetch()) {
                None => return looked,
                Some(None) => {}
                Some(Some(packet)) => {
                    self.counters.rx_packets += 1;
                    self.counters.rx_bytes += packet.len() as u64;
                    sink(packet);
                }
            }
        }
        budget
    }

    fn room(&mut self) -> usize {
        if self.drain() { MAX_FRAGMENTS } else { 0 }
    }

    fn has_packet(&mut self) -> bool {
        for _ in 0..MOST_PASSED_OVER {
            if self.next.is_some() {
                break;
            }
            let Some(looked) = self.fetch() else { return false };
            self.next = looked;
        }
        true
    }

    fn next_packet(&mut self) -> Option<PacketOf<Self>> {
        let mut next = None;
        // What is dropped counts in a budget.
        if self.has_packet() {
            self.receive(1, |packet| next = Some(packet));
        }
        next
    }

    fn flush(&mut self) {
        self.drain();
    }

    fn recycle(&mut self, packet: PacketOf<Self>) {
        for fragment in packet.into_fragments() {
            if let Ok(buf) = fragment.try_into_mut() {
                self.keep_block(buf);
            }
        }
    }
}

/// Room for packets in a [`Copying`].
pub struct CopyingPermit<'a, Io> {
    device: &'a mut Copying<Io>,
    /// Slots that are left of those reserved.
    slots: usize,
}

impl<Io: RawIo> Permit for CopyingPermit<'_, Io> {
    type Block = HeapBlock;

    fn alloc(&mut self, headroom: usize) -> Option<BufMut<HeapBlock>> {
        self.device.alloc(headroom)
    }

    fn send(
        &mut self,
        mut packet: PacketMut<HeapBlock>,
    ) -> Result<(), SendError<PacketMut<HeapBlock>>> {
        match self.slots.checked_sub(slots(&packet)) {
            Some(left) => self.slots = left,
            None if self.device.drain() => {}
            None => return Err(SendError::Full(packet)),
        }
        if let Err(why) = self.device.prepare(&mut packet) {
            self.device.counters.tx_dropped += 1;
            return Err(why.into());
        }
        self.device.packets.push_back(packet);
        self.device.drain();
        Ok(())
    }

    fn flush(self) {
        self.device.drain();
    }
}

impl<Io> core::fmt::Debug for Copying<Io> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Copying")
            .field("mac", &self.mac)
            .field("mtu", &self.mtu)
            .field("to_send", &self.packets.len())
            .field("received", &self.next.is_some())
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}

impl<Io> core::fmt::Debug for CopyingPermit<'_, Io> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("CopyingPermit").field("slots", &self.slots).finish_non_exhaustive()
    }
}
