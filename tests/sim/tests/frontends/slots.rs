//! Ids of requests, and how packets are cut into them.

use std::collections::VecDeque;

use xen_grant::PAGE_SIZE;

/// Where a frontend takes its ids from.
#[derive(Clone, Copy, Debug)]
pub enum Ids {
    /// A stack of free ones, the first on top; what is answered last is used next.
    Stack { first: u16, last: u16 },
    /// A queue of free ones.
    Queue(u16),
    /// Counts on, skipping those in use, and wraps.
    Counting(u16),
    /// The slot's number.
    Slot,
    /// The buffer's number.
    Buffer,
}

/// Ids that are free.
pub struct Free {
    ids: Ids,
    free: VecDeque<u16>,
    next: u16,
}

impl Free {
    pub fn new(ids: Ids) -> Free {
        let (free, next) = match ids {
            Ids::Stack { first, last } if first <= last => ((first..=last).collect(), 0),
            Ids::Stack { first, last } => ((last..=first).rev().collect(), 0),
            Ids::Queue(count) => ((0..count).collect(), 0),
            Ids::Counting(from) => (VecDeque::new(), from),
            Ids::Slot | Ids::Buffer => (VecDeque::new(), 0),
        };
        Free { ids, free, next }
    }

    pub fn take(&mut self, index: u32, buffer: u16, in_use: impl Fn(u16) -> bool) -> u16 {
        match self.ids {
            Ids::Stack { .. } | Ids::Queue(_) => self.free.pop_front().expect("an id is free"),
            Ids::Counting(_) => loop {
                let id = self.next;
                self.next = self.next.wrapping_add(1);
                if !in_use(id) {
                    break id;
                }
            },
            Ids::Slot => (index % 256) as u16,
            Ids::Buffer => buffer,
        }
    }

    pub fn give(&mut self, id: u16) {
        match self.ids {
            Ids::Stack { .. } => self.free.push_front(id),
            Ids::Queue(_) => self.free.push_back(id),
            Ids::Counting(_) | Ids::Slot | Ids::Buffer => {}
        }
    }
}

/// A piece of a packet, for one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Where in its page, or half page.
    pub at: usize,
    pub len: usize,
    /// In the page of the piece before, which is granted a second time.
    pub same_page: bool,
    /// With the id of the piece before.
    pub same_id: bool,
}

impl Cut {
    pub fn new(at: usize, len: usize) -> Cut {
        Cut { at, len, same_page: false, same_id: false }
    }
}

/// Bytes that lie in one piece of memory, from `at` in its first page on.
pub fn contiguous(at: usize, len: usize) -> Vec<Cut> {
    let mut cuts = Vec::new();
    let (mut at, mut left) = (at, len);
    while left > 0 {
        let part = left.min(PAGE_SIZE - at);
        cuts.push(Cut::new(at, part));
        left -= part;
        at = 0;
    }
    cuts
}

/// Where something of this length may begin, so that many packets try many places.
pub fn somewhere(bytes: &[u8], room: usize) -> usize {
    let sum: usize = bytes.iter().take(40).map(|byte| usize::from(*byte)).sum();
    (sum * 7 + bytes.len()) % room.max(1)
}

/// The length of the headers, if it is TCP or UDP; else of Ethernet's.
pub fn headers(bytes: &[u8]) -> usize {
    let ip = match bytes.get(12..14) {
        Some([0x08, 0x00]) => 20,
        Some([0x86, 0xdd]) => 40,
        _ => return 14.min(bytes.len()),
    };
    let protocol = bytes.get(if ip == 20 { 23 } else { 20 });
    let transport = match protocol {
        Some(6) => 20,
        Some(17) => 8,
        _ => 0,
    };
    (14 + ip + transport).min(bytes.len())
}
