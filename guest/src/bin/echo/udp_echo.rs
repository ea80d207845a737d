//! UDP port 7: each datagram comes back (RFC 862).

use alloc::vec;

use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::udp::{PacketBuffer, PacketMetadata, SendError, Socket};
use smoltcp::wire::IpAddress;

use super::large::Large;

const PORT: u16 = 7;
/// Datagrams that may wait, as many as a ring may bring.
const WAITING: usize = 256;
/// Room for a datagram of the largest size.
const BYTES: usize = 1 << 16;
/// An IPv4 or IPv6 header with UDP's behind it.
const HEADERS: usize = 28;
const HEADERS_V6: usize = 48;

/// The service's socket.
pub struct UdpEcho {
    handle: SocketHandle,
    answered: u64,
}

impl UdpEcho {
    /// Adds its socket.
    pub fn new(sockets: &mut SocketSet<'static>) -> UdpEcho {
        let buffer = |size| PacketBuffer::new(vec![PacketMetadata::EMPTY; WAITING], vec![0; size]);
        let mut socket = Socket::new(buffer(2 * BYTES), buffer(2 * BYTES));
        // It fails for port 0 and for sockets that are bound.
        let _ = socket.bind(PORT);
        UdpEcho { handle: sockets.add(socket), answered: 0 }
    }

    /// Whether a datagram waits to be sent.
    pub fn is_sending(&self, sockets: &SocketSet<'_>) -> bool {
        sockets.get::<Socket<'_>>(self.handle).send_queue() > 0
    }

    /// How many datagrams have gone back.
    pub fn answered(&self) -> u64 {
        self.answered
    }

    /// Sends back what has come; whether that was anything. `scratch` holds the largest datagram.
    pub fn turn(
        &mut self,
        sockets: &mut SocketSet<'_>,
        large: &mut Large,
        scratch: &mut [u8],
    ) -> bool {
        let before = self.answered;
        let socket = sockets.get_mut::<Socket<'_>>(self.handle);
        while socket.can_send()
            && let Ok((datagram, &meta)) = socket.peek()
        {
            let Some(copy) = scratch.get_mut(..datagram.len()) else { break };
            copy.copy_from_slice(datagram);
            let is_v6 = matches!(meta.endpoint.addr, IpAddress::Ipv6(_));
            if is_v6 && !large.is_whole(copy.len() + HEADERS_V6) {
                let _ = socket.recv();
                continue;
            }
            if !large.admits(copy.len() + HEADERS) {
                break;
            }
            // It says to which of our addresses the datagram came: it is sent from there.
            match socket.send_slice(copy, meta) {
                Ok(()) => self.answered += 1,
                Err(SendError::BufferFull) => break,
                // From port 0, or from nowhere: there is nobody to answer.
                Err(SendError::Unaddressable) => {}
            }
            // It is there, for we have seen it.
            let _ = socket.recv();
        }
        self.answered > before
    }
}
