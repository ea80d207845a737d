//! Many clients of one backend domain, driven by the collection that owns them.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod hostile;
mod lifecycle;
mod quota;
#[path = "../raw_client/mod.rs"]
mod raw_client;
mod work;

use std::time::Duration;

use raw_client::{BACK, Client, Features};
use xen_grant::{DomId, FramePool};
use xen_netfront::netback::{Budget, ClientId, Clients, Config};
use xen_netfront::xenbus::VifId;
use xen_sim::{Domain, Host, Toolstack, Vif};

/// The most requests to xenstore that one turn makes.
const MAX_TURN: u64 = 44;

/// A host with a backend domain, and the kernel's loop.
struct World {
    host: Host,
    toolstack: Toolstack,
    back: Domain,
    clients: Clients<Domain, Domain>,
    pool: FramePool,
    /// Packets that came, and from whom.
    received: Vec<(VifId, usize)>,
    /// Whether they are sent back.
    echoes: bool,
}

/// The number of a guest's domain.
fn guest(number: u16) -> DomId {
    DomId(100 + number)
}

impl World {
    fn new(config: Config) -> World {
        World::on(Host::new(1), config)
    }

    /// A budget for so many clients.
    fn with_budget(config: Config, clients: usize) -> World {
        let mut world = World::new(config);
        let budget = Budget::dividing(world.pool.size(), clients).unwrap();
        let (platform, store) = (world.back.clone(), world.back.clone());
        world.clients = Clients::open(platform, store, &world.pool, &budget, config).unwrap();
        world
    }

    fn on(host: Host, config: Config) -> World {
        let back = host.add_domain(BACK, 20_000);
        let pool = FramePool::new(&back, 6144).unwrap();
        let budget = Budget::new(pool.size(), 256, 18, 1024).unwrap();
        let clients = Clients::open(back.clone(), back.clone(), &pool, &budget, config).unwrap();
        let toolstack = host.toolstack();
        World { host, toolstack, back, clients, pool, received: Vec::new(), echoes: false }
    }

    /// The toolstack gives a new domain a vif.
    fn add(&self, number: u16) -> Vif {
        self.host.add_domain(guest(number), 400);
        let vif = Vif::new(guest(number), BACK, 0);
        self.toolstack.add_vif(&vif);
        vif
    }

    /// A guest with a frontend that has published everything.
    fn add_client(&mut self, number: u16) -> (Vif, Client) {
        let vif = self.add(number);
        self.run(Duration::from_millis(10));
        let mut client = Client::new(&self.host, &vif, 0);
        client.publish(&Features::default());
        self.run(Duration::from_millis(10));
        assert!(self.is_connected(&vif), "{:?}", self.toolstack.states(&vif));
        (vif, client)
    }

    fn id(&self, vif: &Vif) -> Option<ClientId> {
        self.clients.find((vif.frontend, vif.index))
    }

    fn is_connected(&self, vif: &Vif) -> bool {
        let vif = self.id(vif).and_then(|id| self.clients.vif(id));
        vif.is_some_and(|vif| vif.is_connected())
    }

    /// One turn of the kernel's loop; whether there is more to do.
    fn turn(&mut self) -> bool {
        for port in self.back.take_pending() {
            self.clients.event(port);
        }
        let _looked_at_in_any_case = self.back.take_store_event();
        let before = self.back.counts().store_calls;
        let (received, echoes) = (&mut self.received, self.echoes);
        self.clients.turn(64, |clients, from, packet| {
            received.push((clients.vif_id(from).unwrap(), packet.len()));
            if echoes {
                let _refused = clients.deliver(from, packet.freeze());
            }
        });
        let again = self.clients.rearm();
        let asked = self.back.counts().store_calls - before;
        assert!(asked <= MAX_TURN, "n3: {asked} requests in one turn");
        again
    }

    /// Turns as long as there is something to do, and time passes where there is nothing.
    fn run(&mut self, time: Duration) {
        let end = self.host.now() + time;
        loop {
            if self.turn() || self.back.upcall_pending() {
                self.host.advance(Duration::from_micros(1));
                continue;
            }
            let next = self.clients.next_deadline().filter(|at| *at > self.host.now());
            let now = next.map_or(end, |at| at.min(end));
            if self.host.now() >= end {
                return;
            }
            self.host.advance_to(now);
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert_eq!(self.host.violations(), []);
            assert_eq!(self.pool.free(), self.pool.size(), "frames leaked");
        }
    }
}
