//! Memory of both kinds, and a device on either: what is sent comes back, in the same place.

use std::collections::VecDeque;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use packet_views::buffer::{Block, BufMut, HeapBlock, PacketMut};
use packet_views::device::{NetDevice, PacketOf, Permit, SendError, Totals, slots};
use packet_views::features::Capabilities;
use packet_views::header::MacAddr;
use xen_grant::{Frame, FramePool, Gfn, GrantStatus, Memory, Page, Words};

/// A machine that has memory and no grants.
#[derive(Clone)]
struct Arena;

/// Pages made so far.
static PAGES: AtomicU64 = AtomicU64::new(0);

// SAFETY: a page is a zeroed box that nobody else has, numbered once. There are no grant frames.
unsafe impl Memory for Arena {
    fn alloc_page(&self) -> Option<(NonNull<Page>, Gfn)> {
        let page = Box::leak(Box::new(Page([0; 4096])));
        Some((NonNull::from(page), Gfn(PAGES.fetch_add(1, Ordering::Relaxed))))
    }

    unsafe fn free_page(&self, page: NonNull<Page>, _gfn: Gfn) {
        // SAFETY: it was leaked in `alloc_page`, and the caller says that it is free.
        drop(unsafe { Box::from_raw(page.as_ptr()) });
    }

    fn grant_frame(&self, _index: u32) -> Result<NonNull<Words>, GrantStatus> {
        Err(GrantStatus::GENERAL_ERROR)
    }

    fn max_grant_frames(&self) -> u32 {
        0
    }
}

/// A pool of pages.
pub fn pool(pages: usize) -> FramePool {
    FramePool::new(&Arena, pages).unwrap()
}

/// Pages.
pub fn frames() -> impl FnMut() -> Option<Frame> + use<> {
    let pool = pool(64);
    move || pool.take()
}

/// As much on the heap.
pub fn heap() -> impl FnMut() -> Option<HeapBlock> + use<> {
    || Some(HeapBlock::new(4096))
}

/// A device that hands back what is sent.
pub struct Mirror<F> {
    blocks: F,
    pub mtu: usize,
    /// Slots that are free.
    pub room: usize,
    on_the_way: VecDeque<Vec<u8>>,
    counters: Totals,
    deliver: bool,
}

impl<F> Mirror<F> {
    pub fn new(blocks: F) -> Mirror<F> {
        Mirror {
            blocks,
            mtu: 1500,
            room: 100,
            on_the_way: VecDeque::new(),
            counters: Totals::default(),
            deliver: false,
        }
    }
}

impl<B: Block, F: FnMut() -> Option<B>> NetDevice for Mirror<F> {
    type Block = B;
    type Permit<'a>
        = MirrorPermit<'a, F>
    where
        Self: 'a;

    fn mac(&self) -> Option<MacAddr> {
        Some(MacAddr([2, 0, 0, 0, 0, 7]))
    }

    fn mtu(&self) -> usize {
        self.mtu
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::plain(4096).with_max_fragments(18)
    }

    fn totals(&self) -> Totals {
        self.counters
    }

    fn alloc(&mut self, headroom: usize) -> Option<BufMut<B>> {
        let mut block = (self.blocks)()?;
        block.range_mut(0..4096)?.fill(0xa5);
        Some(BufMut::new(block, headroom))
    }

    fn reserve(&mut self, slots: usize) -> Option<MirrorPermit<'_, F>> {
        if self.room < slots { None } else { Some(MirrorPermit(self)) }
    }

    fn room(&mut self) -> usize {
        self.room
    }

    fn has_packet(&mut self) -> bool {
        self.deliver && !self.on_the_way.is_empty()
    }

    fn receive(&mut self, budget: usize, mut sink: impl FnMut(PacketOf<Self>)) -> usize {
        let ready = if self.deliver { self.on_the_way.len() } else { 0 };
        for frame in self.on_the_way.drain(..ready.min(budget)) {
            let Some(block) = (self.blocks)() else { continue };
            let mut buf = BufMut::new(block, 2);
            buf.append(frame.len()).unwrap().copy_from_slice(&frame);
            sink(buf.freeze().into());
        }
        ready.min(budget)
    }

    fn flush(&mut self) {
        self.deliver = true;
    }
}

pub struct MirrorPermit<'a, F>(&'a mut Mirror<F>);

impl<B: Block, F: FnMut() -> Option<B>> Permit for MirrorPermit<'_, F> {
    type Block = B;

    fn alloc(&mut self, headroom: usize) -> Option<BufMut<B>> {
        self.0.alloc(headroom)
    }

    fn send(&mut self, packet: PacketMut<B>) -> Result<(), SendError<PacketMut<B>>> {
        self.0.room -= slots(&packet);
        self.0.counters.tx_packets += 1;
        self.0.counters.tx_bytes += packet.len() as u64;
        let mut frame = vec![0; packet.len()];
        packet.copy_to_slice(&mut frame).unwrap();
        self.0.on_the_way.push_back(frame);
        Ok(())
    }

    fn flush(self) {
        self.0.flush();
    }
}
