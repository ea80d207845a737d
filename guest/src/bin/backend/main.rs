//! A driver domain's kernel: a learning switch between the domains that it serves with network
//! (`backend=` in their vif lines) and its own vif, the uplink. [`options`] says what its command line
//! may be.
//!
//! ```text
//!   clients ── netback ─┐
//!   clients ── netback ─┼─ switch ─ netfront ── dom0's bridge
//!   clients ── netback ─┘
//!
//!  kernel ── netback::Clients   the vifs that it serves
//!         ── uplink             its own
//!         ── switch             which station is where
//!         ── news               what is told of clients
//! ```
#![cfg_attr(target_os = "none", no_std, no_main)]
// Built for a host there is no kernel: only tests use the modules then.
#![cfg_attr(not(target_os = "none"), allow(dead_code))]

extern crate alloc;

mod memory;
mod options;
mod switch;

#[cfg(target_os = "none")]
mod kernel;
#[cfg(target_os = "none")]
mod news;
#[cfg(target_os = "none")]
mod uplink;

xen_guest::main!(kernel::run);
