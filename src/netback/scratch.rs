//! Working space of the packet path, between a batch's beginning and its end. Nothing of a client's is in
//! it when a call returns, so one serves all vifs that a loop drives.

use alloc::collections::TryReserveError;

use super::{from_client, to_client};

/// Working space of the packet path: what a batch is about while it is copied.
///
/// It takes its memory with the first client that is connected, some 40 KB, and no more after that.
pub(super) struct Scratch {
    pub(super) from: from_client::Scratch,
    pub(super) to: to_client::Scratch,
}

impl Scratch {
    /// Without memory.
    pub(super) fn new() -> Scratch {
        Scratch { from: from_client::Scratch::new(), to: to_client::Scratch::new() }
    }

    /// Sees to it that there is memory for a batch. Until then no client is connected.
    pub(super) fn reserve(&mut self) -> Result<(), TryReserveError> {
        self.from.reserve()?;
        self.to.reserve()
    }
}
