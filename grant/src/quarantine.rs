//! Grants that a device could not end, and when to try again.

use alloc::vec::Vec;
use core::time::Duration;

use crate::granted::{Access, Held, StillInUse};

/// First wait between two tries.
const SHORTEST: Duration = Duration::from_millis(10);
/// The wait doubles up to this.
const LONGEST: Duration = Duration::from_secs(1);

/// One device's grants whose peer would not let go.
///
/// Its room is the device's quota: with more than a quarter of it taken the device should stay
/// down ([`too_full`](Quarantine::too_full)), and it can never overflow. Revokes are tried again
/// after 10 ms, doubling to 1 s. Dropped, it leaves what it has to the table's quarantine.
pub struct Quarantine {
    held: Vec<Waiting>,
    quota: usize,
    wait: Duration,
    /// When to try next, in the caller's time; `None` until somebody has asked.
    next: Option<Duration>,
}

/// Dropped, a waiting grant goes to the table.
struct Waiting(Option<Held>);

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(held) = self.0.take()
            && !held.retry()
        {
            crate::table::quarantine(held);
        }
    }
}

impl Quarantine {
    /// For a device that has at most `quota` pages granted at a time.
    pub fn new(quota: usize) -> Quarantine {
        Quarantine { held: Vec::with_capacity(quota), quota, wait: SHORTEST, next: None }
    }

    /// Takes in a grant whose revoke failed.
    #[cold]
    #[inline(never)]
    pub fn admit<A: Access>(&mut self, grant: StillInUse<A>) {
        if self.held.is_empty() {
            self.wait = SHORTEST;
            self.next = None;
        }
        // Over quota, which no device reaches, the grant is dropped into the table's quarantine.
        if self.held.len() < self.quota {
            self.held.push(Waiting(Some(grant.0.into_held())));
        }
    }

    /// Tries again, if it is time; returns how many grants ended. `now` is any time that does not
    /// go back; the first wait begins with the first call after a grant was admitted.
    pub fn retry(&mut self, now: Duration) -> usize {
        if self.held.is_empty() {
            return 0;
        }
        if now < *self.next.get_or_insert(now + self.wait) {
            return 0;
        }
        let before = self.held.len();
        self.held.retain_mut(|waiting| {
            // Taken out first: what goes home may take its pool along, and a platform that panics
            // over it must not find the same grant here again.
            waiting.0 = waiting.0.take().filter(|held| !held.retry());
            waiting.0.is_some()
        });
        self.wait = (self.wait * 2).min(LONGEST);
        self.next = Some(now + self.wait);
        before - self.held.len()
    }

    /// When to call [`retry`](Quarantine::retry) next: zero for at once, `None` while nothing
    /// waits.
    pub fn next_retry(&self) -> Option<Duration> {
        (!self.held.is_empty()).then_some(self.next.unwrap_or_default())
    }

    /// Pages held.
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether none is held.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Whether more than a quarter of the quota is held.
    pub fn too_full(&self) -> bool {
        self.held.len() > self.quota / 4
    }
}

impl core::fmt::Debug for Quarantine {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Quarantine")
            .field("held", &self.held.len())
            .field("quota", &self.quota)
            .field("next_retry", &self.next_retry())
            .finish_non_exhaustive()
    }
}
