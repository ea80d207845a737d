//! The backend's end, and the loop around it: it serves whatever vifs the toolstack makes.

use std::collections::VecDeque;

use xen_grant::FramePool;
use xen_netfront::buffer::{BufMut, PacketMut};
use xen_netfront::netback::{
    Budget, ClientChange, ClientId, Clients, Config, Counters, DeliverError, DeliverErrorKind, Vif,
};
use xen_netfront::platform::Instant;
use xen_netfront::xenbus::VifId;
use xen_sim::{Domain, Next};

use super::{FRONT, Ledger, Plan, Shape};

/// Packets taken from a client in one go.
const BUDGET: usize = 64;

pub type Served = Vif<Domain, Domain>;

pub struct Back {
    pub domain: Domain,
    /// Of all clients.
    pub pool: FramePool,
    pub config: Config,
    pub clients: Option<Clients<Domain, Domain>>,
    /// What is to be sent to the frontend of the pair.
    pub outbox: VecDeque<Shape>,
    past: (u64, u64),
    pub connects: u64,
    /// Packets of which only some segments found room in the queue.
    pub partial: u64,
    /// Watches of this domain that are not ours.
    pub foreign_watches: usize,
}

const PAIR: VifId = (FRONT, 0);

impl Back {
    pub fn new(domain: Domain, plan: &Plan) -> Back {
        Back {
            pool: FramePool::new(&domain, plan.back_frames).unwrap(),
            config: plan.back,
            clients: None,
            outbox: VecDeque::new(),
            past: (0, 0),
            connects: 0,
            partial: 0,
            foreign_watches: 0,
            domain,
        }
    }

    pub fn open(&mut self) {
        let (platform, store) = (self.domain.clone(), self.domain.clone());
        // As much for each as a backend of one vif allows it.
        let frames = self.config.queue_frames.max(18 * self.config.max_queues as usize);
        let budget = Budget::new(1 << 20, 4, frames, 0).unwrap();
        let clients = Clients::open(platform, store, &self.pool, &budget, self.config);
        self.clients = Some(clients.unwrap());
    }

    /// Ends the backend without a word, as a crash of its driver would.
    pub fn close(&mut self) {
        if let Some(served) = self.served() {
            let (counters, queued) = (*served.counters(), served.queued() as u64);
            self.remember(&counters, queued);
        }
        self.clients = None;
    }

    fn remember(&mut self, counters: &Counters, queued: u64) {
        let (up, down) = lost(counters);
        self.past.0 += up;
        self.past.1 += down + queued;
        self.connects += counters.connects;
    }

    /// The backend of the pair.
    pub fn served(&self) -> Option<&Served> {
        let clients = self.clients.as_ref()?;
        clients.vif(clients.find(PAIR)?)
    }

    /// Whether there is no such vif.
    pub fn has_left(&self, vif: VifId) -> bool {
        self.clients.as_ref().is_none_or(|clients| clients.find(vif).is_none())
    }

    pub fn is_connected(&self) -> bool {
        self.served().is_some_and(|vif| vif.is_connected())
    }

    pub fn queued(&self) -> usize {
        self.served().map_or(0, |vif| vif.queued())
    }

    /// Packets dropped on the way up, and down.
    pub fn dropped(&self) -> (u64, u64) {
        let (up, down) = self.served().map_or((0, 0), |served| lost(served.counters()));
        (self.past.0 + up, self.past.1 + down + self.partial)
    }

    /// Looks at all clients the next time, as if each had sent an event: what a kernel does that is not told
    /// of all.
    pub fn look_at_all(&mut self) {
        let Some(clients) = &mut self.clients else { return };
        let ports: Vec<_> = clients.iter().flat_map(|(_, vif)| vif.ports()).collect();
        ports.into_iter().for_each(|port| clients.event(port));
    }

    pub(super) fn step(&mut self, now: Instant, up: &mut Ledger, down: &mut Ledger) -> Next {
        let Some(clients) = &mut self.clients else { return Next::Wait };
        let pair = clients.find(PAIR);
        let before = self.domain.counts().store_calls;
        clients.turn(BUDGET, |clients, from, packet| {
            if Some(from) == pair {
                up.arrive(&packet);
            } else {
                // Whatever the client does not take is its loss.
                let _refused = clients.deliver(from, packet.freeze());
            }
        });
        let asked = self.domain.counts().store_calls - before;
        assert!(asked <= 44, "N3: {asked} requests to xenstore in one turn");
        let full = pair.is_some_and(|pair| {
            send(clients, pair, &self.pool, &mut self.outbox, down, &mut self.partial)
        });
        let mut again = clients.rearm();
        // Otherwise the client wakes us when it has posted pages.
        let queued = |client| clients.vif(client).map_or(0, |vif| vif.queued());
        again |= full && pair.is_some_and(|pair| queued(pair) == 0);
        let deadline = clients.next_deadline();
        let mut gone = None;
        while let Some((_, change)) = clients.next_change() {
            if let ClientChange::Gone { vif: PAIR, counters } = change {
                gone = Some(*counters);
            }
        }
        if let Some(counters) = gone {
            self.remember(&counters, 0);
        }
        match (again, deadline) {
            (true, _) => Next::Now,
            (false, Some(deadline)) => Next::WaitUntil(deadline.max(now)),
            (false, None) => Next::Wait,
        }
    }

    /// After all vifs are gone.
    pub fn assert_nothing_left(self) {
        assert!(self.clients.is_none());
        let Back { domain, pool, foreign_watches, .. } = self;
        assert_eq!(pool.free(), pool.size(), "the backend's frames leaked");
        drop(pool);
        assert_eq!(domain.pages_in_use(), 0, "the backend's pages leaked");
        assert_eq!(domain.mappings(), 0, "mappings leaked");
        assert_eq!(domain.open_ports(), [], "the backend's ports leaked");
        assert_eq!(domain.store().watches(), foreign_watches, "the backend's watches leaked");
        assert_eq!(domain.store().transactions(), 0, "the backend's transactions leaked");
    }
}

/// Delivers what is to be sent, as far as the queue takes it. True if the queue is full.
fn send(
    clients: &mut Clients<Domain, Domain>,
    to: ClientId,
    pool: &FramePool,
    outbox: &mut VecDeque<Shape>,
    down: &mut Ledger,
    partial: &mut u64,
) -> bool {
    while let Some(shape) = outbox.front() {
        let Some(packet) = build(pool, shape, &down.next_packet(shape)) else { return true };
        let queued = |clients: &Clients<Domain, Domain>| {
            clients.vif(to).filter(|vif| vif.is_connected()).map(|vif| vif.queued())
        };
        let Some(before) = queued(clients) else { return false };
        let refused = clients.deliver(to, packet.freeze()).err();
        // Segments that found room stay, and those that did not are lost.
        let cut_short = refused.is_some() && queued(clients) > Some(before);
        *partial += u64::from(cut_short);
        match refused {
            None => down.accepted(shape),
            Some(_) if cut_short => down.accepted(shape),
            Some(DeliverError::Full(_)) => return true,
            Some(DeliverError::Refused(DeliverErrorKind::Stalled)) => return false,
            // Refused for good, or a broken rule that `service` does not know of yet.
            Some(_) => {}
        }
        outbox.pop_front();
        if cut_short {
            return true;
        }
    }
    false
}

/// `None` without frames.
fn build(pool: &FramePool, shape: &Shape, bytes: &[u8]) -> Option<PacketMut> {
    let (mut packet, mut at) = (PacketMut::new(), 0);
    packet.meta = shape.meta();
    for &(room, len) in &shape.fragments {
        let len = usize::from(len);
        let mut buf = BufMut::new(pool.take()?, room.into());
        buf.append(len).unwrap().copy_from_slice(&bytes[at..at + len]);
        packet.push(buf).unwrap();
        at += len;
    }
    Some(packet)
}

/// What a backend says it dropped, on the way up and down. What was never accepted is left out.
fn lost(counters: &Counters) -> (u64, u64) {
    let drops = &counters.to_drops;
    (counters.from_drops.total(), drops.stalled + drops.copy_failed + drops.disconnected)
}
