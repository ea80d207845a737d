//! TCP port 7: what is said comes back (RFC 862).

use smoltcp::socket::tcp::Socket;

use super::listener::Connection;

/// It has nothing to remember: what is not sent yet stays in the receive buffer.
#[derive(Default)]
pub struct TcpEcho;

/// The largest window that needs no scaling: with larger ones, smoltcp may stop for good when both
/// directions are full, as `packet_views::phy` says.
const UNSCALED_WINDOW: usize = u16::MAX as usize;

impl TcpEcho {
    /// Bytes to receive into, where buffers have `window`.
    pub fn receive_buffer(window: usize) -> usize {
        window.min(UNSCALED_WINDOW)
    }
}

#[cfg(test)]
mod tests;

impl Connection for TcpEcho {
    const PORT: u16 = 7;
    /// Memory to copy through.
    type Shared<'a> = &'a mut [u8];

    fn turn(&mut self, socket: &mut Socket<'_>, scratch: &mut &mut [u8]) -> bool {
        let mut moved = false;
        while socket.can_send() && socket.can_recv() {
            let room = (socket.send_capacity() - socket.send_queue()).min(scratch.len());
            let Some(part) = scratch.get_mut(..room) else { break };
            // Neither can fail: the socket is open both ways, and there is room.
            let count = socket.recv_slice(part).unwrap_or(0);
            let Some(part) = scratch.get(..count) else { break };
            moved |= socket.send_slice(part).is_ok_and(|count| count > 0);
        }
        // The peer has said all it had to say, and has it back.
        if !moved && socket.may_send() && !socket.may_recv() {
            socket.close();
            return true;
        }
        moved
    }
}
