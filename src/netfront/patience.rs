//! How long a backend may leave what was sent unanswered before it counts as silent.
//!
//! Progress is not speed. A backend with a `rate` answers nothing while it saves up for a packet; one
//! whose network is slow, or whose host is, answers when it has sent. So what counts is the time between
//! two answers, of whichever requests, and the measure of it is the backend's own: what its `rate` makes
//! of the largest packet, and twice what it has taken before in this connection, on any queue. A backend
//! that was taken for silent and comes back gets twice the time at once.

use core::time::Duration;

use crate::wire::MAX_PACKET;
use crate::xenbus::Rate;

/// What a backend gets that says nothing about itself.
const LEAST: Duration = Duration::from_secs(10);

/// What is learnt, and what a `rate` asks for, goes up to this.
const MOST: Duration = Duration::from_secs(640);

pub(super) struct Patience {
    /// What this backend gets in any case.
    least: Duration,
    now: Duration,
    /// The last connection ended for want of it.
    ran_out: bool,
}

impl Patience {
    pub(super) fn new() -> Patience {
        Patience { least: LEAST, now: LEAST, ran_out: false }
    }

    /// A connection to a backend begins.
    pub(super) fn begin(&mut self, rate: Option<Rate>) {
        let largest = rate.map_or(Duration::ZERO, |rate| rate.time_for(MAX_PACKET));
        self.least = LEAST + largest.min(MOST);
        self.now = if core::mem::take(&mut self.ran_out) { self.now } else { Duration::ZERO };
        self.now = self.now.max(self.least);
    }

    /// How long to wait for the next answer.
    pub(super) fn limit(&self) -> Duration {
        self.now
    }

    /// The backend has answered something, so long after it did the last time.
    pub(super) fn answered(&mut self, after: Duration) {
        self.now = self.now.max((after * 2).min(MOST));
    }

    /// It has not answered in time.
    pub(super) fn run_out(&mut self) {
        self.ran_out = true;
        self.now = (self.now * 2).min(MOST).max(self.least);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn it_is_the_backends_own_measure() {
        let mut patience = Patience::new();
        patience.begin(None);
        assert_eq!(patience.limit(), SECOND * 10);
        patience.answered(SECOND * 4);
        assert_eq!(patience.limit(), SECOND * 10);
        patience.answered(SECOND * 9);
        assert_eq!(patience.limit(), SECOND * 18);
        // A connection that ended for another reason is no measure for the next.
        patience.begin(None);
        assert_eq!(patience.limit(), SECOND * 10);
        let kilobyte = Rate { bytes: 51, every: Duration::from_millis(50) };
        patience.begin(Some(kilobyte));
        assert!((SECOND * 74..SECOND * 75).contains(&patience.limit()), "{:?}", patience.limit());
        patience.run_out();
        assert!(patience.limit() > SECOND * 148);
        patience.begin(None);
        assert!(patience.limit() > SECOND * 148);
        // That counts once: this one has not run out.
        patience.begin(None);
        assert_eq!(patience.limit(), SECOND * 10);
        for _ in 0..20 {
            patience.run_out();
        }
        assert_eq!(patience.limit(), MOST);
        let years = Rate { bytes: 1, every: Duration::from_secs(4000) };
        patience.begin(Some(years));
        assert_eq!(patience.limit(), LEAST + MOST);
    }

    #[test]
    fn it_grows_only_and_within_bounds() {
        let mut patience = Patience::new();
        patience.begin(None);
        patience.answered(SECOND * 9);
        patience.answered(SECOND);
        assert_eq!(patience.limit(), SECOND * 18, "one that was slow once");
        patience.answered(SECOND * 3600);
        assert_eq!(patience.limit(), MOST);
        // With a rate that takes as long, it is never less than that and what any backend gets.
        let slow = Rate { bytes: 1, every: SECOND };
        let needed = LEAST + MOST;
        patience.begin(Some(slow));
        assert_eq!(patience.limit(), needed);
        patience.answered(SECOND * 9);
        patience.run_out();
        assert_eq!(patience.limit(), needed);
    }
}
