//! Cutting.

use alloc::vec;
use alloc::vec::Vec;

use proptest::prelude::*;

use super::super::layout::MAX_HEADERS;
use super::super::{
    CopiedBytes, CutError, Cuttable, GsoError, MAX_SEGMENTS, Segments, Sums, make_blank, pseudo_sum,
};
use super::{COMPLETE, Flow, Rx, Segment, Tx, block, flow, gso, joined, split, whole};
use crate::buffer::{AnyPacket, Checksum, HeapBlock, Meta};
use crate::buffer::{GsoKind, MAX_FRAGMENTS};

/// All segments, with blocks of this size.
pub(super) fn cut_all<V: Cuttable<Block = HeapBlock>>(
    packet: AnyPacket<V>,
    sums: Sums,
    size: usize,
) -> (Vec<AnyPacket<V>>, CopiedBytes) {
    let mut segments = Segments::new(packet, sums).map_err(|(why, _)| why).unwrap();
    let mut all = vec![];
    for left in (0..segments.remaining()).rev() {
        all.push(segments.cut(|| block(size, 16)).unwrap().unwrap());
        assert_eq!(segments.remaining(), left);
    }
    assert!(segments.cut(|| panic!("all are made")).is_none());
    (all, segments.copied())
}

/// The packets are these, byte for byte.
fn assert_cut<V: Cuttable>(cut: &[AnyPacket<V>], flow: &Flow, segments: &[Segment], sums: Sums) {
    assert_eq!(cut.len(), segments.len());
    for (packet, segment) in cut.iter().zip(segments) {
        let (frame, expected) = (joined(packet), flow.build(segment));
        match sums {
            Sums::Fill => assert_eq!(frame, expected),
            Sums::Blank => assert_eq!(flow.completed(&frame), expected),
        }
        let checksum = match sums {
            Sums::Fill => Checksum::Complete,
            Sums::Blank => Checksum::Blank,
        };
        assert_eq!(packet.meta, Meta { checksum, gso: None });
        assert!(packet.fragments().iter().all(|fragment| !fragment.bytes().is_empty()));
    }
}

pub(super) fn sums() -> impl Strategy<Value = Sums> {
    prop_oneof![Just(Sums::Blank), Just(Sums::Fill)]
}

pub(super) fn places() -> impl Strategy<Value = Vec<usize>> {
    let anywhere = || prop_oneof![0usize..200, 0usize..70_000];
    prop_oneof![
        prop::collection::vec(anywhere(), 0..MAX_FRAGMENTS),
        prop::collection::vec(anywhere(), MAX_FRAGMENTS - 1),
        // Tiny ones.
        (0usize..3000).prop_map(|from| (from..from + MAX_FRAGMENTS - 1).collect()),
    ]
}

proptest! {
    /// Shared fragments, cut anywhere, headers too: views, and no data copied.
    #[test]
    fn views_make_the_segments_that_etherparse_builds(
        flow in flow(false),
        whole in whole(20_000),
        size in 100usize..3000,
        places in places(),
        padding in 0usize..20,
        sums in sums(),
    ) {
        let mut frame = flow.build(&whole);
        frame.extend(vec![0xee; padding]);
        let packet = split(&frame, &places, 0, gso(flow.kind(), size)).freeze();
        let (cut, copied) = cut_all(packet, sums, 16 + MAX_HEADERS + 3000);
        assert_cut(&cut, &flow, &flow.cut(&whole, size), sums);
        prop_assert_eq!(copied.headers, (cut.len() * flow.headers()) as u64);
        if places.len() + 1 < MAX_FRAGMENTS {
            prop_assert_eq!(copied.payload, 0);
        }
    }

    /// Fragments with one owner: moved where whole, else copied.
    #[test]
    fn owned_fragments_make_the_same(
        flow in flow(false),
        whole in whole(20_000),
        size in 100usize..3000,
        places in places(),
        headroom in prop_oneof![Just(0usize), Just(200)],
        sums in sums(),
        room in prop_oneof![Just(MAX_HEADERS), Just(4000usize)],
    ) {
        let packet = split(&flow.build(&whole), &places, headroom, gso(flow.kind(), size));
        // Small blocks: what is copied takes several.
        let room = if places.len() < 4 && size < 500 { room } else { 4000 };
        let (cut, _) = cut_all(packet, sums, 16 + room);
        assert_cut(&cut, &flow, &flow.cut(&whole, size), sums);
    }

    /// A packet whose fragments are one segment each, as the coalescer makes them, is taken apart
    /// without a copy and without a block.
    #[test]
    fn owned_fragments_that_are_segments_are_moved(
        flow in flow(true),
        size in 1usize..3000,
        count in 1usize..=MAX_FRAGMENTS,
        seed: u64,
    ) {
        let whole = Segment { data: super::noise(size * count, seed), ..Segment::default() };
        let places: Vec<usize> = (1..count).map(|n| flow.headers() + n * size).collect();
        let packet = split(&flow.build(&whole), &places, 138, gso(flow.kind(), size));
        let mut segments = Segments::new(packet, Sums::Fill).map_err(|(why, _)| why).unwrap();
        let cut: Vec<Tx> =
            (0..count).map(|_| segments.cut(|| panic!("no block")).unwrap().unwrap()).collect();
        assert_cut(&cut, &flow, &flow.cut(&whole, size), Sums::Fill);
        prop_assert_eq!(segments.copied().payload, 0);
    }

    /// The field of a packet that came complete, or with anything, becomes blank.
    #[test]
    fn a_checksum_is_made_blank(
        flow in flow(false),
        whole in whole(3000),
        places in places(),
        garbage: [u8; 2],
        padding in 0usize..20,
    ) {
        let frame = flow.build(&whole);
        let mut came = frame.clone();
        came[flow.tcp() + 16..][..2].copy_from_slice(&garbage);
        came.extend(vec![1; padding]);
        let mut packet = split(&came, &places, 0, Meta::default());
        let sum = pseudo_sum(&packet).unwrap();
        make_blank(&mut packet).unwrap();
        let blank = joined(&packet);
        prop_assert_eq!(packet.meta.checksum, Checksum::Blank);
        prop_assert_eq!(&blank[flow.tcp() + 16..][..2], &sum.to_be_bytes());
        prop_assert_eq!(&flow.completed(&blank)[..frame.len()], &frame[..]);
    }
}

#[test]
fn the_largest_packet_of_eighteen_pages() {
    for v4 in [true, false] {
        let flow = Flow::new(v4);
        let data = super::noise(65_535 - flow.headers(), 1);
        let whole = Segment { data, psh: true, ..Segment::default() };
        let places: Vec<usize> = (1..=16).map(|page| page * 4096 - 64).collect();
        let packet = || split(&flow.build(&whole), &places, 0, gso(flow.kind(), 1448)).freeze();
        let (cut, copied) = cut_all(packet(), Sums::Fill, 256);
        assert_cut(&cut, &flow, &flow.cut(&whole, 1448), Sums::Fill);
        assert_eq!(
            copied,
            CopiedBytes { headers: (cut.len() * flow.headers()) as u64, payload: 0 }
        );
        // One of 18 fragments that is one segment needs a 19th, for its headers.
        let mut places = places.clone();
        places.push(70);
        let packet = split(&flow.build(&whole), &places, 0, gso(flow.kind(), 65_000)).freeze();
        let (cut, copied) = cut_all(packet, Sums::Fill, 256);
        assert_cut(&cut, &flow, &flow.cut(&whole, 65_000), Sums::Fill);
        assert!(copied.payload < 200 && cut[0].fragments().len() <= MAX_FRAGMENTS);
    }
}

pub(super) fn refusal(frame: &[u8], meta: Meta) -> GsoError {
    let packet: Rx = split(frame, &[20], 0, meta).freeze();
    match Segments::new(packet, Sums::Blank) {
        Ok(_) => panic!("it was not refused"),
        Err((why, packet)) => {
            assert_eq!(joined(&packet), frame);
            assert_eq!(packet.meta, meta);
            why
        }
    }
}

#[test]
fn what_can_not_be_cut_comes_back_with_the_reason() {
    let data = vec![7; 5000];
    let segment = Segment { data, ..Segment::default() };
    for v4 in [true, false] {
        let flow = Flow::new(v4);
        let frame = flow.build(&segment);
        let meta = gso(flow.kind(), 1000);
        let with = |at: usize, value: u8| {
            let mut frame = frame.clone();
            frame[at] = value;
            frame
        };
        assert_eq!(refusal(&frame, COMPLETE), GsoError::NotGso);
        let other = if v4 { GsoKind::TcpV6 } else { GsoKind::TcpV4 };
        assert_eq!(refusal(&frame, gso(other, 1000)), GsoError::NotTcp);
        assert_eq!(refusal(&frame, gso(flow.kind(), 4)), GsoError::TooMany);
        for len in 0..frame.len() {
            assert_eq!(refusal(&frame[..len], meta), GsoError::BadLength, "{len}");
        }
        assert_eq!(refusal(&with(12, 0x88), meta), GsoError::NotTcp);
        assert_eq!(refusal(&with(14, 0x52), meta), GsoError::BadLength);
        assert_eq!(refusal(&with(flow.tcp() + 12, 0x40), meta), GsoError::BadLength);
        // IP's length ends within TCP's header.
        let mut short = frame.clone();
        let (at, value) = if v4 { (16, 20 + 31) } else { (18, 31) };
        short[at..at + 2].copy_from_slice(&[0, value]);
        assert_eq!(refusal(&short, meta), GsoError::BadLength);
        for flag in [2, 4] {
            assert_eq!(refusal(&with(flow.tcp() + 13, 16 | flag), meta), GsoError::Flags);
        }
        if v4 {
            assert_eq!(refusal(&with(23, 17), meta), GsoError::NotTcp);
            assert_eq!(refusal(&with(20, 0x20), meta), GsoError::IpFragment);
            assert_eq!(refusal(&with(21, 1), meta), GsoError::IpFragment);
            assert_eq!(refusal(&with(14, 0x44), meta), GsoError::BadLength);
        } else {
            assert_eq!(refusal(&with(20, 17), meta), GsoError::NotTcp);
        }
    }
}

#[test]
fn the_number_of_segments_is_bounded() {
    let flow = Flow::new(true);
    let packet = |len| {
        let segment = Segment { data: vec![7; len], ..Segment::default() };
        split(&flow.build(&segment), &[], 0, gso(flow.kind(), 1)).freeze()
    };
    let segments = Segments::new(packet(MAX_SEGMENTS), Sums::Fill).map_err(|(why, _)| why);
    assert_eq!(segments.unwrap().remaining(), MAX_SEGMENTS);
    assert!(matches!(
        Segments::new(packet(MAX_SEGMENTS + 1), Sums::Fill),
        Err((GsoError::TooMany, _))
    ));
}

#[test]
fn without_memory_the_rest_is_lost_and_counted() {
    let flow = Flow::new(false);
    let segment = Segment { data: vec![7; 5000], ..Segment::default() };
    for (size, expected) in [(0, CutError::NoMemory), (40, CutError::NoRoom)] {
        let packet = split(&flow.build(&segment), &[], 0, gso(flow.kind(), 1000)).freeze();
        let mut segments = Segments::new(packet, Sums::Blank).map_err(|(why, _)| why).unwrap();
        assert!(segments.cut(|| block(256, 0)).unwrap().is_ok());
        let none = || if size == 0 { None } else { block(size, 0) };
        assert_eq!(segments.cut(none).unwrap().err(), Some(expected));
        assert_eq!(segments.remaining(), 4);
        assert!(segments.cut(|| block(256, 0)).is_none());
    }
}
