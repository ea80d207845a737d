//! TCP port 9: what is said is forgotten (RFC 863).

use smoltcp::socket::tcp::Socket;

use super::listener::Connection;

/// One who talks to nobody.
#[derive(Default)]
pub struct TcpDiscard;

impl Connection for TcpDiscard {
    const PORT: u16 = 9;
    /// Bytes forgotten so far.
    type Shared<'a> = u64;

    fn turn(&mut self, socket: &mut Socket<'_>, forgotten: &mut u64) -> bool {
        let before = *forgotten;
        while socket.can_recv() {
            // It can't fail, and it is never 0.
            let Ok(count @ 1..) = socket.recv(|bytes| (bytes.len(), bytes.len())) else { break };
            *forgotten += count as u64;
        }
        if *forgotten == before && socket.may_send() && !socket.may_recv() {
            socket.close();
            return true;
        }
        *forgotten > before
    }
}
