//! The kernel's main: opens the vifs, then gives each its turn, and sleeps when none has work.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::mem;

use packet_views::device::Link;
use xen_grant::{FramePool, GrantTable};
use xen_guest::{Suspended, Xen};
use xen_netfront::netfront::{self, Netfront, OpenError};
use xen_netfront::platform::Platform;

use super::memory::Sizes;
use super::options::{Options, VifOptions};
use super::status::{Pool, Status};
use super::vif::{self, Vif};

/// What all vifs draw on.
struct Means {
    xen: Xen,
    pool: FramePool,
    table: GrantTable,
    driver: netfront::Config,
    sizes: Sizes,
}

/// A vif on its way to being served.
enum Stage {
    /// The grant table has too few references for it: so many were claimed when we last looked.
    Waiting(u32, VifOptions, usize),
    /// Not connected yet, so its address and MTU are not known.
    Opening(u32, Box<Netfront<Xen, Xen>>, VifOptions),
    Serving(Box<Vif>),
    /// It cannot be opened, or is between two of these.
    Gone,
}

/// The kernel's main.
pub fn run(xen: Xen) {
    let options = Options::parse(xen.command_line(), |bad| log::warn!("{bad}"));
    if let Err(error) = serve(xen, &options) {
        log::error!("{error}");
    }
}

fn serve(xen: Xen, options: &Options) -> Result<(), &'static str> {
    let vifs: Vec<_> = options.vifs.iter().filter(|(_, vif)| vif.is_served()).collect();
    let count = vifs.len() as u64;
    if count == 0 {
        return Err("no address: ip=ADDR/LEN or ip=dhcp is missing");
    }
    let table = GrantTable::new(&xen);
    let driver = with_references(options.driver, vifs.len(), &table);
    let sizes = Sizes::of(xen.free_memory(), count, &driver, vif::WINDOWS)
        .ok_or("not enough memory: one vif with one queue needs 8 MB")?;
    let pool = FramePool::new(&xen, sizes.pages).map_err(|_| "not enough memory for packets")?;
    let means = Means { xen, pool, table, driver, sizes };
    let mut stages: Vec<Stage> =
        vifs.into_iter().map(|(&number, vif)| means.open(number, vif.clone())).collect();
    if !stages.iter().any(|stage| matches!(stage, Stage::Opening(..))) {
        return Err("no vif can be opened");
    }

    loop {
        obey(xen, &mut stages);
        let mut busy = false;
        for stage in &mut stages {
            busy |= stage.turn(&means);
        }
        if serving(&mut stages).any(|vif| vif.wants_status()) {
            let status = status(xen, &means.pool, &mut stages);
            serving(&mut stages).for_each(|vif| vif.tell(xen, &status));
            busy = true;
        }
        if !busy {
            // Every one is to be armed, whatever the first says.
            for stage in &mut stages {
                busy |= stage.rearm();
            }
        }
        if !busy {
            xen.wait(stages.iter_mut().filter_map(|stage| stage.deadline(xen)).min());
            serving(&mut stages).for_each(|vif| vif.count_events(xen));
        }
    }
}

/// With fewer queues, if that gives every vif its grant references; else with one, for as many vifs
/// as there are some for.
fn with_references(asked: netfront::Config, vifs: usize, table: &GrantTable) -> netfront::Config {
    let with = |queues| asked.with_queues(queues);
    let enough = |queues: &u32| table.claim_many(vifs * with(*queues).references()).is_ok();
    let queues = (1..=asked.queues).rev().find(enough).unwrap_or(1);
    if queues < asked.queues {
        log::warn!("queues={}: enough grant references only for {queues} each", asked.queues);
    }
    with(queues)
}

impl Means {
    fn open(&self, number: u32, vif: VifOptions) -> Stage {
        let Means { xen, pool, table, driver, .. } = self;
        match Netfront::open(*xen, *xen, pool, table, number, *driver) {
            Ok(net) => Stage::Opening(number, Box::new(net), vif),
            Err(OpenError::Table { .. }) => {
                let (needed, claimed) = (driver.references(), table.usage().claimed);
                log::warn!(
                    "vif {number} waits for {needed} grant references: {claimed} are taken, and \
                     too few are left"
                );
                Stage::Waiting(number, vif, claimed)
            }
            Err(error) => {
                log::error!("vif {number}: {error}");
                Stage::Gone
            }
        }
    }
}

/// Does what the toolstack asks for.
fn obey(xen: Xen, stages: &mut [Stage]) {
    if xen.shutdown_request().map(|asked| xen.obey(asked)) == Some(Suspended::Resumed) {
        stages.iter_mut().for_each(Stage::resumed);
    }
}

fn serving(stages: &mut [Stage]) -> impl Iterator<Item = &mut Vif> {
    stages.iter_mut().filter_map(|stage| match stage {
        Stage::Serving(vif) => Some(&mut **vif),
        Stage::Waiting(..) | Stage::Opening(..) | Stage::Gone => None,
    })
}

fn status(xen: Xen, pool: &FramePool, stages: &mut [Stage]) -> Status {
    Status {
        domain: xen.domain().map(|domain| domain.0),
        uptime: xen.now().0 as f64 / 1e9,
        free_memory: xen.free_memory(),
        pool: Pool { size: pool.size(), free: pool.free(), high_water: pool.high_water() },
        vifs: serving(stages).map(|vif| vif.status()).collect(),
    }
}

impl Stage {
    fn turn(&mut self, means: &Means) -> bool {
        match self {
            Stage::Serving(vif) => return vif.turn(means.xen),
            Stage::Opening(_, net, _) => {
                net.service();
                if net.link() != Link::Up {
                    return false;
                }
            }
            Stage::Waiting(_, _, claimed) => {
                if means.table.usage().claimed >= *claimed {
                    return false;
                }
            }
            Stage::Gone => return false,
        }
        *self = match mem::replace(self, Stage::Gone) {
            Stage::Waiting(number, vif, _) => means.open(number, vif),
            Stage::Opening(number, net, vif) => {
                let Means { xen, driver, sizes, .. } = *means;
                Stage::Serving(Box::new(Vif::new(xen, number, *net, driver, vif, sizes)))
            }
            other => other,
        };
        true
    }

    fn resumed(&mut self) {
        match self {
            Stage::Serving(vif) => vif.resumed(),
            Stage::Opening(_, net, _) => net.resumed(),
            Stage::Waiting(..) | Stage::Gone => {}
        }
    }

    fn rearm(&mut self) -> bool {
        match self {
            Stage::Serving(vif) => vif.rearm(),
            // Nothing is received before there is somebody to receive it.
            Stage::Waiting(..) | Stage::Opening(..) | Stage::Gone => false,
        }
    }

    fn deadline(&mut self, xen: Xen) -> Option<xen_netfront::platform::Instant> {
        match self {
            Stage::Serving(vif) => vif.deadline(xen),
            Stage::Opening(_, net, _) => net.next_deadline(),
            Stage::Waiting(..) | Stage::Gone => None,
        }
    }
}
