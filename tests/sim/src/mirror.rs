//! A guest with one vif whose backend sends back every packet: where to try what is on top of a driver.

use packet_views::features::Features;
use xen_grant::{DomId, FramePool, GrantTable, PoolError};
use xen_netfront::netback::{self, Netback};
use xen_netfront::netfront::{self, Netfront, OpenError};

use crate::{Domain, Host, Limits, Next, Outcome, Scheduler, Vif, Violation};

const GUEST: DomId = DomId(1);
const BACKEND: DomId = DomId(2);

/// Pages of either pool.
const PAGES: usize = 1024;

/// The guest's machine, and the backend beside it.
pub struct Mirror {
    host: Host,
    guest: Domain,
    pool: FramePool,
    table: GrantTable,
    backend: Domain,
}

impl Mirror {
    /// A host, deterministic by its seed, with both domains on it.
    pub fn new(seed: u64) -> Result<Mirror, PoolError> {
        let host = Host::new(seed);
        let guest = host.add_domain(GUEST, 2 * PAGES as u32);
        let backend = host.add_domain(BACKEND, 2 * PAGES as u32);
        host.toolstack().add_vif(&Vif::new(GUEST, BACKEND, 0));
        let (pool, table) = (FramePool::new(&guest, PAGES)?, GrantTable::new(&guest));
        Ok(Mirror { host, guest, pool, table, backend })
    }

    /// The guest's frontend, not connected yet.
    pub fn open(&self) -> Result<Netfront<Domain, Domain>, OpenError> {
        let (platform, store) = (self.guest.clone(), self.guest.clone());
        let config = netfront::Config::default();
        Netfront::open(platform, store, &self.pool, &self.table, 0, config)
    }

    /// Runs the guest, beside its backend, until it says that it is [`Done`](Next::Done).
    pub fn run(&self, mut guest: impl FnMut() -> Next) -> Result<(), Failed> {
        let pool = FramePool::new(&self.backend, PAGES).map_err(Failed::Pool)?;
        let (platform, store) = (self.backend.clone(), self.backend.clone());
        let config = netback::Config::default().with_features(Features::ALL);
        let mut vif =
            Netback::open(platform, store, &pool, GUEST, 0, config).map_err(Failed::Store)?;
        let mut scheduler = Scheduler::new(&self.host);
        scheduler.add("guest", &self.guest, |_: &mut crate::Ctx<'_>| guest());
        scheduler.add_background("backend", &self.backend, |_: &mut crate::Ctx<'_>| {
            vif.service();
            let mut packets = Vec::new();
            vif.poll(64, |packet| packets.push(packet.freeze()));
            for packet in packets {
                // What the guest does not take is its loss, and counted.
                let _refused = vif.deliver(packet);
            }
            match (vif.rearm(), vif.next_deadline()) {
                (true, _) => Next::Now,
                (false, Some(at)) => Next::WaitUntil(at),
                (false, None) => Next::Wait,
            }
        });
        match (scheduler.run(Limits::default()), self.host.violations()) {
            (Outcome::Done, none) if none.is_empty() => Ok(()),
            (outcome, violations) => Err(Failed::Run(outcome, violations)),
        }
    }
}

/// Why a run did not end as it should.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Failed {
    /// The backend has no pages.
    Pool(PoolError),
    /// Xenstore would not let it watch the vif.
    Store(xen_netfront::store::StoreError),
    /// The guest was never done, or somebody did what no correct driver does.
    Run(Outcome, Vec<Violation>),
}

impl core::fmt::Display for Failed {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Failed::Pool(error) => error.fmt(f),
            Failed::Store(error) => error.fmt(f),
            Failed::Run(outcome, violations) => {
                write!(f, "{outcome}; {} violations: {violations:?}", violations.len())
            }
        }
    }
}

impl core::error::Error for Failed {}

impl std::fmt::Debug for Mirror {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Mirror").field(&self.guest).field(&self.backend).finish()
    }
}
