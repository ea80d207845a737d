//! Netfront.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;

pub mod buffer;
pub mod copying;
pub mod header;
pub mod netif;
pub mod platform;
pub mod store;
pub mod wire;
pub mod xenbus;
