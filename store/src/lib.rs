//! Xenstore, for drivers and kernels: a tree of small values that all domains of a Xen host share.
//!
//! | | |
//! |---|---|
//! | [`Store`] | what a driver asks of xenstore; reading, writing, watches, transactions |
//! | [`nodes`] | what drivers do with nodes: transactions that are tried again, defensive reading |
//! | [`values`] | what a node's value means: numbers, domains, paths |
//! | [`client::Client`] | a domain's connection to xenstored, over its page and its event channel |
//! | [`memory::MemoryStore`] | a xenstore in memory, for tests and examples |
//! | [`intercept`] | a store whose requests somebody sees first, to count them or to let some fail |
//! | [`wire`], [`byte_ring`] | messages, and the rings of bytes that carry them |
//!
//! A driver takes any [`Store`]. This one counts how often it was started:
//!
//! ```
//! use xen_store::memory::MemoryStore;
//! use xen_store::nodes::{Reader, transact};
//! use xen_store::{Store, StoreError};
//!
//! fn started<S: Store>(store: &S) -> Result<u32, StoreError> {
//!     // Once more if somebody else has written there meanwhile, four times at most.
//!     transact(store, 4, |transaction| {
//!         let within = Some(transaction);
//!         let before = Reader { store, within, dir: "data" }.u32("starts")?.unwrap_or(0);
//!         let now = before.saturating_add(1);
//!         store.write(within, "data/starts", now.to_string().as_bytes())?;
//!         Ok(now)
//!     })
//! }
//!
//! let domain_1 = MemoryStore::new(1);
//! let watch = domain_1.watch("data")?;
//! assert!(domain_1.fired(&watch)); // as soon as it is set
//! assert_eq!(started(&domain_1), Ok(1));
//! assert_eq!(started(&domain_1), Ok(2));
//! assert!(domain_1.fired(&watch) && !domain_1.fired(&watch)); // once, however often
//!
//! // Domain 0 may read everything, domain 2 only what it is allowed to.
//! let path = "/local/domain/1/data/starts";
//! assert_eq!(domain_1.as_domain(0).read(None, path)?, b"2");
//! assert_eq!(domain_1.as_domain(2).read(None, path), Err(StoreError::Denied));
//! # Ok::<(), StoreError>(())
//! ```
//!
//! The crate knows no machine, no grants and no network. On Xen a kernel finds xenstore's page and
//! port (`HVM_PARAM_STORE_PFN`, `HVM_PARAM_STORE_EVTCHN`, or the start info of a PV domain), and
//! implements [`client::Transport`] for them.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod byte_ring;
mod changes;
pub mod client;
mod error;
pub mod intercept;
pub mod memory;
pub mod nodes;
mod store;
pub mod values;
pub mod wire;

pub use changes::Changes;
pub use error::StoreError;
pub use store::{Store, Transaction, Watch};

/// The README's programs are compiled with the documentation.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
