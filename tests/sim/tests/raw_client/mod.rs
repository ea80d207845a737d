//! A client made of bare rings, beside a netback: what it writes is up to the test.
#![allow(dead_code)]

mod bench;

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use packet_views::buffer::Gso;
use packet_views::buffer::View;
use xen_grant::{DomId, PAGE_SIZE};
use xen_netfront::netback::Netback;
use xen_netfront::platform::{Platform, Port};
use xen_netfront::store::Store;
use xen_netfront::wire::{
    Extra, RxRequest, RxResponse, RxRing, TxRequest, TxResponse, TxRing, TxSlot, rx_flags, tx_flags,
};
use xen_ring::{FrontRing, Notify, RingPage};
use xen_sim::{Domain, Host, OwnPage, Vif};

#[allow(unused_imports)]
pub use bench::Bench;

pub const BACK: DomId = DomId(5);
pub const CLIENT: DomId = DomId(7);

/// Pages that a client sends from.
pub const TX_PAGES: usize = 32;

pub type Back = Netback<Domain, Domain>;

/// A page of a ring.
#[derive(Clone)]
pub struct Page(pub Arc<OwnPage>);

impl RingPage for Page {
    fn load(&self, word: usize) -> u32 {
        self.0.words()[word].load(Ordering::Relaxed)
    }

    fn load_acquire(&self, word: usize) -> u32 {
        self.0.words()[word].load(Ordering::Acquire)
    }

    fn store(&self, word: usize, value: u32) {
        self.0.words()[word].store(value, Ordering::Relaxed);
    }

    fn store_release(&self, word: usize, value: u32) {
        self.0.words()[word].store(value, Ordering::Release);
    }

    fn full_fence(&self) {
        fence(Ordering::SeqCst);
    }
}

/// The `len` bytes that test packet number `seed` consists of.
pub fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    fastrand::Rng::with_seed(seed).fill(&mut bytes);
    bytes
}

/// All bytes of a packet.
pub fn bytes<V: View>(packet: &packet_views::buffer::AnyPacket<V>) -> Vec<u8> {
    packet.fragments().iter().flat_map(|fragment| fragment.bytes().to_vec()).collect()
}

/// What a client publishes.
pub struct Features {
    pub split: bool,
    pub keys: Vec<(&'static str, &'static str)>,
}

impl Default for Features {
    fn default() -> Features {
        Features {
            split: false,
            keys: vec![
                ("request-rx-copy", "1"),
                ("feature-rx-notify", "1"),
                ("feature-sg", "1"),
                ("feature-gso-tcpv4", "1"),
                ("feature-ipv6-csum-offload", "1"),
            ],
        }
    }
}

impl Features {
    pub fn with(mut self, key: &'static str, value: &'static str) -> Features {
        self.keys.retain(|(known, _)| *known != key);
        self.keys.push((key, value));
        self
    }
}

/// What a client received in one packet.
#[derive(Debug, PartialEq, Eq)]
pub struct Received {
    pub bytes: Vec<u8>,
    pub flags: u16,
    pub gso: Option<Gso>,
    pub slots: usize,
}

pub struct Client {
    pub domain: Domain,
    dir: String,
    start: u32,
    pub tx: FrontRing<TxRing, Page>,
    pub rx: FrontRing<RxRing, Page>,
    pub tx_page: Arc<OwnPage>,
    pub rx_page: Arc<OwnPage>,
    pub refs: (u32, u32),
    pub ports: Vec<Port>,
    /// Pages to send from, filled with noise, and the reference of each.
    pub sources: Vec<(OwnPage, u32)>,
    /// Pages to receive into, and the reference of each. Page `i` is posted as id `i`.
    pub targets: Vec<(OwnPage, u32)>,
    next_id: u16,
}

fn granted(domain: &Domain, readonly: bool) -> (OwnPage, u32) {
    let page = domain.own_page().unwrap();
    let gref = domain.grant(BACK, page.gfn(), readonly).unwrap();
    (page, gref)
}

impl Client {
    pub fn new(host: &Host, vif: &Vif, start: u32) -> Client {
        let domain = host.domain(vif.frontend).unwrap();
        let (tx_page, tx_ref) = granted(&domain, false);
        let (rx_page, rx_ref) = granted(&domain, false);
        let (tx_page, rx_page) = (Arc::new(tx_page), Arc::new(rx_page));
        // What lies in the slots before means nothing, and must not be shown back.
        for page in [&tx_page, &rx_page] {
            page.write(64, &[0xa5; PAGE_SIZE - 64]);
        }
        let sources = (0..TX_PAGES as u64)
            .map(|seed| {
                let (page, gref) = granted(&domain, true);
                page.write(0, &pattern(seed, PAGE_SIZE));
                (page, gref)
            })
            .collect();
        let targets = (0..256).map(|_| granted(&domain, false)).collect();
        Client {
            dir: vif.front_dir(),
            start,
            tx: FrontRing::starting_at(Page(tx_page.clone()), start),
            rx: FrontRing::starting_at(Page(rx_page.clone()), start),
            tx_page,
            rx_page,
            refs: (tx_ref, rx_ref),
            ports: Vec::new(),
            sources,
            targets,
            next_id: 0,
            domain,
        }
    }

    /// Publishes everything, and lets the backend connect.
    pub fn connect(&mut self, back: &mut Back, features: &Features) {
        back.service();
        self.publish(features);
        back.service();
        assert!(back.is_connected(), "{:?}", back.counters());
    }

    /// The same with several queues, each a client of its own on the same vif.
    pub fn connect_all(queues: &mut [Client], back: &mut Back, features: &Features) {
        back.service();
        Client::publish_all(queues, features);
        // It reads what they have published a part at a time.
        for _ in 0..4 {
            back.service();
        }
        assert!(back.is_connected(), "{:?}", back.counters());
    }

    /// Writes the keys of a connection.
    pub fn publish(&mut self, features: &Features) {
        self.publish_queue("", features.split);
        self.publish_rest(features);
    }

    /// Writes the keys of a connection of several queues.
    pub fn publish_all(queues: &mut [Client], features: &Features) {
        let (count, queues_are_one) = (queues.len().to_string(), queues.len() == 1);
        for (number, queue) in queues.iter_mut().enumerate() {
            queue.set("multi-queue-num-queues", &count);
            // One queue keeps its keys at the top.
            let below = if queues_are_one { String::new() } else { format!("queue-{number}/") };
            queue.publish_queue(&below, features.split);
        }
        queues[0].publish_rest(features);
    }

    fn set(&self, key: &str, value: &str) {
        self.domain.store().set(&format!("{}/{key}", self.dir), value);
    }

    fn publish_queue(&mut self, below: &str, split: bool) {
        self.set(&format!("{below}tx-ring-ref"), &self.refs.0.to_string());
        self.set(&format!("{below}rx-ring-ref"), &self.refs.1.to_string());
        let keys =
            if split { &["event-channel-tx", "event-channel-rx"][..] } else { &["event-channel"] };
        for stale in ["event-channel", "event-channel-tx", "event-channel-rx"] {
            let store = self.domain.store();
            let _ = store.remove(None, &format!("{}/{below}{stale}", self.dir));
        }
        for port in self.ports.drain(..) {
            self.domain.close(port);
        }
        for key in keys {
            let port = self.domain.alloc_unbound(BACK).unwrap();
            self.set(&format!("{below}{key}"), &port.get().to_string());
            self.ports.push(port);
        }
    }

    fn publish_rest(&self, features: &Features) {
        for (key, value) in &features.keys {
            self.set(key, value);
        }
        self.set("state", "4");
    }

    pub fn set_state(&self, state: u32) {
        self.set("state", &state.to_string());
    }

    /// Begins anew: fresh rings on the same pages.
    pub fn reset_rings(&mut self) {
        self.tx = FrontRing::starting_at(Page(self.tx_page.clone()), self.start);
        self.rx = FrontRing::starting_at(Page(self.rx_page.clone()), self.start);
        self.next_id = 0;
    }

    // -- sending ------------------------------------------------------------------------------

    pub fn id(&mut self) -> u16 {
        self.next_id = (self.next_id + 1) % 256;
        self.next_id
    }

    pub fn push(&mut self, slot: impl Into<TxSlot>) {
        self.tx.push(slot.into()).unwrap();
    }

    /// Puts a packet on the ring whose fragments lie at these places: page, offset, size. Returns
    /// what it consists of.
    pub fn chain(
        &mut self,
        fragments: &[(usize, u16, u16)],
        flags: u16,
        extras: &[Extra],
    ) -> Vec<u8> {
        let total: u32 = fragments.iter().map(|(.., size)| u32::from(*size)).sum();
        let mut sent = Vec::new();
        for (slot, &(page, offset, size)) in fragments.iter().enumerate() {
            let first = slot == 0;
            let mut flags = if first { flags } else { 0 };
            if slot + 1 < fragments.len() {
                flags |= tx_flags::MORE_DATA;
            }
            if first && !extras.is_empty() {
                flags |= tx_flags::EXTRA_INFO;
            }
            let (gref, id) = (self.sources[page].1, self.id());
            let said = if first { total as u16 } else { size };
            self.push(TxRequest { gref, offset, flags, id, size: said });
            let mut bytes = vec![0; usize::from(size)];
            self.sources[page].0.read(usize::from(offset), &mut bytes);
            sent.extend(bytes);
            for extra in extras.iter().filter(|_| first) {
                self.push(*extra);
            }
        }
        sent
    }

    /// Writes a packet into pages from number `page` on, 4096 bytes a page; returns where it lies.
    pub fn lay(&mut self, page: usize, bytes: &[u8]) -> Vec<(usize, u16, u16)> {
        let lay = |(number, part): (usize, &[u8])| {
            self.sources[page + number].0.write(0, part);
            (page + number, 0, part.len() as u16)
        };
        bytes.chunks(PAGE_SIZE).enumerate().map(lay).collect()
    }

    /// Sends a packet of these fragments, and tells the backend.
    pub fn send(&mut self, fragments: &[(usize, u16, u16)]) -> Vec<u8> {
        let sent = self.chain(fragments, 0, &[]);
        self.show();
        sent
    }

    /// Publishes; sends the event if the backend wants one.
    pub fn show(&mut self) -> bool {
        let needed = self.tx.publish() == Notify::Needed;
        if needed {
            self.domain.notify(self.ports[0]);
        }
        needed
    }

    /// All responses to what was sent, in order.
    pub fn answers(&mut self) -> Vec<TxResponse> {
        self.tx.refresh().unwrap();
        let answers = core::iter::from_fn(|| self.tx.pop().map(|(_, response)| response)).collect();
        self.tx.arm(1).unwrap();
        answers
    }

    pub fn statuses(&mut self) -> Vec<i16> {
        self.answers().iter().map(|answer| answer.status).collect()
    }

    // -- receiving ----------------------------------------------------------------------------

    /// Posts `count` more pages.
    pub fn post(&mut self, count: usize) {
        for _ in 0..count {
            let id = self.rx.next_index() as usize % 256;
            let gref = self.targets[id].1;
            self.post_as(id as u16, gref);
        }
        self.show_posted();
    }

    pub fn post_as(&mut self, id: u16, gref: u32) {
        self.rx.push(RxRequest { id, gref }).unwrap();
    }

    pub fn show_posted(&mut self) -> bool {
        let needed = self.rx.publish() == Notify::Needed;
        if needed {
            self.domain.notify(self.ports[self.ports.len() - 1]);
        }
        needed
    }

    /// All packets received; the status of one that failed.
    pub fn receive(&mut self) -> Vec<Result<Received, i16>> {
        self.rx.refresh().unwrap();
        let mut packets = Vec::new();
        while let Some((index, slot)) = self.rx.pop() {
            let first = slot.response();
            let mut packet =
                Received { bytes: Vec::new(), flags: first.flags, gso: None, slots: 1 };
            let mut status = self.gather(index, first, &mut packet);
            let mut more = first.flags & rx_flags::MORE_DATA != 0;
            if first.flags & rx_flags::EXTRA_INFO != 0 {
                let (_, slot) = self.rx.pop().expect("an extra follows");
                let extra = slot.extra();
                assert_eq!((extra.kind, extra.flags), (Extra::GSO, 0));
                packet.gso = Some(extra.gso().expect("a sound GSO extra"));
                packet.slots += 1;
            }
            while more {
                let (index, slot) = self.rx.pop().expect("the chain goes on");
                let next = slot.response();
                status = status.and(self.gather(index, next, &mut packet));
                packet.slots += 1;
                more = next.flags & rx_flags::MORE_DATA != 0;
            }
            packets.push(status.map(|()| packet));
        }
        self.rx.arm(1).unwrap();
        packets
    }

    /// Asks for an event at the next answer and the next packet; true if one is there already.
    pub fn rearm(&mut self) -> bool {
        self.tx.arm(1).unwrap() | self.rx.arm(1).unwrap()
    }

    fn gather(&self, index: u32, slot: RxResponse, packet: &mut Received) -> Result<(), i16> {
        assert_eq!(u32::from(slot.id), index % 256, "a response reuses its request's slot");
        assert_eq!(slot.offset, 0);
        let len = usize::try_from(slot.status).map_err(|_| slot.status)?;
        let mut bytes = vec![0; len];
        self.targets[usize::from(slot.id)].0.read(0, &mut bytes);
        packet.bytes.extend(bytes);
        Ok(())
    }
}
