//! Every interleaving of publish and arm, on the real code: `RUSTFLAGS="--cfg loom"`.
#![cfg(loom)]
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use loom::sync::Arc;
use loom::sync::atomic::{AtomicU32, Ordering, fence};
use loom::thread;
use xen_ring::{BackRing, FrontRing, Notify, Protocol, RingPage};

enum Word {}

impl Protocol for Word {
    type Request = [u32; 1];
    type Response = [u32; 1];
}

/// Only the words that the test reaches: loom keeps a history of each.
#[derive(Clone)]
struct Page(Arc<Vec<AtomicU32>>);

impl Page {
    fn new(start: u32) -> Page {
        let page = Page(Arc::new((0..16 + 4).map(|_| AtomicU32::new(0)).collect()));
        for (word, value) in
            [(0, start), (1, start.wrapping_add(1)), (2, start), (3, start.wrapping_add(1))]
        {
            page.store(word, value);
        }
        page
    }

    fn at(&self, word: usize) -> &AtomicU32 {
        if word < 16 { &self.0[word] } else { &self.0[16 + word % 4] }
    }
}

impl RingPage for Page {
    fn load(&self, word: usize) -> u32 {
        self.at(word).load(Ordering::Relaxed)
    }

    fn load_acquire(&self, word: usize) -> u32 {
        self.at(word).load(Ordering::Acquire)
    }

    fn store(&self, word: usize, value: u32) {
        self.at(word).store(value, Ordering::Relaxed);
    }

    fn store_release(&self, word: usize, value: u32) {
        self.at(word).store(value, Ordering::Release);
    }

    fn full_fence(&self) {
        fence(Ordering::SeqCst);
    }
}

/// A front end publishes while the back end goes to sleep: the event is sent, or the back end
/// sees the request before it sleeps. `pending` is the event channel's bit.
#[test]
fn a_request_is_never_slept_through() {
    loom::model(|| {
        let page = Page::new(u32::MAX);
        let pending = Arc::new(AtomicU32::new(0));
        let mut back = BackRing::<Word, _>::attach(page.clone()).unwrap();
        let front = thread::spawn({
            let (page, pending) = (page.clone(), Arc::clone(&pending));
            move || {
                // `starting_at` would zero slots under the other end; a loom page is small.
                let mut front = FrontRing::<Word, _>::adopt(page, u32::MAX);
                for value in [7, 8] {
                    front.push([value]).unwrap();
                    if front.publish() == Notify::Needed {
                        pending.store(1, Ordering::Release);
                    }
                }
            }
        });
        let mut got = 0;
        // Awake, it takes the event, then looks.
        pending.swap(0, Ordering::AcqRel);
        loop {
            while let Some((_, [value])) = back.pop() {
                assert_eq!(value, 7 + got, "the slot was published before it was written");
                got += 1;
            }
            if !back.arm().unwrap() {
                break;
            }
        }
        front.join().unwrap();
        // Asleep: what was not seen must have been notified.
        assert!(got == 2 || pending.load(Ordering::Acquire) == 1, "{got} seen, no event");
    });
}

/// The same for responses.
#[test]
fn a_response_is_never_slept_through() {
    loom::model(|| {
        let page = Page::new(5);
        let pending = Arc::new(AtomicU32::new(0));
        let mut front = FrontRing::<Word, _>::adopt(page.clone(), 5);
        front.push([1]).unwrap();
        front.push([2]).unwrap();
        let _ = front.publish();
        let back = thread::spawn({
            let (page, pending) = (page.clone(), Arc::clone(&pending));
            move || {
                let mut back = BackRing::<Word, _>::attach(page).unwrap();
                while let Some((_, [value])) = back.pop() {
                    back.push([value * 10]).unwrap();
                    if back.publish() == Notify::Needed {
                        pending.store(1, Ordering::Release);
                    }
                }
            }
        });
        let mut got = 0;
        pending.swap(0, Ordering::AcqRel);
        loop {
            while let Some((_, [value])) = front.pop() {
                got += 1;
                assert_eq!(value, got * 10);
            }
            if !front.arm(1).unwrap() {
                break;
            }
        }
        back.join().unwrap();
        assert!(got == 2 || pending.load(Ordering::Acquire) == 1, "{got} seen, no event");
    });
}
