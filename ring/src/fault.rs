//! How a peer can break the rules of a ring.

/// A rule that the peer broke. The ring is of no use any more: disconnect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PeerFault {
    /// The peer's producer index lies where it can't have got to.
    IndexOverrun {
        /// The index that the peer published.
        shared: u32,
        /// How far we have consumed.
        consumed: u32,
        /// The most that could have been there for us.
        most: u32,
    },
    /// A response names a request id that does not exist.
    UnknownId(u16),
    /// A response names a request that is not outstanding: never published, or answered already.
    NotOutstanding(u16),
}

impl core::fmt::Display for PeerFault {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            PeerFault::IndexOverrun { shared, consumed, most } => write!(
                f,
                "the peer's producer index {shared} is more than {most} ahead of our {consumed}"
            ),
            PeerFault::UnknownId(id) => {
                write!(f, "a response to request id {id}, which does not exist")
            }
            PeerFault::NotOutstanding(id) => {
                write!(f, "a response to request id {id}, which is not outstanding")
            }
        }
    }
}

impl core::error::Error for PeerFault {}
