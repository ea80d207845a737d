//! Why a client does not get a packet.

/// Why a packet to the client was dropped at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeliverError {
    /// No client is connected.
    NotConnected,
    /// Shorter than an Ethernet header, longer than 65535 bytes, or more than one page to a
    /// client without scatter-gather.
    BadLength,
    /// GSO or a blank checksum, which this client does not take, on a packet that can't be cut or
    /// summed up here.
    Offload,
    /// The pool has no frame for what has to be written: headers of segments, a checksum.
    NoFrame,
    /// The queue is full.
    QueueFull,
    /// The client has posted no pages for too long.
    Stalled,
}

impl core::fmt::Display for DeliverError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            DeliverError::NotConnected => "no client is connected",
            DeliverError::BadLength => "the client takes no packet of this length",
            DeliverError::Offload => {
                "the client does not support this offload, and it can't be done in software"
            }
            DeliverError::NoFrame => "the frame pool is empty",
            DeliverError::QueueFull => "the client's queue is full",
            DeliverError::Stalled => "the client posts no receive requests",
        })
    }
}

impl core::error::Error for DeliverError {}
