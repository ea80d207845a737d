//! Pages reached safely as words: what tests and hostile peers work with.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use xen_grant::{DomId, Gfn, GrantStatus, PAGE_SIZE, Words};

use crate::Domain;
use crate::host::lock;
use crate::memory::{Entry, GTF_PERMIT_ACCESS, GTF_READONLY, RESERVED_ENTRIES};
use crate::page::SimPage;

/// A page of our own that is only ever used as words, so that it can be granted, scribbled over
/// and read at any moment without regard for who uses it. Freed when dropped, even if granted:
/// the hostile peers do that.
pub struct OwnPage {
    domain: Domain,
    page: Arc<SimPage>,
    gfn: Gfn,
}

impl OwnPage {
    /// The page's words.
    pub fn words(&self) -> &Words {
        self.page.words()
    }

    /// Its frame number.
    pub fn gfn(&self) -> Gfn {
        self.gfn
    }

    /// Reads bytes. Panics beyond the page.
    pub fn read(&self, offset: usize, into: &mut [u8]) {
        self.page.read_words(offset, into);
    }

    /// Writes bytes. Panics beyond the page.
    pub fn write(&self, offset: usize, from: &[u8]) {
        self.page.write_words(offset, from);
    }
}

impl Drop for OwnPage {
    fn drop(&mut self) {
        let _ = lock(&self.domain.me.memory).release(self.gfn, |_| true);
    }
}

/// A granted page of somebody else's, mapped until this is dropped.
pub struct ForeignPage {
    domain: Domain,
    page: Arc<SimPage>,
    handle: u32,
    gref: u32,
    writable: bool,
}

impl ForeignPage {
    /// The grant reference it was mapped by.
    pub fn gref(&self) -> u32 {
        self.gref
    }

    /// Whether it was mapped for writing.
    pub fn writable(&self) -> bool {
        self.writable
    }

    /// The words, if the mapping is writable.
    pub fn words(&self) -> Option<&Words> {
        self.writable.then(|| self.page.words())
    }

    /// Reads one word. Panics beyond the page.
    pub fn load(&self, word: usize) -> u32 {
        self.page.words()[word].load(Ordering::Acquire)
    }

    /// Writes one word, unless the mapping is read-only. Panics beyond the page.
    pub fn store(&self, word: usize, value: u32) {
        if self.writable {
            self.page.words()[word].store(value, Ordering::Release);
        }
    }

    /// Everything that is in it.
    pub fn dump(&self) -> Box<[u8; PAGE_SIZE]> {
        let mut bytes = Box::new([0; PAGE_SIZE]);
        self.page.read_words(0, &mut bytes[..]);
        bytes
    }
}

impl Drop for ForeignPage {
    fn drop(&mut self) {
        self.domain.unmap(self.handle, None);
    }
}

/// A page that a domain has granted, and what is in it.
pub struct GrantedPage {
    /// The grant reference.
    pub gref: u32,
    /// Its entry.
    pub entry: Entry,
    /// The whole page as the peer can see it.
    pub bytes: Box<[u8; PAGE_SIZE]>,
}

impl Domain {
    /// A zeroed page to be used as words only.
    pub fn own_page(&self) -> Option<OwnPage> {
        let (page, gfn) = self.take_frame()?;
        page.share();
        Some(OwnPage { domain: self.clone(), page, gfn })
    }

    /// Maps a page that `owner` has granted to us, for writing or for reading only.
    pub fn map_page(
        &self,
        owner: DomId,
        gref: u32,
        writable: bool,
    ) -> Result<ForeignPage, GrantStatus> {
        let (handle, page) = self.map(owner, gref, writable)?;
        Ok(ForeignPage { domain: self.clone(), page, handle, gref, writable })
    }

    /// Every page that `owner` lets us see, whole, reserved entries left out. It is read by grant
    /// copies, as a peer would; pages that the peer may read at no cost to the owner.
    pub fn dump_granted(&self, owner: DomId) -> Vec<GrantedPage> {
        let Some(inner) = self.host.domain(owner) else { return Vec::new() };
        let theirs = Domain { host: self.host.clone(), me: inner };
        let mut pages = Vec::new();
        for (gref, entry) in theirs.grants() {
            let mut bytes = Box::new([0; PAGE_SIZE]);
            if entry.permits(self.me.id)
                && self.read_granted(owner, gref, 0, &mut bytes[..]).is_ok()
            {
                pages.push(GrantedPage { gref, entry, bytes });
            }
        }
        pages
    }

    /// Writes an entry of our own grant table, as raw as a hostile domain likes. False beyond the
    /// table. Not for a domain whose table a driver owns.
    pub fn set_grant_entry(&self, gref: u32, entry: Entry) -> bool {
        lock(&self.me.memory).set_entry(gref, entry)
    }

    /// Grants one of our pages by a free entry of our own table, which grows as needed. `None`
    /// when the table is full. Not for a domain whose table a driver owns.
    pub fn grant(&self, peer: DomId, gfn: Gfn, readonly: bool) -> Option<u32> {
        let flags = GTF_PERMIT_ACCESS | if readonly { GTF_READONLY } else { 0 };
        let mut memory = lock(&self.me.memory);
        let gref = match memory.free_entry() {
            Some(gref) => gref,
            None => {
                let first = memory.entries();
                let frame = first / crate::memory::ENTRIES_PER_FRAME as u32;
                memory.add_grant_frame(frame).ok()?;
                first.max(RESERVED_ENTRIES)
            }
        };
        memory.set_entry(gref, Entry { flags, peer, frame: gfn.0 as u32 });
        Some(gref)
    }

    /// Ends a grant if nobody uses it; false otherwise.
    pub fn end_grant(&self, gref: u32) -> bool {
        let memory = lock(&self.me.memory);
        if memory.in_use(gref) {
            return false;
        }
        memory.set_entry(gref, Entry { flags: 0, peer: DomId(0), frame: 0 })
    }
}

impl std::fmt::Debug for OwnPage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OwnPage({:#x})", self.gfn.0)
    }
}

impl std::fmt::Debug for ForeignPage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ForeignPage({})", self.gref)
    }
}

impl std::fmt::Debug for GrantedPage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "GrantedPage({}, {:?})", self.gref, self.entry)
    }
}
