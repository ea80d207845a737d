//! Which pages are free: one bit a page.

use bitvec::slice::BitSlice;
use core::ops::Range;

/// A map of pages, numbered from 0; a set bit is a free page.
pub struct PageMap<'a> {
    free: &'a mut BitSlice<u64>,
    /// No page below this one is free.
    lowest: usize,
    count: usize,
}

impl<'a> PageMap<'a> {
    /// A map of 64 pages a word, none of them free.
    pub fn new(words: &'a mut [u64]) -> PageMap<'a> {
        words.fill(0);
        PageMap { free: BitSlice::from_slice_mut(words), lowest: 0, count: 0 }
    }

    /// How many pages are free.
    pub fn free_pages(&self) -> usize {
        self.count
    }

    /// Gives pages to the map. What lies beyond its end, and what is free already, is ignored.
    pub fn give(&mut self, pages: Range<usize>) {
        let end = pages.end.min(self.free.len());
        let Some(bits) = self.free.get_mut(pages.start..end) else { return };
        self.count += bits.count_zeros();
        bits.fill(true);
        self.lowest = self.lowest.min(pages.start);
    }

    /// Takes certain pages out of the map, free or not.
    pub fn withhold(&mut self, pages: Range<usize>) {
        let end = pages.end.min(self.free.len());
        let Some(bits) = self.free.get_mut(pages.start..end) else { return };
        self.count -= bits.count_ones();
        bits.fill(false);
    }

    /// Takes the lowest free page.
    pub fn take(&mut self) -> Option<usize> {
        let page = self.lowest + self.free.get(self.lowest..)?.first_one()?;
        self.free.set(page, false);
        self.lowest = page + 1;
        self.count -= 1;
        Some(page)
    }

    /// Takes `count` pages in a row and gives the first of them.
    pub fn take_run(&mut self, count: usize) -> Option<usize> {
        let mut start = self.lowest;
        loop {
            start += self.free.get(start..)?.first_one()?;
            let run = self.free.get(start..start.checked_add(count)?)?;
            match run.first_zero() {
                Some(gap) => start += gap,
                None => break,
            }
        }
        self.withhold(start..start + count);
        Some(start)
    }
}

impl core::fmt::Debug for PageMap<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "PageMap({} of {} free)", self.count, self.free.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_come_lowest_first_and_come_back() {
        let mut words = [u64::MAX; 2];
        let mut map = PageMap::new(&mut words);
        assert_eq!(map.take(), None);
        map.give(3..6);
        map.give(4..7);
        assert_eq!(map.free_pages(), 4);
        map.withhold(4..5);
        assert_eq!((map.take(), map.take(), map.take()), (Some(3), Some(5), Some(6)));
        assert_eq!((map.take(), map.free_pages()), (None, 0));
        map.give(5..6);
        assert_eq!(map.take(), Some(5));
    }

    #[test]
    fn runs_skip_gaps() {
        let mut words = [0; 2];
        let mut map = PageMap::new(&mut words);
        map.give(1..4);
        map.give(5..128);
        assert_eq!(map.take_run(4), Some(5));
        assert_eq!(map.take_run(3), Some(1));
        assert_eq!(map.take_run(119), Some(9));
        assert_eq!(map.take_run(1), None);
        map.give(0..128);
        assert_eq!(map.take_run(129), None);
        assert_eq!(map.take_run(usize::MAX), None);
        assert_eq!(map.take_run(128), Some(0));
    }

    #[test]
    fn pages_beyond_the_map_are_ignored() {
        let mut words = [0; 1];
        let mut map = PageMap::new(&mut words);
        map.give(60..100);
        assert_eq!(map.free_pages(), 4);
        map.give(100..200);
        map.withhold(64..65);
        assert_eq!(map.free_pages(), 4);
    }
}
