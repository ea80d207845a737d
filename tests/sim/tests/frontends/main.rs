//! Frontends that others wrote, in their shape: what a backend sees of each, as scripts on the simulated host.
//!
//! ```text
//!   linux.rs, freebsd.rs, ...   each a table: its keys and states in its order, its way with rings
//!        │ driven by
//!   guest.rs                    carries the script out, looks at the rings when its port is pending
//!   queue/, slots.rs            a pair of rings, ids, buffers and grants as that frontend has them
//!        ▲
//!        │ xenstore, rings, events
//!        ▼
//!   backend.rs                  our side, woken by its events and nothing else
//! ```
//!
//! Neither side looks at a ring that it was not told of, so a lost notification shows as a packet that
//! does not arrive. `checks.rs` has what is asked of every frontend, `traffic.rs` the packets.
//!
//! Read for this, as facts: Linux `drivers/net/xen-netfront.c`, FreeBSD `sys/dev/xen/netfront/netfront.c`,
//! NetBSD `if_xennet_xenbus.c`, OpenBSD `if_xnf.c`, win-xenvif `frontend.c`, `transmitter.c` and
//! `receiver.c`, mirage-net-xen `lib/netif.ml`, iPXE `netfront.c`, Unikraft `netfront.c` and
//! `netfront_xs.c`, mini-os `netfront.c`.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod backend;
#[macro_use]
mod checks;
#[path = "../netback/frames.rs"]
mod frames;
mod freebsd;
mod guest;
mod ipxe;
mod linux;
mod minios;
mod mirage;
mod netbsd;
mod openbsd;
mod queue;
#[path = "../raw_client/mod.rs"]
mod raw_client;
mod script;
mod slots;
mod together;
mod traffic;
mod twin;
mod unikraft;
mod windows;
mod world;

use script::Frontend;

/// Every frontend.
const ALL: [&Frontend; 9] = [
    &linux::LINUX,
    &freebsd::FREEBSD,
    &netbsd::NETBSD,
    &openbsd::OPENBSD,
    &windows::WINDOWS,
    &mirage::MIRAGE,
    &ipxe::IPXE,
    &unikraft::UNIKRAFT,
    &minios::MINIOS,
];
