//! The clock: Xen's system time, in nanoseconds, from the processor's counter and the scale that
//! Xen keeps beside it (`vcpu_time_info`, xen/xen.h).
//!
//! ```text
//! vcpu_time_info:  0 version u32 (odd while Xen writes)   4 pad
//!                  8 tsc_timestamp u64                    16 system_time u64
//!                 24 tsc_to_system_mul u32                28 tsc_shift i8, pad
//! ```

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

#[cfg(target_os = "none")]
pub(crate) use machine::*;

#[cfg(target_os = "none")]
mod machine {
    use core::arch::{asm, x86_64::_rdtsc};
    use core::mem::offset_of;
    use core::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};

    use xen_grant::Words;
    use xen_netfront::platform::Instant;
    use xen_sys::{shared_info, vcpu_info, vcpu_time_info};

    use super::Scale;
    use crate::events::shared_info_page;

    /// Where vCPU 0's time is in the shared page, in words.
    const TIME: usize = (offset_of!(shared_info, vcpu_info) + offset_of!(vcpu_info, time)) / 4;

    const _: () = {
        assert!(offset_of!(vcpu_time_info, tsc_timestamp) == 8);
        assert!(offset_of!(vcpu_time_info, system_time) == 16);
        assert!(offset_of!(vcpu_time_info, tsc_to_system_mul) == 24);
        assert!(offset_of!(vcpu_time_info, tsc_shift) == 28);
    };

    /// The latest time given out. It keeps the clock from going back by the nanoseconds that two
    /// scales may differ.
    static LATEST: AtomicU64 = AtomicU64::new(0);
    /// Xen's time when the clock was 0, modulo 2 to the 64: a machine that we were moved to may
    /// have been up for less time than the clock.
    static START: AtomicU64 = AtomicU64::new(0);
    static STARTED: AtomicBool = AtomicBool::new(false);

    /// Starts the clock, or has it go on from where it stopped: the domain has been resumed, with
    /// the time of another machine or another boot. How long it was away cannot be known.
    pub fn start() {
        let stopped = LATEST.load(Ordering::Relaxed);
        START.store(system_time().wrapping_sub(stopped), Ordering::Relaxed);
        STARTED.store(true, Ordering::Relaxed);
    }

    /// The time since start. 0 before [`start`].
    pub fn now() -> Instant {
        if !STARTED.load(Ordering::Relaxed) {
            return Instant(0);
        }
        let time = system_time().wrapping_sub(START.load(Ordering::Relaxed));
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

    fn system_time() -> u64 {
        let Some(page) = shared_info_page() else { return 0 };
        let (scale, tsc) = read(page);
        scale.nanoseconds(tsc)
    }

    /// Reads scale and counter, again until Xen has not changed the scale meanwhile.
    fn read(page: &Words) -> (Scale, u64) {
        loop {
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
            if version & 1 == 0 && version == page[TIME].load(Ordering::Relaxed) {
                return (scale, tsc);
            }
        }
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
