//! Segmentation in software: what a peer without an offload needs, and what a stack without one
//! gains.
//!
//! ```text
//!  GSO packet   | headers | data 1 | data 2 | data 3 |     one packet, up to 65,535 bytes
//!                 │   ▲
//!       Segments  ▼   │  Coalescer
//!  segments     | headers | data 1 |    | headers | data 2 |    | headers | data 3 |
//! ```
//!
//! [`Segments`] cuts a TCP packet that carries a GSO size into segments, for a peer that takes
//! none. [`Coalescer`] does the opposite below a stack that knows only segments: what a flow sends in
//! a burst leaves as one packet, one slot chain, one walk through the peer's network. Neither
//! copies data where it can be shared or moved: a segment is a small block with the headers and
//! views of the data, a coalesced packet is the first segment and what follows the others'
//! headers. [`make_blank`] helps with packets whose peer forgot to leave the checksum to us,
//! [`leave_blank`] with stacks that leave it to the device.
//!
//! These are functions over packets: no device, no allocator but the caller's, and nothing here
//! trusts a byte. A packet that can't be cut is refused with the [`GsoError`] that says why, and
//! stays with the caller.

mod blank;
mod coalesce;
mod cuttable;
mod ends;
mod flow;
mod layout;
mod segment;
#[cfg(test)]
mod tests;

pub use blank::{blank_field, leave_blank, make_blank, pseudo_sum};
pub use coalesce::{Coalescer, Counters, FLOWS};
pub use cuttable::Cuttable;
pub use layout::GsoError;
pub use segment::{CopiedBytes, CutError, MAX_SEGMENTS, Plan, Segments, Sums};
