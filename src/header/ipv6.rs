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

use super::{At, Fragment, Protocol, Source, Transport, U16, U32};

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

/// Extension headers that we go past. More of them are a trick.
const MAX_EXTENSIONS: usize = 8;

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
        let (header, rest) = self.take()?;
        let payload = usize::from(header.payload_len.get());
        if header.version_class_flow.get() >> 28 != 6 || payload > rest.len() {
            return None;
        }
        let transport = skip_extensions(header.next_header, rest.keep(payload))?;
        Some((header, transport))
    }
}

fn skip_extensions<V: Source>(mut next: Protocol, mut rest: V) -> Option<Transport<V>> {
    for _ in 0..=MAX_EXTENSIONS {
        match next {
            Protocol::HOP_BY_HOP | Protocol::DESTINATION_OPTIONS => {}
            Protocol::ROUTING => {
                let (extension, _) = Extension::ref_from_prefix(rest.head()).ok()?;
                if extension.fragment.get() & 0xff != 0 {
                    return Some(Transport::Other(next, rest));
                }
            }
            Protocol::FRAGMENT => {
                let (extension, after) = rest.take::<Extension>()?;
                let place = extension.fragment.get();
                if place & !6 != 0 {
                    return Some(Transport::Fragment(Fragment {
                        protocol: extension.next,
                        offset: usize::from(place & !7),
                        more: place & 1 != 0,
                        id: extension.id.get(),
                        view: after,
                    }));
                }
                // A packet that has the header and is whole all the same (RFC 6946).
                (next, rest) = (extension.next, after);
                continue;
            }
            _ => return Some(Transport::of(next, rest)),
        }
        let (extension, after) = rest.take::<Extension>()?;
        next = extension.next;
        rest = after.skip(usize::from(extension.len) * 8)?;
    }
    None
}
