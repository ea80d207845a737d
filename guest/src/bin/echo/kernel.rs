//! The kernel's main: opens the vifs, then gives each its turn, and sleeps when none has work.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::mem;

use xen_grant::{FramePool, GrantTable};
use xen_guest::{Suspended, Xen};
use xen_netfront::netfront::{Link, Netfront};
use xen_netfront::platform::Platform;

use super::memory::Sizes;
use super::options::{Options, VifOptions};
use super::status::{Pool, Status};
use super::vif::{self, Vif};

/// A vif on its way to being served.
enum Stage {
    /// Not connected yet, so its address and MTU are not known.
    Opening(u32, Box<Netfront<Xen, Xen>>, VifOptions),
    Serving(Box<Vif>),
    /// Between the two.
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
    let vifs = options.vifs.iter().filter(|(_, vif)| !vif.addresses.is_empty());
    let count = vifs.clone().count() as u64;
    if count == 0 {
        return Err("no address: ip=ADDR/LEN is missing");
    }
    let queues = options.driver.queues.into();
    let sizes = Sizes::of(xen.free_memory(), count, queues, vif::WINDOWS)
        .ok_or("not enough memory: 8 MB do for one vif with one queue")?;
    let pool = FramePool::new(&xen, sizes.pages).map_err(|_| "not enough memory for packets")?;
    let table = GrantTable::new(&xen);
    let mut stages = Vec::new();
    for (&number, vif) in vifs {
        match Netfront::open(xen, xen, &pool, &table, number, options.driver) {
            Ok(net) => stages.push(Stage::Opening(number, Box::new(net), vif.clone())),
            Err(error) => log::error!("vif {number}: {error}"),
        }
    }
    if stages.is_empty() {
        return Err("no vif can be opened");
    }

    loop {
        obey(xen, &mut stages);
        let mut busy = false;
        for stage in &mut stages {
            busy |= stage.turn(xen, options, sizes);
        }
        if serving(&mut stages).any(|vif| vif.wants_status()) {
            let status = status(xen, &pool, &mut stages);
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

/// Does what the toolstack asks for.
fn obey(xen: Xen, stages: &mut [Stage]) {
    if xen.shutdown_request().map(|asked| xen.obey(asked)) == Some(Suspended::Resumed) {
        stages.iter_mut().for_each(Stage::resumed);
    }
}

fn serving(stages: &mut [Stage]) -> impl Iterator<Item = &mut Vif> {
    stages.iter_mut().filter_map(|stage| match stage {
        Stage::Serving(vif) => Some(&mut **vif),
        Stage::Opening(..) | Stage::Gone => None,
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
    fn turn(&mut self, xen: Xen, options: &Options, sizes: Sizes) -> bool {
        match self {
            Stage::Serving(vif) => return vif.turn(xen),
            Stage::Opening(_, net, _) => {
                net.service();
                if net.link() != Link::Up {
                    return false;
                }
            }
            Stage::Gone => return false,
        }
        if let Stage::Opening(number, net, vif) = mem::replace(self, Stage::Gone) {
            let vif = Vif::new(xen, number, *net, options.driver, vif, sizes);
            *self = Stage::Serving(Box::new(vif));
        }
        true
    }

    fn resumed(&mut self) {
        match self {
            Stage::Serving(vif) => vif.resumed(),
            Stage::Opening(_, net, _) => net.resumed(),
            Stage::Gone => {}
        }
    }

    fn rearm(&mut self) -> bool {
        match self {
            Stage::Serving(vif) => vif.rearm(),
            // Nothing is received before there is somebody to receive it.
            Stage::Opening(..) | Stage::Gone => false,
        }
    }

    fn deadline(&mut self, xen: Xen) -> Option<xen_netfront::platform::Instant> {
        match self {
            Stage::Serving(vif) => vif.deadline(xen),
            Stage::Opening(_, net, _) => net.next_deadline(),
            Stage::Gone => None,
        }
    }
}
