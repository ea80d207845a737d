//! Waiting longer each time.

use core::time::Duration;

/// A delay that doubles: `first`, `2 * first`, ... up to `most`.
#[derive(Clone, Debug)]
pub(super) struct Backoff {
    start: Duration,
    first: Duration,
    most: Duration,
    next: Duration,
}

impl Backoff {
    pub(super) const fn new(first: Duration, most: Duration) -> Backoff {
        Backoff { start: first, first, most, next: first }
    }

    /// The same, with one free try in front: zero, `first`, `2 * first`, ...
    pub(super) const fn after_one_try(first: Duration, most: Duration) -> Backoff {
        Backoff { start: Duration::ZERO, first, most, next: Duration::ZERO }
    }

    /// How long to wait this time.
    pub(super) fn delay(&mut self) -> Duration {
        let delay = self.next;
        self.next = delay.saturating_mul(2).clamp(self.first, self.most);
        delay
    }

    /// Starts over.
    pub(super) fn reset(&mut self) {
        self.next = self.start;
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    #[test]
    fn doubles_up_to_its_bound() {
        let millis = Duration::from_millis;
        let mut backoff = Backoff::new(millis(10), millis(50));
        let delays: Vec<_> = (0..5).map(|_| backoff.delay()).collect();
        assert_eq!(delays, [10, 20, 40, 50, 50].map(millis));
        backoff.reset();
        assert_eq!(backoff.delay(), millis(10));

        let mut backoff = Backoff::after_one_try(millis(10), millis(50));
        let delays: Vec<_> = (0..4).map(|_| backoff.delay()).collect();
        assert_eq!(delays, [0, 10, 20, 40].map(millis));
        backoff.reset();
        assert_eq!(backoff.delay(), millis(0));
    }
}
