//! Frames of TCP and UDP as etherparse builds them, and what it says of those that arrive.

use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice};

/// What etherparse reads in a frame.
#[derive(Debug, PartialEq, Eq)]
pub struct Opened {
    pub v6: bool,
    pub tcp: bool,
    pub ports: (u16, u16),
    /// TCP's.
    pub sequence: u32,
    /// Whether the transport checksum is right.
    pub right: bool,
    pub data: Vec<u8>,
}

/// A frame of TCP or UDP with right checksums, from port `port` on. Sequence numbers begin at 1000.
pub fn frame(v6: bool, tcp: bool, port: u16, data: &[u8]) -> Vec<u8> {
    let ethernet = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    let ip = if v6 {
        ethernet.ipv6([0x20; 16], [0x21; 16], 63)
    } else {
        ethernet.ipv4([10, 0, 0, 1], [192, 0, 2, 7], 63)
    };
    let mut frame = Vec::new();
    if tcp {
        ip.tcp(port, 80, 1000, 512).ack(77).write(&mut frame, data)
    } else {
        ip.udp(port, 53).write(&mut frame, data)
    }
    .unwrap();
    frame
}

/// The same with a blank checksum: the sum of the pseudo-header, as etherparse's own sum is made
/// of it and the rest.
pub fn blank(mut frame: Vec<u8>) -> Vec<u8> {
    let (field, value) = {
        let sliced = SlicedPacket::from_ethernet(&frame).unwrap();
        let (protocol, len, field) = match sliced.transport.unwrap() {
            TransportSlice::Tcp(tcp) => (6, tcp.slice().len(), 16),
            TransportSlice::Udp(udp) => (17, udp.slice().len(), 6),
            _ => panic!("neither TCP nor UDP"),
        };
        let (start, sum) = match sliced.net.unwrap() {
            NetSlice::Ipv4(ip) => (34, words(&ip.header().slice()[12..20])),
            NetSlice::Ipv6(ip) => (54, words(&ip.header().slice()[8..40])),
            _ => panic!("no IP"),
        };
        let mut sum = sum + protocol + len as u32;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        (start + field, sum as u16)
    };
    frame[field..field + 2].copy_from_slice(&value.to_be_bytes());
    frame
}

fn words(bytes: &[u8]) -> u32 {
    bytes.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1])).sum()
}

/// Reads a frame; its IPv4 checksum must be right.
pub fn open(frame: &[u8]) -> Opened {
    let sliced = SlicedPacket::from_ethernet(frame).unwrap();
    let v6 = matches!(sliced.net, Some(NetSlice::Ipv6(_)));
    let sums =
        |v4: &dyn Fn([u8; 4], [u8; 4]) -> u16, v6: &dyn Fn([u8; 16], [u8; 16]) -> u16| match sliced
            .net
            .as_ref()
            .unwrap()
        {
            NetSlice::Ipv4(ip) => {
                let header = ip.header();
                assert_eq!(header.header_checksum(), header.to_header().calc_header_checksum());
                v4(header.source(), header.destination())
            }
            NetSlice::Ipv6(ip) => v6(ip.header().source(), ip.header().destination()),
            _ => panic!("no IP"),
        };
    match sliced.transport.as_ref().unwrap() {
        TransportSlice::Tcp(tcp) => {
            let sum = sums(&|from, to| tcp.calc_checksum_ipv4(from, to).unwrap(), &|from, to| {
                tcp.calc_checksum_ipv6(from, to).unwrap()
            });
            Opened {
                v6,
                tcp: true,
                ports: (tcp.source_port(), tcp.destination_port()),
                sequence: tcp.sequence_number(),
                right: tcp.checksum() == sum,
                data: tcp.payload().to_vec(),
            }
        }
        TransportSlice::Udp(udp) => {
            let header = udp.to_header();
            let sum = sums(
                &|from, to| header.calc_checksum_ipv4_raw(from, to, udp.payload()).unwrap(),
                &|from, to| header.calc_checksum_ipv6_raw(from, to, udp.payload()).unwrap(),
            );
            Opened {
                v6,
                tcp: false,
                ports: (udp.source_port(), udp.destination_port()),
                sequence: 0,
                right: udp.checksum() == sum,
                data: udp.payload().to_vec(),
            }
        }
        _ => panic!("neither TCP nor UDP"),
    }
}
