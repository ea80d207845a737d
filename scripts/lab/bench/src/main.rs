//! The traffic of `scripts/xen bench`, and the services of the Linux guest that ours is compared
//! with. It is linked statically, so that one file runs in both.
//!
//! ```text
//!  dom0                                        guest, Linux: `serve`      guest, ours: image echo
//!  in ADDR SECONDS    writes ───────────────►  discard 9, TCP             discard 9, TCP
//!  out ADDR SECONDS   reads, compares ◄──────  chargen 19, TCP            chargen 19, TCP
//!  udp ADDR SECONDS   requests, answers ◄───►  echo 7, UDP                echo 7, UDP
//!  numbers ADDR       reads ◄────────────────  its /proc/interrupts, 80   its metrics, HTTP 80
//! ```
//!
//! Clients print `NAME VALUE` lines, and fail if anything but the right bytes comes.

#![forbid(unsafe_code)]

mod serve;

use std::env;
use std::error::Error;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream, UdpSocket};
use std::process::ExitCode;
use std::time::{Duration, Instant};

type BenchResult = Result<(), Box<dyn Error>>;

const ECHO: u16 = 7;
const DISCARD: u16 = 9;
const CHARGEN: u16 = 19;
const HTTP: u16 = 80;

/// What one system call reads or writes, at most: a few of the largest packets.
const CHUNK: usize = 256 << 10;
/// All of chargen's text (RFC 864): 95 lines of 72 characters, each beginning one further on.
const LINE: usize = 74;
const CHARACTERS: usize = 95;
const TEXT: usize = LINE * CHARACTERS;
/// So much of what chargen sends is compared; the rest is only counted, for comparing costs time.
const COMPARED: usize = 256 << 10;
/// A transfer that is silent for so long has failed.
const SILENCE: Duration = Duration::from_secs(20);

/// Bytes of a datagram: its number, and a filling that depends on it.
const DATAGRAM: usize = 64;
/// Datagrams that wait for their answers at once.
const IN_FLIGHT: u64 = 32;
/// After so long without any answer, those in flight are lost.
const LOST: Duration = Duration::from_millis(200);

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let outcome = match words[..] {
        ["serve"] => serve::serve(),
        ["in", address, seconds] => parsed(seconds).and_then(|time| send(address, time)),
        ["out", address, seconds] => parsed(seconds).and_then(|time| receive(address, time)),
        ["udp", address, seconds] => parsed(seconds).and_then(|time| exchange(address, time)),
        ["numbers", address] => numbers(address),
        _ => Err("usage: bench serve | (in | out | udp) ADDR SECONDS | numbers ADDR".into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parsed(seconds: &str) -> Result<Duration, Box<dyn Error>> {
    Ok(Duration::try_from_secs_f64(seconds.parse()?)?)
}

fn connect(address: &str, port: u16) -> Result<TcpStream, Box<dyn Error>> {
    let stream = TcpStream::connect((address, port))?;
    stream.set_read_timeout(Some(SILENCE))?;
    stream.set_write_timeout(Some(SILENCE))?;
    Ok(stream)
}

/// Chargen's text, from its beginning, `len` bytes of it.
fn text(len: usize) -> Vec<u8> {
    let byte = |at: usize| match (at / LINE, at % LINE) {
        (_, 72) => b'\r',
        (_, 73) => b'\n',
        (line, column) => b' ' + ((line + column) % CHARACTERS) as u8,
    };
    (0..TEXT).map(byte).cycle().take(len).collect()
}

// --- Clients ------------------------------------------------------------------

/// Writes for so long. The time ends when the peer has closed its side, too: it has all by then.
fn send(address: &str, time: Duration) -> BenchResult {
    let mut stream = connect(address, DISCARD)?;
    let data = text(CHUNK);
    let (start, mut sent) = (Instant::now(), 0);
    while start.elapsed() < time {
        sent += stream.write(&data)?;
    }
    stream.shutdown(Shutdown::Write)?;
    if stream.read(&mut [0])? != 0 {
        return Err("discard has answered".into());
    }
    report(sent, start)
}

/// Reads for so long.
fn receive(address: &str, time: Duration) -> BenchResult {
    let mut stream = connect(address, CHARGEN)?;
    let expected = text(COMPARED);
    let mut data = vec![0; CHUNK];
    let (start, mut received) = (Instant::now(), 0);
    while start.elapsed() < time {
        let count = stream.read(&mut data)?;
        if count == 0 {
            return Err("chargen has closed".into());
        }
        let left = &expected[received.min(COMPARED)..];
        let compared = count.min(left.len());
        if data[..compared] != left[..compared] {
            return Err(format!("chargen's text is wrong after {received} bytes").into());
        }
        received += count;
    }
    if received < COMPARED {
        return Err(format!("{received} bytes are too few to compare").into());
    }
    report(received, start)
}

fn report(bytes: usize, start: Instant) -> BenchResult {
    println!("bytes {bytes}\nseconds {:.6}", start.elapsed().as_secs_f64());
    Ok(())
}

/// Datagram `number`: no two are alike.
fn datagram(number: u64) -> [u8; DATAGRAM] {
    let mut bytes = [number as u8; DATAGRAM];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    bytes
}

/// Sends requests for so long, a new one for each answer.
fn exchange(address: &str, time: Duration) -> BenchResult {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect((address, ECHO))?;
    socket.set_read_timeout(Some(LOST))?;
    // A bit for each in flight, by its number: an answer counts once.
    let (mut next, mut waiting, mut answered, mut lost) = (0u64, 0u32, 0u64, 0u64);
    let mut data = [0; 2 * DATAGRAM];
    let start = Instant::now();
    while start.elapsed() < time {
        while waiting >> (next % IN_FLIGHT) & 1 == 0 {
            socket.send(&datagram(next))?;
            waiting |= 1 << (next % IN_FLIGHT);
            next += 1;
        }
        match socket.recv(&mut data) {
            Ok(count) => {
                let mut name = [0; 8];
                name.copy_from_slice(&data[..8]);
                let number = u64::from_le_bytes(name);
                if data[..count] != datagram(number) || number >= next {
                    return Err("a datagram came back that was never sent".into());
                }
                if next - number > IN_FLIGHT {
                    // Given up before, and here after all.
                    continue;
                }
                answered += u64::from(waiting >> (number % IN_FLIGHT) & 1);
                waiting &= !(1 << (number % IN_FLIGHT));
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                lost += u64::from(waiting.count_ones());
                waiting = 0;
            }
            Err(error) => return Err(error.into()),
        }
    }
    if answered == 0 {
        return Err("no datagram was answered".into());
    }
    println!("packets {answered}\nlost {lost}\nseconds {:.6}", start.elapsed().as_secs_f64());
    Ok(())
}

/// Prints what the guest counts.
fn numbers(address: &str) -> BenchResult {
    let mut stream = connect(address, HTTP)?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: guest\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("the answer has no head")?;
    if !head.starts_with("HTTP/1.1 200 ") {
        return Err(format!("the answer is {head:?}").into());
    }
    print!("{body}");
    Ok(())
}
