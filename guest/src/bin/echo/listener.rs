//! TCP: a port, and as many connections to it at once as there are sockets.
//!
//! What a service does with a connection is its [`Connection`]; who may have one, and for how long
//! it may be silent, is decided here.

use alloc::vec::Vec;

use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::{Duration, Instant};

/// One connection of a service. `Default` is what a new one starts with.
pub trait Connection: Default {
    /// The port of the service.
    const PORT: u16;
    /// A connection on which nothing has moved for so long is ended: its socket is wanted by others.
    const IDLE: Duration = Duration::from_secs(600);
    /// What all connections of the service use.
    type Shared<'a>;

    /// Takes what has come, gives what there is to say; whether anything has moved. The socket is
    /// connected, or being closed.
    fn turn(&mut self, socket: &mut Socket<'_>, shared: &mut Self::Shared<'_>) -> bool;
}

/// Memory for a socket: it is never given back.
pub type Buffer = &'static mut [u8];

/// The sockets of a service.
pub struct Listener<C> {
    endpoints: Vec<Endpoint<C>>,
    served: u64,
}

struct Endpoint<C> {
    handle: SocketHandle,
    connection: C,
    /// When something last moved; `None` while it waits for somebody to connect.
    moved: Option<Instant>,
}

impl<C: Connection> Listener<C> {
    /// Adds `count` sockets; each has two of the buffers that `memory` gives, to receive with and to
    /// transmit from.
    pub fn new(
        sockets: &mut SocketSet<'static>,
        count: usize,
        mut memory: impl FnMut() -> [Buffer; 2],
    ) -> Listener<C> {
        let socket = |_| {
            let [receive, transmit] = memory().map(SocketBuffer::new);
            let mut socket = Socket::new(receive, transmit);
            // An answer is not to wait for the peer's acknowledgement of the one before.
            socket.set_nagle_enabled(false);
            Endpoint { handle: sockets.add(socket), connection: C::default(), moved: None }
        };
        Listener { endpoints: (0..count).map(socket).collect(), served: 0 }
    }

    /// Gives each connection a turn; whether anything has moved.
    pub fn turn(
        &mut self,
        sockets: &mut SocketSet<'_>,
        now: Instant,
        shared: &mut C::Shared<'_>,
    ) -> bool {
        let mut moved = false;
        for endpoint in &mut self.endpoints {
            let socket = sockets.get_mut::<Socket<'_>>(endpoint.handle);
            if !socket.is_open() {
                endpoint.connection = C::default();
                endpoint.moved = None;
                // It fails for port 0 and for open sockets.
                let _ = socket.listen(C::PORT);
            } else if !socket.is_listening() {
                let last = endpoint.moved.unwrap_or_else(|| {
                    self.served += 1;
                    now
                });
                endpoint.moved = Some(last);
                // Half open, it looks like one whose peer has said all it had to say.
                let open = socket.state() != State::SynReceived;
                if open && endpoint.connection.turn(socket, shared) {
                    endpoint.moved = Some(now);
                    moved = true;
                } else if now >= last + C::IDLE {
                    socket.abort();
                    moved = true;
                }
            }
        }
        moved
    }

    /// When a connection will have been silent for too long.
    pub fn deadline(&self) -> Option<Instant> {
        Some(self.endpoints.iter().filter_map(|endpoint| endpoint.moved).min()? + C::IDLE)
    }

    /// How many are connected now.
    pub fn connected(&self) -> usize {
        self.endpoints.iter().filter(|endpoint| endpoint.moved.is_some()).count()
    }

    /// How many have been connected so far.
    pub fn served(&self) -> u64 {
        self.served
    }

    /// Its connections.
    pub fn connections(&self) -> impl Iterator<Item = &C> {
        self.endpoints
            .iter()
            .filter(|endpoint| endpoint.moved.is_some())
            .map(|endpoint| &endpoint.connection)
    }
}
