//! A queue that a client sets up and never uses: the backend has to serve it beside the one that
//! is attacked.

use core::num::Wrapping;

use xen_grant::DomId;
use xen_netfront::platform::{Platform, Port};

use crate::Domain;

use super::raw::{Memory, RawRing};
use super::token::Ring;

/// Rings and an event channel. Dropped, it ends the grants, in use or not.
pub(super) struct IdleQueue {
    domain: Domain,
    grefs: [u32; 2],
    port: Port,
    /// Keeps the pages.
    _rings: [RawRing; 2],
}

impl IdleQueue {
    /// `None` when the domain has not enough.
    pub(super) fn new(domain: &Domain, peer: DomId, start: Wrapping<u32>) -> Option<IdleQueue> {
        let ring = |ring| {
            let page = domain.own_page()?;
            let gref = domain.grant(peer, page.gfn(), false)?;
            let mut raw = RawRing::new(ring, Memory::Own(page));
            raw.reset(start.0);
            Some((gref, raw))
        };
        let ((tx_ref, tx), (rx_ref, rx)) = (ring(Ring::Tx)?, ring(Ring::Rx)?);
        let port = domain.alloc_unbound(peer).ok()?;
        Some(IdleQueue { domain: domain.clone(), grefs: [tx_ref, rx_ref], port, _rings: [tx, rx] })
    }

    /// What is to be published of it, below the queue's directory.
    pub(super) fn nodes(&self) -> [(&'static str, u32); 3] {
        let [tx, rx] = self.grefs;
        [("tx-ring-ref", tx), ("rx-ring-ref", rx), ("event-channel", self.port.get())]
    }
}

impl Drop for IdleQueue {
    fn drop(&mut self) {
        self.grefs.iter().for_each(|gref| _ = self.domain.end_grant(*gref));
        self.domain.close(self.port);
    }
}
