//! Where the headers of a TCP packet are, and how long it says it is.
//!
//! ```text
//!  0          14    18 = ip           tcp                  payload           end
//!  | Ethernet | VLAN | IPv4 + options | TCP  +  options    | data            | padding |
//!             | tag? | or IPv6        |                    |                 |
//! ```
//!
//! The bytes handed in are the first ones of the packet, in one piece; the data may be anywhere.

use zerocopy::{FromBytes, IntoBytes};

use crate::buffer::{Packet, View};
use crate::header::checksum::Sum;
use crate::header::{ETHERNET_HEADER, EtherType, Ethernet, Ipv4, Ipv6, Protocol, Tcp};
use crate::wire::GsoKind;

/// A VLAN tag, and the real type behind it (IEEE 802.1Q).
pub(super) const VLAN_TAG: usize = 4;

/// The most that all headers together can take: tagged Ethernet, and IPv4 and TCP with all the
/// options that their length fields allow.
pub(super) const MAX_HEADERS: usize = ETHERNET_HEADER + VLAN_TAG + 60 + 60;

/// Why a packet can't be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It carries no GSO size.
    NotGso,
    /// Its headers are cut short, or a length in them is wrong.
    BadLength,
    /// It is not TCP, or not over the version of IP that its GSO kind says.
    NotTcp,
    /// IPv6 extension headers come before TCP.
    Extensions,
    /// It is a fragment of an IP packet.
    IpFragment,
    /// SYN, RST or URG is set, which mean one segment and can't be in several.
    Flags,
    /// Its GSO size would make more than [`MAX_SEGMENTS`](super::MAX_SEGMENTS) of it.
    TooMany,
}

impl core::fmt::Display for Refusal {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Refusal::NotGso => "the packet carries no GSO size",
            Refusal::BadLength => "headers are cut short or a length is wrong",
            Refusal::NotTcp => "not TCP over the IP version that the GSO kind says",
            Refusal::Extensions => "IPv6 extension headers come before TCP",
            Refusal::IpFragment => "a fragment of an IP packet",
            Refusal::Flags => "SYN, RST or URG can't be in several segments",
            Refusal::TooMany => "the GSO size makes too many segments",
        })
    }
}

impl core::error::Error for Refusal {}

/// Where things are in a TCP packet, counted from its first byte.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    pub(super) kind: GsoKind,
    pub(super) ip: usize,
    pub(super) tcp: usize,
    /// Also the length of all headers.
    pub(super) payload: usize,
    /// What follows is padding.
    pub(super) end: usize,
    /// TCP's.
    pub(super) flags: u8,
}

impl Layout {
    /// Reads the headers at the start of a packet of `available` bytes. All of `0..payload` lies
    /// within `bytes` then, and `end` within the packet.
    #[inline]
    pub(super) fn of(bytes: &[u8], available: usize) -> Result<Layout, Refusal> {
        let short = Refusal::BadLength;
        let (ethernet, tag) = Ethernet::ref_from_prefix(bytes).map_err(|_| short)?;
        let (mut ether_type, mut ip) = (ethernet.kind, ETHERNET_HEADER);
        if ether_type == EtherType::VLAN {
            let inner = tag.get(VLAN_TAG - size_of::<EtherType>()..).ok_or(short)?;
            (ether_type, _) = EtherType::read_from_prefix(inner).map_err(|_| short)?;
            ip += VLAN_TAG;
        }
        let network = bytes.get(ip..).ok_or(short)?;
        let (kind, header, len) = match ether_type {
            EtherType::IPV4 => open_v4(network)?,
            EtherType::IPV6 => open_v6(network)?,
            _ => return Err(Refusal::NotTcp),
        };
        let (tcp, end) = (ip + header, ip + len);
        let transport = bytes.get(tcp..).ok_or(short)?;
        let (segment, _) = Tcp::ref_from_prefix(transport).map_err(|_| short)?;
        let header = segment.header_len();
        let payload = tcp + header;
        if header < size_of::<Tcp>() || header > transport.len() || payload > end || end > available
        {
            return Err(short);
        }
        Ok(Layout { kind, ip, tcp, payload, end, flags: segment.flags })
    }

    /// Bytes of data.
    #[inline]
    pub(super) fn data(&self) -> usize {
        self.end - self.payload
    }

    /// The IPv4 header, if that is what it is.
    #[inline]
    pub(super) fn v4<'a>(&self, bytes: &'a mut [u8]) -> Option<&'a mut Ipv4> {
        if self.kind != GsoKind::TcpV4 {
            return None;
        }
        Some(Ipv4::mut_from_prefix(bytes.get_mut(self.ip..)?).ok()?.0)
    }

    /// The TCP header.
    #[inline]
    pub(super) fn tcp<'a>(&self, bytes: &'a mut [u8]) -> Option<&'a mut Tcp> {
        Some(Tcp::mut_from_prefix(bytes.get_mut(self.tcp..)?).ok()?.0)
    }

    /// The sum of the pseudo-header with `data` bytes of data.
    #[inline]
    pub(super) fn pseudo(&self, bytes: &[u8], data: usize) -> Option<Sum> {
        let len = u16::try_from(self.payload - self.tcp + data).ok()?;
        let network = bytes.get(self.ip..)?;
        let tcp = Protocol::TCP.0;
        Some(match self.kind {
            GsoKind::TcpV4 => {
                let (ip, _) = Ipv4::ref_from_prefix(network).ok()?;
                Sum::pseudo_v4(ip.source, ip.destination, tcp, len)
            }
            GsoKind::TcpV6 => {
                let (ip, _) = Ipv6::ref_from_prefix(network).ok()?;
                Sum::pseudo_v6(ip.source, ip.destination, tcp, u32::from(len))
            }
        })
    }

    /// Makes headers fit `data` bytes of data: IP's length and its checksum, and a blank TCP
    /// checksum. `None` if a packet can't be that long.
    #[inline]
    pub(super) fn seal(&self, headers: &mut [u8], data: usize) -> Option<()> {
        let pseudo = self.pseudo(headers, data)?;
        let network = headers.get_mut(self.ip..self.tcp)?;
        match self.kind {
            GsoKind::TcpV4 => {
                let total = u16::try_from(self.payload - self.ip + data).ok()?;
                let (ip, options) = Ipv4::mut_from_prefix(network).ok()?;
                ip.total_len.set(total);
                ip.checksum.set(0);
                let mut sum = Sum::of(ip.as_bytes());
                sum.add(options);
                ip.checksum.set(sum.checksum());
            }
            GsoKind::TcpV6 => {
                let len = u16::try_from(self.payload - self.tcp + data).ok()?;
                Ipv6::mut_from_prefix(network).ok()?.0.payload_len.set(len);
            }
        }
        self.tcp(headers)?.checksum.set(pseudo.value());
        Some(())
    }
}

/// Bytes of the IPv4 header, and of the packet from there on.
#[inline]
fn open_v4(bytes: &[u8]) -> Result<(GsoKind, usize, usize), Refusal> {
    let (ip, _) = Ipv4::ref_from_prefix(bytes).map_err(|_| Refusal::BadLength)?;
    let header = ip.header_len();
    if ip.version_ihl >> 4 != 4 || header < size_of::<Ipv4>() {
        return Err(Refusal::BadLength);
    }
    if ip.is_fragment() {
        return Err(Refusal::IpFragment);
    }
    if ip.protocol != Protocol::TCP {
        return Err(Refusal::NotTcp);
    }
    Ok((GsoKind::TcpV4, header, usize::from(ip.total_len.get())))
}

/// The same for IPv6.
#[inline]
fn open_v6(bytes: &[u8]) -> Result<(GsoKind, usize, usize), Refusal> {
    let (ip, _) = Ipv6::ref_from_prefix(bytes).map_err(|_| Refusal::BadLength)?;
    if ip.version_class_flow.get() >> 28 != 6 {
        return Err(Refusal::BadLength);
    }
    let len = size_of::<Ipv6>() + usize::from(ip.payload_len.get());
    match ip.next_header {
        Protocol::TCP => Ok((GsoKind::TcpV6, size_of::<Ipv6>(), len)),
        Protocol::HOP_BY_HOP
        | Protocol::ROUTING
        | Protocol::FRAGMENT
        | Protocol::DESTINATION_OPTIONS => Err(Refusal::Extensions),
        _ => Err(Refusal::NotTcp),
    }
}

/// The first bytes of a packet in one piece, however its fragments are cut: a copy, as long as
/// headers can be.
pub(super) struct Front {
    bytes: [u8; MAX_HEADERS],
    len: usize,
}

impl Front {
    pub(super) fn of<V: View>(packet: &Packet<V>) -> Front {
        let mut front = Front { bytes: [0; MAX_HEADERS], len: 0 };
        for fragment in packet.fragments() {
            let room = front.bytes.get_mut(front.len..).unwrap_or_default();
            if room.is_empty() {
                break;
            }
            let now = room.iter_mut().zip(fragment.bytes());
            front.len += now.map(|(to, from)| *to = *from).count();
        }
        front
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    pub(super) fn into_bytes(self) -> [u8; MAX_HEADERS] {
        self.bytes
    }
}
