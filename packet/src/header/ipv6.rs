//! IPv6 (RFC 8200).
//!
//! ```text
//!   0  version 6, traffic class, flow label
//!   4  payload length, without this header | next header | hop limit
//!   8  source
//!  24  destination
//!  40  extension headers, each: next header | length in units of 8 bytes, less one | ...
//! ```

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::layout::Ip;
use super::{At, Protocol, Source, Transport, U16, U32};

/// An IPv6 header.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Ipv6 {
    /// Version 6, traffic class, flow label.
    pub version_class_flow: U32,
    /// Bytes after this header.
    pub payload_len: U16,
    /// What comes next: an extension header, or what it carries.
    pub next_header: Protocol,
    /// Hops it may still take.
    pub hop_limit: u8,
    /// From whom.
    pub source: [u8; 16],
    /// For whom.
    pub destination: [u8; 16],
}

impl Ipv6 {
    /// A header for `payload` bytes; `None` if they are too many for a packet.
    pub fn new(
        next_header: Protocol,
        source: [u8; 16],
        destination: [u8; 16],
        payload: usize,
    ) -> Option<Ipv6> {
        Some(Ipv6 {
            version_class_flow: U32::new(6 << 28),
            payload_len: U16::new(u16::try_from(payload).ok()?),
            next_header,
            hop_limit: 64,
            source,
            destination,
        })
    }
}

impl<V: Source> At<Ipv6, V> {
    /// The header, and what it carries, extension headers skipped and padding cut off; `None` if
    /// the version or a length is wrong, or there are more than 8 extension headers.
    ///
    /// A routing header that has segments left counts as what is carried: the packet's
    /// destination is not its last.
    #[inline]
    pub fn open(self) -> Option<(V::Ref<Ipv6>, Transport<V>)> {
        let ip = Ip::v6(&self.view, 0, self.view.len()).ok()?;
        Transport::behind(self, ip)
    }
}
