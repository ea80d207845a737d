//! Packet headers.

mod ethernet;

pub use ethernet::{ETHERNET_HEADER, MacAddr};
