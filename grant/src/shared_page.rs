//! A page that both sides use at once: the pages of rings.

use core::ptr::NonNull;

use crate::exposure::Grantee;
use crate::frame::Frame;
use crate::granted::{Granted, ReadWrite, StillInUse};
use crate::memory::{DomId, ForeignMemory, GrantStatus, Mapping, Words};
use crate::table::Reference;

/// A page that both sides use at once. It is visible only as atomic words, so whatever the peer
/// does to it at whatever moment is an unexpected value and nothing worse.
pub trait SharedPage {
    /// The page.
    fn words(&self) -> &Words;
}

/// A page of ours that a peer reads and writes while we do.
pub struct GrantedPage {
    granted: Granted<ReadWrite>,
    words: NonNull<Words>,
}

// SAFETY: the page is atomic words, and the grant is `Send`.
unsafe impl Send for GrantedPage {}
// SAFETY: as above, and `Sync`.
unsafe impl Sync for GrantedPage {}

impl GrantedPage {
    /// Zeroes a frame and grants it for reading and writing.
    pub fn new(mut frame: Frame, reference: Reference, to: &Grantee) -> GrantedPage {
        frame.bytes_mut().fill(0);
        let (granted, _) = reference.grant(frame, to, 0..crate::PAGE_SIZE);
        GrantedPage { words: granted.page().cast(), granted }
    }

    /// The grant reference, as the peer is told.
    pub fn number(&self) -> u32 {
        self.granted.number()
    }

    /// Ends the sharing.
    pub fn revoke(self) -> Result<(Frame, Reference), StillInUse<ReadWrite>> {
        self.granted.revoke()
    }
}

impl SharedPage for GrantedPage {
    #[inline]
    fn words(&self) -> &Words {
        // SAFETY: the page is out of its pool, aligned and initialised. While it is granted there
        // is no way to its bytes but this one, so every access of ours is atomic.
        unsafe { self.words.as_ref() }
    }
}

/// A page of a peer, mapped here. Dropped, it is unmapped.
pub struct ForeignPage<M: ForeignMemory> {
    memory: M,
    words: NonNull<Words>,
    handle: u32,
}

// SAFETY: the page is atomic words, and the handle to memory is `Send`.
unsafe impl<M: ForeignMemory> Send for ForeignPage<M> {}
// SAFETY: as above, and `Sync`.
unsafe impl<M: ForeignMemory> Sync for ForeignPage<M> {}

impl<M: ForeignMemory> ForeignPage<M> {
    /// Maps the page that `peer` has granted as `gref`.
    pub fn map(memory: &M, peer: DomId, gref: u32) -> Result<ForeignPage<M>, GrantStatus> {
        let mapping = memory.map_grant(peer, gref)?;
        Ok(ForeignPage { memory: memory.clone(), words: mapping.words, handle: mapping.handle })
    }
}

impl<M: ForeignMemory> SharedPage for ForeignPage<M> {
    #[inline]
    fn words(&self) -> &Words {
        // SAFETY: `map_grant` promises that the words stay until we unmap them.
        unsafe { self.words.as_ref() }
    }
}

impl<M: ForeignMemory> Drop for ForeignPage<M> {
    fn drop(&mut self) {
        let mapping = Mapping { words: self.words, handle: self.handle };
        // SAFETY: the mapping came from `map_grant`, and all borrows of its words have ended.
        unsafe { self.memory.unmap_grant(mapping) }
    }
}

impl core::fmt::Debug for GrantedPage {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "GrantedPage({})", self.number())
    }
}

impl<M: ForeignMemory> core::fmt::Debug for ForeignPage<M> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "ForeignPage({})", self.handle)
    }
}
