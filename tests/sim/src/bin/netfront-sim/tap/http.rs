//! A web server for `curl`: as many bytes as one wants down, any number up, and their checksums.

use std::collections::VecDeque;

use crc32fast::Hasher;
use smoltcp::socket::tcp;
use xen_netfront::platform::Instant;

use crate::interrupt::Interrupt;
use crate::stream::{Digest, Source};

/// The longest request head.
const MAX_HEAD: usize = 8 << 10;
/// The most bytes of a download.
const MAX_BYTES: u64 = 1 << 40;
/// Transfers that are remembered.
const MEMORY: usize = 64;
/// The bytes of downloads come from here.
const SEED: u64 = 80;

const HELP: &str = "\
GET /N     N bytes
PUT /any   takes a body, answers with its length and its CRC-32
GET /sums  a line for each transfer: bytes and CRC-32
";

/// The transfers so far.
#[derive(Default)]
pub struct Log {
    lines: VecDeque<String>,
    /// Downloads, and their bytes.
    pub down: (u64, u64),
    /// Uploads, and their bytes.
    pub up: (u64, u64),
}

impl Log {
    fn add(&mut self, what: &str, digest: Digest) {
        if self.lines.len() == MEMORY {
            self.lines.pop_front();
        }
        self.lines.push_back(format!("{what} {} {:08x}\n", digest.bytes, digest.crc));
        let sum = if what == "down" { &mut self.down } else { &mut self.up };
        sum.0 += 1;
        sum.1 += digest.bytes;
    }
}

/// One request and its answer; then the connection is closed.
#[derive(Default)]
pub struct Exchange {
    /// The request's head, as much as there is.
    head: Vec<u8>,
    state: State,
}

#[derive(Default)]
enum State {
    /// The head is not complete.
    #[default]
    Head,
    /// The body comes.
    Body { left: u64, crc: Hasher, bytes: u64 },
    /// A short answer, sent so far.
    Answer { text: Vec<u8>, sent: usize, then: After },
}

enum After {
    /// More of the request.
    Body(u64),
    /// A download.
    Download(Box<Source>),
    /// No more.
    End,
}

/// What a request asks for.
enum Request {
    Download(u64),
    Upload { len: u64, asks: bool },
    Sums,
    Help,
    Bad(&'static str),
}

impl Exchange {
    /// Goes on as far as the socket lets it.
    pub fn pump(&mut self, socket: &mut tcp::Socket<'_>, log: &mut Log, now: Instant) {
        while self.step(socket, log, now) {}
    }

    /// True if there is more to do at once.
    fn step(&mut self, socket: &mut tcp::Socket<'_>, log: &mut Log, now: Instant) -> bool {
        match &mut self.state {
            State::Head => {
                let head = &mut self.head;
                let _ = socket.recv(|bytes| {
                    let len = bytes.len().min(MAX_HEAD - head.len());
                    head.extend_from_slice(&bytes[..len]);
                    (len, ())
                });
                match parse(&self.head) {
                    Some((request, head)) => {
                        let body = self.head.split_off(head);
                        self.begin(request, body, log);
                        true
                    }
                    None if self.head.len() == MAX_HEAD => {
                        self.answer("431 Request Header Fields Too Large", "", After::End);
                        true
                    }
                    None => {
                        if socket.state() == tcp::State::CloseWait {
                            socket.close();
                        }
                        false
                    }
                }
            }
            State::Body { left, crc, bytes } => {
                let _ = socket.recv(|new| {
                    let len = new.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                    crc.update(&new[..len]);
                    *left -= len as u64;
                    *bytes += len as u64;
                    (len, ())
                });
                if *left > 0 {
                    if socket.state() == tcp::State::CloseWait && !socket.can_recv() {
                        socket.abort();
                    }
                    return false;
                }
                let digest = Digest { bytes: *bytes, crc: crc.clone().finalize() };
                log.add("up", digest);
                let text = format!("{} {:08x}\n", digest.bytes, digest.crc);
                self.answer("200 OK", &text, After::End);
                true
            }
            State::Answer { text, sent, then } => {
                *sent += socket.send_slice(&text[*sent..]).unwrap_or(0);
                if *sent < text.len() {
                    return false;
                }
                match then {
                    After::Body(left) => {
                        self.state = State::Body { left: *left, crc: Hasher::new(), bytes: 0 };
                        true
                    }
                    After::Download(source) => {
                        let open = socket.may_send();
                        source.pump(socket, now);
                        if open && !socket.may_send() {
                            log.add("down", source.digest());
                        }
                        false
                    }
                    After::End => {
                        // Not earlier: see `Source::pump`.
                        if socket.send_queue() == 0 && socket.may_send() {
                            socket.close();
                        }
                        false
                    }
                }
            }
        }
    }

    /// Begins to answer; `body` came with the head.
    fn begin(&mut self, request: Request, body: Vec<u8>, log: &Log) {
        match request {
            Request::Download(bytes) => {
                let head = head("200 OK", bytes, "application/octet-stream");
                let source = Box::new(Source::new(SEED, Some(bytes), None, Interrupt::default()));
                self.send(head, After::Download(source));
            }
            Request::Upload { len, asks } if asks && body.is_empty() => {
                self.send("HTTP/1.1 100 Continue\r\n\r\n".to_owned(), After::Body(len));
            }
            Request::Upload { len, .. } => {
                let body = &body[..body.len().min(usize::try_from(len).unwrap_or(usize::MAX))];
                let (mut crc, bytes) = (Hasher::new(), body.len() as u64);
                crc.update(body);
                self.state = State::Body { left: len - bytes, crc, bytes };
            }
            Request::Sums => {
                let lines: String = log.lines.iter().map(String::as_str).collect();
                self.answer("200 OK", &lines, After::End);
            }
            Request::Help => self.answer("200 OK", HELP, After::End),
            Request::Bad(status) => self.answer(status, "", After::End),
        }
    }

    fn answer(&mut self, status: &str, text: &str, then: After) {
        let head = head(status, text.len() as u64, "text/plain");
        self.send(head + text, then);
    }

    fn send(&mut self, text: String, then: After) {
        self.state = State::Answer { text: text.into_bytes(), sent: 0, then };
    }
}

fn head(status: &str, len: u64, kind: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nContent-Length: {len}\r\nContent-Type: {kind}\r\n\
         Connection: close\r\n\r\n"
    )
}

/// What a request asks for, and the length of its head; `None` if there is more to come.
fn parse(bytes: &[u8]) -> Option<(Request, usize)> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut headers);
    let len = match request.parse(bytes) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => return None,
        Err(_) => return Some((Request::Bad("400 Bad Request"), bytes.len())),
    };
    let header = |name: &str| {
        let found = request.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
        core::str::from_utf8(found.value).ok()
    };
    let asked = match (request.method.unwrap_or_default(), request.path.unwrap_or_default()) {
        ("GET", "/") => Request::Help,
        ("GET", "/sums") => Request::Sums,
        ("GET", path) => match path.trim_start_matches('/').parse() {
            Ok(bytes) if bytes <= MAX_BYTES => Request::Download(bytes),
            _ => Request::Bad("404 Not Found"),
        },
        ("PUT" | "POST", _) => match header("content-length").map(str::parse) {
            Some(Ok(len)) => Request::Upload { len, asks: header("expect").is_some() },
            Some(Err(_)) => Request::Bad("400 Bad Request"),
            None => Request::Bad("411 Length Required"),
        },
        _ => Request::Bad("405 Method Not Allowed"),
    };
    Some((asked, len))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the request is taken for, in short.
    fn asks(text: &str) -> Option<String> {
        let (request, len) = parse(text.as_bytes())?;
        let what = match request {
            Request::Download(bytes) => format!("down {bytes}"),
            Request::Upload { len, asks } => format!("up {len} {asks}"),
            Request::Sums => "sums".to_owned(),
            Request::Help => "help".to_owned(),
            Request::Bad(status) => status[..3].to_owned(),
        };
        Some(format!("{what}, then {}", text.len() - len))
    }

    #[test]
    fn requests_are_understood() {
        for (text, what) in [
            ("GET / HTTP/1.1\r\n\r\n", "help, then 0"),
            ("GET /sums HTTP/1.1\r\nHost: x\r\n\r\n", "sums, then 0"),
            ("GET /52428800 HTTP/1.1\r\n\r\n", "down 52428800, then 0"),
            ("GET /0 HTTP/1.0\r\n\r\n", "down 0, then 0"),
            ("PUT /x HTTP/1.1\r\nContent-Length: 5\r\n\r\nab", "up 5 false, then 2"),
            (
                "POST / HTTP/1.1\r\ncontent-length: 5\r\nexpect: 100-continue\r\n\r\n",
                "up 5 true, then 0",
            ),
            ("PUT /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", "411, then 0"),
            ("PUT /x HTTP/1.1\r\nContent-Length: -1\r\n\r\n", "400, then 0"),
            ("GET /-1 HTTP/1.1\r\n\r\n", "404, then 0"),
            ("GET /99999999999999999999 HTTP/1.1\r\n\r\n", "404, then 0"),
            ("DELETE / HTTP/1.1\r\n\r\n", "405, then 0"),
            ("\0\r\n\r\n", "400, then 0"),
        ] {
            assert_eq!(asks(text).as_deref(), Some(what), "{text:?}");
        }
        for text in ["", "GET", "GET / HTTP/1.1\r\n", "PUT /x HTTP/1.1\r\nContent-Length: 5\r\n"] {
            assert_eq!(asks(text), None, "{text:?}: more is to come");
        }
    }
}
