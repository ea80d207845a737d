//! The shared page, as words.

/// Word of the request producer index.
pub(crate) const REQ_PROD: usize = 0;
/// Word that says which request wakes the back end.
pub(crate) const REQ_EVENT: usize = 1;
/// Word of the response producer index.
pub(crate) const RSP_PROD: usize = 2;
/// Word that says which response wakes the front end.
pub(crate) const RSP_EVENT: usize = 3;
/// First word of slot 0.
pub(crate) const SLOTS: usize = 16;
/// Words in a page.
pub(crate) const PAGE_WORDS: usize = 1024;

/// A page of 1024 words that a peer may read and write at the same time as we do.
///
/// Every access is one whole, aligned 32-bit word, indexed 0..1024; other indices do not occur.
/// Orderings are those of [`core::sync::atomic`], and so is the promise that a racing peer makes
/// a value unpredictable but nothing undefined.
pub trait RingPage {
    /// A relaxed load.
    fn load(&self, word: usize) -> u32;
    /// An acquire load.
    fn load_acquire(&self, word: usize) -> u32;
    /// A relaxed store.
    fn store(&self, word: usize, value: u32);
    /// A release store.
    fn store_release(&self, word: usize, value: u32);
    /// A full fence: no load after it may be answered before a store ahead of it is seen.
    fn full_fence(&self);
}
