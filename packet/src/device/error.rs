//! Why a device does not send.

#[cfg(doc)]
use super::NetDevice;
use crate::header::checksum::ChecksumError;
use crate::offload::GsoError;

/// Why a packet was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendError<P> {
    /// No room now, or the link is down: here it is again. Try when the device has made progress.
    Full(P),
    /// It can't be sent, and is gone and counted.
    Refused(SendErrorKind),
}

impl<P> SendError<P> {
    /// The packet, if it can be sent later.
    pub fn into_packet(self) -> Option<P> {
        match self {
            SendError::Full(packet) => Some(packet),
            SendError::Refused(_) => None,
        }
    }

    /// The same, of a packet of another kind.
    pub fn map_into<Q: From<P>>(self) -> SendError<Q> {
        match self {
            SendError::Full(packet) => SendError::Full(packet.into()),
            SendError::Refused(why) => SendError::Refused(why),
        }
    }

    /// Why the packet is gone, if it is.
    pub fn why(&self) -> Option<SendErrorKind> {
        match self {
            SendError::Full(_) => None,
            SendError::Refused(why) => Some(*why),
        }
    }
}

impl<P> From<SendErrorKind> for SendError<P> {
    #[inline]
    fn from(why: SendErrorKind) -> SendError<P> {
        SendError::Refused(why)
    }
}

impl<P> core::fmt::Display for SendError<P> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            SendError::Full(_) => f.write_str("no room to transmit now, or the link is down"),
            SendError::Refused(why) => why.fmt(f),
        }
    }
}

impl<P: core::fmt::Debug> core::error::Error for SendError<P> {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            SendError::Full(_) => None,
            // It says what the reason says.
            SendError::Refused(why) => why.source(),
        }
    }
}

/// Why a device can't send a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SendErrorKind {
    /// Shorter than an Ethernet header.
    TooShort,
    /// Longer than the MTU allows and not to be cut, or to be cut into segments that are.
    TooLong,
    /// More fragments than the peer takes and a page holds.
    TooManyFragments,
    /// Its checksum is blank, and can't be filled in.
    Checksum(ChecksumError),
    /// It is to be cut, and can't be.
    Gso(GsoError),
    /// The peer does not cut it, and what was reserved has no room for its segments:
    /// [`NetDevice::send`] has.
    NoGso,
    /// Something had to be done in software, and there was no memory for it. Of a large packet
    /// some segments may have been sent.
    NoMemory,
}

impl core::fmt::Display for SendErrorKind {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            SendErrorKind::TooShort => "shorter than an Ethernet header",
            SendErrorKind::TooLong => "longer than the MTU allows",
            SendErrorKind::TooManyFragments => "too many fragments",
            SendErrorKind::Checksum(_) => "the blank checksum can't be filled in",
            SendErrorKind::Gso(_) => "the packet can't be cut",
            SendErrorKind::NoGso => "the peer takes no such large packet",
            SendErrorKind::NoMemory => "no memory for what the peer does not do",
        })
    }
}

impl core::error::Error for SendErrorKind {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            SendErrorKind::Checksum(why) => Some(why),
            SendErrorKind::Gso(why) => Some(why),
            _ => None,
        }
    }
}

/// Why [`NetDevice::write`] did not send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WriteError {
    /// `size` is more than the device sends at once.
    TooLong,
    /// No room now, or the link is down: try again when the device has made progress.
    Full,
    /// No free block now.
    NoMemory,
    /// `fill` returned more than `size`, or less than an Ethernet header.
    BadLength,
}

impl core::fmt::Display for WriteError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            WriteError::TooLong => "the frame is longer than the MTU allows",
            WriteError::Full => "no room to transmit now, or the link is down",
            WriteError::NoMemory => "no free block",
            WriteError::BadLength => "the length filled in is not that of a frame",
        })
    }
}

impl core::error::Error for WriteError {}

impl<P> From<SendError<P>> for WriteError {
    #[inline]
    fn from(error: SendError<P>) -> WriteError {
        match error {
            SendError::Full(_) => WriteError::Full,
            SendError::Refused(SendErrorKind::NoMemory) => WriteError::NoMemory,
            SendError::Refused(SendErrorKind::TooShort) => WriteError::BadLength,
            // What is written is a plain frame, so it is its length.
            SendError::Refused(_) => WriteError::TooLong,
        }
    }
}
