//! Which packets must not overtake each other.
//!
//! ```text
//!   TCP, UDP        addresses, protocol, ports
//!   fragments       addresses: only the first of a datagram's has the ports
//!   other IP        addresses
//!   other           MAC addresses
//! ```

use zerocopy::FromBytes;

use super::{ETHERNET_HEADER, EtherType, Ethernet, Ipv4, Ipv6, Protocol};
use crate::buffer::{Packet, View};

/// A VLAN tag.
const TAG: usize = 4;
/// Source and destination port, in front of TCP's and UDP's header.
const PORTS: usize = 4;

/// All that a flow's number depends on: Ethernet, a tag, IPv4 with options, ports.
const FLOW_HEADERS: usize = ETHERNET_HEADER + TAG + 60 + PORTS;

/// [`flow_hash`] of a packet, however its headers are cut into fragments.
#[inline]
pub fn packet_flow_hash<V: View>(packet: &Packet<V>) -> u32 {
    let head = packet.head();
    if head.len() >= FLOW_HEADERS || packet.fragments().len() == 1 {
        return flow_hash(head);
    }
    let mut front = [0; FLOW_HEADERS];
    let bytes = packet.fragments().iter().flat_map(View::bytes);
    let len = front.iter_mut().zip(bytes).map(|(to, from)| *to = *from).count();
    flow_hash(front.get(..len).unwrap_or_default())
}

/// A number that is the same for all packets of a flow, spread over all 32 bits. `head` are a
/// frame's first bytes; where they end early, fewer fields count.
///
/// It is no secret: whoever sends packets can choose their flow's number.
#[inline]
pub fn flow_hash(head: &[u8]) -> u32 {
    let Some((ethernet, rest)) = Ethernet::ref_from_prefix(head).ok() else { return 0 };
    let (kind, network) = if ethernet.kind == EtherType::VLAN {
        let kind = rest.get(2..TAG).map_or([0; 2], |kind| [kind[0], kind[1]]);
        (EtherType(kind.into()), rest.get(TAG..).unwrap_or_default())
    } else {
        (ethernet.kind, rest)
    };
    let flow = match kind {
        EtherType::IPV4 => v4(network),
        EtherType::IPV6 => v6(network),
        _ => None,
    };
    match flow {
        Some(hash) => hash.finish(),
        None => Hash::of(head.get(..ETHERNET_HEADER - 2).unwrap_or_default()).finish(),
    }
}

#[inline]
fn v4(bytes: &[u8]) -> Option<Hash> {
    let (ip, _) = Ipv4::ref_from_prefix(bytes).ok()?;
    let hash = Hash::of(&ip.source).add(&ip.destination);
    if ip.is_fragment() {
        return Some(hash);
    }
    Some(ports(hash, ip.protocol, bytes.get(ip.header_len()..)))
}

#[inline]
fn v6(bytes: &[u8]) -> Option<Hash> {
    let (ip, rest) = Ipv6::ref_from_prefix(bytes).ok()?;
    let hash = Hash::of(&ip.source).add(&ip.destination);
    Some(ports(hash, ip.next_header, Some(rest)))
}

#[inline]
fn ports(hash: Hash, protocol: Protocol, transport: Option<&[u8]>) -> Hash {
    match (protocol, transport.and_then(|bytes| bytes.get(..PORTS))) {
        (Protocol::TCP | Protocol::UDP, Some(ports)) => hash.add(ports).add(&[protocol.0, 0, 0, 0]),
        _ => hash,
    }
}

#[derive(Clone, Copy)]
struct Hash(u64);

impl Hash {
    #[inline]
    fn of(bytes: &[u8]) -> Hash {
        Hash(0).add(bytes)
    }

    /// Takes in whole words; what is left over does not count.
    #[inline]
    fn add(self, bytes: &[u8]) -> Hash {
        let (words, _) = bytes.as_chunks::<4>();
        words.iter().fold(self, |hash, word| {
            let word = u64::from(u32::from_le_bytes(*word));
            // An odd constant without a pattern: 2^64 divided by the golden ratio.
            Hash((hash.0.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15))
        })
    }

    /// The upper bits: each depends on all that was taken in.
    #[inline]
    fn finish(self) -> u32 {
        ((self.0 ^ (self.0 >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 32) as u32
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;
    use alloc::vec::Vec;

    use zerocopy::IntoBytes;

    use super::*;
    use crate::header::U16;

    fn udp_v4(source: [u8; 4], ports: [u16; 2], fragment: u16) -> Vec<u8> {
        let mut ip = Ipv4::new(Protocol::UDP, source, [10, 0, 0, 1], 8).unwrap();
        ip.flags_fragment = U16::new(fragment);
        let mut frame = vec![2; 12];
        frame.extend([0x08, 0x00]);
        frame.extend(ip.as_bytes());
        frame.extend(ports[0].to_be_bytes());
        frame.extend(ports[1].to_be_bytes());
        frame.extend([0, 8, 0, 0]);
        frame
    }

    fn tcp_v6(ports: [u16; 2], source: u8) -> Vec<u8> {
        let ip = Ipv6::new(Protocol::TCP, [source; 16], [9; 16], 20).unwrap();
        let mut frame = vec![2; 12];
        frame.extend([0x86, 0xdd]);
        frame.extend(ip.as_bytes());
        frame.extend(ports[0].to_be_bytes());
        frame.extend(ports[1].to_be_bytes());
        frame.extend([0; 16]);
        frame
    }

    #[test]
    fn packets_of_a_flow_have_one_number_and_flows_spread() {
        for make in [|n| udp_v4([10, 0, 0, 2], [n, 53], 0), |n| tcp_v6([n, 80], 1)] {
            let mut counts = [0; 4];
            for port in 1000..1400 {
                let (frame, mut other) = (make(port), make(port));
                other.extend([7; 900]);
                assert_eq!(flow_hash(&frame), flow_hash(&other));
                counts[((u64::from(flow_hash(&frame)) * 4) >> 32) as usize] += 1;
            }
            assert!(counts.iter().all(|count| (60..140).contains(count)), "{counts:?}");
        }
    }

    #[test]
    fn fragments_of_a_datagram_stay_together() {
        let first = udp_v4([10, 0, 0, 2], [4000, 53], Ipv4::MORE_FRAGMENTS);
        let second = udp_v4([10, 0, 0, 2], [0xdead, 0xbeef], 185);
        assert_eq!(flow_hash(&first), flow_hash(&second));
        let whole = udp_v4([10, 0, 0, 2], [4000, 53], Ipv4::DONT_FRAGMENT);
        assert_ne!(flow_hash(&first), flow_hash(&whole));
    }

    #[test]
    fn addresses_protocol_and_tags_are_seen() {
        let plain = udp_v4([10, 0, 0, 2], [1, 2], 0);
        assert_ne!(flow_hash(&plain), flow_hash(&udp_v4([10, 0, 0, 3], [1, 2], 0)));
        assert_ne!(flow_hash(&tcp_v6([1, 2], 1)), flow_hash(&tcp_v6([1, 2], 2)));
        let mut tcp = plain.clone();
        tcp[23] = Protocol::TCP.0;
        assert_ne!(flow_hash(&plain), flow_hash(&tcp));
        let mut tagged = plain.clone();
        tagged.splice(12..12, [0x81, 0x00, 0, 5]);
        assert_eq!(flow_hash(&plain), flow_hash(&tagged));
    }

    #[test]
    fn r6_frames_cut_anywhere_are_harmless() {
        for frame in [udp_v4([1; 4], [1, 2], 0), tcp_v6([1, 2], 1), vec![0x81; 64]] {
            for len in 0..=frame.len() {
                let _ = flow_hash(&frame[..len]);
            }
        }
        // No IP: the stations count.
        assert_ne!(flow_hash(&[1; 60]), flow_hash(&[2; 60]));
    }
}
