//! What IP carries: TCP (RFC 9293), UDP (RFC 768), ICMP (RFC 792, RFC 4443).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::layout::{Ip, Part};
use super::{At, Header, Source, U16, U32};

/// What an IP packet carries (Protocol Numbers, IANA).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(transparent)]
pub struct Protocol(pub u8);

impl Protocol {
    /// IPv6 hop-by-hop options.
    pub const HOP_BY_HOP: Protocol = Protocol(0);
    /// ICMP of IPv4.
    pub const ICMP: Protocol = Protocol(1);
    /// TCP
    pub const TCP: Protocol = Protocol(6);
    /// UDP
    pub const UDP: Protocol = Protocol(17);
    /// IPv6 routing header.
    pub const ROUTING: Protocol = Protocol(43);
    /// IPv6 fragment header.
    pub const FRAGMENT: Protocol = Protocol(44);
    /// Authentication header (RFC 4302).
    pub const AUTHENTICATION: Protocol = Protocol(51);
    /// ICMP of IPv6.
    pub const ICMPV6: Protocol = Protocol(58);
    /// IPv6 destination options.
    pub const DESTINATION_OPTIONS: Protocol = Protocol(60);
    /// IPv6 mobility header (RFC 6275).
    pub const MOBILITY: Protocol = Protocol(135);
    /// Host identity (RFC 7401), in front of what it says comes next.
    pub const HIP: Protocol = Protocol(139);
    /// Several ways to one host (RFC 5533).
    pub const SHIM6: Protocol = Protocol(140);
}

/// What an IP packet carries, each a view that starts there.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub enum Transport<V> {
    /// TCP
    Tcp(At<Tcp, V>),
    /// UDP
    Udp(At<Udp, V>),
    /// ICMP of IPv4
    Icmp(At<Icmp, V>),
    /// ICMP of IPv6
    Icmpv6(At<Icmp, V>),
    /// A fragment of an IP packet: what it carries is not whole, and only the first has the
    /// header.
    Fragment(IpFragment<V>),
    /// Something else.
    Other(Protocol, V),
}

impl<V: Source> Transport<V> {
    /// Takes an IP header off a view that starts there, and everything else in front of what the
    /// packet carries.
    #[inline]
    pub(super) fn behind<L: Header>(packet: At<L, V>, ip: Ip) -> Option<(V::Ref<L>, Transport<V>)> {
        let (header, rest) = packet.take()?;
        let rest = rest.keep(ip.end - size_of::<L>());
        let start = ip.routing.or(ip.part.map(|part| part.start)).unwrap_or(ip.transport);
        let view = rest.skip(start - size_of::<L>())?;
        let transport = match (ip.routing, ip.part) {
            (Some(_), _) => Transport::Other(Protocol::ROUTING, view),
            (None, Some(Part { protocol, offset, more, id, .. })) => {
                Transport::Fragment(IpFragment { protocol, offset, more, id, view })
            }
            (None, None) => Transport::of(ip.protocol, view),
        };
        Some((header, transport))
    }

    #[inline]
    fn of(protocol: Protocol, view: V) -> Transport<V> {
        match protocol {
            Protocol::TCP => Transport::Tcp(At::claim(view)),
            Protocol::UDP => Transport::Udp(At::claim(view)),
            Protocol::ICMP => Transport::Icmp(At::claim(view)),
            Protocol::ICMPV6 => Transport::Icmpv6(At::claim(view)),
            other => Transport::Other(other, view),
        }
    }
}

/// A fragment of an IP packet.
#[derive(Clone, Copy)]
pub struct IpFragment<V> {
    /// What the packet carries.
    pub protocol: Protocol,
    /// Bytes in front of this fragment's.
    pub offset: usize,
    /// Whether more follow.
    pub more: bool,
    /// Fragments of one packet have the same, as source and destination.
    pub id: u32,
    /// Its bytes.
    pub view: V,
}

impl<V: Source> IpFragment<V> {
    /// What the packet carries, if this is its first fragment. It is cut short: ports can be read
    /// with [`peek`](At::peek), lengths and checksums do not fit.
    pub fn first(self) -> Option<Transport<V>> {
        (self.offset == 0).then(|| Transport::of(self.protocol, self.view))
    }
}

/// A TCP header without its options.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Tcp {
    /// From which port.
    pub source: U16,
    /// For which port.
    pub destination: U16,
    /// Number of the first data byte.
    pub sequence: U32,
    /// Number of the next byte expected.
    pub acknowledgment: U32,
    /// Length of the header in words of 4 bytes, in the upper four bits.
    pub data_offset: u8,
    /// [`Tcp::SYN`] and so on.
    pub flags: u8,
    /// Bytes that the sender would take.
    pub window: U16,
    /// Over pseudo-header, header and data.
    pub checksum: U16,
    /// End of urgent data.
    pub urgent: U16,
}

impl Tcp {
    /// No more data.
    pub const FIN: u8 = 1;
    /// Connection request.
    pub const SYN: u8 = 2;
    /// Connection reset.
    pub const RST: u8 = 4;
    /// Hand the data up.
    pub const PSH: u8 = 8;
    /// The acknowledgment counts.
    pub const ACK: u8 = 16;
    /// The urgent pointer counts.
    pub const URG: u8 = 32;
    /// Congestion window reduced (RFC 3168): said once.
    pub const CWR: u8 = 128;

    /// Bytes of the header with its options: 0 to 60, and at least 20 in one that was opened.
    #[inline]
    pub fn header_len(&self) -> usize {
        usize::from(self.data_offset >> 4) * 4
    }

    /// Bytes of the options, if the length makes sense.
    #[inline]
    fn options_len(&self) -> Option<usize> {
        self.header_len().checked_sub(size_of::<Tcp>())
    }
}

impl<V: Source> At<Tcp, V> {
    /// The header and the data, options skipped; `None` if its length is wrong. The checksum has
    /// not been looked at.
    #[inline]
    pub fn open(self) -> Option<(V::Ref<Tcp>, V)> {
        let (header, rest) = self.take()?;
        let options = header.options_len()?;
        Some((header, rest.skip(options)?))
    }

    /// The options, 0 to 40 bytes; `None` where [`open`](At::open) gives `None`.
    #[inline]
    pub fn options(&self) -> Option<&[u8]> {
        let (header, rest) = Tcp::ref_from_prefix(self.view.head()).ok()?;
        rest.get(..header.options_len()?)
    }
}

/// A UDP header.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Udp {
    /// From which port.
    pub source: U16,
    /// For which port.
    pub destination: U16,
    /// Bytes, this header included.
    pub len: U16,
    /// Over pseudo-header, header and data; 0 over IPv4 if there is none.
    pub checksum: U16,
}

impl Udp {
    /// A header for `payload` bytes, without checksum; `None` if they are too many.
    pub fn new(source: u16, destination: u16, payload: usize) -> Option<Udp> {
        Some(Udp {
            source: U16::new(source),
            destination: U16::new(destination),
            len: U16::new(u16::try_from(payload.checked_add(size_of::<Udp>())?).ok()?),
            checksum: U16::ZERO,
        })
    }
}

impl<V: Source> At<Udp, V> {
    /// The header and the data; `None` if its length is wrong. The checksum has not been looked
    /// at.
    #[inline]
    pub fn open(self) -> Option<(V::Ref<Udp>, V)> {
        let (header, rest) = self.take()?;
        let data = usize::from(header.len.get()).checked_sub(size_of::<Udp>())?;
        if data > rest.len() {
            return None;
        }
        Some((header, rest.keep(data)))
    }
}

/// An ICMP header, as that of an echo has it; other messages use the last four bytes otherwise.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Icmp {
    /// The message: [`Icmp::ECHO`] and so on.
    pub kind: u8,
    /// More of it.
    pub code: u8,
    /// Over header and data, with IPv6 over a pseudo-header too.
    pub checksum: U16,
    /// Who pings.
    pub id: U16,
    /// How often.
    pub sequence: U16,
}

impl Icmp {
    /// Echo request, IPv4.
    pub const ECHO: u8 = 8;
    /// Echo reply, IPv4.
    pub const ECHO_REPLY: u8 = 0;
    /// Echo request, IPv6.
    pub const ECHO_V6: u8 = 128;
    /// Echo reply, IPv6.
    pub const ECHO_REPLY_V6: u8 = 129;
}

impl<V: Source> At<Icmp, V> {
    /// The header and the data. The checksum has not been looked at.
    #[inline]
    pub fn open(self) -> Option<(V::Ref<Icmp>, V)> {
        self.take()
    }
}

impl<V: Source> core::fmt::Debug for Transport<V> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Transport::Tcp(at) => f.debug_tuple("Tcp").field(at).finish(),
            Transport::Udp(at) => f.debug_tuple("Udp").field(at).finish(),
            Transport::Icmp(at) => f.debug_tuple("Icmp").field(at).finish(),
            Transport::Icmpv6(at) => f.debug_tuple("Icmpv6").field(at).finish(),
            Transport::Fragment(fragment) => fragment.fmt(f),
            Transport::Other(protocol, view) => {
                write!(f, "Other({protocol:?}, {} bytes)", view.len())
            }
        }
    }
}

impl<V: Source> core::fmt::Debug for IpFragment<V> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("IpFragment")
            .field("protocol", &self.protocol)
            .field("offset", &self.offset)
            .field("more", &self.more)
            .field("id", &self.id)
            .field("bytes", &self.view.len())
            .finish()
    }
}
