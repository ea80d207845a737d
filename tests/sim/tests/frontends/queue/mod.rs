//! A pair of rings in the hands of a frontend, who does with them what its manner says.

mod receive;
mod transmit;

use std::collections::BTreeMap;
use std::sync::Arc;

use packet_views::buffer::Meta;
use xen_netfront::platform::{Platform, Port};
use xen_netfront::wire::{RxRing, TxRing};
use xen_ring::FrontRing;
use xen_sim::memory::{Entry, GTF_PERMIT_ACCESS, GTF_READONLY};
use xen_sim::{Domain, OwnPage};

use super::raw_client::{BACK, Page};
use super::script::Manner;
use super::slots::Free;

/// A packet, and what is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub bytes: Vec<u8>,
    pub meta: Meta,
}

/// A page that a request names, or a part of one.
#[derive(Clone)]
struct Buffer {
    page: Arc<OwnPage>,
    gref: u32,
    /// Where it begins in the page.
    base: usize,
    number: u16,
}

/// Requests with one id: more than one if a frontend gives several the same.
struct InFlight {
    left: usize,
    buffers: Vec<Buffer>,
}

struct Posted {
    id: u16,
    buffer: Buffer,
}

pub struct Queue {
    domain: Domain,
    manner: Manner,
    pub tx: FrontRing<TxRing, Page>,
    pub rx: FrontRing<RxRing, Page>,
    rings: [(Arc<OwnPage>, u32); 2],
    /// The transmit ring's and the receive ring's, or one for both.
    pub ports: Vec<Port>,
    tx_ids: Free,
    rx_ids: Free,
    in_flight: BTreeMap<u16, InFlight>,
    /// Extras that have not been answered.
    extras: usize,
    /// Buffers that stay granted and are not in use.
    spare: Vec<Buffer>,
    buffers: u16,
    /// By slot of the ring.
    posted: Vec<Option<Posted>>,
    posted_spare: Vec<Buffer>,
    /// Statuses of packets that were sent, in order.
    pub statuses: Vec<i16>,
}

impl Queue {
    pub fn new(domain: &Domain, manner: Manner, split: bool) -> Queue {
        let ring = || {
            let page = domain.own_page().unwrap();
            let gref = domain.grant(BACK, page.gfn(), false).unwrap();
            (Arc::new(page), gref)
        };
        let rings = [ring(), ring()];
        let channels = if split { 2 } else { 1 };
        let ports: Vec<_> = (0..channels).map(|_| domain.alloc_unbound(BACK).unwrap()).collect();
        if manner.masked {
            ports.iter().for_each(|port| domain.mask(*port));
        }
        Queue {
            domain: domain.clone(),
            manner,
            tx: FrontRing::new(Page(rings[0].0.clone())),
            rx: FrontRing::new(Page(rings[1].0.clone())),
            rings,
            ports,
            tx_ids: Free::new(manner.tx_ids),
            rx_ids: Free::new(manner.rx_ids),
            in_flight: BTreeMap::new(),
            extras: 0,
            spare: Vec::new(),
            buffers: 0,
            posted: (0..256).map(|_| None).collect(),
            posted_spare: Vec::new(),
            statuses: Vec::new(),
        }
    }

    pub fn tx_ref(&self) -> u32 {
        self.rings[0].1
    }

    pub fn rx_ref(&self) -> u32 {
        self.rings[1].1
    }

    pub fn unmask(&self) {
        let masked = usize::from(self.manner.tx_masked && self.ports.len() > 1);
        self.ports[masked..].iter().for_each(|port| self.domain.unmask(*port));
    }

    pub fn mask(&self) {
        self.ports.iter().for_each(|port| self.domain.mask(*port));
    }

    fn tell(&self, of_rx: bool) {
        self.domain.notify(self.ports[if of_rx { self.ports.len() - 1 } else { 0 }]);
    }

    /// Everything that a peer might still use comes back: nobody may.
    pub fn free(self) {
        let in_flight = self.in_flight.values().flat_map(|sent| &sent.buffers);
        let posted = self.posted.iter().flatten().map(|posted| &posted.buffer);
        let spare = self.spare.iter().chain(&self.posted_spare);
        let buffers = in_flight.chain(posted).chain(spare).map(|buffer| buffer.gref);
        let mut refs: Vec<u32> = buffers.chain(self.rings.iter().map(|ring| ring.1)).collect();
        refs.sort_unstable();
        refs.dedup();
        for gref in refs {
            assert!(self.domain.end_grant(gref), "reference {gref} is in use by the backend");
        }
        self.ports.iter().for_each(|port| self.domain.close(*port));
    }
}

/// Points an open reference at another page (`gnttab_update_grant`).
fn repoint(domain: &Domain, gref: u32, page: &OwnPage, readonly: bool) {
    let flags = GTF_PERMIT_ACCESS | if readonly { GTF_READONLY } else { 0 };
    assert!(domain.set_grant_entry(gref, Entry { flags, peer: BACK, frame: page.gfn().0 as u32 }));
}
