//! How a client can break the rules.

use xen_ring::PeerFault;

/// A rule of netif that the client broke so badly that its vif is shut. What is merely wrong with
/// one packet drops that packet and is counted in [`FromClientDrops`](super::FromClientDrops).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// A rule of rings.
    Ring(PeerFault),
    /// A slot's bytes do not lie within its page.
    CrossesPage {
        /// First byte within the page.
        offset: u16,
        /// Bytes.
        size: u16,
    },
    /// A packet of so many slots that nobody sends it by mistake.
    TooManySlots,
    /// A chain goes on behind the last request that was published.
    CutShort,
    /// An extra of a kind that netif.h does not know.
    UnknownExtra(u8),
    /// A GSO extra with a size of 0, or of an unknown type.
    BadGso,
}

impl From<PeerFault> for Fault {
    fn from(fault: PeerFault) -> Fault {
        Fault::Ring(fault)
    }
}

impl core::fmt::Display for Fault {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Fault::Ring(fault) => fault.fmt(f),
            Fault::CrossesPage { offset, size } => {
                write!(f, "a slot of {size} bytes at offset {offset} crosses the end of its page")
            }
            Fault::TooManySlots => f.write_str("a packet has 20 slots or more"),
            Fault::CutShort => f.write_str("a packet continues past the last published request"),
            Fault::UnknownExtra(kind) => write!(f, "extra info of unknown type {kind}"),
            Fault::BadGso => f.write_str("extra info for GSO with a bad size or type"),
        }
    }
}

impl core::error::Error for Fault {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            // It says what the fault in it says.
            Fault::Ring(fault) => fault.source(),
            _ => None,
        }
    }
}
