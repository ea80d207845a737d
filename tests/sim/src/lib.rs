//! A simulated Xen host: several domains in one process, deterministic in virtual time or on
//! threads in real time.
//!
//! ```text
//!   Scheduler / threads        who runs next
//!   Toolstack                  makes and removes interfaces in xenstore
//!   hostile::{Backend,Client}  peers that break rules by a script
//!   served, echo               an honest backend as a device; one with a stack that echoes
//!   mirror                     a guest whose packets come back
//!   embassy                    an async guest (feature `embassy`)
//!        │
//!   Domain                     Memory, ForeignMemory, Platform, BackendPlatform, Store
//!        │
//!   Host                       pages, grant tables, event channels, xenstore, time, chance
//! ```
//!
//! A test makes a [`Host`] from a seed, adds domains, gives their handles to the driver as its
//! platform, and lets a [`Scheduler`] run the two ends as tasks. What no correct driver does is
//! recorded in [`Host::violations`]; a wakeup that is lost ends the run as [`Outcome::Stuck`].
//!
//! ```
//! use xen_grant::DomId;
//! use xen_netfront::platform::{BackendPlatform, Platform};
//! use xen_sim::{Chaos, Ctx, Host, Limits, Next, Outcome, Scheduler};
//!
//! let host = Host::new(42);
//! host.set_chaos(Chaos::rough());
//! let front = host.add_domain(DomId(1), 256);
//! let back = host.add_domain(DomId(2), 256);
//! let front_port = front.alloc_unbound(back.id())?;
//! let back_port = back.bind_interdomain(front.id(), front_port)?;
//!
//! let mut scheduler = Scheduler::new(&host);
//! scheduler.add("front", &front, |ctx: &mut Ctx| {
//!     front.notify(front_port);
//!     if ctx.runs == 3 { Next::Done } else { Next::Wait }
//! });
//! scheduler.add_background("back", &back, |ctx: &mut Ctx| {
//!     if ctx.ports.contains(&back_port) {
//!         back.notify(back_port);
//!     }
//!     Next::Wait
//! });
//! let outcome = scheduler.run(Limits::default());
//! assert_eq!(outcome, Outcome::Done, "seed {}", host.seed());
//! assert_eq!(host.violations(), []);
//! # Ok::<(), xen_netfront::platform::EventError>(())
//! ```
#![deny(unsafe_code)]

mod counters;
mod domain;
pub mod echo;
#[cfg(feature = "embassy")]
pub mod embassy;
mod event;
mod fault;
mod grants;
mod host;
pub mod hostile;
pub mod memory;
pub mod mirror;
#[allow(unsafe_code)]
mod page;
mod sched;
pub mod served;
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
    Access, Change, MAX_NODES, MAX_TRANSACTIONS, MAX_VALUE, MAX_WATCHES, Perms, Quota, StoreClient,
};
pub use toolstack::{Detach, Toolstack, Vif};
pub use violation::Violation;
pub use words::{ForeignPage, GrantedPage, OwnPage};
