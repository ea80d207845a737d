//! Both ends of a vif on the bus: who is ready, who is closing, and what each has published.
//!
//! Two domains set up a vif by writing nodes to xenstore and watching each other's. The order is
//! xen/io/xenbus.h's and xen/io/netif.h's:
//!
//! ```text
//!        backend   netback::Clients ─ a vif appeared ► BackBus               FrontBus   frontend
//!                                                   │                       │
//!                             features, InitWait(2) │ ────────────────────► │
//!                                                   │ ◄──────────────────── │ rings, Connected(4)
//!                         maps them,   Connected(4) │ ────────────────────► │ may transmit
//!                                                   :                       :
//!                                                   │ ◄──────────────────── │ Closing(5)
//!                         unmaps them,   Closing(5) │ ────────────────────► │
//!                                                   │ ◄──────────────────── │ Closed(6)
//!                                         Closed(6) │ ────────────────────► │ takes its pages back
//!                                                   │ ◄──────────────────── │ Initialising(1)
//!                             features, InitWait(2) │ ────────────────────► │ ... and so on
//! ```
//!
//! [`FrontBus`] and [`BackBus`] are state machines that say what the device is to do next. They
//! are total: whatever a peer writes, at whatever moment, has an answer, and none is a panic. Each
//! decision is a pure function of what is known, in `front/rules.rs` and `back/rules.rs`, with
//! its table. Time is an argument. Neither talks to xenstore unless a watch has fired or a
//! deadline has passed, and then at most 60 times a poll: what is left is for the next. A frontend that
//! publishes its rings makes at most 140 requests, for all queues go in one transaction.
//!
//! Opening, `poll`, [`FrontBus::publish`] and dropping ask xenstore: they block as long as the
//! [`Store`](xen_store::Store) does, and allocate. All else only looks at, or changes, what is known. None
//! is for an interrupt.

mod attention;
mod back;
mod backoff;
mod bus;
mod directories;
mod features;
mod front;
mod identity;
mod listing;
mod meter;
mod state;

#[cfg(test)]
mod tests;

pub use back::{
    BackBus, BackStep, EventChannels, FrontendOffer, MAX_QUEUES, OfferError, QueueOffer, Removal,
    VifSpec,
};
pub use features::feature_nodes;
pub use front::{BackendOffer, FrontBus, FrontStep, Rate};
pub(crate) use identity::DEFAULT_MTU;
pub use identity::Identity;
pub use listing::VifId;
pub(crate) use listing::{Listing, Look};
pub use state::BusState;
