//! How much of xenstore's time one client may take.
//!
//! Each request to xenstore costs more than a packet, and a client can make us ask as often as it
//! writes its own `state`. So requests are counted, and the bus rests while a client has used up
//! its allowance: some for a start, then so many a second. What its bus would have to do then is
//! done a moment later.

use core::time::Duration;

use crate::platform::Instant;

/// Requests that can be saved up: several connections, one after the other.
const MOST: u32 = 400;
/// For how long each request is paid: 500 a second. At 20 us each, that is 1 % of a processor.
const EACH: Duration = Duration::from_millis(2);

/// What a client has had asked of xenstore, and not paid for by waiting.
#[derive(Debug)]
pub(super) struct Allowance {
    owed: Duration,
    /// As of then.
    at: Instant,
}

impl Allowance {
    pub(super) fn full() -> Allowance {
        Allowance { owed: Duration::ZERO, at: Instant(0) }
    }

    /// Until when the bus rests; `None` if it does not.
    pub(super) fn rests_until(&self, now: Instant) -> Option<Instant> {
        let until = self.at + self.owed.checked_sub(EACH * MOST)?;
        (until > now).then_some(until)
    }

    pub(super) fn spend(&mut self, requests: u32, now: Instant) {
        if requests > 0 {
            self.owed = self.owed.saturating_sub(now.since(self.at)) + EACH * requests;
            self.at = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b11_requests_come_in_a_burst_and_then_at_a_rate() {
        let mut allowance = Allowance::full();
        let mut now = Instant(5_000_000_000);
        let mut sent = 0;
        while allowance.rests_until(now).is_none() {
            allowance.spend(10, now);
            sent += 10;
        }
        assert_eq!(sent, MOST + 10);
        let mut at_boot = Allowance::full();
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
        let mut allowance = Allowance::full();
        let now = Instant(3_600_000_000_000);
        allowance.spend(MOST, now);
        assert_eq!(allowance.rests_until(now), None);
        allowance.spend(1, now);
        assert!(allowance.rests_until(now).is_some());
        assert_eq!(allowance.rests_until(now + EACH), None);
    }
}
