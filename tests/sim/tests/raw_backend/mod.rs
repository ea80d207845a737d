//! A backend made of bare rings, beside a real frontend: what it answers is up to the test.
#![allow(dead_code)]

mod packets;

use packet_views::device::NetDevice;
use packet_views::device::Permit;
use std::sync::atomic::{Ordering, fence};
use std::time::Duration;

use packet_views::buffer::View;
use packet_views::device::Link;
use xen_grant::{DomId, FramePool, GrantTable};
use xen_netfront::buffer::{Packet, PacketMut};
use xen_netfront::netfront::{Config, Netfront};
use xen_netfront::wire::{
    RxRequest, RxResponse, RxRing, RxSlot, TxRequest, TxResponse, TxRing, rx_flags,
};
use xen_ring::{BackRing, RingPage};
use xen_sim::{Domain, ForeignPage, Host, OwnPage, Toolstack, Vif};

#[allow(unused_imports)]
pub use packets::Sent;

pub const FRONT: DomId = DomId(1);
pub const BACK: DomId = DomId(2);

pub type Front = Netfront<Domain, Domain>;

/// A ring's page, mapped.
pub struct Mapped(pub ForeignPage);

impl Mapped {
    fn at(&self, word: usize) -> &std::sync::atomic::AtomicU32 {
        &self.0.words().expect("mapped for writing")[word]
    }
}

impl RingPage for Mapped {
    fn load(&self, word: usize) -> u32 {
        self.at(word).load(Ordering::Relaxed)
    }

    fn load_acquire(&self, word: usize) -> u32 {
        self.at(word).load(Ordering::Acquire)
    }

    fn store(&self, word: usize, value: u32) {
        self.at(word).store(value, Ordering::Relaxed);
    }

    fn store_release(&self, word: usize, value: u32) {
        self.at(word).store(value, Ordering::Release);
    }

    fn full_fence(&self) {
        fence(Ordering::SeqCst);
    }
}

/// The rings of a queue, from the backend's side.
pub struct Rings {
    pub tx: BackRing<TxRing, Mapped>,
    pub rx: BackRing<RxRing, Mapped>,
}

/// A machine with one vif: a real frontend, and a backend that does what the test says.
pub struct Bench {
    pub host: Host,
    pub toolstack: Toolstack,
    pub vif: Vif,
    pub domain: Domain,
    pub back: Domain,
    pub pool: FramePool,
    pub table: GrantTable,
    pub front: Front,
    /// Of each queue, while connected.
    pub queues: Vec<Rings>,
    /// The queue that is served: the methods that follow are about its rings.
    pub queue: usize,
    /// A page that the backend copies packets from.
    scratch: OwnPage,
}

/// The `len` bytes that test packet number `seed` consists of.
pub fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    fastrand::Rng::with_seed(seed).fill(&mut bytes);
    bytes
}

/// All bytes of a packet.
pub fn bytes(packet: &Packet) -> Vec<u8> {
    packet.fragments().iter().flat_map(|fragment| fragment.bytes().to_vec()).collect()
}

/// A frontend that posts a page in every slot of its receive ring, always.
pub fn full_ring() -> Config {
    Config::default().with_rx_floor(256)
}

impl Bench {
    /// Connected, with a page in every receive slot.
    pub fn new() -> Bench {
        Bench::with(full_ring(), &[], &[])
    }

    /// Connected, with these keys besides in the frontend's and the backend's directory.
    pub fn with(config: Config, front: &[(&str, &str)], back: &[(&str, &str)]) -> Bench {
        let host = Host::new(1);
        let mut vif = Vif::new(FRONT, BACK, 0);
        for (key, value) in front {
            vif = vif.front_key(key, value);
        }
        vif = vif.back_key("feature-sg", "1").back_key("feature-rx-copy", "1");
        for (key, value) in back {
            vif = vif.back_key(key, value);
        }
        let mut bench = Bench::on(host, vif, config, 1024);
        bench.connect();
        bench
    }

    /// Not connected.
    pub fn on(host: Host, vif: Vif, config: Config, frames: usize) -> Bench {
        let domain = host.add_domain(vif.frontend, frames as u32 + 76);
        let back = host.add_domain(vif.backend, 64);
        let toolstack = host.toolstack();
        toolstack.add_vif(&vif);
        let pool = FramePool::new(&domain, frames).unwrap();
        let table = GrantTable::new(&domain);
        let (platform, store) = (domain.clone(), domain.clone());
        let front = Netfront::open(platform, store, &pool, &table, vif.index, config).unwrap();
        let scratch = back.own_page().unwrap();
        Bench {
            host,
            toolstack,
            vif,
            domain,
            back,
            pool,
            table,
            front,
            queues: Vec::new(),
            queue: 0,
            scratch,
        }
    }

    /// Another vif of the same domain on the same pool, whose backend is a domain of its own.
    pub fn beside(&self, index: u32, backend: DomId, config: Config) -> Bench {
        let back = self.host.add_domain(backend, 64);
        let vif = Vif::new(self.vif.frontend, backend, index).back_key("feature-sg", "1");
        let vif = vif.back_key("feature-rx-copy", "1");
        self.toolstack.add_vif(&vif);
        let (platform, store) = (self.domain.clone(), self.domain.clone());
        let front =
            Netfront::open(platform, store, &self.pool, &self.table, index, config).unwrap();
        Bench {
            host: self.host.clone(),
            toolstack: self.host.toolstack(),
            vif,
            domain: self.domain.clone(),
            scratch: back.own_page().unwrap(),
            back,
            pool: self.pool.clone(),
            table: self.table.clone(),
            front,
            queues: Vec::new(),
            queue: 0,
        }
    }

    /// The backend's state.
    pub fn set_state(&self, state: u32) {
        self.toolstack.store().set(&format!("{}/state", self.vif.back_dir()), &state.to_string());
    }

    /// The frontend's state.
    pub fn front_state(&self) -> Option<u32> {
        self.toolstack.states(&self.vif).0
    }

    pub fn front_key(&self, key: &str) -> Option<String> {
        self.toolstack.store().get(&format!("{}/{key}", self.vif.front_dir()))
    }

    /// Lets time pass, the frontend serviced as it asks to be.
    pub fn pass(&mut self, time: Duration) {
        let end = self.host.now() + time;
        loop {
            self.front.service();
            let next = self.front.next_deadline().unwrap_or(end).min(end);
            let step = next.max(self.host.now() + Duration::from_millis(1)).min(end);
            if self.host.now() >= end {
                return;
            }
            self.host.advance_to(step);
        }
    }

    /// An honest backend's way to a connection, from wherever the two are.
    pub fn connect(&mut self) {
        self.queues.clear();
        for _ in 0..100 {
            match self.front_state() {
                Some(5) => self.set_state(5),
                Some(6) => self.set_state(6),
                Some(1) => self.set_state(2),
                Some(4) => {
                    if self.queues.is_empty() {
                        self.queues = self.map_rings().unwrap_or_default();
                    }
                    if !self.queues.is_empty() {
                        self.set_state(4);
                    }
                }
                _ => {}
            }
            self.pass(Duration::from_millis(10));
            if self.front.link() != Link::Down && !self.queues.is_empty() {
                return;
            }
        }
        panic!("no connection:\n{}", self.host.dump_store());
    }

    fn map_rings(&self) -> Option<Vec<Rings>> {
        let ring = |dir: &str, key: &str| {
            let gref = self.front_key(&format!("{dir}{key}"))?.parse().ok()?;
            Some(Mapped(self.back.map_page(self.vif.frontend, gref, true).ok()?))
        };
        let rings = |dir: &str| {
            Some(Rings {
                tx: BackRing::attach(ring(dir, "tx-ring-ref")?).ok()?,
                rx: BackRing::attach(ring(dir, "rx-ring-ref")?).ok()?,
            })
        };
        match self.front_key("multi-queue-num-queues") {
            None => Some(vec![rings("")?]),
            Some(count) => (0..count.parse().ok()?)
                .map(|queue: u32| rings(&format!("queue-{queue}/")))
                .collect(),
        }
    }

    pub fn rings(&mut self) -> &mut Rings {
        self.queues.get_mut(self.queue).expect("connected")
    }

    /// The rings of the only queue, for the test to do as it likes.
    pub fn take_rings(&mut self) -> Rings {
        assert_eq!(self.queues.len(), 1);
        self.queues.remove(0)
    }

    /// The next receive request that the frontend has posted.
    pub fn rx_request(&mut self) -> RxRequest {
        self.rings().rx.refresh().unwrap();
        self.rings().rx.pop().expect("a page is posted").1
    }

    /// Copies bytes into a posted page.
    pub fn fill(&mut self, request: &RxRequest, offset: u16, bytes: &[u8]) {
        let page = self.back.map_page(self.vif.frontend, request.gref, true).unwrap();
        let words = page.words().unwrap();
        for (at, byte) in bytes.iter().enumerate() {
            let at = usize::from(offset) + at;
            let word = words[at / 4].load(Ordering::Relaxed);
            let shift = at % 4 * 8;
            words[at / 4]
                .store(word & !(0xff << shift) | u32::from(*byte) << shift, Ordering::Relaxed);
        }
    }

    /// Answers with this slot.
    pub fn answer(&mut self, slot: impl Into<RxSlot>) {
        self.rings().rx.push(slot.into()).unwrap();
    }

    pub fn publish_rx(&mut self) {
        let _ = self.rings().rx.publish();
    }

    /// Delivers a packet, one slot for each part, and publishes it.
    pub fn deliver(&mut self, parts: &[&[u8]]) {
        for (nth, part) in parts.iter().enumerate() {
            let request = self.rx_request();
            self.fill(&request, 0, part);
            let flags = if nth + 1 < parts.len() { rx_flags::MORE_DATA } else { 0 };
            self.answer(RxResponse { id: request.id, offset: 0, flags, status: part.len() as i16 });
        }
        self.publish_rx();
    }

    /// What the frontend hands up now.
    pub fn received(&mut self) -> Vec<Vec<u8>> {
        let mut packets = Vec::new();
        self.front.receive(1000, |packet| packets.push(bytes(&packet)));
        packets
    }

    /// Whether a good packet still gets through.
    pub fn assert_receives(&mut self) {
        let packet = pattern(99, 200);
        self.deliver(&[&packet]);
        assert_eq!(self.received(), [packet], "the next good packet arrives");
    }

    /// Sends a packet of one fragment for each part; false if there is no room.
    pub fn send(&mut self, parts: &[&[u8]]) -> bool {
        let mut packet = PacketMut::new();
        for part in parts {
            let Some(mut buf) = self.front.alloc(0) else { return false };
            buf.append(part.len()).unwrap().copy_from_slice(part);
            packet.push(buf).unwrap();
        }
        let Some(mut permit) = self.front.reserve(parts.len()) else { return false };
        // What can't be sent is gone, and counted.
        let _refused = permit.send(packet);
        self.front.flush();
        true
    }

    /// The transmit requests that the frontend has published.
    pub fn tx_requests(&mut self) -> Vec<TxRequest> {
        let tx = &mut self.rings().tx;
        tx.refresh().unwrap();
        std::iter::from_fn(|| tx.pop().map(|(_, slot)| slot.request())).collect()
    }

    pub fn answer_tx(&mut self, id: u16, status: i16) {
        let tx = &mut self.rings().tx;
        tx.push(TxResponse { id, status }).unwrap();
        let _ = tx.publish();
    }

    /// The bytes of a transmit request.
    pub fn sent_bytes(&self, request: &TxRequest, len: usize) -> Vec<u8> {
        let page = self.back.map_page(self.vif.frontend, request.gref, false).unwrap().dump();
        page[usize::from(request.offset)..usize::from(request.offset) + len].to_vec()
    }

    /// What must hold at any time: every grant is ended, out, or in quarantine; and nothing was
    /// freed that was granted.
    pub fn assert_sound(&self) {
        let counters = self.front.counters();
        let quarantined = self.front.quarantined() as u64;
        let granted = self.domain.grants().filter_permitted(self.vif.backend) as u64;
        assert_eq!(
            counters.grants - counters.revokes,
            granted,
            "{quarantined} in quarantine; {counters:?}"
        );
        assert_eq!(self.host.violations(), []);
    }

    /// After the device is gone: every page is home.
    pub fn assert_no_leak(self) {
        let Bench { host, domain, pool, table, front, queues, .. } = self;
        drop(queues);
        drop(front);
        table.sweep();
        assert_eq!(table.usage().claimed, 0, "references leaked");
        assert_eq!(pool.free(), pool.size(), "frames leaked");
        assert_eq!(domain.open_ports(), [], "ports leaked");
        assert_eq!(host.violations(), []);
        drop(pool);
    }
}

trait Permitted {
    fn filter_permitted(self, peer: DomId) -> usize;
}

impl<I: IntoIterator<Item = (u32, xen_sim::memory::Entry)>> Permitted for I {
    fn filter_permitted(self, peer: DomId) -> usize {
        self.into_iter().filter(|(gref, entry)| *gref >= 8 && entry.permits(peer)).count()
    }
}
