//! Numbers that others cannot guess: from the processor if it has them.

use x86_64::instructions::random::RdRand;

use crate::clock;

/// How often the processor may say that it has none right now.
const RETRIES: u32 = 10;

/// A random number from RDRAND; from the clock and the counter, which can be guessed, without.
pub fn random() -> u64 {
    let hardware = RdRand::new().and_then(|rdrand| (0..RETRIES).find_map(|_| rdrand.get_u64()));
    hardware.filter(|&number| number != 0 && number != u64::MAX).unwrap_or_else(|| {
        log::warn!("no RDRAND: random numbers can be guessed");
        clock::counter().wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32) ^ clock::now().0
    })
}
