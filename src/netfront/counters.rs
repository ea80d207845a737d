//! What the frontend counts.

use packet_views::device::SendErrorKind;

/// What is wrong with a received packet: each has its counter in [`RxDrops`].
// (A word wide, so that a result of the packet path tells its kind by one compare.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(super) enum RxDrop {
    BackendError,
    BadExtent,
    TooManySlots,
    Truncated,
    BadExtra,
    Runt,
    TooLong,
    StillInUse,
}

/// Received packets that were not handed up, by what was wrong with them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RxDrops {
    /// The backend reported an error for a slot.
    pub backend_error: u64,
    /// A slot's bytes do not lie within its page.
    pub bad_extent: u64,
    /// More than 18 slots.
    pub too_many_slots: u64,
    /// The chain ends before it says so.
    pub truncated: u64,
    /// An extra of a kind nobody asked for, or a GSO extra that makes no sense.
    pub bad_extra: u64,
    /// Shorter than an Ethernet header.
    pub runt: u64,
    /// Longer than [`MAX_FRAME`](packet_views::buffer::MAX_FRAME).
    pub too_long: u64,
    /// The backend still used a page that it had announced as filled.
    pub still_in_use: u64,
    /// Filled and not looked at when the device was disconnected (slots).
    pub disconnected: u64,
}

impl RxDrops {
    #[cold]
    pub(super) fn counter(&mut self, why: RxDrop) -> &mut u64 {
        match why {
            RxDrop::BackendError => &mut self.backend_error,
            RxDrop::BadExtent => &mut self.bad_extent,
            RxDrop::TooManySlots => &mut self.too_many_slots,
            RxDrop::Truncated => &mut self.truncated,
            RxDrop::BadExtra => &mut self.bad_extra,
            RxDrop::Runt => &mut self.runt,
            RxDrop::TooLong => &mut self.too_long,
            RxDrop::StillInUse => &mut self.still_in_use,
        }
    }

    /// All of them.
    pub fn total(&self) -> u64 {
        let RxDrops {
            backend_error,
            bad_extent,
            too_many_slots,
            truncated,
            bad_extra,
            runt,
            too_long,
            still_in_use,
            disconnected,
        } = *self;
        let malformed = bad_extent + too_many_slots + truncated + bad_extra + runt + too_long;
        backend_error + malformed + still_in_use + disconnected
    }
}

/// Packets that were to be sent and were not, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TxDrops {
    /// Shorter than an Ethernet header, or longer than the MTU allows.
    pub bad_length: u64,
    /// A blank checksum that can't be filled in: the headers make no sense.
    pub bad_checksum: u64,
    /// More fragments than were reserved, or several although the backend takes only one.
    pub too_many_slots: u64,
    /// GSO that the backend does not take, or whose headers make no sense.
    pub no_gso: u64,
    /// Something had to be done in software, and the pool had no frame for it.
    pub no_frame: u64,
    /// The backend answered with an error (slots).
    pub backend_error: u64,
    /// The backend answered that it had dropped it (slots).
    pub backend_dropped: u64,
    /// In flight when the device was disconnected (slots).
    pub disconnected: u64,
}

impl TxDrops {
    fn counter(&mut self, why: SendErrorKind) -> &mut u64 {
        match why {
            SendErrorKind::TooShort | SendErrorKind::TooLong => &mut self.bad_length,
            SendErrorKind::TooManyFragments => &mut self.too_many_slots,
            SendErrorKind::Checksum(_) => &mut self.bad_checksum,
            SendErrorKind::NoMemory => &mut self.no_frame,
            // `Gso`, `NoGso`, and what a peer may not take some day.
            _ => &mut self.no_gso,
        }
    }

    /// All of them.
    pub fn total(&self) -> u64 {
        let TxDrops {
            bad_length,
            bad_checksum,
            too_many_slots,
            no_gso,
            no_frame,
            backend_error,
            backend_dropped,
            disconnected,
        } = *self;
        bad_length
            + bad_checksum
            + too_many_slots
            + no_gso
            + no_frame
            + backend_error
            + backend_dropped
            + disconnected
    }
}

/// A frontend's counters, from its opening on; reconnecting does not reset them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Packets handed up.
    pub rx_packets: u64,
    /// Their bytes.
    pub rx_bytes: u64,
    /// Slots consumed on the receive ring, of good and of bad packets.
    pub rx_slots: u64,
    /// Received packets dropped.
    pub rx_drops: RxDrops,
    /// Packets put on the transmit ring.
    pub tx_packets: u64,
    /// Their bytes.
    pub tx_bytes: u64,
    /// Slots put on the transmit ring.
    pub tx_slots: u64,
    /// Transmit slots answered.
    pub tx_completed: u64,
    /// Packets, or slots, not sent.
    pub tx_drops: TxDrops,
    /// Large packets handed up whole.
    pub rx_gso: u64,
    /// Of these, some whose checksum was not blank as it should be, and was made so.
    pub rx_made_blank: u64,
    /// Large packets sent whole.
    pub tx_gso: u64,
    /// Packets sent with a blank checksum.
    pub tx_blank: u64,
    /// Blank checksums that the backend does not take, filled in before sending.
    pub tx_filled: u64,
    /// Large packets that the backend does not take, cut into segments before sending.
    pub tx_cut: u64,
    /// Packets of several fragments put into one page for a backend that takes no more.
    pub tx_gathered: u64,
    /// Pages granted. Each was revoked, is granted now, or is in quarantine.
    pub grants: u64,
    /// Grants ended.
    pub revokes: u64,
    /// Revokes that failed because the backend used the page; it went to quarantine.
    pub quarantined: u64,
    /// Grants for which something had to be cleared first.
    pub clears: u64,
    /// Bytes cleared.
    pub cleared_bytes: u64,
    /// Payload bytes that this driver copied: cutting and gathering packets for a backend that
    /// takes less. The adaptors above it count what they copy.
    pub copied_bytes: u64,
    /// Events sent to the backend: the only hypercalls on the packet path.
    pub events_sent: u64,
    /// Times that a receive slot stayed empty because the pool had no frame.
    pub no_frame: u64,
    /// Times that the device got connected.
    pub connects: u64,
    /// Times that the domain has been resumed, here or on another machine.
    pub resumes: u64,
    /// Times that the backend broke a rule, after each of which the device reconnects.
    pub faults: u64,
    /// Times that the backend used so many pages after it had answered that the largest packet found no
    /// room any more, after each of which the device reconnects.
    pub crippled: u64,
    /// Times that the backend left transmitted packets unanswered for so long, 10 s or what is slow for
    /// it, that the device reconnects.
    pub stalls: u64,
}

impl Counters {
    /// A packet is not sent, for this reason.
    #[cold]
    pub(super) fn unsent(&mut self, why: SendErrorKind) -> SendErrorKind {
        *self.tx_drops.counter(why) += 1;
        why
    }

    #[cold]
    pub(super) fn cleared(&mut self, bytes: usize) {
        self.clears += 1;
        self.cleared_bytes += bytes as u64;
    }
}
