//! Pages for tests: one that counts, one that changes under the reader.
#![allow(dead_code, missing_docs, clippy::vec_box)]

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

/// A word, and how often it was loaded and stored.
#[derive(Default)]
struct Cell {
    value: AtomicU32,
    loads: AtomicU32,
    stores: AtomicU32,
}

struct Inner {
    /// Boxed one by one, for Miri: it walks over all cells that a reference reaches, at every use.
    cells: Vec<Box<Cell>>,
    /// Added to a word at every load: the memory of a peer that never stops writing.
    drift: AtomicU32,
}

impl Page {
    pub fn filled(value: u32) -> Page {
        let cell = || Box::new(Cell { value: AtomicU32::new(value), ..Cell::default() });
        Page(Arc::new(Inner {
            cells: (0..1024).map(|_| cell()).collect(),
            drift: AtomicU32::new(0),
        }))
    }

    pub fn zeroed() -> Page {
        Page::filled(0)
    }

    pub fn get(&self, word: usize) -> u32 {
        self.0.cells[word].value.load(Ordering::SeqCst)
    }

    pub fn set(&self, word: usize, value: u32) {
        self.0.cells[word].value.store(value, Ordering::SeqCst);
    }

    pub fn loads(&self, word: usize) -> u32 {
        self.0.cells[word].loads.load(Ordering::SeqCst)
    }

    pub fn stores(&self, word: usize) -> u32 {
        self.0.cells[word].stores.load(Ordering::SeqCst)
    }

    pub fn forget_counts(&self) {
        for word in 0..1024 {
            self.0.cells[word].loads.store(0, Ordering::SeqCst);
            self.0.cells[word].stores.store(0, Ordering::SeqCst);
        }
    }

    pub fn drift(&self, by: u32) {
        self.0.drift.store(by, Ordering::SeqCst);
    }
}

impl RingPage for Page {
    fn load(&self, word: usize) -> u32 {
        self.0.cells[word].loads.fetch_add(1, Ordering::Relaxed);
        self.0.cells[word].value.fetch_add(self.0.drift.load(Ordering::Relaxed), Ordering::Relaxed)
    }

    fn load_acquire(&self, word: usize) -> u32 {
        self.0.cells[word].loads.fetch_add(1, Ordering::Relaxed);
        self.0.cells[word].value.load(Ordering::Acquire)
    }

    fn store(&self, word: usize, value: u32) {
        self.0.cells[word].stores.fetch_add(1, Ordering::Relaxed);
        self.0.cells[word].value.store(value, Ordering::Relaxed);
    }

    fn store_release(&self, word: usize, value: u32) {
        self.0.cells[word].stores.fetch_add(1, Ordering::Relaxed);
        self.0.cells[word].value.store(value, Ordering::Release);
    }

    fn full_fence(&self) {
        fence(Ordering::SeqCst);
    }
}
