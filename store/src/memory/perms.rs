//! Who may do what to a node.

use alloc::vec::Vec;

/// What somebody may do to a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// Read it and list its children.
    pub read: bool,
    /// Write and remove it, and make children.
    pub write: bool,
}

impl Access {
    /// Nothing.
    pub const NONE: Access = Access { read: false, write: false };
    /// Reading only.
    pub const READ: Access = Access { read: true, write: false };
    /// Both.
    pub const BOTH: Access = Access { read: true, write: true };
}

/// A node's owner and permissions. The owner may do anything, and so may domain 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Perms {
    /// Whose node it is, also for the quota.
    pub owner: u16,
    /// What everybody else may do.
    pub others: Access,
    /// What these domains may do instead.
    pub grants: Vec<(u16, Access)>,
}

impl Perms {
    /// Owned by this domain, closed to others.
    pub fn of(owner: u16) -> Perms {
        Perms { owner, others: Access::NONE, grants: Vec::new() }
    }

    /// And this one may do that.
    #[must_use]
    pub fn with(mut self, domain: u16, access: Access) -> Perms {
        self.grants.push((domain, access));
        self
    }

    pub(super) fn of_domain(&self, domain: u16) -> Access {
        if domain == 0 || domain == self.owner {
            return Access::BOTH;
        }
        self.grants.iter().find(|(other, _)| *other == domain).map_or(self.others, |grant| grant.1)
    }
}
