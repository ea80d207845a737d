//! Devices: the same upper layer on pages, on the heap, and on a device that copies.

use std::cell::Cell;
use std::collections::VecDeque;

use packet_views::buffer::BufMut;
use packet_views::buffer::{AnyPacket, Checksum, View};
use packet_views::copying::{Copying, RawIo};
use packet_views::device::{NetDevice, SendError, SendErrorKind, Totals, WriteError};
use packet_views::header::checksum::{ChecksumError, Sum, Verdict, verify};
use packet_views::header::{
    self, At, EtherType, Ethernet, Ipv4, MacAddr, Network, Protocol, Transport, U16, Udp,
};

use crate::allocations::allocations;
use crate::devices::{Mirror, frames, heap};

/// A wire whose frames come back; it has room for so many.
struct Wire {
    frames: VecDeque<Vec<u8>>,
    spare: Vec<Vec<u8>>,
    room: usize,
}

impl Wire {
    fn new(room: usize) -> Wire {
        let spare = (0..room).map(|_| Vec::with_capacity(2000)).collect();
        Wire { frames: VecDeque::with_capacity(room), spare, room }
    }
}

impl RawIo for Wire {
    fn recv(&mut self, target: &mut [u8]) -> Option<usize> {
        let frame = self.frames.pop_front()?;
        let len = frame.len();
        if let Some(target) = target.get_mut(..len) {
            target.copy_from_slice(&frame);
        }
        self.spare.push(frame);
        Some(len)
    }

    fn send(&mut self, bytes: &[u8]) -> bool {
        if self.frames.len() == self.room {
            return false;
        }
        let mut frame = self.spare.pop().unwrap_or_default();
        frame.clear();
        frame.extend_from_slice(bytes);
        self.frames.push_back(frame);
        true
    }
}

const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 7]);

fn copying(room: usize) -> Copying<Wire> {
    Copying::new(Wire::new(room), MAC, 1500)
}

/// The upper layer: says `data` to itself in a UDP packet, and returns what it hears.
fn say<N: NetDevice>(net: &mut N, data: &[u8], blank: bool) -> Vec<u8> {
    let mut buf = net.alloc(42).unwrap();
    buf.append(data.len()).unwrap().copy_from_slice(data);
    let mut udp = Udp::new(7, 7, data.len()).unwrap();
    let (from, to) = ([10, 0, 0, 1], [10, 0, 0, 2]);
    let mut sum = Sum::pseudo_v4(from, to, 17, udp.len.get());
    if blank {
        udp.checksum = U16::new(sum.value());
    }
    header::push(&mut buf, udp).unwrap();
    if !blank {
        sum.add(buf.bytes());
        buf.bytes_mut()[6..8].copy_from_slice(&sum.checksum().to_be_bytes());
    }
    let ip = Ipv4::new(Protocol::UDP, from, to, 8 + data.len()).unwrap();
    header::push(&mut buf, ip).unwrap();
    let mac = net.mac().unwrap();
    let ethernet = Ethernet { destination: mac, source: mac, kind: EtherType::IPV4 };
    header::push(&mut buf, ethernet).unwrap();
    let mut packet = AnyPacket::from(buf);
    packet.meta.checksum = if blank { Checksum::Blank } else { Checksum::Complete };
    net.send(packet).unwrap();
    net.flush();

    let mut heard = Vec::new();
    let mut spent = Vec::new();
    net.receive(1, |packet| {
        assert_eq!(verify(&packet), Verdict::Right);
        spent.push(packet.clone());
        let (_, Network::Ipv4(ip)) = At::new(packet).open().unwrap() else { panic!() };
        let (_, Transport::Udp(udp)) = ip.open().unwrap() else { panic!() };
        let (udp, data) = udp.open().unwrap();
        assert_eq!(udp.destination.get(), 7);
        heard.extend_from_slice(data.head());
    });
    spent.into_iter().for_each(|packet| net.recycle(packet));
    heard
}

#[test]
fn r7_the_same_layer_runs_on_every_memory() {
    fn test<N: NetDevice>(mut net: N) {
        // Odd lengths, and the whole MTU.
        for len in [1, 5, 1471, 1472] {
            let data: Vec<u8> = (0..len).map(|at| at as u8).collect();
            assert_eq!(say(&mut net, &data, false), data);
        }
    }
    test(Mirror::new(frames()));
    test(Mirror::new(heap()));
    test(copying(4));
    test(&mut copying(4));
}

#[test]
fn r4_fill_gets_what_was_asked_for_and_returns_no_more() {
    fn test<N: NetDevice>(mut net: N, room: impl Fn(&mut N, usize)) {
        let calls = Cell::new(0);
        let write = |net: &mut N, size: usize, filled: usize| {
            net.write(size, |bytes| {
                calls.set(calls.get() + 1);
                assert_eq!(bytes.len(), size);
                assert!(bytes.iter().all(|&byte| byte == 0), "stale bytes");
                bytes.fill(1);
                filled
            })
        };
        let max = net.mtu() + 14;
        assert_eq!(write(&mut net, max + 1, 60), Err(WriteError::TooLong));
        assert_eq!(write(&mut net, usize::MAX, 60), Err(WriteError::TooLong));
        assert_eq!(calls.get(), 0);
        for filled in [max + 1, usize::MAX, 13, 1] {
            assert_eq!(write(&mut net, max, filled), Err(WriteError::BadLength));
        }
        assert_eq!(write(&mut net, 60, 61), Err(WriteError::BadLength));
        assert_eq!(write(&mut net, 13, 13), Err(WriteError::BadLength));
        assert_eq!(write(&mut net, max, 0), Ok(()));
        assert_eq!(write(&mut net, 0, 0), Ok(()));
        net.flush();
        assert_eq!((net.receive(9, |_| ()), net.totals().tx_packets), (0, 0));

        for filled in [14, 60, max] {
            assert_eq!(write(&mut net, max, filled), Ok(()));
            net.flush();
            let mut heard = 0;
            net.receive(9, |packet| {
                heard += packet.len();
                assert!(packet.head().iter().all(|&byte| byte == 1));
            });
            assert_eq!(heard, filled);
        }
        let before = calls.get();
        room(&mut net, 0);
        assert_eq!(write(&mut net, max, 60), Err(WriteError::Full));
        assert_eq!(calls.get(), before, "filled for nothing");
    }
    test(Mirror::new(frames()), |net, room| net.room = room);
    test(Mirror::new(heap()), |net, room| net.room = room);
    test(copying(4), |net, room| {
        net.io().room = room;
        net.write(60, |_| 60).unwrap(); // this one waits; there is no room for a second
    });
}

/// No block holds the frame: it is filled in one slice all the same, and scattered.
#[test]
fn r4_frames_of_several_blocks() {
    let mut net = Mirror::new(frames());
    net.mtu = 9000;
    net.room = 3;
    for (size, filled, blocks) in [(9014, 9014, 3), (9014, 5000, 2), (4097, 60, 1)] {
        let room = net.room;
        if room < 3 {
            assert_eq!(net.write(9014, |_| panic!("no room")), Err(WriteError::Full));
        }
        net.room = 3;
        let sent = net.write(size, |bytes| {
            assert_eq!((bytes.len(), bytes.iter().max()), (size, Some(&0)));
            bytes.iter_mut().enumerate().for_each(|(at, byte)| *byte = at as u8);
            filled
        });
        assert_eq!((sent, net.room), (Ok(()), 3 - blocks));
    }
    assert_eq!(net.totals().tx_bytes, 9014 + 5000 + 60);
    assert_eq!(net.write(9014, |_| 9015), Err(WriteError::Full));
    net.room = 3;
    assert_eq!(net.write(9014, |_| 9015), Err(WriteError::BadLength));
    assert_eq!((net.room, net.totals().tx_packets), (3, 3));
}

#[test]
fn r9_a_copying_device_copies_once_each_way_and_counts() {
    let mut net = copying(4);
    for _ in 0..10 {
        assert_eq!(say(&mut net, b"hello", false), b"hello");
    }
    let expected = Totals::default()
        .with_rx_packets(10)
        .with_rx_bytes(470)
        .with_tx_packets(10)
        .with_tx_bytes(470)
        .with_copies(20)
        .with_copied_bytes(940);
    assert_eq!(net.totals(), expected);
}

#[test]
fn r9_steady_traffic_on_the_heap_allocates_nothing() {
    let mut net = copying(8);
    let round = |net: &mut Copying<Wire>| {
        net.write(1514, |bytes| bytes.len()).unwrap();
        net.write(60, |bytes| bytes.len()).unwrap();
        let mut kept = None;
        net.receive(1, |packet| kept = Some(packet));
        net.recycle(kept.take().unwrap());
        // And one that is sent back, in the block it came in.
        net.receive(1, |packet| kept = Some(packet));
        net.send(kept.take().unwrap().try_into_mut().unwrap()).unwrap();
        net.receive(1, |packet| kept = Some(packet));
        net.recycle(kept.take().unwrap());
    };
    round(&mut net);
    assert_eq!(allocations(|| (0..100).for_each(|_| round(&mut net))), 0);
    assert_eq!(net.totals().tx_packets, 303);
}

#[test]
fn r9_a_full_wire_loses_nothing() {
    let mut net = copying(2);
    let frame = |number: u8| {
        move |bytes: &mut [u8]| {
            bytes.fill(number);
            60
        }
    };
    for number in 0..3 {
        net.write(60, frame(number)).unwrap();
    }
    assert_eq!(net.write(60, frame(3)), Err(WriteError::Full));
    let packet = AnyPacket::from(net.alloc(0).unwrap());
    let packet = net.send(packet).expect_err("no room").into_packet().unwrap();
    assert!(packet.is_empty());
    let mut heard = Vec::new();
    net.receive(1, |packet| heard.push(packet.head()[0]));
    net.write(60, frame(3)).unwrap(); // the third has gone, the fourth waits
    net.receive(9, |packet| heard.push(packet.head()[0]));
    net.flush();
    net.receive(9, |packet| heard.push(packet.head()[0]));
    assert_eq!(heard, [0, 1, 2, 3]);
    assert_eq!(net.totals().tx_dropped, 0);
}

/// The slice that such a frame is filled in is there for the call only; one that a block holds needs none.
#[test]
fn r4_only_a_frame_of_several_blocks_costs_an_allocation() {
    let mut net = Mirror::new(frames());
    net.mtu = 9000;
    let mut cost = |size| {
        net.room = 3;
        allocations(|| net.write(size, |_| size).unwrap())
    };
    cost(60); // the device has made a queue for four frames, which come to an allocation each
    assert_eq!((cost(4096), cost(4097), cost(9014)), (1, 2, 2));
    net.room = 0;
    assert_eq!(allocations(|| assert!(net.write(9014, |_| 60).is_err())), 0, "for nothing");
}

#[test]
fn r9_what_a_copying_device_cannot_do_it_counts() {
    let mut net = copying(9);
    let buf = |net: &mut Copying<Wire>, len: usize| {
        let mut buf = net.alloc(0).unwrap();
        buf.append(len).unwrap().fill(len as u8);
        buf
    };
    // Fragments are put together.
    let mut packet = AnyPacket::from(buf(&mut net, 100));
    for len in [0, 1, 51] {
        packet.push(buf(&mut net, len)).unwrap();
    }
    net.send(packet).unwrap();
    let mut heard = Vec::new();
    net.receive(9, |packet| heard = packet.head().to_vec());
    assert_eq!(heard, [vec![100; 100], vec![1; 1], vec![51; 51]].concat());
    assert_eq!((net.totals().linearised_packets, net.totals().linearised_bytes), (1, 152));

    // Blank checksums are filled in.
    assert_eq!(say(&mut net, b"blank", true), b"blank");
    assert_eq!(net.totals().tx_dropped, 0);

    // No frame: nothing, less than a header, more than the MTU in one piece or in two, a blank
    // checksum of something that has none.
    let too_long = BufMut::with_range(packet_views::buffer::HeapBlock::new(1515), 0..1515).unwrap();
    let refused = |net: &mut Copying<Wire>, packet| match net.send(packet) {
        Err(SendError::Refused(why)) => why,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(&mut net, AnyPacket::new()), SendErrorKind::TooShort);
    let short = buf(&mut net, 13);
    assert_eq!(refused(&mut net, short.into()), SendErrorKind::TooShort);
    assert_eq!(refused(&mut net, too_long.into()), SendErrorKind::TooLong);
    let mut packet = AnyPacket::from(buf(&mut net, 1500));
    packet.push(buf(&mut net, 15)).unwrap();
    assert_eq!(refused(&mut net, packet), SendErrorKind::TooLong);
    let mut packet = AnyPacket::from(buf(&mut net, 60));
    packet.meta.checksum = Checksum::Blank;
    let unknown = SendErrorKind::Checksum(ChecksumError::Unknown);
    assert_eq!(refused(&mut net, packet), unknown);
    assert_eq!(net.totals().tx_dropped, 5);
    assert_eq!(net.receive(9, |_| ()), 0);

    // Frames longer than the MTU come in, or a device that lies about it.
    net.io().frames.push_back(vec![1; 1515]);
    net.io().frames.push_back(vec![2; 1514]);
    let mut heard = Vec::new();
    assert_eq!(net.receive(9, |packet| heard.push((packet.len(), packet.head()[0]))), 2);
    assert_eq!((heard, net.totals().rx_dropped), (vec![(1514, 2)], 1));
}

/// A tag does not count into the MTU, either way.
#[test]
fn r9_a_tagged_frame_of_full_size_goes_and_comes() {
    let mut net = copying(9);
    for (kind, len, goes) in [
        ([0x81, 0x00], 1518, true),
        ([0x88, 0xa8], 1518, true),
        ([0x81, 0x00], 1519, false),
        ([0x08, 0x00], 1515, false),
    ] {
        let mut frame = vec![2; len];
        frame[12..14].copy_from_slice(&kind);
        let mut block = packet_views::buffer::HeapBlock::new(len);
        packet_views::buffer::Block::range_mut(&mut block, 0..len).unwrap().copy_from_slice(&frame);
        let buf = BufMut::with_range(block, 0..len).unwrap();
        assert_eq!(net.send(buf.into()).is_ok(), goes, "{kind:x?} {len}");
        let mut heard = Vec::new();
        net.receive(9, |packet| heard.push(packet.head().to_vec()));
        assert_eq!(heard, if goes { vec![frame] } else { vec![] });
    }
}

/// What was reserved is sure, whoever holds it: a token as well as a permit.
#[test]
fn n4_a_token_is_sure_of_its_slots() {
    let packet = |net: &mut Copying<Wire>| {
        let mut buf = net.alloc(0).unwrap();
        buf.append(60).unwrap().fill(1);
        AnyPacket::from(buf)
    };
    let mut net = copying(0);
    let both = [packet(&mut net), packet(&mut net)];
    let mut permit = net.reserve(2).unwrap();
    for packet in both {
        assert!(packet_views::device::Permit::send(&mut permit, packet).is_ok());
    }
    let mut net = copying(0);
    let both = [packet(&mut net), packet(&mut net)];
    let mut token = net.token(2).unwrap();
    for packet in both {
        assert!(token.send(packet).is_ok());
    }
}
