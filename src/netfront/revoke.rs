//! How the backend's access to a page ends: it has let go of it, or the page goes to quarantine.

use alloc::vec::Vec;

use xen_grant::{Access, Frame, GrantedPage, Quarantine, Reference, StillInUse};

use super::counters::Counters;

/// What has come of a revoke: the page and its reference, or `None` if the backend still uses it.
#[inline]
pub(super) fn settle<A: Access>(
    revoked: Result<(Frame, Reference), StillInUse<A>>,
    quarantine: &mut Quarantine,
    counters: &mut Counters,
) -> Option<(Frame, Reference)> {
    match revoked {
        Ok(ours) => Some(ours),
        Err(still) => {
            counters.quarantined += 1;
            quarantine.admit(still);
            None
        }
    }
}

/// Ends the sharing of a ring's page; its reference is free again unless the backend still maps it.
pub(super) fn end_ring(
    page: GrantedPage,
    references: &mut Vec<Reference>,
    quarantine: &mut Quarantine,
    counters: &mut Counters,
) {
    if let Some((_frame, reference)) = settle(page.revoke(), quarantine, counters) {
        counters.revokes += 1;
        references.push(reference);
    }
}
