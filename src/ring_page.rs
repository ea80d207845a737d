//! A page that is shared with a peer, as the page of a ring.

use core::sync::atomic::{AtomicU32, Ordering, fence};

use xen_grant::{PAGE_SIZE, SharedPage};
use xen_ring::RingPage;

/// Granted or mapped: rings don't mind.
pub(crate) struct Shared<T>(pub(crate) T);

impl<T: SharedPage> Shared<T> {
    #[inline]
    fn word(&self, word: usize) -> &AtomicU32 {
        // Rings stay below 1024; the mask says so to the compiler.
        &self.0.words()[word % (PAGE_SIZE / 4)]
    }
}

impl<T: SharedPage> RingPage for Shared<T> {
    #[inline]
    fn load(&self, word: usize) -> u32 {
        self.word(word).load(Ordering::Relaxed)
    }

    #[inline]
    fn load_acquire(&self, word: usize) -> u32 {
        self.word(word).load(Ordering::Acquire)
    }

    #[inline]
    fn store(&self, word: usize, value: u32) {
        self.word(word).store(value, Ordering::Relaxed);
    }

    #[inline]
    fn store_release(&self, word: usize, value: u32) {
        self.word(word).store(value, Ordering::Release);
    }

    #[inline]
    fn full_fence(&self) {
        fence(Ordering::SeqCst);
    }
}
