//! The end of the domain.

use x86_64::instructions::{hlt, interrupts};

use crate::hypercall;
use crate::logger;

/// Stops the domain in good order (`SHUTDOWN_poweroff`, xen/sched.h).
pub fn off() -> ! {
    stop(xen_sys::SHUTDOWN_poweroff)
}

/// Stops the domain as crashed (`SHUTDOWN_crash`, xen/sched.h).
pub fn crash() -> ! {
    stop(xen_sys::SHUTDOWN_crash)
}

fn stop(reason: u32) -> ! {
    interrupts::disable();
    hypercall::shutdown(reason);
    loop {
        hlt();
    }
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    logger::emergency(format_args!("{info}\n"));
    crash()
}
