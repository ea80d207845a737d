//! What the hostile backend does with requests when it behaves, and how it misbehaves with
//! responses.

use std::collections::VecDeque;

use xen_grant::PAGE_SIZE;

use super::backend::{HostileBackend, PageDump};
use super::token::{Header, Id, Ring};

/// `NETTXF_more_data`, `NETRXF_more_data`
const MORE_DATA: u16 = 4;
/// `NETTXF_extra_info`
const EXTRA_INFO: u16 = 8;
/// `XEN_NETIF_EXTRA_FLAG_MORE`
const EXTRA_MORE: u32 = 1 << 8;
/// `XEN_NETIF_RSP_NULL`
const NULL: i16 = 1;
/// Packets the backend remembers.
const MAX_RECEIVED: usize = 100_000;

/// A transmit request that was taken from the ring.
#[derive(Clone, Copy)]
struct TxSlot {
    extra: bool,
    gref: u32,
    offset: u16,
    id: u16,
    size: u16,
}

/// Requests that are under way, and the packets they carry.
#[derive(Default)]
pub(super) struct Traffic {
    pub(super) dump: bool,
    pub(super) outgoing: VecDeque<Vec<u8>>,
    pub(super) received: Vec<Vec<u8>>,
    pub(super) dumps: Vec<PageDump>,
    tx: VecDeque<TxSlot>,
    chain: Vec<TxSlot>,
    more: bool,
    extra_next: bool,
    rx: VecDeque<(u16, u32)>,
    last_tx: u16,
    last_rx: u16,
}

impl Traffic {
    /// Forgets what belongs to a connection that is over.
    pub(super) fn reset(&mut self) {
        self.tx.clear();
        self.chain.clear();
        self.rx.clear();
        (self.more, self.extra_next) = (false, false);
    }

    /// The grant of the oldest request that is not answered.
    pub(super) fn oldest_gref(&self, ring: Ring) -> Option<u32> {
        match ring {
            Ring::Tx => self.tx.iter().find(|slot| !slot.extra).map(|slot| slot.gref),
            Ring::Rx => self.rx.front().map(|&(_, gref)| gref),
        }
    }

    /// An extra takes the place of a receive request.
    pub(super) fn skip_rx(&mut self) {
        self.rx.pop_front();
    }
}

impl HostileBackend {
    /// Takes all new requests; true if there were any.
    pub(super) fn fetch(&mut self) -> bool {
        let tx = self.fetch_ring(Ring::Tx);
        let rx = self.fetch_ring(Ring::Rx);
        let any = !tx.is_empty() || !rx.is_empty();
        for words in tx {
            self.take_tx(words);
        }
        for [id, gref, _] in rx {
            self.take_dump(Ring::Rx, gref, 0, 0);
            self.traffic.rx.push_back((id as u16, gref));
        }
        any
    }

    fn fetch_ring(&mut self, ring: Ring) -> Vec<[u32; 3]> {
        self.peer.ring(ring).map(|raw| raw.take(Header::ReqProd)).unwrap_or_default()
    }

    fn take_tx(&mut self, [gref, place, last]: [u32; 3]) {
        let traffic = &mut self.traffic;
        let extra = traffic.extra_next;
        let slot = TxSlot {
            extra,
            gref,
            offset: place as u16,
            id: last as u16,
            size: (last >> 16) as u16,
        };
        traffic.tx.push_back(slot);
        if extra {
            traffic.extra_next = gref & EXTRA_MORE != 0;
        } else {
            let flags = (place >> 16) as u16;
            traffic.extra_next = flags & EXTRA_INFO != 0;
            traffic.more = flags & MORE_DATA != 0;
            traffic.chain.push(slot);
        }
        let complete = !traffic.more && !traffic.extra_next;
        if !extra {
            self.take_dump(Ring::Tx, slot.gref, slot.offset, slot.size);
        }
        if complete {
            let chain = std::mem::take(&mut self.traffic.chain);
            self.receive(&chain);
        }
    }

    /// Copies a packet out of the victim's pages.
    fn receive(&mut self, chain: &[TxSlot]) {
        let Some((first, others)) = chain.split_first() else { return };
        let rest: usize = others.iter().map(|slot| usize::from(slot.size)).sum();
        let Some(head) = usize::from(first.size).checked_sub(rest) else { return };
        let mut packet = vec![0; first.size.into()];
        let mut at = 0;
        for (nth, slot) in chain.iter().enumerate() {
            let len = if nth == 0 { head } else { usize::from(slot.size) };
            let into = &mut packet[at..at + len];
            let victim = self.peer.victim;
            if self.peer.domain.read_granted(victim, slot.gref, slot.offset.into(), into).is_err() {
                return;
            }
            at += len;
        }
        if self.traffic.received.len() < MAX_RECEIVED {
            self.traffic.received.push(packet);
        }
    }

    fn take_dump(&mut self, ring: Ring, gref: u32, offset: u16, size: u16) {
        if self.traffic.dump {
            let mut bytes = Box::new([0; PAGE_SIZE]);
            let victim = self.peer.victim;
            if self.peer.domain.read_granted(victim, gref, 0, &mut bytes[..]).is_ok() {
                self.traffic.dumps.push(PageDump { ring, gref, offset, size, bytes });
            }
        }
    }

    /// An honest round: takes and answers everything, delivers what fits. True if there is more.
    pub(super) fn serve(&mut self) -> bool {
        if self.peer.tx.is_none() {
            return false;
        }
        self.fetch();
        let count = self.traffic.tx.len();
        self.answer_tx(count);
        let mut delivered = 0;
        while let Some(packet) = self.traffic.outgoing.front() {
            if packet.len().div_ceil(PAGE_SIZE).max(1) > self.traffic.rx.len() {
                break;
            }
            if let Some(packet) = self.traffic.outgoing.pop_front() {
                self.deliver(&packet);
                delivered += 1;
            }
        }
        for ring in [Ring::Tx, Ring::Rx] {
            if let Some(raw) = self.peer.ring(ring) {
                raw.set_header(Header::RspProd, raw.prod.0);
                raw.set_header(Header::ReqEvent, raw.cons.0.wrapping_add(1));
            }
        }
        if count + delivered > 0 {
            self.peer.notify();
        }
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
        [Ring::Tx, Ring::Rx].into_iter().any(|ring| {
            self.peer.ring(ring).is_some_and(|raw| raw.new_messages(Header::ReqProd) != 0)
        })
    }

    /// Answers requests of a ring as one should, without publishing.
    pub(super) fn respond(&mut self, ring: Ring, count: usize) {
        self.fetch();
        match ring {
            Ring::Tx => self.answer_tx(count),
            Ring::Rx => {
                for _ in 0..count.min(self.traffic.rx.len()) {
                    let packet = self.traffic.outgoing.pop_front();
                    self.deliver(&packet.unwrap_or_else(|| vec![0xee; 60]));
                }
            }
        }
    }

    fn answer_tx(&mut self, count: usize) {
        let Some(tx) = &mut self.peer.tx else { return };
        for _ in 0..count {
            let Some(slot) = self.traffic.tx.pop_front() else { break };
            // A NULL response has no id.
            let (id, status) = if slot.extra { (0xdead, NULL) } else { (slot.id, 0) };
            tx.put(&[u32::from(id) | u32::from(status as u16) << 16]);
            self.traffic.last_tx = id;
        }
    }

    /// Delivers a packet into as many receive requests as it takes.
    fn deliver(&mut self, packet: &[u8]) {
        let mut parts = packet.chunks(PAGE_SIZE).peekable();
        while let Some(part) = parts.next() {
            let Some((id, gref)) = self.traffic.rx.pop_front() else { return };
            let victim = self.peer.victim;
            let done = self.peer.domain.write_granted(victim, gref, 0, part);
            let status = if done.is_ok() { part.len() as i16 } else { -1 };
            let flags = if parts.peek().is_some() { MORE_DATA } else { 0 };
            self.raw_rx_response(id, 0, flags, status);
        }
    }

    fn raw_rx_response(&mut self, id: u16, offset: u16, flags: u16, status: i16) {
        let first = u32::from(id) | u32::from(offset) << 16;
        let second = u32::from(flags) | u32::from(status as u16) << 16;
        if let Some(rx) = &mut self.peer.rx {
            rx.put(&[first, second]);
        }
        self.traffic.last_rx = id;
    }

    pub(super) fn put_tx_response(&mut self, id: Id, status: i16) {
        self.fetch();
        let id = match id {
            Id::Exact(id) => id,
            Id::Next => self.traffic.tx.pop_front().map_or(0, |slot| slot.id),
            Id::Last => self.traffic.last_tx,
        };
        if let Some(tx) = &mut self.peer.tx {
            tx.put(&[u32::from(id) | u32::from(status as u16) << 16]);
        }
        self.traffic.last_tx = id;
    }

    /// An extra takes the place of the next response.
    pub(super) fn put_rx_extra(&mut self, kind: u8, flags: u8, low: u16, high: u32) {
        let first = u32::from_le_bytes([kind, flags, 0, 0]) | u32::from(low) << 16;
        if let Some(rx) = &mut self.peer.rx {
            rx.put(&[first, high]);
        }
        self.traffic.skip_rx();
    }

    pub(super) fn put_rx_response(&mut self, id: Id, offset: u16, flags: u16, status: i16) {
        self.fetch();
        let id = match id {
            Id::Exact(id) => id,
            Id::Next => self.traffic.rx.pop_front().map_or(0, |(id, _)| id),
            Id::Last => self.traffic.last_rx,
        };
        self.raw_rx_response(id, offset, flags, status);
    }
}
