//! What stands in front of TCP: tags, options, extension headers. Each is put into the packets that
//! etherparse builds, into the large one and into every segment, and changes nothing else.

use alloc::vec;
use alloc::vec::Vec;

use proptest::prelude::*;

use super::super::{GsoError, Segments, Sums, make_blank, pseudo_sum};
use super::segment::{cut_all, places, refusal, sums};
use super::{Flow, Rx, Segment, flow, gso, joined, split, whole};
use crate::buffer::{AnyPacket, Checksum};
use crate::header::checksum::{Verdict, fill_blank, verify};

/// What is put in front.
#[derive(Clone, Debug, Default)]
struct Front {
    /// Types of tags, the outer one first.
    tags: Vec<u16>,
    /// Kinds of extension headers, each with its bytes after the first (which says what is next).
    extensions: Vec<(u8, Vec<u8>)>,
}

impl Front {
    /// A frame of `flow` with all this in it.
    fn put(&self, flow: &Flow, frame: &[u8]) -> Vec<u8> {
        let mut frame = frame.to_vec();
        let ip = flow.ip();
        if !flow.v4 && !self.extensions.is_empty() {
            let mut kinds: Vec<u8> = self.extensions.iter().map(|(kind, _)| *kind).collect();
            frame[ip + 6] = kinds.remove(0);
            kinds.push(6);
            let chain: Vec<u8> = self
                .extensions
                .iter()
                .zip(kinds)
                .flat_map(|((_, rest), next)| [&[next][..], rest].concat())
                .collect();
            let len = u16::from_be_bytes([frame[ip + 4], frame[ip + 5]]) + chain.len() as u16;
            frame[ip + 4..ip + 6].copy_from_slice(&len.to_be_bytes());
            frame.splice(ip + 40..ip + 40, chain);
        }
        for (number, tag) in self.tags.iter().enumerate().rev() {
            let [high, low] = tag.to_be_bytes();
            frame.splice(12..12, [high, low, 0x20, number as u8]);
        }
        frame
    }

    fn len(&self, flow: &Flow) -> usize {
        self.put(flow, &flow.build(&Segment::default())).len() - flow.headers()
    }
}

fn front() -> impl Strategy<Value = Front> {
    let tags = prop::collection::vec(prop::sample::select(&[0x8100u16, 0x88a8, 0x9100][..]), 0..3);
    let extension = (prop::sample::select(&[0u8, 60, 43, 44, 135, 139, 140][..]), 0usize..4)
        .prop_map(|(kind, units)| {
            let mut bytes = vec![0; 7 + if kind == 44 { 0 } else { units * 8 }];
            bytes[0] = if kind == 44 { 0 } else { units as u8 };
            (kind, bytes)
        });
    (tags, prop::collection::vec(extension, 0..5))
        .prop_map(|(tags, extensions)| Front { tags, extensions })
}

proptest! {
    #[test]
    fn segments_have_what_stood_in_front_of_tcp(
        flow in flow(false),
        front in front(),
        whole in whole(20_000),
        size in 100usize..3000,
        places in places(),
        sums in sums(),
    ) {
        let frame = front.put(&flow, &flow.build(&whole));
        let packet = split(&frame, &places, 0, gso(flow.kind(), size)).freeze();
        let (cut, _) = cut_all(packet, sums, 4096);
        let expected = flow.cut(&whole, size);
        prop_assert_eq!(cut.len(), expected.len());
        for (packet, segment) in cut.iter().zip(&expected) {
            let expected = front.put(&flow, &flow.build(segment));
            let mut packet = packet.clone().try_into_mut().unwrap_or_else(|packet| {
                split(&joined(&packet), &[], 0, packet.meta)
            });
            prop_assert_eq!(fill_blank(&mut packet), Some(()));
            prop_assert_eq!(verify(&packet), Verdict::Right);
            prop_assert_eq!(joined(&packet), expected);
        }
    }

    /// The checksum of the whole, left blank and filled in, wherever it is cut.
    #[test]
    fn checksums_are_filled_in_behind_anything(
        flow in flow(false),
        front in front(),
        whole in whole(3000),
        places in places(),
        garbage: [u8; 2],
    ) {
        let frame = front.put(&flow, &flow.build(&whole));
        let mut came = frame.clone();
        let field = flow.tcp() + front.len(&flow) + 16;
        came[field..field + 2].copy_from_slice(&garbage);
        let mut packet = split(&came, &places, 0, Default::default());
        let sum = pseudo_sum(&packet).unwrap();
        make_blank(&mut packet).unwrap();
        prop_assert_eq!(&joined(&packet)[field..field + 2], &sum.to_be_bytes());
        prop_assert_eq!(fill_blank(&mut packet), Some(()));
        prop_assert_eq!(packet.meta.checksum, Checksum::Complete);
        prop_assert_eq!(joined(&packet), frame);
    }
}

/// A routing header with segments left: TCP's sum is about another destination than IPv6's header
/// has. What is in the field says all that has to be known.
#[test]
fn a_blank_checksum_in_its_place_is_enough_behind_a_routing_header() {
    let end = Flow::new(false);
    let mut under_way = end.clone();
    under_way.addresses[1] = [7; 16];
    let routing = (43, [&[2, 4, 1, 0, 0, 0, 0][..], &end.addresses[1]].concat());
    let front = Front { extensions: vec![routing], ..Front::default() };
    // Built for the last destination, on its way to the next.
    let build = |segment: &Segment| {
        let mut frame = front.put(&end, &end.build(segment));
        frame[38..54].copy_from_slice(&under_way.addresses[1]);
        frame
    };
    let whole = Segment { data: vec![7; 9000], fin: true, ..Segment::default() };
    let complete = build(&whole);
    let field = end.tcp() + 24 + 16;
    let mut blank = complete.clone();
    let mut ends = split(&end.build(&whole), &[], 0, Default::default());
    make_blank(&mut ends).unwrap();
    let sum = pseudo_sum(&ends).unwrap();
    blank[field..field + 2].copy_from_slice(&sum.to_be_bytes());

    let meta = crate::buffer::Meta { checksum: Checksum::Blank, gso: None };
    for place in 0..blank.len().min(200) {
        let mut packet = split(&blank, &[place, place + 1], 0, meta);
        assert_eq!(fill_blank(&mut packet), Some(()));
        assert_eq!(joined(&packet), complete);
        // Who does not know the last destination can't tell whether it is right.
        assert_eq!(verify(&packet), Verdict::None);
        assert_eq!(make_blank(&mut packet), Err(GsoError::UnderWay));
        assert_eq!(joined(&packet), complete);
    }
    let large = split(&blank, &[77], 0, gso(end.kind(), 1400)).freeze();
    let (cut, _) = cut_all(large, Sums::Fill, 4096);
    let expected: Vec<Vec<u8>> = end.cut(&whole, 1400).iter().map(build).collect();
    assert_eq!(cut.iter().map(joined).collect::<Vec<_>>(), expected);
    assert_eq!(expected.len(), 7);
    let mut unknown = gso(end.kind(), 1400);
    unknown.checksum = Checksum::Unknown;
    assert_eq!(refusal(&blank, unknown), GsoError::UnderWay);
}

#[test]
fn what_is_authenticated_is_filled_in_and_not_cut() {
    let flow = Flow::new(false);
    let whole = Segment { data: vec![7; 9000], ..Segment::default() };
    // Four words, less two.
    let extensions = vec![(51, vec![4; 23])];
    let frame = Front { extensions, ..Front::default() }.put(&flow, &flow.build(&whole));
    let mut packet = split(&frame, &[60], 0, Default::default());
    make_blank(&mut packet).unwrap();
    assert_ne!(joined(&packet), frame);
    assert_eq!(fill_blank(&mut packet), Some(()));
    assert_eq!(joined(&packet), frame);
    assert_eq!(refusal(&frame, gso(flow.kind(), 1400)), GsoError::Authenticated);
    // Over IPv4 too.
    let flow = Flow::new(true);
    let mut frame = flow.build(&whole);
    frame[23] = 51;
    frame.splice(34..34, [6, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let total = (frame.len() - 14) as u16;
    frame[16..18].copy_from_slice(&total.to_be_bytes());
    let mut packet = split(&frame, &[37], 0, Default::default());
    make_blank(&mut packet).unwrap();
    assert_eq!(fill_blank(&mut packet), Some(()));
    assert_eq!(joined(&packet), frame);
    assert_eq!(refusal(&frame, gso(flow.kind(), 1400)), GsoError::Authenticated);
}

#[test]
fn too_many_headers_are_refused() {
    let flow = Flow::new(false);
    let whole = Segment { data: vec![7; 3000], ..Segment::default() };
    let many = |count, len: u8| {
        let extension = (60, [&[len][..], &vec![0; 6 + 8 * usize::from(len)]].concat());
        let front = Front { extensions: vec![extension; count], ..Front::default() };
        front.put(&flow, &flow.build(&whole))
    };
    let meta = gso(flow.kind(), 1000);
    let is_cut = |frame: &[u8]| {
        let packet: Rx = split(frame, &[20], 0, meta).freeze();
        Segments::new(packet, Sums::Blank).is_ok()
    };
    assert!(is_cut(&many(8, 0)) && is_cut(&many(1, 50)));
    assert_eq!(refusal(&many(9, 0), meta), GsoError::Headers);
    assert_eq!(refusal(&many(1, 55), meta), GsoError::Headers);
    let tags = |count| Front { tags: vec![0x8100; count], ..Front::default() };
    assert!(is_cut(&tags(8).put(&flow, &flow.build(&whole))));
    assert_eq!(refusal(&tags(9).put(&flow, &flow.build(&whole)), meta), GsoError::Headers);
}

/// As Linux cuts: every segment is urgent, its pointer as it came.
#[test]
fn urgent_data_is_urgent_in_every_segment() {
    let flow = Flow::new(true);
    let whole = Segment { data: vec![7; 3000], psh: true, cwr: true, ..Segment::default() };
    let urgent = |mut frame: Vec<u8>| {
        frame[47] |= 32;
        frame[53] = 9;
        let mut packet = split(&frame, &[], 0, Default::default());
        make_blank(&mut packet).unwrap();
        fill_blank(&mut packet).unwrap();
        joined(&packet)
    };
    let packet = split(&urgent(flow.build(&whole)), &[], 0, gso(flow.kind(), 1000)).freeze();
    let (cut, _) = cut_all(packet, Sums::Fill, 256);
    let expected =
        flow.cut(&whole, 1000).iter().map(|one| urgent(flow.build(one))).collect::<Vec<_>>();
    assert_eq!(cut.iter().map(joined).collect::<Vec<_>>(), expected);
    let _: &AnyPacket<_> = &cut[0];
}
