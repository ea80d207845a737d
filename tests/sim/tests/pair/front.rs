//! The frontend's end, and the loop around it.

use std::collections::VecDeque;
use std::time::Duration;

use packet_views::device::Link;
use packet_views::device::{NetDevice, SendError};
use xen_grant::{Frame, FramePool, GrantTable};
use xen_netfront::buffer::{Packet, PacketMut};
use xen_netfront::netfront::{Config, Counters, Netfront};
use xen_netfront::platform::Platform;
use xen_sim::{Domain, Next};

use super::{Ledger, Plan, Shape};

/// Packets that the layer above takes in one go.
const BUDGET: usize = 64;

pub struct Front {
    pub domain: Domain,
    pub pool: FramePool,
    pub table: GrantTable,
    pub config: Config,
    pub net: Option<Netfront<Domain, Domain>>,
    /// What is to be sent.
    pub outbox: VecDeque<Shape>,
    /// Frames that somebody else has taken.
    pub hogged: Vec<Frame>,
    /// Received packets stay with the layer above until so many more have come.
    pub held: VecDeque<Packet>,
    pub holds: usize,
    /// Told to close in good order.
    closing: bool,
    /// What frontends that are gone dropped: on the way up, and down.
    past: (u64, u64),
    pub connects: u64,
    /// Packets of which only some segments went, for want of frames.
    pub partial: u64,
}

impl Front {
    pub fn new(domain: Domain, plan: &Plan) -> Front {
        Front {
            pool: FramePool::new(&domain, plan.front_frames).unwrap(),
            table: GrantTable::new(&domain),
            config: plan.front,
            net: None,
            outbox: VecDeque::new(),
            hogged: Vec::new(),
            held: VecDeque::new(),
            holds: 0,
            closing: false,
            past: (0, 0),
            connects: 0,
            partial: 0,
            domain,
        }
    }

    pub fn open(&mut self) {
        let (platform, store) = (self.domain.clone(), self.domain.clone());
        let (pool, table) = (&self.pool, &self.table);
        self.net = Some(Netfront::open(platform, store, pool, table, 0, self.config).unwrap());
    }

    /// Ends the frontend without a word, as a crash of its driver would.
    pub fn close(&mut self) {
        self.closing = false;
        if let Some(mut net) = self.net.take() {
            // What lies on the receive ring goes with it.
            let mut unread = 0;
            while net.receive(BUDGET, |_| unread += 1) > 0 {}
            let (up, down) = lost(net.counters());
            self.past.0 += up + outstanding(net.counters());
            self.past.1 += down + unread;
            self.connects += net.counters().connects;
        }
    }

    /// Closes in good order; true when that is over.
    pub fn disconnect(&mut self) -> bool {
        let Some(net) = &mut self.net else { return true };
        if !std::mem::replace(&mut self.closing, true) {
            net.disconnect();
            self.domain.wake();
        }
        net.closed()
    }

    pub fn is_up(&self) -> bool {
        self.net.as_ref().is_some_and(|net| net.link() == Link::Up)
    }

    /// Whether packets have been cut for a backend that takes no large ones.
    pub fn has_cut(&self) -> bool {
        self.net.as_ref().is_some_and(|net| net.counters().tx_cut > 0)
    }

    /// Slots that the backend has not answered.
    pub fn outstanding(&self) -> u64 {
        self.net.as_ref().map_or(0, |net| outstanding(net.counters()))
    }

    /// Packets, or slots, that were dropped on the way up, and down.
    pub fn dropped(&self) -> (u64, u64) {
        let (up, down) = self.net.as_ref().map_or((0, 0), |net| lost(net.counters()));
        (self.past.0 + up + self.partial, self.past.1 + down)
    }

    pub(super) fn step(&mut self, up: &mut Ledger, down: &mut Ledger) -> Next {
        let Some(net) = &mut self.net else { return Next::Wait };
        let before = self.domain.counts().store_calls;
        net.service();
        let asked = self.domain.counts().store_calls - before;
        assert!(asked <= 280, "N3: {asked} requests to xenstore in one step");
        net.complete_tx();
        let (held, holds) = (&mut self.held, self.holds);
        net.receive(BUDGET, |packet| {
            down.arrive(&packet);
            held.push_back(packet);
            if held.len() > holds {
                held.pop_front();
            }
        });
        let mut starved = false;
        while let Some(shape) = self.outbox.front() {
            // Most that is sent finds a ring that is full, and builds nothing for it.
            let slots = shape.fragments.len() + usize::from(shape.meta().gso.is_some());
            if net.queue_count() < 2 && Netfront::reserve(net, slots).is_none() {
                break;
            }
            let Some(packet) = build(net, shape, &up.next_packet(shape)) else {
                starved = true;
                break;
            };
            let before = *Netfront::counters(net);
            // What is refused is gone, and counted.
            if let Err(SendError::Full(_)) = NetDevice::send(net, packet) {
                break;
            }
            let after = Netfront::counters(net);
            if after.tx_packets > before.tx_packets {
                up.accepted(shape);
                self.partial += u64::from(after.tx_drops.no_frame > before.tx_drops.no_frame);
            }
            self.outbox.pop_front();
        }
        let again = net.rearm();
        let soon = starved.then(|| self.domain.now() + Duration::from_millis(1));
        match (again, net.next_deadline().into_iter().chain(soon).min()) {
            (true, _) => Next::Now,
            (false, Some(deadline)) => Next::WaitUntil(deadline),
            (false, None) => Next::Wait,
        }
    }

    /// Every grant was revoked, or is there, or is in quarantine.
    pub fn assert_grants_add_up(&self) {
        let (Some(net), 0) = (&self.net, self.table.usage().quarantined) else { return };
        let (counters, there) = (net.counters(), self.domain.grants().len() as u64);
        let quarantined = net.quarantined();
        assert_eq!(
            counters.grants,
            counters.revokes + there,
            "{quarantined} in quarantine, {counters:?}"
        );
    }

    /// After the device is gone: pages and references are home, or in quarantine.
    pub fn assert_nothing_left(mut self) {
        self.hogged.clear();
        self.held.clear();
        self.table.sweep();
        let Front { domain, pool, table, net, .. } = self;
        assert!(net.is_none());
        let usage = table.usage();
        assert_eq!(usage.claimed, usage.quarantined, "references leaked");
        assert_eq!(pool.free() + usage.quarantined, pool.size(), "frames leaked");
        assert_eq!(domain.open_ports(), [], "ports leaked");
        assert_eq!(domain.store().watches(), 0, "watches leaked");
        assert_eq!(domain.store().transactions(), 0, "transactions leaked");
        assert_eq!(domain.grants().len(), usage.quarantined, "grants leaked");
        drop(pool);
        if usage.quarantined == 0 {
            assert_eq!(domain.pages_in_use(), 0, "pages leaked");
        }
    }
}

/// `None` without frames.
fn build(net: &mut Netfront<Domain, Domain>, shape: &Shape, bytes: &[u8]) -> Option<PacketMut> {
    let (mut packet, mut at) = (PacketMut::new(), 0);
    packet.meta = shape.meta();
    for &(room, len) in &shape.fragments {
        let len = usize::from(len);
        let mut buf = net.alloc(room.into())?;
        buf.append(len).unwrap().copy_from_slice(&bytes[at..at + len]);
        packet.push(buf).unwrap();
        at += len;
    }
    Some(packet)
}

fn outstanding(counters: &Counters) -> u64 {
    counters.tx_slots.saturating_sub(counters.tx_completed + counters.tx_drops.disconnected)
}

/// What a frontend says it dropped, on the way up and down.
fn lost(counters: &Counters) -> (u64, u64) {
    let drops = &counters.tx_drops;
    let up = drops.backend_error + drops.backend_dropped + drops.disconnected;
    (up, counters.rx_drops.total())
}
