//! The adaptor over a device whose every answer a test decides.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use alloc::{format, vec};

use smoltcp::iface::{Config, SocketStorage};
use smoltcp::phy::{Device as _, RxToken as _, TxToken as _};
use smoltcp::socket::udp;
use smoltcp::wire::{EthernetAddress, IpAddress, IpCidr, Ipv4Address};

use super::*;
use crate::buffer::{Block, HeapBlock, RxPacket, SharedHeapBlock, TxPacket};
use crate::header::checksum::{Sum, Verdict, verify};
use crate::header::{self, EtherType, Ethernet, Ipv4, MacAddr, Protocol, U16, Udp};
use crate::netif::{Capabilities, slots};

/// A device that has `room` slots and `blocks` blocks, full of old bytes.
struct Mock {
    mtu: usize,
    block_size: usize,
    max_fragments: usize,
    room: usize,
    blocks: usize,
    incoming: VecDeque<RxPacket<SharedHeapBlock>>,
    sent: Vec<TxPacket<HeapBlock>>,
    flushes: usize,
    recycled: usize,
    linear: Linear,
}

struct MockPermit<'a>(&'a mut Mock, usize);

impl Permit for MockPermit<'_> {
    type Block = HeapBlock;

    fn send(&mut self, packet: TxPacket<HeapBlock>) {
        assert!(slots(&packet) <= self.1, "more slots than reserved");
        self.0.room -= slots(&packet);
        self.0.sent.push(packet);
    }
}

impl Netif for Mock {
    type Block = HeapBlock;
    type Permit<'a> = MockPermit<'a>;

    fn mac(&self) -> MacAddr {
        MacAddr([2, 0, 0, 0, 0, 1])
    }

    fn mtu(&self) -> usize {
        self.mtu
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            block_size: self.block_size,
            max_fragments: self.max_fragments,
            ..Capabilities::default()
        }
    }

    fn stats(&self) -> crate::netif::Stats {
        crate::netif::Stats::default()
    }

    fn alloc(&mut self, headroom: usize) -> Option<TxBuf<HeapBlock>> {
        self.blocks = self.blocks.checked_sub(1)?;
        let mut block = HeapBlock::new(self.block_size);
        block.range_mut(0..self.block_size)?.fill(0xa5);
        Some(TxBuf::new(block, headroom))
    }

    fn reserve(&mut self, slots: usize) -> Option<MockPermit<'_>> {
        if self.room < slots { None } else { Some(MockPermit(self, slots)) }
    }

    fn receive(&mut self, budget: usize, mut sink: impl FnMut(RxOf<Self>)) -> usize {
        let now = budget.min(self.incoming.len());
        self.incoming.drain(..now).for_each(&mut sink);
        now
    }

    fn flush(&mut self) {
        self.flushes += 1;
    }

    fn linear(&mut self) -> &mut Linear {
        &mut self.linear
    }

    fn recycle(&mut self, _packet: RxOf<Self>) {
        self.recycled += 1;
    }
}

fn mock() -> Mock {
    Mock {
        mtu: 1500,
        block_size: 2048,
        max_fragments: 18,
        room: 256,
        blocks: 1000,
        incoming: VecDeque::new(),
        sent: Vec::new(),
        flushes: 0,
        recycled: 0,
        linear: Linear::default(),
    }
}

/// A packet of these fragments.
fn packet(fragments: &[&[u8]]) -> RxPacket<SharedHeapBlock> {
    let mut packet = Packet::new();
    for bytes in fragments {
        let mut buf = TxBuf::new(HeapBlock::new(bytes.len() + 7), 3);
        buf.append(bytes.len()).unwrap().copy_from_slice(bytes);
        packet.push(buf.freeze()).unwrap();
    }
    packet
}

/// Receives one packet and returns its bytes and where the stack saw them.
fn receive(device: &mut Device<Mock>) -> Option<(Vec<u8>, *const u8)> {
    let (rx, _) = device.receive(Instant::ZERO)?;
    Some(rx.consume(|bytes| (bytes.to_vec(), bytes.as_ptr())))
}

const OWN: [u8; 4] = [10, 0, 0, 1];
const PEER: [u8; 4] = [10, 0, 0, 2];

/// A UDP packet to port 7 whose checksum is blank.
fn blank_udp(data: &[u8]) -> RxPacket<SharedHeapBlock> {
    let mut buf = TxBuf::new(HeapBlock::new(42 + data.len()), 42);
    buf.append(data.len()).unwrap().copy_from_slice(data);
    let mut udp = Udp::new(1000, 7, data.len()).unwrap();
    udp.checksum = U16::new(Sum::pseudo_v4(PEER, OWN, 17, udp.len.get()).value());
    header::push(&mut buf, udp).unwrap();
    let ip = Ipv4::new(Protocol::UDP, PEER, OWN, 8 + data.len()).unwrap();
    header::push(&mut buf, ip).unwrap();
    let ethernet = Ethernet {
        destination: MacAddr([2, 0, 0, 0, 0, 1]),
        source: MacAddr([2, 0, 0, 0, 0, 2]),
        kind: EtherType::IPV4,
    };
    header::push(&mut buf, ethernet).unwrap();
    let mut packet = Packet::from(buf.freeze());
    packet.meta.checksum = Checksum::Blank;
    packet
}

#[test]
fn r10_one_slot_is_read_where_it_is() {
    let mut device = Device::new(mock());
    let packet = packet(&[&[1; 60]]);
    let place = packet.head().as_ptr();
    device.netif_mut().incoming.push_back(packet);
    assert_eq!(receive(&mut device), Some((vec![1; 60], place)));
    assert_eq!(device.stats(), Stats::default());
    assert!(receive(&mut device).is_none());
    assert_eq!(device.netif().recycled, 1);
}

#[test]
fn several_slots_are_gathered_once_in_memory_that_is_there() {
    let mut device = Device::new(mock());
    let mut places = Vec::new();
    for len in [1, 3640, 4000] {
        let part = vec![len as u8; len];
        device.netif_mut().incoming.push_back(packet(&[&part[..]; 18]));
        let (bytes, place) = receive(&mut device).unwrap();
        assert_eq!(bytes, vec![len as u8; 18 * len]);
        places.push(place);
    }
    // The largest packet there is fits; 18 whole pages, which no honest peer sends, make it grow.
    assert_eq!(places[0], places[1]);
    assert_eq!(device.stats().linearised_packets, 3);
    assert_eq!(device.stats().linearised_bytes, 18 * (1 + 4000 + 3640));
}

#[test]
fn r4_the_stack_fills_the_block_that_is_sent() {
    let mut device = Device::new(mock());
    let token = device.transmit(Instant::ZERO).unwrap();
    let place = token.consume(1514, |bytes| {
        assert_eq!(bytes.len(), 1514);
        bytes[..6].copy_from_slice(b"header");
        bytes.as_ptr()
    });
    let sent = &device.netif().sent[0];
    assert_eq!((sent.len(), sent.head().as_ptr()), (1514, place));
    assert!(sent.head().starts_with(b"header"));
    assert_eq!(device.stats(), Stats::default());
}

/// Blocks come with bytes of an earlier use; what the stack leaves out is zero.
#[test]
fn r15_no_stale_byte_is_sent() {
    for (mtu, len) in [(1500, 60), (1500, 1514), (9000, 9014)] {
        let mut device = Device::new(Mock { mtu, ..mock() });
        for _ in 0..2 {
            device.transmit(Instant::ZERO).unwrap().consume(len, |bytes| bytes[3] = 3);
        }
        for packet in &device.netif().sent {
            let mut bytes = vec![1; len];
            assert_eq!(packet.copy_to_slice(&mut bytes), Some(len));
            assert_eq!(bytes[3], 3);
            assert_eq!(bytes.iter().filter(|&&byte| byte != 0).count(), 1);
        }
    }
}

#[test]
fn a_token_means_that_sending_succeeds() {
    let mut device = Device::new(Mock { room: 0, ..mock() });
    assert!(device.transmit(Instant::ZERO).is_none());
    device.netif_mut().room = 1;
    assert!(device.transmit(Instant::ZERO).is_some());
    // Not used: the memory is kept for the next.
    let blocks = device.netif().blocks;
    for _ in 0..10 {
        assert!(device.transmit(Instant::ZERO).is_some());
    }
    assert_eq!(device.netif().blocks, blocks);
    device.transmit(Instant::ZERO).unwrap().consume(60, |_| ());
    assert_eq!(device.netif().sent.len(), 1);
    device.netif_mut().room = 9;
    device.netif_mut().blocks = 0;
    assert!(device.transmit(Instant::ZERO).is_none());

    // A frame of three blocks needs all three, and three slots.
    let mut device = Device::new(Mock { mtu: 6000, room: 2, blocks: 2, ..mock() });
    assert!(device.transmit(Instant::ZERO).is_none());
    device.netif_mut().room = 3;
    assert!(device.transmit(Instant::ZERO).is_none());
    device.netif_mut().blocks = 1;
    assert!(device.transmit(Instant::ZERO).is_some());
}

#[test]
fn when_transmit_is_full_receive_loses_nothing() {
    let mut device = Device::new(Mock { room: 0, ..mock() });
    for number in 0..3 {
        device.netif_mut().incoming.push_back(packet(&[&[number; 60]]));
    }
    assert!(!device.is_held());
    for _ in 0..5 {
        assert!(receive(&mut device).is_none());
        assert!(device.is_held());
    }
    assert_eq!(device.stats().held_back, 5);
    assert_eq!(device.netif().incoming.len(), 2);
    device.netif_mut().room = 9;
    for number in 0..3 {
        // A token that nobody uses loses nothing either.
        assert!(device.receive(Instant::ZERO).is_some());
        assert_eq!(receive(&mut device).unwrap().0, [number; 60]);
        assert!(!device.is_held());
    }
    assert!(receive(&mut device).is_none());
}

#[test]
fn a_blank_checksum_is_filled_in_in_place() {
    let mut device = Device::new(mock());
    let blank = blank_udp(b"hello");
    let (before, place) = (blank.head().to_vec(), blank.head().as_ptr());
    device.netif_mut().incoming.push_back(blank);
    let (bytes, seen) = receive(&mut device).unwrap();
    assert_eq!(seen, place);
    assert_ne!(bytes, before);
    assert_eq!(verify(&Packet::from(&bytes[..])), Verdict::Right);
    assert_eq!(device.stats(), Stats { checksums_filled: 1, ..Stats::default() });
}

#[test]
fn r5_a_blank_packet_that_others_read_is_copied_first() {
    let mut device = Device::new(mock());
    let blank = blank_udp(b"hello");
    let before = blank.head().to_vec();
    device.netif_mut().incoming.push_back(blank.clone());
    let (bytes, _) = receive(&mut device).unwrap();
    assert_eq!(verify(&Packet::from(&bytes[..])), Verdict::Right);
    assert_eq!(blank.head(), before);
    let expected = Stats {
        checksums_filled: 1,
        checksums_filled_in_copy: 1,
        linearised_packets: 1,
        linearised_bytes: before.len() as u64,
        ..Stats::default()
    };
    assert_eq!(device.stats(), expected);
}

#[test]
fn a_blank_checksum_that_cannot_be_filled_in_is_counted() {
    let mut device = Device::new(mock());
    let mut odd = packet(&[&[7; 60]]);
    odd.meta.checksum = Checksum::Blank;
    for packet in [odd.clone(), odd] {
        device.netif_mut().incoming.push_back(packet);
    }
    assert_eq!(receive(&mut device).unwrap().0, [7; 60]);
    assert_eq!(receive(&mut device).unwrap().0, [7; 60]);
    assert_eq!((device.stats().checksums_filled, device.stats().checksums_unfillable), (0, 2));
}

#[test]
fn frames_of_several_blocks_are_scattered_and_counted() {
    let mut device = Device::new(Mock { mtu: 9000, ..mock() });
    assert_eq!(device.capabilities().max_transmission_unit, 9014);
    for (len, blocks) in [(60, 1), (2048, 1), (2049, 2), (9014, 5)] {
        device.transmit(Instant::ZERO).unwrap().consume(len, |bytes| {
            assert_eq!(bytes.len(), len);
            bytes.iter_mut().enumerate().for_each(|(index, byte)| *byte = index as u8);
        });
        let sent = device.netif_mut().sent.pop().unwrap();
        let mut bytes = vec![0; len];
        assert_eq!(sent.copy_to_slice(&mut bytes), Some(len));
        assert_eq!(sent.fragments().len(), blocks);
        assert!(bytes.iter().enumerate().all(|(index, byte)| *byte == index as u8));
    }
    assert_eq!(device.stats().linearised_packets, 2);
    assert_eq!(device.stats().linearised_bytes, 2049 + 9014);
}

/// A device that takes one fragment takes no frame that needs two, whatever its MTU.
#[test]
fn without_scatter_gather_a_frame_is_one_block() {
    let mut device = Device::new(Mock { mtu: 9000, max_fragments: 1, room: 1, ..mock() });
    assert_eq!(device.capabilities().max_transmission_unit, 2048);
    device.transmit(Instant::ZERO).unwrap().consume(2048, |bytes| bytes.fill(1));
    assert_eq!(device.netif().sent[0].fragments().len(), 1);
}

#[test]
fn r4_more_than_a_frame_is_not_sent() {
    let mut device = Device::new(mock());
    for len in [1515, 2048, 2049, 100_000] {
        let seen = device.transmit(Instant::ZERO).unwrap().consume(len, |bytes| bytes.len());
        assert_eq!(seen, len);
    }
    assert!(device.netif().sent.is_empty());
    assert_eq!(device.stats().too_long, 4);
}

#[test]
fn one_round_is_bounded_and_flushed_once() {
    let mut device = Device::new(mock());
    for _ in 0..100 {
        device.netif_mut().incoming.push_back(packet(&[&[1; 60]]));
    }
    let config = Config::new(EthernetAddress([2, 0, 0, 0, 0, 1]).into());
    let mut iface = Interface::new(config, &mut device, Instant::ZERO);
    let mut storage: [SocketStorage<'_>; 0] = [];
    let mut sockets = SocketSet::new(&mut storage[..]);
    for (left, flushes) in [(100 - BURST as usize, 1), (0, 2), (0, 3)] {
        device.poll(&mut iface, &mut sockets, Instant::ZERO);
        assert_eq!((device.netif().incoming.len(), device.netif().flushes), (left, flushes));
    }
    // Who forgets to flush gets it in the next round.
    iface.poll(Instant::ZERO, &mut device, &mut sockets);
    assert_eq!(device.netif().flushes, 3);
    iface.poll(Instant::ZERO, &mut device, &mut sockets);
    assert_eq!(device.netif().flushes, 4);
}

/// smoltcp verifies checksums: a packet that came blank reaches the socket, a wrong one does not.
#[test]
fn a_stack_takes_blank_packets_and_refuses_wrong_ones() {
    let mut device = Device::new(mock());
    let mut wrong = blank_udp(b"wrong");
    wrong.meta.checksum = Checksum::Unknown;
    device.netif_mut().incoming.extend([wrong, blank_udp(b"right")]);

    let config = Config::new(EthernetAddress(device.netif().mac().0).into());
    let mut iface = Interface::new(config, &mut device, Instant::ZERO);
    let address = IpAddress::Ipv4(Ipv4Address::from(OWN));
    iface.update_ip_addrs(|addrs| addrs.push(IpCidr::new(address, 24)).unwrap());
    let buffer = || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 4], vec![0; 4 * 1500]);
    let mut storage = [SocketStorage::EMPTY];
    let mut sockets = SocketSet::new(&mut storage[..]);
    let mut socket = udp::Socket::new(buffer(), buffer());
    socket.bind(7).unwrap();
    let handle = sockets.add(socket);
    device.poll(&mut iface, &mut sockets, Instant::ZERO);
    let socket = sockets.get_mut::<udp::Socket<'_>>(handle);
    let (data, meta) = socket.recv().unwrap();
    assert_eq!(data, b"right");
    assert_eq!(format!("{}", meta.endpoint), "10.0.0.2:1000");
    assert!(socket.recv().is_err());
}
