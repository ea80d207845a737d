//! Network packets as views that only narrow.
//!
//! A packet is a few views of blocks of memory. Handing a layer its part costs nothing and copies
//! nothing; no layer sees a byte outside its view; what is known of a packet (its checksum, how it is
//! to be cut) travels with it; and which memory it lives in is chosen at compile time: pages that a
//! hypervisor can share, the heap, or whatever implements [`Block`](buffer::Block).
//!
//! ```text
//!   smoltcp, a forwarder, a firewall            any layer above
//!   ────────────────────────────────────
//!   phy          the device under smoltcp
//!   announce     telling neighbours where our addresses are
//!   ────────────────────────────────────
//!   device       NetDevice: what the lowest layer offers
//!   offload      large TCP packets cut and put together
//!   header       typed headers, one reader of all of them, checksums
//!   buffer       blocks, views, packets
//!   ────────────────────────────────────
//!   copying      a device on anything that copies (TAP, pcap)      xen-netfront, others
//! ```
//!
//! | where | what |
//! |---|---|
//! | [`buffer`], [`header`] | packets as views that only narrow, typed headers |
//! | [`offload`] | large TCP packets cut and put together in software |
//! | [`features`] | what a peer takes besides plain packets |
//! | [`device`] | what any network device offers to the layers above |
//! | [`announce`] | telling neighbours where our addresses are, after a migration for example |
//! | [`copying`] | the same interface for devices that copy (TAP, pcap) |
//! | [`frames`] | any of these devices as an object of plain Ethernet frames |
//! | `phy` (feature `smoltcp`) | any of these devices under smoltcp |
//!
//! It needs `alloc`, and nothing else of the machine that it runs on: no clock, no lock, no unsafe code.
//!
//! No call blocks, but for what a device's owner puts below it. Nothing allocates but where it says so:
//! [`HeapBlock::new`](buffer::HeapBlock::new), `new` of what keeps memory of its own, and some of a
//! device's calls ([`device::NetDevice`]). Views, headers and checksums may be used in an interrupt; a
//! device has one user at a time, and that is a task.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod announce;
pub mod buffer;
pub mod copying;
pub mod device;
pub mod features;
pub mod frames;
pub mod header;
pub mod offload;
#[cfg(feature = "smoltcp")]
pub mod phy;
mod setters;
mod wake;

pub use wake::Wake;

/// The README's program is compiled with the documentation.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
