//! One large datagram at a time.
//!
//! smoltcp cuts a datagram that is longer than the MTU into fragments, and has one buffer to cut
//! from: the next large one would overwrite what is still to be sent. So whoever sends datagrams asks
//! here first; small ones are free to go at any time.

use smoltcp::iface::{Interface, SocketSet};
use smoltcp::time::Instant;

/// Whether a large datagram may be sent now.
pub struct Large {
    /// The largest datagram that needs no fragments, headers included.
    mtu: usize,
    free: bool,
}

impl Large {
    /// For this round, in which `queued` tells whether a large datagram may still wait in a socket.
    pub fn new(iface: &mut Interface, mtu: usize, now: Instant, queued: bool) -> Large {
        Large { mtu, free: !queued && !is_cutting(iface, now) }
    }

    /// Whether an IP packet of so many bytes needs no fragments. Over IPv6 smoltcp makes none, and drops
    /// it.
    pub fn is_whole(&self, len: usize) -> bool {
        len <= self.mtu
    }

    /// Whether an IP packet of so many bytes may be queued. A large one may, once.
    pub fn admits(&mut self, len: usize) -> bool {
        self.is_whole(len) || core::mem::replace(&mut self.free, false)
    }
}

/// Whether fragments of a datagram are still to be sent: without any socket, that is the one thing
/// that smoltcp can have to do.
pub fn is_cutting(iface: &mut Interface, now: Instant) -> bool {
    iface.poll_at(now, &SocketSet::new(&mut [][..])).is_some()
}
