//! The processor: segments, interrupts, exceptions.

mod tables;
mod traps;

pub use tables::init;
pub use traps::UPCALL_VECTOR;
