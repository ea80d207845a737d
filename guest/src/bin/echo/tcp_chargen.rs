//! TCP port 19: characters without end (RFC 864).

use smoltcp::socket::tcp::Socket;

use super::listener::Connection;

/// Printable characters, 72 a line, each line beginning one further on.
const LINE: usize = 74;
const CHARACTERS: usize = 95;
const PATTERN: usize = LINE * CHARACTERS;

static TEXT: [u8; PATTERN] = text();

const fn text() -> [u8; PATTERN] {
    let mut text = [0; PATTERN];
    let mut at = 0;
    while at < PATTERN {
        let (line, column) = (at / LINE, at % LINE);
        text[at] = match column {
            72 => b'\r',
            73 => b'\n',
            _ => b' ' + ((line + column) % CHARACTERS) as u8,
        };
        at += 1;
    }
    text
}

/// A connection, and where in the text it is.
#[derive(Default)]
pub struct TcpChargen {
    at: usize,
}

impl Connection for TcpChargen {
    const PORT: u16 = 19;
    type Shared<'a> = ();

    fn turn(&mut self, socket: &mut Socket<'_>, (): &mut ()) -> bool {
        let mut moved = false;
        while socket.can_recv() {
            let said = socket.recv(|bytes| (bytes.len(), bytes.len()));
            moved |= said.is_ok_and(|count| count > 0);
        }
        if !socket.may_recv() && socket.may_send() {
            // Who stops listening closes: what is still on its way is not for anyone.
            socket.close();
            return true;
        }
        while socket.can_send() {
            let Some(text) = TEXT.get(self.at..) else { break };
            let Ok(count @ 1..) = socket.send_slice(text) else { break };
            self.at = (self.at + count) % PATTERN;
            moved = true;
        }
        moved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_that_of_the_rfc() {
        let lines: alloc::vec::Vec<&[u8]> = TEXT.chunks(LINE).collect();
        assert_eq!(lines.len(), 95);
        assert!(lines[0].starts_with(b" !\"#$%&'()*+,-./0123456789:;<=>?@ABC"));
        assert!(lines[1].starts_with(b"!\"#$") && lines[94].starts_with(b"~ !\""));
        assert!(lines.iter().all(|line| line.ends_with(b"\r\n")));
        assert!(
            lines.iter().all(|line| line[..72].iter().all(|byte| (b' '..=b'~').contains(byte)))
        );
    }
}
