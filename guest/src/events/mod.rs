//! Event channels: opening, firing, waiting.
//!
//! Interrupts stay off but while the processor sleeps, so the upcall only ever runs inside
//! `Xen::wait`. While there is work nobody pays for interrupts; what fires meanwhile
//! is found when we are about to sleep.
//!
//! A port that fires is masked until its event has been handled: until the driver says so
//! (`Platform::handled`) or, if it never does, until the next `Xen::wait`. One whose events
//! turn out to be for nothing stays masked for longer, see `patience`.

pub mod bits;
pub mod patience;
pub mod wakes;

#[cfg(target_os = "none")]
mod machine;

#[cfg(target_os = "none")]
pub(crate) use machine::*;
