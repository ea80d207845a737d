//! The hostile client's pages: good ones for when it behaves, and one of each bad kind.

use std::collections::VecDeque;

use xen_grant::{DomId, PAGE_SIZE};

use crate::memory::{Entry, GTF_PERMIT_ACCESS};
use crate::{Domain, OwnPage};

use super::client::tx_request;
use super::token::{Gref, Ring};

/// Pages for sending; ids 0 and up.
const TX_PAGES: u16 = 36;
/// Pages for receiving; ids 0 and up.
const RX_PAGES: u16 = 64;
/// `NETTXF_more_data`
const MORE_DATA: u16 = 4;
/// Data slots of a packet (`XEN_NETIF_NR_SLOTS_MIN`).
const MAX_SLOTS: usize = 18;

/// A page and the entry that grants it. Dropped, it ends the grant even if it is in use.
struct Shared {
    domain: Domain,
    page: OwnPage,
    gref: u32,
}

impl Shared {
    fn new(domain: &Domain, peer: DomId, readonly: bool) -> Option<Shared> {
        let page = domain.own_page()?;
        let gref = domain.grant(peer, page.gfn(), readonly)?;
        Some(Shared { domain: domain.clone(), page, gref })
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if !self.domain.end_grant(self.gref) {
            // Leave the entry to its user; without permission nobody else gets in.
            if let Some(entry) = self.domain.grant_entry(self.gref) {
                let flags = entry.flags & !GTF_PERMIT_ACCESS;
                self.domain.set_grant_entry(self.gref, Entry { flags, ..entry });
            }
        }
    }
}

/// Everything the client has granted on one connection.
pub(super) struct Pages {
    rings: [u32; 2],
    ring_grants: Vec<RingGrant>,
    tx: Vec<Shared>,
    tx_free: VecDeque<u16>,
    rx: Vec<Shared>,
    rx_free: VecDeque<u16>,
    /// Receive requests in the order of their slots, for extras, which carry no id.
    rx_posted: VecDeque<u16>,
    readonly: Shared,
    other: Shared,
    ended: u32,
    noframe: u32,
}

/// Ends the grant of a ring page.
struct RingGrant(Domain, u32);

impl Drop for RingGrant {
    fn drop(&mut self) {
        self.0.end_grant(self.1);
    }
}

impl Pages {
    /// Allocates and grants; also the two ring pages. `None` when the domain has not enough.
    pub(super) fn new(domain: &Domain, peer: DomId) -> Option<(Pages, OwnPage, OwnPage)> {
        let (tx_ring, rx_ring) = (domain.own_page()?, domain.own_page()?);
        let rings =
            [domain.grant(peer, tx_ring.gfn(), false)?, domain.grant(peer, rx_ring.gfn(), false)?];
        let shared = |count: u16, readonly| {
            (0..count).map(|_| Shared::new(domain, peer, readonly)).collect::<Option<Vec<_>>>()
        };
        let gone = domain.own_page()?;
        let noframe = domain.grant(peer, gone.gfn(), false)?;
        let nothing = Entry { flags: GTF_PERMIT_ACCESS, peer, frame: u32::MAX };
        domain.set_grant_entry(noframe, nothing);
        let mut pages = Pages {
            rings,
            ring_grants: rings.map(|gref| RingGrant(domain.clone(), gref)).into(),
            tx: shared(TX_PAGES, true)?,
            tx_free: (0..TX_PAGES).collect(),
            rx: shared(RX_PAGES, false)?,
            rx_free: (0..RX_PAGES).collect(),
            rx_posted: VecDeque::new(),
            readonly: Shared::new(domain, peer, true)?,
            other: Shared::new(domain, DomId(0x7fef), false)?,
            ended: 0,
            noframe,
        };
        // The last to be taken, so that nothing else gets this entry.
        pages.ended = domain.grant(peer, gone.gfn(), false)?;
        domain.end_grant(pages.ended);
        Some((pages, tx_ring, rx_ring))
    }

    pub(super) fn ring_refs(&self) -> (u32, u32) {
        debug_assert_eq!(self.ring_grants.len(), 2);
        (self.rings[0], self.rings[1])
    }

    /// The reference a script asks for.
    pub(super) fn gref(&self, gref: Gref) -> u32 {
        match gref {
            Gref::Exact(gref) => gref,
            Gref::Page(nth) => self.rx[usize::from(nth) % self.rx.len()].gref,
            Gref::RingPage(Ring::Tx) => self.rings[0],
            Gref::RingPage(Ring::Rx) => self.rings[1],
            Gref::ReadOnly => self.readonly.gref,
            Gref::Ended => self.ended,
            Gref::NoFrame => self.noframe,
            Gref::Other => self.other.gref,
        }
    }

    /// Takes the permission of a good page back.
    pub(super) fn revoke(&self, nth: u8) {
        let page = &self.rx[usize::from(nth) % self.rx.len()];
        page.domain.set_grant_entry(page.gref, Entry { flags: 0, peer: DomId(0), frame: 0 });
    }

    /// Fills transmit pages with a packet; `None` if pages or ring have no room.
    pub(super) fn fill(&mut self, packet: &[u8], room: usize) -> Option<Vec<[u32; 3]>> {
        let packet = &packet[..packet.len().min(MAX_SLOTS * PAGE_SIZE).min(0xffff)];
        let slots = packet.len().div_ceil(PAGE_SIZE).max(1);
        if slots > room.min(self.tx_free.len()) {
            return None;
        }
        let mut requests = Vec::with_capacity(slots);
        for nth in 0..slots {
            let part = &packet[nth * PAGE_SIZE..packet.len().min((nth + 1) * PAGE_SIZE)];
            let id = self.tx_free.pop_front()?;
            let shared = &self.tx[usize::from(id)];
            shared.page.write(0, part);
            let flags = if nth + 1 < slots { MORE_DATA } else { 0 };
            let size = if nth == 0 { packet.len() } else { part.len() };
            requests.push(tx_request(shared.gref, 0, flags, id, size as u16));
        }
        Some(requests)
    }

    /// A transmit request was answered; ids that make no sense are our own doing.
    pub(super) fn tx_done(&mut self, id: u16) {
        if id < TX_PAGES && !self.tx_free.contains(&id) {
            self.tx_free.push_back(id);
        }
    }

    /// The next receive request to post.
    pub(super) fn next_rx(&mut self) -> Option<(u16, u32)> {
        let id = self.rx_free.pop_front()?;
        self.rx_posted.push_back(id);
        Some((id, self.rx[usize::from(id)].gref))
    }

    /// A receive request was answered: appends its data.
    pub(super) fn rx_done(&mut self, id: u16, offset: u16, status: i16, into: &mut Vec<u8>) {
        let Some(place) = self.rx_posted.iter().position(|&posted| posted == id) else { return };
        self.rx_posted.remove(place);
        let len = usize::from(status.max(0).unsigned_abs());
        if usize::from(offset) + len <= PAGE_SIZE {
            let at = into.len();
            into.resize(at + len, 0);
            self.rx[usize::from(id)].page.read(offset.into(), &mut into[at..]);
        }
        self.rx_free.push_back(id);
    }

    /// An extra took the slot of the oldest receive request.
    pub(super) fn rx_extra(&mut self) {
        if let Some(id) = self.rx_posted.pop_front() {
            self.rx_free.push_back(id);
        }
    }
}
