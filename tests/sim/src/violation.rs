//! What a domain did that no correct driver does.

use core::fmt;

use xen_grant::{DomId, Gfn};

/// A broken rule that the simulated host noticed. Tests assert that there are none
/// ([`Host::violations`](crate::Host::violations)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// A page was freed while a grant entry still permitted access to it.
    FreedWhileGranted {
        /// Who freed it.
        domain: DomId,
        /// Which page.
        gfn: Gfn,
        /// The grant reference.
        gref: u32,
    },
    /// A page was freed while a peer had it mapped or was copying.
    FreedWhileInUse {
        /// Who freed it.
        domain: DomId,
        /// Which page.
        gfn: Gfn,
        /// The grant reference.
        gref: u32,
    },
    /// A page was freed that is not allocated: freed twice, or never allocated.
    FreedUnknown {
        /// Who freed it.
        domain: DomId,
        /// Which page.
        gfn: Gfn,
    },
    /// Page and frame number of a freed page do not belong together.
    FreedMismatch {
        /// Who freed it.
        domain: DomId,
        /// Which page.
        gfn: Gfn,
    },
    /// A mapping was ended that does not exist, or with another address than it has.
    UnmappedUnknown {
        /// Who ended it.
        domain: DomId,
        /// The handle.
        handle: u32,
    },
    /// A grant frame was asked for out of order or twice.
    GrantFrameOrder {
        /// Who asked.
        domain: DomId,
        /// Which frame.
        index: u32,
    },
    /// One of the reserved grant entries 0 to 7 was changed.
    ReservedEntry {
        /// Whose table.
        domain: DomId,
        /// Which entry.
        gref: u32,
    },
    /// An entry was cleared or reused while a peer had the page mapped or was copying.
    EntryLostInUse {
        /// Whose table.
        domain: DomId,
        /// Which entry.
        gref: u32,
    },
}

impl Violation {
    /// Who broke the rule.
    pub fn domain(&self) -> DomId {
        match *self {
            Violation::FreedWhileGranted { domain, .. }
            | Violation::FreedWhileInUse { domain, .. }
            | Violation::FreedUnknown { domain, .. }
            | Violation::FreedMismatch { domain, .. }
            | Violation::UnmappedUnknown { domain, .. }
            | Violation::GrantFrameOrder { domain, .. }
            | Violation::ReservedEntry { domain, .. }
            | Violation::EntryLostInUse { domain, .. } => domain,
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Violation::FreedWhileGranted { domain, gfn, gref } => {
                write!(f, "domain {} freed page {:#x} that is granted by {gref}", domain.0, gfn.0)
            }
            Violation::FreedWhileInUse { domain, gfn, gref } => {
                write!(f, "domain {} freed page {:#x} in use through {gref}", domain.0, gfn.0)
            }
            Violation::FreedUnknown { domain, gfn } => {
                write!(f, "domain {} freed page {:#x} that it does not have", domain.0, gfn.0)
            }
            Violation::FreedMismatch { domain, gfn } => {
                write!(f, "domain {} freed page {:#x} by another page's address", domain.0, gfn.0)
            }
            Violation::UnmappedUnknown { domain, handle } => {
                write!(f, "domain {} unmapped {handle} that it has not mapped", domain.0)
            }
            Violation::GrantFrameOrder { domain, index } => {
                write!(f, "domain {} asked for grant frame {index} out of order", domain.0)
            }
            Violation::ReservedEntry { domain, gref } => {
                write!(f, "domain {} changed reserved grant entry {gref}", domain.0)
            }
            Violation::EntryLostInUse { domain, gref } => {
                write!(f, "domain {} overwrote grant entry {gref} while it was in use", domain.0)
            }
        }
    }
}
