//! Where things are in a packet: the one reader of headers.
//!
//! ```text
//!  0          14      network                         transport            end
//!  | Ethernet | tags  | IPv4 + options                | TCP, UDP, ...      | padding |
//!             | 0..8  | or IPv6 + extension headers   |                    |
//! ```
//!
//! It reads any fragments, cut between any two bytes, and walks past what stands in front of the
//! transport header:
//!
//! | | |
//! |---|---|
//! | tags | IEEE 802.1Q and 802.1ad, eight at most |
//! | IPv4 | options (RFC 791), an authentication header (RFC 4302) |
//! | IPv6 | hop-by-hop and destination options, routing, fragment (RFC 8200), authentication, mobility (RFC 6275), HIP (RFC 7401), shim6 (RFC 5533), eight at most |
//!
//! What it can't know it says: [`HeaderError`] where a header is cut short or a length wrong, a
//! [`Part`] where the packet is a fragment, [`Ip::is_under_way`] where another address than that
//! in the header is the packet's last.

use core::mem::offset_of;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::checksum::Sum;
use super::{ETHERNET_HEADER, EtherType, Ethernet, Ipv4, Ipv6, Pieces, Protocol, Tcp, U16, U32};
use crate::buffer::{AnyPacket, View};

/// Tags that are gone past. Linux goes past as many.
const MAX_TAGS: usize = 8;
/// Extension headers that are gone past. More of them are a trick.
const MAX_EXTENSIONS: usize = 8;

/// Why nobody can tell where things are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HeaderError {
    /// The packet ends within a header.
    Short,
    /// A version or a length makes no sense: it is less than its header takes, or more than there
    /// is.
    BadLength,
    /// More than eight tags.
    Tags,
    /// More than eight extension headers.
    Extensions,
}

impl core::fmt::Display for HeaderError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            HeaderError::Short => "the packet ends within a header",
            HeaderError::BadLength => "a version or a length in a header makes no sense",
            HeaderError::Tags => "too many VLAN tags",
            HeaderError::Extensions => "too many extension headers",
        })
    }
}

impl core::error::Error for HeaderError {}

/// Where things are in a frame. Offsets count from its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Layout {
    /// How many tags there are.
    pub tags: usize,
    /// What is behind them.
    pub kind: EtherType,
    /// Where that starts.
    pub network: usize,
    /// What IP says, if that is what it is.
    pub ip: Option<Ip>,
}

/// Where things are in an IP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ip {
    /// Whether it is IPv4; else IPv6.
    pub v4: bool,
    /// What it carries, behind options and extension headers.
    pub protocol: Protocol,
    /// Where that starts.
    pub transport: usize,
    /// Where the packet ends: what follows is padding.
    pub end: usize,
    /// If it is not a whole packet, which part of one.
    pub part: Option<Part>,
    /// Which extension headers were gone past.
    pub extensions: Extensions,
    /// The first routing header that has segments left.
    pub(super) routing: Option<usize>,
}

/// A fragment of an IP packet: only the first has the transport header, and that may be cut short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Part {
    /// Bytes in front of this fragment's.
    pub offset: usize,
    /// Whether more follow.
    pub more: bool,
    /// Fragments of one packet have the same, as source and destination.
    pub id: u32,
    /// What its bytes are, for the first fragment.
    pub protocol: Protocol,
    /// Where its bytes start.
    pub start: usize,
}

/// A set of kinds of extension headers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extensions(u8);

impl Extensions {
    /// Mobility, host identity, shim6.
    pub const OTHER: Extensions = Extensions(1);
    /// Hop-by-hop options.
    pub const HOP_BY_HOP: Extensions = Extensions(2);
    /// Destination options.
    pub const DESTINATION_OPTIONS: Extensions = Extensions(4);
    /// Routing.
    pub const ROUTING: Extensions = Extensions(8);
    /// Fragment: of a packet that is whole all the same too (RFC 6946).
    pub const FRAGMENT: Extensions = Extensions(16);
    /// Authentication: what it covers, nobody can change.
    pub const AUTHENTICATION: Extensions = Extensions(32);

    /// Whether any of these is there.
    #[inline]
    pub fn has(self, kinds: Extensions) -> bool {
        self.0 & kinds.0 != 0
    }

    /// Whether none but these is there.
    #[inline]
    pub fn within(self, kinds: Extensions) -> bool {
        self.0 & !kinds.0 == 0
    }

    /// These and those.
    #[must_use]
    pub const fn and(self, kinds: Extensions) -> Extensions {
        Extensions(self.0 | kinds.0)
    }

    #[inline]
    fn of(header: Protocol, v4: bool) -> Option<Extensions> {
        Some(match header {
            Protocol::AUTHENTICATION => Extensions::AUTHENTICATION,
            _ if v4 => return None,
            Protocol::HOP_BY_HOP => Extensions::HOP_BY_HOP,
            Protocol::DESTINATION_OPTIONS => Extensions::DESTINATION_OPTIONS,
            Protocol::ROUTING => Extensions::ROUTING,
            Protocol::FRAGMENT => Extensions::FRAGMENT,
            Protocol::MOBILITY | Protocol::HIP | Protocol::SHIM6 => Extensions::OTHER,
            _ => return None,
        })
    }
}

/// A VLAN tag behind its own type: priority and number, then what follows.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Tag {
    control: U16,
    kind: EtherType,
}

/// An extension header's first 8 bytes; the shortest has no more. A fragment header has exactly
/// these, and no length.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Extension {
    next: Protocol,
    len: u8,
    /// Fragment: offset in units of 8 bytes, two bits, more. Routing: its type, segments left.
    fragment: U16,
    id: U32,
}

impl Layout {
    /// Reads the headers of a frame.
    #[inline]
    pub fn of<V: View>(packet: &AnyPacket<V>) -> Result<Layout, HeaderError> {
        Layout::at_start(packet.fragments(), packet.len())
    }

    /// Reads the headers of a frame of `len` bytes that begins with these.
    #[inline]
    pub fn at_start<P: Pieces + ?Sized>(bytes: &P, len: usize) -> Result<Layout, HeaderError> {
        let ethernet: Ethernet = bytes.read(0).ok_or(HeaderError::Short)?;
        let (mut kind, mut network, mut tags) = (ethernet.kind, ETHERNET_HEADER, 0);
        while kind.is_tag() {
            if tags == MAX_TAGS {
                return Err(HeaderError::Tags);
            }
            let tag: Tag = bytes.read(network).ok_or(HeaderError::Short)?;
            kind = tag.kind;
            network += size_of::<Tag>();
            tags += 1;
        }
        // One comparison each: a pattern would be one a byte.
        let ip = match kind {
            kind if kind == EtherType::IPV4 => Some(Ip::v4(bytes, network, len)?),
            kind if kind == EtherType::IPV6 => Some(Ip::v6(bytes, network, len)?),
            _ => None,
        };
        Ok(Layout { tags, kind, network, ip })
    }

    /// Source and destination of IP, IPv4's padded with zeros; `None` if it is not IP.
    #[inline]
    pub fn addresses<P: Pieces + ?Sized>(&self, bytes: &P) -> Option<[[u8; 16]; 2]> {
        if self.ip?.v4 {
            let ends: [[u8; 4]; 2] = bytes.read(self.network + offset_of!(Ipv4, source))?;
            Some(ends.map(|[a, b, c, d]| [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]))
        } else {
            bytes.read(self.network + offset_of!(Ipv6, source))
        }
    }

    /// The sum of the pseudo-header for `len` bytes from the transport header on; `None` if it is
    /// not IP, or [under way](Ip::is_under_way).
    #[inline]
    pub fn pseudo<P: Pieces + ?Sized>(&self, bytes: &P, len: usize) -> Option<Sum> {
        let ip = self.ip.filter(|ip| !ip.is_under_way())?;
        // Over IPv4 it has the same words, but for zeros.
        let [source, destination] = self.addresses(bytes)?;
        let len = u16::try_from(len).ok()?;
        Some(Sum::pseudo_v6(source, destination, ip.protocol.0, len.into()))
    }
}

impl Ip {
    /// Reads the headers of an IPv4 packet at an offset in `len` bytes.
    #[inline]
    pub(super) fn v4<P: Pieces + ?Sized>(
        bytes: &P,
        at: usize,
        len: usize,
    ) -> Result<Ip, HeaderError> {
        let header: Ipv4 = bytes.read(at).ok_or(HeaderError::Short)?;
        let available = len.checked_sub(at).ok_or(HeaderError::Short)?;
        let (options, total) = header.lengths(available).ok_or(HeaderError::BadLength)?;
        let start = at + size_of::<Ipv4>() + options;
        let mut ip = Ip::new(true, header.protocol, start, at + total);
        ip.part = header.is_fragment().then(|| Part {
            offset: header.fragment_offset(),
            more: header.more_fragments(),
            id: header.id.get().into(),
            protocol: header.protocol,
            start,
        });
        ip.skip_extensions(bytes)
    }

    /// The same for IPv6.
    #[inline]
    pub(super) fn v6<P: Pieces + ?Sized>(
        bytes: &P,
        at: usize,
        len: usize,
    ) -> Result<Ip, HeaderError> {
        let header: Ipv6 = bytes.read(at).ok_or(HeaderError::Short)?;
        let start = at + size_of::<Ipv6>();
        let available = len.checked_sub(start).ok_or(HeaderError::Short)?;
        let payload = usize::from(header.payload_len.get());
        if header.version_class_flow.get() >> 28 != 6 || payload > available {
            return Err(HeaderError::BadLength);
        }
        Ip::new(false, header.next_header, start, start + payload).skip_extensions(bytes)
    }

    #[inline]
    fn new(v4: bool, protocol: Protocol, transport: usize, end: usize) -> Ip {
        let extensions = Extensions::default();
        Ip { v4, protocol, transport, end, part: None, extensions, routing: None }
    }

    /// Goes past the extension headers that start at `transport`: all of them, or those of a
    /// fragment that is not the first, which has none.
    #[inline]
    fn skip_extensions<P: Pieces + ?Sized>(mut self, bytes: &P) -> Result<Ip, HeaderError> {
        for _ in 0..=MAX_EXTENSIONS {
            if self.part.is_some_and(|part| part.offset > 0) {
                return Ok(self);
            }
            match Extensions::of(self.protocol, self.v4) {
                None => return Ok(self),
                Some(kind) => self.skip_extension(bytes, kind)?,
            }
        }
        Err(HeaderError::Extensions)
    }

    #[cold]
    fn skip_extension<P: Pieces + ?Sized>(
        &mut self,
        bytes: &P,
        kind: Extensions,
    ) -> Result<(), HeaderError> {
        let Extension { next, len, fragment, id } =
            bytes.read(self.transport).ok_or(HeaderError::Short)?;
        let (place, len) = (fragment.get(), usize::from(len));
        let start = self.transport;
        self.transport += match kind {
            Extensions::AUTHENTICATION => (len + 2) * 4,
            Extensions::FRAGMENT => size_of::<Extension>(),
            _ => (len + 1) * 8,
        };
        if self.transport > self.end {
            return Err(HeaderError::Short);
        }
        if kind == Extensions::ROUTING && place & 0xff != 0 {
            self.routing = self.routing.or(Some(start));
        }
        // A packet may have the header and be whole all the same (RFC 6946).
        if kind == Extensions::FRAGMENT && place & !6 != 0 && self.part.is_none() {
            self.part = Some(Part {
                offset: usize::from(place & !7),
                more: place & 1 != 0,
                id: id.get(),
                protocol: next,
                start: self.transport,
            });
        }
        self.extensions = self.extensions.and(kind);
        self.protocol = next;
        Ok(())
    }

    /// Whether a routing header has segments left: the destination in IPv6's header is not the
    /// last one, so nobody can tell the sum of the pseudo-header.
    #[inline]
    pub fn is_under_way(&self) -> bool {
        self.routing.is_some()
    }

    /// Bytes from the transport header on.
    #[inline]
    pub fn len(&self) -> usize {
        self.end - self.transport
    }

    /// Whether it carries nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The TCP header of a packet that carries one, where its length makes sense.
    #[inline]
    pub(crate) fn tcp<P: Pieces + ?Sized>(&self, bytes: &P) -> Result<Tcp, HeaderError> {
        let tcp: Tcp = bytes.read(self.transport).ok_or(HeaderError::Short)?;
        let fits = (size_of::<Tcp>()..=self.len()).contains(&tcp.header_len());
        if fits { Ok(tcp) } else { Err(HeaderError::BadLength) }
    }

    /// The ports of TCP or UDP, source first; `None` if it carries something else or another
    /// fragment has them.
    #[inline]
    pub fn ports<P: Pieces + ?Sized>(&self, bytes: &P) -> Option<[u8; 4]> {
        let has = matches!(self.protocol, Protocol::TCP | Protocol::UDP)
            && self.part.is_none_or(|part| part.offset == 0)
            && self.len() >= 4;
        if has { bytes.read(self.transport) } else { None }
    }
}
