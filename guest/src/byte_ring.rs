//! Bytes in a shared page that is only ever reached as whole 32-bit words: how the rings of
//! xenstore (xen/io/xs_wire.h) and the console (xen/io/console.h) are read and written.
//!
//! Indices count bytes for ever and wrap; an index modulo the ring's size is a place in it.

use core::ops::Range;
use core::sync::atomic::{AtomicU32, Ordering};

/// The indices of a ring as its peer left them make no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadIndex;

/// How many bytes lie between two indices, if that fits the ring.
fn distance(producer: u32, consumer: u32, size: u32) -> Result<u32, BadIndex> {
    let bytes = producer.wrapping_sub(consumer);
    if bytes <= size { Ok(bytes) } else { Err(BadIndex) }
}

/// The end of a ring that writes.
pub struct Producer<'a> {
    bytes: &'a [AtomicU32],
    produced: &'a AtomicU32,
    consumed: &'a AtomicU32,
    /// Our own index; the one in the page is only written.
    next: u32,
}

impl<'a> Producer<'a> {
    /// A ring over the words `bytes` of a page, a power of two of them, with its indices in two
    /// other words.
    pub fn new(
        page: &'a [AtomicU32],
        bytes: Range<usize>,
        produced: usize,
        consumed: usize,
    ) -> Self {
        let next = page[produced].load(Ordering::Relaxed);
        Producer { bytes: &page[bytes], produced: &page[produced], consumed: &page[consumed], next }
    }

    /// Writes as much of `data` as there is room for, and publishes it. How much that was.
    pub fn write(&mut self, data: &[u8]) -> Result<usize, BadIndex> {
        let size = self.bytes.len() as u32 * 4;
        let used = distance(self.next, self.consumed.load(Ordering::Acquire), size)?;
        let room = (size - used) as usize;
        let data = &data[..data.len().min(room)];
        for &byte in data {
            let place = (self.next % size) as usize;
            let word = &self.bytes[place / 4];
            let mut octets = word.load(Ordering::Relaxed).to_le_bytes();
            octets[place % 4] = byte;
            word.store(u32::from_le_bytes(octets), Ordering::Relaxed);
            self.next = self.next.wrapping_add(1);
        }
        self.produced.store(self.next, Ordering::SeqCst);
        Ok(data.len())
    }
}

/// The end of a ring that reads.
pub struct Consumer<'a> {
    bytes: &'a [AtomicU32],
    produced: &'a AtomicU32,
    consumed: &'a AtomicU32,
    /// Our own index; the one in the page is only written.
    next: u32,
}

impl<'a> Consumer<'a> {
    /// As [`Producer::new`].
    pub fn new(
        page: &'a [AtomicU32],
        bytes: Range<usize>,
        produced: usize,
        consumed: usize,
    ) -> Self {
        let next = page[consumed].load(Ordering::Relaxed);
        Consumer { bytes: &page[bytes], produced: &page[produced], consumed: &page[consumed], next }
    }

    /// Takes up to `buffer.len()` bytes. How many that were, and whether the ring was full before,
    /// so that its producer may be waiting for room.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<(usize, bool), BadIndex> {
        let size = self.bytes.len() as u32 * 4;
        let there = distance(self.produced.load(Ordering::Acquire), self.next, size)?;
        let count = buffer.len().min(there as usize);
        for byte in &mut buffer[..count] {
            let place = (self.next % size) as usize;
            let octets = self.bytes[place / 4].load(Ordering::Relaxed).to_le_bytes();
            *byte = octets[place % 4];
            self.next = self.next.wrapping_add(1);
        }
        self.consumed.store(self.next, Ordering::SeqCst);
        Ok((count, there == size))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page() -> Vec<AtomicU32> {
        (0..10).map(|_| AtomicU32::new(0)).collect()
    }

    #[test]
    fn bytes_arrive_in_order_over_every_wrap() {
        let page = page();
        for index in [8, 9] {
            page[index].store(u32::MAX - 100, Ordering::Relaxed);
        }
        let mut producer = Producer::new(&page, 0..8, 8, 9);
        let mut consumer = Consumer::new(&page, 0..8, 8, 9);
        let (mut sent, mut received) = (0u8, 0u8);
        for round in 0..200 {
            let data: Vec<u8> = (0..round % 13).map(|i| sent.wrapping_add(i)).collect();
            let written = producer.write(&data).unwrap();
            sent = sent.wrapping_add(written as u8);
            let mut buffer = [0; 7];
            let (read, _) = consumer.read(&mut buffer).unwrap();
            for &byte in &buffer[..read] {
                assert_eq!(byte, received);
                received = received.wrapping_add(1);
            }
        }
        assert!(received > 100);
    }

    #[test]
    fn a_full_ring_takes_no_more_and_says_so() {
        let page = page();
        let mut producer = Producer::new(&page, 0..8, 8, 9);
        let mut consumer = Consumer::new(&page, 0..8, 8, 9);
        assert_eq!(producer.write(&[1; 40]), Ok(32));
        assert_eq!(producer.write(&[2; 40]), Ok(0));
        assert_eq!(consumer.read(&mut [0; 1]), Ok((1, true)));
        assert_eq!(producer.write(&[2; 40]), Ok(1));
        assert_eq!(consumer.read(&mut [0; 31]), Ok((31, true)));
        assert_eq!(consumer.read(&mut [0; 9]), Ok((1, false)));
    }

    #[test]
    fn p3_indices_that_do_not_fit_the_ring_are_refused() {
        for wrong in [33, 1 << 31, u32::MAX] {
            let page = page();
            let mut producer = Producer::new(&page, 0..8, 8, 9);
            let mut consumer = Consumer::new(&page, 0..8, 8, 9);
            page[8].store(wrong, Ordering::Relaxed);
            page[9].store(0u32.wrapping_sub(wrong), Ordering::Relaxed);
            assert_eq!(producer.write(&[1]), Err(BadIndex));
            assert_eq!(consumer.read(&mut [0]), Err(BadIndex));
        }
    }

    #[test]
    fn f5_our_own_index_is_not_read_back() {
        let page = page();
        let mut producer = Producer::new(&page, 0..8, 8, 9);
        producer.write(&[1, 2, 3]).unwrap();
        page[8].store(77, Ordering::Relaxed);
        producer.write(&[4]).unwrap();
        assert_eq!(page[8].load(Ordering::Relaxed), 4);
        assert_eq!(page[0].load(Ordering::Relaxed), 0x0403_0201);
    }
}
