//! When to look at xenstore: when it has news, when asked to, and again after it has failed.

use core::time::Duration;

use super::backoff::Backoff;
use crate::platform::Instant;
use xen_store::StoreError;

/// How long until a store that failed is asked again, at first and at last.
const RETRY: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(250));

/// How long until one is that had no room for more.
const QUOTA: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Attention {
    look: bool,
    retry_at: Option<Instant>,
    retry: Backoff,
}

impl Attention {
    /// To look at once.
    pub(super) const fn new() -> Attention {
        Attention { look: true, retry_at: None, retry: Backoff::new(RETRY.0, RETRY.1) }
    }

    /// Look at the next opportunity, news or not.
    pub(super) fn ask(&mut self) {
        self.look = true;
    }

    /// Whether there is something to look at.
    pub(super) fn is_asked(&self) -> bool {
        self.look
    }

    /// Whether the store has failed just now, and is to be left alone.
    pub(super) fn rests(&self, now: Instant) -> bool {
        self.retry_at.is_some_and(|at| at > now)
    }

    /// Everything has been looked at.
    pub(super) fn looked(&mut self) {
        self.look = false;
    }

    /// The store did all that it was asked to do.
    pub(super) fn served(&mut self) {
        self.retry_at = None;
        self.retry.reset();
    }

    /// The store failed. Returns how long it is left alone.
    pub(super) fn failed(&mut self, now: Instant, error: StoreError) -> Duration {
        // Quotas do not change within milliseconds.
        let delay = if error == StoreError::Quota { QUOTA } else { self.retry.delay() };
        self.look = true;
        self.retry_at = Some(now + delay);
        delay
    }

    /// The store is asked again though it has failed just now.
    pub(super) fn rest_no_more(&mut self) {
        self.retry_at = None;
    }

    /// Until when the store is left alone, if it is.
    pub(super) fn retry_at(&self) -> Option<Instant> {
        self.retry_at
    }

    /// When to look next, unless there is news.
    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        self.look.then_some(self.retry_at.unwrap_or(now))
    }
}
