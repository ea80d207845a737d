//! A page that a peer may use: no bytes, only its reference.

use core::marker::PhantomData;
use core::num::NonZero;
use core::ops::Range;
use core::ptr::NonNull;

use crate::exposure::Grantee;
use crate::frame::{FitFrame, Frame, SharedFrame};
use crate::memory::Page;
use crate::pool::Record;
use crate::sync::Ordering;
use crate::table::{Entry, Reference, quarantine};

const PERMIT_ACCESS: u32 = 1;
const READONLY: u32 = 4;
const READING: u32 = 8;
const WRITING: u32 = 16;

mod sealed {
    /// A granted page, to the modules here.
    pub trait Sealed: Sized {
        /// What was granted.
        type Page;

        fn page(held: super::Held) -> Self::Page;
    }
}

/// What the peer may do with a granted page, and what we get back.
pub trait Access: sealed::Sealed {
    /// Whether it may only read.
    const READ_ONLY: bool;
}

/// The peer may read.
#[derive(Debug)]
pub enum ReadOnly {}

/// The peer may read and write.
#[derive(Debug)]
pub enum ReadWrite {}

/// The peer may read, and if the page is [shared](Readable::Shared), so may we.
#[derive(Debug)]
pub enum ReadShared {}

/// A page that a peer has read: what was granted to it.
#[derive(Debug)]
pub enum Readable {
    /// It is ours alone.
    Own(Frame),
    /// Others may read it too.
    Shared(SharedFrame),
}

impl sealed::Sealed for ReadOnly {
    type Page = Frame;

    #[inline]
    fn page(held: Held) -> Frame {
        Frame::from_record(held.record)
    }
}

impl sealed::Sealed for ReadWrite {
    type Page = Frame;

    #[inline]
    fn page(held: Held) -> Frame {
        Frame::from_record(held.record)
    }
}

impl sealed::Sealed for ReadShared {
    type Page = Readable;

    #[inline]
    fn page(held: Held) -> Readable {
        held.readable()
    }
}

impl Access for ReadOnly {
    const READ_ONLY: bool = true;
}

impl Access for ReadWrite {
    const READ_ONLY: bool = false;
}

impl Access for ReadShared {
    const READ_ONLY: bool = true;
}

impl Reference {
    /// Lets a peer use the frame's page.
    ///
    /// The page is visible as a whole. `announced` are the bytes that the message is about: what
    /// lies outside and is neither zero nor known to the peer is cleared first. Returns how many
    /// bytes that were; 0 in steady traffic.
    #[inline]
    pub fn grant<A: Access>(
        self,
        mut frame: Frame,
        to: &Grantee,
        announced: Range<usize>,
    ) -> (Granted<A>, usize) {
        if frame.show_as_is(to, &announced) {
            return (self.permit(frame, to), 0);
        }
        self.grant_cleared(frame, to, announced)
    }

    /// [`grant`](Reference::grant), after clearing what the peer must not see.
    #[cold]
    #[inline(never)]
    fn grant_cleared<A: Access>(
        self,
        mut frame: Frame,
        to: &Grantee,
        announced: Range<usize>,
    ) -> (Granted<A>, usize) {
        let cleared = frame.show(to, announced);
        (self.permit(frame, to), cleared)
    }

    /// Lets a peer read a page that others read too.
    #[inline]
    pub fn grant_shared(self, page: FitFrame) -> Granted<ReadShared> {
        let FitFrame { frame, to } = page;
        let gfn = frame.gfn().0 as u32;
        let held = Held { entry: self.into_entry(), record: tagged(frame.into_record()) };
        held.permit(gfn, &to)
    }

    /// Writes the grant entry, for a frame that is fit to be seen.
    #[inline]
    fn permit<A: Access>(self, frame: Frame, to: &Grantee) -> Granted<A> {
        let gfn = frame.gfn().0 as u32;
        let held = Held { entry: self.into_entry(), record: frame.into_record() };
        held.permit(gfn, to)
    }
}

/// Says of a granted page that what was granted is a share of it: the lowest bit, for records lie at
/// multiples of 8.
const SHARE: usize = 1;
const _: () = assert!(align_of::<Record>() > SHARE);

fn tagged(record: NonNull<Record>) -> NonNull<Record> {
    record.map_addr(|at| at | SHARE)
}

/// A granted page, whatever the access: a bare pair of handles, for the owners below to move.
#[derive(Clone, Copy, Debug)]
pub struct Held {
    entry: NonNull<Entry>,
    /// With [`SHARE`] in it, or without.
    record: NonNull<Record>,
}

// SAFETY: it stands for a `Reference` and a `Frame` or `SharedFrame`, which are `Send`.
unsafe impl Send for Held {}
// SAFETY: as above, all are `Sync`.
unsafe impl Sync for Held {}

impl Held {
    /// Lets the peer in.
    #[inline]
    fn permit<A: Access>(self, gfn: u32, to: &Grantee) -> Granted<A> {
        let flags = if A::READ_ONLY { PERMIT_ACCESS | READONLY } else { PERMIT_ACCESS };
        let [permit, frame] = self.entry().words();
        // A frame of another domain is no page of this one (`Memory`): the peer gets an error.
        frame.store(gfn, Ordering::Relaxed);
        // Release: whoever sees the permit sees the frame number and the page's bytes.
        permit.store(flags | to.permit, Ordering::Release);
        Granted { held: self, access: PhantomData }
    }

    #[inline]
    pub(crate) fn entry(&self) -> &Entry {
        // SAFETY: entries live as long as the table, which the reference in us keeps.
        unsafe { self.entry.as_ref() }
    }

    /// Ends the peer's access, unless it uses the page at this moment.
    #[inline]
    fn end(&self) -> bool {
        let [word, _] = self.entry().words();
        let now = word.load(Ordering::Relaxed);
        // One exchange, whose outcome counts. If Xen sets a bit between the load and here, the
        // peer has just begun to use the page, and that is a failure like any other.
        now & (READING | WRITING) == 0
            && word.compare_exchange(now, 0, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// What was granted.
    #[inline]
    fn readable(self) -> Readable {
        let at = self.record.addr().get();
        if at & SHARE == 0 {
            return Readable::Own(Frame::from_record(self.record));
        }
        Readable::Shared(SharedFrame::from_record(self.record.map_addr(|at| {
            // Not the first byte of memory, so neither is what it lies at a byte before.
            NonZero::new(at.get() & !SHARE).unwrap_or(at)
        })))
    }

    #[inline]
    fn into_parts<A: Access>(self) -> (A::Page, Reference) {
        (A::page(self), Reference::from_entry(self.entry))
    }

    /// For the quarantine: ends the grant and lets frame and reference go home.
    pub(crate) fn retry(self) -> bool {
        let ended = self.end();
        if ended {
            drop(self.into_parts::<ReadShared>());
        }
        ended
    }
}

/// A page that the peer may use at any moment. It has no bytes; [`revoke`](Granted::revoke) ends
/// the access and gives the frame back.
///
/// Dropped, it revokes; if the peer still uses the page, page and reference go to the table's
/// quarantine, and are never reused before the access has ended.
pub struct Granted<A: Access> {
    held: Held,
    access: PhantomData<A>,
}

// SAFETY: the access marker is never instantiated; the rest is `Held`.
unsafe impl<A: Access> Send for Granted<A> {}
// SAFETY: as above.
unsafe impl<A: Access> Sync for Granted<A> {}

/// A revoke that failed: the peer uses the page at this moment. The grant is as it was.
pub struct StillInUse<A: Access>(pub Granted<A>);

impl<A: Access> Granted<A> {
    /// The grant reference, as the peer is told.
    #[inline]
    pub fn number(&self) -> u32 {
        self.held.entry().number()
    }

    /// Ends the peer's access: one compare-exchange on the entry. The page is a [`Frame`], or with
    /// [`ReadShared`] a [`Readable`].
    #[inline]
    pub fn revoke(self) -> Result<(A::Page, Reference), StillInUse<A>> {
        if self.held.end() { Ok(self.into_held().into_parts::<A>()) } else { Err(StillInUse(self)) }
    }

    pub(crate) fn into_held(self) -> Held {
        let held = self.held;
        core::mem::forget(self);
        held
    }
}

impl Granted<ReadWrite> {
    pub(crate) fn page(&self) -> NonNull<Page> {
        // SAFETY: a pool's records live until all frames are home, and this one is out.
        unsafe { self.held.record.as_ref() }.page
    }
}

impl<A: Access> Drop for Granted<A> {
    // Out of line: a driver revokes, and drops only when it goes away.
    #[cold]
    #[inline(never)]
    fn drop(&mut self) {
        if !self.held.retry() {
            quarantine(self.held);
        }
    }
}

impl<A: Access> core::fmt::Debug for Granted<A> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Granted({})", self.number())
    }
}

impl<A: Access> core::fmt::Debug for StillInUse<A> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_tuple("StillInUse").field(&self.0).finish()
    }
}

impl<A: Access> core::fmt::Display for StillInUse<A> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "the peer is using the page of grant reference {}", self.0.number())
    }
}

impl<A: Access> core::error::Error for StillInUse<A> {}

const _: () = assert!(size_of::<Option<Granted<ReadShared>>>() == 16);
