//! Buffers beside a plain model of them, with counts from zero to the largest number.

use packet_views::buffer::Buf;
use packet_views::buffer::{Block, BufMut, View};
use proptest::prelude::*;

use crate::devices::{frames, heap};
use crate::on_both;

/// Bytes in a block of either kind.
const SIZE: usize = 4096;

/// Small numbers, such near the block's size, and such where an addition would wrap.
fn count() -> impl Strategy<Value = usize> {
    prop_oneof![
        6 => 0usize..200,
        2 => SIZE - 50..SIZE + 50,
        1 => (0usize..5000).prop_map(|below| usize::MAX - below),
        1 => (0usize..100).prop_map(|below| isize::MAX as usize - below),
        1 => (0usize..5000).prop_map(|off| u32::MAX as usize - 2500 + off),
    ]
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Push(usize),
    Pull(usize),
    Append(usize),
    Truncate(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        count().prop_map(Step::Push),
        count().prop_map(Step::Pull),
        count().prop_map(Step::Append),
        count().prop_map(Step::Truncate),
    ]
}

/// A buffer and what it should be: all bytes of its block, and where the view starts and ends.
struct Pair<B: Block> {
    buf: BufMut<B>,
    block: Vec<u8>,
    start: usize,
    end: usize,
    written: u8,
}

impl<B: Block> Pair<B> {
    fn new(mut block: B, headroom: usize) -> Pair<B> {
        block.range_mut(0..SIZE).unwrap().fill(0);
        let start = headroom.min(SIZE);
        let buf = BufMut::new(block, headroom);
        Pair { buf, block: vec![0; SIZE], start, end: start, written: 0 }
    }

    fn step(&mut self, step: Step) {
        self.written = self.written.wrapping_add(1);
        let len = self.end - self.start;
        match step {
            Step::Push(count) => {
                let room = self.buf.push_front(count).map(|bytes| bytes.fill(self.written));
                assert_eq!(room.is_some(), count <= self.start);
                if room.is_some() {
                    self.start -= count;
                    self.block[self.start..][..count].fill(self.written);
                }
            }
            Step::Pull(count) => {
                assert_eq!(self.buf.pull_front(count).is_some(), count <= len);
                self.start += if count <= len { count } else { 0 };
            }
            Step::Append(count) => {
                let room = self.buf.append(count).map(|bytes| bytes.fill(self.written));
                assert_eq!(room.is_some(), count <= SIZE - self.end);
                if room.is_some() {
                    self.block[self.end..][..count].fill(self.written);
                    self.end += count;
                }
            }
            Step::Truncate(count) => {
                self.buf.truncate(count);
                self.end = self.start + len.min(count);
            }
        }
        assert_eq!(self.buf.bytes(), &self.block[self.start..self.end]);
        assert_eq!(self.buf.bytes_mut(), &self.block[self.start..self.end]);
        assert_eq!(self.buf.len(), self.end - self.start);
        assert_eq!(self.buf.is_empty(), self.end == self.start);
        assert_eq!((self.buf.headroom(), self.buf.tailroom()), (self.start, SIZE - self.end));
    }
}

#[derive(Clone, Copy, Debug)]
enum Narrow {
    Advance(usize),
    Truncate(usize),
    Split(usize),
    Slice(usize, usize),
}

fn narrow() -> impl Strategy<Value = Narrow> {
    prop_oneof![
        count().prop_map(Narrow::Advance),
        count().prop_map(Narrow::Truncate),
        count().prop_map(Narrow::Split),
        (count(), count()).prop_map(|(start, end)| Narrow::Slice(start, end)),
    ]
}

fn narrow_beside<B: Block>(mut block: B, start: usize, end: usize, steps: &[Narrow]) {
    let bytes: Vec<u8> = (0..SIZE).map(|at| (at % 251) as u8).collect();
    block.range_mut(0..SIZE).unwrap().copy_from_slice(&bytes);
    let made = Buf::new(block.share(), start..end);
    assert_eq!(made.is_some(), start <= end && end <= SIZE);
    let Some(mut buf) = made else { return };
    let mut model = &bytes[start..end];
    for &step in steps {
        match step {
            Narrow::Advance(count) => {
                assert_eq!(buf.advance(count).is_some(), count <= model.len());
                model = model.get(count..).unwrap_or(model);
            }
            Narrow::Truncate(len) => {
                buf.truncate(len);
                model = model.get(..len).unwrap_or(model);
            }
            Narrow::Split(at) => {
                let head = buf.split_to(at);
                assert_eq!(head.as_ref().map(View::bytes), model.get(..at));
                model = model.get(at..).unwrap_or(model);
            }
            Narrow::Slice(start, end) => {
                let part = buf.slice(start..end);
                assert_eq!(part.as_ref().map(View::bytes), model.get(start..end));
                if let Some(part) = part {
                    buf = part;
                    model = &model[start..end];
                }
            }
        }
        assert_eq!(buf.bytes(), model);
        assert_eq!((buf.len(), buf.is_empty()), (model.len(), model.is_empty()));
    }
    let (_, range) = buf.into_parts();
    assert_eq!(&bytes[range], model);
}

proptest! {
    /// Push and pull stay within the headroom, append within the tailroom, and a step that does
    /// not fit changes nothing.
    #[test]
    fn r3_writers_stay_in_their_block(
        headroom in count(),
        steps in prop::collection::vec(step(), 0..30),
    ) {
        let test = |pair: &mut dyn FnMut(Step)| steps.iter().for_each(|&step| pair(step));
        let mut on_page = Pair::new(frames()().unwrap(), headroom);
        test(&mut |step| on_page.step(step));
        let mut on_heap = Pair::new(heap()().unwrap(), headroom);
        test(&mut |step| on_heap.step(step));
    }

    /// A view only narrows, whatever it is asked.
    #[test]
    fn r6_readers_stay_in_their_view(
        start in count(),
        end in count(),
        steps in prop::collection::vec(narrow(), 0..20),
    ) {
        narrow_beside(frames()().unwrap(), start, end, &steps);
        narrow_beside(heap()().unwrap(), start, end, &steps);
        let whole = (start.min(SIZE), SIZE);
        narrow_beside(frames()().unwrap(), whole.0, whole.1, &steps);
        narrow_beside(heap()().unwrap(), whole.0, whole.1, &steps);
    }
}

#[test]
fn r6_ranges_near_the_largest_number_are_refused() {
    fn test<B: Block>(mut blocks: impl FnMut() -> Option<B>) {
        const MAX: usize = usize::MAX;
        let bounds = [0, 1, SIZE, SIZE + 1, MAX - 1, MAX];
        let ranges = bounds.iter().flat_map(|&start| bounds.map(|end| start..end));
        for range in ranges.filter(|range| range.start > range.end || range.end > SIZE) {
            let mut block = blocks().unwrap();
            assert!(block.range_mut(range.clone()).is_none(), "{range:?}");
            assert!(BufMut::with_range(block, range.clone()).is_none(), "{range:?}");
            let block = blocks().unwrap().share();
            assert!(Buf::new(block, range.clone()).is_none(), "{range:?}");
        }
        let all = BufMut::with_range(blocks().unwrap(), 0..SIZE).unwrap();
        assert_eq!(all.freeze().slice(SIZE..SIZE).unwrap().len(), 0);
    }
    on_both!(test);
}
