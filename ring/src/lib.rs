//! One page shared with somebody we don't trust.
//!
//! Xen's paravirtual devices talk over rings: the front end writes requests, the back end answers
//! each with a response in the same slots, and four indices say how far each side has come. This
//! crate is both ends of such a ring, for any protocol (`xen/io/ring.h` is the source of the
//! layout and of the notification rule).
//!
//! ```text
//! word  0         1          2         3          4 .. 15   16 ..
//!      +---------+----------+---------+----------+---------+--------+--------+----
//!      | req_prod| req_event| rsp_prod| rsp_event| padding | slot 0 | slot 1 | ...
//!      +---------+----------+---------+----------+---------+--------+--------+----
//!        written by the front: req_prod, rsp_event, requests
//!        written by the back:  rsp_prod, req_event, responses
//! ```
//!
//! What a peer may do to the page has no bound, so the ends keep to four rules:
//!
//! * The peer's producer index is loaded once a batch, and an impossible one is a [`PeerFault`];
//!   the ring is then poisoned and moves no more.
//! * Each word of a slot is loaded once, into a private copy; nobody goes back to the page.
//! * What we wrote is never read back: private indices are the truth.
//! * Every word of what we publish has been written.
//!
//! The page itself is a [`RingPage`], loads and stores of whole 32-bit words, so there is no
//! `unsafe` here, and a test can put memory there that changes at every read.
//!
//! Nothing here allocates but [`InFlight::new`], nothing blocks, and there is no lock: whoever has the
//! end of a ring may use it in an interrupt too.
//!
//! ```
//! use xen_ring::{BackRing, FrontRing, Notify, Protocol};
//! # use std::sync::atomic::{AtomicU32, Ordering, fence};
//! # use std::sync::Arc;
//! # #[derive(Clone)] struct Page(Arc<[AtomicU32; 1024]>);
//! # impl xen_ring::RingPage for Page {
//! #     fn load(&self, word: usize) -> u32 { self.0[word].load(Ordering::Relaxed) }
//! #     fn load_acquire(&self, word: usize) -> u32 { self.0[word].load(Ordering::Acquire) }
//! #     fn store(&self, word: usize, value: u32) { self.0[word].store(value, Ordering::Relaxed) }
//! #     fn store_release(&self, word: usize, value: u32) { self.0[word].store(value, Ordering::Release) }
//! #     fn full_fence(&self) { fence(Ordering::SeqCst) }
//! # }
//! # let page = Page(Arc::new([const { AtomicU32::new(0) }; 1024]));
//! enum Doubling {}
//! impl Protocol for Doubling {
//!     type Request = [u32; 1];
//!     type Response = [u32; 1];
//! }
//!
//! let mut front = FrontRing::<Doubling, _>::new(page.clone());
//! let mut back = BackRing::<Doubling, _>::attach(page)?;
//!
//! front.push([21]).expect("an empty ring has room");
//! assert_eq!(front.publish(), Notify::Needed);
//!
//! back.refresh()?;
//! while let Some((_, [number])) = back.pop() {
//!     back.push([number * 2]).expect("a popped request leaves room for its response");
//! }
//! assert_eq!(back.publish(), Notify::Needed);
//!
//! assert_eq!(front.refresh()?, 1);
//! assert_eq!(front.pop().map(|(_, response)| response), Some([42]));
//! # Ok::<(), xen_ring::PeerFault>(())
//! ```
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod back;
mod fault;
mod fill;
mod front;
mod in_flight;
mod page;
mod protocol;

pub use back::BackRing;
pub use fault::PeerFault;
pub use fill::fill;
pub use front::{FrontRing, Responses, Slot};
pub use in_flight::{InFlight, Vacant};
pub use page::RingPage;
pub use protocol::{Protocol, Wire, WordArray};

/// Whether the peer must be told (an event sent) after a publish.
#[must_use = "a peer that is not notified may sleep for ever"]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notify {
    /// The peer waits for what was just published: send the event.
    Needed,
    /// The peer is awake, or has asked to be woken later.
    Suppressed,
}

/// A ring with no room for one more message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl core::fmt::Display for Full {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("the ring has no room")
    }
}

impl core::error::Error for Full {}

/// `RING_PUSH_*_AND_CHECK_NOTIFY`: the peer wants an event if its threshold lies in what this
/// publish covers, `old < event <= new` in arithmetic that wraps.
fn notify(old: u32, new: u32, event: u32) -> Notify {
    if new.wrapping_sub(event) < new.wrapping_sub(old) {
        Notify::Needed
    } else {
        Notify::Suppressed
    }
}

/// The README's program is compiled with the documentation.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
