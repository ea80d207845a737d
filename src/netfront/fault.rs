//! How a backend can break the rules.

use xen_ring::PeerFault;

/// A rule of netif that the backend broke. The device disconnects and connects anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// A rule of rings.
    Ring(PeerFault),
    /// A NULL response where no extra was outstanding.
    UnexpectedNull,
    /// A receive response that is not to the request in its slot.
    WrongRxId {
        /// The id of the request in that slot.
        expected: u16,
        /// The id in the response.
        got: u16,
    },
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
            Fault::UnexpectedNull => {
                f.write_str("a NULL transmit response, and no extra info is outstanding")
            }
            Fault::WrongRxId { expected, got } => {
                write!(f, "a receive response with id {got} in the slot of request {expected}")
            }
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
