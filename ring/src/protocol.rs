//! What travels on a ring: messages as arrays of words, and how many slots fit on the page.

use crate::page::{PAGE_WORDS, RingPage, SLOTS};

/// An array of 32-bit words: how a message lies in its slot.
pub trait WordArray: Copy + AsRef<[u32]> + AsMut<[u32]> {
    /// All words zero.
    const ZERO: Self;
    /// Words in the array.
    const LEN: usize;
}

impl<const N: usize> WordArray for [u32; N] {
    const ZERO: [u32; N] = [0; N];
    const LEN: usize = N;
}

/// A message of a ring protocol, and its layout in words (native byte order, as on x86).
///
/// An array of words is a message as it stands.
pub trait Wire: Sized {
    /// The words that the message takes.
    type Words: WordArray;
    /// The message as words. Padding is zero.
    fn to_words(self) -> Self::Words;
    /// The message that these words mean. Any words are some message; checking is the
    /// receiver's job.
    fn from_words(words: Self::Words) -> Self;
}

impl<const N: usize> Wire for [u32; N] {
    type Words = [u32; N];

    fn to_words(self) -> [u32; N] {
        self
    }

    fn from_words(words: [u32; N]) -> [u32; N] {
        words
    }
}

const fn max(a: usize, b: usize) -> usize {
    if a > b { a } else { b }
}

/// A ring protocol: what is asked and what is answered.
pub trait Protocol {
    /// What the front end writes.
    type Request: Wire;
    /// What the back end writes.
    type Response: Wire;

    /// Words in a slot, which holds either.
    const SLOT_WORDS: usize = max(
        <<Self::Request as Wire>::Words as WordArray>::LEN,
        <<Self::Response as Wire>::Words as WordArray>::LEN,
    );

    /// Slots on the page: the largest power of two that fits (`__CONST_RING_SIZE`).
    const SIZE: u32 = 1 << ((PAGE_WORDS - SLOTS) / Self::SLOT_WORDS).ilog2();
}

/// First word of the slot that ring index `index` means. Always below `PAGE_WORDS`.
#[inline]
fn slot<P: Protocol>(index: u32) -> usize {
    SLOTS + (index & (P::SIZE - 1)) as usize * P::SLOT_WORDS
}

/// Writes a message to its slot.
#[inline]
pub(crate) fn write<P: Protocol, W: Wire>(page: &impl RingPage, index: u32, message: W) {
    let first = slot::<P>(index);
    for (word, value) in message.to_words().as_ref().iter().enumerate() {
        page.store(first + word, *value);
    }
}

/// Copies a message out of its slot, each word loaded once.
#[inline]
pub(crate) fn read<P: Protocol, W: Wire>(page: &impl RingPage, index: u32) -> W {
    let first = slot::<P>(index);
    let mut words = W::Words::ZERO;
    for (word, value) in words.as_mut().iter_mut().enumerate() {
        *value = page.load(first + word);
    }
    W::from_words(words)
}
