//! Xenstore, for drivers and kernels: a tree of small values that all domains of a Xen host share.
//!
//! | | |
//! |---|---|
//! | [`Store`] | what a driver asks of xenstore; reading, writing, watches, transactions |
//! | [`client::Client`] | a domain's connection to xenstored, over its page and its event channel |
//! | [`memory::MemoryStore`] | a xenstore in memory, for tests and examples |
//! | [`wire`], [`byte_ring`] | messages, and the rings of bytes that carry them |
//!
//! A driver takes any [`Store`]. This one counts how often it was started:
//!
//! ```
//! use xen_store::memory::MemoryStore;
//! use xen_store::{Store, StoreError};
//!
//! fn started<S: Store>(store: &S) -> Result<u32, StoreError> {
//!     loop {
//!         let transaction = store.begin()?;
//!         let before = match store.read(Some(transaction), "data/starts") {
//!             Ok(value) => str::from_utf8(&value).ok().and_then(|n| n.parse().ok()).unwrap_or(0),
//!             Err(_) => 0,
//!         };
//!         let now = u32::saturating_add(before, 1);
//!         store.write(Some(transaction), "data/starts", now.to_string().as_bytes())?;
//!         match store.commit(transaction) {
//!             Err(StoreError::Again) => {} // somebody else has written there: once more
//!             outcome => return outcome.map(|()| now),
//!         }
//!     }
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
pub mod client;
mod error;
pub mod memory;
mod store;
pub mod wire;

pub use error::StoreError;
pub use store::{Store, Transaction, Watch};

/// The README's programs are compiled with the documentation.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
