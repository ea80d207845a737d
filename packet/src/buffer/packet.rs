//! A packet: fragments, and what is known about them.

use core::num::NonZeroU16;

use arrayvec::ArrayVec;

use crate::header::{ETHERNET_HEADER, VLAN_TAG};

use super::{Block, Buf, BufMut, SharedBlock, View};

/// The most fragments of a packet: as many pages as 64 KB need that begin anywhere in the first, and one
/// for headers of their own. A device may take fewer, and says so
/// ([`Capabilities::max_fragments`](crate::features::Capabilities)).
pub const MAX_FRAGMENTS: usize = 18;

/// The largest packet that is sent in one piece, Ethernet header included: its length has 16 bits.
pub const MAX_PACKET: usize = 0xffff;

/// The largest packet that is received: an IP packet of 65,535 bytes (RFC 791), as Linux's GRO makes
/// them, in Ethernet with two tags. Passed on, one that is larger than [`MAX_PACKET`] is cut.
pub const MAX_FRAME: usize = 0xffff + ETHERNET_HEADER + 2 * VLAN_TAG;

/// What is known of a packet's transport checksum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Checksum {
    /// It may be anything: verify it.
    #[default]
    Unknown,
    /// It is in its place and right; somebody trusted has verified it or made it.
    Complete,
    /// The field holds the sum of the pseudo-header, uncomplemented. Whoever puts the packet on a
    /// wire fills it in; the data is known to be good.
    Blank,
}

/// Which protocol's segments a GSO packet is to be cut into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GsoKind {
    /// TCP over IPv4.
    TcpV4,
    /// TCP over IPv6.
    TcpV6,
}

/// Generic segmentation offload: a packet larger than the MTU, and how to cut it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gso {
    /// Payload bytes of a segment. Never 0.
    pub size: NonZeroU16,
    /// What it is cut into.
    pub kind: GsoKind,
}

/// What travels with a packet besides its bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// The state of the transport checksum.
    pub checksum: Checksum,
    /// How to cut the packet, if it is larger than the MTU.
    pub gso: Option<Gso>,
}

/// A packet of up to 18 fragments, in order, Ethernet header first.
pub struct AnyPacket<V> {
    fragments: ArrayVec<V, MAX_FRAGMENTS>,
    /// What is known about it.
    pub meta: Meta,
}

impl<V> AnyPacket<V> {
    /// A packet without fragments.
    #[inline]
    pub fn new() -> AnyPacket<V> {
        AnyPacket { fragments: ArrayVec::new_const(), meta: Meta::default() }
    }

    /// Adds a fragment at the end; gives it back if there are 18 already.
    #[inline]
    pub fn push(&mut self, fragment: V) -> Result<(), V> {
        self.fragments.try_push(fragment).map_err(|full| full.element())
    }

    /// The fragments.
    #[inline]
    pub fn fragments(&self) -> &[V] {
        &self.fragments
    }

    /// The fragments, to narrow or write.
    #[inline]
    pub fn fragments_mut(&mut self) -> &mut [V] {
        &mut self.fragments
    }

    /// Takes the fragments out.
    #[inline]
    pub fn into_fragments(self) -> ArrayVec<V, MAX_FRAGMENTS> {
        self.fragments
    }

    /// Takes the fragments out, first one first, where the packet itself need not be moved.
    #[inline]
    pub fn take_fragments(&mut self) -> impl Iterator<Item = V> + '_ {
        self.fragments.drain(..)
    }

    /// Takes the fragment out, if it is the only one.
    #[inline]
    pub fn take_only(&mut self) -> Option<V> {
        if self.fragments.len() == 1 { self.fragments.pop() } else { None }
    }

    /// The fragment, if it is the only one.
    #[inline]
    pub fn into_single(mut self) -> Result<V, AnyPacket<V>> {
        match self.fragments.pop() {
            Some(only) if self.fragments.is_empty() => Ok(only),
            Some(last) => {
                self.fragments.push(last);
                Err(self)
            }
            None => Err(self),
        }
    }
}

impl<V: View> AnyPacket<V> {
    /// Bytes in all fragments.
    #[inline]
    pub fn len(&self) -> usize {
        self.fragments.iter().map(|fragment| fragment.bytes().len()).sum()
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.fragments.iter().all(|fragment| fragment.bytes().is_empty())
    }

    /// The first fragment's bytes: where the headers are.
    #[inline]
    pub fn head(&self) -> &[u8] {
        self.fragments.first().map_or(&[], View::bytes)
    }

    /// Drops the fragments that have no bytes.
    pub fn drop_empty(&mut self) {
        self.fragments.retain(|fragment| !fragment.bytes().is_empty());
    }

    /// Copies the packet into one slice; returns its length, or `None` if the slice is too short.
    pub fn copy_to_slice(&self, target: &mut [u8]) -> Option<usize> {
        let mut at = 0;
        for fragment in &self.fragments {
            let bytes = fragment.bytes();
            target.get_mut(at..at + bytes.len())?.copy_from_slice(bytes);
            at += bytes.len();
        }
        Some(at)
    }
}

impl<S: SharedBlock> AnyPacket<Buf<S>> {
    /// The packet to write in place, if no other view of any of its blocks is left; else itself
    /// again, unchanged.
    pub fn try_into_mut(self) -> Result<AnyPacket<BufMut<S::Block>>, AnyPacket<Buf<S>>> {
        let meta = self.meta;
        let mut tx = AnyPacket { fragments: ArrayVec::new_const(), meta };
        let mut fragments = self.fragments.into_iter();
        while let Some(fragment) = fragments.next() {
            match fragment.try_into_mut() {
                Ok(buf) => tx.fragments.push(buf),
                Err(shared) => {
                    let mut rx = tx.freeze();
                    rx.fragments.push(shared);
                    rx.fragments.extend(fragments);
                    return Err(rx);
                }
            }
        }
        Ok(tx)
    }
}

impl<B: Block> AnyPacket<BufMut<B>> {
    /// Copies `bytes` into the tailroom of `bufs`, of as many as it takes; `None` if they have too
    /// little. Buffers that are not needed are dropped.
    ///
    /// ```
    /// # use packet_views::buffer::{AnyPacket, BufMut, HeapBlock};
    /// let bufs = || core::iter::repeat_with(|| BufMut::new(HeapBlock::new(64), 0));
    /// let packet = AnyPacket::from_slice(&[7; 100], bufs()).unwrap();
    /// assert_eq!((packet.fragments().len(), packet.len()), (2, 100));
    /// assert!(AnyPacket::from_slice(&[7; 100], bufs().take(1)).is_none());
    /// ```
    pub fn from_slice(
        bytes: &[u8],
        bufs: impl IntoIterator<Item = BufMut<B>>,
    ) -> Option<AnyPacket<BufMut<B>>> {
        let (mut packet, mut rest) = (AnyPacket::new(), bytes);
        for mut buf in bufs {
            let (now, later) = rest.split_at_checked(buf.tailroom()).unwrap_or((rest, &[]));
            buf.append(now.len())?.copy_from_slice(now);
            packet.push(buf).ok()?;
            rest = later;
            if rest.is_empty() {
                return Some(packet);
            }
        }
        None
    }

    /// No more writing: a packet that others can share.
    pub fn freeze(self) -> AnyPacket<Buf<B::Shared>> {
        let fragments = self.fragments.into_iter().map(BufMut::freeze).collect();
        AnyPacket { fragments, meta: self.meta }
    }
}

impl<V> Default for AnyPacket<V> {
    fn default() -> Self {
        AnyPacket::new()
    }
}

impl<V> From<V> for AnyPacket<V> {
    /// A packet of one fragment.
    #[inline]
    fn from(fragment: V) -> AnyPacket<V> {
        let mut packet = AnyPacket::new();
        packet.fragments.push(fragment);
        packet
    }
}

impl<V: Clone> Clone for AnyPacket<V> {
    fn clone(&self) -> Self {
        AnyPacket { fragments: self.fragments.clone(), meta: self.meta }
    }
}

impl<V: View> core::fmt::Debug for AnyPacket<V> {
    /// How long each fragment is, and what is known of the packet; no byte of it.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let lens: ArrayVec<usize, MAX_FRAGMENTS> =
            self.fragments.iter().map(|fragment| fragment.bytes().len()).collect();
        f.debug_struct("AnyPacket").field("fragments", &lens).field("meta", &self.meta).finish()
    }
}
