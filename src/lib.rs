//! A Xen network driver: the frontend of a vif, and the backend.
//!
//! The frontend, [`netfront`], is what a guest needs to have a network on Xen. The backend,
//! [`netback`], is what a driver domain or a firewall needs to serve other guests. Both speak
//! *netif* as Linux, FreeBSD and Windows do, both are written for a peer that wants to break them,
//! and neither copies a packet or allocates for one.
//!
//! The crate needs `alloc`, no standard library, and no particular kernel: it asks a
//! [`Platform`](platform::Platform) for pages, grants, event channels and the time, and a
//! [`Store`](store::Store) for xenstore.
//!
//! | where | what |
//! |---|---|
//! | [`netfront`], [`netback`] | the two ends of a vif |
//! | [`buffer`] | packets in pages that can be granted |
//! | [`xenbus`] | how the two ends find each other, and find each other again |
//! | [`wire`] | what travels on the rings |
//! | [`platform`], [`store`] | what the driver asks of the machine |
//! | [`packet`] | the crate `packet-views`: packets, headers, offloads, the device trait, smoltcp on top |
//!
//! Below it lie `xen-grant`, who may touch which page, `xen-ring`, one page shared with somebody we
//! don't trust, `xen-store`, xenstore, which is here as [`store`], and `packet-views`, packets as views
//! that only narrow, which knows nothing of Xen; each is of use alone.
//!
//! Where to look, in the sources:
//!
//! | for | look at |
//! |---|---|
//! | where a grant ends after transmit | `netfront/tx.rs`, `TxQueue::complete` and `take_back`; after receive, `netfront/rx.rs`, `take_back` |
//! | where empty pages are granted and posted | `netfront/rx/post.rs` |
//! | where a stale byte is cleared before a peer sees it | `exposure.rs` of `xen-grant`, asked by each `Reference::grant` |
//! | where headroom is made | [`netback::Config::headroom`], in `netback/from_client.rs`; a frontend's would be the `offset` of a posted page, which the backend chooses |
//! | where XDP headroom would go | announced like any feature, in [`xenbus`]; carried by [`wire::Extra::xdp_headroom`]; taken in `netback/parse.rs`, `read_extras` |
//! | what each drop counts | `netfront/counters.rs`, `netback/counters.rs` |
//!
//! # Bringing your own kernel
//!
//! A kernel implements three traits, and two more to be a backend. Here are the first two, for one
//! that runs in identity-mapped
//! memory and has its hypercalls in a module of its own:
//!
//! ```no_run
//! use core::ptr::NonNull;
//! use core::sync::atomic::{AtomicU32, Ordering};
//!
//! use xen_grant::{DomId, Gfn, GrantStatus, Memory, PAGE_SIZE, Page, Words};
//! use xen_netfront::platform::{EventError, Instant, Platform, Port};
//!
//! # mod hypercall {
//! #     pub fn map_grant_frame(_index: u32, _gfn: u64) -> i64 { 0 }
//! #     pub fn max_grant_frames() -> u32 { 64 }
//! #     pub fn alloc_unbound(_peer: u16) -> Result<u32, i32> { Ok(3) }
//! #     pub fn close(_port: u32) {}
//! #     pub fn send(_port: u32) {}
//! #     pub fn nanoseconds() -> u64 { 0 }
//! # }
//! /// The machine: there is one, so a handle to it is nothing.
//! #[derive(Clone, Copy)]
//! struct Machine;
//!
//! fn new_page() -> Option<NonNull<Page>> {
//!     // SAFETY: the layout of a page is not empty.
//!     NonNull::new(unsafe { std::alloc::alloc_zeroed(std::alloc::Layout::new::<Page>()) }.cast())
//! }
//!
//! /// How many grant frames are mapped.
//! static GRANT_FRAMES: AtomicU32 = AtomicU32::new(0);
//!
//! // SAFETY: pages come zeroed from the allocator and are nobody else's until they are freed; in
//! // identity-mapped memory an address divided by the page size is the frame number. Grant frames
//! // are never unmapped, nor mapped twice.
//! unsafe impl Memory for Machine {
//!     fn alloc_page(&self) -> Option<(NonNull<Page>, Gfn)> {
//!         new_page().map(|page| (page, Gfn((page.addr().get() / PAGE_SIZE) as u64)))
//!     }
//!
//!     unsafe fn free_page(&self, page: NonNull<Page>, _gfn: Gfn) {
//!         // SAFETY: the caller promises that `alloc_page` made it and nobody has it.
//!         unsafe { std::alloc::dealloc(page.as_ptr().cast(), std::alloc::Layout::new::<Page>()) }
//!     }
//!
//!     fn grant_frame(&self, index: u32) -> Result<NonNull<Words>, GrantStatus> {
//!         let next = index + 1;
//!         if GRANT_FRAMES.compare_exchange(index, next, Ordering::Relaxed, Ordering::Relaxed).is_err() {
//!             return Err(GrantStatus::GENERAL_ERROR); // a second table asks for it
//!         }
//!         let page = new_page().ok_or(GrantStatus::GENERAL_ERROR)?;
//!         let gfn = (page.addr().get() / PAGE_SIZE) as u64;
//!         // XENMEM_add_to_physmap: from here on the page shows the grant table's frame.
//!         match hypercall::map_grant_frame(index, gfn) {
//!             0 => Ok(page.cast()),
//!             _ => Err(GrantStatus::GENERAL_ERROR),
//!         }
//!     }
//!
//!     fn max_grant_frames(&self) -> u32 {
//!         hypercall::max_grant_frames()
//!     }
//! }
//!
//! impl Platform for Machine {
//!     fn now(&self) -> Instant {
//!         Instant(hypercall::nanoseconds())
//!     }
//!
//!     fn alloc_unbound(&self, peer: DomId) -> Result<Port, EventError> {
//!         let number = hypercall::alloc_unbound(peer.0).map_err(EventError)?;
//!         Port::new(number).ok_or(EventError(22))
//!     }
//!
//!     fn close(&self, port: Port) {
//!         hypercall::close(port.get());
//!     }
//!
//!     fn notify(&self, port: Port) {
//!         hypercall::send(port.get());
//!     }
//! }
//! ```
//!
//! The third is [`Store`](store::Store), of which [`store::client::Client`] in a `RefCell` is one, over
//! xenstore's page and port. With these, a network device is
//!
//! ```no_run
//! # use xen_grant::{FramePool, GrantTable, PoolError};
//! # use xen_netfront::netfront::{Config, Netfront, OpenError};
//! # use xen_netfront::{platform::Platform, store::Store};
//! # fn open<P: Platform, S: Store>(machine: P, store: S) -> Option<Netfront<P, S>> {
//! let pool = FramePool::new(&machine, 640).ok()?; // all the pages that packets will ever use
//! let table = GrantTable::new(&machine);
//! let net = Netfront::open(machine, store, &pool, &table, 0, Config::default()).ok()?;
//! # Some(net)
//! # }
//! ```
//!
//! and [`netfront`] shows the loop that drives it. `examples/machine.rs` is such a machine, for any PC; the other
//! examples put something on top: embassy-net (feature `embassy`), plain frames for a kernel that keeps its
//! cards as objects ([`packet::frames`]), a forwarder. The runtime in the repository's `guest` folder
//! implements all of it on real Xen.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod buffer;
pub mod netback;
pub mod netfront;
pub mod platform;
mod ring_page;
pub mod wire;
pub mod xenbus;

pub use packet_views as packet;
pub use xen_store as store;

/// The README's program is compiled with the documentation.
#[cfg(all(doctest, feature = "smoltcp"))]
#[doc = include_str!("../README.md")]
mod readme {}

/// So are the programs of the text on how to serve clients.
#[cfg(doctest)]
#[doc = include_str!("../docs/backend.md")]
mod backend {}
