//! Packets that share their payload and not their headers: one that goes to several receivers, each with
//! headers of its own.
//!
//! ```text
//!  received      | headers | payload ......... | ........... |
//!                     │ copied      │ shared
//!                     ▼             ▼
//!  to one        | headers' |  |  payload ..... | ........... |
//!  to another    | headers" |  |  payload ..... | ........... |
//! ```
//!
//! ```
//! # use packet_views::buffer::{BufMut, HeapBlock, MixedPacket, PacketMut, View};
//! # fn block() -> BufMut<HeapBlock> { BufMut::new(HeapBlock::new(256), 64) }
//! # fn example(received: PacketMut<HeapBlock>) -> Option<()> {
//! // 14 bytes of Ethernet and 20 of IP are to be written anew.
//! let one: MixedPacket<HeapBlock> = received.share_behind(34, block()).ok()?;
//! for address in [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]] {
//!     let mut another = one.copy_head(block()).ok()?;
//!     another.head_mut()?.bytes_mut().first_chunk_mut::<6>()?.copy_from_slice(&address);
//!     // device.send_mixed(another) ...
//! }
//! # Some(())
//! # }
//! ```

use super::{AnyPacket, Block, Buf, BufMut, MixedPacket, Packet, PacketMut, SharedBlock, View};
use crate::header::{Narrow, copy_out};

/// A fragment of a packet that is sent: with one owner, or one of several views.
#[derive(Debug)]
pub enum Fragment<B: Block> {
    /// Ours alone.
    Own(BufMut<B>),
    /// Others may read it too.
    Shared(Buf<B::Shared>),
}

impl<B: Block> View for Fragment<B> {
    #[inline]
    fn bytes(&self) -> &[u8] {
        match self {
            Fragment::Own(buf) => buf.bytes(),
            Fragment::Shared(buf) => buf.bytes(),
        }
    }
}

impl<B: Block> From<BufMut<B>> for Fragment<B> {
    #[inline]
    fn from(buf: BufMut<B>) -> Fragment<B> {
        Fragment::Own(buf)
    }
}

impl<B: Block> From<PacketMut<B>> for MixedPacket<B> {
    fn from(packet: PacketMut<B>) -> MixedPacket<B> {
        let meta = packet.meta;
        collect(packet.into_fragments().into_iter().map(Fragment::Own), meta)
    }
}

/// At most as many fragments as a packet has.
fn collect<V>(fragments: impl Iterator<Item = V>, meta: super::Meta) -> AnyPacket<V> {
    let mut packet = AnyPacket::new();
    packet.meta = meta;
    for fragment in fragments {
        let _pushed = packet.push(fragment);
    }
    packet
}

/// Copies the first `len` bytes into `head`, behind what it has; whether they are there, and have room.
fn copy_front<V: View>(packet: &AnyPacket<V>, len: usize, head: &mut BufMut<impl Block>) -> bool {
    let had = head.len();
    let Some(place) = head.append(len) else { return false };
    let copied = copy_out(packet.fragments(), 0, place).is_some();
    if !copied {
        head.truncate(had);
    }
    copied
}

impl<S: SharedBlock> AnyPacket<Buf<S>> {
    /// This packet with a head of its own: its first `len` bytes are copied into `head`, and all the rest
    /// is shared. `head` comes back if the packet has not so many bytes, or `head` no room for them, or
    /// there would be a fragment too many.
    ///
    /// A device that shows its peer whole blocks has to copy the rest after all, unless it knows that
    /// there is nothing else in these blocks that the peer must not see:
    /// [`share_behind`](AnyPacket::share_behind) sees to that, as long as the packet has one owner.
    pub fn with_own_head(
        &self,
        len: usize,
        mut head: BufMut<S::Block>,
    ) -> Result<MixedPacket<S::Block>, BufMut<S::Block>> {
        let mut rest = self.clone();
        if rest.advance_by(len).is_none() {
            return Err(head);
        }
        rest.drop_empty();
        if rest.fragments().len() == super::MAX_FRAGMENTS || !copy_front(self, len, &mut head) {
            return Err(head);
        }
        let shared = rest.into_fragments().into_iter().map(Fragment::Shared);
        Ok(collect(core::iter::once(Fragment::Own(head)).chain(shared), self.meta))
    }
}

impl<B: Block> AnyPacket<BufMut<B>> {
    /// This packet with its first `len` bytes moved into `head`, and the rest to be shared: whatever else
    /// is in the rest's blocks, these `len` bytes and what an earlier use left there, is
    /// [concealed](Block::conceal), so that every device can show them to its peer without a copy. Both
    /// come back, as [`with_own_head`](AnyPacket::with_own_head) has it.
    pub fn share_behind(
        mut self,
        len: usize,
        mut head: BufMut<B>,
    ) -> Result<MixedPacket<B>, (PacketMut<B>, BufMut<B>)> {
        let mut skipped = 0;
        let whole = self.fragments().iter().take_while(|fragment| {
            skipped += fragment.len();
            skipped <= len
        });
        let rest = self.fragments().len() - whole.count();
        if rest == super::MAX_FRAGMENTS || !copy_front(&self, len, &mut head) {
            return Err((self, head));
        }
        // They are there: they have just been copied.
        let _dropped = self.advance_by(len);
        self.drop_empty();
        let meta = self.meta;
        let shared = self.into_fragments().into_iter().map(|mut buf| {
            buf.conceal();
            Fragment::Shared(buf.freeze())
        });
        Ok(collect(core::iter::once(Fragment::Own(head)).chain(shared), meta))
    }
}

impl<B: Block> AnyPacket<Fragment<B>> {
    /// The first fragment, to write: headers, where it is ours alone.
    pub fn head_mut(&mut self) -> Option<&mut BufMut<B>> {
        match self.fragments_mut().first_mut()? {
            Fragment::Own(head) => Some(head),
            Fragment::Shared(_) => None,
        }
    }

    /// The same for another receiver: what is shared is shared once more, and the head, which is the only
    /// fragment with one owner, copied into `head`. That comes back if there is no such head, or no room.
    pub fn copy_head(&self, mut head: BufMut<B>) -> Result<MixedPacket<B>, BufMut<B>> {
        let mut fragments = self.fragments().iter();
        let Some(Fragment::Own(own)) = fragments.next() else { return Err(head) };
        let mut copy = AnyPacket::new();
        copy.meta = self.meta;
        let Some(place) = head.append(own.len()) else { return Err(head) };
        place.copy_from_slice(own.bytes());
        let had = head.len() - own.len();
        let shared = fragments.clone().filter_map(|fragment| match fragment {
            Fragment::Own(_) => None,
            Fragment::Shared(view) => Some(Fragment::Shared(view.clone())),
        });
        if shared.clone().count() < fragments.len() {
            head.truncate(had);
            return Err(head);
        }
        let _first = copy.push(Fragment::Own(head));
        for view in shared {
            let _pushed = copy.push(view);
        }
        Ok(copy)
    }

    /// No more writing: a packet that others can share.
    pub fn freeze(self) -> Packet<B::Shared> {
        let meta = self.meta;
        let frozen = self.into_fragments().into_iter().map(|fragment| match fragment {
            Fragment::Own(buf) => buf.freeze(),
            Fragment::Shared(buf) => buf,
        });
        collect(frozen, meta)
    }

    /// The packet with one owner, for a device that has to write it or shows its peer whole blocks: what
    /// others read too is copied into blocks that `alloc` gives. Also returns how many
    /// bytes that were. The packet comes back if there are no blocks, or more than a packet's fragments
    /// were needed.
    pub fn into_own(
        self,
        mut alloc: impl FnMut() -> Option<BufMut<B>>,
    ) -> Result<(PacketMut<B>, usize), MixedPacket<B>> {
        let meta = self.meta;
        let (mut own, mut copied) = (AnyPacket::new(), 0);
        own.meta = meta;
        let mut fragments = self.into_fragments().into_iter();
        while let Some(fragment) = fragments.next() {
            let owned = match fragment {
                Fragment::Own(buf) => own.push(buf).map_err(Fragment::Own),
                Fragment::Shared(view) => match view.try_into_mut() {
                    Ok(buf) => own.push(buf).map_err(Fragment::Own),
                    Err(view) => match copy(&view, &mut own, &mut alloc) {
                        Some(()) => {
                            copied += view.len();
                            Ok(())
                        }
                        None => Err(Fragment::Shared(view)),
                    },
                },
            };
            if let Err(fragment) = owned {
                let before = own.into_fragments().into_iter().map(Fragment::Own);
                return Err(collect(before.chain([fragment]).chain(fragments), meta));
            }
        }
        Ok((own, copied))
    }
}

/// Copies a view to the end of a packet; `None`, and the packet is as it was, if there is no room.
fn copy<B: Block>(
    view: &Buf<B::Shared>,
    to: &mut PacketMut<B>,
    alloc: &mut impl FnMut() -> Option<BufMut<B>>,
) -> Option<()> {
    let bufs = core::iter::from_fn(alloc).take(super::MAX_FRAGMENTS);
    let copied = AnyPacket::from_slice(view.bytes(), bufs)?;
    if to.fragments().len() + copied.fragments().len() > super::MAX_FRAGMENTS {
        return None;
    }
    for buf in copied.into_fragments() {
        let _pushed = to.push(buf);
    }
    Some(())
}
