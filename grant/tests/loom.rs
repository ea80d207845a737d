//! Every interleaving of the lock-free parts, on the real code: `RUSTFLAGS="--cfg loom"`.
#![cfg(loom)]
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::ptr::NonNull;

use loom::sync::Arc;
use loom::sync::atomic::{AtomicU32, Ordering};
use loom::thread;
use xen_grant::{
    DomId, FramePool, Gfn, GrantStatus, GrantTable, Grantee, Memory, Page, ReadWrite, Words,
};

/// A domain whose pages and grant frames live as long as the process.
#[derive(Clone)]
struct Domain {
    table: &'static Words,
    taken: &'static core::sync::atomic::AtomicBool,
}

// SAFETY: everything is leaked, and the test touches the table only as Xen does.
unsafe impl Memory for Domain {
    fn alloc_page(&self) -> Option<(NonNull<Page>, Gfn)> {
        let page = Box::leak(Box::new(Page([0; 4096])));
        Some((NonNull::from(page), Gfn(5)))
    }

    unsafe fn free_page(&self, page: NonNull<Page>, _gfn: Gfn) {
        // SAFETY: leaked in `alloc_page`.
        drop(unsafe { Box::from_raw(page.as_ptr()) });
    }

    fn grant_frame(&self, _index: u32) -> Result<NonNull<Words>, GrantStatus> {
        if self.taken.swap(true, Ordering::SeqCst) {
            return Err(GrantStatus::GENERAL_ERROR);
        }
        Ok(NonNull::from(self.table))
    }

    fn max_grant_frames(&self) -> u32 {
        1
    }
}

fn domain() -> Domain {
    let words: Vec<AtomicU32> = (0..1024).map(|_| AtomicU32::new(0)).collect();
    let words: Box<[AtomicU32; 1024]> = words.into_boxed_slice().try_into().unwrap();
    Domain { table: Box::leak(words), taken: Box::leak(Box::default()) }
}

/// F6: either the revoke succeeds and the peer never gets in, or the peer is in and the revoke
/// fails. Never both.
#[test]
fn f6_revoke_against_a_peer_that_begins_to_use_the_page() {
    loom::model(|| {
        let domain = domain();
        let pool = FramePool::new(&domain, 1).unwrap();
        let table = GrantTable::new(&domain);
        let to = Grantee::new(DomId(7), true);
        let (granted, _) =
            table.claim().unwrap().grant::<ReadWrite>(pool.take().unwrap(), &to, 0..0);
        let entry = &domain.table[granted.number() as usize * 2];
        let inside = Arc::new(AtomicU32::new(0));
        let peer = thread::spawn({
            let inside = Arc::clone(&inside);
            move || {
                // As Xen does: check the permit, set the bits in one exchange, use, clear.
                let now = entry.load(Ordering::Acquire);
                if now & 1 == 0
                    || entry
                        .compare_exchange(now, now | 24, Ordering::AcqRel, Ordering::Relaxed)
                        .is_err()
                {
                    return;
                }
                inside.store(1, Ordering::SeqCst);
                inside.store(0, Ordering::SeqCst);
                entry.fetch_and(!24, Ordering::AcqRel);
            }
        });
        match granted.revoke() {
            Ok((mut frame, _reference)) => {
                assert_eq!(inside.load(Ordering::SeqCst), 0, "the peer is in a page that is ours");
                frame.bytes_mut()[0] = 1;
                peer.join().unwrap();
            }
            Err(still) => {
                peer.join().unwrap();
                assert!(still.0.revoke().is_ok(), "it has let go");
            }
        }
        assert_eq!(entry.load(Ordering::SeqCst), 0);
    });
}

/// Two threads take and return frames; nobody gets a frame that another one has.
#[test]
fn r12_the_pool_hands_out_each_frame_once() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let pool = FramePool::new(&domain(), 2).unwrap();
        let other = thread::spawn({
            let pool = pool.clone();
            move || {
                let first = pool.take();
                let second = pool.take();
                drop(first);
                drop(second);
            }
        });
        let mut mine = pool.take();
        if let Some(frame) = &mut mine {
            frame.bytes_mut()[0] = 1;
        }
        drop(mine);
        let again = pool.take();
        drop(again);
        other.join().unwrap();
        assert_eq!(pool.free(), 2);
    });
}

/// As above, several at a time: a list that another thread changes meanwhile is never taken.
#[test]
fn r12_the_pool_hands_out_each_frame_once_several_at_a_time() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let pool = FramePool::new(&domain(), 3).unwrap();
        let other = thread::spawn({
            let pool = pool.clone();
            move || {
                let first = pool.take();
                let second = pool.take();
                drop(first);
                drop(second);
            }
        });
        for mut frame in pool.take_many(2) {
            frame.bytes_mut()[0] = 1;
        }
        other.join().unwrap();
        assert_eq!(pool.free(), 3);
        assert_eq!(pool.take_many(4).count(), 3);
    });
}

/// The pool goes with its last frame, whoever drops it, and once.
#[test]
fn r8_owner_and_last_frame_go_at_the_same_time() {
    loom::model(|| {
        let pool = FramePool::new(&domain(), 1).unwrap();
        let frame = pool.take().unwrap().share();
        let second = frame.clone();
        let a = thread::spawn(move || drop(frame));
        let b = thread::spawn(move || drop(second));
        drop(pool);
        a.join().unwrap();
        b.join().unwrap();
    });
}
