//! Our side: every vif that the toolstack makes, served, and polled only when an event says so. The one
//! place that knows how a backend is driven.

use xen_grant::{DomId, FramePool};
use xen_netfront::buffer::{Packet, PacketMut};
use xen_netfront::netback::{Config, DeliverError, Netback};
use xen_netfront::platform::Instant;
use xen_netfront::xenbus::Clients;
use xen_sim::{Domain, Host};

use super::raw_client::BACK;

/// Frames of each client's own.
pub const FRAMES: usize = 900;

/// A client's domain, and the number of its vif.
pub type Id = (DomId, u32);

struct Served {
    netback: Netback<Domain, Domain>,
    pool: FramePool,
    /// There may be something that no event will tell of.
    awake: bool,
}

pub struct Backend {
    host: Host,
    pub domain: Domain,
    config: Config,
    clients: Clients<Domain>,
    vifs: Vec<Served>,
    /// What clients have sent.
    pub received: Vec<(Id, PacketMut)>,
}

impl Backend {
    pub fn new(host: &Host, config: Config) -> Backend {
        let domain = host.add_domain(BACK, 32 * 1024);
        let clients = Clients::open(domain.clone()).unwrap();
        Backend {
            host: host.clone(),
            domain,
            config,
            clients,
            vifs: Vec::new(),
            received: Vec::new(),
        }
    }

    /// Sees to whatever there is news of; whether there was any.
    pub fn turn(&mut self) -> bool {
        let now = self.host.now();
        let (ports, news) = (self.domain.take_pending(), self.domain.take_store_event());
        let due = self.clients.next_deadline().is_some_and(|at| at <= now);
        let mut moved = false;
        if news || due {
            moved = self.look_for_clients(now);
        }
        for served in &mut self.vifs {
            let netback = &mut served.netback;
            let due = netback.next_deadline().is_some_and(|at| at <= now);
            let told = netback.ports().any(|port| ports.contains(&port));
            if !(news || due || told || served.awake) {
                continue;
            }
            let was_connected = netback.is_connected();
            netback.service();
            let is_new = !was_connected && netback.is_connected();
            if told || served.awake || due || is_new {
                moved = true;
                let id = netback.id();
                netback.poll(64, |packet| self.received.push((id, packet)));
                served.awake = netback.rearm();
            }
        }
        let clients = &mut self.clients;
        self.vifs.retain(|served| {
            if served.netback.is_gone() {
                clients.forget(served.netback.id());
                moved = true;
            }
            !served.netback.is_gone()
        });
        moved
    }

    fn look_for_clients(&mut self, now: Instant) -> bool {
        let appeared = self.clients.poll(now).appeared;
        for &(client, vif) in &appeared {
            let pool = FramePool::new(&self.domain, FRAMES).unwrap();
            let (platform, store) = (self.domain.clone(), self.domain.clone());
            let netback = Netback::open(platform, store, &pool, client, vif, self.config).unwrap();
            self.vifs.push(Served { netback, pool, awake: true });
        }
        !appeared.is_empty()
    }

    fn served(&mut self, id: Id) -> &mut Served {
        self.vifs.iter_mut().find(|served| served.netback.id() == id).expect("a vif that is served")
    }

    /// Queues a packet for a client; it goes out with the next turn.
    pub fn deliver(&mut self, id: Id, packet: Packet) -> Result<(), DeliverError> {
        let served = self.served(id);
        served.awake = true;
        served.netback.deliver(packet)
    }

    pub fn vif(&self, id: Id) -> Option<&Netback<Domain, Domain>> {
        self.vifs.iter().map(|served| &served.netback).find(|netback| netback.id() == id)
    }

    /// The frames that are a client's.
    pub fn pool(&mut self, id: Id) -> FramePool {
        self.served(id).pool.clone()
    }

    pub fn is_connected(&self, id: Id) -> bool {
        self.vif(id).is_some_and(|netback| netback.is_connected())
    }

    /// When it has something to do though nothing happens.
    pub fn next_deadline(&self) -> Option<Instant> {
        let vifs = self.vifs.iter().filter_map(|served| served.netback.next_deadline());
        vifs.chain(self.clients.next_deadline()).min()
    }
}
