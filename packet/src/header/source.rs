//! What headers are taken from.

use core::ops::Deref;

use super::Header;
use crate::buffer::{AnyPacket, Block, Buf, BufMut, SharedBlock, View};

/// Bytes that headers are read from, in however many pieces.
pub trait Pieces {
    /// A copy of the header at an offset; `None` if the bytes end before it does.
    fn read<H: Header>(&self, at: usize) -> Option<H>;
}

impl Pieces for [u8] {
    #[inline]
    fn read<H: Header>(&self, at: usize) -> Option<H> {
        Some(H::read_from_prefix(self.get(at..)?).ok()?.0)
    }
}

impl<V: View> Pieces for V {
    #[inline]
    fn read<H: Header>(&self, at: usize) -> Option<H> {
        self.bytes().read(at)
    }
}

impl<V: View> Pieces for [V] {
    #[inline]
    fn read<H: Header>(&self, at: usize) -> Option<H> {
        match self.first().and_then(|first| first.bytes().read(at)) {
            Some(header) => Some(header),
            None => collect(self, at),
        }
    }
}

impl<V: View> Pieces for AnyPacket<V> {
    #[inline]
    fn read<H: Header>(&self, at: usize) -> Option<H> {
        self.fragments().read(at)
    }
}

/// A header that does not lie in the first piece: in another, or in several.
#[cold]
fn collect<V: View, H: Header>(pieces: &[V], at: usize) -> Option<H> {
    let mut header = H::new_zeroed();
    copy_out(pieces, at, header.as_mut_bytes())?;
    Some(header)
}

/// Copies bytes from an offset on; `None` if there are too few.
pub(crate) fn copy_out<V: View>(pieces: &[V], at: usize, mut to: &mut [u8]) -> Option<()> {
    for part in parts(pieces, at, to.len()) {
        to.split_off_mut(..part.len())?.copy_from_slice(part);
    }
    to.is_empty().then_some(())
}

/// The `len` bytes from an offset on, piece by piece: fewer if there are too few.
#[inline]
pub(crate) fn parts<'a, V: View + 'a>(
    pieces: impl IntoIterator<Item = &'a V>,
    mut at: usize,
    mut len: usize,
) -> impl Iterator<Item = &'a [u8]> {
    pieces.into_iter().map_while(move |piece| {
        if len == 0 {
            return None;
        }
        let bytes = piece.bytes();
        let Some(part) = bytes.get(at..) else {
            at -= bytes.len();
            return Some(&[][..]);
        };
        at = 0;
        let part = part.get(..len).unwrap_or(part);
        len -= part.len();
        Some(part)
    })
}

/// Bytes that are read header by header, and only ever narrow.
///
/// A header of borrowed bytes must lie in one piece; one that is copied out of the fragments of a
/// [`AnyPacket`] may be cut anywhere.
pub trait Source: Pieces + Sized {
    /// How a header is given out: a reference into borrowed bytes, a copy from owned ones.
    type Ref<H: Header>: Deref<Target = H>;

    /// The bytes in one piece at the start.
    fn head(&self) -> &[u8];

    /// Bytes in all.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes a header from the front: the one bounds check.
    fn take<H: Header>(self) -> Option<(Self::Ref<H>, Self)>;

    /// Drops `count` bytes at the front; `None` if there are not that many.
    fn skip(self, count: usize) -> Option<Self>;

    /// Keeps the first `len` bytes.
    #[must_use]
    fn keep(self, len: usize) -> Self;
}

/// A header copied out of a buffer.
#[derive(Clone, Copy, Debug)]
pub struct Copied<H>(pub H);

impl<H> Deref for Copied<H> {
    type Target = H;

    #[inline]
    fn deref(&self) -> &H {
        &self.0
    }
}

impl<'a> Source for &'a [u8] {
    type Ref<H: Header> = &'a H;

    #[inline]
    fn head(&self) -> &[u8] {
        self
    }

    #[inline]
    fn len(&self) -> usize {
        <[u8]>::len(self)
    }

    #[inline]
    fn take<H: Header>(self) -> Option<(&'a H, Self)> {
        H::ref_from_prefix(self).ok()
    }

    #[inline]
    fn skip(self, count: usize) -> Option<Self> {
        self.get(count..)
    }

    #[inline]
    fn keep(self, len: usize) -> Self {
        self.get(..len).unwrap_or(self)
    }
}

impl<'a> Source for &'a mut [u8] {
    type Ref<H: Header> = &'a mut H;

    #[inline]
    fn head(&self) -> &[u8] {
        self
    }

    #[inline]
    fn len(&self) -> usize {
        <[u8]>::len(self)
    }

    #[inline]
    fn take<H: Header>(self) -> Option<(&'a mut H, Self)> {
        H::mut_from_prefix(self).ok()
    }

    #[inline]
    fn skip(self, count: usize) -> Option<Self> {
        self.get_mut(count..)
    }

    #[inline]
    fn keep(self, len: usize) -> Self {
        let len = len.min(self.len());
        self.get_mut(..len).unwrap_or_default()
    }
}

impl<V: View + Narrow> Source for V {
    type Ref<H: Header> = Copied<H>;

    #[inline]
    fn head(&self) -> &[u8] {
        self.bytes()
    }

    #[inline]
    fn len(&self) -> usize {
        self.bytes().len()
    }

    #[inline]
    fn take<H: Header>(self) -> Option<(Copied<H>, Self)> {
        Some((Copied(self.read(0)?), self.skip(size_of::<H>())?))
    }

    #[inline]
    fn skip(mut self, count: usize) -> Option<Self> {
        self.advance_by(count)?;
        Some(self)
    }

    #[inline]
    fn keep(mut self, len: usize) -> Self {
        self.truncate_to(len);
        self
    }
}

/// The head is the first fragment that has bytes. Fragments whose bytes are all taken stay, empty,
/// until somebody takes the packet apart.
impl<V: Source + View + Narrow> Source for AnyPacket<V> {
    type Ref<H: Header> = Copied<H>;

    #[inline]
    fn head(&self) -> &[u8] {
        self.fragments().iter().map(View::bytes).find(|bytes| !bytes.is_empty()).unwrap_or_default()
    }

    #[inline]
    fn len(&self) -> usize {
        AnyPacket::len(self)
    }

    #[inline]
    fn take<H: Header>(self) -> Option<(Copied<H>, Self)> {
        Some((Copied(self.read(0)?), self.skip(size_of::<H>())?))
    }

    fn skip(mut self, count: usize) -> Option<Self> {
        self.advance_by(count)?;
        Some(self)
    }

    fn keep(mut self, len: usize) -> Self {
        self.truncate_to(len);
        self
    }
}

/// Narrowing in place.
pub trait Narrow {
    /// Drops bytes at the front; `None`, and nothing happens, if there are not that many.
    fn advance_by(&mut self, count: usize) -> Option<()>;

    /// Keeps the first `len` bytes.
    fn truncate_to(&mut self, len: usize);
}

impl<S: SharedBlock> Narrow for Buf<S> {
    #[inline]
    fn advance_by(&mut self, count: usize) -> Option<()> {
        self.advance(count)
    }

    #[inline]
    fn truncate_to(&mut self, len: usize) {
        self.truncate(len);
    }
}

impl<B: Block> Narrow for BufMut<B> {
    #[inline]
    fn advance_by(&mut self, count: usize) -> Option<()> {
        self.pull_front(count)
    }

    #[inline]
    fn truncate_to(&mut self, len: usize) {
        self.truncate(len);
    }
}

impl<V: View + Narrow> Narrow for AnyPacket<V> {
    fn advance_by(&mut self, mut count: usize) -> Option<()> {
        if count > self.len() {
            return None;
        }
        for fragment in self.fragments_mut() {
            let now = count.min(fragment.bytes().len());
            fragment.advance_by(now)?;
            count -= now;
        }
        Some(())
    }

    fn truncate_to(&mut self, mut len: usize) {
        for fragment in self.fragments_mut() {
            fragment.truncate_to(len);
            len -= fragment.bytes().len();
        }
    }
}

impl View for &[u8] {
    #[inline]
    fn bytes(&self) -> &[u8] {
        self
    }
}

impl View for &mut [u8] {
    #[inline]
    fn bytes(&self) -> &[u8] {
        self
    }
}

/// A run of bytes to write.
pub trait ViewMut: View {
    /// The bytes, to write.
    fn bytes_mut(&mut self) -> &mut [u8];
}

impl ViewMut for &mut [u8] {
    #[inline]
    fn bytes_mut(&mut self) -> &mut [u8] {
        self
    }
}

impl<B: Block> ViewMut for BufMut<B> {
    #[inline]
    fn bytes_mut(&mut self) -> &mut [u8] {
        BufMut::bytes_mut(self)
    }
}
