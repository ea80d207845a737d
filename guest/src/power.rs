//! The end of the domain.

use alloc::boxed::Box;
use core::error::Error;
use core::iter;
use core::sync::atomic::{AtomicBool, Ordering};

use x86_64::instructions::{hlt, interrupts};

use crate::{hypercall, logger};

/// What a kernel's main may return, as `std::process::Termination` for programs.
pub trait Termination {
    /// Comes back if all is well; what is not well is the end of the domain.
    fn finish(self);
}

impl Termination for () {
    fn finish(self) {}
}

impl<E: Into<Box<dyn Error>>> Termination for Result<(), E> {
    fn finish(self) {
        if let Err(error) = self.map_err(E::into) {
            log::error!("main has failed: {error}");
            for source in iter::successors(error.source(), |&error| error.source()) {
                log::error!("because: {source}");
            }
            crash();
        }
    }
}

/// Stops the domain in good order (`SHUTDOWN_poweroff`, xen/sched.h).
pub fn off() -> ! {
    stop(xen_sys::SHUTDOWN_poweroff)
}

/// Stops the domain as crashed (`SHUTDOWN_crash`, xen/sched.h).
pub fn crash() -> ! {
    stop(xen_sys::SHUTDOWN_crash)
}

/// Stops the domain, for a reason of those in xen/sched.h.
pub fn stop(reason: u32) -> ! {
    interrupts::disable();
    hypercall::shutdown(reason);
    loop {
        hlt();
    }
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    static PANICKED: AtomicBool = AtomicBool::new(false);
    if PANICKED.swap(true, Ordering::Relaxed) {
        logger::last_words("panic while handling a panic\n");
    } else {
        logger::emergency(format_args!("{info}\n"));
    }
    crash()
}
