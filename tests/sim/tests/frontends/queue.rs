//! A pair of rings in the hands of a frontend, who does with them what its manner says.

use std::collections::BTreeMap;
use std::sync::Arc;

use packet_views::buffer::{Checksum, Meta};
use xen_grant::PAGE_SIZE;
use xen_netfront::platform::{Platform, Port};
use xen_netfront::wire::{
    Extra, RxRequest, RxRing, Status, TxRequest, TxRing, TxSlot, rx_flags, tx_flags,
};
use xen_ring::{FrontRing, Notify};
use xen_sim::memory::{Entry, GTF_PERMIT_ACCESS, GTF_READONLY};
use xen_sim::{Domain, OwnPage};

use super::raw_client::{BACK, Page, Received};
use super::script::{Ahead, Buffers, Manner, Sum};
use super::slots::{Cut, Free};

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

    // -- sending ----------------------------------------------------------------------------------

    /// A whole page, or half a page.
    fn buffer(&mut self, before: Option<&Buffer>) -> Buffer {
        let domain = self.domain.clone();
        let page = || Arc::new(domain.own_page().unwrap());
        let grant = |page: &OwnPage| domain.grant(BACK, page.gfn(), true).unwrap();
        if let Some(before) = before {
            let gref = grant(&before.page);
            return Buffer { gref, ..before.clone() };
        }
        match (self.manner.buffers, self.spare.pop()) {
            (Buffers::Halves, Some(half)) => half,
            (Buffers::Repointed, Some(mut known)) => {
                let page = page();
                repoint(&domain, known.gref, &page, true);
                known.page = page;
                known
            }
            (Buffers::Anew, _) | (_, None) => {
                let page = page();
                let gref = grant(&page);
                let first = Buffer { page, gref, base: 0, number: self.buffers };
                self.buffers = self.buffers.wrapping_add(1);
                if self.manner.buffers == Buffers::Halves {
                    let number = self.buffers;
                    self.spare.push(Buffer { base: PAGE_SIZE / 2, number, ..first.clone() });
                    self.buffers += 1;
                }
                first
            }
        }
    }

    /// How many requests it takes to send this.
    pub fn requests(&self, frame: &Frame) -> usize {
        (self.manner.cut)(&frame.bytes).len() + usize::from(frame.meta.gso.is_some())
    }

    /// Whether there is room for it.
    pub fn has_room(&self, frame: &Frame) -> bool {
        let used = 256 - self.tx.free();
        used as usize + self.requests(frame) <= self.manner.tx_most as usize
    }

    /// Puts a packet on the ring.
    pub fn push(&mut self, frame: &Frame) {
        let cuts = (self.manner.cut)(&frame.bytes);
        self.push_cut(frame, &cuts);
    }

    /// Puts a packet on the ring, cut like this.
    pub fn push_cut(&mut self, frame: &Frame, cuts: &[Cut]) {
        assert_eq!(cuts.iter().map(|cut| cut.len).sum::<usize>(), frame.bytes.len());
        assert!(cuts.len() <= 18, "{} requests", cuts.len());
        let blank = frame.meta.checksum == Checksum::Blank;
        let sum = if blank { Sum::Blank } else { Sum::There };
        let (mut done, mut before, mut id) = (0, None, 0);
        for (number, cut) in cuts.iter().enumerate() {
            let first = number == 0;
            let buffer = self.buffer(before.as_ref().filter(|_| cut.same_page));
            buffer.page.write(buffer.base + cut.at, &frame.bytes[done..done + cut.len]);
            done += cut.len;
            if first || !cut.same_id {
                let in_flight = &self.in_flight;
                id = self
                    .tx_ids
                    .take(self.tx.next_index(), buffer.number, |id| in_flight.contains_key(&id));
            }
            let mut flags =
                if first { (self.manner.tx_flags)(sum) } else { self.manner.later_flags };
            if number + 1 < cuts.len() {
                flags |= tx_flags::MORE_DATA;
            }
            if first && frame.meta.gso.is_some() {
                flags |= tx_flags::EXTRA_INFO;
            }
            let size = if first { frame.bytes.len() } else { cut.len } as u16;
            let offset = (buffer.base + cut.at) as u16;
            let request = TxRequest { gref: buffer.gref, offset, flags, id, size };
            self.tx.push(request.into()).unwrap();
            let entry =
                self.in_flight.entry(id).or_insert(InFlight { left: 0, buffers: Vec::new() });
            entry.left += 1;
            entry.buffers.push(buffer.clone());
            if let (true, Some(gso)) = (first, frame.meta.gso) {
                self.push_extra(Extra::from_gso(gso));
            }
            before = Some(buffer);
        }
        if !self.manner.batches {
            self.show();
        }
    }

    /// Puts a request without data on the ring, and what follows it.
    pub fn push_dummy(&mut self, extra: Extra) {
        let id = self.tx_ids.take(self.tx.next_index(), 0, |_| false);
        self.in_flight.insert(id, InFlight { left: 1, buffers: Vec::new() });
        let flags = tx_flags::EXTRA_INFO;
        let request = TxRequest { gref: 0, offset: 0, flags, id, size: 0 };
        self.tx.push(request.into()).unwrap();
        self.push_extra(extra);
    }

    pub fn push_extra(&mut self, extra: Extra) {
        self.tx.push(TxSlot::from(extra)).unwrap();
        self.extras += 1;
    }

    /// Publishes what has been pushed; an event if the backend wants one.
    pub fn show(&mut self) -> bool {
        let needed = self.tx.publish() == Notify::Needed;
        if needed {
            self.tell(false);
        }
        if self.manner.collects {
            self.collect();
        }
        needed
    }

    /// Takes the responses to what was sent, and says when it wants to hear of more.
    pub fn collect(&mut self) -> bool {
        let mut moved = false;
        loop {
            self.tx.refresh().unwrap();
            while let Some((_, response)) = self.tx.pop() {
                moved = true;
                if response.status == Status::Null.number() {
                    assert!(self.extras > 0, "an answer to an extra that there is not");
                    self.extras -= 1;
                    continue;
                }
                self.statuses.push(response.status);
                let sent = self.in_flight.get_mut(&response.id).expect("an id that is in flight");
                sent.left -= 1;
                if sent.left == 0 {
                    let sent = self.in_flight.remove(&response.id).unwrap();
                    self.tx_ids.give(response.id);
                    sent.buffers.into_iter().for_each(|buffer| self.recycle(buffer));
                }
            }
            let ahead = match self.manner.tx_event {
                Ahead::Next => 1,
                Ahead::Half => (self.tx.published().wrapping_sub(self.tx.consumed()) >> 1) + 1,
                Ahead::Never => return moved,
            };
            self.tx.arm(ahead).unwrap();
            if self.tx.refresh().unwrap() == 0 {
                return moved;
            }
        }
    }

    fn recycle(&mut self, buffer: Buffer) {
        match self.manner.buffers {
            Buffers::Anew => assert!(self.domain.end_grant(buffer.gref), "answered, and in use"),
            Buffers::Halves => self.spare.push(buffer),
            Buffers::Repointed => {
                assert!(!self.domain.grant_in_use(buffer.gref), "answered, and in use");
                self.spare.push(buffer);
            }
        }
    }

    /// Requests that have not been answered.
    pub fn unanswered(&self) -> usize {
        self.in_flight.values().map(|sent| sent.left).sum::<usize>() + self.extras
    }

    // -- receiving --------------------------------------------------------------------------------

    /// Posts pages if as many are missing as this frontend waits for.
    pub fn refill(&mut self) {
        let missing = self.manner.rx_fill.saturating_sub(256 - self.rx.free());
        if missing >= self.manner.rx_refill {
            self.post(missing);
        }
    }

    pub fn post(&mut self, count: u32) {
        for _ in 0..count {
            let index = self.rx.next_index();
            let posted = &self.posted;
            let id = self.rx_ids.take(index, 0, |id| posted.iter().flatten().any(|it| it.id == id));
            let page = Arc::new(self.domain.own_page().unwrap());
            let gref = match self.posted_spare.pop() {
                Some(known) => {
                    repoint(&self.domain, known.gref, &page, false);
                    known.gref
                }
                None => self.domain.grant(BACK, page.gfn(), false).unwrap(),
            };
            self.rx.push(RxRequest { id, gref }).unwrap();
            let place = &mut self.posted[index as usize % 256];
            assert!(place.is_none());
            *place = Some(Posted { id, buffer: Buffer { page, gref, base: 0, number: 0 } });
        }
        if self.rx.publish() == Notify::Needed {
            self.tell(true);
        }
    }

    /// Pages that are posted and not filled.
    pub fn posted(&self) -> usize {
        self.posted.iter().flatten().count()
    }

    fn take_posted(&mut self, index: u32) -> (u16, Arc<OwnPage>) {
        let Posted { id, buffer } =
            self.posted[index as usize % 256].take().expect("a request in that slot");
        self.rx_ids.give(id);
        if self.manner.buffers == Buffers::Repointed {
            assert!(!self.domain.grant_in_use(buffer.gref), "answered, and in use");
            self.posted_spare.push(buffer.clone());
        } else {
            assert!(self.domain.end_grant(buffer.gref), "answered, and in use");
        }
        (id, buffer.page)
    }

    /// Takes the packets that are there, as whole ones: a backend publishes no half of a packet. Posts
    /// pages anew.
    pub fn receive(&mut self) -> Vec<Received> {
        let mut packets = Vec::new();
        loop {
            self.rx.refresh().unwrap();
            while let Some((index, slot)) = self.rx.pop() {
                let first = slot.response();
                let mut packet =
                    Received { bytes: Vec::new(), flags: first.flags, gso: None, slots: 1 };
                self.gather(index, first.id, first.offset, first.status, &mut packet);
                let mut more = first.flags & rx_flags::MORE_DATA != 0;
                if first.flags & rx_flags::EXTRA_INFO != 0 {
                    let (index, slot) = self.rx.pop().expect("an extra follows");
                    self.take_posted(index);
                    let extra = slot.extra();
                    assert_eq!((extra.kind, extra.flags), (Extra::GSO, 0));
                    packet.gso = Some(extra.gso().expect("a sound GSO extra"));
                    packet.slots += 1;
                }
                while more {
                    let (index, slot) = self.rx.pop().expect("the packet goes on");
                    let next = slot.response();
                    self.gather(index, next.id, next.offset, next.status, &mut packet);
                    packet.slots += 1;
                    more = next.flags & rx_flags::MORE_DATA != 0;
                }
                packets.push(packet);
            }
            self.refill();
            match self.manner.rx_event {
                Ahead::Never => return packets,
                Ahead::Next | Ahead::Half => {}
            }
            if !self.rx.arm(1).unwrap() {
                return packets;
            }
        }
    }

    fn gather(&mut self, index: u32, id: u16, offset: u16, status: i16, packet: &mut Received) {
        let (posted, page) = self.take_posted(index);
        // Windows and OpenBSD go by the slot, others by the id: it must be the same.
        assert_eq!(id, posted, "a response reuses its request's slot");
        let len = usize::try_from(status).expect("a packet that did not fail");
        let mut bytes = vec![0; len];
        page.read(usize::from(offset), &mut bytes);
        packet.bytes.extend(bytes);
    }
}

/// Points an open reference at another page (`gnttab_update_grant`).
fn repoint(domain: &Domain, gref: u32, page: &OwnPage, readonly: bool) {
    let flags = GTF_PERMIT_ACCESS | if readonly { GTF_READONLY } else { 0 };
    assert!(domain.set_grant_entry(gref, Entry { flags, peer: BACK, frame: page.gfn().0 as u32 }));
}
