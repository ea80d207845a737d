//! What xenstored has not been told yet, because it did not answer when it was time to.

use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use super::{Client, Decimal, Transport};
use crate::wire::Type;
use crate::{Changes, StoreError, Transaction};

/// `EEXIST`
pub(super) const EXISTS: StoreError = StoreError::Other(17);
/// The most transactions that are kept to be ended later; xenstored allows a domain 10.
const MAX_ORPHANS: usize = 16;

/// A watch, as far as we know of it.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) token: u32,
    pub(super) path: String,
    /// Of how many names are the places that it remembers.
    pub(super) depth: usize,
    pub(super) fired: Changes,
    /// The watch whose events its own are, and at which place.
    pub(super) part_of: Option<(u32, String)>,
    /// What xenstored has not been told yet.
    pub(super) untold: Option<Untold>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Untold {
    /// It is to be set, again.
    Set,
    /// It is to be removed; for its owner it is gone.
    Remove,
}

impl<T: Transport> Client<T> {
    /// A transaction is to be ended when xenstored answers again.
    pub(super) fn orphan(&mut self, transaction: Transaction) {
        if self.orphans.len() < MAX_ORPHANS {
            self.orphans.push(transaction);
        }
    }

    /// A watch is to be taken away when xenstored answers again.
    pub(super) fn forget(&mut self, token: u32) {
        if let Some(watch) = self.watches.iter_mut().find(|watch| watch.token == token) {
            watch.untold = Some(Untold::Remove);
        }
    }

    /// Tells xenstored one thing that is left over from before, if there is one.
    pub(super) fn tell_next(&mut self, deadline: Duration) -> Result<(), StoreError> {
        if let Some(&orphan) = self.orphans.last() {
            let done = self.exchange(Type::TransactionEnd, Some(orphan), &[b"F\0"], deadline);
            // What can fail is that xenstored does not know it.
            let _ = answered(done)?;
            self.orphans.retain(|other| *other != orphan);
            return Ok(());
        }
        let left = self.watches.iter().find_map(|watch| Some((watch, watch.untold?)));
        let Some((watch, untold)) = left else { return Ok(()) };
        let (token, path) = (watch.token, watch.path.clone());
        let text = Decimal::new(token);
        let parts = [path.as_bytes(), b"\0", text.bytes(), b"\0"];
        match untold {
            Untold::Remove => {
                let _ = answered(self.exchange(Type::Unwatch, None, &parts, deadline))?;
                self.watches.retain(|watch| watch.token != token);
            }
            Untold::Set => {
                let done = answered(self.exchange(Type::Watch, None, &parts, deadline))?;
                if let Err(error) = done
                    && error != EXISTS
                {
                    log::error!("watch on {path} lost after resume: {error}");
                }
                // xenstored has fired it, so that what has changed before is looked at.
                let watch = self.watches.iter_mut().find(|watch| watch.token == token);
                if let Some(watch) = watch {
                    watch.untold = None;
                }
            }
        }
        Ok(())
    }
}

/// What xenstored has said, good or bad; an error if it has said nothing.
fn answered(outcome: Result<Vec<u8>, StoreError>) -> Result<Result<(), StoreError>, StoreError> {
    match outcome {
        Err(error @ (StoreError::TimedOut | StoreError::Disconnected)) => Err(error),
        said => Ok(said.map(drop)),
    }
}
