//! A stream of bytes made from the seed: one end fills, the other compares.

use crc32fast::Hasher;
use smoltcp::socket::tcp;
use xen_netfront::platform::Instant;

use crate::interrupt::Interrupt;

/// The bytes of a stream, from its start on. Both ends make the same.
struct Pattern {
    seed: u64,
    at: u64,
}

impl Pattern {
    /// The eight bytes around the current position (splitmix64 of their number).
    fn word(&self) -> [u8; 8] {
        let mut word = self.seed.wrapping_add((self.at / 8).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (word ^ word >> 31).to_le_bytes()
    }

    /// Runs through the next `len` bytes, in pieces of at most eight.
    fn advance(&mut self, len: usize, mut piece: impl FnMut(usize, &[u8])) {
        let mut done = 0;
        while done < len {
            let word = self.word();
            let word = &word[(self.at % 8) as usize..];
            let word = &word[..word.len().min(len - done)];
            piece(done, word);
            done += word.len();
            self.at += word.len() as u64;
        }
    }
}

/// What one end has seen of a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest {
    /// Bytes.
    pub bytes: u64,
    /// Their CRC-32.
    pub crc: u32,
}

/// The sending end.
pub struct Source {
    pattern: Pattern,
    crc: Hasher,
    /// Where it ends; `None`: at the deadline.
    end: Option<u64>,
    deadline: Option<Instant>,
    interrupt: Interrupt,
}

impl Source {
    /// A stream of `end` bytes, cut short at the deadline or by an interrupt.
    pub fn new(
        seed: u64,
        end: Option<u64>,
        deadline: Option<Instant>,
        interrupt: Interrupt,
    ) -> Source {
        Source { pattern: Pattern { seed, at: 0 }, crc: Hasher::new(), end, deadline, interrupt }
    }

    /// Sends what the socket takes, and closes it when the last byte has been acknowledged.
    ///
    /// Not earlier: smoltcp 0.14 never repeats a FIN if three duplicate acknowledgements come when
    /// all data has been acknowledged but the FIN (its timer stops, with nothing to send again).
    pub fn pump(&mut self, socket: &mut tcp::Socket<'_>, now: Instant) {
        while socket.can_send() {
            let sent = socket.send(|room| {
                let left = self.left(now);
                let len = room.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                let room = &mut room[..len];
                self.pattern.advance(len, |at, piece| {
                    room[at..at + piece.len()].copy_from_slice(piece);
                });
                self.crc.update(room);
                (len, len)
            });
            if !sent.is_ok_and(|sent| sent > 0) {
                break;
            }
        }
        if self.left(now) == 0 && socket.may_send() && socket.send_queue() == 0 {
            socket.close();
        }
    }

    fn left(&self, now: Instant) -> u64 {
        if self.interrupt.is_told() {
            return 0;
        }
        match (self.end, self.deadline) {
            (_, Some(deadline)) if now >= deadline => 0,
            (Some(end), _) => end - self.pattern.at,
            (None, _) => u64::MAX,
        }
    }

    /// When it ends for want of time.
    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        self.deadline.filter(|&deadline| now < deadline)
    }

    /// What it has sent.
    pub fn digest(&self) -> Digest {
        Digest { bytes: self.pattern.at, crc: self.crc.clone().finalize() }
    }
}

/// The receiving end.
pub struct Sink {
    pattern: Pattern,
    crc: Hasher,
    first_wrong: Option<u64>,
    ended: bool,
}

impl Sink {
    /// Expects the stream of the same seed.
    pub fn new(seed: u64) -> Sink {
        Sink {
            pattern: Pattern { seed, at: 0 },
            crc: Hasher::new(),
            first_wrong: None,
            ended: false,
        }
    }

    /// Takes and compares what has arrived; closes the socket when the other end has.
    pub fn drain(&mut self, socket: &mut tcp::Socket<'_>) {
        while socket.can_recv() {
            let _ = socket.recv(|bytes| {
                self.compare(bytes);
                (bytes.len(), ())
            });
        }
        match socket.state() {
            tcp::State::CloseWait => {
                self.ended = true;
                socket.close();
            }
            // Given up. What arrived shows whether something is missing.
            tcp::State::Closed => self.ended = true,
            _ => {}
        }
    }

    fn compare(&mut self, bytes: &[u8]) {
        let start = self.pattern.at;
        let mut wrong = None;
        self.pattern.advance(bytes.len(), |at, piece| {
            if wrong.is_none() && bytes[at..at + piece.len()] != *piece {
                wrong = Some(start + at as u64);
            }
        });
        self.first_wrong = self.first_wrong.or(wrong);
        self.crc.update(bytes);
    }

    /// Bytes received.
    pub fn bytes(&self) -> u64 {
        self.pattern.at
    }

    /// Whether the other end has closed.
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// Where, to within eight bytes, something else came than was expected.
    pub fn first_wrong(&self) -> Option<u64> {
        self.first_wrong
    }

    /// What it has received.
    pub fn digest(&self) -> Digest {
        Digest { bytes: self.pattern.at, crc: self.crc.clone().finalize() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(seed: u64, cuts: &[usize]) -> Vec<u8> {
        let mut pattern = Pattern { seed, at: 0 };
        let mut all = Vec::new();
        for &len in cuts {
            pattern.advance(len, |_, piece| all.extend_from_slice(piece));
        }
        all
    }

    #[test]
    fn the_pattern_is_the_same_however_it_is_cut() {
        assert_eq!(bytes(7, &[40]), bytes(7, &[1, 2, 3, 8, 0, 15, 11]));
        assert_ne!(bytes(7, &[40]), bytes(8, &[40]));
    }

    #[test]
    fn a_sink_finds_the_first_wrong_byte() {
        let mut good = bytes(3, &[100]);
        let mut sink = Sink::new(3);
        sink.compare(&good[..33]);
        sink.compare(&good[33..]);
        assert_eq!(sink.first_wrong(), None);
        good[70] ^= 1;
        let mut sink = Sink::new(3);
        sink.compare(&good);
        assert_eq!(sink.first_wrong(), Some(64));
    }
}
