//! Our side: every vif that the toolstack makes, served, and polled only when an event says so. The one
//! place that knows how a backend is driven.

use std::task::{Context, Waker};

use xen_grant::{DomId, FramePool};
use xen_netfront::buffer::{Packet, PacketMut};
use xen_netfront::netback::{Clients, Config, DeliverError, Vif};
use xen_netfront::platform::Instant;
use xen_sim::{Domain, Host};

use super::raw_client::BACK;

/// Frames of all clients.
pub const FRAMES: usize = 8000;

/// A client's domain, and the number of its vif.
pub type Id = (DomId, u32);

pub struct Backend {
    host: Host,
    pub domain: Domain,
    clients: Clients<Domain, Domain>,
    pool: FramePool,
    /// There may be something that no event will tell of.
    is_awake: bool,
    /// What clients have sent.
    pub received: Vec<(Id, PacketMut)>,
}

impl Backend {
    pub fn new(host: &Host, config: Config) -> Backend {
        let domain = host.add_domain(BACK, 32 * 1024);
        let pool = FramePool::new(&domain, FRAMES).unwrap();
        let clients = Clients::open(domain.clone(), domain.clone(), &pool, config).unwrap();
        let host = host.clone();
        Backend { host, domain, clients, pool, is_awake: true, received: Vec::new() }
    }

    /// Sees to whatever there is news of; whether there was any.
    pub fn turn(&mut self) -> bool {
        let now = self.host.now();
        let (ports, news) = (self.domain.take_pending(), self.domain.take_store_event());
        let due = self.clients.next_deadline().is_some_and(|at| at <= now);
        let is_told = ports.iter().any(|port| self.clients.knows(*port));
        if !(news || due || is_told || self.is_awake) {
            return false;
        }
        let before = self.domain.counts();
        let received = &mut self.received;
        let packets = self.clients.turn(64, |clients, from, packet| {
            let id = clients.vif_id(from).expect("a vif that is served");
            received.push((id, packet));
        });
        // It needs no runtime: whoever polls looks whether it is ready.
        self.is_awake = self.clients.poll_ready(&mut Context::from_waker(Waker::noop())).is_ready();
        packets > 0 || self.domain.counts() != before
    }

    /// Queues a packet for a client; it goes out with the next turn.
    pub fn deliver(&mut self, id: Id, packet: Packet) -> Result<(), DeliverError> {
        self.is_awake = true;
        let client = self.clients.find(id).expect("a vif that is served");
        self.clients.deliver(client, packet)
    }

    pub fn vif(&self, id: Id) -> Option<&Vif<Domain, Domain>> {
        self.clients.vif(self.clients.find(id)?)
    }

    /// The frames that clients' packets are in.
    pub fn pool(&self) -> &FramePool {
        &self.pool
    }

    pub fn is_connected(&self, id: Id) -> bool {
        self.vif(id).is_some_and(|vif| vif.is_connected())
    }

    /// When it has something to do though nothing happens.
    pub fn next_deadline(&mut self) -> Option<Instant> {
        self.clients.next_deadline()
    }
}
