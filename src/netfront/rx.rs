//! The receive queue: posts empty pages, takes back filled ones, puts packets together.
//!
//! The page for ring index `i` is kept at `posted[i % 256]`, and that number is also the request's
//! id. A backend answers in the order of the ring and in the same slot, so the slot says which
//! page is meant even where a response has no id (an extra); where it has one, it must agree.

use alloc::boxed::Box;
use alloc::vec::Vec;

use xen_grant::{
    Frame, FramePool, Granted, GrantedPage, Grantee, PAGE_SIZE, Quarantine, ReadWrite, Reference,
};
use xen_ring::{FrontRing, Notify};

use super::fault::Fault;
use super::stats::{RxDrops, Stats};
use crate::buffer::{Checksum, Meta, RxBuf, RxPacket};
use crate::ring_page::Shared;
use crate::wire::{Extra, Gso, RING_SIZE, RxRequest, RxResponse, RxRing, rx_flags};

/// An Ethernet header.
const SHORTEST: usize = 14;

pub(super) struct RxQueue {
    ring: FrontRing<RxRing, Shared<GrantedPage>>,
    posted: Box<[Option<Granted<ReadWrite>>; RING_SIZE]>,
    references: Vec<Reference>,
    grantee: Grantee,
}

/// What is wrong with a packet: the counter to raise.
type Wrong = fn(&mut RxDrops) -> &mut u64;

impl RxQueue {
    /// `references` are the queue's to grant with, at most 256.
    pub(super) fn new(
        page: GrantedPage,
        start: u32,
        references: Vec<Reference>,
        grantee: Grantee,
    ) -> RxQueue {
        let posted = Box::new([const { None }; RING_SIZE]);
        RxQueue { ring: FrontRing::starting_at(Shared(page), start), posted, references, grantee }
    }

    /// Posts pages until the ring is full, and shows them to the backend.
    pub(super) fn refill(&mut self, pool: &FramePool, stats: &mut Stats) -> Notify {
        let room = (self.ring.free() as usize).min(self.references.len());
        for _ in 0..room {
            let Some(frame) = pool.take() else {
                stats.no_frame += 1;
                break;
            };
            let Some(reference) = self.references.pop() else { break };
            self.post(frame, reference, stats);
        }
        self.ring.publish()
    }

    #[inline]
    fn post(&mut self, frame: Frame, reference: Reference, stats: &mut Stats) {
        // The backend may read the page before it writes it, so nothing of it is announced.
        let (granted, cleared) = reference.grant(frame, &self.grantee, 0..0);
        stats.grants += 1;
        if cleared > 0 {
            stats.cleared(cleared);
        }
        let slot = self.ring.next_index() as usize % RING_SIZE;
        let request = RxRequest { id: slot as u16, gref: granted.number() };
        self.posted[slot] = Some(granted);
        let _pushed = self.ring.push(request);
    }

    /// Pages posted and not filled.
    pub(super) fn posted(&self) -> u32 {
        self.ring.outstanding()
    }

    /// Hands up to `budget` packets to `sink`; returns how many it looked at.
    pub(super) fn poll(
        &mut self,
        budget: usize,
        quarantine: &mut Quarantine,
        stats: &mut Stats,
        mut sink: impl FnMut(RxPacket),
    ) -> Result<usize, Fault> {
        self.ring.refresh()?;
        let mut packets = 0;
        while packets < budget
            && let Some((index, slot)) = self.ring.pop()
        {
            packets += 1;
            let mut packet = RxPacket::new();
            match self.receive(index, slot.response(), &mut packet, quarantine, stats) {
                Ok(Ok(bytes)) => {
                    stats.rx_packets += 1;
                    stats.rx_bytes += bytes as u64;
                    sink(packet);
                }
                Ok(Err(wrong)) => *wrong(&mut stats.rx_drops) += 1,
                Err(fault) => {
                    if let Fault::Ring(fault) = fault {
                        self.ring.poison(fault);
                    }
                    return Err(fault);
                }
            }
        }
        Ok(packets)
    }

    /// Puts one packet together, and consumes all of its slots even if it is bad.
    #[inline]
    fn receive(
        &mut self,
        first: u32,
        response: RxResponse,
        packet: &mut RxPacket,
        quarantine: &mut Quarantine,
        stats: &mut Stats,
    ) -> Result<Result<usize, Wrong>, Fault> {
        let mut wrong: Option<Wrong> = None;
        let mut bytes =
            self.fragment(first, response, packet, quarantine, stats)?.unwrap_or_else(|why| {
                wrong = Some(why);
                0
            });
        let mut more = response.flags & rx_flags::MORE_DATA != 0;
        let mut gso = None;
        if response.flags & rx_flags::EXTRA_INFO != 0 {
            match self.extras(quarantine, stats) {
                Ok(found) => gso = found,
                Err(why) => wrong = wrong.or(Some(why)),
            }
        }
        while more {
            let Some((index, slot)) = self.ring.pop() else {
                wrong = wrong.or(Some(|drops| &mut drops.truncated));
                break;
            };
            let response = slot.response();
            match self.fragment(index, response, packet, quarantine, stats)? {
                Ok(len) => bytes += len,
                Err(why) => wrong = wrong.or(Some(why)),
            }
            more = response.flags & rx_flags::MORE_DATA != 0;
        }
        packet.meta = Meta { checksum: checksum(response.flags), gso };
        Ok(match wrong {
            Some(why) => Err(why),
            None if bytes < SHORTEST => Err(|drops| &mut drops.runt),
            None => Ok(bytes),
        })
    }

    /// Takes one filled page and adds its bytes to the packet.
    #[inline]
    fn fragment(
        &mut self,
        index: u32,
        response: RxResponse,
        packet: &mut RxPacket,
        quarantine: &mut Quarantine,
        stats: &mut Stats,
    ) -> Result<Result<usize, Wrong>, Fault> {
        let expected = (index as usize % RING_SIZE) as u16;
        if response.id != expected {
            return Err(Fault::WrongRxId { expected, got: response.id });
        }
        let Some(frame) = self.take_back(index, quarantine, stats) else {
            return Ok(Err(|drops| &mut drops.still_in_use));
        };
        let Ok(len) = usize::try_from(response.status) else {
            return Ok(Err(|drops| &mut drops.backend_error));
        };
        let offset = usize::from(response.offset);
        if offset + len > PAGE_SIZE {
            return Ok(Err(|drops| &mut drops.bad_extent));
        }
        // The access has ended, so what is read from here on nobody changes.
        let Some(buf) = RxBuf::new(frame.share(), offset..offset + len) else {
            return Ok(Err(|drops| &mut drops.bad_extent));
        };
        Ok(packet
            .push(buf)
            .map(|()| len)
            .map_err(|_| -> Wrong { |drops| &mut drops.too_many_slots }))
    }

    /// Ends the backend's access to the page that was posted at `index`. `None` if it still uses
    /// the page.
    #[inline]
    fn take_back(
        &mut self,
        index: u32,
        quarantine: &mut Quarantine,
        stats: &mut Stats,
    ) -> Option<Frame> {
        stats.rx_slots += 1;
        match self.posted[index as usize % RING_SIZE].take()?.revoke() {
            Ok((frame, reference)) => {
                stats.revokes += 1;
                self.references.push(reference);
                Some(frame)
            }
            Err(still) => {
                stats.quarantined += 1;
                quarantine.admit(still);
                None
            }
        }
    }

    /// Consumes the extras behind a packet's first slot. Each has taken the place of a response,
    /// whose page is empty.
    #[cold]
    fn extras(
        &mut self,
        quarantine: &mut Quarantine,
        stats: &mut Stats,
    ) -> Result<Option<Gso>, Wrong> {
        let (mut gso, mut wrong): (_, Option<Wrong>) = (None, None);
        loop {
            let Some((index, slot)) = self.ring.pop() else {
                return Err(|drops| &mut drops.truncated);
            };
            drop(self.take_back(index, quarantine, stats));
            let extra = slot.extra();
            match (extra.gso(), gso) {
                (Some(found), None) => gso = Some(found),
                // A kind that we did not ask for, a bad GSO, a second GSO.
                _ => wrong = Some(|drops| &mut drops.bad_extra),
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
        stats: &mut Stats,
    ) -> Vec<Reference> {
        // Of a broken ring nobody knows what is on it.
        stats.rx_drops.disconnected += u64::from(self.ring.refresh().unwrap_or(0));
        for index in 0..RING_SIZE {
            if self.posted[index].is_some() {
                drop(self.take_back(index as u32, quarantine, stats));
                // It was taken back, not received.
                stats.rx_slots -= 1;
            }
        }
        super::connect::end_ring(self.ring.into_page().0, &mut self.references, quarantine, stats);
        self.references
    }
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
