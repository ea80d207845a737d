//! The transmit queue: grants a packet's pages, asks the backend to send them, takes them back.

use alloc::vec::Vec;

use xen_grant::{Frame, FramePool, Granted, GrantedPage, Grantee, Quarantine, ReadOnly, Reference};
use xen_ring::{FrontRing, InFlight, Notify};

use super::fault::Fault;
use super::stats::Stats;
use crate::buffer::{Checksum, TxBuf, TxPacket};
use crate::ring_page::Shared;
use crate::wire::{Extra, Gso, RING_SIZE, Status, TxRequest, TxRing, tx_flags};

/// Frames that are kept at hand for the next packets, rather than returned to the pool. They
/// went to this backend before, so granting them again clears nothing.
const SPARE: usize = 64;

pub(super) struct TxQueue {
    ring: FrontRing<TxRing, Shared<GrantedPage>>,
    in_flight: InFlight<Granted<ReadOnly>, RING_SIZE>,
    /// One for each packet slot that can be in flight.
    references: Vec<Reference>,
    spare: Vec<Frame>,
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
    ) -> TxQueue {
        TxQueue {
            ring: FrontRing::starting_at(Shared(page), start),
            in_flight: InFlight::new(),
            references,
            spare: Vec::with_capacity(SPARE),
            grantee,
            staged_extras: 0,
            published_extras: 0,
        }
    }

    /// A frame to write a packet into.
    #[inline]
    pub(super) fn frame(&mut self, pool: &FramePool) -> Option<Frame> {
        self.spare.pop().or_else(|| pool.take())
    }

    /// How many fragments a packet may have now, an extra besides them included.
    #[inline]
    pub(super) fn room(&self) -> usize {
        (self.ring.free() as usize).saturating_sub(1).min(self.references.len())
    }

    /// Slots that the backend has not answered.
    pub(super) fn outstanding(&self) -> u32 {
        self.ring.outstanding()
    }

    /// Puts a packet on the ring. The caller has checked its shape and that there is room.
    #[inline]
    pub(super) fn send(&mut self, packet: TxPacket, size: u16, stats: &mut Stats) {
        let meta = packet.meta;
        let mut flags = match meta.checksum {
            Checksum::Unknown => 0,
            Checksum::Complete => tx_flags::DATA_VALIDATED,
            Checksum::Blank => tx_flags::CSUM_BLANK | tx_flags::DATA_VALIDATED,
        };
        if meta.gso.is_some() {
            flags |= tx_flags::EXTRA_INFO;
        }
        let fragments = packet.into_fragments();
        let mut left = fragments.len();
        stats.tx_packets += 1;
        stats.tx_bytes += u64::from(size);
        stats.tx_slots += left as u64;
        let mut size = Some(size);
        for buf in fragments {
            left -= 1;
            let more = if left > 0 { tx_flags::MORE_DATA } else { 0 };
            let first = size.is_some();
            self.push(buf, size.take(), flags | more, stats);
            if let Some(gso) = meta.gso.filter(|_| first) {
                self.push_gso(gso);
            }
            flags = 0;
        }
    }

    /// `size` is the whole packet's in its first slot.
    #[inline]
    fn push(&mut self, buf: TxBuf, size: Option<u16>, flags: u16, stats: &mut Stats) {
        let Some(reference) = self.references.pop() else { return };
        let (frame, range) = buf.into_parts();
        // A range in a page: both fit.
        let (offset, len) = (range.start as u16, range.len() as u16);
        let (granted, cleared) = reference.grant(frame, &self.grantee, range);
        stats.grants += 1;
        if cleared > 0 {
            stats.clears += 1;
            stats.cleared_bytes += cleared as u64;
        }
        let gref = granted.number();
        // With a reference there is an id, and room was reserved; a packet dropped here would
        // only be lost, its page revoked.
        if let Ok(id) = self.in_flight.insert(self.ring.next_index(), granted) {
            let request = TxRequest { gref, offset, flags, id, size: size.unwrap_or(len) };
            let _pushed = self.ring.push(request.into());
        }
    }

    #[cold]
    fn push_gso(&mut self, gso: Gso) {
        if self.ring.push(Extra::from_gso(gso).into()).is_ok() {
            self.staged_extras += 1;
        }
    }

    /// Shows the backend what has been sent.
    #[inline]
    pub(super) fn publish(&mut self) -> Notify {
        self.published_extras += core::mem::take(&mut self.staged_extras);
        self.ring.publish()
    }

    /// Takes back the pages that the backend is done with; returns how many slots it answered.
    pub(super) fn complete(
        &mut self,
        quarantine: &mut Quarantine,
        stats: &mut Stats,
    ) -> Result<usize, Fault> {
        let answered = self.ring.refresh()?;
        let published = self.ring.published();
        while let Some((_, response)) = self.ring.pop() {
            // Status first: of a NULL response nothing else means anything.
            let status = Status::from_number(response.status);
            if status != Status::Okay && !self.complete_unusual(status, stats)? {
                continue;
            }
            let granted = match self.in_flight.complete(response.id, published) {
                Ok(granted) => granted,
                Err(fault) => return Err(self.ring.poison(fault).into()),
            };
            stats.tx_completed += 1;
            self.take_back(granted, quarantine, stats);
        }
        Ok(answered as usize)
    }

    /// Whether the response is to a request of its own.
    #[cold]
    fn complete_unusual(&mut self, status: Status, stats: &mut Stats) -> Result<bool, Fault> {
        match status {
            Status::Null => {
                self.published_extras =
                    self.published_extras.checked_sub(1).ok_or(Fault::UnexpectedNull)?;
                return Ok(false);
            }
            Status::Error => stats.tx_drops.backend_error += 1,
            Status::Dropped => stats.tx_drops.backend_dropped += 1,
            Status::Okay => {}
        }
        Ok(true)
    }

    #[inline]
    fn take_back(
        &mut self,
        granted: Granted<ReadOnly>,
        quarantine: &mut Quarantine,
        stats: &mut Stats,
    ) {
        match granted.revoke() {
            Ok((frame, reference)) => {
                stats.revokes += 1;
                self.references.push(reference);
                if self.spare.len() < SPARE {
                    self.spare.push(frame);
                }
            }
            Err(still) => {
                stats.quarantined += 1;
                quarantine.admit(still);
            }
        }
    }

    /// Asks for an event when half of what is outstanding has been answered; true if it has been
    /// already. Waking for every packet sent would be a waste: nobody waits for its page.
    pub(super) fn arm(&mut self) -> Result<bool, Fault> {
        let outstanding = self.ring.outstanding();
        Ok(self.ring.arm(outstanding / 2 + 1)?)
    }

    /// Ends the queue: every grant is revoked or quarantined. Returns the references that are
    /// free again.
    pub(super) fn dismantle(
        mut self,
        quarantine: &mut Quarantine,
        stats: &mut Stats,
    ) -> Vec<Reference> {
        stats.tx_drops.disconnected += self.in_flight.len() as u64;
        let mut in_flight = core::mem::take(&mut self.in_flight);
        for granted in in_flight.drain() {
            self.take_back(granted, quarantine, stats);
        }
        super::connect::end_ring(self.ring.into_page().0, &mut self.references, quarantine, stats);
        self.references
    }
}
