//! HTTP on port 80: `/`, a page to look at, and `/metrics`, the same numbers for Prometheus.
//!
//! A request is read as far as its empty line, answered, and the connection closed. What is being
//! answered shows all vifs, and a connection belongs to one of them: so a connection that needs the
//! numbers says so ([`Http::wants_status`]), and gets them in its next turn.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use httparse::{EMPTY_HEADER, Error, Request, Status as Parsed};
use smoltcp::socket::tcp::Socket;
use smoltcp::time::Duration;

use super::listener::Connection;
use super::status::Status;
use super::{metrics, page};

/// Bytes that a request may have.
const LONGEST: usize = 4096;
/// Lines that its head may have.
const HEADERS: usize = 64;

/// One request and its answer.
#[derive(Default)]
pub enum Http {
    /// Its head is not complete yet.
    #[default]
    Waiting,
    /// So much of the head is there.
    Reading(Vec<u8>),
    /// The numbers are to be shown like this.
    Asked(View),
    /// The answer, and how much of it has been handed to the socket.
    Answering(Vec<u8>, usize),
}

/// How to show the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    what: What,
    /// `HEAD`: the answer's head, without its body.
    head_only: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Page,
    Metrics,
}

impl Http {
    /// Whether it can go on only with the numbers.
    pub fn wants_status(&self) -> bool {
        matches!(self, Http::Asked(_))
    }
}

impl Connection for Http {
    const PORT: u16 = 80;
    const IDLE: Duration = Duration::from_secs(10);
    /// The numbers, when a connection has asked for them.
    type Shared<'a> = Option<&'a Status>;

    fn turn(&mut self, socket: &mut Socket<'_>, status: &mut Option<&Status>) -> bool {
        match self {
            Http::Waiting => {
                *self = Http::Reading(Vec::new());
                self.turn(socket, status)
            }
            Http::Reading(head) => {
                let received = receive(socket, head);
                *self = match parse(head) {
                    Ok(Some(view)) => Http::Asked(view),
                    Err(refusal) => Http::Answering(refusal.answer(), 0),
                    // It will not become more.
                    Ok(None) if !socket.may_recv() => {
                        socket.close();
                        return received;
                    }
                    Ok(None) => return received,
                };
                true
            }
            Http::Asked(view) => {
                let Some(status) = status else { return false };
                *self = Http::Answering(view.answer(status), 0);
                self.turn(socket, &mut None);
                true
            }
            Http::Answering(answer, sent) => {
                // What else the client says is not of interest, but must not fill its window.
                let mut moved = receive(socket, &mut Vec::new());
                while socket.can_send() {
                    let Some(rest) = answer.get(*sent..) else { break };
                    let Ok(count @ 1..) = socket.send_slice(rest) else { break };
                    *sent += count;
                    moved = true;
                }
                if *sent == answer.len() && socket.may_send() {
                    socket.close();
                    moved = true;
                }
                moved
            }
        }
    }
}

/// Takes what has come, up to the longest request; whether there was anything.
fn receive(socket: &mut Socket<'_>, head: &mut Vec<u8>) -> bool {
    let mut received = false;
    while socket.can_recv() {
        let count = socket.recv(|bytes| {
            let room = LONGEST.saturating_sub(head.len());
            head.extend(bytes.iter().take(room));
            (bytes.len(), bytes.len())
        });
        let Ok(1..) = count else { break };
        received = true;
    }
    received
}

/// A request that is not answered as it would like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HttpError {
    BadRequest,
    NotFound,
    Method,
    TooLong,
}

/// What a request asks for; `None` while its head is not complete.
fn parse(head: &[u8]) -> Result<Option<View>, HttpError> {
    let mut headers = [EMPTY_HEADER; HEADERS];
    let mut request = Request::new(&mut headers);
    match request.parse(head) {
        Ok(Parsed::Complete(_)) => {}
        Ok(Parsed::Partial) if head.len() < LONGEST => return Ok(None),
        Ok(Parsed::Partial) | Err(Error::TooManyHeaders) => return Err(HttpError::TooLong),
        Err(_) => return Err(HttpError::BadRequest),
    }
    let head_only = match request.method {
        Some("GET") => false,
        Some("HEAD") => true,
        _ => return Err(HttpError::Method),
    };
    let path = request.path.unwrap_or_default();
    let path = path.split_once('?').map_or(path, |(path, _query)| path);
    let what = match path {
        "/" => What::Page,
        "/metrics" => What::Metrics,
        _ => return Err(HttpError::NotFound),
    };
    Ok(Some(View { what, head_only }))
}

impl View {
    fn answer(self, status: &Status) -> Vec<u8> {
        let (kind, body) = match self.what {
            What::Page => ("text/html; charset=utf-8", page::render(status)),
            What::Metrics => ("text/plain; version=0.0.4; charset=utf-8", metrics::render(status)),
        };
        answer("200 OK", kind, &body, self.head_only)
    }
}

impl HttpError {
    fn answer(self) -> Vec<u8> {
        let (status, text) = match self {
            HttpError::BadRequest => ("400 Bad Request", "This is not HTTP.\n"),
            HttpError::NotFound => ("404 Not Found", "There is / and /metrics.\n"),
            HttpError::Method => ("405 Method Not Allowed\r\nAllow: GET, HEAD", "GET or HEAD.\n"),
            HttpError::TooLong => ("431 Request Header Fields Too Large", "Shorter, please.\n"),
        };
        answer(status, "text/plain; charset=utf-8", text, false)
    }
}

fn answer(status: &str, kind: &str, body: &str, head_only: bool) -> Vec<u8> {
    let mut answer: String = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\
         Cache-Control: no-store\r\nConnection: close\r\n\r\n",
        body.len()
    );
    if !head_only {
        answer.push_str(body);
    }
    answer.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(what: What) -> Result<Option<View>, HttpError> {
        Ok(Some(View { what, head_only: false }))
    }

    #[test]
    fn requests_as_browsers_and_prometheus_send_them() {
        let page = b"GET / HTTP/1.1\r\nHost: 10.0.0.2\r\nAccept: text/html\r\n\r\n";
        assert_eq!(parse(page), view(What::Page));
        assert_eq!(parse(b"GET /metrics?all=1 HTTP/1.0\r\n\r\n"), view(What::Metrics));
        let head = View { what: What::Page, head_only: true };
        assert_eq!(parse(b"HEAD / HTTP/1.1\r\n\r\n"), Ok(Some(head)));
        // However it is cut.
        for end in 0..page.len() {
            assert_eq!(parse(&page[..end]), Ok(None));
        }
    }

    #[test]
    fn what_is_not_served_is_refused() {
        assert_eq!(parse(b"GET /favicon.ico HTTP/1.1\r\n\r\n"), Err(HttpError::NotFound));
        assert_eq!(parse(b"POST / HTTP/1.1\r\n\r\n"), Err(HttpError::Method));
        assert_eq!(parse(b"\x16\x03\x01\x02\x00\x01"), Err(HttpError::BadRequest));
        assert_eq!(parse(&[b'G'; LONGEST]), Err(HttpError::TooLong));
        let many = [&b"GET / HTTP/1.1\r\n"[..], &b"A: b\r\n".repeat(65), b"\r\n"].concat();
        assert_eq!(parse(&many), Err(HttpError::TooLong));
    }

    #[test]
    fn an_answer_has_the_length_it_says() {
        let answer = HttpError::Method.answer();
        let text = core::str::from_utf8(&answer).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 405 Method Not Allowed\r\nAllow: GET, HEAD\r\n"));
        assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())));
    }
}
