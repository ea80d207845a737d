//! Two vifs, and a grant table for one: it serves the one that is there.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::time::Duration;

use packet_views::device::Link;
use xen_grant::{DomId, FramePool, GrantTable};
use xen_netfront::netback::{self, Netback};
use xen_netfront::netfront::{Config, Netfront, OpenError};
use xen_sim::{Domain, DomainConfig, Host, Toolstack, Vif};

const FRONT: DomId = DomId(1);
const BACK: DomId = DomId(2);

type Front = Netfront<Domain, Domain>;

/// A machine with a backend domain that serves vifs 0 and 1, and a guest whose table has two frames:
/// 1016 references, where a vif takes 514.
struct Machine {
    host: Host,
    toolstack: Toolstack,
    domain: Domain,
    table: GrantTable,
    pool: FramePool,
    back: Domain,
    /// Those of the vifs that are there.
    backs: BTreeMap<u32, Netback<Domain, Domain>>,
}

impl Machine {
    fn new() -> Machine {
        let host = Host::new(1);
        let domain = host.add_domain_with(
            FRONT,
            DomainConfig { pages: 1400, max_grant_frames: 2, ..DomainConfig::default() },
        );
        let back = host.add_domain(BACK, 1400);
        let pool = FramePool::new(&domain, 1300).unwrap();
        let table = GrantTable::new(&domain);
        let toolstack = host.toolstack();
        Machine { host, toolstack, domain, table, pool, back, backs: BTreeMap::new() }
    }

    fn attach(&mut self, index: u32) {
        self.toolstack.add_vif(&Vif::new(FRONT, BACK, index));
        let pool = FramePool::new(&self.back, 600).unwrap();
        let (platform, store) = (self.back.clone(), self.back.clone());
        let config = netback::Config::default();
        let back = Netback::open(platform, store, &pool, FRONT, index, config).unwrap();
        self.backs.insert(index, back);
    }

    fn detach(&mut self, index: u32) {
        self.toolstack.remove_vif(&Vif::new(FRONT, BACK, index));
        self.backs.remove(&index);
    }

    fn open(&self, index: u32) -> Result<Front, OpenError> {
        let (platform, store) = (self.domain.clone(), self.domain.clone());
        Netfront::open(platform, store, &self.pool, &self.table, index, Config::default())
    }

    /// Lets a second pass, everybody looking every 10 ms; what became of the links.
    fn pass(&mut self, fronts: &mut [&mut Front]) -> Vec<Link> {
        for _ in 0..100 {
            for front in &mut *fronts {
                front.service();
            }
            for back in self.backs.values_mut() {
                back.service();
            }
            self.host.advance(Duration::from_millis(10));
        }
        fronts.iter().map(|front| front.link()).collect()
    }
}

#[test]
fn references_of_a_vif_that_is_gone_serve_another() {
    let mut machine = Machine::new();
    machine.attach(0);
    machine.attach(1);
    let mut zero = machine.open(0).unwrap();
    let Err(OpenError::Table { needed: 514, .. }) = machine.open(1) else {
        panic!("there are references for one")
    };
    assert_eq!(machine.pass(&mut [&mut zero]), [Link::Up]);

    machine.detach(0);
    assert_eq!(machine.pass(&mut [&mut zero]), [Link::Down]);
    assert_eq!(machine.table.usage().claimed, 0);
    let mut one = machine.open(1).unwrap();
    assert_eq!(machine.pass(&mut [&mut zero, &mut one]), [Link::Down, Link::Up]);
}

#[test]
fn a_vif_that_comes_back_waits_for_references() {
    let mut machine = Machine::new();
    machine.attach(1);
    // It need not be there yet, and takes nothing from those that are.
    let mut zero = machine.open(0).unwrap();
    assert_eq!(machine.pass(&mut [&mut zero]), [Link::Down]);
    let mut one = machine.open(1).unwrap();
    assert_eq!(machine.pass(&mut [&mut zero, &mut one]), [Link::Down, Link::Up]);

    // 502 are left for it: three quarters do. So somebody else has some.
    let others = machine.table.claim_many(200).unwrap();
    machine.attach(0);
    for _ in 0..3 {
        assert_eq!(machine.pass(&mut [&mut zero, &mut one]), [Link::Down, Link::Up]);
    }
    assert_eq!(machine.table.usage().claimed, 514 + 200, "it keeps none from others");
    drop(others);
    assert_eq!(machine.pass(&mut [&mut zero, &mut one]), [Link::Up, Link::Up]);
    machine.detach(1);
    assert_eq!(machine.pass(&mut [&mut zero, &mut one]), [Link::Up, Link::Down]);
}
