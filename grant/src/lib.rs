//! Who may touch which page.
//!
//! A Xen driver lends pages of its memory to a peer that may be hostile. This crate makes the
//! state of a page its type, so that the compiler keeps the rules:
//!
//! ```text
//!            take             grant                      in use
//! FramePool ──────► Frame ─────────────► Granted<Access> ──────► Quarantine
//!     ▲               │ ▲                      │                     │
//!     │          share│ │try_unshare           │ revoke              │ retried,
//!     │               ▼ │                      ▼                     │ later
//!     └────────── SharedFrame ◄──────────── (Frame, Reference) ◄─────┘
//! ```
//!
//! * [`Frame`]: ours alone, and the only state in which a page has bytes to write.
//! * [`SharedFrame`]: ours, counted, read-only.
//! * [`Granted`]: the peer may use it at any moment. It has a number to tell the peer and no bytes;
//!   [`revoke`](Granted::revoke) is one compare-exchange that fails while the peer uses the page.
//! * [`GrantedPage`], [`ForeignPage`]: used by both sides at once, as atomic words.
//! * [`Quarantine`]: a revoke failed. Page and reference are tried again later; until then nobody
//!   reuses or frees them.
//!
//! Pages come from a [`FramePool`] made at start; they are page-aligned, never move, and nothing
//! else is ever granted. Whoever shares a pool has a [`Reservation`] of it. A frame remembers which peer has seen its bytes, and bytes of others are
//! cleared before a grant shows them.
//!
//! [`driver`] shows how a whole driver is made of it and of `xen-ring`.
//!
//! The crate knows no machine: it asks a [`Memory`] for pages and for the frames of the grant
//! table, and a [`ForeignMemory`] for what a back end does with a client's grants. `unsafe` lives
//! in this crate, so that rings and protocols above it need none.
//!
//! # What a call costs
//!
//! No call blocks, unless the [`Memory`] below does. What a driver does with each packet allocates
//! nothing and takes no lock, so an interrupt may do it as well: taking frames of a [`FramePool`] and
//! dropping them, sharing, granting, revoking, [`Quarantine::admit`], the words of a shared page.
//!
//! | | allocates | takes the grant table's lock | calls the platform |
//! |---|---|---|---|
//! | [`FramePool::new`], and the end of a pool | yes | | for each page |
//! | dropping a frame whose pool is gone | the last one frees | | for its page |
//! | [`GrantTable::claim`], [`claim_many`](GrantTable::claim_many) | yes | yes | for a frame of the table, now and then |
//! | dropping a [`Reference`] | | yes | |
//! | dropping a [`Granted`] or a [`Quarantine`]; [`Quarantine::retry`], [`GrantTable::sweep`] | | yes | |
//! | [`GrantTable::usage`], [`machine`](GrantTable::machine), [`left`](GrantTable::left) | | yes | |
//! | [`CopyIn`], [`CopyOut`] | beyond their capacity | | one hypercall a submission |
//! | [`ForeignPage::map`], and dropping it | | | one hypercall |
//!
//! The lock spins, so what takes it is not for an interrupt that may come while somebody has it.
#![no_std]

extern crate alloc;

#[cfg(feature = "packet")]
mod block;
mod copy;
mod exposure;
mod frame;
mod granted;
mod memory;
mod pool;
mod quarantine;
mod reservation;
#[cfg(not(loom))]
mod shared_page;
mod sync;
mod table;

pub use copy::{CopyError, CopyIn, CopyOut, Foreign};
pub use exposure::Grantee;
pub use frame::{FitFrame, Frame, SharedFrame};
pub use granted::{Access, Granted, ReadOnly, ReadShared, ReadWrite, Readable, StillInUse};
pub use memory::{
    CopyEnd, CopyOp, DomId, ForeignMemory, Gfn, GrantStatus, Mapping, Memory, PAGE_SIZE, Page,
    Words,
};
pub use pool::{FramePool, Frames, PoolError};
pub use quarantine::Quarantine;
pub use reservation::{Reservation, ReserveError};
#[cfg(not(loom))]
pub use shared_page::{ForeignPage, GrantedPage, SharedPage};
pub use table::{ClaimError, GrantTable, Reference, TableUse};

/// The rules that the compiler keeps (F8). Each line that must not compile has a twin that does.
///
/// A granted page has no bytes:
///
/// ```compile_fail
/// # use xen_grant::*;
/// fn look(page: Granted<ReadOnly>) -> u8 {
///     page.bytes()[0]
/// }
/// ```
/// ```
/// # use xen_grant::*;
/// fn look(page: Granted<ReadOnly>) -> Option<u8> {
///     Some(page.revoke().ok()?.0.bytes()[0])
/// }
/// ```
///
/// What was granted is no longer ours to write:
///
/// ```compile_fail
/// # use xen_grant::*;
/// fn send(mut frame: Frame, reference: Reference, to: &Grantee) {
///     let _granted = reference.grant::<ReadOnly>(frame, to, 0..64);
///     frame.bytes_mut()[0] = 1;
/// }
/// ```
/// ```
/// # use xen_grant::*;
/// fn send(mut frame: Frame, reference: Reference, to: &Grantee) {
///     frame.bytes_mut()[0] = 1;
///     let _granted = reference.grant::<ReadOnly>(frame, to, 0..64);
/// }
/// ```
///
/// A reference grants one page at a time:
///
/// ```compile_fail
/// # use xen_grant::*;
/// fn twice(a: Frame, b: Frame, reference: Reference, to: &Grantee) {
///     let _one = reference.grant::<ReadOnly>(a, to, 0..64);
///     let _two = reference.grant::<ReadOnly>(b, to, 0..64);
/// }
/// ```
/// ```
/// # use xen_grant::*;
/// fn twice(a: Frame, b: Frame, reference: Reference, to: &Grantee) {
///     let (one, _) = reference.grant::<ReadOnly>(a, to, 0..64);
///     let Ok((_a, reference)) = one.revoke() else { return };
///     let _two = reference.grant::<ReadOnly>(b, to, 0..64);
/// }
/// ```
///
/// A shared frame is not written:
///
/// ```compile_fail
/// # use xen_grant::*;
/// fn write(mut frame: SharedFrame) {
///     frame.bytes_mut()[0] = 1;
/// }
/// ```
/// ```
/// # use xen_grant::*;
/// fn write(frame: SharedFrame) {
///     if let Ok(mut frame) = frame.try_unshare() {
///         frame.bytes_mut()[0] = 1;
///     }
/// }
/// ```
mod rules {}

/// The README's program is compiled with the documentation.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}

#[cfg(doc)]
#[doc = include_str!("../docs/driver.md")]
pub mod driver {}
