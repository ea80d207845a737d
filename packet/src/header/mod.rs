//! Typed headers: one bounds check each, then every field is simply there.
//!
//! A layer is handed an [`At<L, V>`](At): a view `V` that starts at a header `L`. Opening it checks
//! once that the header is there and that its lengths make sense, and gives the header and a view
//! that starts at the next layer. What is behind a layer's end (padding of a short Ethernet frame,
//! for example) and what was in front of it is out of reach.
//!
//! ```text
//!      At<Ethernet, V>      At<Ipv4, V>                 At<Tcp, V>
//!      │                    │                           │
//!      ▼                    ▼                           ▼
//!      | Ethernet        14 | IPv4 20 | options 0..40   | TCP 20 | options | data | padding |
//!      `── open() ──────────┴── open() ─────────────────┴── open() ───────►|      |◄ cut off
//!          (&Ethernet, Network)   (&Ipv4, Transport)        (&Tcp, V)
//! ```
//!
//! The same code reads borrowed bytes (`&[u8]`, headers come as `&Ipv4`), writes in place
//! (`&mut [u8]`, `&mut Ipv4`) and takes buffers apart that are handed on for good ([`Buf`],
//! [`BufMut`], [`AnyPacket`]: headers come as copies, the view moves on): that is what [`Source`] is for.
//!
//! [`Buf`]: crate::buffer::Buf
//! [`BufMut`]: crate::buffer::BufMut
//! [`AnyPacket`]: crate::buffer::AnyPacket
//!
//! ```
//! use packet_views::header::{At, Network, Transport};
//!
//! /// The TCP ports of a frame, source first.
//! fn tcp_ports(frame: &[u8]) -> Option<(u16, u16)> {
//!     let (_, Network::Ipv4(ip)) = At::new(frame).open()? else { return None };
//!     let (_, Transport::Tcp(tcp)) = ip.open()? else { return None };
//!     let (tcp, _) = tcp.open()?;
//!     Some((tcp.source.get(), tcp.destination.get()))
//! }
//! # assert_eq!(tcp_ports(&[0; 60]), None);
//! ```
//!
//! # What it costs
//!
//! Counted by callgrind in a release build (x86-64): the ports of a UDP packet over IPv4 in borrowed
//! bytes take 128 instructions, without a panic, and without a call unless there are extension
//! headers. There is one comparison with the length of the bytes for each header (14, then 34 for
//! both together, then what IP's total length leaves), one for each length that a header claims,
//! and none for a field: each is a load at a constant offset. From a buffer that is
//! taken apart it is two comparisons a header, for the view and for the page behind it.
//!
//! # What the type system refuses
//!
//! A layer that expects IPv4 cannot be given a view that starts at Ethernet:
//!
//! ```compile_fail,E0308
//! # use packet_views::header::{At, Ethernet, Ipv4, Network};
//! fn layer(ip: At<Ipv4, &[u8]>) {}
//! fn handle(frame: At<Ethernet, &[u8]>) {
//!     layer(frame);
//! }
//! ```
//!
//! ```
//! # use packet_views::header::{At, Ethernet, Ipv4, Network};
//! fn layer(ip: At<Ipv4, &[u8]>) {}
//! fn handle(frame: At<Ethernet, &[u8]>) {
//!     if let Some((_, Network::Ipv4(ip))) = frame.open() { layer(ip); }
//! }
//! ```
//!
//! Nor can it be made up from bytes, for only a frame starts where bytes start:
//!
//! ```compile_fail,E0599
//! # use packet_views::header::{At, Ethernet, Ipv4};
//! # let bytes = [0; 60];
//! At::<Ipv4, _>::new(&bytes[..]);
//! ```
//!
//! ```
//! # use packet_views::header::{At, Ethernet, Ipv4};
//! # let bytes = [0; 60];
//! At::<Ethernet, _>::new(&bytes[..]);
//! ```
//!
//! A field is not read before its header has been checked:
//!
//! ```compile_fail,E0609
//! # use packet_views::header::{At, Udp};
//! fn port(udp: At<Udp, &[u8]>) -> Option<u16> {
//!     Some(udp.destination.get())
//! }
//! ```
//!
//! ```
//! # use packet_views::header::{At, Udp};
//! fn port(udp: At<Udp, &[u8]>) -> Option<u16> {
//!     Some(udp.open()?.0.destination.get())
//! }
//! ```
//!
//! And received bytes are not written through a header:
//!
//! ```compile_fail,E0594
//! # use packet_views::header::{At, Ethernet, MacAddr};
//! fn rewrite(frame: At<Ethernet, &[u8]>) -> Option<()> {
//!     frame.open()?.0.destination = MacAddr::BROADCAST;
//!     Some(())
//! }
//! ```
//!
//! ```
//! # use packet_views::header::{At, Ethernet, MacAddr};
//! fn rewrite(frame: At<Ethernet, &mut [u8]>) -> Option<()> {
//!     frame.open()?.0.destination = MacAddr::BROADCAST;
//!     Some(())
//! }
//! ```

mod arp;
pub mod checksum;
mod ethernet;
mod flow;
mod ipv4;
mod ipv6;
mod layout;
mod source;
mod sum;
#[cfg(test)]
mod tests;
mod transport;

use core::marker::PhantomData;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::buffer::{Block, BufMut};

pub use arp::Arp;
pub use ethernet::{
    ETHERNET_HEADER, EtherType, Ethernet, LINK_HEADER, MTUS, MacAddr, Network, VLAN_TAG,
    longest_frame,
};
pub use flow::{flow_hash, packet_flow_hash};
pub use ipv4::Ipv4;
pub use ipv6::Ipv6;
pub use layout::{Extensions, HeaderError, Ip, Layout, Part};
pub use source::{Copied, Narrow, Pieces, Source, ViewMut};
pub(crate) use source::{copy_out, parts};
pub use transport::{Icmp, IpFragment, Protocol, Tcp, Transport, Udp};
pub use zerocopy::network_endian::{U16, U32};

/// A header: plain bytes in network order, at any address.
pub trait Header:
    FromBytes + IntoBytes + Immutable + KnownLayout + Unaligned + Copy + 'static
{
}

impl<H> Header for H where
    H: FromBytes + IntoBytes + Immutable + KnownLayout + Unaligned + Copy + 'static
{
}

/// A view that starts at a header `L`.
#[derive(Clone, Copy)]
pub struct At<L, V> {
    view: V,
    layer: PhantomData<fn() -> L>,
}

impl<V: Source> At<Ethernet, V> {
    /// A frame, as a device hands it up.
    #[inline]
    pub fn new(frame: V) -> At<Ethernet, V> {
        At::claim(frame)
    }
}

impl<L: Header, V: Source> At<L, V> {
    /// Says that a view starts at this layer, where nothing in front of it says so: the packet
    /// that an ICMP error quotes, or a device without Ethernet headers.
    #[inline]
    pub fn claim(view: V) -> At<L, V> {
        At { view, layer: PhantomData }
    }

    /// The header's fixed part, if the bytes are there. Its lengths have not been looked at.
    #[inline]
    pub fn peek(&self) -> Option<&L> {
        Some(L::ref_from_prefix(self.view.head()).ok()?.0)
    }

    /// The view.
    #[inline]
    pub fn into_view(self) -> V {
        self.view
    }

    /// The header's fixed part, and what follows it: the one bounds check.
    #[inline]
    fn take(self) -> Option<(V::Ref<L>, V)> {
        self.view.take()
    }
}

impl<L, V: Source> core::fmt::Debug for At<L, V> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "At({} bytes)", self.view.len())
    }
}

/// Puts a header in front of what `buf` holds; `None`, and nothing happens, without the headroom.
///
/// The header comes as a value, so that no byte of it is left over from an earlier packet.
#[inline]
pub fn push<H: Header, B: Block>(buf: &mut BufMut<B>, header: H) -> Option<&mut H> {
    let place = H::mut_from_bytes(buf.push_front(size_of::<H>())?).ok()?;
    *place = header;
    Some(place)
}
