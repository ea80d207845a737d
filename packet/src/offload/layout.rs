//! Where the headers of a TCP packet are, and how they are written for another amount of data.
//!
//! ```text
//!  0          14     ip               tcp                  payload           end
//!  | Ethernet | tags | IPv4 + options | TCP  +  options    | data            | padding |
//!                    | or IPv6 + extension headers         |
//! ```

use zerocopy::{FromBytes, IntoBytes};

use crate::buffer::GsoKind;
use crate::buffer::{AnyPacket, Checksum, View};
use crate::header::checksum::{Sum, plus};
use crate::header::{self, Extensions, HeaderError, Ipv4, Ipv6, Pieces, Protocol, Tcp};

/// The most that all headers together may take: room for every header there is, and for several
/// IPv6 extension headers.
pub(super) const MAX_HEADERS: usize = 512;

/// Why a packet can't be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GsoError {
    /// It carries no GSO size.
    NotGso,
    /// Its headers are cut short, or a length in them is wrong.
    BadLength,
    /// Its headers are more than eight tags, eight extension headers or 512 bytes.
    Headers,
    /// It is not TCP, or not over the version of IP that its GSO kind says.
    NotTcp,
    /// An authentication header covers it (RFC 4302): no segment could be authentic.
    Authenticated,
    /// A routing header has segments left, so nobody can tell the sum of the pseudo-header, and
    /// the checksum is not blank, so it is not there either.
    UnderWay,
    /// It is a fragment of an IP packet.
    IpFragment,
    /// SYN or RST is set, which mean one segment and can't be in several.
    Flags,
    /// Its GSO size would make more than [`MAX_SEGMENTS`](super::MAX_SEGMENTS) of it.
    TooMany,
}

impl core::fmt::Display for GsoError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            GsoError::NotGso => "the packet carries no GSO size",
            GsoError::BadLength => "headers are cut short or a length is wrong",
            GsoError::Headers => "there are too many headers in front of TCP",
            GsoError::NotTcp => "not TCP over the IP version that the GSO kind says",
            GsoError::Authenticated => "an authentication header covers the packet",
            GsoError::UnderWay => {
                "a routing header has segments left, and the checksum is not blank"
            }
            GsoError::IpFragment => "a fragment of an IP packet",
            GsoError::Flags => "SYN or RST can't be in several segments",
            GsoError::TooMany => "the GSO size makes too many segments",
        })
    }
}

impl core::error::Error for GsoError {}

impl From<HeaderError> for GsoError {
    fn from(unclear: HeaderError) -> GsoError {
        match unclear {
            HeaderError::Short | HeaderError::BadLength => GsoError::BadLength,
            HeaderError::Tags | HeaderError::Extensions => GsoError::Headers,
        }
    }
}

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
    pub(super) extensions: Extensions,
    /// The sum of the pseudo-header without its length; `None` if nobody can tell.
    pseudo: Option<u16>,
}

impl Layout {
    /// Reads the headers of a packet of `len` bytes that begins with these. `payload` and `end` lie
    /// within the packet.
    #[inline]
    pub(super) fn of<P: Pieces + ?Sized>(
        bytes: &P,
        len: usize,
        checksum: Checksum,
    ) -> Result<Layout, GsoError> {
        let layout = header::Layout::at_start(bytes, len)?;
        let ip = layout.ip.ok_or(GsoError::NotTcp)?;
        if ip.part.is_some() {
            return Err(GsoError::IpFragment);
        }
        if ip.protocol != Protocol::TCP {
            return Err(GsoError::NotTcp);
        }
        let tcp = ip.tcp(bytes)?;
        let pseudo = match layout.pseudo(bytes, 0) {
            Some(sum) => Some(sum.value()),
            // What is in its place has the length in it.
            None if checksum == Checksum::Blank => {
                let len = u16::try_from(ip.len()).map_err(|_| GsoError::BadLength)?;
                Some(plus(tcp.checksum.get(), !len))
            }
            None => None,
        };
        Ok(Layout {
            kind: if ip.v4 { GsoKind::TcpV4 } else { GsoKind::TcpV6 },
            ip: layout.network,
            tcp: ip.transport,
            payload: ip.transport + tcp.header_len(),
            end: ip.end,
            flags: tcp.flags,
            extensions: ip.extensions,
            pseudo,
        })
    }

    /// As [`of`](Layout::of), for a whole packet.
    pub(super) fn of_packet<V: View>(packet: &AnyPacket<V>) -> Result<Layout, GsoError> {
        Layout::of(packet.fragments(), packet.len(), packet.meta.checksum)
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

    /// The sum of the pseudo-header with `data` bytes of data: what a blank checksum is.
    #[inline]
    pub(super) fn blank(&self, data: usize) -> Result<u16, GsoError> {
        let len = self.payload - self.tcp + data;
        let len = u16::try_from(len).map_err(|_| GsoError::BadLength)?;
        Ok(plus(self.pseudo.ok_or(GsoError::UnderWay)?, len))
    }

    /// Makes headers fit `data` bytes of data: IP's length and its checksum, and a blank TCP
    /// checksum, which is returned. `None` if a packet can't be that long.
    #[inline]
    pub(super) fn seal(&self, headers: &mut [u8], data: usize) -> Option<u16> {
        let blank = self.blank(data).ok()?;
        let network = headers.get_mut(self.ip..self.tcp)?;
        let total = self.payload - self.ip + data;
        match self.kind {
            GsoKind::TcpV4 => {
                // What is authenticated is not cut, and nothing else stands behind the options.
                let (ip, options) = Ipv4::mut_from_prefix(network).ok()?;
                ip.total_len.set(u16::try_from(total).ok()?);
                ip.checksum.set(0);
                let mut sum = Sum::of(ip.as_bytes());
                sum.add(options);
                ip.checksum.set(sum.checksum());
            }
            GsoKind::TcpV6 => {
                let len = u16::try_from(total - size_of::<Ipv6>()).ok()?;
                Ipv6::mut_from_prefix(network).ok()?.0.payload_len.set(len);
            }
        }
        self.tcp(headers)?.checksum.set(blank);
        Some(blank)
    }
}
