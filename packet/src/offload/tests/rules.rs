//! What keeps segments apart.

use alloc::vec;
use alloc::vec::Vec;

use super::coalesce::{coalesce, device, frames, packets, stream};
use super::{COMPLETE, Flow, Segment, gso, joined, split};
use crate::buffer::GsoKind;
use crate::buffer::Meta;

#[test]
fn every_rule_keeps_packets_apart() {
    type Change = fn(&mut Flow, &mut Segment);
    let changes: [(&str, Change); 21] = [
        ("vlan", |flow, _| flow.vlan = Some(9)),
        ("source", |flow, _| flow.addresses[0][0] ^= 1),
        ("destination", |flow, _| flow.addresses[1][3] ^= 1),
        ("source port", |flow, _| flow.ports.0 ^= 1),
        ("destination port", |flow, _| flow.ports.1 ^= 1),
        ("tos", |flow, _| flow.tos ^= 4),
        ("congestion", |flow, _| flow.tos ^= 3),
        ("ttl", |flow, _| flow.ttl -= 1),
        ("acknowledgment", |flow, _| flow.ack += 1),
        ("window", |flow, _| flow.window += 1),
        ("echo", |flow, _| flow.ece ^= true),
        ("timestamp", |flow, _| flow.tcp_options[4] ^= 1),
        ("fewer options", |flow, _| flow.tcp_options.truncate(4)),
        ("hole", |_, segment| segment.sequence += 1),
        ("repetition", |_, segment| segment.sequence -= 1000),
        ("fin", |_, segment| segment.fin = true),
        ("cwr", |_, segment| segment.cwr = true),
        ("longer", |_, segment| segment.data.push(0)),
        ("empty", |_, segment| segment.data.clear()),
        ("label", |flow, _| flow.label ^= 1),
        ("don't fragment", |flow, _| flow.dont_fragment ^= true),
    ];
    for v4 in [true, false] {
        let flow = Flow::new(v4);
        let segments = flow.cut(&stream(1000, 2, 0), 1000);
        let (out, _) = coalesce(&device(), packets(&frames(&flow, &segments), &[]));
        assert_eq!(out.len(), 1, "these belong together");
        for (name, change) in changes {
            if name == if v4 { "label" } else { "don't fragment" } {
                continue;
            }
            let (mut other, mut second) = (flow.clone(), segments[1].clone());
            change(&mut other, &mut second);
            let frames = [flow.build(&segments[0]), other.build(&second)];
            let (out, counters) = coalesce(&device(), packets(&frames, &[]));
            assert_eq!(counters.unchanged, 2, "{name}");
            for (packet, frame) in out.iter().zip(&frames) {
                assert_eq!(&joined(packet), frame);
                assert_eq!(packet.meta, COMPLETE);
            }
        }
    }
}

/// What is true of the first packet must be so of the next: each byte is compared.
#[test]
fn every_byte_of_the_headers_counts() {
    for (v4, vlan) in [(true, None), (false, None), (true, Some(5)), (false, Some(5))] {
        let flow = Flow { vlan, dont_fragment: false, ..Flow::new(v4) };
        let good = frames(&flow, &flow.cut(&stream(1000, 2, 0), 1000));
        let checksum = flow.tcp() + 16..flow.tcp() + 18;
        let pushed = flow.tcp() + 13;
        for at in 0..flow.headers() {
            for bit in 0..8 {
                let mut frames = good.clone();
                let frame = &mut frames[1];
                frame[at] ^= 1 << bit;
                let is_free = checksum.contains(&at) || at == pushed && bit == 3;
                let expected = if is_free { 0 } else { 2 };
                let (_, counters) = coalesce(&device(), packets(&frames, &[]));
                assert_eq!(counters.unchanged, expected, "byte {at}, bit {bit}");
                if v4 && (flow.ip()..flow.tcp()).contains(&at) {
                    // The same with a good header checksum.
                    let ip = &mut frames[1][flow.ip()..flow.tcp()];
                    ip[10..12].fill(0);
                    let sum = !super::plainly(ip);
                    ip[10..12].copy_from_slice(&sum.to_be_bytes());
                    let expected = if (10..12).contains(&(at - flow.ip())) { 0 } else { 2 };
                    let (_, counters) = coalesce(&device(), packets(&frames, &[]));
                    assert_eq!(counters.unchanged, expected, "byte {at}, bit {bit}, summed");
                }
            }
        }
    }
}

#[test]
fn what_is_no_plain_segment_passes() {
    let flow = Flow::new(true);
    let segments = flow.cut(&stream(1000, 3, 0), 1000);
    let good = frames(&flow, &segments);
    let passes = |name: &str, frames: &[Vec<u8>], meta: Meta| {
        let packets = frames.iter().map(|frame| split(frame, &[100], 0, meta));
        let (out, counters) = coalesce(&device(), packets);
        assert_eq!(counters.unchanged, 3, "{name}");
        assert!(out.iter().zip(frames).all(|(packet, frame)| joined(packet) == *frame));
    };
    let all = |change: fn(&mut Vec<u8>)| {
        let mut frames = good.clone();
        frames.iter_mut().for_each(change);
        frames
    };
    passes("unknown checksum", &good, Meta::default());
    passes("another kind of GSO", &good, gso(GsoKind::TcpV6, 1000));
    let sizes = [1000, 999, 1000].map(|size| gso(flow.kind(), size));
    let large = good.iter().zip(sizes).map(|(frame, meta)| split(frame, &[], 0, meta));
    assert_eq!(coalesce(&device(), large).1.unchanged, 3, "another GSO size");
    passes("IPv4 header checksum", &all(|frame| frame[24] ^= 1), COMPLETE);
    passes("padding", &all(|frame| frame.push(0)), COMPLETE);
    passes("no ACK", &all(|frame| frame[47] &= !16), COMPLETE);
    for flag in [1, 2, 4, 32] {
        let mut frames = good.clone();
        frames.iter_mut().for_each(|frame| frame[47] |= flag);
        passes("flag", &frames, COMPLETE);
    }
    let with_options = Flow { options: vec![1; 4], ..Flow::new(true) };
    passes("options", &frames(&with_options, &segments), COMPLETE);
    for places in [&[10][..], &[0], &[40]] {
        let (_, counters) = coalesce(&device(), packets(&good, places));
        assert_eq!(counters.unchanged, 3, "headers in pieces");
    }
}

/// RFC 6864: with DF set the identification means nothing, and some stacks leave it at 0.
#[test]
fn identifications_count_or_stay_where_df_is_set() {
    let coalesced = |dont_fragment, ids: [u16; 3]| {
        let flow = Flow { dont_fragment, ..Flow::new(true) };
        let mut segments = flow.cut(&stream(1000, 3, 0), 1000);
        for (segment, id) in segments.iter_mut().zip(ids) {
            segment.id = id;
        }
        coalesce(&device(), packets(&frames(&flow, &segments), &[])).1.segments
    };
    assert_eq!(coalesced(true, [65535, 0, 1]), 3);
    assert_eq!(coalesced(false, [65535, 0, 1]), 3);
    assert_eq!(coalesced(true, [0, 0, 0]), 3);
    assert_eq!(coalesced(false, [0, 0, 0]), 0);
    assert_eq!(coalesced(true, [0, 0, 1]), 2);
    assert_eq!(coalesced(true, [0, 1, 1]), 2);
    assert_eq!(coalesced(true, [0, 2, 4]), 0);
}
