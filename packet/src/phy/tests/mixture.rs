//! Any mixture of frames, sent through the adaptor on a device that takes large packets and on one
//! that does not: the same bytes reach the wire, each flow's in the same order.

use alloc::collections::BTreeMap;

use proptest::prelude::*;

use super::frames::is_right;
use super::*;

/// The next segments of a flow, or something else.
#[derive(Clone, Copy, Debug)]
enum Sent {
    Tcp { flow: u16, segments: usize, size: usize, push: bool },
    Udp { len: usize },
    Arp,
}

fn sent() -> impl Strategy<Value = Sent> {
    prop_oneof![
        6 => (0u16..12, 1usize..5, prop_oneof![Just(1000usize), 0usize..1400], any::<bool>())
            .prop_map(|(flow, segments, size, push)| Sent::Tcp { flow, segments, size, push }),
        1 => (0usize..1400).prop_map(|len| Sent::Udp { len }),
        1 => Just(Sent::Arp),
    ]
}

/// Frames as a stack leaves them that computes no checksums of TCP and UDP.
fn frames(mixture: &[Sent]) -> Vec<Vec<u8>> {
    let ethernet = || etherparse::PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    let (mut out, mut sequences, mut ids) = (vec![], [u32::MAX - 2000; 12], [0u16; 12]);
    for &sent in mixture {
        match sent {
            Sent::Tcp { flow, segments, size, push } => {
                for segment in 0..segments {
                    let which = usize::from(flow);
                    let mut ip = etherparse::Ipv4Header {
                        identification: ids[which],
                        time_to_live: 64,
                        source: [10, 0, 0, 1],
                        destination: [10, 0, 0, 2],
                        ..Default::default()
                    };
                    ip.protocol = etherparse::ip_number::TCP;
                    ids[which] = ids[which].wrapping_add(1);
                    let builder = if flow % 3 == 0 {
                        ethernet().ipv6([0xfd; 16], [0xfe; 16], 64)
                    } else {
                        ethernet().ip(etherparse::IpHeaders::Ipv4(ip, Default::default()))
                    };
                    let mut tcp = builder.tcp(1000 + flow, 7, sequences[which], 500).ack(9);
                    if push && segment + 1 == segments {
                        tcp = tcp.psh();
                    }
                    let mut frame = vec![];
                    let fill = (flow as u8) ^ sequences[which] as u8;
                    tcp.write(&mut frame, &vec![fill; size]).unwrap();
                    let field = if flow % 3 == 0 { 70 } else { 50 };
                    frame[field..field + 2].fill(0);
                    sequences[which] = sequences[which].wrapping_add(size as u32);
                    out.push(frame);
                }
            }
            Sent::Udp { len } => {
                let mut frame = vec![];
                let ip = ethernet().ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64);
                ip.udp(1000, 7).write(&mut frame, &vec![len as u8; len]).unwrap();
                frame[40..42].fill(0);
                out.push(frame);
            }
            Sent::Arp => out.push([&[0xff; 6][..], &[2, 0, 0, 0, 0, 1, 8, 6], &[1; 28]].concat()),
        }
    }
    out
}

/// What reaches the wire of a device with this peer, which cuts large packets in software.
fn wire(peer: Features, frames: &[Vec<u8>], flush_every: usize) -> (Vec<Vec<u8>>, Counters) {
    let net = Mock { peer, room: 100_000, blocks: 100_000, ..mock() };
    let mut device = Device::new(net);
    for (at, frame) in frames.iter().enumerate() {
        let token = device.transmit(Instant::ZERO).unwrap();
        token.consume(frame.len(), |bytes| bytes.copy_from_slice(frame));
        if at % flush_every == 0 {
            device.flush();
        }
    }
    device.flush();
    let counters = device.counters();
    let mut out = vec![];
    for mut packet in device.inner_mut().sent.drain(..) {
        if packet.meta.gso.is_none() {
            fill_blank(&mut packet).unwrap();
            out.push(joined(&packet));
            continue;
        }
        let mut segments = Segments::new(packet, Sums::Fill).map_err(|(why, _)| why).unwrap();
        while let Some(segment) = segments.cut(|| Some(BufMut::new(HeapBlock::new(2048), 0))) {
            out.push(joined(&segment.unwrap()));
        }
    }
    (out, counters)
}

/// Each flow's frames, in order; what is none's under 0.
fn by_flow(wire: Vec<Vec<u8>>) -> BTreeMap<u16, Vec<Vec<u8>>> {
    let mut flows = BTreeMap::<u16, Vec<Vec<u8>>>::new();
    for frame in wire {
        let tcp = match (frame[13], frame[20], frame[23]) {
            (0xdd, 6, _) => Some(54),
            (0, _, 6) => Some(34),
            _ => None,
        };
        let port = tcp.map_or(0, |at| u16::from_be_bytes([frame[at], frame[at + 1]]));
        flows.entry(port).or_default().push(frame);
    }
    flows
}

proptest! {
    #[test]
    fn the_same_bytes_leave_with_and_without_large_packets(
        mixture in prop::collection::vec(sent(), 0..60),
        flush_every in 1usize..80,
    ) {
        let frames = frames(&mixture);
        let (plain, without) = wire(Features::NONE, &frames, flush_every);
        let (whole, with) = wire(Features::ALL, &frames, flush_every);
        prop_assert_eq!(plain.len(), frames.len());
        prop_assert_eq!(without.coalesced.coalesced, 0);
        prop_assert_eq!(with.coalesced.taken, frames.len() as u64);
        prop_assert!(plain.iter().all(|frame| frame[13] == 6 || is_right(frame)));
        prop_assert_eq!(by_flow(whole), by_flow(plain));
    }
}

/// The mixture is one that packets are put together in.
#[test]
fn four_flows_in_turn_leave_as_four_packets() {
    let turn = |flow| Sent::Tcp { flow, segments: 1, size: 1000, push: false };
    let mixture: Vec<Sent> = (0..10).flat_map(|_| (0..4).map(turn)).collect();
    let (wire, counters) = wire(Features::ALL, &frames(&mixture), 1000);
    // The first frame leaves with the first flush.
    let coalesced = counters.coalesced;
    assert_eq!((wire.len(), coalesced.coalesced, coalesced.segments), (40, 4, 39));
}
