//! The grant operations of a domain: map, unmap, copy (xen/grant_table.h).

use core::ptr::NonNull;
use std::sync::Arc;

use xen_grant::{CopyEnd, CopyOp, DomId, Gfn, GrantStatus, PAGE_SIZE, Page};

use crate::Domain;
use crate::domain::DomainInner;
use crate::fault::strike;
use crate::host::lock;
use crate::memory::{Entry, GrantError};
use crate::page::SimPage;
use crate::violation::Violation;

/// A page of somebody else's that we have mapped.
pub(crate) struct Map {
    owner: Arc<DomainInner>,
    gref: u32,
    writable: bool,
    page: Arc<SimPage>,
}

/// One end of a copy, held for as long as it takes.
struct Held {
    page: Arc<SimPage>,
    pinned: Option<(Arc<DomainInner>, u32, bool)>,
}

impl Domain {
    pub(crate) fn take_frame(&self) -> Option<(Arc<SimPage>, Gfn)> {
        if strike(&mut lock(&self.me.faults).alloc_page).is_some() {
            return None;
        }
        lock(&self.me.memory).alloc()
    }

    pub(crate) fn return_frame(&self, page: NonNull<Page>, gfn: Gfn) {
        let done = lock(&self.me.memory).release(gfn, |known| known.as_ptr() == page);
        if let (Err(violation), true) = (done, self.is_alive()) {
            self.host.violate(violation);
        }
    }

    pub(crate) fn add_grant_frame(&self, index: u32) -> Result<Arc<SimPage>, GrantStatus> {
        self.me.counters.other_calls.add(1);
        self.charge(self.host.costs().hypercall);
        if let Some(status) = strike(&mut lock(&self.me.faults).grant_frame) {
            return Err(status);
        }
        let added = lock(&self.me.memory).add_grant_frame(index);
        added.map_err(|error| match error {
            GrantError::Status(status) => status,
            GrantError::Violation(violation) => {
                self.host.violate(violation);
                GrantStatus::GENERAL_ERROR
            }
        })
    }

    pub(crate) fn grant_frame_limit(&self) -> u32 {
        lock(&self.me.memory).max_grant_frames
    }

    pub(crate) fn map(
        &self,
        owner: DomId,
        gref: u32,
        write: bool,
    ) -> Result<(u32, Arc<SimPage>), GrantStatus> {
        self.me.counters.maps.add(1);
        self.charge(self.host.costs().map);
        if let Some(status) = strike(&mut lock(&self.me.faults).map) {
            return Err(status);
        }
        let owner = self.owner(owner)?;
        let mut maps = lock(&self.me.maps);
        let free = maps.iter().position(Option::is_none);
        if free.is_none() && maps.len() >= self.me.max_maps {
            return Err(GrantStatus::NO_DEVICE_SPACE);
        }
        let page = lock(&owner.memory).pin(self.me.id, gref, write)?;
        page.share();
        let map = Map { owner, gref, writable: write, page: page.clone() };
        let handle = match free {
            Some(free) => {
                maps[free] = Some(map);
                free
            }
            None => {
                maps.push(Some(map));
                maps.len() - 1
            }
        };
        Ok((handle as u32, page))
    }

    fn owner(&self, id: DomId) -> Result<Arc<DomainInner>, GrantStatus> {
        let owner = self.host.domain(id).filter(|_| self.is_alive());
        owner.ok_or(GrantStatus::BAD_DOMAIN)
    }

    /// Ends a mapping; `at` is where the domain thinks it is.
    pub(crate) fn unmap(&self, handle: u32, at: Option<NonNull<Page>>) {
        self.me.counters.unmaps.add(1);
        self.charge(self.host.costs().map);
        let map = {
            let mut maps = lock(&self.me.maps);
            match maps.get_mut(handle as usize) {
                Some(place) => match (place.take(), at) {
                    (Some(map), Some(at)) if map.page.as_ptr() != at => {
                        *place = Some(map);
                        None
                    }
                    (found, _) => found,
                },
                None => None,
            }
        };
        match map {
            Some(map) => self.drop_map(map),
            None if !self.is_alive() => {} // the hypervisor has done it
            None if at.is_some_and(|at| self.find_lost(at)) => {} // it went when the domain moved
            None => self.host.violate(Violation::UnmappedUnknown { domain: self.me.id, handle }),
        }
    }

    /// A page of a mapping that ended when the domain moved is not looked at any more.
    fn find_lost(&self, at: NonNull<Page>) -> bool {
        let mut lost = lock(&self.me.lost);
        let found = lost.iter().position(|page| page.as_ptr() == at);
        found.map(|place| lost.swap_remove(place)).is_some()
    }

    /// Ends all mappings, as the hypervisor does for a domain that moves.
    pub(crate) fn lose_maps(&self) {
        let pages = lock(&self.me.maps).iter().flatten().map(|map| map.page.clone()).collect();
        *lock(&self.me.lost) = pages;
        self.unmap_all();
    }

    /// Ends all mappings, as the hypervisor does for a domain that dies.
    pub(crate) fn unmap_all(&self) {
        let maps = std::mem::take(&mut *lock(&self.me.maps));
        for map in maps.into_iter().flatten() {
            self.drop_map(map);
        }
    }

    fn drop_map(&self, map: Map) {
        map.page.unshare();
        self.unpin(&map.owner, map.gref, map.writable);
    }

    fn unpin(&self, owner: &DomainInner, gref: u32, write: bool) {
        let done = lock(&owner.memory).unpin(gref, write);
        if let Err(violation) = done {
            self.host.violate(violation);
        }
    }

    pub(crate) fn copy_batch(&self, ops: &mut [CopyOp]) {
        let costs = self.host.costs();
        self.me.counters.copy_calls.add(1);
        self.charge(costs.hypercall);
        for op in ops {
            self.me.counters.copies.add(1);
            self.charge(costs.copy_op);
            op.status = match self.copy_one(op) {
                Ok(()) => {
                    self.me.counters.copy_bytes.add(u64::from(op.len));
                    self.charge(costs.copy_bytes(op.len.into()));
                    GrantStatus::OKAY
                }
                Err(status) => {
                    self.me.counters.copy_errors.add(1);
                    status
                }
            };
        }
    }

    fn copy_one(&self, op: &CopyOp) -> Result<(), GrantStatus> {
        if let Some(status) = strike(&mut lock(&self.me.faults).copy) {
            return Err(status);
        }
        let source = self.hold(op.source, false)?;
        let dest = match self.hold(op.dest, true) {
            Ok(dest) => dest,
            Err(status) => {
                self.let_go(source);
                return Err(status);
            }
        };
        let len = usize::from(op.len);
        let (from, to) = (offset(op.source), offset(op.dest));
        let fits = from + len <= PAGE_SIZE && to + len <= PAGE_SIZE;
        if fits {
            SimPage::copy(&source.page, from, &dest.page, to, len);
        }
        self.let_go(source);
        self.let_go(dest);
        if fits { Ok(()) } else { Err(GrantStatus::BAD_COPY_ARG) }
    }

    fn hold(&self, end: CopyEnd, write: bool) -> Result<Held, GrantStatus> {
        match end {
            CopyEnd::Own { gfn, offset: _ } => {
                let page = lock(&self.me.memory).frame(gfn).cloned();
                Ok(Held { page: page.ok_or(GrantStatus::BAD_PAGE)?, pinned: None })
            }
            CopyEnd::Foreign { domain, gref, offset: _ } => {
                let owner = self.owner(domain)?;
                let page = lock(&owner.memory).pin(self.me.id, gref, write)?;
                Ok(Held { page, pinned: Some((owner, gref, write)) })
            }
        }
    }

    fn let_go(&self, held: Held) {
        if let Some((owner, gref, write)) = held.pinned {
            self.unpin(&owner, gref, write);
        }
    }

    /// Reads bytes of a page that `owner` has granted to this domain: one grant copy, word by
    /// word, so that it is sound even on a page that its owner uses at the same time.
    pub fn read_granted(
        &self,
        owner: DomId,
        gref: u32,
        offset: usize,
        into: &mut [u8],
    ) -> Result<(), GrantStatus> {
        self.touch(owner, gref, offset, into.len(), false, |page| page.read_words(offset, into))
    }

    /// Writes bytes to a page that `owner` has granted to this domain, word by word.
    pub fn write_granted(
        &self,
        owner: DomId,
        gref: u32,
        offset: usize,
        from: &[u8],
    ) -> Result<(), GrantStatus> {
        self.touch(owner, gref, offset, from.len(), true, |page| page.write_words(offset, from))
    }

    fn touch(
        &self,
        owner: DomId,
        gref: u32,
        offset: usize,
        len: usize,
        write: bool,
        act: impl FnOnce(&SimPage),
    ) -> Result<(), GrantStatus> {
        self.me.counters.copy_calls.add(1);
        self.me.counters.copies.add(1);
        let held = self.hold(CopyEnd::Foreign { domain: owner, gref, offset: 0 }, write)?;
        let fits = offset.checked_add(len).is_some_and(|end| end <= PAGE_SIZE);
        if fits {
            act(&held.page);
        }
        self.let_go(held);
        if fits { Ok(()) } else { Err(GrantStatus::BAD_COPY_ARG) }
    }

    /// An entry of this domain's grant table as it stands; `None` beyond the table.
    pub fn grant_entry(&self, gref: u32) -> Option<Entry> {
        lock(&self.me.memory).entry(gref)
    }

    /// The entries that permit access or are in use, reserved ones left out.
    pub fn grants(&self) -> Vec<(u32, Entry)> {
        let memory = lock(&self.me.memory);
        (crate::memory::RESERVED_ENTRIES..memory.entries())
            .filter_map(|gref| Some((gref, memory.entry(gref)?)))
            .filter(|(_, entry)| entry.flags != 0)
            .collect()
    }

    /// Which of this domain's frames has this number, counted from 0; `None` if none has. Unlike the
    /// number it is the same in every run.
    pub fn frame_index(&self, frame: u32) -> Option<u32> {
        lock(&self.me.memory).index_of(frame)
    }

    /// Moves the domain to another machine, as far as its grants are concerned: none of the old ones is
    /// there. Peers must have unmapped its pages.
    pub fn migrate_grants(&self) {
        lock(&self.me.memory).new_table();
    }

    /// Whether a peer has this entry's page mapped, or copies right now.
    pub fn grant_in_use(&self, gref: u32) -> bool {
        lock(&self.me.memory).in_use(gref)
    }
}

fn offset(end: CopyEnd) -> usize {
    match end {
        CopyEnd::Own { offset, .. } | CopyEnd::Foreign { offset, .. } => usize::from(offset),
    }
}
