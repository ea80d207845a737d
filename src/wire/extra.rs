//! Extras: slots that describe the packet they stand in instead of carrying it.
//!
//! ```text
//! byte        0      1        2       3        4      5      6      7
//! any         type   flags    data[0]  ...                          data[5]
//! GSO         1      flags    size             kind   0      features (0)
//! MCAST_ADD   2      flags    address
//! MCAST_DEL   3      flags    address
//! HASH        4      flags    type    algorithm   value
//! XDP         5      flags    headroom         0
//! ```
//!
//! Of these only GSO is in use. The others are known, so that what a peer sends can be named, but
//! neither offered nor asked for: netback refuses a request for a multicast address, leaves a hash
//! aside, and takes XDP for the unknown kind that it is to a backend; netfront drops what comes
//! with any of them.

use core::num::NonZeroU16;

use packet_views::buffer::{Gso, GsoKind};
use xen_ring::Wire;

use super::control::{HashAlgorithm, HashType};

/// A wish for packets to a group, or for no more of them. Known, not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Multicast {
    /// `XEN_NETIF_EXTRA_TYPE_MCAST_ADD`
    Add([u8; 6]),
    /// `XEN_NETIF_EXTRA_TYPE_MCAST_DEL`
    Del([u8; 6]),
}

/// A packet's hash, by which it was steered to its queue. Known, not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hash {
    /// What was hashed.
    pub kind: HashType,
    /// How.
    pub algorithm: HashAlgorithm,
    /// The result.
    pub value: u32,
}

/// `netif_extra_info`: a slot that describes the packet instead of carrying it, as received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extra {
    /// `XEN_NETIF_EXTRA_TYPE_*`.
    pub kind: u8,
    /// [`Extra::MORE`].
    pub flags: u8,
    /// What the kind makes of them.
    pub data: [u8; 6],
}

impl Extra {
    /// `XEN_NETIF_EXTRA_FLAG_MORE`: another extra follows.
    pub const MORE: u8 = 1;
    /// `XEN_NETIF_EXTRA_TYPE_GSO`
    pub const GSO: u8 = 1;
    /// `XEN_NETIF_EXTRA_TYPE_MCAST_ADD`
    pub const MCAST_ADD: u8 = 2;
    /// `XEN_NETIF_EXTRA_TYPE_MCAST_DEL`
    pub const MCAST_DEL: u8 = 3;
    /// `XEN_NETIF_EXTRA_TYPE_HASH`
    pub const HASH: u8 = 4;
    /// `XEN_NETIF_EXTRA_TYPE_XDP`, which Linux has and Xen's header may not.
    pub const XDP: u8 = 5;

    /// The largest headroom of [`xdp_headroom`](Extra::xdp_headroom)
    /// (`XEN_NETIF_MAX_XDP_HEADROOM`).
    pub const MAX_XDP_HEADROOM: u16 = 0x7fff;

    const fn new(kind: u8, data: [u8; 6]) -> Extra {
        Extra { kind, flags: 0, data }
    }

    /// The extra that carries a GSO size.
    #[inline]
    pub fn from_gso(gso: Gso) -> Extra {
        let [low, high] = gso.size.get().to_le_bytes();
        let kind = match gso.kind {
            GsoKind::TcpV4 => 1,
            GsoKind::TcpV6 => 2,
        };
        Extra::new(Extra::GSO, [low, high, kind, 0, 0, 0])
    }

    /// The GSO size that this extra carries; `None` if it is of another kind, or its size is 0,
    /// or its type is not one of TCP's.
    #[inline]
    pub fn gso(&self) -> Option<Gso> {
        let [low, high, kind, ..] = self.data;
        let size = NonZeroU16::new(u16::from_le_bytes([low, high]))?;
        let kind = match kind {
            1 => GsoKind::TcpV4,
            2 => GsoKind::TcpV6,
            _ => return None,
        };
        (self.kind == Extra::GSO).then_some(Gso { size, kind })
    }

    /// The extra that asks for a group's packets, or for no more of them.
    pub fn from_multicast(wish: Multicast) -> Extra {
        match wish {
            Multicast::Add(address) => Extra::new(Extra::MCAST_ADD, address),
            Multicast::Del(address) => Extra::new(Extra::MCAST_DEL, address),
        }
    }

    /// The wish that this extra carries; `None` if it is of another kind, or the address is not a
    /// group's.
    pub fn multicast(&self) -> Option<Multicast> {
        let [first, ..] = self.data;
        match self.kind {
            _ if first & 1 == 0 => None,
            Extra::MCAST_ADD => Some(Multicast::Add(self.data)),
            Extra::MCAST_DEL => Some(Multicast::Del(self.data)),
            _ => None,
        }
    }

    /// The extra that carries a hash.
    pub fn from_hash(hash: Hash) -> Extra {
        let [a, b, c, d] = hash.value.to_le_bytes();
        Extra::new(Extra::HASH, [hash.kind as u8, hash.algorithm as u8, a, b, c, d])
    }

    /// The hash that this extra carries; `None` if it is of another kind, or its type or
    /// algorithm is none of netif.h's.
    pub fn hash(&self) -> Option<Hash> {
        let [kind, algorithm, a, b, c, d] = self.data;
        let kind = HashType::from_number(kind)?;
        let algorithm = HashAlgorithm::from_number(algorithm.into())?;
        let value = u32::from_le_bytes([a, b, c, d]);
        (self.kind == Extra::HASH).then_some(Hash { kind, algorithm, value })
    }

    /// The extra that says where in its page a packet begins.
    pub fn from_xdp_headroom(headroom: u16) -> Extra {
        let [low, high] = headroom.to_le_bytes();
        Extra::new(Extra::XDP, [low, high, 0, 0, 0, 0])
    }

    /// The headroom that this extra carries, in bytes; `None` if it is of another kind, or the
    /// headroom is larger than there can be. Known, not used.
    pub fn xdp_headroom(&self) -> Option<u16> {
        let [low, high, ..] = self.data;
        let headroom = u16::from_le_bytes([low, high]);
        (self.kind == Extra::XDP && headroom <= Extra::MAX_XDP_HEADROOM).then_some(headroom)
    }
}

impl Wire for Extra {
    type Words = [u32; 2];

    #[inline]
    fn to_words(self) -> [u32; 2] {
        let [a, b, c, d, e, f] = self.data;
        [u32::from_le_bytes([self.kind, self.flags, a, b]), u32::from_le_bytes([c, d, e, f])]
    }

    #[inline]
    fn from_words([w0, w1]: [u32; 2]) -> Extra {
        let [kind, flags, a, b] = w0.to_le_bytes();
        let [c, d, e, f] = w1.to_le_bytes();
        Extra { kind, flags, data: [a, b, c, d, e, f] }
    }
}
