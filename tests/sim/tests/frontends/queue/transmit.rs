//! Sending: how a packet becomes requests, and what is done with the answers.

use std::sync::Arc;

use packet_views::buffer::Checksum;
use xen_grant::PAGE_SIZE;
use xen_netfront::wire::{Extra, Status, TxRequest, TxSlot, tx_flags};
use xen_ring::Notify;
use xen_sim::OwnPage;

use super::{Buffer, Frame, InFlight, Queue, repoint};
use crate::raw_client::BACK;
use crate::script::{Ahead, Buffers, Sum};
use crate::slots::Cut;

impl Queue {
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
        let gso = frame.meta.gso.map(Extra::from_gso);
        self.push_with(frame, cuts, gso.as_slice());
    }

    /// Puts a packet on the ring, cut like this, with these extras.
    pub fn push_with(&mut self, frame: &Frame, cuts: &[Cut], extras: &[Extra]) {
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
            if first && !extras.is_empty() {
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
            extras.iter().filter(|_| first).for_each(|extra| self.push_extra(*extra));
            before = Some(buffer);
        }
        if !self.manner.batches {
            self.show();
        }
    }

    /// Claims to have sent more than the ring holds.
    pub fn overrun(&self) {
        let req_prod = &self.rings[0].0.words()[0];
        req_prod.fetch_add(1000, std::sync::atomic::Ordering::Release);
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

    fn push_extra(&mut self, extra: Extra) {
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

    /// The ids in flight.
    pub fn ids(&self) -> Vec<u16> {
        self.in_flight.keys().copied().collect()
    }

    /// References that requests in flight name, one a request.
    pub fn references(&self) -> Vec<u32> {
        let buffers = self.in_flight.values().flat_map(|sent| &sent.buffers);
        buffers.map(|buffer| buffer.gref).collect()
    }

    /// Requests that have not been answered.
    pub fn unanswered(&self) -> usize {
        self.in_flight.values().map(|sent| sent.left).sum::<usize>() + self.extras
    }
}
