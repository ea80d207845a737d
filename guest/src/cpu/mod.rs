//! The processor: segments, interrupts, exceptions.

use core::arch::x86_64::{__cpuid, CpuidResult};

pub mod pic;

#[cfg(target_os = "none")]
pub mod apic;
#[cfg(target_os = "none")]
pub mod idle;
#[cfg(target_os = "none")]
mod tables;
#[cfg(target_os = "none")]
mod traps;

#[cfg(target_os = "none")]
pub(crate) use tables::init;
#[cfg(target_os = "none")]
pub(crate) use traps::UPCALL_VECTOR;

/// What the processor says of itself in this leaf.
#[allow(unused_unsafe, reason = "asking is unsafe for the oldest Rust that will do")]
pub(crate) fn cpuid(leaf: u32) -> CpuidResult {
    // SAFETY: every 64-bit processor has the instruction, and it changes nothing.
    unsafe { __cpuid(leaf) }
}
