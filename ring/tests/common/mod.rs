//! Pages for tests: one that counts, one that changes under the reader.
#![allow(dead_code, missing_docs)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering, fence};

use xen_ring::{Protocol, RingPage};

/// Messages as netif's transmit ring has them: 3 words asked, 1 answered, 256 slots.
pub enum Net {}

impl Protocol for Net {
    type Request = [u32; 3];
    type Response = [u32; 1];
}

/// A page that both ends of a test share, with a count of the loads and stores of each word.
#[derive(Clone)]
pub struct Page(Arc<Inner>);

struct Inner {
    words: [AtomicU32; 1024],
    loads: [AtomicU32; 1024],
    stores: [AtomicU32; 1024],
    /// Added to a word at every load: the memory of a peer that never stops writing.
    drift: AtomicU32,
}

impl Page {
    pub fn filled(value: u32) -> Page {
        let words = || std::array::from_fn(|_| AtomicU32::new(0));
        Page(Arc::new(Inner {
            words: std::array::from_fn(|_| AtomicU32::new(value)),
            loads: words(),
            stores: words(),
            drift: AtomicU32::new(0),
        }))
    }

    pub fn zeroed() -> Page {
        Page::filled(0)
    }

    pub fn get(&self, word: usize) -> u32 {
        self.0.words[word].load(Ordering::SeqCst)
    }

    pub fn set(&self, word: usize, value: u32) {
        self.0.words[word].store(value, Ordering::SeqCst);
    }

    pub fn loads(&self, word: usize) -> u32 {
        self.0.loads[word].load(Ordering::SeqCst)
    }

    pub fn stores(&self, word: usize) -> u32 {
        self.0.stores[word].load(Ordering::SeqCst)
    }

    pub fn forget_counts(&self) {
        for word in 0..1024 {
            self.0.loads[word].store(0, Ordering::SeqCst);
            self.0.stores[word].store(0, Ordering::SeqCst);
        }
    }

    pub fn drift(&self, by: u32) {
        self.0.drift.store(by, Ordering::SeqCst);
    }
}

impl RingPage for Page {
    fn load(&self, word: usize) -> u32 {
        self.0.loads[word].fetch_add(1, Ordering::Relaxed);
        self.0.words[word].fetch_add(self.0.drift.load(Ordering::Relaxed), Ordering::Relaxed)
    }

    fn load_acquire(&self, word: usize) -> u32 {
        self.0.loads[word].fetch_add(1, Ordering::Relaxed);
        self.0.words[word].load(Ordering::Acquire)
    }

    fn store(&self, word: usize, value: u32) {
        self.0.stores[word].fetch_add(1, Ordering::Relaxed);
        self.0.words[word].store(value, Ordering::Relaxed);
    }

    fn store_release(&self, word: usize, value: u32) {
        self.0.stores[word].fetch_add(1, Ordering::Relaxed);
        self.0.words[word].store(value, Ordering::Release);
    }

    fn full_fence(&self) {
        fence(Ordering::SeqCst);
    }
}
