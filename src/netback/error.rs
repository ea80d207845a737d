//! Why a client does not get a packet.

use crate::buffer::Packet;

/// Why a packet does not wait for the client.
///
/// The shape of [`SendError`](packet_views::device::SendError): what can be tried again comes back.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "the packet comes back, and nothing is allocated for it"
)]
pub enum DeliverError {
    /// No room now: here it is again. It is not counted as dropped. Try when the client has posted pages.
    Full(Packet),
    /// It can't be delivered, and is gone and counted.
    Refused(DeliverErrorKind),
}

impl DeliverError {
    /// The packet, if it can be delivered later.
    pub fn into_packet(self) -> Option<Packet> {
        match self {
            DeliverError::Full(packet) => Some(packet),
            DeliverError::Refused(_) => None,
        }
    }

    /// Why the packet is gone, if it is.
    pub fn why(&self) -> Option<DeliverErrorKind> {
        match self {
            DeliverError::Full(_) => None,
            DeliverError::Refused(why) => Some(*why),
        }
    }
}

impl From<DeliverErrorKind> for DeliverError {
    #[inline]
    fn from(why: DeliverErrorKind) -> DeliverError {
        DeliverError::Refused(why)
    }
}

impl core::fmt::Display for DeliverError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            DeliverError::Full(_) => f.write_str("the client's queue is full"),
            DeliverError::Refused(why) => why.fmt(f),
        }
    }
}

impl core::error::Error for DeliverError {}

/// Why a packet to the client was dropped at once. Each has its counter in
/// [`ToClientDrops`](super::ToClientDrops).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeliverErrorKind {
    /// No client is connected: nobody can tell when, or whether, one will be.
    NotConnected,
    /// Shorter than an Ethernet header, longer than 65535 bytes or than the MTU that the toolstack gave, or
    /// more than one page to a client without scatter-gather.
    BadLength,
    /// GSO or a blank checksum, which this client does not take, on a packet that can't be cut or
    /// summed up here.
    Offload,
    /// The pool has no frame for what has to be written: headers of segments, a checksum.
    NoFrame,
    /// The heap has no memory for a longer queue.
    NoMemory,
    /// More segments than the queue ever has room for: the first ones wait, the others are dropped.
    QueueFull,
    /// The client has posted no pages for too long.
    Stalled,
}

impl core::fmt::Display for DeliverErrorKind {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            DeliverErrorKind::NotConnected => "no client is connected",
            DeliverErrorKind::BadLength => "the client takes no packet of this length",
            DeliverErrorKind::Offload => {
                "the client does not support this offload, and it can't be done in software"
            }
            DeliverErrorKind::NoFrame => "the frame pool is empty",
            DeliverErrorKind::NoMemory => "no memory for a longer queue",
            DeliverErrorKind::QueueFull => "more segments than the client's queue has room for",
            DeliverErrorKind::Stalled => "the client posts no receive requests",
        })
    }
}

impl core::error::Error for DeliverErrorKind {}
