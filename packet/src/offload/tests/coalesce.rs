//! Putting together.

use alloc::vec;
use alloc::vec::Vec;

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use proptest::prelude::*;

use super::super::{Coalescer, Counters, Segments, Sums};
use super::{COMPLETE, Flow, Segment, Tx, block, flow, gso, joined, split, whole};
use crate::buffer::{Checksum, Meta, View};
use crate::buffer::{MAX_FRAGMENTS, MAX_PACKET};
use crate::features::{Capabilities, Features};

pub(super) fn device() -> Capabilities {
    Capabilities { block_size: 4096, max_fragments: MAX_FRAGMENTS, features: Features::ALL }
}

/// What comes out if these go in, in one burst.
pub(super) fn coalesce(
    device: &Capabilities,
    packets: impl IntoIterator<Item = Tx>,
) -> (Vec<Tx>, Counters) {
    let mut coalescer = Coalescer::new(device);
    let mut out = vec![];
    for packet in packets {
        let meta = packet.meta;
        match packet.into_single() {
            Ok(buf) => coalescer.push_single(buf, meta, |packet| out.push(packet)),
            Err(packet) => coalescer.push(packet, |packet| out.push(packet)),
        }
    }
    coalescer.flush(|packet| out.push(packet));
    assert!(!coalescer.is_pending());
    coalescer.flush(|_| panic!("nothing waits"));
    let counters = coalescer.counters();
    assert_eq!(counters.taken, counters.unchanged + counters.segments);
    assert_eq!(out.len() as u64, counters.unchanged + counters.coalesced);
    (out, counters)
}

/// The frames that a peer makes of a packet, and the data copied.
pub(super) fn on_the_wire(packet: Tx) -> (Vec<Vec<u8>>, u64) {
    if packet.meta.gso.is_none() {
        return (vec![joined(&packet)], 0);
    }
    let mut segments = Segments::new(packet, Sums::Fill).map_err(|(why, _)| why).unwrap();
    let mut frames = vec![];
    while let Some(segment) = segments.cut(|| block(4096, 0)) {
        frames.push(joined(&segment.unwrap()));
    }
    (frames, segments.copied().payload)
}

pub(super) fn frames(flow: &Flow, segments: &[Segment]) -> Vec<Vec<u8>> {
    segments.iter().map(|segment| flow.build(segment)).collect()
}

pub(super) fn packets(frames: &[Vec<u8>], places: &[usize]) -> Vec<Tx> {
    frames.iter().map(|frame| split(frame, places, 64, COMPLETE)).collect()
}

/// `count` full segments and one of `last` bytes.
pub(super) fn stream(size: usize, count: usize, last: usize) -> Segment {
    Segment { data: super::noise(size * count + last, 3), id: 65_530, ..Segment::default() }
}

proptest! {
    /// segment(coalesce(x)) == x
    #[test]
    fn cut_again_it_is_what_it_was(
        flow in flow(true),
        whole in whole(20_000),
        size in 1200usize..3000,
    ) {
        let whole = Segment { fin: false, ..whole };
        let segments = flow.cut(&whole, size);
        let expected = frames(&flow, &segments);
        let (out, counters) = coalesce(&device(), packets(&expected, &[]));
        if segments.len() > 1 {
            prop_assert_eq!((out.len(), counters.coalesced), (1, 1));
            prop_assert_eq!(out[0].meta, gso(flow.kind(), size));
            prop_assert_eq!(out[0].fragments().len(), segments.len());
        } else {
            prop_assert_eq!(out[0].meta, COMPLETE);
        }
        let mut wire = vec![];
        for packet in out {
            let (frames, copied) = on_the_wire(packet);
            prop_assert_eq!(copied, 0);
            wire.extend(frames);
        }
        prop_assert_eq!(wire, expected);
    }

    /// Large packets are a stream: whatever data each has, what comes of it is that of one packet.
    #[test]
    fn large_packets_join_as_a_stream(
        flow in flow(true),
        whole in whole(20_000),
        size in 500usize..1500,
        part in 1500usize..5000,
    ) {
        let flow = Flow { dont_fragment: true, ..flow };
        let whole = Segment { fin: false, psh: false, cwr: false, id: 0, ..whole };
        let mut parts = flow.cut(&whole, part);
        // As a stack that gives no identification.
        parts.iter_mut().for_each(|part| part.id = 0);
        let last = parts.len() - 1;
        let parts = parts.iter().enumerate().map(|(index, part)| {
            let is_small = index == last && part.data.len() <= size;
            let meta = if is_small { COMPLETE } else { gso(flow.kind(), size) };
            split(&flow.build(part), &[], 64, meta)
        });
        let (out, counters) = coalesce(&device(), parts);
        prop_assert_eq!(out.len(), 1);
        prop_assert_eq!(counters.segments as usize, if last > 0 { last + 1 } else { 0 });
        let packet = out.into_iter().next().unwrap();
        if last > 0 {
            prop_assert_eq!(packet.meta, gso(flow.kind(), size));
        }
        let mut expected = flow.cut(&whole, size);
        if !flow.v4 || packet.meta.gso.is_none() {
            expected.iter_mut().for_each(|segment| segment.id = 0);
        }
        let (wire, _) = on_the_wire(packet);
        prop_assert_eq!(wire, frames(&flow, &expected));
    }

    /// The packet itself is what etherparse makes of all the data, and its checksum comes out
    /// right when the whole of it is filled in.
    #[test]
    fn the_packet_is_one_large_segment(
        flow in flow(true),
        whole in whole(20_000),
        size in 1200usize..3000,
        places in prop::collection::vec(200usize..1200, 0..1),
    ) {
        let whole = Segment { fin: false, ..whole };
        let all = packets(&frames(&flow, &flow.cut(&whole, size)), &places);
        let several = all.len() > 1;
        let (out, _) = coalesce(&device(), all);
        prop_assume!(out.len() == 1 && several);
        let frame = joined(&out[0]);
        prop_assert_eq!(flow.completed(&frame), flow.build(&whole));
    }

    /// coalesce(segment(y)) == y
    #[test]
    fn put_together_again_it_is_what_it_was(
        flow in flow(true),
        whole in whole(20_000),
        size in 1200usize..3000,
        places in prop::collection::vec(0usize..20_000, 0..3),
    ) {
        let whole = Segment { fin: false, ..whole };
        let frame = flow.build(&whole);
        let packet = split(&frame, &places, 0, gso(flow.kind(), size));
        let mut segments = Segments::new(packet, Sums::Blank).map_err(|(why, _)| why).unwrap();
        let mut cut = vec![];
        while let Some(segment) = segments.cut(|| block(4096, 64)) {
            cut.push(segment.unwrap());
        }
        let fragments: usize = cut.iter().map(|segment| segment.fragments().len()).sum();
        let count = cut.len();
        prop_assume!(count > 1 && fragments <= MAX_FRAGMENTS);
        let mut coalescer = Coalescer::new(&device());
        let mut out = vec![];
        for segment in cut {
            coalescer.push(segment, |packet| out.push(packet));
        }
        coalescer.flush(|packet| out.push(packet));
        prop_assert_eq!(out.len(), 1);
        prop_assert_eq!(out[0].meta, gso(flow.kind(), size));
        prop_assert_eq!(flow.completed(&joined(&out[0])), frame);
    }
}

#[test]
fn blank_and_complete_go_together() {
    let flow = Flow::new(false);
    let frames = frames(&flow, &flow.cut(&stream(1000, 2, 0), 1000));
    let blank = Meta { checksum: Checksum::Blank, gso: None };
    let packets = [split(&frames[0], &[], 0, blank), split(&frames[1], &[100], 0, COMPLETE)];
    let mut coalescer = Coalescer::new(&device());
    let mut out = vec![];
    for packet in packets {
        coalescer.push(packet, |packet| out.push(packet));
    }
    assert!(coalescer.is_pending());
    coalescer.flush(|packet| out.push(packet));
    assert_eq!(out.len(), 1);
    assert_eq!(on_the_wire(out.pop().unwrap()).0, frames);
}

#[test]
fn a_short_or_pushed_segment_is_the_last() {
    let flow = Flow::new(true);
    let segments = flow.cut(&stream(1000, 2, 500), 1000);
    let mut coalescer = Coalescer::new(&device());
    let mut out: Vec<Tx> = vec![];
    for packet in packets(&frames(&flow, &segments), &[]) {
        coalescer.push(packet, |packet| out.push(packet));
    }
    assert!(!coalescer.is_pending() && out.len() == 1, "it need not wait for the end");

    let mut segments = flow.cut(&stream(1000, 4, 0), 1000);
    segments[1].psh = true;
    let (out, counters) = coalesce(&device(), packets(&frames(&flow, &segments), &[]));
    assert_eq!((out.len(), counters.segments), (2, 4));
    let pushed = |packet: &Tx| packet.fragments()[0].bytes()[47] & 8 != 0;
    assert!(pushed(&out[0]) && !pushed(&out[1]));

    segments[0].psh = true;
    segments[1].psh = false;
    let (_, counters) = coalesce(&device(), packets(&frames(&flow, &segments), &[]));
    assert_eq!((counters.unchanged, counters.segments), (1, 3));
}

#[test]
fn no_packet_has_more_fragments_or_bytes_than_the_device_takes() {
    let flow = Flow::new(true);
    for max in [2, 7, MAX_FRAGMENTS] {
        let device = Capabilities { max_fragments: max, ..device() };
        let sent = frames(&flow, &flow.cut(&stream(1000, 40, 0), 1000));
        let (out, _) = coalesce(&device, packets(&sent, &[]));
        assert_eq!(out.len(), 40usize.div_ceil(max));
        assert!(out.iter().all(|packet| packet.fragments().len() <= max));
        let wire: Vec<Vec<u8>> = out.into_iter().flat_map(|packet| on_the_wire(packet).0).collect();
        assert_eq!(wire, sent);
    }
    let sent = frames(&flow, &flow.cut(&stream(8000, 20, 0), 8000));
    let (out, _) = coalesce(&device(), packets(&sent, &[]));
    assert!(out.iter().all(|packet| packet.len() <= MAX_PACKET));
    assert_eq!(out[0].fragments().len(), 8);
}

#[test]
fn a_device_without_the_offload_gets_segments() {
    let without: [fn(&mut Capabilities); 4] = [
        |device| device.features.gso_v4 = false,
        |device| device.features.checksum_v4 = false,
        |device| device.max_fragments = 1,
        |device| *device = Capabilities::plain(0),
    ];
    let flow = Flow::new(true);
    let sent = frames(&flow, &flow.cut(&stream(1000, 3, 0), 1000));
    for change in without {
        let mut device = device();
        change(&mut device);
        assert_eq!(coalesce(&device, packets(&sent, &[])).1.unchanged, 3);
    }
    let only_v4 =
        Capabilities { features: Features { gso_v6: false, ..Features::ALL }, ..device() };
    let sent = frames(&Flow::new(false), &flow.cut(&stream(1000, 3, 0), 1000));
    assert_eq!(coalesce(&only_v4, packets(&sent, &[])).1.unchanged, 3);
}

/// What a peer sees is a packet like any other.
#[test]
fn etherparse_reads_the_packet() {
    for v4 in [true, false] {
        let flow = Flow::new(v4);
        let sent = frames(&flow, &flow.cut(&stream(1000, 9, 0), 1000));
        let (out, _) = coalesce(&device(), packets(&sent, &[]));
        let frame = flow.completed(&joined(&out[0]));
        let read = SlicedPacket::from_ethernet(&frame).unwrap();
        let Some(TransportSlice::Tcp(tcp)) = read.transport else { panic!("no TCP") };
        assert_eq!(tcp.payload().len(), 9000);
        match read.net {
            Some(NetSlice::Ipv4(ip)) => {
                let header = ip.header().to_header();
                assert_eq!(header.header_checksum, header.calc_header_checksum());
                let sum = tcp.calc_checksum_ipv4(header.source, header.destination);
                assert_eq!(sum.unwrap(), tcp.checksum());
            }
            Some(NetSlice::Ipv6(ip)) => {
                let header = ip.header().to_header();
                let sum = tcp.calc_checksum_ipv6(header.source, header.destination);
                assert_eq!(sum.unwrap(), tcp.checksum());
            }
            _ => panic!("no IP"),
        }
    }
}

#[test]
fn shared_packets_join_once_nobody_else_reads_them() {
    let flow = Flow::new(true);
    let sent = frames(&flow, &flow.cut(&stream(1000, 3, 0), 1000));
    let received = packets(&sent, &[]).into_iter().map(|packet: Tx| packet.freeze());
    let unshared = received.map(|packet| packet.try_into_mut().unwrap());
    let (out, counters) = coalesce(&device(), unshared);
    assert_eq!(counters.segments, 3);
    let out: Vec<Vec<u8>> = out.into_iter().flat_map(|packet| on_the_wire(packet).0).collect();
    assert_eq!(out, sent);
}
