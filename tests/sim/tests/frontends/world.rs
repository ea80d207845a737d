//! A host with our backend and some guests.

use std::time::Duration;

use packet_views::features::Features;
use xen_grant::DomId;
use xen_netfront::netback::Config;
use xen_sim::{Host, Toolstack, Vif};

use super::backend::Backend;
use super::guest::Guest;
use super::queue::Queue;
use super::raw_client::{BACK, CLIENT};
use super::script::Frontend;

pub struct World {
    pub host: Host,
    pub toolstack: Toolstack,
    pub backend: Backend,
    pub guests: Vec<Guest>,
    next: u16,
}

/// What the backend offers unless a test says otherwise: everything, and several queues.
pub fn config() -> Config {
    Config::default().with_features(Features::ALL).with_max_queues(4)
}

impl World {
    pub fn new(config: Config) -> World {
        let host = Host::new(1);
        World {
            toolstack: host.toolstack(),
            backend: Backend::new(&host, config),
            host,
            guests: Vec::new(),
            next: CLIENT.0,
        }
    }

    /// A new domain with a vif, which has not begun to connect.
    pub fn add(&mut self, frontend: &'static Frontend) -> usize {
        let id = DomId(self.next);
        self.next += 1;
        self.host.add_domain(id, 8192);
        self.attach(frontend, Vif::new(id, BACK, 0))
    }

    pub fn attach(&mut self, frontend: &'static Frontend, vif: Vif) -> usize {
        self.toolstack.add_vif(&vif);
        self.guests.push(Guest::new(&self.host, frontend, vif));
        self.guests.len() - 1
    }

    /// One guest of this kind, connected.
    pub fn with(frontend: &'static Frontend) -> World {
        let mut world = World::new(config());
        world.add(frontend);
        world.connect(0);
        world
    }

    /// The only guest's first queue.
    pub fn queue(&mut self) -> &mut Queue {
        &mut self.guests[0].queues[0]
    }

    /// The only guest.
    pub fn guest(&mut self) -> &mut Guest {
        &mut self.guests[0]
    }

    /// Goes on until nobody has anything to do; no time passes.
    pub fn settle(&mut self) {
        for _ in 0..1000 {
            let mut moved = self.backend.turn();
            for guest in &mut self.guests {
                moved |= guest.turn();
            }
            if !moved && !self.host_has_news() {
                return;
            }
        }
        panic!("they never come to rest");
    }

    fn host_has_news(&self) -> bool {
        self.backend.domain.upcall_pending()
    }

    /// Time passes, until the backend's next deadline if that comes before.
    pub fn pass(&mut self, time: Duration) {
        let end = self.host.now() + time;
        self.settle();
        while self.host.now() < end {
            let next = self.backend.next_deadline().filter(|at| *at > self.host.now());
            self.host.advance_to(next.map_or(end, |at| at.min(end)));
            self.settle();
        }
    }

    pub fn connect(&mut self, number: usize) {
        self.guests[number].connect();
        self.settle();
        self.expect_connected(number);
    }

    #[track_caller]
    pub fn expect_connected(&self, number: usize) {
        let guest = &self.guests[number];
        let (name, states) = (guest.frontend.name, self.toolstack.states(&guest.vif));
        assert!(guest.is_done() && guest.up, "{name} waits, states {states:?}");
        assert!(self.backend.is_connected(guest.id()), "{name} is not served, states {states:?}");
        assert_eq!(states, (Some(4), Some(4)), "{name}");
    }

    /// Nothing of a client is mapped, and no frame of ours is missing but in what has been received.
    pub fn expect_released(&mut self, number: usize) {
        self.backend.received.clear();
        let id = self.guests[number].id();
        assert_eq!(self.backend.vif(id).map_or(0, |vif| vif.ports().count()), 0);
        if self.backend.vif(id).is_some() {
            let pool = self.backend.pool();
            assert_eq!(pool.free(), pool.size());
        }
        let in_use = self.guests[number].domain.grants();
        let in_use =
            in_use.iter().filter(|(gref, _)| self.guests[number].domain.grant_in_use(*gref));
        assert_eq!(in_use.count(), 0);
    }
}
