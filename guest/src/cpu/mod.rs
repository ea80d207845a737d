//! The processor: segments, interrupts, exceptions.

pub mod apic;
pub mod idle;
mod tables;
mod traps;

pub use tables::init;
pub use traps::UPCALL_VECTOR;
