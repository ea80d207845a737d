//! Batched grant copies between a client's pages and frames of ours.
//!
//! The hypervisor copies, so a client's page never enters our address space. Many operations go
//! out in one hypercall, and each has an outcome of its own. A batch owns the frames that it is
//! about until it has been submitted, so nothing else touches their bytes meanwhile.

use alloc::collections::TryReserveError;
use alloc::vec::Vec;
use core::ops::Range;

use crate::frame::{Frame, SharedFrame};
use crate::memory::{CopyEnd, CopyOp, DomId, ForeignMemory, GrantStatus, PAGE_SIZE};

/// A place in a client's granted page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Foreign {
    /// Who granted the page.
    pub domain: DomId,
    /// The grant reference, as the client gave it: the hypervisor checks it.
    pub gref: u32,
    /// First byte within the page.
    pub offset: u16,
}

/// An operation that can't be: it would cross the end of a page, or no frame is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyError;

impl core::fmt::Display for CopyError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("a grant copy would cross the end of a page")
    }
}

impl core::error::Error for CopyError {}

/// Both ends must lie within a page; returns the length as the hypervisor wants it.
fn checked(foreign: Foreign, own: &Range<usize>) -> Result<u16, CopyError> {
    let len = own.end.checked_sub(own.start).ok_or(CopyError)?;
    if own.end > PAGE_SIZE || usize::from(foreign.offset) + len > PAGE_SIZE {
        return Err(CopyError);
    }
    u16::try_from(len).map_err(|_| CopyError)
}

fn foreign_end(foreign: Foreign) -> CopyEnd {
    CopyEnd::Foreign { domain: foreign.domain, gref: foreign.gref, offset: foreign.offset }
}

/// Copies from a client's pages into frames of ours.
#[derive(Default)]
pub struct CopyIn {
    frames: Vec<Frame>,
    ops: Vec<CopyOp>,
}

impl CopyIn {
    /// Room for that many frames and operations, allocated once.
    pub fn with_capacity(frames: usize, ops: usize) -> CopyIn {
        CopyIn { frames: Vec::with_capacity(frames), ops: Vec::with_capacity(ops) }
    }

    /// Sees to room for so many more frames and operations, if there is memory for it.
    pub fn try_reserve(&mut self, frames: usize, ops: usize) -> Result<(), TryReserveError> {
        self.frames.try_reserve_exact(frames)?;
        self.ops.try_reserve_exact(ops)
    }

    /// Operations so far.
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// Frames so far.
    pub fn frames(&self) -> usize {
        self.frames.len()
    }

    /// Adds a frame for the following operations to fill.
    pub fn frame(&mut self, frame: Frame) {
        self.frames.push(frame);
    }

    /// Copies into bytes `to` of the frame added last.
    pub fn push(&mut self, from: Foreign, to: Range<usize>) -> Result<(), CopyError> {
        let len = checked(from, &to)?;
        let frame = self.frames.last_mut().ok_or(CopyError)?;
        frame.mark(to.clone());
        let dest = CopyEnd::Own { gfn: frame.gfn(), offset: to.start as u16 };
        self.ops.push(CopyOp {
            source: foreign_end(from),
            dest,
            len,
            status: GrantStatus::GENERAL_ERROR,
        });
        Ok(())
    }

    /// Forgets the operations from number `op` on, and the frames from number `frame` on: a packet
    /// that turned out bad. Operations before `op` go too if their frame goes.
    pub fn truncate(&mut self, frame: usize, op: usize) {
        self.ops.truncate(op);
        let gone = self.frames.get(frame..).unwrap_or_default();
        let into_gone = |op: &CopyOp| {
            gone.iter()
                .any(|frame| matches!(op.dest, CopyEnd::Own { gfn, .. } if gfn == frame.gfn()))
        };
        // Operations are in the order of their frames.
        while self.ops.pop_if(|op| into_gone(op)).is_some() {}
        self.frames.truncate(frame);
    }

    /// Copies: one hypercall. Without operations, none.
    pub fn submit<M: ForeignMemory>(&mut self, memory: &M) {
        if !self.ops.is_empty() {
            // SAFETY: every operation writes into a frame that we own and nobody borrows, at
            // bytes that lie in its page. If it is a frame of another domain, its number names no
            // page of this one (`Memory::alloc_page`).
            unsafe { memory.grant_copy(&mut self.ops) }
        }
    }

    /// Whether the operations `ops` all succeeded.
    pub fn succeeded(&self, ops: Range<usize>) -> bool {
        self.ops.get(ops).is_some_and(|ops| ops.iter().all(|op| op.status.is_okay()))
    }

    /// Takes the frames back in the order they were added, and forgets the operations.
    pub fn take(&mut self) -> impl Iterator<Item = Frame> + '_ {
        self.ops.clear();
        self.frames.drain(..)
    }
}

/// Copies from frames of ours into a client's pages.
#[derive(Default)]
pub struct CopyOut {
    frames: Vec<SharedFrame>,
    ops: Vec<CopyOp>,
}

impl CopyOut {
    /// Room for that many frames and operations, allocated once.
    pub fn with_capacity(frames: usize, ops: usize) -> CopyOut {
        CopyOut { frames: Vec::with_capacity(frames), ops: Vec::with_capacity(ops) }
    }

    /// Sees to room for so many more frames and operations, if there is memory for it.
    pub fn try_reserve(&mut self, frames: usize, ops: usize) -> Result<(), TryReserveError> {
        self.frames.try_reserve_exact(frames)?;
        self.ops.try_reserve_exact(ops)
    }

    /// Frames so far.
    pub fn frames(&self) -> usize {
        self.frames.len()
    }

    /// Operations so far.
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// Adds a frame for the following operations to read.
    pub fn frame(&mut self, frame: SharedFrame) {
        self.frames.push(frame);
    }

    /// Copies bytes `from` of the frame added last.
    pub fn push(&mut self, from: Range<usize>, to: Foreign) -> Result<(), CopyError> {
        let len = checked(to, &from)?;
        let frame = self.frames.last().ok_or(CopyError)?;
        let source = CopyEnd::Own { gfn: frame.gfn(), offset: from.start as u16 };
        self.ops.push(CopyOp {
            source,
            dest: foreign_end(to),
            len,
            status: GrantStatus::GENERAL_ERROR,
        });
        Ok(())
    }

    /// Copies: one hypercall. Without operations, none.
    pub fn submit<M: ForeignMemory>(&mut self, memory: &M) {
        if !self.ops.is_empty() {
            // SAFETY: every operation reads a shared frame that we hold a share of, at bytes that
            // lie in its page; nobody writes a shared frame. For one of another domain, as above.
            unsafe { memory.grant_copy(&mut self.ops) }
        }
    }

    /// Whether the operations `ops` all succeeded.
    pub fn succeeded(&self, ops: Range<usize>) -> bool {
        self.ops.get(ops).is_some_and(|ops| ops.iter().all(|op| op.status.is_okay()))
    }

    /// Forgets frames and operations.
    pub fn clear(&mut self) {
        // In this order no operation is ever there without its frame, even if a frame that goes
        // home takes its pool along, and the platform panics over it.
        self.ops.clear();
        self.frames.clear();
    }
}

impl core::fmt::Debug for CopyIn {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "CopyIn({} operations into {} frames)", self.ops.len(), self.frames.len())
    }
}

impl core::fmt::Debug for CopyOut {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "CopyOut({} operations from {} frames)", self.ops.len(), self.frames.len())
    }
}
