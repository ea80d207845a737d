//! Packets that wait for pages of the client's: in order, and no more than may.
//!
//! ```text
//!   packets    | A: first, 1 other | B: first, 2 others | C: first |     grow by need, up to the bounds
//!   fragments  | A's | B's | B's |
//!                each is a frame of ours that is held: charged to the client's account
//! ```

use super::budget::Account;
use super::error::DeliverErrorKind;
use super::fifo::Fifo;
use crate::buffer::Buf;
use packet_views::buffer::Gso;

/// How much may wait in a queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) packets: usize,
    pub(super) fragments: usize,
}

/// A packet in the queue; its other fragments are in the queue beside it.
#[derive(Default)]
pub(super) struct Waiting {
    /// There as long as it waits.
    pub(super) first: Option<Buf>,
    pub(super) shape: Shape,
}

/// What a packet is, besides its bytes.
#[derive(Clone, Copy, Default)]
pub(super) struct Shape {
    pub(super) gso: Option<Gso>,
    pub(super) len: u16,
    pub(super) flags: u16,
    pub(super) others: u8,
    /// The extra's included.
    pub(super) slots: u8,
}

/// The queue.
pub(super) struct Backlog {
    packets: Fifo<Waiting>,
    /// Those that are not a packet's first.
    fragments: Fifo<Option<Buf>>,
    /// The most packets.
    most: usize,
    /// Fragments that may still come.
    room: usize,
}

impl Backlog {
    /// It takes no memory yet.
    pub(super) fn new(bounds: Bounds) -> Backlog {
        let (most, room) = (bounds.packets, bounds.fragments);
        Backlog { packets: Fifo::new(), fragments: Fifo::new(), most, room }
    }

    /// Packets in it.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.packets.len()
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.packets.len() == 0
    }

    #[inline]
    pub(super) fn first(&mut self) -> Option<&mut Waiting> {
        self.packets.first()
    }

    /// Takes the [first](Backlog::first) packet out, whose first fragment has been taken. Its others
    /// [come next](Backlog::pop_other). There is room again once its fragments are
    /// [given back](Backlog::give_back).
    #[inline]
    pub(super) fn skip(&mut self) {
        self.packets.skip();
    }

    /// So many fragments are held no more.
    #[inline]
    pub(super) fn give_back(&mut self, fragments: usize, account: &mut Account) {
        self.room += fragments;
        account.give_back(fragments);
    }

    /// Whether so many more packets of so many fragments together may wait.
    #[inline]
    pub(super) fn has_room(&self, packets: usize, fragments: usize) -> bool {
        self.packets.len() + packets <= self.most && self.room >= fragments
    }

    /// Sees to memory for another packet, with so many fragments that are not its first.
    #[inline]
    pub(super) fn grow(&mut self, others: usize) -> Result<(), DeliverErrorKind> {
        if self.packets.has_memory(1) && others == 0 {
            return Ok(());
        }
        self.grow_both(others)
    }

    #[cold]
    #[inline(never)]
    fn grow_both(&mut self, others: usize) -> Result<(), DeliverErrorKind> {
        let packets = self.packets.grow(1);
        let both = packets.and_then(|()| self.fragments.grow(others));
        both.map_err(|_| DeliverErrorKind::NoMemory)
    }

    /// Puts a fragment at the end that is not its packet's first. The packet follows.
    #[inline]
    pub(super) fn push_other(&mut self, fragment: Buf) {
        self.fragments.push(Some(fragment));
        self.room -= 1;
    }

    /// Puts a packet at the end: there is room and memory for it.
    #[inline]
    pub(super) fn push(&mut self, first: Buf, shape: Shape) {
        self.packets.push(Waiting { first: Some(first), shape });
        self.room -= 1;
    }

    /// Takes the first fragment out that is not its packet's first.
    #[inline]
    pub(super) fn pop_other(&mut self) -> Option<Buf> {
        self.fragments.pop()?.take()
    }

    /// Drops what takes more slots than there are pages for; returns how many packets. What stays is in its
    /// order.
    pub(super) fn drop_larger(&mut self, available: usize, account: &mut Account) -> u64 {
        let mut dropped = 0;
        // Round once: what fits goes to the back again, where there is memory for it.
        for _ in 0..self.packets.len() {
            let Some(Waiting { first, shape }) = self.packets.pop() else { break };
            let (Some(first), shape) = (first.take(), *shape) else { break };
            let stays = usize::from(shape.slots) <= available;
            for _ in 0..shape.others {
                if let (Some(other), true) = (self.pop_other(), stays) {
                    self.fragments.push(Some(other));
                }
            }
            if stays {
                self.packets.push(Waiting { first: Some(first), shape });
            } else {
                self.give_back(1 + usize::from(shape.others), account);
                dropped += 1;
            }
        }
        dropped
    }

    /// Drops the last packets, until the account has drawn nothing; returns how many.
    pub(super) fn drop_drawn(&mut self, account: &mut Account) -> u64 {
        let mut dropped = 0;
        while account.has_drawn()
            && let Some(packet) = self.packets.pop_last()
        {
            packet.first = None;
            let mut frames = 1;
            for _ in 0..packet.shape.others {
                let other = self.fragments.pop_last().and_then(Option::take);
                frames += usize::from(other.is_some());
            }
            self.give_back(frames, account);
            dropped += 1;
        }
        dropped
    }
}
