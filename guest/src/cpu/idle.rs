//! Sleeping until an interrupt, without missing one.
//!
//! ```text
//!   sti     from here on an interrupt may come, but takes effect one instruction late:
//!   hlt     in the sleep, and ends it
//!   cli
//! ```
//!
//! Where that one instruction is not kept (an emulated processor that leaves its guest between the
//! two can forget it), the interrupt comes before `hlt`, and what it stands for would be slept
//! over. So whoever is interrupted there goes on behind it.

use core::arch::global_asm;

global_asm!(
    r#"
    .section .text.idle, "ax", @progbits
    .global idle_sleep
idle_sleep:
    sti
    .global idle_asleep
idle_asleep:
    hlt
    .global idle_awake
idle_awake:
    cli
    ret
"#
);

unsafe extern "C" {
    safe fn idle_sleep();
    static idle_asleep: u8;
    static idle_awake: u8;
}

/// Sleeps until the next interrupt, one that is pending already included. Interrupts are off before
/// and after.
pub fn sleep() {
    idle_sleep();
}

/// Where to go on after an interrupt that came at `rip`.
pub fn resume_at(rip: u64) -> u64 {
    let [asleep, awake] = [&raw const idle_asleep, &raw const idle_awake];
    if rip == asleep.addr() as u64 { awake.addr() as u64 } else { rip }
}
