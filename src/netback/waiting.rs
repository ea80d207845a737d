//! Packets that wait for pages of the client's: in order, and no more than may.
//!
//! ```text
//!   packets    | A: first, 1 other | B: first, 2 others | C: first |     grow by need, up to the bounds
//!   fragments  | A's | B's | B's |
//!                each is a frame of ours that is held: charged to the client's account
//! ```

use alloc::collections::VecDeque;

use super::budget::Account;
use super::error::DeliverErrorKind;
use crate::buffer::Buf;
use crate::wire::rx_flags;
use packet_views::buffer::{Checksum, Gso, Meta};

/// How much may wait in a queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) packets: usize,
    pub(super) fragments: usize,
}

/// A packet in the queue; its other fragments are in the queue beside it.
pub(super) struct Waiting {
    pub(super) first: Buf,
    pub(super) others: u8,
    /// Slots, the extra's included.
    pub(super) slots: u8,
    pub(super) len: u16,
    pub(super) flags: u16,
    pub(super) gso: Option<Gso>,
}

/// The queue.
pub(super) struct Backlog {
    packets: VecDeque<Waiting>,
    /// Those that are not a packet's first.
    pub(super) fragments: VecDeque<Buf>,
    bounds: Bounds,
}

impl Backlog {
    /// It takes no memory yet.
    pub(super) fn new(bounds: Bounds) -> Backlog {
        Backlog { packets: VecDeque::new(), fragments: VecDeque::new(), bounds }
    }

    /// Packets in it.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.packets.len()
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    #[inline]
    pub(super) fn front(&self) -> Option<&Waiting> {
        self.packets.front()
    }

    /// Whether so many more packets of so many fragments together may wait.
    #[inline]
    pub(super) fn has_room(&self, packets: usize, fragments: usize) -> bool {
        self.packets.len() + packets <= self.bounds.packets
            && self.packets.len() + self.fragments.len() + fragments <= self.bounds.fragments
    }

    /// Whether so much would fit if nothing waited.
    pub(super) fn could_have_room(&self, packets: usize, fragments: usize) -> bool {
        packets <= self.bounds.packets && fragments <= self.bounds.fragments
    }

    /// Sees to memory for another packet, with so many fragments that are not its first.
    #[inline]
    pub(super) fn grow(&mut self, others: usize) -> Result<(), DeliverErrorKind> {
        if self.packets.len() < self.packets.capacity() && others == 0 {
            return Ok(());
        }
        self.grow_both(others)
    }

    #[cold]
    #[inline(never)]
    fn grow_both(&mut self, others: usize) -> Result<(), DeliverErrorKind> {
        let packets = self.packets.try_reserve(1);
        let both = packets.and_then(|()| self.fragments.try_reserve(others));
        both.map_err(|_| DeliverErrorKind::NoMemory)
    }

    /// Puts a packet at the end: there is room and memory, and its `others` are there.
    #[inline]
    pub(super) fn push(&mut self, first: Buf, others: usize, len: usize, slots: usize, meta: Meta) {
        let flags = match meta.checksum {
            Checksum::Unknown => 0,
            Checksum::Complete => rx_flags::DATA_VALIDATED,
            Checksum::Blank => rx_flags::CSUM_BLANK | rx_flags::DATA_VALIDATED,
        };
        // At most 18 fragments, 17 slots, 65535 bytes: all fit.
        self.packets.push_back(Waiting {
            first,
            others: others as u8,
            slots: slots as u8,
            len: len as u16,
            flags,
            gso: meta.gso,
        });
    }

    /// Takes the packet at the front out. Its others are at the front of [`fragments`](Backlog::fragments).
    #[inline]
    pub(super) fn pop(&mut self) -> Option<Waiting> {
        self.packets.pop_front()
    }

    /// Drops what takes more slots than there are pages for; returns how many packets. What stays is in its
    /// order.
    pub(super) fn drop_larger(&mut self, available: usize, account: &mut Account) -> u64 {
        let mut dropped = 0;
        // Round once: what fits goes to the back again.
        for _ in 0..self.packets.len() {
            let Some(packet) = self.packets.pop_front() else { break };
            let others = usize::from(packet.others).min(self.fragments.len());
            if usize::from(packet.slots) <= available {
                self.fragments.rotate_left(others);
                self.packets.push_back(packet);
            } else {
                self.fragments.drain(..others);
                account.give_back(1 + others);
                dropped += 1;
            }
        }
        dropped
    }

    /// Drops the last packets, until the account has drawn nothing; returns how many.
    pub(super) fn drop_drawn(&mut self, account: &mut Account) -> u64 {
        let mut dropped = 0;
        while account.has_drawn()
            && let Some(packet) = self.packets.pop_back()
        {
            let others = usize::from(packet.others).min(self.fragments.len());
            self.fragments.truncate(self.fragments.len() - others);
            account.give_back(1 + others);
            dropped += 1;
        }
        dropped
    }
}
