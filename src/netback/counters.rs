//! What the backend counts.

use super::error::DeliverErrorKind;

/// Why a packet of the client's is not handed up: each has its counter in [`FromClientDrops`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FromClientDrop {
    Runt,
    TooManySlots,
    Sizes,
    Multicast,
    ScatterGather,
    Gso,
    GsoHeaders,
    CopyFailed,
    NoFrame,
}

/// Packets from the client that were not handed up, by reason. Each costs the client, nobody else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FromClientDrops {
    /// Shorter than an Ethernet header.
    pub runt: u64,
    /// More than 18 data slots.
    pub too_many_slots: u64,
    /// Later slots have more bytes than the first says there are in all.
    pub sizes: u64,
    /// Asks for a multicast address, which was not offered.
    pub multicast: u64,
    /// More than one data slot, though scatter-gather was not offered.
    pub scatter_gather: u64,
    /// GSO of a kind that was not offered.
    pub gso: u64,
    /// GSO, with headers that are not those of its kind, or with wrong lengths in them.
    pub gso_headers: u64,
    /// The hypervisor could not copy it: a bad reference, or a page the client took away.
    pub copy_failed: u64,
    /// The frame pool was empty.
    pub no_frame: u64,
}

impl FromClientDrops {
    /// All of them.
    pub fn total(&self) -> u64 {
        let FromClientDrops {
            runt,
            too_many_slots,
            sizes,
            multicast,
            scatter_gather,
            gso,
            gso_headers,
            copy_failed,
            no_frame,
        } = *self;
        let refused =
            runt + too_many_slots + sizes + multicast + scatter_gather + gso + gso_headers;
        refused + copy_failed + no_frame
    }

    #[cold]
    pub(super) fn counter(&mut self, why: FromClientDrop) -> &mut u64 {
        match why {
            FromClientDrop::Runt => &mut self.runt,
            FromClientDrop::TooManySlots => &mut self.too_many_slots,
            FromClientDrop::Sizes => &mut self.sizes,
            FromClientDrop::Multicast => &mut self.multicast,
            FromClientDrop::ScatterGather => &mut self.scatter_gather,
            FromClientDrop::Gso => &mut self.gso,
            FromClientDrop::GsoHeaders => &mut self.gso_headers,
            FromClientDrop::CopyFailed => &mut self.copy_failed,
            FromClientDrop::NoFrame => &mut self.no_frame,
        }
    }
}

/// Packets to the client that it did not get, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ToClientDrops {
    /// No client is connected.
    pub not_connected: u64,
    /// Shorter than an Ethernet header, longer than 65535 bytes or than the MTU that the toolstack gave, or
    /// more than one page to a client without scatter-gather.
    pub bad_length: u64,
    /// GSO or a blank checksum, which this client does not take, on a packet that can't be cut or
    /// summed up here.
    pub offload: u64,
    /// The frame pool was empty, and headers of segments or a checksum had to be written.
    pub no_frame: u64,
    /// The heap had no memory for a longer queue.
    pub no_memory: u64,
    /// Segments of packets that are cut into more than the queue ever holds; and with [`Clients`](super::Clients),
    /// what a client is sent back while its packets are handed up, and finds no room.
    pub queue_full: u64,
    /// The client posted no pages for too long: what was queued then, and what came until it
    /// posted some.
    pub stalled: u64,
    /// The hypervisor could not copy it: a bad reference, or a page the client took away.
    pub copy_failed: u64,
    /// Queued when the client was disconnected.
    pub disconnected: u64,
}

impl ToClientDrops {
    /// All of them.
    pub fn total(&self) -> u64 {
        let ToClientDrops {
            not_connected,
            bad_length,
            offload,
            no_frame,
            no_memory,
            queue_full,
            stalled,
            copy_failed,
            disconnected,
        } = *self;
        let refused = not_connected + bad_length + offload + no_frame + no_memory;
        refused + queue_full + stalled + copy_failed + disconnected
    }

    #[cold]
    pub(super) fn counter(&mut self, why: DeliverErrorKind) -> &mut u64 {
        match why {
            DeliverErrorKind::NotConnected => &mut self.not_connected,
            DeliverErrorKind::BadLength => &mut self.bad_length,
            DeliverErrorKind::Offload => &mut self.offload,
            DeliverErrorKind::NoFrame => &mut self.no_frame,
            DeliverErrorKind::NoMemory => &mut self.no_memory,
            DeliverErrorKind::QueueFull => &mut self.queue_full,
            DeliverErrorKind::Stalled => &mut self.stalled,
        }
    }
}

/// A backend's counters, from its opening on; a client that reconnects does not reset them.
///
/// "Copies" are the hypervisor's, one from the client and one to it. This driver itself moves
/// payload bytes only where a checksum is to be filled in that somebody else reads too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Packets handed up.
    pub from_packets: u64,
    /// Their bytes.
    pub from_bytes: u64,
    /// Slots consumed on the client's transmit ring, of good and of bad packets, extras included.
    pub from_slots: u64,
    /// Packets from the client that were dropped.
    pub from_drops: FromClientDrops,
    /// Packets that the client got.
    pub to_packets: u64,
    /// Their bytes.
    pub to_bytes: u64,
    /// Slots consumed on the client's receive ring, of good and of bad packets, extras included.
    pub to_slots: u64,
    /// Packets to the client that were dropped.
    pub to_drops: ToClientDrops,
    /// Packets to the client that were given back, for there was no room for them: whoever has one tries
    /// again, or drops it.
    pub to_given_back: u64,
    /// The most packets that waited for the client at any [`flush`](super::Netback::flush).
    pub queue_high_water: u64,
    /// Hypercalls that copied.
    pub copy_hypercalls: u64,
    /// Copy operations in them.
    pub copy_ops: u64,
    /// Copy operations that failed, each noticed by its own status.
    pub copy_failures: u64,
    /// Payload bytes that the hypervisor was asked to copy.
    pub hypervisor_copied_bytes: u64,
    /// Payload bytes that this driver copied: the first fragments of packets whose checksum was
    /// filled in while others read them.
    pub copied_bytes: u64,
    /// GSO packets that came without a blank checksum, as all of them should have.
    pub gso_not_blank: u64,
    /// Packets whose checksum was filled in because the client takes no blank ones.
    pub sums_filled: u64,
    /// GSO packets cut because the client takes none of their kind.
    pub cut: u64,
    /// Segments that they were cut into, whether the queue had room or not.
    pub segments: u64,
    /// Events sent to the client.
    pub events_sent: u64,
    /// Pages of the client that were mapped, two for each queue of each connection. As many were unmapped if no
    /// client is connected.
    pub maps: u64,
    /// Times that a client got connected.
    pub connects: u64,
    /// Times that a client broke a rule, after each of which its vif is shut.
    pub faults: u64,
    /// Times that the client posted no pages for too long.
    pub stalls: u64,
}

impl Counters {
    /// A packet is not delivered, for this reason.
    #[cold]
    #[inline(never)]
    pub(super) fn undelivered(&mut self, why: DeliverErrorKind) -> DeliverErrorKind {
        *self.to_drops.counter(why) += 1;
        why
    }
}
