//! How much either end has asked of xenstore.

use core::sync::atomic::{AtomicU32, Ordering};

use xen_store::StoreError;
use xen_store::intercept::{Intercept, Intercepted, Request};

/// A store that counts what it is asked.
pub(super) type Metered<S> = Intercepted<S, Meter>;

/// Counts requests.
#[derive(Debug, Default)]
pub(super) struct Meter(AtomicU32);

impl Meter {
    /// Requests so far; wraps.
    pub(super) fn requests(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Intercept for Meter {
    fn before(&self, _: Request<'_>) -> Result<(), StoreError> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}
