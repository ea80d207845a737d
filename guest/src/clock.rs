//! The clock: Xen's system time, in nanoseconds, from the processor's counter and the scale that
//! Xen keeps beside it (`vcpu_time_info`, xen/xen.h).
//!
//! ```text
//! vcpu_time_info:  0 version u32 (odd while Xen writes)   4 pad
//!                  8 tsc_timestamp u64                    16 system_time u64
//!                 24 tsc_to_system_mul u32                28 tsc_shift i8, pad
//! ```

use core::mem::offset_of;
use core::sync::atomic::{AtomicU32, Ordering, fence};

use xen_sys::{shared_info, vcpu_info, vcpu_time_info};

/// Xen's scale from counter ticks to nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scale {
    /// The counter at `system_time`.
    pub tsc_timestamp: u64,
    /// Nanoseconds at `tsc_timestamp`.
    pub system_time: u64,
    /// Nanoseconds a tick, times 2 to the 32, after the shift.
    pub tsc_to_system_mul: u32,
    /// Left shift of the ticks; a negative one shifts right.
    pub tsc_shift: i8,
}

impl Scale {
    /// The system time at a counter value.
    ///
    /// The counter of a new domain starts at 0, and Xen's last calibration was before that: its
    /// timestamp is then a negative number, modulo 2 to the 64.
    pub fn nanoseconds(&self, tsc: u64) -> u64 {
        let ticks = tsc.wrapping_sub(self.tsc_timestamp).cast_signed().max(0);
        let ticks = u128::from(ticks.cast_unsigned());
        let by = u32::from(self.tsc_shift.unsigned_abs().min(63));
        let ticks =
            if self.tsc_shift < 0 { ticks >> by } else { (ticks << by) & (u128::MAX >> 32) };
        let nanoseconds = (ticks * u128::from(self.tsc_to_system_mul)) >> 32;
        self.system_time.saturating_add(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
    }
}

/// Where vCPU 0's time is in the shared page, in words.
const TIME: usize = (offset_of!(shared_info, vcpu_info) + offset_of!(vcpu_info, time)) / 4;

const _: () = {
    assert!(offset_of!(vcpu_time_info, tsc_timestamp) == 8);
    assert!(offset_of!(vcpu_time_info, system_time) == 16);
    assert!(offset_of!(vcpu_time_info, tsc_to_system_mul) == 24);
    assert!(offset_of!(vcpu_time_info, tsc_shift) == 28);
};

/// How often the scale is read while Xen changes it. One that changes more often is none: what reads
/// as all ones where Xen has put no page, say, looks as if it were being written for ever.
const TRIES: u32 = 1000;

/// Reads scale and counter, again while Xen changes the scale. `None` if it never stands still.
pub fn read(page: &[AtomicU32], counter: impl Fn() -> u64) -> Option<(Scale, u64)> {
    (0..TRIES).find_map(|_| {
        let version = page[TIME].load(Ordering::Acquire);
        let word = |index: usize| page[TIME + index].load(Ordering::Relaxed);
        let long = |index| u64::from(word(index)) | u64::from(word(index + 1)) << 32;
        let scale = Scale {
            tsc_timestamp: long(2),
            system_time: long(4),
            tsc_to_system_mul: word(6),
            tsc_shift: word(7) as i8,
        };
        let tsc = counter();
        fence(Ordering::Acquire);
        let still = version & 1 == 0 && version == page[TIME].load(Ordering::Relaxed);
        still.then_some((scale, tsc))
    })
}

#[cfg(target_os = "none")]
pub(crate) use machine::*;

#[cfg(target_os = "none")]
mod machine {
    use core::arch::{asm, x86_64::_rdtsc};
    use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    use xen_netfront::platform::Instant;

    use super::read;
    use crate::events::shared_info_page;
    use crate::hypercall::Errno;

    /// The latest time given out. It keeps the clock from going back by the nanoseconds that two
    /// scales may differ.
    static LATEST: AtomicU64 = AtomicU64::new(0);
    /// Xen's time when the clock was 0, modulo 2 to the 64: a machine that we were moved to may
    /// have been up for less time than the clock.
    static START: AtomicU64 = AtomicU64::new(0);
    static STARTED: AtomicBool = AtomicBool::new(false);

    /// Starts the clock, or has it go on from where it stopped: the domain has been resumed, with
    /// the time of another machine or another boot. How long it was away cannot be known.
    pub fn start() -> Result<(), Errno> {
        const ETIME: Errno = Errno(62);
        let stopped = LATEST.load(Ordering::Relaxed);
        let time = system_time().ok_or(ETIME)?;
        START.store(time.wrapping_sub(stopped), Ordering::Relaxed);
        STARTED.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// The time since start: 0 before [`start`], and the latest one while Xen's cannot be read.
    pub fn now() -> Instant {
        let started = STARTED.load(Ordering::Relaxed);
        let Some(time) = started.then(system_time).flatten() else {
            return Instant(LATEST.load(Ordering::Relaxed));
        };
        let time = time.wrapping_sub(START.load(Ordering::Relaxed));
        // A nanosecond before the start, as another scale may have it, is no time far away.
        let time = time.cast_signed().max(0).cast_unsigned();
        Instant(LATEST.fetch_max(time, Ordering::Relaxed).max(time))
    }

    /// The moment in Xen's system time, as timers want it.
    pub fn to_system_time(at: Instant) -> u64 {
        let start = START.load(Ordering::Relaxed).cast_signed();
        // Xen's own time is signed.
        at.0.saturating_add_signed(start).min(i64::MAX as u64)
    }

    fn system_time() -> Option<u64> {
        let (scale, tsc) = read(shared_info_page()?, counter)?;
        Some(scale.nanoseconds(tsc))
    }

    /// The processor's counter.
    pub fn counter() -> u64 {
        // SAFETY: a fence has no other effect; it keeps the counter from being read early.
        unsafe { asm!("lfence", options(nostack, preserves_flags)) };
        // SAFETY: reading the counter is always possible for a kernel.
        unsafe { _rdtsc() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scale(mul: u32, shift: i8) -> Scale {
        Scale { tsc_timestamp: 1000, system_time: 5_000, tsc_to_system_mul: mul, tsc_shift: shift }
    }

    #[test]
    fn ticks_become_nanoseconds() {
        // 2 GHz: half a nanosecond a tick.
        assert_eq!(scale(1 << 31, 0).nanoseconds(1000 + 4_000_000_000), 2_000_005_000);
        // 500 MHz: two nanoseconds a tick, as a shift and a half.
        assert_eq!(scale(1 << 31, 2).nanoseconds(1000 + 500), 6_000);
        // 8 GHz.
        assert_eq!(scale(1 << 31, -2).nanoseconds(1000 + 8_000), 6_000);
    }

    #[test]
    fn a_timestamp_may_lie_before_the_counter_started() {
        // As a domain saw it that was made 0.97 s after Xen had calibrated its clock.
        let scale = Scale {
            tsc_timestamp: 18_446_744_071_949_722_428,
            system_time: 6_761_374_175,
            tsc_to_system_mul: 3_308_550_982,
            tsc_shift: -1,
        };
        assert_eq!(scale.nanoseconds(733_405_478), 7_721_683_466);
    }

    /// The shared page with Xen's time in it, in this version.
    fn page(version: u32) -> Vec<AtomicU32> {
        let page: Vec<_> = (0..1024).map(|_| AtomicU32::new(0)).collect();
        for (index, word) in [version, 0, 1000, 0, 5_000, 1, 1 << 31, 0xff].into_iter().enumerate()
        {
            page[TIME + index].store(word, Ordering::Relaxed);
        }
        page
    }

    #[test]
    fn scale_and_counter_are_read_together() {
        let scale = Scale {
            tsc_timestamp: 1000,
            system_time: (1 << 32) + 5_000,
            tsc_to_system_mul: 1 << 31,
            tsc_shift: -1,
        };
        assert_eq!(read(&page(2), || 7), Some((scale, 7)));
    }

    #[test]
    fn a_scale_that_changes_is_read_again() {
        let page = page(2);
        let reads = std::cell::Cell::new(0);
        let counter = || {
            reads.set(reads.get() + 1);
            match reads.get() {
                // Xen begins to write, is at it, and is done.
                1 => page[TIME].store(3, Ordering::Relaxed),
                2 => {
                    page[TIME + 2].store(2000, Ordering::Relaxed);
                    page[TIME].store(4, Ordering::Relaxed);
                }
                _ => {}
            }
            reads.get()
        };
        let (scale, tsc) = read(&page, counter).unwrap();
        assert_eq!((scale.tsc_timestamp, tsc), (2000, 3));
    }

    #[test]
    fn a_clock_that_never_stands_still_is_given_up() {
        // What a frame without a page reads as.
        let hole: Vec<_> = (0..1024).map(|_| AtomicU32::new(u32::MAX)).collect();
        assert_eq!(read(&hole, || 0), None);
        let running = page(2);
        let count = || u64::from(running[TIME].fetch_add(2, Ordering::Relaxed));
        assert_eq!(read(&running, count), None);
        assert_eq!(running[TIME].load(Ordering::Relaxed), 2 + 2 * TRIES);
    }

    #[test]
    fn odd_scales_do_no_harm() {
        assert_eq!(scale(1 << 31, 0).nanoseconds(0), 5_000);
        for shift in [i8::MIN, -64, 64, i8::MAX] {
            for tsc in [0, 1001, u64::MAX] {
                scale(u32::MAX, shift).nanoseconds(tsc);
            }
        }
    }
}
