//! The local APIC, as far as an upcall through it needs: switched on, and told when one is done.
//!
//! In x2APIC mode its registers are MSRs (Intel SDM volume 3, 11.12), so no page of it has to be
//! mapped.

use x86_64::registers::model_specific::Msr;

use super::{UPCALL_VECTOR, cpuid};

/// `IA32_APIC_BASE`
const BASE: u32 = 0x1b;
const BASE_ENABLED: u64 = 1 << 11;
const BASE_X2APIC: u64 = 1 << 10;
/// End of interrupt.
const EOI: u32 = 0x80b;
/// Spurious interrupt vector, with the switch for the whole APIC.
const SPURIOUS: u32 = 0x80f;
const SPURIOUS_ENABLED: u64 = 1 << 8;

/// Switches this vCPU's APIC on, in x2APIC mode; again is fine. False if it has no such mode.
pub fn enable() -> bool {
    const X2APIC: u32 = 1 << 21;
    if cpuid(1).ecx & X2APIC == 0 {
        return false;
    }
    // SAFETY: every processor with an APIC has this MSR.
    let base = unsafe { Msr::new(BASE).read() };
    // SAFETY: it has the mode; nobody uses the APIC by its page, and all its sources are masked.
    unsafe { Msr::new(BASE).write(base | BASE_ENABLED | BASE_X2APIC) };
    // An interrupt that goes away before it is taken is an upcall that finds nothing.
    // SAFETY: that vector has a handler.
    unsafe { Msr::new(SPURIOUS).write(SPURIOUS_ENABLED | u64::from(UPCALL_VECTOR)) };
    true
}

/// The interrupt being handled is done: the next of its vector may come. Nothing happens if there
/// is none. Only after [`enable`].
pub fn end_of_interrupt() {
    // SAFETY: the APIC is in the mode in which this MSR is its register.
    unsafe { Msr::new(EOI).write(0) };
}
