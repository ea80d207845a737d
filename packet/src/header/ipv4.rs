//! IPv4 (RFC 791).
//!
//! ```text
//!   0  version 4, header words 5..15 | TOS | total length, header included
//!   4  identification                | flags, fragment offset in units of 8 bytes
//!   8  time to live | protocol       | header checksum
//!  12  source
//!  16  destination
//!  20  options, 0 to 40 bytes
//! ```

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::layout::Ip;
use super::sum::Sum;
use super::{At, Protocol, Source, Transport, U16};

/// An IPv4 header without its options.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Ipv4 {
    /// Version, and length of the header in words of 4 bytes.
    pub version_ihl: u8,
    /// Differentiated services and congestion bits.
    pub tos: u8,
    /// Bytes of the packet from this header on.
    pub total_len: U16,
    /// Fragments of one packet share it.
    pub id: U16,
    /// [`Ipv4::DONT_FRAGMENT`], [`Ipv4::MORE_FRAGMENTS`], and the offset.
    pub flags_fragment: U16,
    /// Hops it may still take.
    pub ttl: u8,
    /// What it carries.
    pub protocol: Protocol,
    /// Over this header and its options.
    pub checksum: U16,
    /// From whom.
    pub source: [u8; 4],
    /// For whom.
    pub destination: [u8; 4],
}

const LEN: usize = size_of::<Ipv4>();

impl Ipv4 {
    /// Routers may not cut it.
    pub const DONT_FRAGMENT: u16 = 0x4000;
    /// It goes on in another packet.
    pub const MORE_FRAGMENTS: u16 = 0x2000;

    /// A header for `payload` bytes, with its checksum; `None` if they are too many for a packet.
    pub fn new(
        protocol: Protocol,
        source: [u8; 4],
        destination: [u8; 4],
        payload: usize,
    ) -> Option<Ipv4> {
        let total = u16::try_from(payload.checked_add(LEN)?).ok()?;
        let mut header = Ipv4 {
            version_ihl: 0x45,
            tos: 0,
            total_len: U16::new(total),
            id: U16::ZERO,
            flags_fragment: U16::new(Ipv4::DONT_FRAGMENT),
            ttl: 64,
            protocol,
            checksum: U16::ZERO,
            source,
            destination,
        };
        header.checksum = U16::new(Sum::of(header.as_bytes()).checksum());
        Some(header)
    }

    /// Bytes of the header with its options: 0 to 60, and at least 20 in one that was opened.
    #[inline]
    pub fn header_len(&self) -> usize {
        usize::from(self.version_ihl & 15) * 4
    }

    /// Whether it is not a whole packet.
    #[inline]
    pub fn is_fragment(&self) -> bool {
        self.flags_fragment.get() & !Ipv4::DONT_FRAGMENT & 0x7fff != 0
    }

    /// Bytes of the packet in front of this fragment's.
    #[inline]
    pub fn fragment_offset(&self) -> usize {
        usize::from(self.flags_fragment.get() & 0x1fff) * 8
    }

    /// Whether more fragments follow.
    #[inline]
    pub fn more_fragments(&self) -> bool {
        self.flags_fragment.get() & Ipv4::MORE_FRAGMENTS != 0
    }

    /// Bytes of the options, and of the whole packet, where `available` bytes are there. What is
    /// returned is at least 0 and [`LEN`].
    #[inline]
    pub(super) fn lengths(&self, available: usize) -> Option<(usize, usize)> {
        let (header, total) = (self.header_len(), usize::from(self.total_len.get()));
        let options = header.checked_sub(LEN)?;
        (self.version_ihl >> 4 == 4 && header <= total && total <= available)
            .then_some((options, total))
    }
}

impl<V: Source> At<Ipv4, V> {
    /// The header, and what it carries, options skipped and padding cut off; `None` if the
    /// version or a length is wrong. The header's checksum has not been looked at, see
    /// [`checksum_is_right`](At::checksum_is_right).
    #[inline]
    pub fn open(self) -> Option<(V::Ref<Ipv4>, Transport<V>)> {
        let ip = Ip::v4(&self.view, 0, self.view.len()).ok()?;
        Transport::behind(self, ip)
    }

    /// The options, 0 to 40 bytes; `None` where [`open`](At::open) gives `None`.
    #[inline]
    pub fn options(&self) -> Option<&[u8]> {
        let (header, rest) = Ipv4::ref_from_prefix(self.view.head()).ok()?;
        let (options, _) = header.lengths(self.view.len())?;
        rest.get(..options)
    }

    /// Whether the header's own checksum is right, options included.
    pub fn checksum_is_right(&self) -> bool {
        let head = self.view.head();
        let header = self.peek().and_then(|header| head.get(..header.header_len()));
        header.is_some_and(|bytes| bytes.len() >= LEN && Sum::of(bytes).is_right())
    }
}
