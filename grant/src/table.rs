//! The grant table: which of our pages a peer may use.
//!
//! Version 1 of the table (xen/grant_table.h), the one that every Xen has. An entry is two words:
//!
//! ```text
//!          31            16 15             0          flags: 1 permit_access
//! word 0  |     domid      |     flags      |                4 readonly
//! word 1  |          frame number           |                8 reading  (set by Xen while
//!                                                           16 writing   the peer uses it)
//! ```
//!
//! A frame of the table holds 512 entries. Frames are mapped one after another as references are
//! claimed, up to what the hypervisor allows; the first 8 entries are the toolstack's (console,
//! xenstore) and left as they are. The last one of the first frame permits nobody anything: a number in
//! it tells this table from the new, empty one that a domain finds where it has been restored or
//! migrated to.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ptr::NonNull;

use bitvec::vec::BitVec;
use spin::Mutex;

use crate::granted::Held;
use crate::memory::{GrantStatus, Memory, Words};
use crate::sync::{AtomicU32, Ordering};

/// Entries that the toolstack uses (`GNTTAB_NR_RESERVED_ENTRIES`).
const RESERVED: usize = 8;
/// Entries in a frame of the table.
const PER_FRAME: usize = 512;

/// The entry that has the mark, and its number.
const MARKED: usize = PER_FRAME - 1;
const MARK: u32 = u32::from_le_bytes(*b"here");

/// What a [`Reference`] points to; one for each entry, never moved.
pub(crate) struct Entry {
    words: NonNull<[AtomicU32; 2]>,
    table: *const Inner,
    number: u32,
}

impl Entry {
    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    /// The entry's two words.
    #[inline]
    pub(crate) fn words(&self) -> &[AtomicU32; 2] {
        // SAFETY: `Memory::grant_frame` promises that the frame stays as long as the handle in
        // the table, and the table outlives its references.
        unsafe { self.words.as_ref() }
    }
}

struct State {
    /// One bit an entry, set while it is free.
    free: BitVec,
    /// Where to look first.
    hint: usize,
    entries: Vec<Box<[Entry]>>,
    claimed: usize,
    /// Machines that the domain has been on, this one included, counted from 0.
    machine: u64,
    /// Grants that their device could not end before it went away.
    quarantine: Vec<Held>,
}

impl State {
    fn usage(&self) -> TableUse {
        TableUse {
            entries: self.free.len(),
            claimed: self.claimed,
            quarantined: self.quarantine.len(),
        }
    }

    /// Sees to it that the table has its mark; whether it had none.
    fn set_mark(&self) -> bool {
        let Some(entry) = self.entries.first().and_then(|frame| frame.get(MARKED)) else {
            return false;
        };
        let [_, frame] = entry.words();
        frame.swap(MARK, Ordering::Relaxed) != MARK
    }
}

type MapFrame = dyn Fn(u32) -> Result<NonNull<Words>, GrantStatus> + Send + Sync;

pub(crate) struct Inner {
    state: Mutex<State>,
    most_frames: usize,
    map_frame: Box<MapFrame>,
}

// SAFETY: the pointers in it are to grant frames, which are atomics, and to the table itself.
unsafe impl Send for Inner {}
// SAFETY: as above; everything that changes is under the lock.
unsafe impl Sync for Inner {}

/// A reference that can't be claimed: the table has grown to the hypervisor's limit, or growing
/// failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClaimError(pub GrantStatus);

impl core::fmt::Display for ClaimError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "no grant reference is free ({})", self.0)
    }
}

impl core::error::Error for ClaimError {}

/// How a table is used, at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TableUse {
    /// Entries in the frames mapped so far.
    pub entries: usize,
    /// References claimed.
    pub claimed: usize,
    /// Grants that a peer still uses although their device is gone.
    pub quarantined: usize,
}

/// The domain's grant table. Clones stand for the same one; a domain has only one.
///
/// References are claimed when a device starts, under a lock; the packet path then grants and
/// revokes with its own references, and meets neither lock nor map.
#[derive(Clone)]
pub struct GrantTable(Arc<Inner>);

impl GrantTable {
    /// Takes over the domain's grant table. To be called once for a domain: the frames of the
    /// table are the first one's that asks, and any other table finds itself full
    /// ([`claim`](GrantTable::claim) fails).
    pub fn new<M: Memory>(memory: &M) -> GrantTable {
        let memory = memory.clone();
        let most_frames = memory.max_grant_frames() as usize;
        let state = State {
            free: BitVec::new(),
            hint: RESERVED,
            entries: Vec::new(),
            claimed: 0,
            machine: 0,
            quarantine: Vec::new(),
        };
        GrantTable(Arc::new(Inner {
            state: Mutex::new(state),
            most_frames,
            map_frame: Box::new(move |index| memory.grant_frame(index)),
        }))
    }

    /// Claims a reference. It is the caller's until dropped.
    pub fn claim(&self) -> Result<Reference, ClaimError> {
        let state = &mut *self.0.state.lock();
        let from = state.hint.min(state.free.len());
        let found = state.free[from..].first_one().map(|at| from + at);
        let number = match found.or_else(|| state.free.first_one()) {
            Some(number) => number,
            None => self.grow(state)?,
        };
        state.free.set(number, false);
        state.hint = number + 1;
        state.claimed += 1;
        // Every claimed reference may end up in quarantine, where making room is no option.
        let room = state.claimed - state.quarantine.len().min(state.claimed);
        state.quarantine.reserve(room);
        Ok(Reference::new(
            NonNull::from(&state.entries[number / PER_FRAME][number % PER_FRAME]),
            &self.0,
        ))
    }

    /// Claims `count` references, or none.
    pub fn claim_many(&self, count: usize) -> Result<Vec<Reference>, ClaimError> {
        (0..count).map(|_| self.claim()).collect()
    }

    /// Maps the next frame of the table; returns its first free entry.
    fn grow(&self, state: &mut State) -> Result<usize, ClaimError> {
        let index = state.entries.len();
        if index >= self.0.most_frames {
            return Err(ClaimError(GrantStatus::NO_SPACE));
        }
        let frame = (self.0.map_frame)(index as u32).map_err(ClaimError)?;
        let first = index * PER_FRAME;
        let entry = |at: usize| Entry {
            // SAFETY: a frame of the table has 512 entries of two words.
            words: unsafe { frame.cast::<[AtomicU32; 2]>().add(at) },
            table: Arc::as_ptr(&self.0),
            number: (first + at) as u32,
        };
        state.entries.push((0..PER_FRAME).map(entry).collect());
        state.free.resize(first + PER_FRAME, true);
        if index == 0 {
            state.free[..RESERVED].fill(false);
            state.free.set(MARKED, false);
            state.set_mark();
        }
        Ok(first.max(RESERVED))
    }

    /// On which machine the domain is, counted from 0, for [`Grantee::on_machine`](crate::Grantee): what
    /// a domain over there has seen, the one with its number over here has not.
    ///
    /// A domain that is resumed from being saved or migrated has a new grant table, and that is seen here
    /// by itself once the table's frames are mapped again. A checkpoint changes nothing.
    pub fn machine(&self) -> u64 {
        let state = &mut *self.0.state.lock();
        if state.set_mark() {
            state.machine += 1;
        }
        state.machine
    }

    /// The domain has left `machine`, as somebody knows who was told so; returns where it is now. Told
    /// by several, it counts once.
    pub fn left(&self, machine: u64) -> u64 {
        let now = self.machine();
        let state = &mut *self.0.state.lock();
        if now == machine {
            state.machine += 1;
        }
        state.machine
    }

    /// Tries again to end the grants in quarantine; returns how many ended.
    pub fn sweep(&self) -> usize {
        let mut ended = 0;
        for _ in 0..self.usage().quarantined {
            // Not under the lock: a reference that comes free takes it. What fails goes back into
            // room that is still there.
            let Some(held) = self.0.state.lock().quarantine.pop() else { break };
            if held.retry() {
                ended += 1;
            } else {
                self.0.state.lock().quarantine.insert(0, held);
            }
        }
        ended
    }

    /// How the table is used now.
    pub fn usage(&self) -> TableUse {
        self.0.state.lock().usage()
    }
}

/// A reference of the grant table, ours and granting nothing. One pointer wide.
pub struct Reference {
    entry: NonNull<Entry>,
}

// SAFETY: an entry is immutable but for the grant entry's atomics.
unsafe impl Send for Reference {}
// SAFETY: as above.
unsafe impl Sync for Reference {}

impl Reference {
    fn new(entry: NonNull<Entry>, table: &Arc<Inner>) -> Reference {
        // The reference keeps the table: it is a clone of the `Arc` until dropped.
        let _kept = Arc::into_raw(Arc::clone(table));
        Reference { entry }
    }

    pub(crate) fn from_entry(entry: NonNull<Entry>) -> Reference {
        Reference { entry }
    }

    pub(crate) fn into_entry(self) -> NonNull<Entry> {
        let entry = self.entry;
        core::mem::forget(self);
        entry
    }

    fn entry(&self) -> &Entry {
        // SAFETY: entries live as long as the table, which the reference keeps.
        unsafe { self.entry.as_ref() }
    }

    /// Its number, as the peer is told (`grant_ref_t`).
    pub fn number(&self) -> u32 {
        self.entry().number
    }
}

/// Keeps a grant that could not be ended, until a [`GrantTable::sweep`] ends it.
pub(crate) fn quarantine(held: Held) {
    // SAFETY: the grant's reference keeps the table.
    let table = unsafe { &*held.entry().table };
    let mut state = table.state.lock();
    let is_first = state.quarantine.is_empty();
    state.quarantine.push(held);
    drop(state);
    // One of maybe thousands.
    if is_first {
        log::warn!("pages are still in use by their peer; kept in quarantine");
    }
}

impl Drop for Reference {
    // Out of line: a driver keeps its references until it goes away.
    #[cold]
    #[inline(never)]
    fn drop(&mut self) {
        let (number, table) = (self.entry().number as usize, self.entry().table);
        // SAFETY: `Reference::new` left this clone of the `Arc` to us.
        let table = unsafe { Arc::from_raw(table) };
        let mut state = table.state.lock();
        state.free.set(number, true);
        state.hint = state.hint.min(number);
        state.claimed -= 1;
        drop(state);
    }
}

impl core::fmt::Debug for Reference {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Reference({})", self.number())
    }
}

impl core::fmt::Debug for GrantTable {
    /// Waits for no lock: where somebody else has the table just now, it says no more than that.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.0.state.try_lock().map(|state| state.usage()) {
            Some(TableUse { entries, claimed, quarantined }) => {
                write!(f, "GrantTable({claimed} of {entries} claimed, {quarantined} in quarantine)")
            }
            None => f.write_str("GrantTable(locked)"),
        }
    }
}
