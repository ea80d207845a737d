//! What keeps a client from being connected.

use xen_grant::GrantStatus;

use super::fault::Fault;
use crate::platform::EventError;
use xen_store::StoreError;

/// Why a client could not be connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Obstacle {
    Incomplete,
    NoCopy,
    Store(StoreError),
    Map(GrantStatus),
    Bind(EventError),
    Fault(Fault),
}

impl From<GrantStatus> for Obstacle {
    fn from(status: GrantStatus) -> Obstacle {
        Obstacle::Map(status)
    }
}

impl From<EventError> for Obstacle {
    fn from(error: EventError) -> Obstacle {
        Obstacle::Bind(error)
    }
}

impl From<Fault> for Obstacle {
    fn from(fault: Fault) -> Obstacle {
        Obstacle::Fault(fault)
    }
}

impl core::fmt::Display for Obstacle {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Obstacle::Incomplete => f.write_str("rings or event channels are missing"),
            Obstacle::NoCopy => f.write_str("request-rx-copy is not set"),
            Obstacle::Store(error) => error.fmt(f),
            Obstacle::Map(status) => write!(f, "a ring page can't be mapped: {status}"),
            Obstacle::Bind(error) => write!(f, "an event channel can't be bound: {error}"),
            Obstacle::Fault(fault) => fault.fmt(f),
        }
    }
}
