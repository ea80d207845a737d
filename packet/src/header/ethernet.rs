//! Ethernet II: who a frame is for, and what is in it.

use core::ops::RangeInclusive;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{Arp, At, Ipv4, Ipv6, Source, U16};
use crate::buffer::MAX_PACKET;

/// Bytes of an Ethernet header.
pub const ETHERNET_HEADER: usize = 14;

/// Bytes of a VLAN tag.
pub const VLAN_TAG: usize = 4;

/// An Ethernet header with an 802.1Q tag: what a frame may have besides the MTU.
pub const LINK_HEADER: usize = ETHERNET_HEADER + VLAN_TAG;

/// The MTUs that there are: from IPv4's smallest (RFC 791) to what fits a packet of [`MAX_PACKET`] bytes,
/// which counts the Ethernet header.
pub const MTUS: RangeInclusive<usize> = 68..=MAX_PACKET - ETHERNET_HEADER;

/// The longest frame over a link with this MTU, of those that begin with `head`: a tag does not count
/// into the MTU.
pub fn longest_frame(mtu: usize, head: &[u8]) -> usize {
    let is_tagged = Ethernet::ref_from_prefix(head).is_ok_and(|(it, _)| it.kind.is_tag());
    mtu.saturating_add(if is_tagged { LINK_HEADER } else { ETHERNET_HEADER })
}

const _: () = assert!(size_of::<Ethernet>() == ETHERNET_HEADER);

/// A hardware address.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
    Unaligned,
)]
#[repr(transparent)]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// Everybody.
    pub const BROADCAST: MacAddr = MacAddr([0xff; 6]);

    /// The address written as xenstore has it, `00:16:3e:01:02:03`; `None` for anything else.
    pub fn parse(text: &str) -> Option<MacAddr> {
        let mut parts = text.split(':');
        let mut bytes = [0; 6];
        for byte in &mut bytes {
            let part = parts.next()?;
            if part.len() != 2 || !part.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return None;
            }
            *byte = u8::from_str_radix(part, 16).ok()?;
        }
        parts.next().is_none().then_some(MacAddr(bytes))
    }

    /// Whether it stands for several stations: multicast or broadcast.
    pub fn is_group(self) -> bool {
        self.0[0] & 1 != 0
    }
}

impl core::fmt::Display for MacAddr {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// What a frame carries (IEEE 802 Numbers, IANA). Below 1536 it is a length: IEEE 802.3.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(transparent)]
pub struct EtherType(pub U16);

impl EtherType {
    /// IPv4.
    pub const IPV4: EtherType = EtherType(U16::from_bytes([0x08, 0x00]));
    /// ARP.
    pub const ARP: EtherType = EtherType(U16::from_bytes([0x08, 0x06]));
    /// A VLAN tag (IEEE 802.1Q) of four bytes is in front of the real type.
    pub const VLAN: EtherType = EtherType(U16::from_bytes([0x81, 0x00]));
    /// IPv6.
    pub const IPV6: EtherType = EtherType(U16::from_bytes([0x86, 0xdd]));
    /// A provider's tag (IEEE 802.1ad) of four bytes, usually in front of another.
    pub const PROVIDER_VLAN: EtherType = EtherType(U16::from_bytes([0x88, 0xa8]));

    /// Whether a tag of four bytes is in front of the real type.
    #[inline]
    pub fn is_tag(self) -> bool {
        /// Before there was a standard.
        const OLD: EtherType = EtherType(U16::from_bytes([0x91, 0x00]));
        self == EtherType::VLAN || self == EtherType::PROVIDER_VLAN || self == OLD
    }
}

/// An Ethernet header.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Ethernet {
    /// For whom.
    pub destination: MacAddr,
    /// From whom.
    pub source: MacAddr,
    /// What.
    pub kind: EtherType,
}

/// What is in a frame, each a view that starts there.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub enum Network<V> {
    /// IPv4
    Ipv4(At<Ipv4, V>),
    /// IPv6
    Ipv6(At<Ipv6, V>),
    /// ARP
    Arp(At<Arp, V>),
    /// Something else.
    Other(EtherType, V),
}

impl<V: Source> At<Ethernet, V> {
    /// The header, and what is in the frame.
    #[inline]
    pub fn open(self) -> Option<(V::Ref<Ethernet>, Network<V>)> {
        let (header, rest) = self.take()?;
        // One comparison each: a pattern would be one a byte.
        let network = match header.kind {
            kind if kind == EtherType::IPV4 => Network::Ipv4(At::claim(rest)),
            kind if kind == EtherType::IPV6 => Network::Ipv6(At::claim(rest)),
            kind if kind == EtherType::ARP => Network::Arp(At::claim(rest)),
            kind => Network::Other(kind, rest),
        };
        Some((header, network))
    }
}

impl<V: Source> core::fmt::Debug for Network<V> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Network::Ipv4(at) => f.debug_tuple("Ipv4").field(at).finish(),
            Network::Ipv6(at) => f.debug_tuple("Ipv6").field(at).finish(),
            Network::Arp(at) => f.debug_tuple("Arp").field(at).finish(),
            Network::Other(kind, view) => write!(f, "Other({kind:?}, {} bytes)", view.len()),
        }
    }
}
