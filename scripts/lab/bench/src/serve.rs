//! The services of the Linux guest, each in the way that costs Linux least: what discard throws away
//! is not copied; what chargen says is copied in large pieces, which is cheaper for it than sendfile,
//! whose single pages are a fragment each.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::thread;

use rustix::net::{RecvFlags, recv};

use super::{BenchResult, CHARGEN, CHUNK, DISCARD, ECHO, HTTP, TEXT, text};

/// What discard throws away by one system call, at most.
const GULP: usize = 1 << 20;

/// Serves for ever.
pub fn serve() -> BenchResult {
    listen(DISCARD, |stream| {
        let mut nothing = vec![0; GULP];
        // With this flag TCP takes bytes out of its queue and leaves the buffer alone.
        while recv(&stream, &mut nothing[..], RecvFlags::TRUNC)?.1 > 0 {}
        Ok(())
    })?;
    listen(CHARGEN, |mut stream| {
        // A whole number of texts, so that one follows the other.
        let data = text(CHUNK / TEXT * TEXT);
        loop {
            stream.write_all(&data)?;
        }
    })?;
    listen(HTTP, |mut stream| {
        let mut request = [0; 4096];
        let _ = stream.read(&mut request)?;
        let body = fs::read("/proc/interrupts")?;
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len())?;
        stream.write_all(&body)?;
        Ok(())
    })?;
    let socket = UdpSocket::bind(("0.0.0.0", ECHO))?;
    let mut data = vec![0; 1 << 16];
    loop {
        let (count, from) = socket.recv_from(&mut data)?;
        socket.send_to(&data[..count], from)?;
    }
}

/// A thread for the port, and one for each connection. A connection's error is its end.
fn listen(port: u16, service: fn(TcpStream) -> BenchResult) -> BenchResult {
    let listener = TcpListener::bind(("0.0.0.0", port))?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || drop(service(stream)));
        }
    });
    Ok(())
}
