//! Frames by etherparse, and its opinion of others.

use etherparse::{LaxSlicedPacket, NetSlice, PacketBuilder, SlicedPacket, TransportSlice};

use super::*;

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    Tcp,
    Udp,
    Icmp,
}

impl Kind {
    /// Each over each IP: true is IPv4.
    pub(super) fn all() -> impl Iterator<Item = (bool, Kind)> {
        let kinds = [Kind::Tcp, Kind::Udp, Kind::Icmp];
        [true, false].into_iter().flat_map(move |v4| kinds.map(|kind| (v4, kind)))
    }
}

/// A frame from station 2 to station 1, port 7, checksums right.
pub(super) fn frame(v4: bool, kind: Kind, data: &[u8]) -> Vec<u8> {
    let ethernet = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 1]);
    let ip = match (address(v4, 2), address(v4, 1)) {
        (IpAddress::Ipv4(from), IpAddress::Ipv4(to)) => {
            ethernet.ipv4(from.octets(), to.octets(), 64)
        }
        (IpAddress::Ipv6(from), IpAddress::Ipv6(to)) => {
            ethernet.ipv6(from.octets(), to.octets(), 64)
        }
        _ => unreachable!(),
    };
    let mut frame = vec![];
    match kind {
        Kind::Tcp => ip.tcp(1000, 7, 1, 2).write(&mut frame, data),
        Kind::Udp => ip.udp(1000, 7).write(&mut frame, data),
        Kind::Icmp if v4 => ip.icmpv4_echo_request(3, 4).write(&mut frame, data),
        Kind::Icmp => ip.icmpv6_echo_request(3, 4).write(&mut frame, data),
    }
    .unwrap();
    frame
}

/// Where the transport header of a frame starts, and its checksum field.
fn places(frame: &[u8]) -> (usize, usize) {
    let (transport, protocol) =
        if frame[12..14] == [8, 0] { (34, frame[23]) } else { (54, frame[20]) };
    let field = match protocol {
        6 => 16,
        17 => 6,
        _ => 2,
    };
    (transport, transport + field)
}

/// RFC 1071 as the RFC defines it.
pub(super) fn plainly(bytes: &[u8]) -> u16 {
    let words =
        bytes.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// The frame with its checksum blank: what is left of a right one without header and data.
pub(super) fn blank(frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    let (transport, field) = places(&frame);
    frame[field..field + 2].fill(0);
    let len = (frame.len() - transport) as u16;
    let mut pseudo = if transport == 34 { frame[26..34].to_vec() } else { frame[22..54].to_vec() };
    pseudo.extend([0, if transport == 34 { frame[23] } else { frame[20] }]);
    pseudo.extend(len.to_be_bytes());
    let sum = plainly(&pseudo);
    frame[field..field + 2].copy_from_slice(&sum.to_be_bytes());
    frame
}

/// The frame with its blank checksum filled in, as a wire's end would.
pub(super) fn filled_in(frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    let (transport, field) = places(&frame);
    let sum = !plainly(&frame[transport..]);
    frame[field..field + 2].copy_from_slice(&sum.to_be_bytes());
    frame
}

/// Whether etherparse finds the checksums of a frame right, IPv4's too.
pub(super) fn is_right(frame: &[u8]) -> bool {
    let read = SlicedPacket::from_ethernet(frame).unwrap();
    let (v4, v6) = match read.net {
        Some(NetSlice::Ipv4(ip)) => {
            let header = ip.header().to_header();
            if header.header_checksum != header.calc_header_checksum() {
                return false;
            }
            (Some((header.source, header.destination)), None)
        }
        Some(NetSlice::Ipv6(ip)) => {
            let header = ip.header().to_header();
            (None, Some((header.source, header.destination)))
        }
        _ => return false,
    };
    match read.transport {
        Some(TransportSlice::Tcp(tcp)) => {
            let sum = match (v4, v6) {
                (Some((from, to)), _) => tcp.calc_checksum_ipv4(from, to).unwrap(),
                (_, Some((from, to))) => tcp.calc_checksum_ipv6(from, to).unwrap(),
                _ => return false,
            };
            sum == tcp.checksum()
        }
        Some(TransportSlice::Udp(udp)) => {
            let header = udp.to_header();
            let sum = match (v4, v6) {
                (Some((from, to)), _) => header.calc_checksum_ipv4_raw(from, to, udp.payload()),
                (_, Some((from, to))) => header.calc_checksum_ipv6_raw(from, to, udp.payload()),
                _ => return false,
            };
            sum.unwrap() == header.checksum
        }
        Some(TransportSlice::Icmpv4(icmp)) => {
            icmp.icmp_type().calc_checksum(icmp.payload()) == icmp.checksum()
        }
        Some(TransportSlice::Icmpv6(icmp)) => {
            let (from, to) = v6.unwrap();
            let sum = icmp.icmp_type().calc_checksum(from, to, icmp.payload());
            sum.unwrap() == icmp.checksum()
        }
        _ => false,
    }
}

/// What a frame carries, if it is any of the kinds.
pub(super) fn kind(frame: &[u8]) -> Option<Kind> {
    match LaxSlicedPacket::from_ethernet(frame).ok()?.transport? {
        TransportSlice::Tcp(_) => Some(Kind::Tcp),
        TransportSlice::Udp(_) => Some(Kind::Udp),
        TransportSlice::Icmpv4(_) | TransportSlice::Icmpv6(_) => Some(Kind::Icmp),
        TransportSlice::Igmp(_) => None,
    }
}

#[test]
fn these_helpers_agree() {
    for (v4, its) in Kind::all() {
        for data in [&b""[..], b"odd", b"even"] {
            let frame = frame(v4, its, data);
            assert!(is_right(&frame) && kind(&frame) == Some(its));
            assert!(!is_right(&blank(&frame)));
            if its != Kind::Icmp {
                assert_eq!(filled_in(&blank(&frame)), frame);
            }
        }
    }
}
