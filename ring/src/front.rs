//! The end that asks.

use core::marker::PhantomData;

use crate::page::{REQ_EVENT, REQ_PROD, RSP_EVENT, RSP_PROD, RingPage, SLOTS};
use crate::protocol::{Protocol, read, write};
use crate::{Full, Notify, PeerFault, notify};

/// The front end of a ring: pushes requests, pops responses.
///
/// ```text
///        rsp_cons      rsp_seen        published       req_prod
/// --------|--------------|-----------------|---------------|---------> index
///  done   | responses    | requests that   | requests not  | free
///         | not popped   | the peer has    | shown yet     |
/// ```
pub struct FrontRing<P: Protocol, M: RingPage> {
    page: M,
    req_prod: u32,
    /// Where `push` has to look anew whether there is room: at most `rsp_cons` and a round.
    req_limit: u32,
    published: u32,
    rsp_seen: u32,
    rsp_cons: u32,
    fault: Option<PeerFault>,
    protocol: PhantomData<P>,
}

impl<P: Protocol, M: RingPage> FrontRing<P, M> {
    /// Slots of the ring, a power of two.
    pub const SIZE: u32 = P::SIZE;

    /// Makes an empty ring on a page that no peer has seen yet (`SHARED_RING_INIT`).
    pub fn new(page: M) -> FrontRing<P, M> {
        FrontRing::starting_at(page, 0)
    }

    /// As [`new`](FrontRing::new), with the indices at `start`. They wrap, so any start will do;
    /// tests begin shortly before the wrap.
    pub fn starting_at(page: M, start: u32) -> FrontRing<P, M> {
        for word in 0..SLOTS + P::SIZE as usize * P::SLOT_WORDS {
            page.store(word, 0);
        }
        page.store(REQ_PROD, start);
        page.store(REQ_EVENT, start.wrapping_add(1));
        page.store(RSP_PROD, start);
        page.store(RSP_EVENT, start.wrapping_add(1));
        FrontRing::adopt(page, start)
    }

    /// As [`starting_at`](FrontRing::starting_at), on a page that holds such an empty ring
    /// already.
    pub fn adopt(page: M, start: u32) -> FrontRing<P, M> {
        FrontRing {
            page,
            req_prod: start,
            req_limit: start.wrapping_add(P::SIZE),
            published: start,
            rsp_seen: start,
            rsp_cons: start,
            fault: None,
            protocol: PhantomData,
        }
    }

    /// How many more requests fit.
    #[inline]
    pub fn free(&self) -> u32 {
        P::SIZE - self.req_prod.wrapping_sub(self.rsp_cons)
    }

    /// How many published requests have no popped response yet.
    #[inline]
    pub fn outstanding(&self) -> u32 {
        self.published.wrapping_sub(self.rsp_cons)
    }

    /// How many pushed requests have not been published.
    #[inline]
    pub fn staged(&self) -> u32 {
        self.req_prod.wrapping_sub(self.published)
    }

    /// The index that the next [`push`](FrontRing::push) writes.
    #[inline]
    pub fn next_index(&self) -> u32 {
        self.req_prod
    }

    /// The index up to which (exclusive) requests have been published.
    #[inline]
    pub fn published(&self) -> u32 {
        self.published
    }

    /// The index up to which (exclusive) responses have been popped.
    #[inline]
    pub fn consumed(&self) -> u32 {
        self.rsp_cons
    }

    /// Writes a request into the next slot. The peer sees it with the next
    /// [`publish`](FrontRing::publish).
    #[inline]
    pub fn push(&mut self, request: P::Request) -> Result<u32, Full> {
        Ok(self.slot()?.push(request))
    }

    /// The next slot, for whoever must know that there is one before making the request.
    #[inline]
    pub fn slot(&mut self) -> Result<Slot<'_, P, M>, Full> {
        if self.req_prod == self.req_limit {
            self.move_limit()?;
        }
        Ok(Slot { page: &self.page, req_prod: &mut self.req_prod, protocol: PhantomData })
    }

    /// Responses popped since the last time have made room.
    #[cold]
    fn move_limit(&mut self) -> Result<(), Full> {
        if self.free() == 0 {
            return Err(Full);
        }
        self.req_limit = self.rsp_cons.wrapping_add(P::SIZE);
        Ok(())
    }

    /// Shows the peer all requests pushed so far.
    ///
    /// Publishing nothing notifies nobody, and so does a poisoned ring.
    pub fn publish(&mut self) -> Notify {
        let (old, new) = (self.published, self.req_prod);
        if old == new || self.fault.is_some() {
            return Notify::Suppressed;
        }
        self.page.store_release(REQ_PROD, new);
        self.published = new;
        // The peer sets its threshold, then looks at the index; we set the index, then look at
        // the threshold. Without a fence on both sides each may miss the other's store.
        self.page.full_fence();
        notify(old, new, self.page.load(REQ_EVENT))
    }

    /// Looks, once, how far the peer has come, and returns how many responses can be popped.
    pub fn refresh(&mut self) -> Result<u32, PeerFault> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        let shared = self.page.load_acquire(RSP_PROD);
        let (there, most) = (shared.wrapping_sub(self.rsp_cons), self.outstanding());
        // An index below the one last seen is as impossible as one beyond what was asked.
        if there > most || there < self.rsp_seen.wrapping_sub(self.rsp_cons) {
            return Err(self.poison(PeerFault::IndexOverrun {
                shared,
                consumed: self.rsp_cons,
                most,
            }));
        }
        self.rsp_seen = shared;
        Ok(there)
    }

    /// Takes the next of the responses that [`refresh`](FrontRing::refresh) found, with its ring
    /// index.
    #[inline]
    pub fn pop(&mut self) -> Option<(u32, P::Response)> {
        if self.rsp_cons == self.rsp_seen {
            return None;
        }
        let index = self.rsp_cons;
        self.rsp_cons = index.wrapping_add(1);
        Some((index, read::<P, _>(&self.page, index)))
    }

    /// Takes all the responses that [`refresh`](FrontRing::refresh) found, one after another. Those
    /// not asked for stay for the next time.
    #[inline]
    pub fn pop_all(&mut self) -> Responses<'_, P, M> {
        Responses {
            page: &self.page,
            next: self.rsp_cons,
            seen: self.rsp_seen,
            rsp_cons: &mut self.rsp_cons,
            protocol: PhantomData,
        }
    }

    /// Asks for an event `ahead` responses from now (at least 1), and says whether one is there
    /// already: then poll again, for that event may never come (`RING_FINAL_CHECK_FOR_RESPONSES`).
    pub fn arm(&mut self, ahead: u32) -> Result<bool, PeerFault> {
        self.page.store(RSP_EVENT, self.rsp_cons.wrapping_add(ahead.max(1)));
        self.page.full_fence();
        Ok(self.refresh()? >= ahead.max(1))
    }

    /// Breaks the ring for good: nothing is published or found any more.
    #[cold]
    pub fn poison(&mut self, fault: PeerFault) -> PeerFault {
        self.rsp_seen = self.rsp_cons;
        *self.fault.get_or_insert(fault)
    }

    /// What broke the ring, if something has.
    pub fn fault(&self) -> Option<PeerFault> {
        self.fault
    }

    /// The page, for whoever ends the peer's access to it.
    pub fn into_page(self) -> M {
        self.page
    }
}

/// A free slot of the ring; see [`FrontRing::slot`].
pub struct Slot<'a, P: Protocol, M: RingPage> {
    page: &'a M,
    req_prod: &'a mut u32,
    protocol: PhantomData<P>,
}

impl<P: Protocol, M: RingPage> Slot<'_, P, M> {
    /// The ring index that [`push`](Slot::push) writes.
    #[inline]
    pub fn index(&self) -> u32 {
        *self.req_prod
    }

    /// Writes a request. The peer sees it with the next [`publish`](FrontRing::publish).
    #[inline]
    pub fn push(self, request: P::Request) -> u32 {
        let index = self.index();
        write::<P, _>(self.page, index, request);
        *self.req_prod = index.wrapping_add(1);
        index
    }
}

/// The responses of one look at the ring; see [`FrontRing::pop_all`].
pub struct Responses<'a, P: Protocol, M: RingPage> {
    page: &'a M,
    next: u32,
    seen: u32,
    /// Where the ring learns how many were taken.
    rsp_cons: &'a mut u32,
    protocol: PhantomData<P>,
}

impl<P: Protocol, M: RingPage> Iterator for Responses<'_, P, M> {
    type Item = (u32, P::Response);

    #[inline]
    fn next(&mut self) -> Option<(u32, P::Response)> {
        if self.next == self.seen {
            return None;
        }
        let index = self.next;
        self.next = index.wrapping_add(1);
        Some((index, read::<P, _>(self.page, index)))
    }
}

impl<P: Protocol, M: RingPage> Drop for Responses<'_, P, M> {
    #[inline]
    fn drop(&mut self) {
        *self.rsp_cons = self.next;
    }
}

impl<P: Protocol, M: RingPage> core::fmt::Debug for FrontRing<P, M> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("FrontRing")
            .field("req_prod", &self.req_prod)
            .field("published", &self.published)
            .field("rsp_seen", &self.rsp_seen)
            .field("rsp_cons", &self.rsp_cons)
            .field("fault", &self.fault)
            .finish_non_exhaustive()
    }
}

impl<P: Protocol, M: RingPage> core::fmt::Debug for Slot<'_, P, M> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Slot({})", self.index())
    }
}

impl<P: Protocol, M: RingPage> core::fmt::Debug for Responses<'_, P, M> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Responses({} left)", self.seen.wrapping_sub(self.next))
    }
}
