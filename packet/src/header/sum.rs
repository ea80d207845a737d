//! The Internet checksum: a one's complement sum of 16-bit words (RFC 1071).
//!
//! The sum of bytes in pieces is the sum of the pieces' sums. A piece that starts at an odd place
//! has its bytes in the other half of each word, which swaps the bytes of its sum (RFC 1071,
//! section 2 (B)); the same property lets us add words as the machine has them and swap once.

/// A running sum over bytes that come in pieces of any length.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    value: u16,
    /// Whether an odd number of bytes has been added.
    odd: bool,
}

impl Sum {
    /// The sum of some bytes.
    #[inline]
    pub fn of(bytes: &[u8]) -> Sum {
        let mut sum = Sum::default();
        sum.add(bytes);
        sum
    }

    /// The sum of a TCP, UDP (RFC 9293, section 3.1; RFC 768) pseudo-header over IPv4; `len` is
    /// that of header and data.
    pub fn pseudo_v4(source: [u8; 4], destination: [u8; 4], protocol: u8, len: u16) -> Sum {
        let mut sum = Sum::of(&source);
        sum.add(&destination);
        sum.add(&[0, protocol]);
        sum.add(&len.to_be_bytes());
        sum
    }

    /// The sum of a pseudo-header over IPv6 (RFC 8200, section 8.1).
    pub fn pseudo_v6(source: [u8; 16], destination: [u8; 16], protocol: u8, len: u32) -> Sum {
        let mut sum = Sum::of(&source);
        sum.add(&destination);
        sum.add(&len.to_be_bytes());
        sum.add(&[0, 0, 0, protocol]);
        sum
    }

    /// Adds the bytes that come next.
    #[inline]
    pub fn add(&mut self, bytes: &[u8]) {
        let sum = sum_of(bytes);
        self.value = plus(self.value, if self.odd { sum.swap_bytes() } else { sum });
        self.odd ^= bytes.len() % 2 == 1;
    }

    /// The sum: what a blank checksum field holds, if these bytes are the pseudo-header.
    #[inline]
    pub fn value(self) -> u16 {
        self.value
    }

    /// The complement of the sum: what goes into the checksum field, if that was zero.
    #[inline]
    pub fn checksum(self) -> u16 {
        !self.value
    }

    /// Whether bytes summed with their checksum field are as they were sent.
    #[inline]
    pub fn is_right(self) -> bool {
        self.value == u16::MAX
    }
}

/// One's complement addition.
#[inline]
pub(crate) fn plus(a: u16, b: u16) -> u16 {
    let (sum, carry) = a.overflowing_add(b);
    sum + u16::from(carry)
}

/// Sums of less than this many bytes fit into 64 bits, far from it.
const RUN: usize = 1 << 20;

fn sum_of(bytes: &[u8]) -> u16 {
    bytes.chunks(RUN).fold(0, |sum, run| plus(sum, sum_of_run(run)))
}

#[inline]
fn sum_of_run(bytes: &[u8]) -> u16 {
    let (words, rest) = bytes.as_chunks::<4>();
    let mut last = [0; 4];
    for (to, from) in last.iter_mut().zip(rest) {
        *to = *from;
    }
    let sum = words.iter().fold(u64::from(u32::from_ne_bytes(last)), |sum, word| {
        sum + u64::from(u32::from_ne_bytes(*word))
    });
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    u16::from_be((sum + (sum >> 16)) as u16)
}
