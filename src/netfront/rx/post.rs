//! How empty pages are posted: how many, whose, and each with the reference of its slot.

use xen_grant::{Frame, Reference};
use xen_ring::{Notify, fill};

use super::{Posting, RxQueue};
use crate::buffer::Packet;
use crate::netfront::budget::Budget;
use crate::netfront::counters::Counters;
use crate::wire::{RING_SIZE, RxRequest};

impl RxQueue {
    /// Posts as many pages as are wanted, once they are worth it, and shows them to the backend.
    #[inline]
    pub(in crate::netfront) fn refill(
        &mut self,
        budget: &mut Budget,
        counters: &mut Counters,
    ) -> Notify {
        match self.target.wanted(self.posted()) {
            0 => Notify::Suppressed,
            wanted => self.post_many(wanted, budget, counters),
        }
    }

    /// Whether as many pages are posted as are wanted now.
    pub(in crate::netfront) fn is_full(&self) -> bool {
        self.target.wanted(self.posted()) == 0
    }

    #[inline(never)]
    fn post_many(&mut self, wanted: u32, budget: &mut Budget, counters: &mut Counters) -> Notify {
        let wanted = self.affordable(wanted, budget) as usize;
        let room = (self.ring.free() as usize).saturating_sub(self.bare).min(wanted);
        let before = self.ring.next_index();
        let again = self.spare.len().min(room);
        for _ in 0..again {
            let Some(frame) = self.spare.pop() else { break };
            self.post(frame, counters);
        }
        // Fewer are wanted than there were.
        self.spare.clear();
        if again < room {
            self.post_others(room - again, budget, counters);
        }
        counters.grants += u64::from(self.ring.next_index().wrapping_sub(before));
        self.ring.publish()
    }

    /// Posts `count` pages of the pool.
    #[inline]
    fn post_others(&mut self, count: usize, budget: &Budget, counters: &mut Counters) {
        let frames = budget.pool().take_many(count);
        if frames.len() < count {
            counters.no_frame += 1;
        }
        for frame in frames {
            self.post(frame, counters);
        }
    }

    /// Keeps the pages of a packet that nobody else has, to post them again.
    #[inline]
    pub(super) fn keep(&mut self, packet: Packet) {
        for fragment in packet.into_fragments() {
            if let Ok(frame) = fragment.into_parts().0.try_unshare() {
                // More than we keep go back to the pool.
                let _surplus = self.spare.try_push(frame);
            }
        }
    }

    /// Gives the pages at hand back to the pool.
    pub(in crate::netfront) fn let_spares_go(&mut self) {
        self.spare.clear();
    }

    /// How many more pages the queue may post, of `wanted`: above its floor, as many as are nobody's.
    #[inline]
    fn affordable(&mut self, wanted: u32, budget: &mut Budget) -> u32 {
        let needed = (self.posted() + self.kept + wanted).max(self.target.floor());
        if needed == self.allowed { wanted } else { self.allow(needed, wanted, budget) }
    }

    /// Has the queue allowed as many pages as it needs, as far as there are so many; returns how many of
    /// `wanted` it may post.
    #[cold]
    #[inline(never)]
    fn allow(&mut self, needed: u32, wanted: u32, budget: &mut Budget) -> u32 {
        if needed < self.allowed {
            budget.give_back(self.allowed - needed);
            self.allowed = needed;
        } else {
            self.allowed += budget.draw(needed - self.allowed);
        }
        let affordable = self.allowed.saturating_sub(self.posted() + self.kept).min(wanted);
        if affordable < wanted {
            self.target.make_do(self.posted() + affordable);
        }
        affordable
    }

    /// Pages that are posted or can be.
    pub(in crate::netfront) fn capacity(&self) -> u32 {
        let slots = (RING_SIZE - self.bare) as u32;
        slots.min(self.allowed.saturating_sub(self.kept))
    }

    /// Pages of this queue's that the backend has not let go of, or slots that want a reference.
    pub(in crate::netfront) fn lacks(&self) -> u32 {
        self.kept.max(self.bare as u32)
    }

    /// A page has come out of quarantine, and a reference.
    pub(in crate::netfront) fn restore(&mut self, reference: Reference) {
        self.kept = self.kept.saturating_sub(1);
        let is_bare =
            |posting: &&mut Posting| posting.reference.is_none() && posting.posted.is_none();
        if let Some(posting) = self.postings.iter_mut().find(is_bare) {
            posting.reference = Some(reference);
            self.bare = self.bare.saturating_sub(1);
        }
    }

    #[inline(always)] // into the two loops that post
    fn post(&mut self, frame: Frame, counters: &mut Counters) {
        let Ok(next) = self.ring.slot() else { return };
        let id = next.index() as usize % RING_SIZE;
        let owned = match self.postings[id].reference.take() {
            Some(reference) => Some(reference),
            None => borrow_reference(&mut self.postings, id),
        };
        let Some(reference) = owned else { return };
        // The backend may read the page before it writes it, so nothing of it is announced.
        let (granted, cleared) = reference.grant(frame, &self.grantee, 0..0);
        if cleared > 0 {
            counters.cleared(cleared);
        }
        let request = RxRequest { id: id as u16, gref: granted.number() };
        // No page is posted in a free slot.
        fill(&mut self.postings[id].posted, granted);
        next.push(request);
    }
}

/// A reference for a slot that owns none: another free one's, in the order in which their turn
/// comes.
#[cold]
#[inline(never)]
fn borrow_reference(postings: &mut [Posting; RING_SIZE], id: usize) -> Option<Reference> {
    (1..RING_SIZE).find_map(|ahead| postings[(id + ahead) % RING_SIZE].reference.take())
}
