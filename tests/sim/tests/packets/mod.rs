//! TCP and UDP packets of flows between numbered stations: built by etherparse, and checked by it
//! when they have arrived.
#![allow(dead_code)]

use core::num::NonZeroU16;

use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
use packet_views::buffer::{Checksum, Meta};
use packet_views::buffer::{Gso, GsoKind};

/// The port that all flows go to.
const PORT: u16 = 7000;
/// Ethernet, IPv6, and TCP without options: the longest headers of these packets.
pub const HEADERS: usize = 14 + 40 + 20;
/// The most data of a packet of 65,535 bytes.
pub const MOST_DATA: usize = 65_535 - HEADERS;

/// Packets that must not overtake each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Flow {
    pub from: u8,
    pub to: u8,
    pub v6: bool,
    pub tcp: bool,
    /// The source port.
    pub port: u16,
}

impl Flow {
    pub const fn tcp(v6: bool, port: u16) -> Flow {
        Flow { from: 1, to: 2, v6, tcp: true, port }
    }

    pub const fn udp(v6: bool, port: u16) -> Flow {
        Flow { from: 1, to: 2, v6, tcp: false, port }
    }

    /// Of both IP versions, TCP and UDP.
    pub fn each_kind(port: u16) -> [Flow; 4] {
        [
            Flow::tcp(false, port),
            Flow::tcp(true, port),
            Flow::udp(false, port),
            Flow::udp(true, port),
        ]
    }

    /// What its GSO packets are called.
    pub fn gso_kind(&self) -> GsoKind {
        if self.v6 { GsoKind::TcpV6 } else { GsoKind::TcpV4 }
    }

    /// A packet with the right checksum. UDP has no sequence numbers.
    pub fn packet(&self, sequence: u32, data: &[u8]) -> Vec<u8> {
        let Flow { from, to, v6, tcp, port } = *self;
        let ethernet = PacketBuilder::ethernet2(station(from), station(to));
        let ip = match v6 {
            false => ethernet.ipv4([10, 0, 0, from], [10, 0, 0, to], 64),
            true => ethernet.ipv6(address_v6(from), address_v6(to), 64),
        };
        let mut bytes = Vec::with_capacity(HEADERS + data.len());
        match tcp {
            true => ip.tcp(port, PORT, sequence, 1000).ack(1).psh().write(&mut bytes, data),
            false => ip.udp(port, PORT).write(&mut bytes, data),
        }
        .unwrap();
        bytes
    }

    /// The same with a blank checksum.
    pub fn blank(&self, sequence: u32, data: &[u8]) -> Vec<u8> {
        let mut bytes = self.packet(sequence, data);
        let (field, pseudo) = pseudo_sum(&bytes);
        bytes[field..field + 2].copy_from_slice(&pseudo.to_be_bytes());
        bytes
    }

    /// What is to be known of its packets: blank checksum, and a GSO size unless it is 0.
    pub fn meta(&self, size: u16) -> Meta {
        let gso = NonZeroU16::new(size).map(|size| Gso { size, kind: self.gso_kind() });
        Meta { checksum: Checksum::Blank, gso }
    }
}

pub fn station(number: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, number]
}

fn address_v6(number: u8) -> [u8; 16] {
    let mut address = [0; 16];
    (address[0], address[15]) = (0xfd, number);
    address
}

/// Where the transport checksum is, and the sum of the pseudo-header, folded and not complemented.
pub fn pseudo_sum(frame: &[u8]) -> (usize, u16) {
    let (addresses, transport, protocol) = match &frame[12..14] {
        [0x08, 0x00] => (26..34, 34, frame[23]),
        [0x86, 0xdd] => (22..54, 54, frame[20]),
        other => panic!("{other:?} is neither kind of IP"),
    };
    let words = frame[addresses].chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1]));
    let mut sum = words.sum::<u32>() + u32::from(protocol) + (frame.len() - transport) as u32;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (transport + if protocol == 6 { 16 } else { 6 }, sum as u16)
}

/// What a packet says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrived {
    pub flow: Flow,
    /// 0 of UDP.
    pub sequence: u32,
    /// FIN, PSH and ACK of TCP.
    pub flags: (bool, bool, bool),
    pub data: Vec<u8>,
}

/// Looks at all of a packet: its lengths are those of its bytes, its sums are right, or the
/// transport's is as a blank one should be.
#[track_caller]
pub fn check(frame: &[u8], meta: Meta) -> Arrived {
    let packet = SlicedPacket::from_ethernet(frame).unwrap();
    let (from, to, v6) = match packet.net.as_ref().unwrap() {
        NetSlice::Ipv4(ip) => {
            let ip = ip.header();
            assert_eq!(usize::from(ip.total_len()), frame.len() - 14, "IPv4's length");
            assert_eq!(ip.header_checksum(), ip.to_header().calc_header_checksum());
            (ip.source()[3], ip.destination()[3], false)
        }
        NetSlice::Ipv6(ip) => {
            let ip = ip.header();
            assert_eq!(usize::from(ip.payload_length()), frame.len() - 54, "IPv6's length");
            (ip.source()[15], ip.destination()[15], true)
        }
        other => panic!("{other:?}"),
    };
    assert_eq!((&frame[..6], &frame[6..12]), (&station(to)[..], &station(from)[..]));
    let net = packet.net.as_ref().unwrap();
    let (sum, right, arrived) = match packet.transport.as_ref().unwrap() {
        TransportSlice::Tcp(tcp) => {
            assert_eq!(tcp.destination_port(), PORT);
            let right = match net {
                NetSlice::Ipv4(ip) => {
                    tcp.calc_checksum_ipv4(ip.header().source(), ip.header().destination()).unwrap()
                }
                NetSlice::Ipv6(ip) => {
                    tcp.calc_checksum_ipv6(ip.header().source(), ip.header().destination()).unwrap()
                }
                other => panic!("{other:?}"),
            };
            let flow = Flow { from, to, v6, tcp: true, port: tcp.source_port() };
            let flags = (tcp.fin(), tcp.psh(), tcp.ack());
            let (sequence, data) = (tcp.sequence_number(), tcp.payload().to_vec());
            (tcp.checksum(), right, Arrived { flow, sequence, flags, data })
        }
        TransportSlice::Udp(udp) => {
            assert_eq!(udp.destination_port(), PORT);
            assert_eq!(usize::from(udp.length()), udp.slice().len(), "UDP's length");
            let (header, data) = (udp.to_header(), udp.payload());
            let right = match net {
                NetSlice::Ipv4(ip) => header
                    .calc_checksum_ipv4_raw(ip.header().source(), ip.header().destination(), data)
                    .unwrap(),
                NetSlice::Ipv6(ip) => header
                    .calc_checksum_ipv6_raw(ip.header().source(), ip.header().destination(), data)
                    .unwrap(),
                other => panic!("{other:?}"),
            };
            let flow = Flow { from, to, v6, tcp: false, port: udp.source_port() };
            let arrived =
                Arrived { flow, sequence: 0, flags: (false, false, false), data: data.to_vec() };
            (udp.checksum(), right, arrived)
        }
        other => panic!("{other:?}"),
    };
    match meta.checksum {
        Checksum::Blank => assert_eq!(sum, pseudo_sum(frame).1, "the pseudo-header's sum"),
        Checksum::Complete | Checksum::Unknown => assert_eq!(sum, right, "the checksum"),
    }
    arrived
}

/// Checks segments that a packet was cut into; returns its data. Each but the last has `size`
/// bytes, and only the last is pushed.
#[track_caller]
pub fn join(flow: Flow, sequence: u32, size: usize, segments: &[(Vec<u8>, Meta)]) -> Vec<u8> {
    let mut data = Vec::new();
    for (nth, (frame, meta)) in segments.iter().enumerate() {
        assert_eq!(meta.gso, None, "segment {nth}");
        let arrived = check(frame, *meta);
        let is_last = nth + 1 == segments.len();
        assert_eq!(arrived.flow, flow, "segment {nth}");
        assert_eq!(arrived.sequence, sequence.wrapping_add(data.len() as u32), "segment {nth}");
        assert_eq!(arrived.flags, (false, is_last, true), "segment {nth}");
        match is_last {
            true => assert!((1..=size).contains(&arrived.data.len()), "segment {nth}"),
            false => assert_eq!(arrived.data.len(), size, "segment {nth}"),
        }
        data.extend(arrived.data);
    }
    data
}
