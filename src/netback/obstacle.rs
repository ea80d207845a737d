//! What keeps a client from being connected.

use alloc::collections::TryReserveError;

use xen_grant::GrantStatus;

use super::fault::Fault;
use crate::platform::EventError;

/// Why a client could not be connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Obstacle {
    Incomplete,
    NoCopy,
    Map(GrantStatus),
    Bind(EventError),
    /// The heap has no memory for its queues.
    NoMemory,
    Fault(Fault),
}

/// `EINVAL` (xen/errno.h): the port is not one that the client has allocated for us.
const EINVAL: i32 = 22;

/// How often is tried what may be the client's fault or not.
const TRIES: u32 = 5;

impl Obstacle {
    /// Whether it may be gone the next time, after so many tries: for want of something, or because the
    /// hypervisor is busy. If not the client has broken a rule.
    pub(super) fn passes(&self, tries: u32) -> bool {
        match self {
            Obstacle::Incomplete | Obstacle::NoCopy | Obstacle::Fault(_) => false,
            Obstacle::Map(status) => match *status {
                GrantStatus::BAD_GNTREF
                | GrantStatus::PERMISSION_DENIED
                | GrantStatus::BAD_PAGE
                | GrantStatus::ADDRESS_TOO_BIG => false,
                // A reference that is not for us, or only to be read; and a page that can't be had now.
                GrantStatus::GENERAL_ERROR => tries < TRIES,
                _ => true,
            },
            Obstacle::Bind(error) => error.0 != EINVAL,
            Obstacle::NoMemory => true,
        }
    }
}

impl From<GrantStatus> for Obstacle {
    fn from(status: GrantStatus) -> Obstacle {
        Obstacle::Map(status)
    }
}

impl From<TryReserveError> for Obstacle {
    fn from(_: TryReserveError) -> Obstacle {
        Obstacle::NoMemory
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
            Obstacle::Map(status) => write!(f, "a ring page can't be mapped: {status}"),
            Obstacle::Bind(error) => write!(f, "an event channel can't be bound: {error}"),
            Obstacle::NoMemory => f.write_str("no memory for its queues"),
            Obstacle::Fault(fault) => fault.fmt(f),
        }
    }
}
