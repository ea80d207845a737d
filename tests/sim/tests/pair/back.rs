//! The backend's end, and the loop around it: it serves whatever vifs the toolstack makes.

use std::collections::{BTreeMap, VecDeque};

use xen_grant::FramePool;
use xen_netfront::buffer::{BufMut, Packet, PacketMut};
use xen_netfront::netback::{Config, Counters, DeliverError, DeliverErrorKind, Netback};
use xen_netfront::platform::Instant;
use xen_netfront::xenbus::{Clients, VifId};
use xen_sim::{Domain, Next};

use super::{FRONT, Ledger, Plan, Shape};

/// Packets taken from a client in one go.
const BUDGET: usize = 64;

pub type Served = Netback<Domain, Domain>;

pub struct Back {
    pub domain: Domain,
    /// For our side of the pair. Other clients have pools of their own.
    pub pool: FramePool,
    pub pools: BTreeMap<VifId, FramePool>,
    pub config: Config,
    clients: Option<Clients<Domain>>,
    pub vifs: BTreeMap<VifId, Served>,
    /// What is to be sent to the frontend of the pair.
    pub outbox: VecDeque<Shape>,
    /// Of other clients: packets that go back where they came from.
    echo: Vec<Packet>,
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
            pools: BTreeMap::new(),
            config: plan.back,
            clients: None,
            vifs: BTreeMap::new(),
            outbox: VecDeque::new(),
            echo: Vec::new(),
            past: (0, 0),
            connects: 0,
            partial: 0,
            foreign_watches: 0,
            domain,
        }
    }

    pub fn open(&mut self) {
        self.clients = Some(Clients::open(self.domain.clone()).unwrap());
    }

    /// Ends the backend without a word, as a crash of its driver would.
    pub fn close(&mut self) {
        self.clients = None;
        for (vif, served) in std::mem::take(&mut self.vifs) {
            self.forget(vif, served);
        }
    }

    fn forget(&mut self, vif: VifId, served: Served) {
        if vif == PAIR {
            let (up, down) = lost(served.counters());
            self.past.0 += up;
            self.past.1 += down + served.queued() as u64;
            self.connects += served.counters().connects;
        }
    }

    /// The backend of the pair.
    pub fn served(&self) -> Option<&Served> {
        self.vifs.get(&PAIR)
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

    pub(super) fn step(&mut self, now: Instant, up: &mut Ledger, down: &mut Ledger) -> Next {
        self.look_for_clients(now);
        let Some(clients) = &self.clients else { return Next::Wait };
        let mut deadline = clients.next_deadline();
        let mut again = false;
        for (&vif, served) in &mut self.vifs {
            let before = self.domain.counts().store_calls;
            served.service();
            let asked = self.domain.counts().store_calls - before;
            assert!(asked <= 600, "N3: {asked} requests to xenstore in one step");
            if vif == PAIR {
                served.poll(BUDGET, |packet| up.arrive(&packet));
                let full = send(served, &self.pool, &mut self.outbox, down, &mut self.partial);
                served.flush();
                // Otherwise the client wakes us when it has posted pages.
                again |= full && served.queued() == 0;
            } else {
                served.poll(BUDGET, |packet| self.echo.push(packet.freeze()));
                for packet in self.echo.drain(..) {
                    // Whatever the client does not take is its loss.
                    let _refused = served.deliver(packet);
                    if served.queued() >= self.config.queue_packets {
                        served.flush();
                    }
                }
            }
            again |= served.rearm() || served.is_gone();
            deadline = deadline.into_iter().chain(served.next_deadline()).min();
        }
        match (again, deadline) {
            (true, _) => Next::Now,
            (false, Some(deadline)) => Next::WaitUntil(deadline),
            (false, None) => Next::Wait,
        }
    }

    fn look_for_clients(&mut self, now: Instant) {
        let Some(clients) = &mut self.clients else { return };
        let gone: Vec<VifId> =
            self.vifs.iter().filter(|(_, served)| served.is_gone()).map(|(vif, _)| *vif).collect();
        for &vif in &gone {
            clients.forget(vif);
        }
        let appeared = clients.poll(now).appeared;
        for vif in gone {
            if let Some(served) = self.vifs.remove(&vif) {
                self.forget(vif, served);
            }
        }
        for vif in appeared {
            if self.vifs.contains_key(&vif) {
                continue;
            }
            let pool = if vif == PAIR {
                &self.pool
            } else {
                let domain = &self.domain;
                self.pools.entry(vif).or_insert_with(|| FramePool::new(domain, 128).unwrap())
            };
            let (platform, store) = (self.domain.clone(), self.domain.clone());
            match Netback::open(platform, store, pool, vif.0, vif.1, self.config) {
                Ok(served) => _ = self.vifs.insert(vif, served),
                Err(error) => panic!("{vif:?} can't be served: {error}"),
            }
        }
    }

    /// After all vifs are gone.
    pub fn assert_nothing_left(mut self) {
        assert!(self.vifs.is_empty() && self.clients.is_none());
        self.echo.clear();
        let Back { domain, pool, pools, foreign_watches, .. } = self;
        for pool in pools.into_values().chain([pool]) {
            assert_eq!(pool.free(), pool.size(), "the backend's frames leaked");
        }
        assert_eq!(domain.pages_in_use(), 0, "the backend's pages leaked");
        assert_eq!(domain.mappings(), 0, "mappings leaked");
        assert_eq!(domain.open_ports(), [], "the backend's ports leaked");
        assert_eq!(domain.store().watches(), foreign_watches, "the backend's watches leaked");
        assert_eq!(domain.store().transactions(), 0, "the backend's transactions leaked");
    }
}

/// Delivers what is to be sent, as far as the queue takes it. True if the queue is full.
fn send(
    served: &mut Served,
    pool: &FramePool,
    outbox: &mut VecDeque<Shape>,
    down: &mut Ledger,
    partial: &mut u64,
) -> bool {
    if !served.is_connected() {
        return false;
    }
    while let Some(shape) = outbox.front() {
        let Some(packet) = build(pool, shape, &down.next_packet(shape)) else { return true };
        let before = served.queued();
        let refused = served.deliver(packet.freeze()).err();
        // Segments that found room stay, and those that did not are lost.
        let cut_short = refused.is_some() && served.queued() > before;
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
