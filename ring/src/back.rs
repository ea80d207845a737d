//! The end that answers.

use core::marker::PhantomData;

use crate::page::{REQ_EVENT, REQ_PROD, RSP_EVENT, RSP_PROD, RingPage};
use crate::protocol::{Protocol, read, write};
use crate::{Full, Notify, PeerFault, notify};

/// The back end of a ring: pops requests, pushes responses, never more than it has popped.
///
/// ```text
///        published      rsp_prod        req_cons       req_seen
/// --------|--------------|-----------------|---------------|---------> index
///  done   | responses    | requests in     | requests not  | free, the
///         | not shown    | work            | popped        | front's
/// ```
pub struct BackRing<P: Protocol, M: RingPage> {
    page: M,
    req_cons: u32,
    req_seen: u32,
    rsp_prod: u32,
    published: u32,
    fault: Option<PeerFault>,
    protocol: PhantomData<P>,
}

impl<P: Protocol, M: RingPage> BackRing<P, M> {
    /// Slots of the ring, a power of two.
    pub const SIZE: u32 = P::SIZE;

    /// Attaches to a ring that the front end has made (`BACK_RING_ATTACH`). The front end says
    /// where it starts; requests published already are found by the first
    /// [`refresh`](BackRing::refresh).
    pub fn attach(page: M) -> Result<BackRing<P, M>, PeerFault> {
        let start = page.load_acquire(RSP_PROD);
        let mut ring = BackRing {
            page,
            req_cons: start,
            req_seen: start,
            rsp_prod: start,
            published: start,
            fault: None,
            protocol: PhantomData,
        };
        ring.refresh()?;
        Ok(ring)
    }

    /// How many popped requests have no response yet.
    #[inline]
    pub fn in_work(&self) -> u32 {
        self.req_cons.wrapping_sub(self.rsp_prod)
    }

    /// How many requests [`pop`](BackRing::pop) still has from the last look.
    #[inline]
    pub fn waiting(&self) -> u32 {
        self.req_seen.wrapping_sub(self.req_cons)
    }

    /// Looks, once, how far the peer has come, and returns how many requests can be popped.
    pub fn refresh(&mut self) -> Result<u32, PeerFault> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        let shared = self.page.load_acquire(REQ_PROD);
        let there = shared.wrapping_sub(self.req_cons);
        let most = P::SIZE - self.in_work();
        if there > most || there < self.waiting() {
            return Err(self.poison(PeerFault::IndexOverrun {
                shared,
                consumed: self.req_cons,
                most,
            }));
        }
        self.req_seen = shared;
        Ok(there)
    }

    /// Takes the next of the requests that [`refresh`](BackRing::refresh) found, with its ring
    /// index.
    #[inline]
    pub fn pop(&mut self) -> Option<(u32, P::Request)> {
        if self.req_cons == self.req_seen {
            return None;
        }
        let index = self.req_cons;
        self.req_cons = index.wrapping_add(1);
        Some((index, read::<P, _>(&self.page, index)))
    }

    /// Writes the response to one popped request, in the order of the ring.
    #[inline]
    pub fn push(&mut self, response: P::Response) -> Result<u32, Full> {
        if self.in_work() == 0 {
            return Err(Full);
        }
        let index = self.rsp_prod;
        write::<P, _>(&self.page, index, response);
        self.rsp_prod = index.wrapping_add(1);
        Ok(index)
    }

    /// Shows the peer all responses pushed so far. Publishing nothing notifies nobody, and so does
    /// a poisoned ring.
    pub fn publish(&mut self) -> Notify {
        let (old, new) = (self.published, self.rsp_prod);
        if old == new || self.fault.is_some() {
            return Notify::Suppressed;
        }
        self.page.store_release(RSP_PROD, new);
        self.published = new;
        // As in `FrontRing::publish`.
        self.page.full_fence();
        notify(old, new, self.page.load(RSP_EVENT))
    }

    /// Asks for an event at the next request, and says whether one is there already: then poll
    /// again, for that event may never come (`RING_FINAL_CHECK_FOR_REQUESTS`).
    pub fn arm(&mut self) -> Result<bool, PeerFault> {
        self.page.store(REQ_EVENT, self.req_cons.wrapping_add(1));
        self.page.full_fence();
        Ok(self.refresh()? > 0)
    }

    /// Breaks the ring for good: nothing is published or found any more.
    #[cold]
    pub fn poison(&mut self, fault: PeerFault) -> PeerFault {
        self.req_seen = self.req_cons;
        *self.fault.get_or_insert(fault)
    }

    /// The page, for whoever unmaps it.
    pub fn into_page(self) -> M {
        self.page
    }
}

impl<P: Protocol, M: RingPage> core::fmt::Debug for BackRing<P, M> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("BackRing")
            .field("req_cons", &self.req_cons)
            .field("req_seen", &self.req_seen)
            .field("rsp_prod", &self.rsp_prod)
            .field("published", &self.published)
            .field("fault", &self.fault)
            .finish_non_exhaustive()
    }
}
