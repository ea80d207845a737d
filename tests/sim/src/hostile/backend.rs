//! A backend that follows a script instead of the protocol.

use core::time::Duration;

use xen_grant::{DomId, PAGE_SIZE};
use xen_netfront::platform::{BackendPlatform, Instant, Port};
use xen_netfront::store::{Store, Watch};

use crate::sched::{Ctx, Next, Task};
use crate::{Domain, ForeignPage, GrantedPage};

use super::backend_rings::Traffic;
use super::peer::{After, Peer, Turn};
use super::raw::{Memory, RawRing};
use super::script::{Script, Step};
use super::token::{Gref, Id, Ring};

/// A granted page as the backend saw it when it took the request.
pub struct PageDump {
    /// Which ring the request was in.
    pub ring: Ring,
    /// The grant reference.
    pub gref: u32,
    /// Where the announced bytes begin (0 for a receive request).
    pub offset: u16,
    /// What the request said its size is (0 for a receive request).
    pub size: u16,
    /// The whole page.
    pub bytes: Box<[u8; PAGE_SIZE]>,
}

/// `NETRXF_more_data`
const MORE_DATA: u16 = 4;
/// `NETRXF_extra_info`
const EXTRA_INFO: u16 = 8;
/// `NETRXF_csum_blank` and `NETRXF_data_validated`
const BLANK: u16 = 3;
/// `XEN_NETIF_EXTRA_TYPE_GSO`
const GSO: u8 = 1;

/// The pace of honest rounds that a script asks for.
const ROUND: Duration = Duration::from_micros(100);

/// A backend on raw words. A [`Task`] for the scheduler; between scripts it behaves.
pub struct HostileBackend {
    pub(super) peer: Peer,
    pub(super) traffic: Traffic,
    kept: Vec<ForeignPage>,
    features: Vec<(String, String)>,
    parasite: bool,
    /// The queue that it serves. Others hear nothing of it.
    queue: u32,
    /// The references of the rings that are mapped.
    grefs: Option<(u32, u32)>,
    watches: Vec<Watch>,
}

impl HostileBackend {
    /// A backend of its own in `domain` for interface `index` of `victim`. The toolstack has made
    /// the directories.
    pub fn new(domain: &Domain, victim: DomId, index: u32) -> HostileBackend {
        HostileBackend::build(domain, victim, index, false)
    }

    /// The evil twin of an honest backend in the same domain: maps the same rings whenever the
    /// two are connected, answers nothing, and leaves states alone except by script.
    pub fn parasite(domain: &Domain, victim: DomId, index: u32) -> HostileBackend {
        HostileBackend::build(domain, victim, index, true)
    }

    fn build(domain: &Domain, victim: DomId, index: u32, parasite: bool) -> HostileBackend {
        let ours = format!("/local/domain/{}/backend/vif/{}/{index}", domain.id().0, victim.0);
        let theirs = format!("/local/domain/{}/device/vif/{index}", victim.0);
        let watches =
            [&ours, &theirs].iter().filter_map(|dir| domain.store().watch(dir).ok()).collect();
        let features = [
            ("feature-rx-copy", "1"),
            ("feature-rx-flip", "0"),
            ("feature-sg", "1"),
            ("multi-queue-max-queues", "1"),
        ];
        HostileBackend {
            peer: Peer::new(domain, victim, ours, theirs),
            traffic: Traffic::default(),
            kept: Vec::new(),
            features: features.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec(),
            parasite,
            queue: 0,
            grefs: None,
            watches,
        }
    }

    /// Plays a script, then does as `after` says.
    pub fn play(&mut self, script: Script, after: After) -> &mut Self {
        self.peer.play(script, after);
        self
    }

    /// Offers this key too, or another value for it, from the next connection on.
    pub fn feature(&mut self, key: &str, value: &str) -> &mut Self {
        self.features.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Serves this queue of a victim that has several, from the next connection on, and no other.
    pub fn serve_queue(&mut self, queue: u32) -> &mut Self {
        self.queue = queue;
        self
    }

    /// Keeps a copy of each granted page at the moment its request is taken.
    pub fn dump_requests(&mut self, on: bool) -> &mut Self {
        self.traffic.dump = on;
        self
    }

    /// Queues a packet for the victim to receive.
    pub fn inject(&mut self, packet: &[u8]) {
        self.traffic.outgoing.push_back(packet.to_vec());
    }

    /// Packets still queued for the victim.
    pub fn queued(&self) -> usize {
        self.traffic.outgoing.len()
    }

    /// What the victim has sent since this was last asked.
    pub fn take_received(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.traffic.received)
    }

    /// The pages of [`dump_requests`](HostileBackend::dump_requests).
    pub fn take_page_dumps(&mut self) -> Vec<PageDump> {
        std::mem::take(&mut self.traffic.dumps)
    }

    /// The pages of `dump` steps.
    pub fn take_dumps(&mut self) -> Vec<GrantedPage> {
        std::mem::take(&mut self.peer.pages)
    }

    /// Whether the rings are mapped.
    pub fn connected(&self) -> bool {
        self.peer.tx.is_some()
    }

    /// Whether the script has ended.
    pub fn ended(&self) -> bool {
        self.peer.ended()
    }

    /// Steps done, and steps skipped for want of a connection.
    pub fn steps(&self) -> (u64, u64) {
        (self.peer.done, self.peer.skipped)
    }

    /// Pages of the victim's that are mapped and kept.
    pub fn kept(&self) -> usize {
        self.kept.len()
    }

    /// Where the rings are, for tests that want to look on: a header or slot word.
    pub fn peek(&mut self, ring: Ring, word: super::Header) -> Option<u32> {
        self.peer.ring(ring).map(|ring| ring.header(word))
    }

    fn follow(&mut self) {
        // The bits only wake us; what counts is what the keys say now.
        for watch in &self.watches {
            self.peer.store.fired(watch);
        }
        let theirs = self.peer.number(&self.peer.theirs, "state");
        let ours = self.peer.number(&self.peer.ours, "state");
        if self.parasite {
            let grefs = self.ring_refs().filter(|_| theirs == Some(4) && ours == Some(4));
            if grefs != self.grefs {
                self.disconnect();
                if let Some(grefs) = grefs {
                    self.connect(grefs);
                }
            }
            return;
        }
        match (theirs, ours) {
            (Some(1), Some(2)) | (_, None) => {}
            (Some(1), Some(_)) => {
                self.disconnect();
                for (key, value) in &self.features {
                    self.peer.write(key, value.as_bytes());
                }
                self.peer.set_state(2);
            }
            (Some(3 | 4), Some(2)) => {
                if let Some(grefs) = self.ring_refs() {
                    self.connect(grefs);
                    if self.connected() {
                        self.peer.set_state(4);
                    }
                }
            }
            (Some(5), Some(_)) => {
                self.disconnect();
                self.peer.set_state(5);
            }
            (Some(6) | None, Some(_)) => {
                self.disconnect();
                self.peer.set_state(6);
                // As any driver domain: the toolstack waits for it.
                if self.peer.number(&self.peer.ours, "online") == Some(0) {
                    let _ = self.peer.store.remove(None, &self.peer.ours);
                }
            }
            (Some(_), Some(_)) => {}
        }
    }

    /// A number that the victim has published, of the queue that is served.
    fn published(&self, key: &str) -> Option<u32> {
        let (peer, dir) = (&self.peer, &self.peer.theirs);
        let queues = peer.number(dir, "multi-queue-num-queues").unwrap_or(1).max(1);
        let queue = self.queue % queues;
        peer.number(dir, key).or_else(|| peer.number(dir, &format!("queue-{queue}/{key}")))
    }

    fn ring_refs(&self) -> Option<(u32, u32)> {
        Some((self.published("tx-ring-ref")?, self.published("rx-ring-ref")?))
    }

    fn connect(&mut self, grefs: (u32, u32)) {
        let port = self.published("event-channel").or_else(|| self.published("event-channel-rx"));
        let port = port.and_then(Port::new);
        let peer = &mut self.peer;
        let map = |gref| peer.domain.map_page(peer.victim, gref, true);
        let (Ok(tx), Ok(rx)) = (map(grefs.0), map(grefs.1)) else { return };
        peer.victim_port = port;
        if let (Some(port), false) = (port, self.parasite) {
            peer.port = peer.domain.bind_interdomain(peer.victim, port).ok();
        }
        peer.tx = Some(RawRing::new(Ring::Tx, Memory::Mapped(tx)));
        peer.rx = Some(RawRing::new(Ring::Rx, Memory::Mapped(rx)));
        self.grefs = Some(grefs);
        self.traffic.reset();
    }

    fn disconnect(&mut self) {
        self.peer.tx = None;
        self.peer.rx = None;
        self.peer.victim_port = None;
        self.peer.close_port();
        self.grefs = None;
    }

    fn step(&mut self, step: &Step, now: Instant) {
        if self.peer.step(step, now) {
            return;
        }
        match step {
            Step::Push { ring } => {
                if let Some(ring) = self.peer.ring(*ring) {
                    ring.set_header(super::Header::RspProd, ring.prod.0);
                }
            }
            Step::Drop {} => self.disconnect(),
            Step::Connect {} => {
                self.peer.following = true;
                self.follow();
            }
            Step::Map { gref } => {
                if let Some(gref) = self.pick(*gref) {
                    self.keep(gref);
                }
            }
            Step::Keep { ring } => {
                self.fetch();
                if let Some(gref) = self.traffic.oldest_gref(*ring) {
                    self.keep(gref);
                }
            }
            Step::Unmap {} => self.kept.clear(),
            Step::Respond { ring, count } => self.respond(*ring, (*count).into()),
            Step::TxResponse { id, status } => self.put_tx_response(*id, *status),
            Step::RxResponse { id, offset, flags, status } => {
                self.put_rx_response(*id, *offset, *flags, *status);
            }
            Step::RxGso { slots, status, gso, kind } => {
                for nth in 0..*slots {
                    let more = if nth + 1 < *slots { MORE_DATA } else { 0 };
                    let first = if nth == 0 { BLANK | EXTRA_INFO } else { 0 };
                    self.put_rx_response(Id::Next, 0, more | first, *status);
                    if nth == 0 {
                        self.put_rx_extra(GSO, 0, *gso, (*kind).into());
                    }
                }
            }
            Step::RxExtra { kind, flags, low, high } => {
                self.put_rx_extra(*kind, *flags, *low, *high);
            }
            // The client's, or done above.
            Step::Index { .. } | Step::Slot { .. } | Step::Fill { .. } | Step::Notify {} => {}
            Step::Storm { .. } | Step::Key { .. } | Step::Unkey { .. } | Step::State { .. } => {}
            Step::Vanish {} | Step::ClosePort {} | Step::Silence { .. } => {}
            Step::Honest { .. } | Step::Dump {} | Step::TxRequest { .. } => {}
            Step::TxChain { .. } | Step::TxExtra { .. } | Step::RxRequest { .. } => {}
            Step::TxGso { .. } => {}
            Step::Revoke { .. } | Step::Entry { .. } => {}
        }
    }

    fn keep(&mut self, gref: u32) {
        let (domain, victim) = (&self.peer.domain, self.peer.victim);
        let page =
            domain.map_page(victim, gref, true).or_else(|_| domain.map_page(victim, gref, false));
        self.kept.extend(page);
    }

    fn pick(&self, gref: Gref) -> Option<u32> {
        let victim = self.peer.domain.host().domain(self.peer.victim)?;
        let us = self.peer.domain.id();
        let grants = || victim.grants().into_iter();
        let good = |readonly: bool| {
            grants().filter(move |(_, e)| {
                e.permits(us) && (e.flags & crate::memory::GTF_READONLY != 0) == readonly
            })
        };
        match gref {
            Gref::Exact(gref) => Some(gref),
            Gref::Page(nth) => {
                let all: Vec<u32> = good(false).chain(good(true)).map(|(gref, _)| gref).collect();
                all.get(usize::from(nth) % all.len().max(1)).copied()
            }
            Gref::RingPage(Ring::Tx) => self.grefs.map(|grefs| grefs.0),
            Gref::RingPage(Ring::Rx) => self.grefs.map(|grefs| grefs.1),
            Gref::ReadOnly => good(true).map(|(gref, _)| gref).next(),
            Gref::Other => grants().find(|(_, e)| !e.permits(us)).map(|(gref, _)| gref),
            Gref::Ended | Gref::NoFrame => Some(crate::memory::RESERVED_ENTRIES - 1),
        }
    }
}

impl Task for HostileBackend {
    fn run(&mut self, ctx: &mut Ctx<'_>) -> Next {
        self.peer.news |= ctx.store || self.watches.len() < 2;
        if let Some(next) = self.peer.silent(ctx.now) {
            return next;
        }
        if self.peer.following && std::mem::take(&mut self.peer.news) {
            self.follow();
        }
        match self.peer.turn(ctx.now, self.connected()) {
            Turn::Step(step) => {
                self.peer.done += 1;
                self.step(&step, ctx.now);
                Next::Now
            }
            Turn::Honest => {
                let more = !self.parasite && self.serve();
                match (more, self.peer.ended()) {
                    (true, _) => Next::Now,
                    (false, true) => Next::Wait,
                    (false, false) => Next::WaitUntil(ctx.now + ROUND),
                }
            }
            Turn::Quiet(Some(until)) => Next::WaitUntil(until),
            Turn::Quiet(None) => Next::Wait,
        }
    }
}

impl std::fmt::Debug for PageDump {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let PageDump { ring, gref, offset, size, .. } = self;
        write!(f, "PageDump({ring:?}, reference {gref}, {size} bytes at {offset})")
    }
}

impl std::fmt::Debug for HostileBackend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "HostileBackend(queue {})", self.queue)
    }
}
