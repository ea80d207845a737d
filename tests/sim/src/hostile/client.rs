//! A client that follows a script instead of the protocol.

use core::num::Wrapping;
use core::time::Duration;
use std::collections::VecDeque;

use xen_grant::DomId;
use xen_netfront::platform::{Instant, Platform};
use xen_netfront::store::{Store, Watch};

use crate::memory::Entry;
use crate::sched::{Ctx, Next, Task};
use crate::{Domain, GrantedPage};

use super::client_pages::Pages;
use super::idle_queue::IdleQueue;
use super::peer::{After, Peer, Turn};
use super::raw::{Memory, RawRing, SLOTS};
use super::script::{Script, Step};
use super::token::{Header, Ring};

/// The pace of honest rounds that a script asks for.
const ROUND: Duration = Duration::from_micros(100);
/// `NETTXF_more_data`, `NETRXF_more_data`
const MORE_DATA: u16 = 4;
/// `NETRXF_extra_info`
const EXTRA_INFO: u16 = 8;
/// `NETTXF_csum_blank` and `NETTXF_data_validated`
const BLANK: u16 = 3;
/// `XEN_NETIF_EXTRA_TYPE_GSO`
const GSO: u8 = 1;
/// `XEN_NETIF_EXTRA_FLAG_MORE`
const EXTRA_MORE: u32 = 1 << 8;

/// A frontend on raw words. A [`Task`] for the scheduler; between scripts it behaves.
pub struct HostileClient {
    peer: Peer,
    pages: Option<Pages>,
    outgoing: VecDeque<Vec<u8>>,
    received: Vec<Vec<u8>>,
    assembling: Vec<u8>,
    extra_next: bool,
    features: Vec<(String, String)>,
    start: u32,
    queues: u32,
    /// The one that the script attacks.
    queue: u32,
    /// All others.
    idle: Vec<IdleQueue>,
    answered: u64,
    refused: u64,
    watches: Vec<Watch>,
}

impl HostileClient {
    /// A client in `domain`, for its interface `index`, served by `victim`. The toolstack has made
    /// the directories. The domain's grant table is the client's alone.
    pub fn new(domain: &Domain, victim: DomId, index: u32) -> HostileClient {
        let ours = format!("/local/domain/{}/device/vif/{index}", domain.id().0);
        let theirs = format!("/local/domain/{}/backend/vif/{}/{index}", victim.0, domain.id().0);
        let watches =
            [&ours, &theirs].iter().filter_map(|dir| domain.store().watch(dir).ok()).collect();
        let features = [
            ("request-rx-copy", "1"),
            ("feature-rx-notify", "1"),
            ("feature-sg", "1"),
            ("feature-no-csum-offload", "1"),
        ];
        HostileClient {
            peer: Peer::new(domain, victim, ours, theirs),
            pages: None,
            outgoing: VecDeque::new(),
            received: Vec::new(),
            assembling: Vec::new(),
            extra_next: false,
            features: features.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec(),
            start: 0,
            queues: 1,
            queue: 0,
            idle: Vec::new(),
            answered: 0,
            refused: 0,
            watches,
        }
    }

    /// Plays a script, then does as `after` says.
    pub fn play(&mut self, script: Script, after: After) -> &mut Self {
        self.peer.play(script, after);
        self
    }

    /// Writes this key too, or another value for it, from the next connection on.
    pub fn feature(&mut self, key: &str, value: &str) -> &mut Self {
        self.features.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Where the ring indices start, from the next connection on.
    pub fn ring_start(&mut self, start: u32) -> &mut Self {
        self.start = start;
        self
    }

    /// Asks for so many queues, from the next connection on, as far as the backend offers as many.
    /// One is used, the `queue`th modulo their number; the others never are.
    pub fn queues(&mut self, queues: u32, queue: u32) -> &mut Self {
        (self.queues, self.queue) = (queues, queue);
        self
    }

    /// Queues a packet to be sent. Packets beyond 18 pages are cut.
    pub fn send(&mut self, packet: &[u8]) {
        self.outgoing.push_back(packet.to_vec());
    }

    /// Packets that wait to be sent.
    pub fn queued(&self) -> usize {
        self.outgoing.len()
    }

    /// Packets that came in since this was last asked.
    pub fn take_received(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.received)
    }

    /// The pages of `dump` steps.
    pub fn take_dumps(&mut self) -> Vec<GrantedPage> {
        std::mem::take(&mut self.peer.pages)
    }

    /// Transmit responses so far: in all, and those whose status was an error.
    pub fn responses(&self) -> (u64, u64) {
        (self.answered, self.refused)
    }

    /// Whether the rings are set up and our state is Connected.
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

    fn follow(&mut self) {
        // The bits only wake us; what counts is what the keys say now.
        for watch in &self.watches {
            self.peer.store.fired(watch);
        }
        let theirs = self.peer.number(&self.peer.theirs, "state");
        match theirs {
            Some(2) => {
                if !self.connected() {
                    self.connect();
                }
            }
            Some(4) if !self.connected() => {
                // Left over from before: ask for a new start.
                self.peer.set_state(5);
            }
            Some(5) => {
                self.disconnect();
                self.peer.set_state(6);
            }
            Some(6) => {
                self.disconnect();
                let online = self.peer.number(&self.peer.theirs, "online") == Some(1);
                self.peer.set_state(if online { 1 } else { 6 });
            }
            Some(_) | None => {}
        }
    }

    fn connect(&mut self) {
        let Some((pages, tx, rx)) = Pages::new(&self.peer.domain, self.peer.victim) else { return };
        let port = self.peer.domain.alloc_unbound(self.peer.victim).ok();
        let mut rings = [(Ring::Tx, tx), (Ring::Rx, rx)].map(|(ring, page)| {
            let mut raw = RawRing::new(ring, Memory::Own(page));
            raw.reset(self.start);
            Some(raw)
        });
        (self.peer.tx, self.peer.rx) = (rings[0].take(), rings[1].take());
        self.peer.port = port;
        let (tx_ref, rx_ref) = pages.ring_refs();
        let port = port.map_or(0, |port| port.get());
        let numbers = [("tx-ring-ref", tx_ref), ("rx-ring-ref", rx_ref), ("event-channel", port)];
        let offered = self.peer.number(&self.peer.theirs, "multi-queue-max-queues").unwrap_or(1);
        let queues = self.queues.min(offered).max(1);
        self.idle = (1..queues)
            .map_while(|_| {
                IdleQueue::new(&self.peer.domain, self.peer.victim, Wrapping(self.start))
            })
            .collect();
        if queues > 1 {
            self.peer.write("multi-queue-num-queues", queues.to_string().as_bytes());
        }
        let mut all: Vec<_> = self.idle.iter().map(IdleQueue::nodes).collect();
        all.insert(self.queue as usize % (all.len() + 1), numbers);
        for (queue, numbers) in all.into_iter().enumerate() {
            let dir = if queues > 1 { format!("queue-{queue}/") } else { String::new() };
            for (key, number) in numbers {
                self.peer.write(&format!("{dir}{key}"), number.to_string().as_bytes());
            }
        }
        for (key, value) in &self.features {
            self.peer.write(key, value.as_bytes());
        }
        self.pages = Some(pages);
        self.assembling.clear();
        self.extra_next = false;
        self.peer.set_state(4);
    }

    fn disconnect(&mut self) {
        self.peer.tx = None;
        self.peer.rx = None;
        self.peer.close_port();
        // Ends all grants, in use or not.
        self.pages = None;
        self.idle.clear();
    }

    /// An honest round: reaps, refills, sends. True if there is more to reap.
    fn serve(&mut self) -> bool {
        let Some(pages) = &mut self.pages else { return false };
        let (Some(tx), Some(rx)) = (&mut self.peer.tx, &mut self.peer.rx) else { return false };
        for [word, _, _] in tx.take(Header::RspProd) {
            self.answered += 1;
            self.refused += u64::from(((word >> 16) as i16) < 0);
            pages.tx_done(word as u16);
        }
        for [first, second, _] in rx.take(Header::RspProd) {
            if self.extra_next {
                self.extra_next = first & EXTRA_MORE != 0;
                pages.rx_extra();
                continue;
            }
            let (id, offset) = (first as u16, (first >> 16) as u16);
            let (flags, status) = (second as u16, (second >> 16) as i16);
            self.extra_next = flags & EXTRA_INFO != 0;
            pages.rx_done(id, offset, status, &mut self.assembling);
            if flags & MORE_DATA == 0 {
                self.received.push(std::mem::take(&mut self.assembling));
            }
        }
        let before = (tx.prod, rx.prod);
        while let Some((id, gref)) = pages.next_rx() {
            rx.put(&[id.into(), gref]);
        }
        while let Some(packet) = self.outgoing.front() {
            let room = (tx.cons + Wrapping(SLOTS) - tx.prod).0 as usize;
            let Some(requests) = pages.fill(packet, room) else { break };
            requests.iter().for_each(|words| tx.put(words));
            self.outgoing.pop_front();
        }
        let mut more = false;
        for raw in [&*tx, &*rx] {
            raw.set_header(Header::ReqProd, raw.prod.0);
            raw.set_header(Header::RspEvent, raw.cons.0.wrapping_add(1));
        }
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
        for raw in [&*tx, &*rx] {
            more |= raw.new_messages(Header::RspProd) != 0;
        }
        if (tx.prod, rx.prod) != before {
            self.peer.notify();
        }
        more
    }

    fn step(&mut self, step: &Step, now: Instant) {
        if self.peer.step(step, now) {
            return;
        }
        let gref = |gref| self.pages.as_ref().map_or(0, |pages| pages.gref(gref));
        match step {
            Step::Push { ring } => {
                if let Some(ring) = self.peer.ring(*ring) {
                    ring.set_header(Header::ReqProd, ring.prod.0);
                }
            }
            Step::Drop {} => self.disconnect(),
            Step::Connect {} => {
                self.peer.following = true;
                self.follow();
            }
            Step::TxRequest { gref: page, offset, flags, id, size } => {
                let words = tx_request(gref(*page), *offset, *flags, *id, *size);
                if let Some(tx) = &mut self.peer.tx {
                    tx.put(&words);
                }
            }
            Step::TxChain { gref: page, slots, total, size } => {
                let page = gref(*page);
                for nth in 0..*slots {
                    let flags = if nth + 1 < *slots { MORE_DATA } else { 0 };
                    let size = if nth == 0 { *total } else { *size };
                    if let Some(tx) = &mut self.peer.tx {
                        tx.put(&tx_request(page, 0, flags, nth.into(), size));
                    }
                }
            }
            Step::TxGso { gref: page, slots, total, size, gso, kind } => {
                let page = gref(*page);
                let Some(tx) = &mut self.peer.tx else { return };
                for nth in 0..*slots {
                    let more = if nth + 1 < *slots { MORE_DATA } else { 0 };
                    let first = if nth == 0 { BLANK | EXTRA_INFO } else { 0 };
                    let size = if nth == 0 { *total } else { *size };
                    tx.put(&tx_request(page, 0, more | first, nth.into(), size));
                    if nth == 0 {
                        tx.put(&[u32::from(GSO) | u32::from(*gso) << 16, (*kind).into(), 0]);
                    }
                }
            }
            Step::TxExtra { kind, flags, low, high } => {
                let first = u32::from_le_bytes([*kind, *flags, 0, 0]) | u32::from(*low) << 16;
                if let Some(tx) = &mut self.peer.tx {
                    tx.put(&[first, *high, 0]);
                }
            }
            Step::RxRequest { id, gref: page } => {
                let page = gref(*page);
                if let Some(rx) = &mut self.peer.rx {
                    rx.put(&[(*id).into(), page]);
                }
            }
            Step::Revoke { page } => {
                if let Some(pages) = &self.pages {
                    pages.revoke(*page);
                }
            }
            Step::Entry { gref: entry, flags, domain, frame } => {
                let written = Entry { flags: (*flags).into(), peer: DomId(*domain), frame: *frame };
                self.peer.domain.set_grant_entry(gref(*entry), written);
            }
            // The backend's, or done above.
            Step::Index { .. } | Step::Slot { .. } | Step::Fill { .. } | Step::Notify {} => {}
            Step::Storm { .. } | Step::Key { .. } | Step::Unkey { .. } | Step::State { .. } => {}
            Step::Vanish {} | Step::ClosePort {} | Step::Silence { .. } => {}
            Step::Honest { .. } | Step::Dump {} | Step::Map { .. } | Step::Keep { .. } => {}
            Step::Unmap {} | Step::Respond { .. } | Step::TxResponse { .. } => {}
            Step::RxResponse { .. } | Step::RxExtra { .. } | Step::RxGso { .. } => {}
        }
    }
}

pub(super) fn tx_request(gref: u32, offset: u16, flags: u16, id: u16, size: u16) -> [u32; 3] {
    let pair = |low: u16, high: u16| u32::from(low) | u32::from(high) << 16;
    [gref, pair(offset, flags), pair(id, size)]
}

impl Task for HostileClient {
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
            Turn::Honest => match (self.serve(), self.peer.ended()) {
                (true, _) => Next::Now,
                (false, true) => Next::Wait,
                (false, false) => Next::WaitUntil(ctx.now + ROUND),
            },
            Turn::Quiet(Some(until)) => Next::WaitUntil(until),
            Turn::Quiet(None) => Next::Wait,
        }
    }
}

impl std::fmt::Debug for HostileClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "HostileClient(queue {} of {})", self.queue, self.queues)
    }
}
