//! Bytes and metadata that anybody could make up: nothing panics, grows without bound or makes
//! bytes out of nothing.

use alloc::vec::Vec;
use core::num::NonZeroU16;

use proptest::prelude::*;

use super::super::{Coalescer, Cuttable, MAX_SEGMENTS, Segments, Sums, make_blank, pseudo_sum};
use super::{Rx, Tx, block, flow, joined, split, whole};
use crate::buffer::{AnyPacket, Checksum, HeapBlock, Meta};
use crate::buffer::{Gso, GsoKind, MAX_FRAGMENTS};
use crate::features::{Capabilities, Features};

fn meta() -> impl Strategy<Value = Meta> {
    let checksum =
        prop_oneof![Just(Checksum::Unknown), Just(Checksum::Complete), Just(Checksum::Blank)];
    let kind = prop_oneof![Just(GsoKind::TcpV4), Just(GsoKind::TcpV6)];
    let size = prop_oneof![1u16..=20, 1u16..=u16::MAX];
    let gso =
        (size, kind).prop_map(|(size, kind)| Gso { size: NonZeroU16::new(size).unwrap(), kind });
    (checksum, prop::option::of(gso)).prop_map(|(checksum, gso)| Meta { checksum, gso })
}

/// A good frame with some bytes changed, or cut short.
fn frame() -> impl Strategy<Value = Vec<u8>> {
    let bent = (
        flow(false),
        whole(3000),
        prop::collection::vec((0usize..150, any::<u8>()), 0..4),
        prop::option::of(0usize..3200),
    );
    let bent = bent.prop_map(|(flow, whole, changes, len)| {
        let mut frame = flow.build(&whole);
        for (at, value) in changes {
            if let Some(byte) = frame.get_mut(at) {
                *byte = value;
            }
        }
        frame.truncate(len.unwrap_or(frame.len()));
        frame
    });
    prop_oneof![4 => bent, 1 => prop::collection::vec(any::<u8>(), 0..300)]
}

fn any_packet() -> impl Strategy<Value = (Vec<u8>, Vec<usize>, Meta)> {
    (frame(), prop::collection::vec(0usize..3200, 0..MAX_FRAGMENTS), meta())
}

fn cut<V: Cuttable<Block = HeapBlock>>(
    packet: AnyPacket<V>,
    frame: &[u8],
    room: usize,
    sums: Sums,
) {
    let meta = packet.meta;
    match Segments::new(packet, sums) {
        Err((_, packet)) => {
            assert_eq!(joined(&packet), frame);
            assert_eq!(packet.meta, meta);
        }
        Ok(mut segments) => {
            let (count, mut data) = (segments.remaining(), 0);
            assert!(count <= MAX_SEGMENTS);
            let size = usize::from(meta.gso.unwrap().size.get());
            while let Some(segment) = segments.cut(|| block(room, 7)) {
                let Ok(segment) = segment else { break };
                assert!(segment.fragments().len() <= MAX_FRAGMENTS);
                assert!(segment.len() <= size + 138);
                data += segment.len();
            }
            assert!(data <= frame.len() + count * 138);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn cutting_never_panics(
        (frame, places, meta) in any_packet(),
        room in 0usize..4200,
        headroom in 0usize..160,
        fill: bool,
    ) {
        let sums = if fill { Sums::Fill } else { Sums::Blank };
        cut(split(&frame, &places, headroom, meta), &frame, room, sums);
        let rx: Rx = split(&frame, &places, headroom, meta).freeze();
        cut(rx, &frame, room, sums);
        let _ = pseudo_sum(&split(&frame, &places, 0, meta));
        let mut packet = split(&frame, &places, 0, meta);
        if make_blank(&mut packet).is_err() {
            prop_assert_eq!(joined(&packet), frame);
        }
    }

    /// Nearly the same packet again and again: each header check is reached.
    #[test]
    fn coalescing_never_panics(
        flow in flow(true),
        whole in whole(6000),
        size in 1usize..1500,
        bent in prop::collection::vec((0usize..20, 0usize..150, any::<u8>()), 0..6),
        strangers in prop::collection::vec((0usize..20, any_packet()), 0..4),
        checksum in prop_oneof![Just(Checksum::Complete), Just(Checksum::Blank)],
        max_fragments in 0usize..30,
    ) {
        let size = size.max(whole.data.len() / 19 + 1);
        let mut frames: Vec<Vec<u8>> =
            flow.cut(&whole, size).iter().map(|segment| flow.build(segment)).collect();
        for (which, at, value) in bent {
            if let Some(byte) = frames.get_mut(which).and_then(|frame| frame.get_mut(at)) {
                *byte = value;
            }
        }
        let meta = Meta { checksum, gso: None };
        let mut packets: Vec<Tx> =
            frames.iter().map(|frame| split(frame, &[frame.len()], 0, meta)).collect();
        for (at, (frame, places, meta)) in strangers {
            packets.insert(at.min(packets.len()), split(&frame, &places, 0, meta));
        }
        let device =
            Capabilities { max_fragments, features: Features::ALL, ..Capabilities::plain(0) };
        let bytes: usize = packets.iter().map(AnyPacket::len).sum();
        let mut coalescer = Coalescer::new(&device);
        let (mut out, mut count) = (0, 0);
        let mut sink = |packet: Tx| {
            out += packet.len();
            count += 1;
        };
        let taken = packets.len() as u64;
        for packet in packets {
            coalescer.push(packet, &mut sink);
        }
        coalescer.flush(&mut sink);
        let counters = coalescer.counters();
        prop_assert_eq!(taken, counters.unchanged + counters.segments);
        prop_assert_eq!(count, counters.unchanged + counters.coalesced);
        // Only headers go away.
        let joined = counters.segments - counters.coalesced;
        prop_assert!(out <= bytes && bytes <= out + joined as usize * 138);
    }
}
