//! Receiving: pages that are posted, and packets that are taken out of them.

use std::sync::Arc;

use xen_netfront::wire::{Extra, RxRequest, rx_flags};
use xen_ring::Notify;
use xen_sim::OwnPage;

use super::{Buffer, Posted, Queue, repoint};
use crate::raw_client::{BACK, Received};
use crate::script::{Ahead, Buffers};

impl Queue {
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
