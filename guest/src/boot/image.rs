//! Where the parts of the image lie, by the linker script's names.

use core::ops::Range;

unsafe extern "C" {
    static __image_start: u8;
    static __text_start: u8;
    static __text_end: u8;
    static __data_start: u8;
    static __guard: u8;
    static __image_end: u8;
}

/// What may be done with a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rights {
    /// Constants.
    Read,
    /// Code.
    Execute,
    /// Data and the stack.
    Write,
}

/// The whole image, the guard page included.
pub fn image() -> Range<u64> {
    (&raw const __image_start).addr() as u64..(&raw const __image_end).addr() as u64
}

/// The page below the stack, which is left unmapped.
pub fn guard() -> Range<u64> {
    let start = (&raw const __guard).addr() as u64;
    start..start + crate::memory::layout::PAGE
}

/// The parts and their rights; the guard page is in none of them.
pub fn image_parts() -> [(Range<u64>, Rights); 4] {
    let text = (&raw const __text_start).addr() as u64..(&raw const __text_end).addr() as u64;
    let data = (&raw const __data_start).addr() as u64..guard().start;
    let stack = guard().end..image().end;
    [
        (image().start..text.start, Rights::Read),
        (text, Rights::Execute),
        (data, Rights::Write),
        (stack, Rights::Write),
    ]
}
