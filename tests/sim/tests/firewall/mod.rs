//! A firewall between two backends and a client of its own, all three curious: every packet is
//! made of canaries that say whose bytes they are and who may see them.
#![allow(dead_code, unused_imports)]

mod canary;
mod policy;

use std::cell::RefCell;
use std::time::Duration;

use fastrand::Rng;
use xen_grant::{DomId, FramePool, GrantTable};
use xen_netfront::netback::{self, Netback};
use xen_netfront::netfront::{self, Netfront};
use xen_sim::hostile::{HostileBackend, HostileClient, PageDump};
use xen_sim::{Chaos, Ctx, Domain, Host, Limits, Next, Outcome, Scheduler, Task, Vif};

pub use canary::{Party, canaries, leak, packet};

pub const FIREWALL: DomId = DomId(1);
pub const LEFT: DomId = DomId(2);
pub const RIGHT: DomId = DomId(3);
pub const CLIENT: DomId = DomId(4);

/// The firewall's vifs: one to each of two backends, one for a client. They share a pool.
pub struct Firewall {
    pub domain: Domain,
    pub pool: FramePool,
    pub left: Netfront<Domain, Domain>,
    pub right: Netfront<Domain, Domain>,
    pub client: Netback<Domain, Domain>,
    pub rng: Rng,
    /// The most bytes of a packet of our own.
    pub largest: usize,
    /// Whether to see if what is forwarded stays in its page.
    pub watches_pages: bool,
    /// Fragments forwarded to a backend in the page they came in, and otherwise.
    pub forwarded: (u64, u64),
}

/// A firewall and its peers.
pub struct Network {
    pub host: Host,
    pub firewall: RefCell<Firewall>,
    pub left: RefCell<HostileBackend>,
    pub right: RefCell<HostileBackend>,
    pub client: RefCell<HostileClient>,
    domains: [Domain; 3],
    nowhere: Domain,
}

impl Network {
    /// `trusted` as the toolstack would say of both backends.
    pub fn new(seed: u64, trusted: bool) -> Network {
        let host = Host::new(seed);
        host.set_chaos(Chaos::rough());
        let nowhere = host.add_domain(DomId(0), 8);
        let domain = host.add_domain(FIREWALL, 1024);
        let domains = [LEFT, RIGHT, CLIENT].map(|id| host.add_domain(id, 512));
        let toolstack = host.toolstack();
        for (index, backend) in [(0, LEFT), (1, RIGHT)] {
            let vif = Vif::new(FIREWALL, backend, index).front_key("mtu", "65521");
            toolstack.add_vif(&vif.front_key("trusted", if trusted { "1" } else { "0" }));
        }
        toolstack.add_vif(&Vif::new(CLIENT, FIREWALL, 0));
        // Hardly more than both receive rings: frames go from hand to hand.
        let pool = FramePool::new(&domain, 680).unwrap();
        let table = GrantTable::new(&domain);
        let front = |index| {
            let config = netfront::Config::default().with_ring_start(u32::MAX - 300);
            Netfront::open(domain.clone(), domain.clone(), &pool, &table, index, config).unwrap()
        };
        let config = netback::Config::default().with_queue_packets(64).with_queue_frames(100);
        let (platform, store) = (domain.clone(), domain.clone());
        let firewall = Firewall {
            left: front(0),
            right: front(1),
            client: Netback::open(platform, store, &pool, CLIENT, 0, config).unwrap(),
            pool,
            domain,
            rng: Rng::with_seed(seed),
            largest: 4096,
            watches_pages: false,
            forwarded: (0, 0),
        };
        let back = |domain: &Domain, index| {
            let mut peer = HostileBackend::new(domain, FIREWALL, index);
            peer.dump_requests(true);
            RefCell::new(peer)
        };
        Network {
            firewall: RefCell::new(firewall),
            left: back(&domains[0], 0),
            right: back(&domains[1], 1),
            client: RefCell::new(HostileClient::new(&domains[2], FIREWALL, 0)),
            domains,
            host,
            nowhere,
        }
    }

    /// Runs everybody for so long; `fate` takes its turn every now and then.
    pub fn run(&self, time: Duration, mut fate: impl FnMut(&Network)) {
        let end = self.host.now() + time;
        let mut scheduler = Scheduler::new(&self.host);
        let domain = self.firewall.borrow().domain.clone();
        let [left, right, client] = &self.domains;
        scheduler.add_background("firewall", &domain, |ctx: &mut Ctx| {
            self.firewall.borrow_mut().run(ctx)
        });
        scheduler.add_background("left", left, |ctx: &mut Ctx| self.left.borrow_mut().run(ctx));
        scheduler.add_background("right", right, |ctx: &mut Ctx| self.right.borrow_mut().run(ctx));
        scheduler
            .add_background("client", client, |ctx: &mut Ctx| self.client.borrow_mut().run(ctx));
        scheduler.add("fate", &self.nowhere, move |ctx: &mut Ctx| {
            fate(self);
            match ctx.now >= end {
                true => Next::Done,
                false => Next::Sleep(Duration::from_micros(50)),
            }
        });
        let limits = Limits { steps: 10_000_000, ..Limits::default() };
        assert_eq!(scheduler.run(limits), Outcome::Done);
    }

    /// What a backend has seen since this was last asked: the page of each request as it was
    /// taken.
    pub fn dumps(&self, party: Party) -> Vec<PageDump> {
        match party {
            Party::Left => self.left.borrow_mut().take_page_dumps(),
            Party::Right => self.right.borrow_mut().take_page_dumps(),
            Party::Client | Party::Firewall => Vec::new(),
        }
    }

    /// Everything that a backend could see at this moment.
    pub fn visible(&self, party: Party) -> Vec<xen_sim::GrantedPage> {
        let domain = match party {
            Party::Left => &self.domains[0],
            Party::Right => &self.domains[1],
            Party::Client | Party::Firewall => &self.domains[2],
        };
        domain.dump_granted(FIREWALL)
    }

    /// Takes the firewall down; its peers have let go.
    pub fn tear_down(self) {
        let Network { host, firewall, left, right, client, .. } = self;
        drop((left, right, client));
        let Firewall { domain, pool, left, right, client, .. } = firewall.into_inner();
        drop((left, right, client));
        assert_eq!(pool.free(), pool.size(), "frames leaked");
        assert_eq!(domain.grants(), [], "grants leaked");
        drop(pool);
        assert_eq!(host.violations_of(FIREWALL), []);
    }
}
