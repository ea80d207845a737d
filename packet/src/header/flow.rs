//! Which packets must not overtake each other.
//!
//! ```text
//!   TCP, UDP        addresses, protocol, ports
//!   fragments       addresses: only the first of a datagram's has the ports
//!   other IP        addresses
//!   other           MAC addresses
//! ```

use super::{ETHERNET_HEADER, Layout, Pieces, Protocol};
use crate::buffer::{AnyPacket, View};

/// An IPv4 header without options, and the ports behind it.
const IPV4_AND_PORTS: usize = 20 + 4;

/// [`flow_hash`] of a packet, however its headers are cut into fragments.
#[inline]
pub fn packet_flow_hash<V: View>(packet: &AnyPacket<V>) -> u32 {
    let len = packet.len();
    match usual(packet.head(), len) {
        Some(hash) => hash.finish(),
        None => hash(packet.fragments(), len),
    }
}

/// A number that is the same for all packets of a flow, spread over all 32 bits. `head` are a
/// frame's first bytes; where they end early, fewer fields count.
///
/// It is no secret: whoever sends packets can choose their flow's number.
#[inline]
pub fn flow_hash(head: &[u8]) -> u32 {
    // How long the packet is does not matter here.
    match usual(head, usize::MAX) {
        Some(hash) => hash.finish(),
        None => hash(head, usize::MAX),
    }
}

/// The usual packet, whose fields lie where they always do: TCP or UDP over IPv4 without options, not a
/// fragment. Its hash is the same that [`hash`] finds.
#[inline]
fn usual(head: &[u8], len: usize) -> Option<Hash> {
    let head = head.first_chunk::<{ ETHERNET_HEADER + IPV4_AND_PORTS }>()?;
    let ip = head.last_chunk::<IPV4_AND_PORTS>()?;
    let is_v4 = head[ETHERNET_HEADER - 2..=ETHERNET_HEADER] == [0x08, 0x00, 0x45];
    let total = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
    let is_whole = total >= IPV4_AND_PORTS && total <= len.saturating_sub(ETHERNET_HEADER);
    // The offset, and whether there are more.
    let is_part = (ip[6] & 0x3f, ip[7]) != (0, 0);
    let protocol = Protocol(ip[9]);
    let has_ports = protocol == Protocol::TCP || protocol == Protocol::UDP;
    (is_v4 && is_whole && !is_part && has_ports)
        .then(|| Hash(0).add(&ip[12..]).add(&[protocol.0, 0, 0, 0]))
}

#[inline(never)]
fn hash<P: Pieces + ?Sized>(bytes: &P, len: usize) -> u32 {
    let flow = Layout::at_start(bytes, len).ok().and_then(|layout| of_ip(bytes, &layout));
    let stations = || Some(Hash(0).add(&bytes.read::<[u8; ETHERNET_HEADER - 2]>(0)?));
    flow.or_else(stations).map_or(0, Hash::finish)
}

#[inline]
fn of_ip<P: Pieces + ?Sized>(bytes: &P, layout: &Layout) -> Option<Hash> {
    let ip = layout.ip?;
    let len = if ip.v4 { 4 } else { 16 };
    let ends = layout.addresses(bytes)?;
    let hash = ends.iter().fold(Hash(0), |hash, end| hash.add(end.get(..len).unwrap_or(end)));
    match ip.ports(bytes).filter(|_| ip.part.is_none()) {
        Some(ports) => Some(hash.add(&ports).add(&[ip.protocol.0, 0, 0, 0])),
        None => Some(hash),
    }
}

#[derive(Clone, Copy)]
struct Hash(u64);

impl Hash {
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
    use crate::header::{Ipv4, Ipv6, U16};

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

    /// Whatever stands in the headers, and however long the packet is.
    #[test]
    fn the_usual_packets_shortcut_leads_to_the_same_number() {
        let mut shortcuts = 0;
        for make in [|| udp_v4([10, 0, 0, 2], [1000, 53], 0), || tcp_v6([1000, 80], 1)] {
            for (at, value) in (12..38).flat_map(|at| (0..=255).map(move |value| (at, value))) {
                let mut frame = make();
                frame[at] = value;
                for len in [frame.len() - 6, frame.len(), 2000, usize::MAX] {
                    if let Some(short) = usual(&frame, len) {
                        shortcuts += 1;
                        assert_eq!(short.finish(), hash(&frame[..], len), "{at}: {value}, {len}");
                    }
                }
            }
        }
        assert!(shortcuts > 10_000, "{shortcuts}");
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
