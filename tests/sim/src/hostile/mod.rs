//! Peers that break every rule, by a script.
//!
//! [`HostileBackend`] and [`HostileClient`] find their victim in xenstore as any peer does, and
//! then write raw words into the rings, raw keys into xenstore, raw entries into their grant
//! tables. A [`Script`] says what, when; it has a text form, so that what broke a driver can be
//! kept as a test. Between their crimes they can behave, and so serve as plain peers too.

mod backend;
mod backend_rings;
mod client;
mod client_pages;
mod idle_queue;
mod peer;
mod raw;
mod script;
mod token;

pub use backend::{HostileBackend, PageDump};
pub use client::HostileClient;
pub use peer::After;
pub use script::{BadScript, Script, Side, Step};
pub use token::{Gref, Header, Id, Millis, Path, Ring, Text, Value};
