//! The heap of `alloc`: grows out of the free pages whenever it is full.

use core::alloc::Layout;

use talc::base::Talc;
use talc::base::binning::Binning;
use talc::source::Source;
use talc::{DefaultBinning, TalcLock, min_first_heap_size};

use super::layout::PAGE;
use super::take_run;

/// How much the heap asks for at a time, if it needs no more.
const STEP: usize = 256 * 1024;

/// No lock is taken while the heap's is held but that of the free pages.
#[global_allocator]
static HEAP: TalcLock<spin::Mutex<()>, FreePages> = TalcLock::new(FreePages);

#[derive(Debug)]
struct FreePages;

// SAFETY: it never allocates from the heap.
unsafe impl Source for FreePages {
    fn acquire<B: Binning>(talc: &mut Talc<Self, B>, layout: Layout) -> Result<(), ()> {
        // Room for the heap's own notes on both ends, and those it makes once, in its first part.
        let need = layout.size().checked_add(layout.align()).ok_or(())?;
        let need = need.checked_add(min_first_heap_size::<DefaultBinning>() + 256).ok_or(())?;
        let page = PAGE as usize;
        let (least, wanted) = (need.div_ceil(page), need.max(STEP).div_ceil(page));
        let (count, start) = [wanted, least]
            .into_iter()
            .find_map(|count| Some((count, take_run(count)?)))
            .ok_or(())?;
        // SAFETY: the pages are mapped memory, given to the heap for good.
        let claimed = unsafe { talc.claim(start.as_ptr(), count * page) };
        claimed.map(drop).ok_or(())
    }
}
