//! Copying devices whose frames carry what is known about them, and what they do for those that
//! do not.

use std::num::NonZeroU16;

use etherparse::{IpHeaders, Ipv4Header, PacketBuilder, ip_number};
use packet_views::buffer::BufMut;
use packet_views::buffer::{AnyPacket, Checksum, HeapBlock, Meta, PacketMut, View};
use packet_views::buffer::{Gso, GsoKind};
use packet_views::copying::Copying;
use packet_views::device::{NetDevice, Permit, SendError, SendErrorKind};
use packet_views::features::Features;
use packet_views::header::MacAddr;
use packet_views::offload::{GsoError, make_blank};

use crate::pipe::{Pipe, pipe};

const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 7]);
/// Bytes of data in a segment: few for Miri, which takes milliseconds to sum up each.
pub const SIZE: usize = if cfg!(miri) { 40 } else { 1000 };
/// Bytes of data in a large packet.
pub const LARGE: usize = if cfg!(miri) { 10 } else { 60 } * SIZE;
/// A block that holds four segments and a bit.
pub const BLOCK: usize = 4 * SIZE + 96;

/// A segment by etherparse: `data` from so many segments into the stream.
fn segment(v4: bool, at: usize, data: &[u8], is_last: bool) -> Vec<u8> {
    let ethernet = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], MAC.0);
    let ip = if v4 {
        let mut ip = Ipv4Header::new(0, 64, ip_number::TCP, [10, 0, 0, 1], [10, 0, 0, 2]).unwrap();
        ip.identification = at as u16;
        ethernet.ip(IpHeaders::Ipv4(ip, Default::default()))
    } else {
        ethernet.ipv6([0xfd; 16], [0xfe; 16], 64)
    };
    let mut tcp = ip.tcp(1000, 7, (at * SIZE) as u32, 500).ack(9);
    if is_last {
        tcp = tcp.psh();
    }
    let mut frame = vec![];
    tcp.write(&mut frame, data).unwrap();
    frame
}

/// A large packet in blocks of so many bytes, and its segments.
pub fn large(v4: bool, data: usize, block: usize) -> (PacketMut<HeapBlock>, Vec<Vec<u8>>) {
    let data: Vec<u8> = (0..data).map(|at| ((at * 7) >> 3) as u8).collect();
    let segments: Vec<Vec<u8>> = data
        .chunks(SIZE)
        .enumerate()
        .map(|(at, part)| segment(v4, at, part, (at + 1) * SIZE >= data.len()))
        .collect();
    let mut packet = AnyPacket::new();
    for part in segment(v4, 0, &data, true).chunks(block) {
        let mut buf = BufMut::new(HeapBlock::new(part.len()), 0);
        buf.append(part.len()).unwrap().copy_from_slice(part);
        packet.push(buf).unwrap();
    }
    let kind = if v4 { GsoKind::TcpV4 } else { GsoKind::TcpV6 };
    packet.meta.gso = Some(Gso { size: NonZeroU16::new(SIZE as u16).unwrap(), kind });
    make_blank(&mut packet).unwrap();
    (packet, segments)
}

pub fn joined<V: View>(packet: &AnyPacket<V>) -> Vec<u8> {
    packet.fragments().iter().flat_map(|fragment| fragment.bytes().to_vec()).collect()
}

/// A device, and the end of the pipe that shows what it sends.
fn device(features: Features, room: usize) -> (Copying<Pipe>, Pipe) {
    let (near, far) = pipe(features, room);
    (Copying::new(near, MAC, 1500), far)
}

fn taken(far: &Pipe) -> Vec<(Vec<u8>, Meta)> {
    far.into.borrow_mut().frames.drain(..).collect()
}

#[test]
fn r9_large_packets_are_cut_in_software() {
    let only_v4 = Features::ALL.with_gso_v6(false);
    for (features, v4) in [(Features::NONE, true), (Features::NONE, false), (only_v4, false)] {
        for (data, block) in [
            (4 * SIZE - 1, 65_535),
            (LARGE, BLOCK),
            (1, 5),
            (SIZE, SIZE / 10 + 7),
            (5 * SIZE, SIZE + 66),
        ] {
            let (packet, segments) = large(v4, data, block);
            let (mut net, far) = device(features, 64);
            net.send(packet).unwrap();
            let sent = taken(&far);
            assert!(sent.iter().all(|(_, meta)| meta.gso.is_none()));
            let sent: Vec<Vec<u8>> = sent.into_iter().map(|(frame, _)| frame).collect();
            assert!(sent == segments, "{v4} {data} in blocks of {block}");
            let counters = net.totals();
            assert_eq!((counters.tx_packets, counters.tx_dropped), (segments.len() as u64, 0));
        }
    }
    // Segments that are longer than the MTU can't be sent, nor what can't be cut.
    let (mut net, far) = device(Features::NONE, 64);
    let (mut packet, _) = large(true, 4500, 65_535);
    packet.meta.gso =
        packet.meta.gso.map(|gso| Gso { size: NonZeroU16::new(1500).unwrap(), ..gso });
    assert!(matches!(net.send(packet), Err(SendError::Refused(SendErrorKind::TooLong))));
    let (mut packet, _) = large(true, 4500, 65_535);
    packet.meta.gso = packet.meta.gso.map(|gso| Gso { kind: GsoKind::TcpV6, ..gso });
    let not_tcp = SendErrorKind::Gso(GsoError::NotTcp);
    assert!(matches!(net.send(packet), Err(SendError::Refused(why)) if why == not_tcp));
    assert_eq!((taken(&far).len(), net.totals().tx_dropped), (0, 2));
}

/// What there is no room for waits, in order, and is not lost.
#[test]
fn r9_segments_wait_for_room() {
    let (mut net, far) = device(Features::NONE, 3);
    let (packet, segments) = large(true, 10 * SIZE, BLOCK);
    net.send(packet).unwrap();
    let mut sent = taken(&far);
    assert_eq!(sent.len(), 3);
    while sent.len() < 9 {
        let (next, _) = large(true, 1, 100);
        assert!(net.send(next).is_err(), "it is full");
        sent.extend(taken(&far));
    }
    net.flush();
    sent.extend(taken(&far));
    let sent: Vec<Vec<u8>> = sent.into_iter().map(|(frame, _)| frame).collect();
    assert_eq!(sent, segments);
    assert!(net.reserve(1).is_some());
}

#[test]
fn r9_what_is_taken_goes_as_it_is() {
    for v4 in [true, false] {
        let (mut net, far) = device(Features::ALL, 9);
        let (packet, _) = large(v4, LARGE, BLOCK);
        let (bytes, meta) = (joined(&packet), packet.meta);
        net.send(packet).unwrap();
        assert!(taken(&far) == [(bytes.clone(), meta)]);
        // Who forgot that its checksum is blank.
        let (mut packet, _) = large(v4, LARGE, 65_535);
        packet.meta.checksum = Checksum::Unknown;
        net.send(packet).unwrap();
        assert!(taken(&far) == [(bytes, meta)]);

        // Of one IP only.
        let blank = Meta { checksum: Checksum::Blank, gso: None };
        let other = Features::NONE.with_checksum_v4(!v4).with_checksum_v6(v4);
        let same = Features::NONE.with_checksum_v4(v4).with_checksum_v6(!v4);
        for (features, goes) in [(same, true), (other, false)] {
            let (mut net, far) = device(features, 9);
            let (mut packet, segments) = large(v4, SIZE / 2, BLOCK);
            packet.meta = blank;
            let bytes = joined(&packet);
            net.send(packet).unwrap();
            let complete = Meta { checksum: Checksum::Complete, gso: None };
            let expected = if goes { (bytes, blank) } else { (segments[0].clone(), complete) };
            assert!(taken(&far) == [expected]);
        }
    }
}

#[test]
fn r9_large_packets_come_in() {
    let (mut net, far) = device(Features::ALL, 9);
    let (packet, _) = large(true, 65 * SIZE, 65_535);
    let (bytes, meta) = (joined(&packet), packet.meta);
    let unknown = Meta::default();
    far.out.borrow_mut().frames.extend([
        (bytes.clone(), unknown),
        (bytes.clone(), meta),
        (vec![1; 1515], unknown),
        (vec![1; 1514], meta),
    ]);
    let mut heard = vec![];
    assert_eq!(net.receive(9, |packet| heard.push((joined(&packet), packet.meta))), 4);
    assert!(heard == [(bytes, meta), (vec![1; 1514], meta)]);
    // Large is only what is to be cut.
    assert_eq!(net.totals().rx_dropped, 2);
}

/// A permit is for several packets; what there is no room for below waits, what was not reserved
/// is dropped.
#[test]
fn r9_a_permit_sends_what_was_reserved() {
    let (mut net, far) = device(Features::NONE, 2);
    let frame = |number: u8| {
        let mut buf = BufMut::new(HeapBlock::new(60), 0);
        buf.append(60).unwrap().fill(number);
        buf
    };
    let mut permit = net.reserve(5).unwrap();
    permit.send_single(frame(0)).unwrap();
    let mut two = AnyPacket::from(frame(1));
    two.push(frame(2)).unwrap();
    permit.send(two).unwrap();
    permit.send_single(frame(3)).unwrap();
    let mut two = AnyPacket::from(frame(4));
    two.push(frame(5)).unwrap();
    let back = permit.send(two).unwrap_err().into_packet().expect("one too many: it comes back");
    permit.send_single(frame(6)).unwrap();
    let full = permit.send_single(frame(7)).unwrap_err();
    assert_eq!(full.into_packet().expect("nothing is left").bytes(), [7; 60]);
    assert_eq!((back.len(), net.totals().tx_dropped), (120, 0));
    assert!(net.reserve(1).is_none());
    let mut sent = taken(&far);
    net.flush();
    sent.extend(taken(&far));
    let firsts: Vec<u8> = sent.iter().map(|(frame, _)| frame[0]).collect();
    assert_eq!(firsts, [0, 1, 3, 6]);
}
