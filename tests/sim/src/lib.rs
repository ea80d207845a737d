//! A simulated Xen host: several domains in one process, deterministic in virtual time or on
//! threads in real time.
#![deny(unsafe_code)]

mod counters;
mod domain;
mod event;
mod fault;
mod grants;
mod host;
pub mod hostile;
pub mod memory;
#[allow(unsafe_code)]
mod page;
mod sched;
mod store;
mod toolstack;
mod violation;
mod words;

pub use counters::Counts;
pub use domain::{Domain, DomainConfig};
pub use event::{EINVAL, ENOSPC, ESRCH};
pub use fault::{FaultRule, Faults};
pub use host::{Chaos, Costs, Host};
pub use sched::{Ctx, Limits, Next, Outcome, Scheduler, Task, run_on_thread};
pub use store::{
    Access, Change, MAX_NODES, MAX_TRANSACTIONS, MAX_VALUE, MAX_WATCHES, Perms, StoreClient,
};
pub use toolstack::{Detach, Toolstack, Vif};
pub use violation::Violation;
pub use words::{ForeignPage, GrantedPage, OwnPage};
