//! A domain's frames and its grant table, as the hypervisor keeps them.
//!
//! A version 1 entry is two words (`grant_entry_v1`, xen/grant_table.h):
//!
//! ```text
//!  31            16 15             0
//! +----------------+----------------+
//! | domid          | flags          |  word 0
//! +----------------+----------------+
//! | frame                           |  word 1
//! +---------------------------------+
//! ```
//!
//! The hypervisor marks an entry that is in use with `GTF_reading` and `GTF_writing`, by atomic
//! read-modify-writes of the whole first word, and takes the marks away when the last use ends.
//! While an entry is in use, further uses go to the same page, whatever the second word says now.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use xen_grant::{DomId, Gfn, GrantStatus};

use crate::host::lock;
use crate::page::SimPage;
use crate::violation::Violation;

/// `GTF_permit_access`
pub const GTF_PERMIT_ACCESS: u32 = 1;
/// `GTF_type_mask`
pub const GTF_TYPE_MASK: u32 = 3;
/// `GTF_readonly`
pub const GTF_READONLY: u32 = 1 << 2;
/// `GTF_reading`: a peer has the page mapped or is copying.
pub const GTF_READING: u32 = 1 << 3;
/// `GTF_writing`: a peer has the page mapped writable or is copying into it.
pub const GTF_WRITING: u32 = 1 << 4;
/// Entries in a grant frame.
pub const ENTRIES_PER_FRAME: usize = 512;
/// `GNTTAB_NR_RESERVED_ENTRIES`
pub const RESERVED_ENTRIES: u32 = 8;
/// What the toolstack leaves in the console and xenstore entries: in use by domain 0.
const TOOLSTACK_FLAGS: u32 = GTF_PERMIT_ACCESS | GTF_READING | GTF_WRITING;
/// No frame has a smaller number: a small one is rather an index or a reference gone astray.
const FIRST_GFN: u64 = 0x1_0000;
/// Xen gives up on an entry that changes under it.
const SET_STATUS_TRIES: u32 = 5;

/// A use of an entry that is going on (`active_grant_entry` in Xen).
#[derive(Default)]
struct Active {
    readers: u32,
    writers: u32,
    peer: u16,
    page: Option<(Arc<SimPage>, Gfn)>,
}

impl Active {
    fn in_use(&self) -> bool {
        self.readers + self.writers != 0
    }
}

/// A grant entry as its owner wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// `GTF_*` bits.
    pub flags: u32,
    /// Who may access the page.
    pub peer: DomId,
    /// The frame number, as written.
    pub frame: u32,
}

impl Entry {
    /// Whether it lets `peer` in.
    pub fn permits(&self, peer: DomId) -> bool {
        self.flags & GTF_TYPE_MASK == GTF_PERMIT_ACCESS && self.peer == peer
    }
}

/// Which frame numbers the domains of this program have: first number and how many. Every domain
/// numbers its frames from somewhere else, whatever host it is on, so that a frame number in the
/// wrong domain is no frame at all.
static NUMBERS: Mutex<BTreeMap<u64, u64>> = Mutex::new(BTreeMap::new());

/// The frame numbers of a domain, its own until dropped.
struct Numbers(u64);

impl Numbers {
    fn take(count: u32) -> Numbers {
        let mut taken = lock(&NUMBERS);
        let count = u64::from(count.max(1));
        let mut first = FIRST_GFN;
        for (&at, &len) in &*taken {
            if at - first >= count {
                break;
            }
            first = at + len;
        }
        taken.insert(first, count);
        Numbers(first)
    }
}

impl Drop for Numbers {
    fn drop(&mut self) {
        lock(&NUMBERS).remove(&self.0);
    }
}

/// A domain's memory.
pub(crate) struct MemState {
    id: DomId,
    base: Numbers,
    frames: Vec<Option<Arc<SimPage>>>,
    free: Vec<u32>,
    pub(crate) max_grant_frames: u32,
    table: Vec<Arc<SimPage>>,
    active: Vec<Active>,
    /// Uses that are going on, of all entries.
    uses: usize,
    /// Where [`free_entry`](MemState::free_entry) looks first.
    hint: u32,
}

impl MemState {
    pub(crate) fn new(id: DomId, pages: u32, max_grant_frames: u32) -> MemState {
        MemState {
            id,
            base: Numbers::take(pages),
            frames: vec![None; pages as usize],
            free: (0..pages).rev().collect(),
            max_grant_frames,
            table: Vec::new(),
            active: Vec::new(),
            uses: 0,
            hint: RESERVED_ENTRIES,
        }
    }

    pub(crate) fn alloc(&mut self) -> Option<(Arc<SimPage>, Gfn)> {
        let index = self.free.pop()?;
        let page = SimPage::new();
        self.frames[index as usize] = Some(page.clone());
        Some((page, Gfn(self.base.0 + u64::from(index))))
    }

    /// Which of the domain's frames has this number. The numbers themselves depend on what other hosts
    /// there are in the program.
    pub(crate) fn index_of(&self, frame: u32) -> Option<u32> {
        let index = u64::from(frame).checked_sub(self.base.0)?;
        u32::try_from(index).ok().filter(|&index| (index as usize) < self.frames.len())
    }

    /// The page with this number, if it is allocated.
    pub(crate) fn frame(&self, gfn: Gfn) -> Option<&Arc<SimPage>> {
        let index = usize::try_from(gfn.0.checked_sub(self.base.0)?).ok()?;
        self.frames.get(index)?.as_ref()
    }

    /// The grant table of another machine: nothing is granted there, nothing in use.
    pub(crate) fn new_table(&mut self) {
        for page in &self.table {
            for word in page.words().iter().skip(2 * RESERVED_ENTRIES as usize) {
                word.store(0, Ordering::SeqCst);
            }
        }
        self.active.iter_mut().for_each(|active| *active = Active::default());
        self.uses = 0;
    }

    /// Frees a page, after `check` has looked at it.
    pub(crate) fn release(
        &mut self,
        gfn: Gfn,
        check: impl FnOnce(&SimPage) -> bool,
    ) -> Result<(), Violation> {
        let domain = self.id;
        let Some(page) = self.frame(gfn) else {
            return Err(Violation::FreedUnknown { domain, gfn });
        };
        if !check(page) {
            return Err(Violation::FreedMismatch { domain, gfn });
        }
        let index = (gfn.0 - self.base.0) as usize;
        self.frames[index] = None;
        self.free.push(index as u32);
        if let Some(gref) = self.user_of(gfn) {
            return Err(Violation::FreedWhileInUse { domain, gfn, gref });
        }
        match self.grant_of(gfn) {
            Some(gref) => Err(Violation::FreedWhileGranted { domain, gfn, gref }),
            None => Ok(()),
        }
    }

    fn user_of(&self, gfn: Gfn) -> Option<u32> {
        if self.uses == 0 {
            return None;
        }
        let uses = |a: &Active| matches!(&a.page, Some((_, used)) if *used == gfn);
        self.active.iter().position(uses).map(|gref| gref as u32)
    }

    fn grant_of(&self, gfn: Gfn) -> Option<u32> {
        let grants = |entry: &[AtomicU32]| {
            u64::from(entry[1].load(Ordering::Relaxed)) == gfn.0
                && entry[0].load(Ordering::Acquire) & GTF_TYPE_MASK != 0
        };
        self.table.iter().enumerate().find_map(|(frame, page)| {
            let nth = page.words().chunks_exact(2).position(grants)?;
            Some((frame * ENTRIES_PER_FRAME + nth) as u32)
        })
    }

    pub(crate) fn free_pages(&self) -> usize {
        self.free.len()
    }

    pub(crate) fn used_pages(&self) -> usize {
        self.frames.len() - self.free.len()
    }

    /// Adds grant frame `index`; they come in order.
    pub(crate) fn add_grant_frame(&mut self, index: u32) -> Result<Arc<SimPage>, GrantError> {
        if index >= self.max_grant_frames {
            return Err(GrantError::Status(GrantStatus::GENERAL_ERROR));
        }
        if index as usize != self.table.len() {
            let domain = self.id;
            return Err(GrantError::Violation(Violation::GrantFrameOrder { domain, index }));
        }
        let page = SimPage::new();
        page.share();
        if index == 0 {
            for reserved in 0..2 {
                page.words()[2 * reserved].store(TOOLSTACK_FLAGS, Ordering::Relaxed);
            }
        }
        self.table.push(page.clone());
        self.active.resize_with(self.table.len() * ENTRIES_PER_FRAME, Active::default);
        Ok(page)
    }

    /// How many entries the table has now.
    pub(crate) fn entries(&self) -> u32 {
        self.active.len() as u32
    }

    /// An entry as it stands.
    pub(crate) fn entry(&self, gref: u32) -> Option<Entry> {
        let (page, word) = self.place(gref)?;
        let first = page.words()[word].load(Ordering::Acquire);
        Some(Entry {
            flags: first & 0xffff,
            peer: DomId((first >> 16) as u16),
            frame: page.words()[word + 1].load(Ordering::Acquire),
        })
    }

    /// Writes an entry as a driver would: the frame, then the flags.
    pub(crate) fn set_entry(&self, gref: u32, entry: Entry) -> bool {
        let Some((page, word)) = self.place(gref) else { return false };
        page.words()[word + 1].store(entry.frame, Ordering::Relaxed);
        let first = entry.flags & 0xffff | u32::from(entry.peer.0) << 16;
        page.words()[word].store(first, Ordering::Release);
        true
    }

    /// An entry that is all zero, if there is one.
    pub(crate) fn free_entry(&mut self) -> Option<u32> {
        let free = |gref: &u32| self.entry(*gref).is_some_and(|entry| entry.flags == 0);
        let later = self.hint..self.entries();
        let found = later.chain(RESERVED_ENTRIES..self.hint).find(free)?;
        self.hint = found + 1;
        Some(found)
    }

    /// Whether anybody uses the entry.
    pub(crate) fn in_use(&self, gref: u32) -> bool {
        self.active.get(gref as usize).is_some_and(Active::in_use)
    }

    /// The reserved entries that are not as the toolstack left them.
    pub(crate) fn spoiled_entries(&self) -> impl Iterator<Item = Violation> {
        let domain = self.id;
        (0..RESERVED_ENTRIES).filter_map(move |gref| {
            let entry = self.entry(gref)?;
            let flags = if gref < 2 { TOOLSTACK_FLAGS } else { 0 };
            let intact = Entry { flags, peer: DomId(0), frame: 0 };
            (entry != intact).then_some(Violation::ReservedEntry { domain, gref })
        })
    }

    fn place(&self, gref: u32) -> Option<(&SimPage, usize)> {
        let gref = gref as usize;
        let page = self.table.get(gref / ENTRIES_PER_FRAME)?;
        Some((page, gref % ENTRIES_PER_FRAME * 2))
    }

    /// Starts a use of a granted page by `peer`.
    pub(crate) fn pin(
        &mut self,
        peer: DomId,
        gref: u32,
        write: bool,
    ) -> Result<Arc<SimPage>, GrantStatus> {
        let Some(active) = self.active.get(gref as usize) else {
            return Err(GrantStatus::BAD_GNTREF);
        };
        if active.in_use() && active.peer != peer.0 {
            return Err(GrantStatus::GENERAL_ERROR);
        }
        if !active.in_use() || write && active.writers == 0 {
            self.set_status(peer, gref, write)?;
        }
        let page = match &self.active[gref as usize].page {
            Some((page, _)) => page.clone(),
            None => {
                let frame = self.entry(gref).map_or(0, |entry| entry.frame);
                let gfn = Gfn(u64::from(frame));
                let Some(page) = self.frame(gfn).cloned() else {
                    self.clear_status(gref, GTF_READING | GTF_WRITING);
                    return Err(GrantStatus::BAD_PAGE);
                };
                self.active[gref as usize].page = Some((page.clone(), gfn));
                page
            }
        };
        let active = &mut self.active[gref as usize];
        active.peer = peer.0;
        self.uses += 1;
        if write {
            active.writers += 1;
        } else {
            active.readers += 1;
        }
        Ok(page)
    }

    /// Ends a use.
    pub(crate) fn unpin(&mut self, gref: u32, write: bool) -> Result<(), Violation> {
        let Some(active) = self.active.get_mut(gref as usize) else { return Ok(()) };
        let count = if write { &mut active.writers } else { &mut active.readers };
        *count = count.saturating_sub(1);
        self.uses = self.uses.saturating_sub(1);
        let mut bits = 0;
        if write && active.writers == 0 {
            bits |= GTF_WRITING;
        }
        if !active.in_use() {
            bits |= GTF_READING;
            active.page = None;
        }
        if bits != 0 && self.clear_status(gref, bits) & bits != bits {
            return Err(Violation::EntryLostInUse { domain: self.id, gref });
        }
        Ok(())
    }

    fn set_status(&self, peer: DomId, gref: u32, write: bool) -> Result<(), GrantStatus> {
        let (page, word) = self.place(gref).ok_or(GrantStatus::BAD_GNTREF)?;
        let word = &page.words()[word];
        let mut old = word.load(Ordering::Acquire);
        for _ in 0..SET_STATUS_TRIES {
            let granted =
                old & GTF_TYPE_MASK == GTF_PERMIT_ACCESS && old >> 16 == u32::from(peer.0);
            if !granted || write && old & GTF_READONLY != 0 {
                return Err(GrantStatus::GENERAL_ERROR);
            }
            let new = old | GTF_READING | if write { GTF_WRITING } else { 0 };
            match word.compare_exchange(old, new, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Ok(()),
                Err(now) => old = now,
            }
        }
        Err(GrantStatus::GENERAL_ERROR)
    }

    /// Clears bits and tells the entry's first word as it was.
    fn clear_status(&self, gref: u32, bits: u32) -> u32 {
        match self.place(gref) {
            Some((page, word)) => page.words()[word].fetch_and(!bits, Ordering::AcqRel),
            None => 0,
        }
    }
}

/// Why a grant frame was refused.
pub(crate) enum GrantError {
    /// The hypervisor says no.
    Status(GrantStatus),
    /// The domain asked what it must not ask.
    Violation(Violation),
}
