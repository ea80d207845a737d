//! The pages of the simulated machine: the one module of this crate with `unsafe` in it.
//!
//! A page is reached in two ways. Its owner uses plain bytes while nobody else may touch it. A
//! page that two sides touch at the same time (a ring, a grant frame, anything that is mapped) is
//! reached by both as whole 32-bit words, each access atomic: atomics of different sizes on the
//! same bytes would race.
//!
//! A grant copy stands between the two. Data pages are copied as plain bytes, because their owner
//! has given them away until the grant ends, and ending it synchronises with the copy through the
//! grant entry. A page that is *shared* (mapped by somebody, or owned by a hostile test that
//! keeps writing to it, see [`Domain::own_page`](crate::Domain::own_page)) is copied word by word.
//! On threads, an honest domain must therefore not copy out of a page that its owner uses as
//! words and nobody has mapped; hostile peers use the word-wise copies of [`Domain`] instead.

use core::ptr::NonNull;
use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use xen_grant::{
    CopyOp, DomId, ForeignMemory, Gfn, GrantStatus, Mapping, Memory, PAGE_SIZE, Page, Words,
};

use crate::Domain;
use crate::host::lock;

/// Pages that dead hosts leave to later ones: the system's allocator takes microseconds for an
/// aligned page, and tests build thousands of hosts. Under Miri none are kept, so that it sees
/// every use after free.
const MAX_RECYCLED: usize = if cfg!(miri) { 0 } else { 8192 };
static RECYCLED: Mutex<Vec<Recycled>> = Mutex::new(Vec::new());

/// A page that nobody has any more.
struct Recycled(NonNull<Page>);

// SAFETY: the page is plain memory that belongs to no thread.
unsafe impl Send for Recycled {}

/// A page of the machine. It lives as long as its owner or a mapping does, so that a page which is
/// freed too early is a recorded violation and not a dangling pointer.
pub(crate) struct SimPage {
    page: NonNull<Page>,
    /// How many parties reach this page as words right now.
    shared: AtomicU32,
}

// SAFETY: the page is plain memory that belongs to no thread.
unsafe impl Send for SimPage {}
// SAFETY: `SimPage` itself reaches the bytes only through words, or through plain copies for
// which the grant rules (module docs) keep everybody else away.
unsafe impl Sync for SimPage {}

impl SimPage {
    /// A zeroed page.
    pub(crate) fn new() -> Arc<SimPage> {
        let recycled = lock(&RECYCLED).pop();
        let page = match recycled {
            Some(Recycled(page)) => {
                // SAFETY: the page was given up by its `SimPage`, so it is ours alone.
                unsafe { page.write_bytes(0, 1) };
                page
            }
            None => SimPage::allocate(),
        };
        Arc::new(SimPage { page, shared: AtomicU32::new(0) })
    }

    fn allocate() -> NonNull<Page> {
        let layout = Layout::new::<Page>();
        // SAFETY: the layout is 4096 bytes, not zero.
        let raw = unsafe { alloc_zeroed(layout) };
        NonNull::new(raw.cast::<Page>()).unwrap_or_else(|| handle_alloc_error(layout))
    }

    /// Where it is.
    pub(crate) fn as_ptr(&self) -> NonNull<Page> {
        self.page
    }

    /// The page as words.
    ///
    /// For grant frames, pages that are granted or mapped, and pages that are only ever used as
    /// words: of those nobody holds a plain reference.
    pub(crate) fn words(&self) -> &Words {
        // SAFETY: the allocation lives as long as `self`, is 4096 zero-initialised bytes aligned
        // to 4096, and nobody holds a plain reference to the bytes (see above).
        unsafe { self.page.cast::<Words>().as_ref() }
    }

    /// One more party uses the page as words.
    pub(crate) fn share(&self) {
        self.shared.fetch_add(1, Ordering::AcqRel);
    }

    /// One party less.
    pub(crate) fn unshare(&self) {
        self.shared.fetch_sub(1, Ordering::AcqRel);
    }

    fn is_shared(&self) -> bool {
        self.shared.load(Ordering::Acquire) != 0
    }

    fn byte(&self, offset: usize) -> NonNull<u8> {
        assert!(offset <= PAGE_SIZE, "offset {offset} is beyond the page");
        // SAFETY: within the allocation, or one past its end, by the check above.
        unsafe { self.page.cast::<u8>().add(offset) }
    }

    /// Reads bytes word by word.
    pub(crate) fn read_words(&self, offset: usize, into: &mut [u8]) {
        let words = self.words();
        let mut done = 0;
        while done < into.len() {
            let at = offset + done;
            let bytes = words[at / 4].load(Ordering::Relaxed).to_ne_bytes();
            let part = (4 - at % 4).min(into.len() - done);
            into[done..done + part].copy_from_slice(&bytes[at % 4..at % 4 + part]);
            done += part;
        }
    }

    /// Writes bytes word by word. Bytes of a word that are not written keep their value, whoever
    /// changes them meanwhile.
    pub(crate) fn write_words(&self, offset: usize, from: &[u8]) {
        let words = self.words();
        let mut done = 0;
        while done < from.len() {
            let at = offset + done;
            let part = (4 - at % 4).min(from.len() - done);
            let (mut bytes, mut mask) = ([0; 4], [0; 4]);
            bytes[at % 4..at % 4 + part].copy_from_slice(&from[done..done + part]);
            mask[at % 4..at % 4 + part].fill(0xff);
            let (value, mask) = (u32::from_ne_bytes(bytes), u32::from_ne_bytes(mask));
            let word = &words[at / 4];
            let mut old = word.load(Ordering::Relaxed);
            while let Err(now) = word.compare_exchange_weak(
                old,
                old & !mask | value,
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                old = now;
            }
            done += part;
        }
    }

    /// Copies between pages, plainly or word by word as the two ends need it.
    ///
    /// # Panics
    ///
    /// If a range goes beyond its page.
    pub(crate) fn copy(
        from: &SimPage,
        from_offset: usize,
        to: &SimPage,
        to_offset: usize,
        len: usize,
    ) {
        assert!(from_offset + len <= PAGE_SIZE && to_offset + len <= PAGE_SIZE);
        match (from.is_shared(), to.is_shared()) {
            (false, false) => {
                let (source, dest) = (from.byte(from_offset), to.byte(to_offset));
                // SAFETY: both ranges lie in their pages, which live through the borrows. The
                // owners keep away from pages they have granted (and, for our own, the caller of
                // `grant_copy` promised so). It is a memmove: both may be the same page.
                unsafe { source.copy_to(dest, len) };
            }
            (from_shared, to_shared) => {
                let mut buffer = [0; PAGE_SIZE];
                let buffer = &mut buffer[..len];
                if from_shared {
                    from.read_words(from_offset, buffer);
                } else {
                    let source = from.byte(from_offset);
                    // SAFETY: the range lies in the page; its owner keeps away from it, as above.
                    unsafe { source.as_ptr().copy_to_nonoverlapping(buffer.as_mut_ptr(), len) };
                }
                if to_shared {
                    to.write_words(to_offset, buffer);
                } else {
                    let dest = to.byte(to_offset);
                    // SAFETY: the range lies in the page; its owner keeps away from it, as above.
                    unsafe { dest.as_ptr().copy_from_nonoverlapping(buffer.as_ptr(), len) };
                }
            }
        }
    }
}

impl Drop for SimPage {
    fn drop(&mut self) {
        let mut recycled = lock(&RECYCLED);
        if recycled.len() < MAX_RECYCLED {
            recycled.push(Recycled(self.page));
            return;
        }
        drop(recycled);
        // SAFETY: allocated in `allocate` with this layout, and nobody has it any more.
        unsafe { dealloc(self.page.as_ptr().cast::<u8>(), Layout::new::<Page>()) }
    }
}

// SAFETY: pages are zeroed at allocation and given to nobody else until they are freed; no other
// domain of this program has their numbers (`Numbers`). Grant frames belong to the domain's state,
// which every clone of the handle keeps alive, and are added once each.
unsafe impl Memory for Domain {
    fn alloc_page(&self) -> Option<(NonNull<Page>, Gfn)> {
        let (page, gfn) = self.take_frame()?;
        Some((page.as_ptr(), gfn))
    }

    unsafe fn free_page(&self, page: NonNull<Page>, gfn: Gfn) {
        self.return_frame(page, gfn);
    }

    fn grant_frame(&self, index: u32) -> Result<NonNull<Words>, GrantStatus> {
        Ok(self.add_grant_frame(index)?.as_ptr().cast())
    }

    fn max_grant_frames(&self) -> u32 {
        self.grant_frame_limit()
    }
}

// SAFETY: a mapping holds the page itself, so it stays until it is unmapped. A copy writes only the
// ranges of its operations (`SimPage::copy`).
unsafe impl ForeignMemory for Domain {
    fn map_grant(&self, domain: DomId, gref: u32) -> Result<Mapping, GrantStatus> {
        let (handle, page) = self.map(domain, gref, true)?;
        Ok(Mapping { words: page.as_ptr().cast(), handle })
    }

    unsafe fn unmap_grant(&self, mapping: Mapping) {
        self.unmap(mapping.handle, Some(mapping.words.cast()));
    }

    unsafe fn grant_copy(&self, ops: &mut [CopyOp]) {
        self.copy_batch(ops);
    }
}
