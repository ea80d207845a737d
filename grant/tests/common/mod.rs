//! A domain for tests: pages from the heap, grant frames that a "peer" uses as Xen would.
#![allow(dead_code, missing_docs)]

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::collections::HashMap;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use xen_grant::{
    CopyEnd, CopyOp, DomId, ForeignMemory, Gfn, GrantStatus, Mapping, Memory, Page, Words,
};

pub const PERMIT: u32 = 1;
pub const READ_ONLY: u32 = 4;
pub const READING: u32 = 8;
pub const WRITING: u32 = 16;

/// No two pages of the program have the same number, whichever domain's they are.
static NEXT_GFN: AtomicUsize = AtomicUsize::new(1000);

#[derive(Clone)]
pub struct Domain(Arc<Inner>);

struct Inner {
    pages: Mutex<HashMap<u64, usize>>,
    /// For a domain that numbers its pages on its own.
    next_gfn: Option<AtomicUsize>,
    budget: AtomicUsize,
    frames: Mutex<Vec<usize>>,
    most_frames: u32,
    mapped: AtomicUsize,
    /// Statuses for the coming copy operations; the rest succeed.
    pub statuses: Mutex<Vec<GrantStatus>>,
}

impl Domain {
    pub fn new(pages: usize, most_frames: u32) -> Domain {
        Domain::numbered(pages, most_frames, None)
    }

    /// A domain whose frame numbers begin at `gfn`; the caller sees to it that no other domain has
    /// the same.
    pub fn starting_at(pages: usize, most_frames: u32, gfn: usize) -> Domain {
        Domain::numbered(pages, most_frames, Some(AtomicUsize::new(gfn)))
    }

    fn numbered(pages: usize, most_frames: u32, next_gfn: Option<AtomicUsize>) -> Domain {
        Domain(Arc::new(Inner {
            pages: Mutex::default(),
            next_gfn,
            budget: AtomicUsize::new(pages),
            frames: Mutex::default(),
            most_frames,
            mapped: AtomicUsize::new(0),
            statuses: Mutex::default(),
        }))
    }

    /// Pages that the crate under test has now.
    pub fn pages_out(&self) -> usize {
        self.0.pages.lock().unwrap().len()
    }

    pub fn mapped(&self) -> usize {
        self.0.mapped.load(Ordering::SeqCst)
    }

    pub fn fail_copies(&self, statuses: &[GrantStatus]) {
        *self.0.statuses.lock().unwrap() = statuses.to_vec();
    }

    fn word(&self, gref: u32, word: usize) -> &AtomicU32 {
        let frame = self.0.frames.lock().unwrap()[gref as usize / 512] as *const Words;
        // SAFETY: grant frames live as long as the domain.
        let frame = unsafe { &*frame };
        &frame[gref as usize % 512 * 2 + word]
    }

    /// Word 0 or 1 of a grant entry.
    pub fn entry(&self, gref: u32, word: usize) -> u32 {
        self.word(gref, word).load(Ordering::SeqCst)
    }

    /// The peer begins to use a granted page: Xen checks the entry, sets the bits, and finds the
    /// page.
    pub fn begin(&self, peer: DomId, gref: u32, write: bool) -> bool {
        let used = if write { READING | WRITING } else { READING };
        self.word(gref, 0)
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |now| {
                let writable = now & READ_ONLY == 0;
                let allowed =
                    now & PERMIT != 0 && now >> 16 == u32::from(peer.0) && (writable || !write);
                allowed.then_some(now | used)
            })
            .is_ok()
            && (self.granted_page(gref).is_some() || {
                self.end(gref);
                false
            })
    }

    /// The peer's use ends.
    pub fn end(&self, gref: u32) {
        self.word(gref, 0).fetch_and(!(READING | WRITING), Ordering::SeqCst);
    }

    /// The domain is on another machine, which gave it a new table: empty, but for the toolstack's entries.
    pub fn change_machine(&self) {
        for frame in self.0.frames.lock().unwrap().iter() {
            // SAFETY: grant frames live as long as the domain.
            let frame = unsafe { &*(*frame as *const Words) };
            frame[16..].iter().for_each(|word| word.store(0, Ordering::SeqCst));
        }
    }

    fn page(&self, gfn: u64) -> Option<*mut u8> {
        self.0.pages.lock().unwrap().get(&gfn).map(|page| *page as *mut u8)
    }

    /// The page that a reference grants.
    fn granted_page(&self, gref: u32) -> Option<*mut u8> {
        self.page(u64::from(self.entry(gref, 1)))
    }

    /// What a peer that may read the page would see of it now.
    pub fn dump(&self, gref: u32) -> Vec<u8> {
        let page = self.granted_page(gref).expect("a page of this domain");
        // SAFETY: the page is granted, so its owner has no reference to its bytes.
        unsafe { std::slice::from_raw_parts(page, 4096) }.to_vec()
    }

    /// A peer that may write the page does.
    pub fn scribble(&self, gref: u32, value: u8) {
        let page = self.granted_page(gref).expect("a page of this domain");
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(page, 4096) }.fill(value);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        for frame in self.frames.get_mut().unwrap().drain(..) {
            // SAFETY: made by `Box::into_raw` in `grant_frame`; the last handle goes now.
            drop(unsafe { Box::from_raw(frame as *mut Words) });
        }
    }
}

// SAFETY: pages come zeroed from the allocator and stay until freed, each with a number of its own;
// grant frames live as long as the domain and are given out once; nobody else in this process touches either but the "peer" of the tests, when the
// page is granted.
unsafe impl Memory for Domain {
    fn alloc_page(&self) -> Option<(NonNull<Page>, Gfn)> {
        self.0
            .budget
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1))
            .ok()?;
        // SAFETY: a page has a size.
        let page = NonNull::new(unsafe { alloc_zeroed(Layout::new::<Page>()) })?.cast::<Page>();
        let numbers = self.0.next_gfn.as_ref().unwrap_or(&NEXT_GFN);
        let gfn = numbers.fetch_add(1, Ordering::SeqCst) as u64;
        self.0.pages.lock().unwrap().insert(gfn, page.as_ptr().expose_provenance());
        Some((page, Gfn(gfn)))
    }

    unsafe fn free_page(&self, page: NonNull<Page>, gfn: Gfn) {
        let there = self.0.pages.lock().unwrap().remove(&gfn.0).expect("a page of ours");
        assert_eq!(there, page.as_ptr().addr(), "another page");
        self.0.budget.fetch_add(1, Ordering::SeqCst);
        // SAFETY: allocated with this layout in `alloc_page`.
        unsafe { dealloc(page.as_ptr().cast(), Layout::new::<Page>()) }
    }

    fn grant_frame(&self, index: u32) -> Result<NonNull<Words>, GrantStatus> {
        let mut frames = self.0.frames.lock().unwrap();
        assert!(index as usize <= frames.len(), "asked for in order");
        if frames.len() > index as usize {
            return Err(GrantStatus::GENERAL_ERROR);
        }
        let frame = Box::into_raw(Box::new([const { AtomicU32::new(0) }; 1024]));
        if index == 0 {
            // SAFETY: just made.
            let words = unsafe { &*frame };
            // Console and xenstore, as the toolstack leaves them.
            words[0].store(0x19, Ordering::SeqCst);
            words[2].store(0x19, Ordering::SeqCst);
        }
        frames.push(frame.expose_provenance());
        Ok(NonNull::new(frame).unwrap())
    }

    fn max_grant_frames(&self) -> u32 {
        self.0.most_frames
    }
}

// SAFETY: a mapping is the page itself; a copy touches what its operations name.
unsafe impl ForeignMemory for Domain {
    fn map_grant(&self, domain: DomId, gref: u32) -> Result<Mapping, GrantStatus> {
        if !self.begin(domain, gref, true) {
            return Err(GrantStatus::GENERAL_ERROR);
        }
        self.0.mapped.fetch_add(1, Ordering::SeqCst);
        let page = self.granted_page(gref).unwrap();
        Ok(Mapping { words: NonNull::new(page.cast()).unwrap(), handle: gref })
    }

    unsafe fn unmap_grant(&self, mapping: Mapping) {
        self.0.mapped.fetch_sub(1, Ordering::SeqCst);
        self.end(mapping.handle);
    }

    unsafe fn grant_copy(&self, ops: &mut [CopyOp]) {
        let mut statuses = self.0.statuses.lock().unwrap();
        for op in ops {
            op.status = if statuses.is_empty() { GrantStatus::OKAY } else { statuses.remove(0) };
            if !op.status.is_okay() {
                continue;
            }
            let at = |end: CopyEnd| match end {
                CopyEnd::Own { gfn, offset } => Some((self.page(gfn.0)?, usize::from(offset))),
                CopyEnd::Foreign { gref, offset, .. } => {
                    Some((self.granted_page(gref)?, usize::from(offset)))
                }
            };
            let (Some((from, source)), Some((to, dest))) = (at(op.source), at(op.dest)) else {
                op.status = GrantStatus::BAD_PAGE;
                continue;
            };
            let len = usize::from(op.len);
            assert!(source + len <= 4096 && dest + len <= 4096);
            // SAFETY: within the page.
            let from = unsafe { from.add(source) };
            // SAFETY: within the page.
            let to = unsafe { to.add(dest) };
            // SAFETY: both ranges lie in live pages, and are different pages in the tests.
            unsafe { std::ptr::copy(from, to, len) };
        }
    }
}
