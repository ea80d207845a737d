//! The transmit queue: grants a packet's pages, asks the backend to send them, takes them back.

use alloc::vec::Vec;

use arrayvec::ArrayVec;
use xen_grant::{
    Frame, Granted, GrantedPage, Grantee, Quarantine, ReadShared, Readable, Reference, SharedFrame,
};
use xen_ring::{FrontRing, InFlight, Notify};

use super::bytes::BytesInFlight;
use super::counters::Counters;
use super::fault::Fault;
use super::revoke::{admit, end_ring};
use crate::buffer::{Buf, BufMut, MixedPacket, PacketMut};
use crate::ring_page::Shared;
use crate::wire::{Extra, RING_SIZE, Status, TxRequest, TxResponse, TxRing, tx_flags};
use packet_views::buffer::{AnyPacket, Checksum, Fragment, Gso};

/// Frames that are kept at hand for the next packets, rather than returned to the pool. They
/// went to this backend before, so granting them again clears nothing. The first queue keeps all that
/// the device was promised to send with.
pub(super) const SPARE: usize = super::budget::SENDING as usize;

pub(super) struct TxQueue {
    ring: FrontRing<TxRing, Shared<GrantedPage>>,
    /// A free id owns a reference; one in flight, the page that it grants.
    in_flight: InFlight<Reference, Granted<ReadShared>, RING_SIZE>,
    spare: ArrayVec<Frame, SPARE>,
    bytes: Option<BytesInFlight>,
    /// Slots that somebody looked for and found no room for; 0 if nobody did.
    wanted: usize,
    grantee: Grantee,
    /// Extras pushed and not published yet.
    staged_extras: u32,
    /// Extras published and not answered yet: so many NULL responses may come, no more.
    published_extras: u32,
}

impl TxQueue {
    /// `references` are the queue's to grant with, at most 256.
    pub(super) fn new(
        page: GrantedPage,
        start: u32,
        references: Vec<Reference>,
        grantee: Grantee,
        most_bytes: Option<u32>,
    ) -> TxQueue {
        TxQueue {
            ring: FrontRing::starting_at(Shared(page), start),
            in_flight: InFlight::new(references),
            spare: ArrayVec::new(),
            bytes: most_bytes.map(BytesInFlight::new),
            wanted: 0,
            grantee,
            staged_extras: 0,
            published_extras: 0,
        }
    }

    /// A frame at hand.
    #[inline]
    pub(super) fn spare(&mut self) -> Option<Frame> {
        self.spare.pop()
    }

    /// Keeps a frame at hand, as long as there is room; more go back to the pool.
    pub(super) fn keep(&mut self, frame: Frame) {
        let _surplus = self.spare.try_push(frame);
    }

    /// Gives frames at hand back to the pool, but for `most` of them; returns how many it keeps.
    #[cold]
    pub(super) fn let_spares_go(&mut self, most: usize) -> usize {
        self.spare.truncate(most);
        self.spare.len()
    }

    /// Pages that are at hand, in flight, or with the backend though it answered.
    pub(super) fn held(&self) -> u32 {
        // At most two rings of them.
        (self.spare.len() + RING_SIZE - self.in_flight.free()) as u32
    }

    /// Requests that can be in flight at once.
    pub(super) fn capacity(&self) -> u32 {
        (RING_SIZE - self.in_flight.retired()) as u32
    }

    /// Gives a reference to an id that lost its own to quarantine; gives it back if there is none.
    pub(super) fn restore(&mut self, reference: Reference) -> Result<(), Reference> {
        self.in_flight.restore(reference)
    }

    /// How many slots, extras included, have room now.
    pub(super) fn room(&self) -> usize {
        match &self.bytes {
            Some(bytes) if !bytes.has_room() => 0,
            _ => (self.ring.free() as usize).min(self.in_flight.free()),
        }
    }

    /// Whether so many slots have room now.
    #[inline]
    pub(super) fn has_room(&self, slots: usize) -> bool {
        self.ring.free() as usize >= slots && self.in_flight.free() >= slots && self.takes_bytes()
    }

    /// Whether another packet may go, as far as the bytes in flight are concerned.
    #[inline]
    pub(super) fn takes_bytes(&self) -> bool {
        self.bytes.as_ref().is_none_or(BytesInFlight::has_room)
    }

    /// Somebody has found no room for so many slots, and may wait for it.
    #[cold]
    pub(super) fn want(&mut self, slots: usize) {
        self.wanted = slots;
    }

    /// Whether a frame is at hand.
    pub(super) fn has_spare(&self) -> bool {
        !self.spare.is_empty()
    }

    /// How far the backend has answered: an index that moves with every response.
    #[inline]
    pub(super) fn answered(&self) -> u32 {
        self.ring.consumed()
    }

    /// How far the backend has been asked: an index that moves with every request published.
    pub(super) fn asked(&self) -> u32 {
        self.ring.published()
    }

    /// Slots that the backend has not answered.
    pub(super) fn outstanding(&self) -> u32 {
        self.ring.outstanding()
    }

    /// Puts a packet on the ring. The caller has checked its shape and that there is room.
    #[inline]
    pub(super) fn send(&mut self, packet: PacketMut, size: u16, counters: &mut Counters) {
        self.put(packet, size, counters, TxQueue::push);
    }

    /// The same for a packet of which some is shared, and [fit](TxQueue::can_show) to be shown.
    #[cold]
    pub(super) fn send_mixed(&mut self, packet: MixedPacket, size: u16, counters: &mut Counters) {
        self.put(packet, size, counters, |queue, fragment, size, flags, counters| match fragment {
            Fragment::Own(buf) => queue.push(buf, size, flags, counters).map_err(Fragment::Own),
            Fragment::Shared(buf) => queue.push_shared(buf, size, flags).map_err(Fragment::Shared),
        });
    }

    /// Whether the backend may see a shared page as it is.
    pub(super) fn can_show(&self, buf: &Buf) -> bool {
        let (frame, range) = buf.clone().into_parts();
        frame.is_fit(&self.grantee, &range)
    }

    #[inline(always)] // for one kind of fragment, as if there were no other
    fn put<V>(
        &mut self,
        packet: AnyPacket<V>,
        size: u16,
        counters: &mut Counters,
        mut push: impl FnMut(&mut TxQueue, V, Option<u16>, u16, &mut Counters) -> Result<(), V>,
    ) {
        let meta = packet.meta;
        let mut flags = checksum_flags(meta.checksum);
        if meta.gso.is_some() {
            flags |= tx_flags::EXTRA_INFO;
            counters.tx_gso += 1;
        }
        counters.tx_blank += u64::from(meta.checksum == Checksum::Blank);
        let fragments = packet.into_fragments();
        let mut left = fragments.len();
        counters.tx_packets += 1;
        counters.tx_bytes += u64::from(size);
        let mut size = Some(size);
        for buf in fragments {
            left -= 1;
            let more = if left > 0 { tx_flags::MORE_DATA } else { 0 };
            let first = size.is_some();
            // Room was reserved.
            let _sent = push(self, buf, size.take(), flags | more, counters);
            if let Some(gso) = meta.gso.filter(|_| first) {
                self.push_gso(gso);
            }
            flags = 0;
        }
    }

    /// As [`send`](TxQueue::send), for a packet of one fragment and nothing known about it. Gives
    /// it back if there is no room.
    #[inline]
    pub(super) fn send_single(
        &mut self,
        buf: BufMut,
        size: u16,
        counters: &mut Counters,
    ) -> Result<(), BufMut> {
        self.push(buf, Some(size), checksum_flags(Checksum::Unknown), counters)?;
        counters.tx_packets += 1;
        counters.tx_bytes += u64::from(size);
        Ok(())
    }

    /// `size` is the whole packet's in its first slot.
    #[inline(always)] // a packet of one fragment is the usual case, and has no loop
    fn push(
        &mut self,
        buf: BufMut,
        size: Option<u16>,
        flags: u16,
        counters: &mut Counters,
    ) -> Result<(), BufMut> {
        let (Ok(slot), Some(vacant)) = (self.ring.slot(), self.in_flight.vacant()) else {
            return Err(buf);
        };
        let (frame, range) = buf.into_parts();
        // A range in a page: both fit.
        let (offset, len) = (range.start as u16, range.len() as u16);
        let started = vacant.start(slot.index(), |reference| {
            let (granted, cleared) = reference.grant(frame, &self.grantee, range);
            if cleared > 0 {
                counters.cleared(cleared);
            }
            let gref = granted.number();
            (granted, gref)
        });
        if let Some((id, gref)) = started {
            let request = TxRequest { gref, offset, flags, id, size: size.unwrap_or(len) };
            slot.push(request.into());
            if let Some(bytes) = &mut self.bytes {
                bytes.start(id, len);
            }
        }
        Ok(())
    }

    /// As [`push`](TxQueue::push), for bytes that others read too.
    fn push_shared(&mut self, buf: Buf, size: Option<u16>, flags: u16) -> Result<(), Buf> {
        let (Ok(slot), Some(vacant)) = (self.ring.slot(), self.in_flight.vacant()) else {
            return Err(buf);
        };
        let (frame, range) = buf.clone().into_parts();
        // A range in a page: both fit.
        let (offset, len) = (range.start as u16, range.len() as u16);
        let Ok(page) = frame.fit(&self.grantee, &range) else { return Err(buf) };
        let started = vacant.start(slot.index(), |reference| {
            let granted = reference.grant_shared(page);
            let gref = granted.number();
            (granted, gref)
        });
        if let Some((id, gref)) = started {
            let request = TxRequest { gref, offset, flags, id, size: size.unwrap_or(len) };
            slot.push(request.into());
            if let Some(bytes) = &mut self.bytes {
                bytes.start(id, len);
            }
        }
        Ok(())
    }

    #[cold]
    fn push_gso(&mut self, gso: Gso) {
        if self.ring.push(Extra::from_gso(gso).into()).is_ok() {
            self.staged_extras += 1;
        }
    }

    /// Shows the backend what has been sent; whether it wants an event for that.
    #[inline(always)] // one queue is the usual case, and has no call
    pub(super) fn publish(&mut self, counters: &mut Counters) -> Notify {
        let extras = core::mem::take(&mut self.staged_extras);
        let slots = self.ring.staged() - extras;
        counters.tx_slots += u64::from(slots);
        counters.grants += u64::from(slots);
        self.published_extras += extras;
        self.ring.publish()
    }

    /// Takes back the pages that the backend is done with; returns how many slots it answered.
    #[inline(always)] // one queue is the usual case, and has no call
    pub(super) fn complete(
        &mut self,
        quarantine: &mut Quarantine,
        counters: &mut Counters,
    ) -> Result<usize, Fault> {
        // Few limit the bytes in flight: the others don't look for each packet.
        if self.bytes.is_some() {
            self.complete_all::<true>(quarantine, counters)
        } else {
            self.complete_all::<false>(quarantine, counters)
        }
    }

    #[inline(always)] // one queue is the usual case, and has no call
    fn complete_all<const IS_LIMITED: bool>(
        &mut self,
        quarantine: &mut Quarantine,
        counters: &mut Counters,
    ) -> Result<usize, Fault> {
        let answered = self.ring.refresh()?;
        let published = self.ring.published();
        let (mut completed, kept_before) = (0, counters.quarantined);
        let mut fault = None;
        for (_, response) in self.ring.pop_all() {
            // Status first: of a NULL response nothing else means anything.
            if response.status != Status::Okay.number() {
                match unusual(response, &mut self.published_extras, counters) {
                    Ok(true) => {}
                    Ok(false) => continue,
                    Err(found) => {
                        fault = Some(found);
                        break;
                    }
                }
            }
            let spare = &mut self.spare;
            let ended = self.in_flight.complete(response.id, published, |granted| {
                take_back(granted, spare, quarantine, counters)
            });
            if let Err(found) = ended {
                fault = Some(found.into());
                break;
            }
            if IS_LIMITED && let Some(bytes) = &mut self.bytes {
                bytes.end(response.id);
            }
            completed += 1;
        }
        counters.tx_completed += completed;
        counters.revokes += completed - (counters.quarantined - kept_before);
        match fault {
            None => Ok(answered as usize),
            Some(fault) => {
                if let Fault::Ring(fault) = fault {
                    self.ring.poison(fault);
                }
                Err(fault)
            }
        }
    }

    /// Asks for an event when half of what is outstanding has been answered; true if it has been
    /// already, or if there is the room that somebody looked for. Waking for every packet sent would be a
    /// waste: nobody waits for its page.
    pub(super) fn arm(&mut self) -> Result<bool, Fault> {
        if self.wanted > 0 && self.has_room(self.wanted) {
            self.wanted = 0;
            return Ok(true);
        }
        let outstanding = self.ring.outstanding();
        Ok(self.ring.arm(outstanding / 2 + 1)?)
    }

    /// Ends the queue: every grant is revoked or quarantined. Returns the references that are
    /// free again.
    pub(super) fn dismantle(
        mut self,
        quarantine: &mut Quarantine,
        counters: &mut Counters,
    ) -> Vec<Reference> {
        // What was staged and never published was granted all the same.
        let staged = u64::from(self.ring.staged() - self.staged_extras);
        counters.grants += staged;
        let lost = self.in_flight.len() as u64;
        let (spare, kept_before) = (&mut self.spare, counters.quarantined);
        let ended =
            self.in_flight.dissolve(|granted| take_back(granted, spare, quarantine, counters));
        let mut references: Vec<Reference> = ended.collect();
        counters.tx_drops.disconnected += lost;
        counters.revokes += lost - (counters.quarantined - kept_before);
        end_ring(self.ring.into_page().0, &mut references, quarantine, counters);
        references
    }
}

#[inline]
fn checksum_flags(checksum: Checksum) -> u16 {
    match checksum {
        Checksum::Unknown => 0,
        Checksum::Complete => tx_flags::DATA_VALIDATED,
        Checksum::Blank => tx_flags::CSUM_BLANK | tx_flags::DATA_VALIDATED,
    }
}

/// Counts a response that does not report success. Whether it is to a request of its own.
#[cold]
#[inline(never)]
fn unusual(response: TxResponse, extras: &mut u32, counters: &mut Counters) -> Result<bool, Fault> {
    match Status::from_number(response.status) {
        Status::Null => {
            *extras = extras.checked_sub(1).ok_or(Fault::UnexpectedNull)?;
            return Ok(false);
        }
        Status::Error => counters.tx_drops.backend_error += 1,
        Status::Dropped => counters.tx_drops.backend_dropped += 1,
        Status::Okay => {}
    }
    Ok(true)
}

/// A page that others may still read, and has its own way home.
#[cold]
fn let_go(frame: SharedFrame) {
    drop(frame);
}

/// Ends the backend's access to a page that was sent, which goes to quarantine if it still uses it.
#[inline]
fn take_back(
    granted: Granted<ReadShared>,
    spare: &mut ArrayVec<Frame, SPARE>,
    quarantine: &mut Quarantine,
    counters: &mut Counters,
) -> Option<Reference> {
    match granted.revoke() {
        Ok((page, reference)) => {
            match page {
                // More than we keep go back to the pool.
                Readable::Own(frame) => _ = spare.try_push(frame),
                Readable::Shared(frame) => let_go(frame),
            }
            Some(reference)
        }
        Err(still) => {
            admit(still, quarantine, counters);
            None
        }
    }
}
