//! A PVH guest runtime for Xen: what lies between the first instruction and a driver.
//!
//! It boots in a 64-bit PVH domain, sets up memory, interrupts, the clock, the console and
//! xenstore, and then calls the kernel's own main with a `Xen` handle, which implements what
//! `xen-netfront` asks of a machine ([`Memory`](xen_grant::Memory),
//! [`Platform`](xen_netfront::platform::Platform), [`Store`](xen_store::Store), and the
//! backend halves). Output of the `log` crate goes to the PV console and to Xen's log.
//!
//! A whole kernel is `examples/hello.rs`, with smoltcp on top of the driver; `examples/ready.rs` awaits
//! its vif as a future. (One that is never built for anything but Xen says `no_std` and `no_main`
//! without condition, and needs no `cfg`.)
//!
//! ```no_run
#![doc = include_str!("../examples/hello.rs")]
//! ```
//!
//! It is built for `x86_64-unknown-none` and linked by this crate's script, which is what these two
//! lines in its `build.rs` ask for:
//!
//! ```
//! println!("cargo::rustc-link-arg-bins=-Txen-guest.ld");
//! println!("cargo::rustc-link-arg-bins=--no-pie");
//! ```
//!
//! | module | what it does |
//! |---|---|
//! | `boot` | PVH entry, start info, the order of setting up |
//! | `cpu` | segments, exceptions, the upcall, no other interrupts |
//! | `memory` | free pages, page tables, heap, the window for pages that are not ours |
//! | `hypercall` | stubs and calls |
//! | `events` | event channels, sleeping, the timer |
//! | `clock` | Xen's system time |
//! | `xenstore` | xenstore's page and port, for the client of `xen-store` |
//! | `entropy` | random numbers |
//! | `console`, `logger` | output |
//! | `options` | the command line |
//! | `shutdown`, `power`, `suspend` | what the toolstack asks for; stopping; sleeping |
//!
//! `Xen` blocks only in `wait`, in xenstore's calls, and while the toolstack has the domain suspended; it
//! allocates only in xenstore's calls and when a port is opened. The runtime has the interrupts: no code of a
//! kernel runs in one, and there is one thread.
//!
//! What needs no machine (parsers, the console, the event bits) also
//! builds on a host, where its tests run; the rest exists only for `target_os = "none"`.
#![cfg_attr(not(test), no_std)]

extern crate alloc;

pub mod boot;
pub mod clock;
pub mod console;
pub mod cpu;
pub mod entropy;
pub mod events;
pub mod hypercall;
pub mod memory;
pub mod options;
pub mod shutdown;

#[cfg(target_os = "none")]
mod logger;
#[cfg(target_os = "none")]
mod power;
#[cfg(target_os = "none")]
mod suspend;
#[cfg(target_os = "none")]
mod xen;
#[cfg(target_os = "none")]
mod xenstore;

#[cfg(target_os = "none")]
pub use power::Termination;
#[cfg(target_os = "none")]
pub use suspend::Suspended;
#[cfg(target_os = "none")]
pub use xen::Xen;

/// What a kernel's main returns if it can fail, for any reason.
pub type Result<T = ()> = core::result::Result<T, alloc::boxed::Box<dyn core::error::Error>>;

/// Names the kernel's main, a `fn(Xen)` that may return a [`Result`]. When it returns, the domain
/// powers off; with an error, it says which and ends as crashed.
///
/// For any other target it makes a program that says where it would run.
#[macro_export]
macro_rules! main {
    ($main:path) => {
        #[cfg(target_os = "none")]
        const _: () = {
            // SAFETY: the runtime declares it with this name and type, and nobody else does.
            #[unsafe(no_mangle)]
            extern "Rust" fn xen_guest_main(xen: $crate::Xen) {
                $crate::Termination::finish($main(xen));
            }
        };

        #[cfg(not(target_os = "none"))]
        fn main() {
            $crate::not_here()
        }
    };
}

/// What a kernel built for a host does.
#[cfg(not(target_os = "none"))]
#[doc(hidden)]
pub fn not_here() {
    extern crate std;
    std::println!("This is a Xen PVH kernel: build it for x86_64-unknown-none and boot it on Xen.");
}

/// The README's program is compiled with the documentation.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
