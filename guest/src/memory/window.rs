//! The window: addresses without memory of our own, where Xen puts pages that it owns or that
//! others have granted to us (`XENMEM_add_to_physmap`, `GNTTABOP_map_grant_ref`).

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ops::Range;
use core::ptr::{self, NonNull};

use spin::{Mutex, Once};
use xen_grant::{Gfn, Words};

use super::layout::{LARGE, PAGE, find_hole};
use super::pages::PageMap;
use crate::boot::start_info::Region;
use crate::hypercall::{self, Errno};

const SIZE: u64 = 2 * LARGE;
const WORDS: usize = (SIZE / PAGE) as usize / 64;

static START: Once<u64> = Once::new();
static FREE: Mutex<Option<PageMap<'static>>> = Mutex::new(None);

/// A page of Xen's that lies in the window for good.
struct XenPage {
    /// `XENMAPSPACE_*`
    space: u32,
    index: u64,
    place: Gfn,
}

/// All of them: a resumed domain has to put them there again.
static XEN_PAGES: Mutex<Vec<XenPage>> = Mutex::new(Vec::new());

/// Chooses where the window lies. Called once.
pub fn choose_window(regions: &[Region]) {
    let start = START.call_once(|| find_hole(regions, SIZE));
    let mut pages = PageMap::new(Box::leak(Box::new([0; WORDS])));
    pages.give(0..(SIZE / PAGE) as usize);
    *FREE.lock() = Some(pages);
    log::debug!("window for foreign pages at {start:#x}");
}

/// The addresses of the window, once it has been chosen.
pub fn window_range() -> Option<Range<u64>> {
    let start = *START.get()?;
    Some(start..start + SIZE)
}

/// A free place in the window, not populated.
pub fn take_place() -> Option<Gfn> {
    let start = START.get()? / PAGE;
    let page = FREE.lock().as_mut()?.take()?;
    Some(Gfn(start + page as u64))
}

/// Takes a place back.
///
/// # Safety
///
/// It came from [`take_place`], Xen has no page there any more, and nothing points to it.
pub unsafe fn give_place(place: Gfn) {
    let Some(start) = START.get() else { return };
    let page = (place.0 - start / PAGE) as usize;
    if let Some(pages) = FREE.lock().as_mut() {
        pages.give(page..page + 1);
    }
}

/// The words at a place of the window.
pub fn place_words(place: Gfn) -> NonNull<Words> {
    let address = ptr::with_exposed_provenance_mut((place.0 * PAGE) as usize);
    NonNull::new(address).unwrap_or(NonNull::dangling())
}

/// The place of a page in the window.
pub fn words_place(words: NonNull<Words>) -> Gfn {
    Gfn(words.addr().get() as u64 / PAGE)
}

/// Puts a page that Xen owns into the window, for good. A page that is there already is refused:
/// Xen would take it away from where it is.
pub fn map_xen_page(space: u32, index: u64) -> Result<NonNull<Words>, Errno> {
    const EEXIST: Errno = Errno(17);
    const ENOSPC: Errno = Errno(28);
    let mut mapped = XEN_PAGES.lock();
    if mapped.iter().any(|page| (page.space, page.index) == (space, index)) {
        return Err(EEXIST);
    }
    let place = take_place().ok_or(ENOSPC)?;
    // SAFETY: the place is free and has no memory.
    match unsafe { hypercall::add_to_physmap(space, index, place.0) } {
        Ok(()) => {
            mapped.push(XenPage { space, index, place });
            Ok(place_words(place))
        }
        Err(errno) => {
            // SAFETY: just taken, and Xen has put nothing there.
            unsafe { give_place(place) };
            Err(errno)
        }
    }
}

/// Puts every page of Xen's where it was before the domain was resumed. Their contents are new.
pub fn remap_xen_pages() -> Result<(), Errno> {
    for page in XEN_PAGES.lock().iter() {
        // SAFETY: the place is this page's; at most the domain builder has put memory there.
        unsafe { hypercall::add_to_physmap(page.space, page.index, page.place.0) }?;
    }
    Ok(())
}
