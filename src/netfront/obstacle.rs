//! What keeps a device from connecting.

use crate::platform::EventError;
use xen_store::StoreError;

/// Why a device does not connect though the backend is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Obstacle {
    /// The toolstack has given the vif no hardware address of one station: its `mac` node is missing
    /// or no such address.
    NoMac,
    /// The backend still uses too many pages of earlier connections.
    Quarantine {
        /// How many.
        pages: usize,
    },
    /// The pool has no pages for the rings, or too few to receive the largest packet: the layers above
    /// hold them, or backends that don't let go of them.
    NoPages,
    /// The grant table has too few references.
    NoReferences {
        /// So many are needed.
        wanted: usize,
        /// So many are there.
        free: usize,
    },
    /// The hypervisor gives no event channel.
    NoEventChannel(EventError),
    /// What was to be published could not be written.
    Store(StoreError),
}

impl core::fmt::Display for Obstacle {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Obstacle::NoMac => f.write_str("its mac node is missing or not a unicast address"),
            Obstacle::Quarantine { pages } => {
                write!(f, "the backend still uses {pages} pages of earlier connections")
            }
            Obstacle::NoPages => f.write_str("the frame pool has too few pages left"),
            Obstacle::NoReferences { wanted, free } => {
                write!(f, "{wanted} grant references are needed and {free} free")
            }
            Obstacle::NoEventChannel(error) => error.fmt(f),
            Obstacle::Store(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for Obstacle {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            // They say what the error in them says.
            Obstacle::NoEventChannel(error) => error.source(),
            Obstacle::Store(error) => error.source(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    #[test]
    fn each_says_what_is_wanting() {
        let cases = [
            (Obstacle::NoMac, "its mac node is missing or not a unicast address"),
            (
                Obstacle::Quarantine { pages: 129 },
                "the backend still uses 129 pages of earlier connections",
            ),
            (Obstacle::NoPages, "the frame pool has too few pages left"),
            (
                Obstacle::NoReferences { wanted: 514, free: 77 },
                "514 grant references are needed and 77 free",
            ),
        ];
        for (obstacle, words) in cases {
            assert_eq!(obstacle.to_string(), words);
        }
        let error = EventError(28);
        assert_eq!(Obstacle::NoEventChannel(error).to_string(), error.to_string());
        assert_eq!(Obstacle::Store(StoreError::Quota).to_string(), StoreError::Quota.to_string());
        assert!(!error.to_string().is_empty() && !StoreError::Quota.to_string().is_empty());
    }
}
