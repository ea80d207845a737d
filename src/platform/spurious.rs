//! Telling events that mean something from those a peer sends for nothing (P1).
//!
//! ```text
//!   upcall A, packets   upcall B, nothing   upcall C, nothing   D, nothing   E, nothing
//!   ───────●──────────────────●──────────────────●──────────────────●─────────────●──────
//!                        the packets were    spurious: 1            2             3: wait
//!                        taken with A: fine                                       1 ms, then
//!                                                                                 2 ms, ... 1 s
//! ```
//!
//! An upcall is spurious if nothing has been consumed on its channel, by upcall or by polling, since
//! the upcall before. An honest peer's now and then is: it fires for a packet that a poll has taken
//! already. Three in a row are no accident, and from then on the channel stays masked for a while
//! after each, so that a storm costs at most one upcall a second.

use core::time::Duration;

/// What the third spurious upcall in a row costs, and the most that any costs.
const DELAY: (Duration, Duration) = (Duration::from_millis(1), Duration::from_secs(1));
/// How many spurious upcalls in a row are forgiven.
const FORGIVEN: u32 = 2;

/// How one event channel behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spurious {
    /// Spurious upcalls since the last one that meant something.
    in_a_row: u32,
    /// Something has been consumed since the last upcall was handled, or with it.
    consumed: bool,
}

impl Spurious {
    /// A channel without history.
    pub const fn new() -> Spurious {
        Spurious { in_a_row: 0, consumed: false }
    }

    /// The channel was looked at without an upcall; whether something was consumed.
    pub fn polled(&mut self, progress: bool) {
        self.consumed |= progress;
        if progress {
            self.in_a_row = 0;
        }
    }

    /// An upcall has been handled; whether something was consumed with it. If the channel is to
    /// stay masked: for how long.
    pub fn upcall(&mut self, progress: bool) -> Option<Duration> {
        let earlier = core::mem::replace(&mut self.consumed, progress);
        if earlier || progress {
            self.in_a_row = 0;
            return None;
        }
        self.in_a_row = self.in_a_row.saturating_add(1);
        let over = self.in_a_row.checked_sub(FORGIVEN + 1)?;
        // 2 to the 10 milliseconds is past the most already.
        Some(DELAY.0.saturating_mul(1 << over.min(10)).min(DELAY.1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    fn millis(channel: &mut Spurious, upcalls: usize) -> Vec<u128> {
        (0..upcalls).map(|_| channel.upcall(false).map_or(0, |delay| delay.as_millis())).collect()
    }

    #[test]
    fn p1_the_third_spurious_event_in_a_row_costs_and_the_cost_doubles_to_a_second() {
        let mut channel = Spurious::new();
        let expected = [0, 0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000, 1000, 1000];
        assert_eq!(millis(&mut channel, 15), expected);
        channel.in_a_row = u32::MAX - 1;
        assert_eq!(millis(&mut channel, 3), [1000; 3]);
    }

    #[test]
    fn p1_progress_resets() {
        let by_poll = |channel: &mut Spurious| channel.polled(true);
        let by_upcall = |channel: &mut Spurious| assert_eq!(channel.upcall(true), None);
        for progress in [by_poll, by_upcall] {
            let mut channel = Spurious::new();
            millis(&mut channel, 10);
            progress(&mut channel);
            // The first upcall after it may have been for what was consumed.
            assert_eq!(millis(&mut channel, 4), [0, 0, 0, 1]);
        }
    }

    #[test]
    fn p1_polling_for_nothing_changes_nothing() {
        let mut channel = Spurious::new();
        assert_eq!(millis(&mut channel, 2), [0, 0]);
        channel.polled(false);
        assert_eq!(millis(&mut channel, 1), [1]);
    }

    /// A peer that fires once a packet, and we poll all the time: each upcall comes late, when the
    /// packet has been taken.
    #[test]
    fn p1_busy_polling_against_an_honest_peer_adds_no_delay() {
        let mut channel = Spurious::new();
        for round in 0..10_000 {
            for _ in 0..round % 3 {
                channel.polled(false);
            }
            channel.polled(true);
            assert_eq!(channel.upcall(false), None);
        }
    }
}
