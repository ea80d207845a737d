//! The receive queue: takes back pages that the backend has filled, and puts packets together. How pages
//! are posted is in `post.rs`.
//!
//! The page for ring index `i` is kept at `postings[i % 256]`, and that number is also the request's
//! id. A backend answers in the order of the ring and in the same slot, so the slot says which
//! page is meant even where a response has no id (an extra); where it has one, it must agree.

mod post;

use alloc::boxed::Box;
use alloc::vec::Vec;

use arrayvec::ArrayVec;
use xen_grant::{Frame, Granted, GrantedPage, Grantee, Quarantine, ReadWrite, Reference};
use xen_ring::{FrontRing, fill};

use super::counters::{Counters, RxDrop};
use super::fault::Fault;
use super::revoke::{admit, end_ring};
use super::target::Target;
use crate::buffer::{Buf, Packet};
use crate::ring_page::Shared;
use crate::wire::{Extra, RING_SIZE, RxResponse, RxRing, rx_flags};
use packet_views::buffer::Checksum;
use packet_views::buffer::{Gso, MAX_FRAME};
use packet_views::features::Features;
use packet_views::header::ETHERNET_HEADER;
use packet_views::offload::make_blank;

/// Pages that are kept at hand to be posted again, rather than returned to the pool.
const SPARE: usize = 64;

/// What is posted at a place of the ring. It owns the reference that grants the pages posted there, so
/// that nothing is searched for.
#[derive(Default)]
struct Posting {
    /// While no page is posted.
    reference: Option<Reference>,
    posted: Option<Granted<ReadWrite>>,
}

pub(super) struct RxQueue {
    ring: FrontRing<RxRing, Shared<GrantedPage>>,
    postings: Box<[Posting; RING_SIZE]>,
    /// Postings that own nothing: their references are in quarantine, or there never were so many.
    bare: usize,
    target: Target,
    /// How many pages the queue may have out, those in quarantine included.
    allowed: u32,
    /// Pages in quarantine.
    kept: u32,
    /// Pages that came back from the layer above since pages were posted. Together with those posted and
    /// in quarantine never more than `allowed`: each was one of them a moment ago.
    spare: ArrayVec<Frame, SPARE>,
    grantee: Grantee,
    /// What we told the backend that we take.
    features: Features,
}

/// Why there is no packet.
enum Bad {
    /// It is dropped.
    Packet(RxDrop),
    /// So is the backend.
    Peer(Fault),
}

impl RxQueue {
    /// `references` are the queue's to grant with, at most 256. `kept` pages of its share are the
    /// backend's since an earlier connection.
    pub(super) fn new(
        page: GrantedPage,
        start: u32,
        references: Vec<Reference>,
        grantee: Grantee,
        target: Target,
        features: Features,
        kept: u32,
    ) -> RxQueue {
        let mut postings =
            Box::new([const { Posting { reference: None, posted: None } }; RING_SIZE]);
        let bare = RING_SIZE.saturating_sub(references.len());
        for (posting, reference) in postings.iter_mut().zip(references) {
            posting.reference = Some(reference);
        }
        let ring = FrontRing::starting_at(Shared(page), start);
        let allowed = target.floor();
        let spare = ArrayVec::new();
        RxQueue { ring, postings, bare, target, allowed, kept, spare, grantee, features }
    }

    /// Pages posted and not taken back.
    #[inline]
    pub(super) fn posted(&self) -> u32 {
        self.ring.outstanding()
    }

    /// How far the backend has answered: an index that moves with every response.
    #[inline]
    pub(super) fn answered(&self) -> u32 {
        self.ring.consumed()
    }

    /// Whether a packet has come.
    #[inline]
    pub(super) fn has_news(&mut self) -> Result<bool, Fault> {
        Ok(self.ring.refresh()? > 0)
    }

    /// Hands up to `budget` packets to `sink`, and keeps the pages of what it gives back to post them
    /// again; returns how many packets it looked at.
    pub(super) fn poll(
        &mut self,
        budget: usize,
        quarantine: &mut Quarantine,
        counters: &mut Counters,
        mut sink: impl FnMut(Packet) -> Option<Packet>,
    ) -> Result<usize, Fault> {
        let filled = self.ring.refresh()?;
        let empty = self.posted() - filled;
        let first = self.ring.consumed();
        // Dropped ones are counted, for there are hardly any.
        let (mut left, mut dropped, mut bytes) = (budget, 0, 0);
        let (mut fault, kept_before) = (None, counters.quarantined);
        while left > 0
            && let Some((index, slot)) = self.ring.pop()
        {
            left -= 1;
            let response = slot.response();
            let received = if response.flags & (rx_flags::MORE_DATA | rx_flags::EXTRA_INFO) == 0 {
                // The usual packet: one slot.
                self.fragment(index, response, quarantine, counters).and_then(|(buf, len)| {
                    if len < ETHERNET_HEADER {
                        return Err(bad(RxDrop::Runt));
                    }
                    let mut packet = Packet::from(buf);
                    packet.meta.checksum = checksum(response.flags);
                    if let Some(packet) = sink(packet) {
                        self.keep(packet);
                    }
                    Ok(len)
                })
            } else {
                self.chain(index, response, quarantine, counters).map(|(packet, len)| {
                    if let Some(packet) = sink(packet) {
                        self.keep(packet);
                    }
                    len
                })
            };
            match received {
                Ok(len) => bytes += len,
                Err(bad) => {
                    dropped += 1;
                    fault = dismiss(bad, counters);
                    if fault.is_some() {
                        break;
                    }
                }
            }
        }
        let looked = budget - left;
        counters.rx_packets += (looked - dropped) as u64;
        counters.rx_bytes += bytes as u64;
        let slots = self.ring.consumed().wrapping_sub(first);
        counters.rx_slots += u64::from(slots);
        counters.revokes += u64::from(slots) - (counters.quarantined - kept_before);
        if slots > 0 {
            self.target.adapt(empty);
        }
        match fault {
            None => Ok(looked),
            Some(fault) => {
                // The page of the slot at fault has not been taken back.
                counters.revokes -= 1;
                if let Fault::Ring(fault) = fault {
                    self.ring.poison(fault);
                }
                Err(fault)
            }
        }
    }

    /// Puts a packet of several slots together, and consumes all of them even if it is bad.
    #[inline(never)]
    fn chain(
        &mut self,
        first: u32,
        response: RxResponse,
        quarantine: &mut Quarantine,
        counters: &mut Counters,
    ) -> Result<(Packet, usize), Bad> {
        let (mut packet, mut bytes) = (Packet::new(), 0);
        let mut wrong: Option<RxDrop> = None;
        let flags = response.flags;
        let (mut index, mut response, mut extra) = (first, response, true);
        loop {
            let added =
                self.fragment(index, response, quarantine, counters).and_then(|(buf, len)| {
                    bytes += len;
                    packet.push(buf).map_err(|_| bad(RxDrop::TooManySlots))
                });
            match added {
                Ok(()) => {}
                Err(Bad::Packet(why)) => wrong = wrong.or(Some(why)),
                Err(fault) => return Err(fault),
            }
            // Extras stand behind the first slot.
            if core::mem::take(&mut extra) && response.flags & rx_flags::EXTRA_INFO != 0 {
                match self.extras(quarantine, counters) {
                    Ok(gso) => packet.meta.gso = gso,
                    Err(why) => wrong = wrong.or(Some(why)),
                }
            }
            if response.flags & rx_flags::MORE_DATA == 0 {
                break;
            }
            let Some((next, slot)) = self.ring.pop() else {
                wrong = wrong.or(Some(RxDrop::Truncated));
                break;
            };
            (index, response) = (next, slot.response());
        }
        match wrong {
            Some(why) => Err(bad(why)),
            None if bytes < ETHERNET_HEADER => Err(bad(RxDrop::Runt)),
            None if bytes > MAX_FRAME => Err(bad(RxDrop::TooLong)),
            None => {
                packet.meta.checksum = checksum(flags);
                Ok((self.large(packet, counters)?, bytes))
            }
        }
    }

    /// Sees to a packet that is to be cut, if it is one: its checksum is to be blank.
    fn large(&self, packet: Packet, counters: &mut Counters) -> Result<Packet, Bad> {
        let Some(gso) = packet.meta.gso else { return Ok(packet) };
        if !self.features.takes_gso(gso.kind) {
            return Err(bad(RxDrop::BadExtra));
        }
        counters.rx_gso += 1;
        if packet.meta.checksum == Checksum::Blank {
            return Ok(packet);
        }
        // Nobody else has seen it yet, so it can be written.
        let Ok(mut packet) = packet.try_into_mut() else {
            return Err(bad(RxDrop::BadExtra));
        };
        match make_blank(&mut packet) {
            Ok(()) => {
                counters.rx_made_blank += 1;
                Ok(packet.freeze())
            }
            Err(_) => Err(bad(RxDrop::BadExtra)),
        }
    }

    /// Takes one filled page: its bytes, and how many.
    #[inline(always)] // a packet of one slot is the usual case, and has no loop
    fn fragment(
        &mut self,
        index: u32,
        response: RxResponse,
        quarantine: &mut Quarantine,
        counters: &mut Counters,
    ) -> Result<(Buf, usize), Bad> {
        let expected = (index as usize % RING_SIZE) as u16;
        if response.id != expected {
            return Err(wrong_id(expected, response.id));
        }
        let Some(frame) = self.take_back(index, quarantine, counters) else {
            return Err(bad(RxDrop::StillInUse));
        };
        let Ok(len) = usize::try_from(response.status) else {
            return Err(bad(RxDrop::BackendError));
        };
        let offset = usize::from(response.offset);
        // The access has ended, so what is read from here on nobody changes. That the bytes lie
        // within the page is what the view checks.
        match Buf::new(frame.share(), offset..offset + len) {
            Some(buf) => Ok((buf, len)),
            None => Err(bad(RxDrop::BadExtent)),
        }
    }

    /// Ends the backend's access to the page that was posted at `index`. `None` if it still uses
    /// the page. Whoever goes through pages counts how many they were.
    #[inline]
    fn take_back(
        &mut self,
        index: u32,
        quarantine: &mut Quarantine,
        counters: &mut Counters,
    ) -> Option<Frame> {
        let posting = &mut self.postings[index as usize % RING_SIZE];
        match posting.posted.take()?.revoke() {
            Ok((frame, reference)) => {
                // What has a page posted has lent its reference.
                fill(&mut posting.reference, reference);
                Some(frame)
            }
            Err(still) => {
                self.bare += 1;
                self.kept += 1;
                admit(still, quarantine, counters);
                None
            }
        }
    }

    /// Consumes the extras behind a packet's first slot. Each has taken the place of a response,
    /// whose page is empty.
    fn extras(
        &mut self,
        quarantine: &mut Quarantine,
        counters: &mut Counters,
    ) -> Result<Option<Gso>, RxDrop> {
        let (mut gso, mut wrong): (_, Option<RxDrop>) = (None, None);
        loop {
            let Some((index, slot)) = self.ring.pop() else {
                return Err(RxDrop::Truncated);
            };
            drop(self.take_back(index, quarantine, counters));
            let extra = slot.extra();
            match (extra.gso(), gso) {
                (Some(found), None) => gso = Some(found),
                // A kind that we did not ask for, a bad GSO, a second GSO.
                _ => wrong = Some(RxDrop::BadExtra),
            }
            if extra.flags & Extra::MORE == 0 {
                return match wrong {
                    Some(why) => Err(why),
                    None => Ok(gso),
                };
            }
        }
    }

    /// Asks for an event at the next packet; true if it is there already.
    pub(super) fn arm(&mut self) -> Result<bool, Fault> {
        Ok(self.ring.arm(1)?)
    }

    /// Ends the queue: every grant is revoked or quarantined. Returns the references that are
    /// free again.
    pub(super) fn dismantle(
        mut self,
        quarantine: &mut Quarantine,
        counters: &mut Counters,
    ) -> Vec<Reference> {
        // Of a broken ring nobody knows what is on it.
        counters.rx_drops.disconnected += u64::from(self.ring.refresh().unwrap_or(0));
        for index in 0..RING_SIZE as u32 {
            if self.postings[index as usize].posted.is_some()
                && self.take_back(index, quarantine, counters).is_some()
            {
                counters.revokes += 1;
            }
        }
        let owned = self.postings.iter_mut().filter_map(|posting| posting.reference.take());
        let mut references: Vec<Reference> = owned.collect();
        end_ring(self.ring.into_page().0, &mut references, quarantine, counters);
        references
    }
}

// What the packet path does not do is kept off it.

/// Counts a packet as dropped, unless it is the backend that is at fault.
#[cold]
#[inline(never)]
fn dismiss(bad: Bad, counters: &mut Counters) -> Option<Fault> {
    match bad {
        Bad::Packet(why) => {
            *counters.rx_drops.counter(why) += 1;
            None
        }
        Bad::Peer(fault) => Some(fault),
    }
}

#[cold]
fn bad(wrong: RxDrop) -> Bad {
    Bad::Packet(wrong)
}

#[cold]
fn wrong_id(expected: u16, got: u16) -> Bad {
    Bad::Peer(Fault::WrongRxId { expected, got })
}

#[inline]
fn checksum(flags: u16) -> Checksum {
    if flags & rx_flags::CSUM_BLANK != 0 {
        Checksum::Blank
    } else if flags & rx_flags::DATA_VALIDATED != 0 {
        Checksum::Complete
    } else {
        Checksum::Unknown
    }
}
