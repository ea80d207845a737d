//! One IPv4 address and its router, leased by DHCP (RFC 2131). smoltcp's socket asks for them, renews
//! them and gives them up in time; here is what there is now.
//!
//! Nobody asks whether the address is free before it is used (RFC 2131, section 3.1, step 5): that is
//! left to the server.

use core::fmt;
use core::mem;
use core::net::Ipv4Addr;

use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::dhcpv4::{Event, Socket};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::Ipv4Cidr;

use super::addresses::is_one_machine;

/// What a server lets us have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Our address, and its network's prefix.
    pub address: Ipv4Cidr,
    /// The way out, if there is one.
    pub router: Option<Ipv4Addr>,
    /// Who has said so.
    pub server: Ipv4Addr,
}

/// How long nobody is asked after a lease was lost: a server may give what it takes back at once, for ever.
const PAUSE: Duration = Duration::from_secs(1);

/// A client.
pub struct Dhcp {
    state: State,
    lease: Option<Lease>,
    /// The lease is of a connection before: when it is given up, if nobody says it is ours here, too.
    doubtful: Option<Instant>,
}

enum State {
    /// The socket has the word.
    Asking(SocketHandle),
    /// There is none until then.
    Pausing(Instant),
}

impl Dhcp {
    /// Adds its socket. There is one of the kind in a set at most: smoltcp hands what comes to the first.
    pub fn new(sockets: &mut SocketSet<'static>) -> Dhcp {
        Dhcp { state: State::Asking(sockets.add(Socket::new())), lease: None, doubtful: None }
    }

    /// Asks as if for the first time. What there is stays until then, if no server says otherwise. Call
    /// [`turn`](Dhcp::turn) before it.
    pub fn restart(&mut self, sockets: &mut SocketSet<'static>, until: Instant) {
        let State::Asking(socket) = self.state else { return };
        let socket = sockets.get_mut::<Socket<'_>>(socket);
        socket.reset();
        // It says that the lease is gone, which is our own doing.
        let _ = socket.poll();
        if self.lease.is_some() {
            self.doubtful = Some(self.doubtful.map_or(until, |earlier| earlier.min(until)));
        }
    }

    /// Sees what has come; whether the lease is another one now, or gone.
    pub fn turn(&mut self, sockets: &mut SocketSet<'static>, now: Instant) -> bool {
        let socket = match self.state {
            State::Asking(socket) => socket,
            State::Pausing(until) => {
                if until <= now {
                    self.state = State::Asking(sockets.add(Socket::new()));
                }
                return false;
            }
        };
        let lease = match sockets.get_mut::<Socket<'_>>(socket).poll() {
            Some(Event::Configured(told)) => {
                let address = told.address;
                // Some servers say 0.0.0.0 where they mean none.
                let is_another =
                    |ip: &Ipv4Addr| *ip != address.address() && is_one_machine((*ip).into());
                Some(Lease {
                    address,
                    router: told.router.filter(is_another),
                    server: told.server.identifier,
                })
            }
            Some(Event::Deconfigured) => None,
            None if self.doubtful.is_some_and(|until| until <= now) => None,
            None => return false,
        };
        self.doubtful = None;
        let is_other = mem::replace(&mut self.lease, lease) != lease;
        if is_other && lease.is_none() {
            sockets.remove(socket);
            self.state = State::Pausing(now + PAUSE);
        }
        is_other
    }

    /// When there is something to do that the socket does not know of.
    pub fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Asking(_) => self.doubtful,
            State::Pausing(until) => Some(until),
        }
    }

    /// What there is now.
    pub fn lease(&self) -> Option<Lease> {
        self.lease
    }
}

impl fmt::Display for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} leased by {}, ", self.address, self.server)?;
        match self.router {
            Some(router) => write!(f, "router {router}"),
            None => f.write_str("no router"),
        }
    }
}
