//! How much of xenstore's time one client may take, and all of them together.
//!
//! Each request to xenstore costs more than a packet, and a client can make us ask as often as it
//! writes its own `state`. So requests are counted, and the bus rests while an allowance is used up:
//! some requests for a start, then so many a second. What the bus would have to do then is done a
//! moment later.

use core::time::Duration;

use crate::platform::Instant;

/// What has been asked of xenstore, and not been paid for by waiting.
#[derive(Debug)]
pub(super) struct Allowance {
    /// Requests that can be saved up.
    most: u32,
    /// For how long each request is paid.
    each: Duration,
    owed: Duration,
    /// As of then.
    at: Instant,
}

impl Allowance {
    /// What one client may have us ask: several connections, one after the other, and then 500 requests
    /// a second. At 20 us each, that is 1 % of a processor.
    pub(super) fn of_client() -> Allowance {
        Allowance::new(400, Duration::from_millis(2))
    }

    /// What all clients of a backend may have us ask: that 64 of them connect at once, and then 2,000 a second.
    pub(super) fn of_all() -> Allowance {
        Allowance::new(64 * 60, Duration::from_micros(500))
    }

    fn new(most: u32, each: Duration) -> Allowance {
        Allowance { most, each, owed: Duration::ZERO, at: Instant(0) }
    }

    /// Until when the bus rests; `None` if it does not.
    pub(super) fn rests_until(&self, now: Instant) -> Option<Instant> {
        let until = self.at + self.owed.checked_sub(self.each * self.most)?;
        (until > now).then_some(until)
    }

    pub(super) fn spend(&mut self, requests: u32, now: Instant) {
        if requests > 0 {
            self.owed = self.owed.saturating_sub(now.since(self.at)) + self.each * requests;
            self.at = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: u32 = 400;
    const EACH: Duration = Duration::from_millis(2);

    #[test]
    fn b11_requests_come_in_a_burst_and_then_at_a_rate() {
        let mut allowance = Allowance::of_client();
        let mut now = Instant(5_000_000_000);
        let mut sent = 0;
        while allowance.rests_until(now).is_none() {
            allowance.spend(10, now);
            sent += 10;
        }
        assert_eq!(sent, MOST + 10);
        let mut at_boot = Allowance::of_client();
        at_boot.spend(MOST, Instant(0));
        assert_eq!(at_boot.rests_until(Instant(0)), None);
        let end = now + Duration::from_secs(10);
        let mut later = 0;
        while now < end {
            match allowance.rests_until(now) {
                Some(until) => now = until,
                None => {
                    allowance.spend(10, now);
                    later += 10;
                    now = now + Duration::from_micros(1);
                }
            }
        }
        assert!((4900..=5100).contains(&later), "{later} in 10 s");
    }

    #[test]
    fn a_quiet_client_saves_up_no_more_than_the_burst() {
        let mut allowance = Allowance::of_client();
        let now = Instant(3_600_000_000_000);
        allowance.spend(MOST, now);
        assert_eq!(allowance.rests_until(now), None);
        allowance.spend(1, now);
        assert!(allowance.rests_until(now).is_some());
        assert_eq!(allowance.rests_until(now + EACH), None);
    }
}
