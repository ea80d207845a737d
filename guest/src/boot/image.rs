//! Where the parts of the image lie, by the linker script's names.

use core::ops::Range;

unsafe extern "C" {
    static __image_start: u8;
    static __text_start: u8;
    static __text_end: u8;
    static __data_start: u8;
    static __guard: u8;
    static __trap_guard: u8;
    static __image_end: u8;
}

/// What may be done with a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rights {
    /// Constants.
    Read,
    /// Code.
    Execute,
    /// Data and the stacks.
    Write,
}

/// The whole image, the guard pages included.
pub fn image() -> Range<u64> {
    (&raw const __image_start).addr() as u64..(&raw const __image_end).addr() as u64
}

/// The page below the stack, which is left unmapped.
pub fn guard() -> Range<u64> {
    page((&raw const __guard).addr())
}

/// The page below the exceptions' stack, which is left unmapped too.
pub fn trap_guard() -> Range<u64> {
    page((&raw const __trap_guard).addr())
}

/// Where the exceptions' stack begins, which grows down from the image's end.
pub fn trap_stack_top() -> u64 {
    image().end
}

fn page(start: usize) -> Range<u64> {
    start as u64..start as u64 + crate::memory::layout::PAGE
}

/// The parts and their rights; the guard pages are in none of them.
pub fn image_parts() -> [(Range<u64>, Rights); 5] {
    let text = (&raw const __text_start).addr() as u64..(&raw const __text_end).addr() as u64;
    let data = (&raw const __data_start).addr() as u64..guard().start;
    let stack = guard().end..trap_guard().start;
    let trap_stack = trap_guard().end..image().end;
    [
        (image().start..text.start, Rights::Read),
        (text, Rights::Execute),
        (data, Rights::Write),
        (stack, Rights::Write),
        (trap_stack, Rights::Write),
    ]
}
