//! Against another implementation: etherparse builds every segment by itself.

mod blank;
mod coalesce;
mod flows;
mod headers;
mod hostile;
mod rules;
mod segment;

use alloc::vec;
use alloc::vec::Vec;
use core::num::NonZeroU16;

use etherparse::{
    IpHeaders, Ipv4Header, Ipv4Options, Ipv6Header, PacketBuilder, TcpHeader, VlanId, ip_number,
};
use proptest::prelude::*;

use crate::buffer::{AnyPacket, BufMut, Checksum, HeapBlock, Meta, Packet, SharedHeapBlock, View};
use crate::buffer::{Gso, GsoKind};

type Tx = AnyPacket<BufMut<HeapBlock>>;
type Rx = Packet<SharedHeapBlock>;

/// What stays the same in all segments of a flow.
#[derive(Clone, Debug)]
struct Flow {
    v4: bool,
    vlan: Option<u16>,
    /// IPv4's, whole words.
    options: Vec<u8>,
    /// TCP's, whole words.
    tcp_options: Vec<u8>,
    dont_fragment: bool,
    /// Traffic class in IPv6.
    tos: u8,
    label: u32,
    ttl: u8,
    addresses: [[u8; 16]; 2],
    ports: (u16, u16),
    ack: u32,
    window: u16,
    ece: bool,
}

/// What each segment has of its own.
#[derive(Clone, Debug, Default)]
struct Segment {
    sequence: u32,
    id: u16,
    fin: bool,
    psh: bool,
    cwr: bool,
    data: Vec<u8>,
}

impl Flow {
    /// A plain one.
    fn new(v4: bool) -> Flow {
        Flow {
            v4,
            vlan: None,
            options: vec![],
            // No operation twice, then a timestamp (RFC 7323).
            tcp_options: vec![1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8],
            dont_fragment: true,
            tos: 0,
            label: 0,
            ttl: 64,
            addresses: [[10; 16], [192; 16]],
            ports: (49152, 443),
            ack: 77,
            window: 512,
            ece: false,
        }
    }

    fn kind(&self) -> GsoKind {
        if self.v4 { GsoKind::TcpV4 } else { GsoKind::TcpV6 }
    }

    fn ip(&self) -> usize {
        if self.vlan.is_some() { 18 } else { 14 }
    }

    fn tcp(&self) -> usize {
        self.ip() + if self.v4 { 20 + self.options.len() } else { 40 }
    }

    fn headers(&self) -> usize {
        self.tcp() + 20 + self.tcp_options.len()
    }

    /// The frame, all checksums right.
    fn build(&self, segment: &Segment) -> Vec<u8> {
        let [source, destination] = self.addresses;
        let ip = if self.v4 {
            let mut ip = Ipv4Header {
                identification: segment.id,
                dont_fragment: self.dont_fragment,
                time_to_live: self.ttl,
                protocol: ip_number::TCP,
                options: Ipv4Options::try_from(&self.options[..]).unwrap(),
                ..Ipv4Header::default()
            };
            ip.dscp = (self.tos >> 2).try_into().unwrap();
            ip.ecn = (self.tos & 3).try_into().unwrap();
            ip.source.copy_from_slice(&source[..4]);
            ip.destination.copy_from_slice(&destination[..4]);
            IpHeaders::Ipv4(ip, Default::default())
        } else {
            let ip = Ipv6Header {
                traffic_class: self.tos,
                flow_label: self.label.try_into().unwrap(),
                next_header: ip_number::TCP,
                hop_limit: self.ttl,
                source,
                destination,
                ..Ipv6Header::default()
            };
            IpHeaders::Ipv6(ip, Default::default())
        };
        let mut tcp = TcpHeader::new(self.ports.0, self.ports.1, segment.sequence, self.window);
        tcp.set_options_raw(&self.tcp_options).unwrap();
        tcp.acknowledgment_number = self.ack;
        (tcp.ack, tcp.ece) = (true, self.ece);
        (tcp.fin, tcp.psh, tcp.cwr) = (segment.fin, segment.psh, segment.cwr);
        let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
        let mut frame = Vec::new();
        match self.vlan {
            None => builder.ip(ip).tcp_header(tcp).write(&mut frame, &segment.data),
            Some(id) => builder
                .single_vlan(VlanId::try_new(id).unwrap())
                .ip(ip)
                .tcp_header(tcp)
                .write(&mut frame, &segment.data),
        }
        .unwrap();
        frame
    }

    /// The segments of `size` bytes that a large one is to be cut into.
    fn cut(&self, whole: &Segment, size: usize) -> Vec<Segment> {
        let mut chunks: Vec<&[u8]> = whole.data.chunks(size).collect();
        if chunks.is_empty() {
            chunks.push(&[]);
        }
        let last = chunks.len() - 1;
        let segment = |(index, data): (usize, &&[u8])| Segment {
            sequence: whole.sequence.wrapping_add((index * size) as u32),
            id: whole.id.wrapping_add(index as u16),
            fin: whole.fin && index == last,
            psh: whole.psh && index == last,
            cwr: whole.cwr && index == 0,
            data: data.to_vec(),
        };
        chunks.iter().enumerate().map(segment).collect()
    }

    /// The frame with the checksum completed as the wire's end would do it, word by word.
    fn completed(&self, frame: &[u8]) -> Vec<u8> {
        let mut frame = frame.to_vec();
        let end = self.ip() + ip_len(&frame[self.ip()..]);
        let sum = plainly(&frame[self.tcp()..end]);
        frame[self.tcp() + 16..][..2].copy_from_slice(&(!sum).to_be_bytes());
        frame
    }
}

/// The length of an IP packet, as its header says.
fn ip_len(ip: &[u8]) -> usize {
    let word = |at: usize| usize::from(u16::from_be_bytes([ip[at], ip[at + 1]]));
    if ip[0] >> 4 == 4 { word(2) } else { 40 + word(4) }
}

/// RFC 1071 as the RFC defines it.
fn plainly(bytes: &[u8]) -> u16 {
    let words =
        bytes.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// A frame in fragments that end at the given places, empty ones among them, in blocks with so
/// much headroom.
fn split(frame: &[u8], places: &[usize], headroom: usize, meta: Meta) -> Tx {
    let mut places: Vec<usize> = places.iter().map(|&place| place.min(frame.len())).collect();
    places.sort_unstable();
    let mut packet = AnyPacket::new();
    packet.meta = meta;
    let mut start = 0;
    for end in places.into_iter().chain([frame.len()]) {
        let mut buf = BufMut::new(HeapBlock::new(headroom + end - start + 1), headroom);
        buf.append(end - start).unwrap().copy_from_slice(&frame[start..end]);
        packet.push(buf).unwrap();
        start = end;
    }
    packet
}

fn joined<V: View>(packet: &AnyPacket<V>) -> Vec<u8> {
    packet.fragments().iter().flat_map(|fragment| fragment.bytes().to_vec()).collect()
}

fn gso(kind: GsoKind, size: usize) -> Meta {
    let size = NonZeroU16::new(size as u16).unwrap();
    Meta { checksum: Checksum::Blank, gso: Some(Gso { size, kind }) }
}

const COMPLETE: Meta = Meta { checksum: Checksum::Complete, gso: None };

/// A block, its bytes left from an earlier use.
fn block(size: usize, headroom: usize) -> Option<BufMut<HeapBlock>> {
    let mut buf = BufMut::new(HeapBlock::new(size), 0);
    buf.append(size)?.fill(0xa5);
    Some(BufMut::new(buf.into_parts().0, headroom))
}

prop_compose! {
    /// A flow; all but `plain` ones have IPv4 options, which are not coalesced.
    fn flow(plain: bool)(
        v4: bool,
        vlan in prop::option::of(0u16..4096),
        words in 0usize..=10,
        tcp_options in prop::collection::vec(any::<[u8; 4]>(), 0..=10),
        dont_fragment: bool,
        (tos, ttl, label) in (any::<u8>(), any::<u8>(), 0u32..1 << 20),
        addresses: [[u8; 16]; 2],
        ports: (u16, u16),
        ack: u32,
        window: u16,
        ece: bool,
    ) -> Flow {
        let options = if plain { vec![] } else { vec![1; words * 4] };
        let tcp_options = tcp_options.concat();
        Flow {
            v4, vlan, options, tcp_options, dont_fragment, tos, label, ttl, addresses, ports, ack,
            window, ece,
        }
    }
}

prop_compose! {
    /// A large segment of up to `max` bytes.
    fn whole(max: usize)(
        sequence in prop_oneof![any::<u32>(), 0xffff_0000u32..],
        id in prop_oneof![any::<u16>(), 0xfff0u16..],
        (fin, psh, cwr) in any::<(bool, bool, bool)>(),
        len in 0..max,
        seed: u64,
    ) -> Segment {
        Segment { sequence, id, fin, psh, cwr, data: noise(len, seed) }
    }
}

/// Bytes that look like anything, and shrink to something short.
fn noise(len: usize, mut seed: u64) -> Vec<u8> {
    (0..len)
        .map(|_| {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (seed >> 33) as u8
        })
        .collect()
}
