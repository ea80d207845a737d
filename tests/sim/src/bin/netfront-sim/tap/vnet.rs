//! What Linux says about a packet of a TAP device, and what netif does: the same, in other words.
//!
//! ```text
//!   struct virtio_net_hdr (linux/virtio_net.h)          Meta
//!   NEEDS_CSUM, csum_start, csum_offset           ◄──►  Checksum::Blank
//!   DATA_VALID                                    ◄──►  Checksum::Complete
//!   neither                                       ◄──►  Checksum::Unknown
//!   gso_type TCPV4 or TCPV6, gso_size, hdr_len    ◄──►  Gso
//! ```
//!
//! In both, the field of a blank checksum holds the sum of the pseudo-header.

use packet_views::buffer::{Checksum, Meta};
use packet_views::buffer::{Gso, GsoKind};
use tun_rs::{VIRTIO_NET_HDR_GSO_TCPV4, VIRTIO_NET_HDR_GSO_TCPV6, VirtioNetHdr};

/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`
pub const NEEDS_CSUM: u8 = 1;
/// `VIRTIO_NET_HDR_F_DATA_VALID`
const DATA_VALID: u8 = 2;
/// `VIRTIO_NET_HDR_GSO_NONE`
const GSO_NONE: u8 = 0;

/// Where the transport header and its checksum are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    start: u16,
    /// Within the header: 16 for TCP, 6 for UDP.
    field: u16,
}

const TCP_FIELD: u16 = 16;
const UDP_FIELD: u16 = 6;

impl Place {
    /// Of TCP or UDP in an Ethernet frame, directly after IPv4 or IPv6 without extensions; these
    /// are its first bytes.
    fn of(head: &[u8]) -> Option<Place> {
        let ip = head.get(14..)?;
        let (start, protocol) = match head.get(12..14)? {
            [0x08, 0x00] => (14 + 4 * u16::from(ip.first()? & 15), *ip.get(9)?),
            [0x86, 0xdd] => (14 + 40, *ip.get(6)?),
            _ => return None,
        };
        match protocol {
            6 => Some(Place { start, field: TCP_FIELD }),
            17 => Some(Place { start, field: UDP_FIELD }),
            _ => None,
        }
    }
}

/// What to tell Linux of a packet that begins so; `None` if it has no words for it.
pub fn to_linux(head: &[u8], meta: &Meta) -> Option<VirtioNetHdr> {
    let mut header = VirtioNetHdr::default();
    match meta.checksum {
        Checksum::Unknown => {}
        Checksum::Complete => header.flags = DATA_VALID,
        Checksum::Blank => {
            let place = Place::of(head)?;
            header.flags = NEEDS_CSUM;
            (header.csum_start, header.csum_offset) = (place.start, place.field);
        }
    }
    if let Some(gso) = meta.gso {
        let place = Place::of(head).filter(|place| place.field == TCP_FIELD)?;
        let tcp_len = 4 * u16::from(head.get(usize::from(place.start) + 12)? >> 4);
        header.gso_type = match gso.kind {
            GsoKind::TcpV4 => VIRTIO_NET_HDR_GSO_TCPV4,
            GsoKind::TcpV6 => VIRTIO_NET_HDR_GSO_TCPV6,
        };
        header.gso_size = gso.size.get();
        header.hdr_len = place.start + tcp_len;
    }
    Some(header)
}

/// What Linux has told of a packet that begins so; `None` if netif has no words for it: segments
/// of UDP, checksums of tunnels.
pub fn from_linux(head: &[u8], header: &VirtioNetHdr) -> Option<Meta> {
    let checksum = if header.flags & NEEDS_CSUM != 0 {
        let place = Place { start: header.csum_start, field: header.csum_offset };
        Place::of(head).filter(|&known| known == place)?;
        Checksum::Blank
    } else if header.flags & DATA_VALID != 0 {
        Checksum::Complete
    } else {
        Checksum::Unknown
    };
    let kind = match header.gso_type {
        GSO_NONE => None,
        VIRTIO_NET_HDR_GSO_TCPV4 => Some(GsoKind::TcpV4),
        VIRTIO_NET_HDR_GSO_TCPV6 => Some(GsoKind::TcpV6),
        _ => return None,
    };
    let gso = match kind {
        Some(kind) => Some(Gso { kind, size: header.gso_size.try_into().ok()? }),
        None => None,
    };
    Some(Meta { checksum, gso })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The head of a frame of TCP or UDP; IPv4 has 4 bytes of options, TCP 12.
    fn head(v4: bool, protocol: u8) -> Vec<u8> {
        let mut head = vec![0; 14];
        head[12..14].copy_from_slice(if v4 { &[0x08, 0x00] } else { &[0x86, 0xdd] });
        head.extend(if v4 { vec![0x46; 24] } else { vec![0x60; 40] });
        head[if v4 { 14 + 9 } else { 14 + 6 }] = protocol;
        let transport = head.len();
        head.extend([0; 32]);
        head[transport + 12] = 8 << 4;
        head
    }

    fn gso(kind: GsoKind) -> Option<Gso> {
        Some(Gso { kind, size: 1400.try_into().ok()? })
    }

    #[test]
    fn what_linux_is_told_it_tells_us() {
        for (v4, kind) in [(true, GsoKind::TcpV4), (false, GsoKind::TcpV6)] {
            for (protocol, gso) in [(6, None), (17, None), (6, gso(kind))] {
                for checksum in [Checksum::Unknown, Checksum::Complete, Checksum::Blank] {
                    let (head, meta) = (head(v4, protocol), Meta { checksum, gso });
                    let told = to_linux(&head, &meta).unwrap();
                    assert_eq!(from_linux(&head, &told), Some(meta), "{told:?}");
                }
            }
        }
    }

    #[test]
    fn the_header_says_where_things_are() {
        let meta = Meta { checksum: Checksum::Blank, gso: gso(GsoKind::TcpV4) };
        let told = to_linux(&head(true, 6), &meta).unwrap();
        assert_eq!((told.flags, told.gso_type, told.gso_size), (1, 1, 1400));
        assert_eq!((told.csum_start, told.csum_offset, told.hdr_len), (38, 16, 70));
        let meta = Meta { checksum: Checksum::Blank, gso: None };
        let told = to_linux(&head(false, 17), &meta).unwrap();
        assert_eq!((told.flags, told.gso_type, told.gso_size), (1, 0, 0));
        assert_eq!((told.csum_start, told.csum_offset, told.hdr_len), (54, 6, 0));
    }

    #[test]
    fn what_has_no_words_is_refused() {
        let blank = Meta { checksum: Checksum::Blank, gso: None };
        let large = Meta { checksum: Checksum::Blank, gso: gso(GsoKind::TcpV4) };
        for len in 0..14 + 10 {
            assert!(to_linux(&head(true, 6)[..len], &blank).is_none(), "{len} bytes");
        }
        assert!(to_linux(&head(true, 1), &blank).is_none(), "ICMP has no blank checksum");
        assert!(to_linux(&head(true, 17), &large).is_none(), "UDP is not cut");
        assert!(to_linux(&head(true, 6)[..45], &large).is_none(), "no TCP header");

        let tcp = head(true, 6);
        let told = to_linux(&tcp, &large).unwrap();
        for bad in [
            VirtioNetHdr { gso_type: 5, ..told },
            VirtioNetHdr { gso_type: 0x81, ..told },
            VirtioNetHdr { gso_size: 0, ..told },
            VirtioNetHdr { csum_start: 34, ..told },
            VirtioNetHdr { csum_offset: 6, ..told },
        ] {
            assert!(from_linux(&tcp, &bad).is_none(), "{bad:?}");
        }
    }
}
