//! The memory that is ours to give out.

use core::ops::Range;
use core::ptr::{self, NonNull};

use spin::Mutex;
use xen_grant::{Gfn, Page};

use super::layout::{PAGE, end_of_ram, whole_pages, without};
use super::pages::PageMap;
use crate::boot::image;
use crate::boot::start_info::Region;

static FREE: Mutex<Option<PageMap<'static>>> = Mutex::new(None);

/// Takes stock of the memory: everything but page 0, the image, and the map of pages itself, which
/// goes right behind the image. `reach` is as far as memory is mapped now. `None` if there is not
/// even room for the map.
///
/// # Safety
///
/// The regions are right, nothing but the image lives in them, and this is called once.
pub unsafe fn init(regions: &[Region], reach: u64) -> Option<()> {
    let words = end_of_ram(regions).div_ceil(64);
    let image = image();
    let map = image.end..(image.end + words * 8).next_multiple_of(PAGE);
    let fits = |region: &Region| {
        region.ram && region.start <= map.start && map.end <= region.end.min(reach)
    };
    regions.iter().find(|region| fits(region))?;
    let start = ptr::with_exposed_provenance_mut::<u64>(map.start as usize);
    // SAFETY: these bytes are mapped memory that nobody uses, now given to the map for good; any
    // bytes are good words.
    let words = unsafe { core::slice::from_raw_parts_mut(start, words as usize) };
    let mut pages = PageMap::new(words);
    for region in regions.iter().filter(|region| region.ram) {
        pages.give(numbers(&whole_pages(region)));
    }
    for taken in [0..PAGE, image, map] {
        pages.withhold(numbers(&taken));
    }
    *FREE.lock() = Some(pages);
    Some(())
}

/// The memory of the regions without page 0 and without the image.
pub fn plain_ram(regions: &[Region]) -> impl Iterator<Item = Range<u64>> {
    regions
        .iter()
        .filter(|region| region.ram)
        .flat_map(|region| without(&whole_pages(region), &(0..PAGE)))
        .flat_map(|range| without(&range, &image()))
        .filter(|range| !range.is_empty())
}

fn numbers(addresses: &Range<u64>) -> Range<usize> {
    (addresses.start / PAGE) as usize..(addresses.end / PAGE) as usize
}

/// Bytes that are free.
pub fn free_bytes() -> u64 {
    FREE.lock().as_ref().map_or(0, |pages| pages.free_pages() as u64 * PAGE)
}

/// One zeroed page.
pub fn take_page() -> Option<(NonNull<Page>, Gfn)> {
    let number = FREE.lock().as_mut()?.take()?;
    let page = NonNull::new(ptr::with_exposed_provenance_mut::<Page>(number * PAGE as usize))?;
    // SAFETY: the page is mapped memory that the map has just given to us alone.
    unsafe { page.write_bytes(0, 1) };
    Some((page, Gfn(number as u64)))
}

/// Takes a page back.
///
/// # Safety
///
/// It came from [`take_page`], and nobody uses it any more.
pub unsafe fn give_page(page: NonNull<Page>) {
    let number = page.addr().get() / PAGE as usize;
    if let Some(pages) = FREE.lock().as_mut() {
        pages.give(number..number + 1);
    }
}

/// Pages in a row, for good; not zeroed.
pub fn take_run(count: usize) -> Option<NonNull<u8>> {
    let number = FREE.lock().as_mut()?.take_run(count)?;
    NonNull::new(ptr::with_exposed_provenance_mut(number * PAGE as usize))
}
