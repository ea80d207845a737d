//! Netfront.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;

pub mod buffer;
pub mod copying;
pub mod header;
pub mod netback;
pub mod netfront;
pub mod netif;
#[cfg(feature = "smoltcp")]
pub mod phy;
pub mod platform;
mod ring_page;
pub mod store;
pub mod wire;
pub mod xenbus;
