//! Every interleaving of the lock-free parts, on the real code: `RUSTFLAGS="--cfg loom"`.
#![cfg(loom)]
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::ptr::NonNull;

use loom::sync::Arc;
use loom::sync::atomic::{AtomicU32, Ordering};
use loom::thread;
use xen_grant::{
    DomId, Frame, FramePool, Gfn, GrantStatus, GrantTable, Grantee, Memory, Page, ReadWrite, Words,
};

/// A domain whose pages and grant frames live as long as the process.
#[derive(Clone)]
struct Domain {
    table: &'static Words,
    taken: &'static core::sync::atomic::AtomicBool,
    pages: &'static core::sync::atomic::AtomicU64,
    /// Which pages came back, a bit each.
    freed: &'static core::sync::atomic::AtomicU64,
    /// Must be set when a page is freed, and when the pool drops its clone of the domain.
    done: Option<Done>,
}

struct Done {
    flags: Arc<[AtomicU32; 2]>,
    of_pool: bool,
}

impl Done {
    fn check(&self) {
        for flag in self.flags.iter() {
            assert_eq!(flag.load(Ordering::Relaxed), 1, "somebody is not done with the pool");
        }
    }
}

impl Clone for Done {
    fn clone(&self) -> Done {
        Done { flags: Arc::clone(&self.flags), of_pool: true }
    }
}

impl Drop for Done {
    fn drop(&mut self) {
        if self.of_pool {
            self.check();
        }
    }
}

/// The frame number of a domain's first page.
const FIRST: u64 = 5;

// SAFETY: everything is leaked, and the test touches the table only as Xen does.
unsafe impl Memory for Domain {
    fn alloc_page(&self) -> Option<(NonNull<Page>, Gfn)> {
        let page = Box::leak(Box::new(Page([0; 4096])));
        Some((NonNull::from(page), Gfn(FIRST + self.pages.fetch_add(1, Ordering::SeqCst))))
    }

    unsafe fn free_page(&self, page: NonNull<Page>, gfn: Gfn) {
        let bit = 1 << (gfn.0 - FIRST);
        assert_eq!(self.freed.fetch_or(bit, Ordering::SeqCst) & bit, 0, "a page came back twice");
        if let Some(done) = &self.done {
            done.check();
        }
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
    Domain {
        table: Box::leak(words),
        taken: Box::leak(Box::default()),
        pages: Box::leak(Box::default()),
        freed: Box::leak(Box::default()),
        done: None,
    }
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

// In the models below, who looks is a thread of its own that starts last: loom tries all that it may
// see of the others then, but does not find every moment at which it could have come earlier.

/// What the peer wrote while it was in the page is there when the page is ours again.
#[test]
fn f6_a_revoke_sees_what_the_peer_wrote() {
    loom::model(|| {
        let domain = domain();
        let pool = FramePool::new(&domain, 1).unwrap();
        let table = GrantTable::new(&domain);
        let to = Grantee::new(DomId(7), true);
        let (granted, _) =
            table.claim().unwrap().grant::<ReadWrite>(pool.take().unwrap(), &to, 0..0);
        let entry = &domain.table[granted.number() as usize * 2];
        let bytes = Arc::new(AtomicU32::new(0));
        // The peer is in the page.
        entry.fetch_or(24, Ordering::AcqRel);
        let owner = thread::spawn({
            let bytes = Arc::clone(&bytes);
            move || {
                if let Ok((_frame, _reference)) = granted.revoke() {
                    assert_eq!(bytes.load(Ordering::Relaxed), 1, "it was in, and is out");
                }
            }
        });
        bytes.store(1, Ordering::Relaxed);
        entry.fetch_and(!24, Ordering::AcqRel);
        owner.join().unwrap();
        table.sweep();
        assert_eq!(pool.free(), 1);
    });
}

/// A peer that sees the permit sees the frame number, and the bytes that were written before.
#[test]
fn f6_a_permit_is_seen_last() {
    loom::model(|| {
        let domain = domain();
        let pool = FramePool::new(&domain, 1).unwrap();
        let table = GrantTable::new(&domain);
        let reference = table.claim().unwrap();
        let at = reference.number() as usize * 2;
        let entry: &[AtomicU32] = &domain.table[at..at + 2];
        let bytes = Arc::new(AtomicU32::new(0));
        let peer = thread::spawn({
            let bytes = Arc::clone(&bytes);
            move || {
                if entry[0].load(Ordering::Acquire) & 1 != 0 {
                    assert_eq!(entry[1].load(Ordering::Relaxed), FIRST as u32);
                    assert_eq!(bytes.load(Ordering::Relaxed), 1);
                }
            }
        });
        bytes.store(1, Ordering::Relaxed);
        let to = Grantee::new(DomId(7), true);
        let granted = reference.grant::<ReadWrite>(pool.take().unwrap(), &to, 0..0).0;
        peer.join().unwrap();
        drop(granted);
    });
}

/// Who gets a page to write has what the others did with their shares of it behind him. A relaxed
/// atomic stands for their last look at its bytes.
#[test]
fn f8_a_frame_is_alone_only_after_the_others_last_look() {
    loom::model(|| {
        let pool = FramePool::new(&domain(), 1).unwrap();
        let mine = pool.take().unwrap().share();
        let theirs = mine.clone();
        let looked = Arc::new(AtomicU32::new(0));
        let writer = thread::spawn({
            let looked = Arc::clone(&looked);
            move || {
                if let Ok(mut frame) = mine.try_unshare() {
                    assert_eq!(looked.load(Ordering::Relaxed), 1, "somebody still looks");
                    frame.bytes_mut()[0] = 1;
                }
            }
        });
        looked.store(1, Ordering::Relaxed);
        drop(theirs);
        writer.join().unwrap();
        assert_eq!(pool.free(), 1);
    });
}

/// The same through the pool, whichever share goes last.
#[test]
fn r8_a_page_comes_out_of_the_pool_after_everybodys_last_look() {
    loom::model(|| {
        let pool = FramePool::new(&domain(), 1).unwrap();
        let first = pool.take().unwrap().share();
        let second = first.clone();
        let looked = Arc::new([AtomicU32::new(0), AtomicU32::new(0)]);
        let other = thread::spawn({
            let looked = Arc::clone(&looked);
            move || {
                looked[1].store(1, Ordering::Relaxed);
                drop(second);
            }
        });
        let next = thread::spawn({
            let (pool, looked) = (pool.clone(), Arc::clone(&looked));
            move || {
                if let Some(_frame) = pool.take() {
                    let looked = looked.each_ref().map(|looked| looked.load(Ordering::Relaxed));
                    assert_eq!(looked, [1, 1], "somebody still looks");
                }
            }
        });
        looked[0].store(1, Ordering::Relaxed);
        drop(first);
        other.join().unwrap();
        next.join().unwrap();
        assert_eq!(pool.free(), 1);
    });
}

/// Which frames of a pool are out.
#[derive(Clone)]
struct Out(Arc<[AtomicU32; 3]>);

impl Out {
    fn new() -> Out {
        Out(Arc::new([0; 3].map(AtomicU32::new)))
    }

    fn mark(&self, frame: Option<Frame>) -> Option<Frame> {
        let frame = frame?;
        let at = (frame.gfn().0 - FIRST) as usize;
        assert_eq!(self.0[at].swap(1, Ordering::Relaxed), 0, "somebody else has this frame");
        Some(frame)
    }

    fn give_back(&self, frame: Option<Frame>) {
        if let Some(frame) = frame {
            // Its last user's: a store that the next one must see.
            self.0[(frame.gfn().0 - FIRST) as usize].store(0, Ordering::Relaxed);
        }
    }
}

/// Takes two frames and returns them in the order in which they came.
fn take_two(pool: FramePool, out: Out) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let first = out.mark(pool.take());
        let second = out.mark(pool.take());
        out.give_back(first);
        out.give_back(second);
    })
}

/// Two threads take and return frames; nobody gets a frame that another one has.
#[test]
fn r12_the_pool_hands_out_each_frame_once() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let (pool, out) = (FramePool::new(&domain(), 2).unwrap(), Out::new());
        let other = take_two(pool.clone(), out.clone());
        out.give_back(out.mark(pool.take()));
        out.give_back(out.mark(pool.take()));
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
        let (pool, out) = (FramePool::new(&domain(), 3).unwrap(), Out::new());
        let other = take_two(pool.clone(), out.clone());
        let mine: Vec<_> = pool.take_many(2).map(|frame| out.mark(Some(frame))).collect();
        mine.into_iter().for_each(|frame| out.give_back(frame));
        other.join().unwrap();
        assert_eq!(pool.free(), 3);
        assert_eq!(pool.take_many(4).count(), 3);
    });
}

/// The same record first and as many free as before, but another list behind it: what a thread read
/// of it before is of no use any more.
#[test]
fn r12_a_head_that_comes_back_is_another_one() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(2);
    model.check(|| {
        let (pool, out) = (FramePool::new(&domain(), 3).unwrap(), Out::new());
        let held = out.mark(pool.take());
        let other = thread::spawn({
            let (pool, out) = (pool.clone(), out.clone());
            move || {
                let first = out.mark(pool.take());
                let second = out.mark(pool.take());
                out.give_back(held);
                out.give_back(first);
                out.give_back(second);
            }
        });
        let first = out.mark(pool.take());
        let second = out.mark(pool.take());
        out.give_back(first);
        out.give_back(second);
        other.join().unwrap();
        assert_eq!(pool.free(), 3);
    });
}

/// Each page goes once, whoever drops it, and whoever is the last to need the pool.
#[test]
fn r8_owner_and_last_frame_go_at_the_same_time() {
    loom::model(|| {
        let domain = domain();
        let pool = FramePool::new(&domain, 1).unwrap();
        let frame = pool.take().unwrap().share();
        let second = frame.clone();
        let a = thread::spawn(move || drop(frame));
        let b = thread::spawn(move || drop(second));
        drop(pool);
        a.join().unwrap();
        b.join().unwrap();
        assert_eq!(domain.freed.load(Ordering::SeqCst), 1);
    });
}

/// A pool is closed while frames come home: none of them is left in a list that nobody can reach.
#[test]
fn b7_frames_that_come_home_while_the_owner_goes() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let domain = domain();
        let pool = FramePool::new(&domain, 4).unwrap();
        let mut out = pool.take_many(3);
        let [kept, a, b] = [(); 3].map(|()| out.next().unwrap());
        drop(out);
        let number = kept.gfn().0 - FIRST;
        let others = [a, b].map(|frame| thread::spawn(move || drop(frame)));
        drop(pool);
        for other in others {
            other.join().unwrap();
        }
        assert_eq!(domain.freed.load(Ordering::SeqCst), 0b1111 & !(1 << number));
        assert_eq!(kept.bytes()[0], 0);
        drop(kept);
        assert_eq!(domain.freed.load(Ordering::SeqCst), 0b1111);
    });
}

/// And it goes after all that either of them did before, whichever comes last.
#[test]
fn r8_a_pool_goes_when_everybody_is_done_with_it() {
    for owner_last in [false, true] {
        loom::model(move || {
            let done = Arc::new([AtomicU32::new(0), AtomicU32::new(0)]);
            let flags = Done { flags: Arc::clone(&done), of_pool: false };
            let domain = Domain { done: Some(flags), ..domain() };
            let pool = FramePool::new(&domain, 1).unwrap();
            let frame = pool.take().unwrap();
            let with_pool = {
                let done = Arc::clone(&done);
                move || {
                    done[0].store(1, Ordering::Relaxed);
                    drop(pool);
                }
            };
            let with_frame = move || {
                done[1].store(1, Ordering::Relaxed);
                drop(frame);
            };
            if owner_last {
                let last = thread::spawn(with_pool);
                with_frame();
                last.join().unwrap();
            } else {
                let last = thread::spawn(with_frame);
                with_pool();
                last.join().unwrap();
            }
        });
    }
}

/// Two who draw at the same time, and give back: no page is promised to both, and none is lost.
#[test]
fn r12_a_page_is_promised_once() {
    loom::model(|| {
        let pool = FramePool::new(&domain(), 3).unwrap();
        let promised = Arc::new(AtomicU32::new(0));
        let draws = |pool: &FramePool, promised: &AtomicU32| {
            let mut mine = pool.reserve(0).unwrap();
            let drawn = mine.draw(2);
            assert!((1..=2).contains(&drawn), "{drawn} of what the other one leaves");
            let all = promised.fetch_add(drawn, Ordering::Relaxed) + drawn;
            assert!(all <= 3, "{all} pages promised of 3");
            // A page less first, then the rest with the reservation.
            promised.fetch_sub(drawn, Ordering::Relaxed);
            mine.give_back(1);
            assert_eq!(mine.pages(), drawn - 1);
        };
        let other = thread::spawn({
            let (pool, promised) = (pool.clone(), Arc::clone(&promised));
            move || draws(&pool, &promised)
        });
        draws(&pool, &promised);
        other.join().unwrap();
        assert_eq!(pool.unreserved(), 3);
    });
}
