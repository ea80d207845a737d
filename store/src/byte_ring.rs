//! Bytes in a shared page that is only ever reached as whole 32-bit words: how the rings of
//! xenstore (xen/io/xs_wire.h) and the console (xen/io/console.h) are read and written.
//!
//! Indices count bytes for ever and wrap; an index modulo the ring's size is a place in it.
//!
//! Nothing here allocates, blocks or takes a lock: whoever has an end may use it in an interrupt too.

use core::sync::atomic::{AtomicU32, Ordering};

/// The indices of a ring as its peer left them make no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadIndex;

impl core::fmt::Display for BadIndex {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("the indices of a ring of bytes make no sense")
    }
}

impl core::error::Error for BadIndex {}

/// A page, as words that the other side may write at any moment.
pub type Words = [AtomicU32; 1024];

/// Where a ring lies in its page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    first: usize,
    words: usize,
    produced: usize,
    consumed: usize,
}

impl Layout {
    /// A ring whose bytes are `words` words from the word `first` on, with its producer's index in
    /// the word `produced` and its consumer's in `consumed`.
    ///
    /// # Panics
    ///
    /// If that is not all within a page, or the size is no power of two. A layout that is a constant
    /// does not compile then.
    pub const fn new(first: usize, words: usize, produced: usize, consumed: usize) -> Layout {
        assert!(words.is_power_of_two() && words <= 1024 && first <= 1024 - words);
        assert!(produced < 1024 && consumed < 1024);
        Layout { first, words, produced, consumed }
    }

    /// Bytes that the ring holds.
    pub const fn size(&self) -> usize {
        self.words * 4
    }

    /// The word in which the byte with this index is, and which of its four it is.
    fn place(&self, index: u32) -> (usize, usize) {
        let byte = index as usize % self.size();
        (self.first + byte / 4, byte % 4)
    }

    /// How many bytes lie between two indices, if that fits the ring.
    fn distance(&self, producer: u32, consumer: u32) -> Result<usize, BadIndex> {
        let bytes = producer.wrapping_sub(consumer) as usize;
        if bytes <= self.size() { Ok(bytes) } else { Err(BadIndex) }
    }
}

/// The end of a ring that writes.
#[derive(Debug)]
pub struct Producer {
    layout: Layout,
    /// Our own index; the one in the page is only written.
    next: u32,
}

impl Producer {
    /// Goes on where the page's index says that somebody before us has stopped.
    pub fn new(page: &Words, layout: Layout) -> Producer {
        Producer { layout, next: page[layout.produced].load(Ordering::Relaxed) }
    }

    /// Writes as much of `data` as there is room for, and publishes it; `page` is the one that the
    /// ring was made with. How much that was.
    pub fn write(&mut self, page: &Words, data: &[u8]) -> Result<usize, BadIndex> {
        let consumed = page[self.layout.consumed].load(Ordering::Acquire);
        let room = self.layout.size() - self.layout.distance(self.next, consumed)?;
        let data = &data[..data.len().min(room)];
        for &byte in data {
            let (word, octet) = self.layout.place(self.next);
            let mut octets = page[word].load(Ordering::Relaxed).to_le_bytes();
            octets[octet] = byte;
            page[word].store(u32::from_le_bytes(octets), Ordering::Relaxed);
            self.next = self.next.wrapping_add(1);
        }
        page[self.layout.produced].store(self.next, Ordering::SeqCst);
        Ok(data.len())
    }
}

/// The end of a ring that reads.
#[derive(Debug)]
pub struct Consumer {
    layout: Layout,
    /// Our own index; the one in the page is only written.
    next: u32,
}

impl Consumer {
    /// As [`Producer::new`].
    pub fn new(page: &Words, layout: Layout) -> Consumer {
        Consumer { layout, next: page[layout.consumed].load(Ordering::Relaxed) }
    }

    /// Takes up to `buffer.len()` bytes; `page` is the one that the ring was made with. How many that
    /// were, and whether the ring was full before, so that its producer may be waiting for room.
    pub fn read(&mut self, page: &Words, buffer: &mut [u8]) -> Result<(usize, bool), BadIndex> {
        let produced = page[self.layout.produced].load(Ordering::Acquire);
        let there = self.layout.distance(produced, self.next)?;
        let count = buffer.len().min(there);
        for byte in &mut buffer[..count] {
            let (word, octet) = self.layout.place(self.next);
            *byte = page[word].load(Ordering::Relaxed).to_le_bytes()[octet];
            self.next = self.next.wrapping_add(1);
        }
        page[self.layout.consumed].store(self.next, Ordering::SeqCst);
        Ok((count, there == self.layout.size()))
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    /// 32 bytes, and its indices right behind them.
    const SMALL: Layout = Layout::new(0, 8, 8, 9);

    fn page() -> Words {
        [const { AtomicU32::new(0) }; 1024]
    }

    fn ends(page: &Words) -> (Producer, Consumer) {
        (Producer::new(page, SMALL), Consumer::new(page, SMALL))
    }

    #[test]
    fn bytes_arrive_in_order_over_every_wrap() {
        let page = page();
        for index in [8, 9] {
            page[index].store(u32::MAX - 100, Ordering::Relaxed);
        }
        let (mut producer, mut consumer) = ends(&page);
        let (mut sent, mut received) = (0u8, 0u8);
        for round in 0..200 {
            let data: Vec<u8> = (0..round % 13).map(|i| sent.wrapping_add(i)).collect();
            let written = producer.write(&page, &data).unwrap();
            sent = sent.wrapping_add(written as u8);
            let mut buffer = [0; 7];
            let (read, _) = consumer.read(&page, &mut buffer).unwrap();
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
        let (mut producer, mut consumer) = ends(&page);
        assert_eq!(producer.write(&page, &[1; 40]), Ok(32));
        assert_eq!(producer.write(&page, &[2; 40]), Ok(0));
        assert_eq!(consumer.read(&page, &mut [0; 1]), Ok((1, true)));
        assert_eq!(producer.write(&page, &[2; 40]), Ok(1));
        assert_eq!(consumer.read(&page, &mut [0; 31]), Ok((31, true)));
        assert_eq!(consumer.read(&page, &mut [0; 9]), Ok((1, false)));
    }

    #[test]
    fn p3_indices_that_do_not_fit_the_ring_are_refused() {
        for wrong in [33, 1 << 31, u32::MAX] {
            let page = page();
            let (mut producer, mut consumer) = ends(&page);
            page[8].store(wrong, Ordering::Relaxed);
            page[9].store(0u32.wrapping_sub(wrong), Ordering::Relaxed);
            assert_eq!(producer.write(&page, &[1]), Err(BadIndex));
            assert_eq!(consumer.read(&page, &mut [0]), Err(BadIndex));
        }
    }

    #[test]
    fn f5_our_own_index_is_not_read_back() {
        let page = page();
        let mut producer = Producer::new(&page, SMALL);
        producer.write(&page, &[1, 2, 3]).unwrap();
        page[8].store(77, Ordering::Relaxed);
        producer.write(&page, &[4]).unwrap();
        assert_eq!(page[8].load(Ordering::Relaxed), 4);
        assert_eq!(page[0].load(Ordering::Relaxed), 0x0403_0201);
    }
}
