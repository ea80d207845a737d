//! Arithmetic on the memory map.

use crate::boot::start_info::Region;
use core::ops::Range;

/// Bytes in a page.
pub const PAGE: u64 = 4096;
/// Bytes in a large page.
pub const LARGE: u64 = 2 << 20;

/// What is left of `range` without `hole`: the part below and the part above, possibly empty.
pub fn without(range: &Range<u64>, hole: &Range<u64>) -> [Range<u64>; 2] {
    let below = range.start..range.end.min(hole.start);
    let above = range.start.max(hole.end)..range.end;
    if hole.is_empty() { [range.clone(), 0..0] } else { [below, above] }
}

/// The whole pages of a region.
pub fn whole_pages(region: &Region) -> Range<u64> {
    region.start.next_multiple_of(PAGE)..region.end / PAGE * PAGE
}

/// The number after the highest page of memory.
pub fn end_of_ram(regions: &[Region]) -> u64 {
    regions.iter().filter(|region| region.ram).map(|region| region.end).max().unwrap_or(0) / PAGE
}

/// Addresses where there is nothing, for pages that Xen puts there: `size` bytes from a large-page
/// boundary, above the memory below 4 GiB if they fit under the interrupt controllers, else above
/// everything.
pub fn find_hole(regions: &[Region], size: u64) -> u64 {
    const IO_APIC: u64 = 0xfec0_0000;
    const FOUR_GIB: u64 = 1 << 32;
    let low = regions.iter().filter(|region| region.ram && region.start < IO_APIC);
    let mut at = low.map(|region| region.end).max().unwrap_or(0).next_multiple_of(LARGE);
    let overlaps =
        |at: u64| regions.iter().find(|region| region.start < at + size && at < region.end);
    // Each round passes one region for good.
    while let Some(region) = overlaps(at) {
        at = region.end.next_multiple_of(LARGE);
    }
    if at + size <= IO_APIC {
        return at;
    }
    let top = regions.iter().map(|region| region.end).max().unwrap_or(0);
    top.max(FOUR_GIB).next_multiple_of(LARGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(start: u64, end: u64, ram: bool) -> Region {
        Region { start, end, ram }
    }

    #[test]
    fn a_range_without_a_hole() {
        assert_eq!(without(&(10..20), &(12..15)), [10..12, 15..20]);
        let [below, above] = without(&(10..20), &(5..15));
        assert!(below.is_empty());
        assert_eq!(above, 15..20);
        let [below, above] = without(&(10..20), &(25..30));
        assert_eq!(below, 10..20);
        assert!(above.is_empty());
    }

    #[test]
    fn only_whole_pages_count() {
        assert_eq!(whole_pages(&region(1, 0x2fff, true)), 0x1000..0x2000);
    }

    #[test]
    fn the_hole_meets_nothing() {
        // As xl builds a guest of 32 MiB.
        let small = [region(0, 0x200_0000, true), region(0xfeff_8000, 0xff00_0000, false)];
        assert_eq!(find_hole(&small, LARGE), 0x200_0000);
        let reserved = [region(0, 0x1f0_0000, true), region(0x200_1000, 0x210_0000, false)];
        assert_eq!(find_hole(&reserved, LARGE), 0x220_0000);
        let large = [
            region(0, 0xfeb0_0000, true),
            region(0xfeff_8000, 0xff00_0000, false),
            region(1 << 32, (1 << 32) + 0x123_4000, true),
        ];
        assert_eq!(find_hole(&large, LARGE), (1 << 32) + 0x140_0000);
        assert_eq!(end_of_ram(&large), (1 << 20) + 0x1234);
    }
}
