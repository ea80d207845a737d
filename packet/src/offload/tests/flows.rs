//! Several flows at once: each in order, whatever comes between its packets.

use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;

use etherparse::{IpFragOffset, IpNumber, Ipv4Header, PacketBuilder};
use proptest::prelude::*;

use super::super::{Coalescer, FLOWS};
use super::coalesce::{coalesce, device, frames, on_the_wire, packets, stream};
use super::{COMPLETE, Flow, Segment, Tx, flow, joined, split, whole};
use crate::buffer::{Checksum, Meta};
use crate::features::Capabilities;

/// Where a frame in a mixture comes from.
#[derive(Clone, Copy, PartialEq)]
enum From {
    Flow(usize),
    /// No TCP: it may overtake.
    Other,
    /// It may be of any flow: nothing passes it.
    Anywhere,
}

/// UDP, ARP and a TCP segment cut into fragments of IPv4, each in a frame.
fn strangers(flow: &Flow) -> [(From, Vec<u8>); 4] {
    let [from, to] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]];
    let ends = flow.addresses.map(|address| *address.first_chunk().unwrap());
    let mut udp = vec![];
    let builder = PacketBuilder::ethernet2(from, to).ipv4(ends[0], ends[1], 9);
    builder.udp(flow.ports.0, flow.ports.1).write(&mut udp, b"data").unwrap();
    let arp = [&[0xff; 6][..], &from, &[8, 6], &[1; 28]].concat();
    let fragment = |offset: u16, more, data: &[u8]| {
        let mut ip =
            Ipv4Header::new(data.len() as u16, 9, IpNumber::TCP, ends[0], ends[1]).unwrap();
        (ip.dont_fragment, ip.more_fragments) = (false, more);
        ip.fragment_offset = IpFragOffset::try_new(offset).unwrap();
        ip.header_checksum = ip.calc_header_checksum();
        let mut frame = [&to[..], &from, &[8, 0]].concat();
        ip.write(&mut frame).unwrap();
        frame.extend(data);
        frame
    };
    let segment = &flow.build(&stream(100, 1, 0))[flow.tcp()..];
    [
        (From::Other, udp),
        (From::Other, arp),
        (From::Anywhere, fragment(0, true, &segment[..64])),
        (From::Anywhere, fragment(8, false, &segment[64..])),
    ]
}

proptest! {
    /// Any mixture of flows, losses, repetitions and odd packets: what reaches the wire is what
    /// was sent, each flow in the same order.
    #[test]
    fn no_flow_is_reordered_and_nothing_is_lost_or_changed(
        flows in prop::collection::vec((flow(false), any::<bool>(), whole(8000)), 1..12),
        picks in prop::collection::vec((0usize..16, 0usize..12, 1usize..4), 0..60),
        states in prop::collection::vec(0usize..8, 0..40),
    ) {
        let mut sources: Vec<Vec<Vec<u8>>> = vec![];
        for (at, (mut flow, plain, whole)) in flows.into_iter().enumerate() {
            if plain {
                flow.options.clear();
            }
            // No two may be the same flow.
            flow.addresses[0][0] = at as u8;
            sources.push(frames(&flow, &flow.cut(&whole, 700)));
        }
        let strangers = strangers(&Flow::new(true));
        let mut sent = vec![];
        for (pick, from, count) in picks {
            if let Some(stranger) = strangers.get(pick.wrapping_sub(12)) {
                sent.push(stranger.clone());
                continue;
            }
            let flow = pick % sources.len();
            let segments = sources[flow].iter().cycle().skip(from).take(count);
            sent.extend(segments.map(|frame| (From::Flow(flow), frame.clone())));
        }
        let states = states.into_iter().chain(core::iter::repeat(1));
        let packets = sent.iter().zip(states).map(|((_, frame), state)| {
            let checksum = if state == 0 { Checksum::Unknown } else { Checksum::Complete };
            split(frame, &[frame.len() / 2], 0, Meta { checksum, gso: None })
        });
        let (out, _) = coalesce(&device(), packets);
        let wire: Vec<Vec<u8>> = out.into_iter().flat_map(|packet| on_the_wire(packet).0).collect();

        let known: BTreeMap<&[u8], From> =
            sent.iter().map(|(from, frame)| (&frame[..], *from)).collect();
        let of = |wanted: From, frames: &[Vec<u8>]| -> Vec<Vec<u8>> {
            let in_order = |frame: &&Vec<u8>| {
                let from = known[&frame[..]];
                from == wanted || wanted != From::Other && from == From::Anywhere
            };
            frames.iter().filter(in_order).cloned().collect()
        };
        let sent: Vec<Vec<u8>> = sent.iter().map(|(_, frame)| frame.clone()).collect();
        prop_assert_eq!(wire.len(), sent.len());
        prop_assert!(wire.iter().all(|frame| known.contains_key(&frame[..])), "something else");
        for wanted in (0..sources.len()).map(From::Flow).chain([From::Other]) {
            prop_assert_eq!(of(wanted, &wire), of(wanted, &sent));
        }
    }
}

/// The frames of flows between different ports, each `count` segments of 1000 bytes.
fn flows(count: u16, segments: usize) -> Vec<Vec<Vec<u8>>> {
    (0..count)
        .map(|port| {
            let mut flow = Flow::new(port % 2 == 0);
            flow.ports.0 += port;
            frames(&flow, &flow.cut(&stream(1000, segments, 0), 1000))
        })
        .collect()
}

/// One packet of each in turn.
fn in_turn(flows: &[Vec<Vec<u8>>]) -> Vec<Vec<u8>> {
    (0..flows[0].len()).flat_map(|at| flows.iter().map(move |flow| flow[at].clone())).collect()
}

#[test]
fn flows_in_turn_are_put_together_each() {
    for count in 1..=FLOWS as u16 {
        let flows = flows(count, 10);
        let (out, counters) = coalesce(&device(), packets(&in_turn(&flows), &[]));
        assert_eq!((counters.coalesced, counters.segments), (count.into(), 10 * u64::from(count)));
        for (packet, flow) in out.into_iter().zip(flows) {
            assert_eq!(on_the_wire(packet).0, flow, "the oldest first");
        }
    }
}

#[test]
fn with_one_flow_too_many_the_oldest_goes() {
    let flows = flows(FLOWS as u16 + 1, 2);
    let mut coalescer = Coalescer::new(&device());
    let mut out: Vec<Tx> = vec![];
    let firsts: Vec<_> = flows.iter().map(|flow| flow[0].clone()).collect();
    for packet in packets(&firsts, &[]) {
        coalescer.push(packet, |packet| out.push(packet));
    }
    assert_eq!(out.len(), 1);
    assert_eq!(joined(&out[0]), flows[0][0]);
    // The others can still be joined.
    for packet in packets(&[flows[8][1].clone(), flows[1][1].clone()], &[]) {
        coalescer.push(packet, |packet| out.push(packet));
    }
    coalescer.flush(|packet| out.push(packet));
    assert_eq!((out.len(), coalescer.counters().coalesced), (9, 2));
    assert_eq!(on_the_wire(out.remove(1)).0, flows[1]);
    assert_eq!(on_the_wire(out.remove(7)).0, flows[8]);
}

#[test]
fn only_what_may_be_of_a_flow_waits_for_it() {
    let flow = Flow::new(true);
    let [udp, arp, first, second] = strangers(&flow).map(|(_, frame)| frame);
    let (a, b) = (&flows(3, 2)[0], &flows(3, 2)[1]);
    let ack = flow.build(&Segment { sequence: 2000, ..Segment::default() });
    let short = a[1][..36].to_vec();
    let order = |sent: &[&Vec<u8>]| {
        let sent: Vec<Vec<u8>> = sent.iter().map(|&frame| frame.clone()).collect();
        let (out, _) = coalesce(&device(), packets(&sent, &[]));
        let wire = out.into_iter().flat_map(|packet| on_the_wire(packet).0);
        wire.map(|frame| sent.iter().position(|it| *it == frame).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(order(&[&a[0], &b[0], &udp, &arp, &a[1], &b[1]]), [2, 3, 0, 4, 1, 5]);
    // An acknowledgment comes after the data of its flow, and does not hurry the other's.
    assert_eq!(order(&[&b[0], &a[0], &ack, &b[1]]), [1, 2, 0, 3]);
    // Nobody knows whose a fragment is, or what is cut short: all leave.
    for unclear in [&first, &second, &short] {
        assert_eq!(order(&[&a[0], &b[0], unclear, &a[1], &b[1]]), [0, 1, 2, 3, 4]);
    }
}

/// A device that can do less, or more, while packets wait.
#[test]
fn the_device_may_change() {
    let flows = flows(2, 4);
    let mut coalescer = Coalescer::new(&Capabilities::plain(0));
    assert!(!coalescer.is_on());
    let mut out: Vec<Tx> = vec![];
    for (at, packet) in packets(&in_turn(&flows), &[]).into_iter().enumerate() {
        match at {
            2 => coalescer.adapt(&device()),
            6 => coalescer.adapt(&Capabilities::plain(0)),
            _ => {}
        }
        coalescer.push(packet, |packet| out.push(packet));
        let waiting = [0, 0, 2, 4, 5, 6, 3, 0];
        assert_eq!(coalescer.slots(), waiting[at]);
    }
    // What did not join came after what waited of its flow.
    let fragments: Vec<usize> = out.iter().map(|packet| packet.fragments().len()).collect();
    assert_eq!(fragments, [1, 1, 2, 1, 2, 1]);
    assert!(!coalescer.is_pending());
    assert_eq!(out[2].meta.gso.map(|gso| gso.size.get()), Some(1000));
    assert_eq!(out[3].meta, COMPLETE);
    let wire: Vec<_> = out.into_iter().flat_map(|packet| on_the_wire(packet).0).collect();
    for flow in flows {
        let own: Vec<_> = wire.iter().filter(|&frame| flow.contains(frame)).cloned().collect();
        assert_eq!(own, flow);
    }
}
