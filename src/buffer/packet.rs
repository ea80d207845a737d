//! A packet: fragments, and what is known about them.

use arrayvec::ArrayVec;

use super::{Block, RxBuf, SharedBlock, TxBuf, View};
use crate::wire::{Gso, MAX_SLOTS};

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

/// What travels with a packet besides its bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// The state of the transport checksum.
    pub checksum: Checksum,
    /// How to cut the packet, if it is larger than the MTU.
    pub gso: Option<Gso>,
}

/// A packet of up to 18 fragments, in order, Ethernet header first.
#[derive(Debug)]
pub struct Packet<V> {
    fragments: ArrayVec<V, MAX_SLOTS>,
    /// What is known about it.
    pub meta: Meta,
}

impl<V> Packet<V> {
    /// A packet without fragments.
    #[inline]
    pub fn new() -> Packet<V> {
        Packet { fragments: ArrayVec::new_const(), meta: Meta::default() }
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
    pub fn into_fragments(self) -> ArrayVec<V, MAX_SLOTS> {
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
    pub fn into_single(mut self) -> Result<V, Packet<V>> {
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

impl<V: View> Packet<V> {
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

impl<S: SharedBlock> Packet<RxBuf<S>> {
    /// The packet to write in place, if no other view of any of its blocks is left; else itself
    /// again, unchanged.
    pub fn try_into_tx(self) -> Result<Packet<TxBuf<S::Block>>, Packet<RxBuf<S>>> {
        let meta = self.meta;
        let mut tx = Packet { fragments: ArrayVec::new_const(), meta };
        let mut fragments = self.fragments.into_iter();
        while let Some(fragment) = fragments.next() {
            match fragment.try_into_tx() {
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

impl<B: Block> Packet<TxBuf<B>> {
    /// No more writing: a packet that others can share.
    pub fn freeze(self) -> Packet<RxBuf<B::Shared>> {
        let fragments = self.fragments.into_iter().map(TxBuf::freeze).collect();
        Packet { fragments, meta: self.meta }
    }
}

impl<V> Default for Packet<V> {
    fn default() -> Self {
        Packet::new()
    }
}

impl<V> From<V> for Packet<V> {
    /// A packet of one fragment.
    #[inline]
    fn from(fragment: V) -> Packet<V> {
        let mut packet = Packet::new();
        packet.fragments.push(fragment);
        packet
    }
}

impl<V: Clone> Clone for Packet<V> {
    fn clone(&self) -> Self {
        Packet { fragments: self.fragments.clone(), meta: self.meta }
    }
}
