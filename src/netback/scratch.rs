//! Working space of the packet path, between a batch's beginning and its end. Nothing of a client's is in
//! it when a call returns, so one serves all vifs that a loop drives.

use alloc::boxed::Box;
use alloc::collections::TryReserveError;

use super::{from_client, to_client};

/// Working space of the packet path: what a batch is about while it is copied.
///
/// It takes its memory with the first client that is connected, some 40 KB, and no more after that.
pub(super) struct Scratch {
    /// `None` while packets are handed up: whoever takes them may do anything but take more.
    pub(super) from: Option<Box<from_client::Scratch>>,
    pub(super) to: to_client::Scratch,
}

impl Scratch {
    /// Without memory.
    pub(super) fn new() -> Scratch {
        let from = Some(Box::new(from_client::Scratch::new()));
        Scratch { from, to: to_client::Scratch::new() }
    }

    /// Sees to it that there is memory for a batch. Until then no client is connected.
    pub(super) fn reserve(&mut self) -> Result<(), TryReserveError> {
        // Where packets are handed up, there is memory for it.
        self.from.as_mut().map_or(Ok(()), |from| from.reserve())?;
        self.to.reserve()
    }
}
