//! The page tables: memory to itself, with rights.

use core::ops::Range;
use core::ptr;

use spin::Mutex;
use x86_64::registers::control::{Cr3, Cr3Flags};
use x86_64::structures::paging::mapper::MapToError;
use x86_64::structures::paging::{
    FrameAllocator, Mapper, OffsetPageTable, PageSize, PageTable, PageTableFlags, PhysFrame,
    Size2MiB, Size4KiB,
};
use x86_64::{PhysAddr, VirtAddr};
use xen_grant::{Gfn, Words};

use super::layout::{LARGE, PAGE};
use super::{plain_ram, take_page, window_range};
use crate::boot::start_info::Region;
use crate::boot::{Rights, image_parts};

/// The tables in use. No lock is taken while this one is held but that of the free pages.
static TABLES: Mutex<Option<OffsetPageTable<'static>>> = Mutex::new(None);

/// Gives free pages to the tables.
struct FreePages;

// SAFETY: each page taken is ours alone.
unsafe impl FrameAllocator<Size4KiB> for FreePages {
    fn allocate_frame(&mut self) -> Option<PhysFrame> {
        let (_, gfn) = take_page()?;
        PhysFrame::from_start_address(PhysAddr::new(gfn.0 * PAGE)).ok()
    }
}

/// Builds the tables and switches to them: the image's parts with their rights, all other memory
/// and the window for reading and writing. `None` if memory runs out.
///
/// # Safety
///
/// The memory map is right, the free pages have been set up, and the boot tables, which map
/// everything used so far, are in use.
pub unsafe fn init(regions: &[Region]) -> Option<()> {
    let (root, gfn) = take_page()?;
    let mut root = root.cast::<PageTable>();
    // SAFETY: a zeroed page is an empty table, and it is ours for good.
    let root = unsafe { root.as_mut() };
    // SAFETY: physical memory is mapped at its own address, now and by the tables to come.
    let mut tables = unsafe { OffsetPageTable::new(root, VirtAddr::zero()) };
    let write = PageTableFlags::WRITABLE | PageTableFlags::NO_EXECUTE;
    for (range, rights) in image_parts() {
        let flags = match rights {
            Rights::Read => PageTableFlags::NO_EXECUTE,
            Rights::Execute => PageTableFlags::empty(),
            Rights::Write => write,
        };
        map(&mut tables, range, flags)?;
    }
    for range in plain_ram(regions) {
        map(&mut tables, range, write)?;
    }
    map(&mut tables, window_range()?, write)?;
    let root = PhysFrame::containing_address(PhysAddr::new(gfn.0 * PAGE));
    // SAFETY: code, data and stack in use are mapped where they were, with the rights they need.
    unsafe { Cr3::write(root, Cr3Flags::empty()) };
    *TABLES.lock() = Some(tables);
    Some(())
}

/// Maps addresses to themselves, in large pages where they fit. `None` if memory for tables runs
/// out or something is mapped there already.
fn map(tables: &mut OffsetPageTable<'_>, range: Range<u64>, rights: PageTableFlags) -> Option<()> {
    let flags = rights | PageTableFlags::PRESENT;
    let mut at = range.start;
    while at < range.end {
        let large = at.is_multiple_of(LARGE) && range.end - at >= LARGE;
        at += if large {
            map_page::<Size2MiB>(tables, at, flags)?
        } else {
            map_page::<Size4KiB>(tables, at, flags)?
        };
    }
    Some(())
}

fn map_page<S: PageSize>(
    tables: &mut OffsetPageTable<'_>,
    at: u64,
    flags: PageTableFlags,
) -> Option<u64>
where
    for<'a> OffsetPageTable<'a>: Mapper<S>,
{
    let frame = PhysFrame::<S>::from_start_address(PhysAddr::new(at)).ok()?;
    // SAFETY: an address is only ever mapped to itself, so no memory gets a second name, and code
    // only from the image's own code; the mapper refuses what is mapped already.
    let flush = unsafe { tables.identity_map(frame, flags, &mut FreePages) }.ok()?;
    // It was not there before, so no processor remembers it otherwise.
    flush.ignore();
    Some(S::SIZE)
}

/// Maps one of Xen's special pages (xenstore, console), which lie outside our memory, for reading
/// and writing. Asking again for the same page is fine.
///
/// # Safety
///
/// The frame is such a page.
pub unsafe fn map_special(gfn: Gfn) -> Option<&'static Words> {
    let at = gfn.0.checked_mul(PAGE)?;
    let flags = PageTableFlags::PRESENT | PageTableFlags::WRITABLE | PageTableFlags::NO_EXECUTE;
    let mut tables = TABLES.lock();
    let tables = tables.as_mut()?;
    let frame = PhysFrame::<Size4KiB>::from_start_address(PhysAddr::try_new(at).ok()?).ok()?;
    // SAFETY: as in `map_page`.
    match unsafe { tables.identity_map(frame, flags, &mut FreePages) } {
        Ok(flush) => flush.ignore(),
        Err(MapToError::PageAlreadyMapped(_)) => {}
        Err(_) => return None,
    }
    let words = ptr::with_exposed_provenance::<Words>(at as usize);
    // SAFETY: the page is mapped for good, and words are only ever reached as atomics.
    unsafe { words.as_ref() }
}
