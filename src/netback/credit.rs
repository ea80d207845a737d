//! How much a client may send: `rate`, in credit as Linux's netback gives it (drivers/net/xen-netback/
//! netback.c, `tx_add_credit`).
//!
//! So many bytes are added each window, and what is not used adds up to one burst: a window's worth, or
//! 128 KB where that is more, or the largest packet would never pass. A packet that begins while there is
//! credit is taken whole; what it takes too much is owed.

use core::time::Duration;

use crate::platform::Instant;
use crate::xenbus::Rate;

/// The least that may add up, in bytes.
const LEAST_BURST: i64 = 131_072;
/// What no sum here goes beyond.
const MOST: i64 = i64::MAX / 4;

/// What a client may send.
#[derive(Debug)]
pub(super) struct Credit {
    bytes: i64,
    every: Duration,
    burst: i64,
    /// What is left, or owed.
    left: i64,
    /// When the window that it is as of began.
    since: Instant,
}

impl Credit {
    pub(super) fn new(rate: Rate, now: Instant) -> Credit {
        let bytes = i64::from(rate.bytes).max(1);
        let every = rate.every.max(Duration::from_micros(1));
        Credit { bytes, every, burst: bytes.max(LEAST_BURST), left: bytes, since: now }
    }

    /// Bytes that may be sent now: 0 if none.
    pub(super) fn left(&mut self, now: Instant) -> u64 {
        let windows = now.since(self.since).as_nanos() / self.every.as_nanos();
        if windows > 0 {
            let added = i64::try_from(windows).unwrap_or(MOST).saturating_mul(self.bytes);
            self.left = self.left.saturating_add(added).min(self.burst);
            // As many whole windows as lie in a time that there is.
            let passed = self.every.as_nanos() * windows;
            self.since =
                self.since + Duration::from_nanos(u64::try_from(passed).unwrap_or(u64::MAX));
        }
        u64::try_from(self.left).unwrap_or(0)
    }

    /// So much has been sent.
    pub(super) fn spend(&mut self, bytes: u64) {
        let bytes = i64::try_from(bytes).unwrap_or(MOST).min(MOST);
        self.left = self.left.saturating_sub(bytes);
    }

    /// When there is credit again, if there is none.
    pub(super) fn next(&self) -> Option<Instant> {
        let missing = u64::try_from(1_i64.saturating_sub(self.left)).ok().filter(|it| *it > 0)?;
        let windows = missing.div_ceil(self.bytes.unsigned_abs());
        let wait = self.every.as_nanos().saturating_mul(windows.into());
        Some(self.since + Duration::from_nanos(u64::try_from(wait).unwrap_or(u64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn credit(bytes: u64, every: Duration) -> Credit {
        Credit::new(
            Rate::parse(alloc::format!("{bytes},{}", every.as_micros()).as_bytes()).unwrap(),
            Instant(0),
        )
    }

    /// Takes packets of this length whenever there is credit, until `end`; how many bytes.
    fn take_all(credit: &mut Credit, packet: u64, end: Instant) -> u64 {
        let (mut now, mut taken) = (Instant(0), 0);
        while now < end {
            if credit.left(now) > 0 {
                credit.spend(packet);
                taken += packet;
            } else {
                let next = credit.next().expect("there will be some");
                assert!(next > now, "it would be asked for ever");
                now = next;
            }
        }
        taken
    }

    #[test]
    fn b11_a_client_sends_what_its_rate_says() {
        for (bytes, every) in
            [(10_000_000, 50 * MS), (1000, 50 * MS), (1, MS / 1000), (250_000, 20 * MS)]
        {
            for packet in [60, 1514, 65_535] {
                let mut credit = credit(bytes, every);
                let seconds = 100;
                let taken =
                    take_all(&mut credit, packet, Instant(0) + Duration::from_secs(seconds));
                let fair = bytes * seconds * 1_000_000_000 / every.as_nanos() as u64;
                assert!(taken.abs_diff(fair) <= bytes + packet, "{taken} for {fair}");
            }
        }
    }

    #[test]
    fn b11_what_adds_up_is_a_window_or_128_kb() {
        for (bytes, burst) in [(1000, 131_072), (131_072, 131_072), (500_000, 500_000)] {
            let mut credit = credit(bytes, 50 * MS);
            assert_eq!(credit.left(Instant(0)), bytes);
            let later = Instant(0) + Duration::from_secs(3600);
            assert_eq!(credit.left(later), burst);
            credit.spend(burst - 1);
            assert_eq!((credit.left(later), credit.next()), (1, None));
            credit.spend(1);
            assert_eq!((credit.left(later), credit.next()), (0, Some(later + 50 * MS)));
            // Owed is as much as a packet was too long: nothing until it is paid.
            credit.spend(bytes);
            assert_eq!(credit.next(), Some(later + 100 * MS));
            assert_eq!(credit.left(later + 50 * MS), 0);
            assert_eq!(credit.left(later + 100 * MS), bytes);
        }
    }

    #[test]
    fn p3_no_number_overflows() {
        for (bytes, every) in [
            (u32::MAX, Duration::MAX),
            (u32::MAX, Duration::from_nanos(1)),
            (1, Duration::MAX),
            (0, Duration::ZERO),
        ] {
            let mut credit = Credit::new(Rate { bytes, every }, Instant(u64::MAX / 2));
            for now in [0, u64::MAX / 2, u64::MAX / 2 + 1, u64::MAX] {
                let _bytes = credit.left(Instant(now));
                credit.spend(u64::MAX);
                let _at = credit.next();
                credit.spend(u64::MAX);
            }
        }
    }
}
