//! What buffers and devices promise the layers above, R1 to R9, on both kinds of memory: pages
//! from a frame pool, and the heap.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod allocations;
mod copying;
mod debug;
mod devices;
mod frames;
mod lent;
mod model;
mod offloads;
mod pipe;
#[cfg(feature = "smoltcp")]
mod stacks;

use allocations::allocations;
use devices::{frames, heap};
use packet_views::buffer::{AnyPacket, Block, Buf, BufMut, SharedBlock, View};

/// Runs a test on both kinds of memory; a block has 4096 bytes in both.
macro_rules! on_both {
    ($test:ident) => {{
        $test(frames());
        $test(heap());
    }};
}
pub(crate) use on_both;

fn filled<B: Block>(block: B, len: usize) -> BufMut<B> {
    let mut buf = BufMut::new(block, 100);
    buf.append(len).unwrap().iter_mut().enumerate().for_each(|(at, byte)| *byte = at as u8);
    buf
}

/// Narrowing moves no byte and allocates nothing, whatever the sizes.
#[test]
fn r1_narrowing_costs_nothing() {
    fn test<B: Block>(mut blocks: impl FnMut() -> Option<B>) {
        for len in [2, 60, 3996] {
            let mut buf = filled(blocks().unwrap(), len).freeze();
            let place = buf.bytes().as_ptr();
            let used = allocations(|| {
                let half = buf.slice(len / 2..len).unwrap();
                assert_eq!(half.bytes().as_ptr(), place.wrapping_add(len / 2));
                let mut copy = buf.clone();
                copy.advance(1).unwrap();
                copy.truncate(len / 2);
                assert_eq!(copy.bytes().as_ptr(), place.wrapping_add(1));
                let head = buf.split_to(1).unwrap();
                assert_eq!((head.len(), head.bytes().as_ptr()), (1, place));
                assert_eq!((buf.len(), buf.bytes().as_ptr()), (len - 1, place.wrapping_add(1)));
                drop((half, copy, head));
                let buf = buf.try_into_mut().unwrap();
                assert_eq!(buf.bytes().as_ptr(), place.wrapping_add(1));
                let mut packet = AnyPacket::from(buf);
                assert_eq!(packet.fragments_mut()[0].headroom(), 101);
                packet.fragments_mut()[0].push_front(101).unwrap();
                drop(packet.freeze());
            });
            assert_eq!(used, 0, "{len} bytes");
        }
    }
    on_both!(test);
}

/// Received bytes can be written by somebody who has them alone, and by nobody else.
#[test]
fn r5_only_an_only_owner_writes() {
    fn test<B: Block>(mut blocks: impl FnMut() -> Option<B>) {
        let first = filled(blocks().unwrap(), 10).freeze();
        let second = first.slice(3..7).unwrap();
        let first = first.try_into_mut().expect_err("two views");
        assert_eq!((first.len(), second.bytes()), (10, &[3, 4, 5, 6][..]));
        drop(first);
        let mut buf = second.try_into_mut().expect("the only view left");
        assert_eq!((buf.headroom(), buf.len(), buf.tailroom()), (103, 4, 3989));
        buf.bytes_mut().fill(9);
        // What lies in front is what the block had: it was not cleared, nor moved.
        assert_eq!(buf.push_front(3).unwrap(), [0, 1, 2]);
        assert_eq!(buf.bytes(), [0, 1, 2, 9, 9, 9, 9]);
    }
    on_both!(test);
}

/// A packet becomes writable as a whole or stays as it was.
#[test]
fn r5_a_packet_is_written_whole_or_not() {
    fn test<B: Block>(mut blocks: impl FnMut() -> Option<B>) {
        for shared in 0..18 {
            let mut packet = AnyPacket::new();
            for len in 1..=18 {
                packet.push(filled(blocks().unwrap(), len).freeze()).unwrap();
            }
            let extra = filled(blocks().unwrap(), 1).freeze();
            assert!(packet.push(extra).is_err(), "more than 18 fragments");
            let other = packet.fragments()[shared].clone();
            let lens = |lens: &[usize]| assert_eq!(lens, (1..=18).collect::<Vec<_>>());
            let packet = packet.try_into_mut().expect_err("one fragment is shared");
            lens(&packet.fragments().iter().map(Buf::len).collect::<Vec<_>>());
            drop(other);
            let packet = packet.try_into_mut().expect("no fragment is shared");
            lens(&packet.fragments().iter().map(BufMut::len).collect::<Vec<_>>());
        }
    }
    on_both!(test);
}

/// A view is as small on either memory: the block's handle, and two numbers.
#[test]
fn r7_no_view_carries_a_table_of_functions() {
    fn test<B: Block>(_: impl FnMut() -> Option<B>) {
        let word = size_of::<usize>();
        assert_eq!(size_of::<B>(), word);
        assert_eq!(size_of::<BufMut<B>>(), word + 8);
        assert_eq!(size_of::<Buf<B::Shared>>(), word + 8);
        assert_eq!(size_of::<<B::Shared as SharedBlock>::Block>(), word);
    }
    on_both!(test);
}

/// Dropping every view brings the page home; keeping the smallest one keeps it.
#[test]
fn r8_a_page_goes_home_with_its_last_view() {
    let pool = devices::pool(2);
    let buf = filled(pool.take().unwrap(), 100).freeze();
    let corner = buf.slice(99..100).unwrap();
    drop(buf);
    assert_eq!(pool.free(), 1);
    assert_eq!(corner.bytes(), [99]);
    assert_eq!(corner.bytes().as_ptr() as usize % 4096, 199);
    drop(corner);
    assert_eq!(pool.free(), 2);
}
