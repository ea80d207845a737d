//! A kernel that serves its vifs: ping, UDP and TCP echo, discard, chargen, and HTTP with a page of
//! its own numbers. [`options`] says what its command line may be.
//!
//! ```text
//!  main     all vifs: open, wait, turn
//!  vif      one vif, connected: driver, stack, services
//!  ping  udp_echo  listener ── tcp_echo  tcp_discard  tcp_chargen  http ── page  metrics ◄── status
//!  addresses ── dhcp
//! ```
#![cfg_attr(target_os = "none", no_std, no_main)]
// Built for a host there is no kernel: only tests use the modules then.
#![cfg_attr(not(target_os = "none"), allow(dead_code))]

extern crate alloc;

mod addresses;
mod dhcp;
mod http;
mod large;
mod listener;
mod memory;
mod metrics;
mod options;
mod page;
mod ping;
mod status;
mod tcp_chargen;
mod tcp_discard;
mod tcp_echo;
mod udp_echo;

#[cfg(target_os = "none")]
mod kernel;
#[cfg(target_os = "none")]
mod vif;

xen_guest::main!(kernel::run);
