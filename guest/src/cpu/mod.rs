//! The processor: segments, interrupts, exceptions.

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
