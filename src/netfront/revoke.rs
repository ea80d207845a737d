//! How the backend's access to a page ends: it has let go of it, or the page goes to quarantine.

use alloc::vec::Vec;

use xen_grant::{Access, GrantedPage, Quarantine, Reference, StillInUse};

use super::counters::Counters;

/// The backend still uses a page that it should have let go of.
#[inline]
pub(super) fn admit<A: Access>(
    still: StillInUse<A>,
    quarantine: &mut Quarantine,
    counters: &mut Counters,
) {
    counters.quarantined += 1;
    quarantine.admit(still);
}

/// Ends the sharing of a ring's page; its reference is free again unless the backend still maps it.
pub(super) fn end_ring(
    page: GrantedPage,
    references: &mut Vec<Reference>,
    quarantine: &mut Quarantine,
    counters: &mut Counters,
) {
    match page.revoke() {
        Ok((_frame, reference)) => {
            counters.revokes += 1;
            references.push(reference);
        }
        Err(still) => admit(still, quarantine, counters),
    }
}
