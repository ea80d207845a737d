//! The frontend's packet path, to be counted by callgrind beside the references in `c/`:
//!
//!     instructions PATH BATCH PACKETS
//!
//! runs one path, `tx` (submit + reap), `single` (the same, each packet with a permit of its own)
//! `rx` (poll + refill), `lent` (the same, pages lent to the layer above only) or `idle` (turns of the loop
//! in which nothing happened), in batches, with every check on. `scripts/instructions` collects inside
//! the `fe_*` functions only.
#![allow(missing_docs)]

use packet_views::device::NetDevice;
use packet_views::device::Permit;
use std::hint::black_box;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU32, Ordering, fence};

use packet_views::device::Link;
use xen_grant::{DomId, ForeignPage, FramePool, GrantTable, SharedPage};
use xen_netfront::netfront::{Config, Netfront};
use xen_netfront::store::Store;
use xen_netfront::wire::{RxResponse, RxRing, TxResponse, TxRing};
use xen_ring::{BackRing, RingPage};
use xen_sim::{Domain, Host, Vif};

const FRONT: DomId = DomId(1);
const BACK: DomId = DomId(2);

type Net = Netfront<Domain, Domain>;

/// Sends `count` packets of 64 bytes, a page each.
#[inline(never)]
fn fe_submit(net: &mut Net, count: usize) -> usize {
    let Some(mut burst) = net.reserve(0) else { return 0 };
    let mut sent = 0;
    while sent < count {
        let Some(mut buf) = burst.alloc(0) else { break };
        // What the layer above would write is not the driver's cost.
        if buf.append(64).is_none() || burst.send_single(buf).is_err() {
            break;
        }
        sent += 1;
    }
    burst.flush();
    sent
}

/// As `fe_submit`, each packet on its own: what a layer above any `NetDevice` does.
#[inline(never)]
fn fe_single(net: &mut Net, count: usize) -> usize {
    let mut sent = 0;
    while sent < count {
        let Some(mut buf) = net.alloc(0) else { break };
        if buf.append(64).is_none() {
            break;
        }
        let Some(mut permit) = net.reserve(1) else { break };
        let _sent = permit.send_single(buf);
        sent += 1;
    }
    net.flush();
    sent
}

#[inline(never)]
fn fe_reap(net: &mut Net) -> usize {
    net.complete_tx()
}

/// Receives, and posts new pages.
#[inline(never)]
fn fe_poll(net: &mut Net, budget: usize) -> usize {
    // The layer above looks at the packet, and drops it.
    net.receive(budget, |packet| {
        black_box(packet.head());
    })
}

/// As `fe_poll`, where the layer above is lent the packet.
#[inline(never)]
fn fe_lent(net: &mut Net, budget: usize) -> usize {
    net.receive_lent(budget, |packet| {
        black_box(packet.head());
    })
}

/// A turn of the device's loop, when nothing has happened.
#[inline(never)]
fn fe_idle(net: &mut Net) -> bool {
    net.service();
    net.rearm()
}

/// A backend that is not measured: it answers everything.
struct Backend {
    tx: BackRing<TxRing, Mapped>,
    rx: BackRing<RxRing, Mapped>,
}

struct Mapped(ForeignPage<Domain>);

impl Mapped {
    fn at(&self, word: usize) -> &AtomicU32 {
        &self.0.words()[word]
    }
}

impl RingPage for Mapped {
    fn load(&self, word: usize) -> u32 {
        self.at(word).load(Ordering::Relaxed)
    }

    fn load_acquire(&self, word: usize) -> u32 {
        self.at(word).load(Ordering::Acquire)
    }

    fn store(&self, word: usize, value: u32) {
        self.at(word).store(value, Ordering::Relaxed);
    }

    fn store_release(&self, word: usize, value: u32) {
        self.at(word).store(value, Ordering::Release);
    }

    fn full_fence(&self) {
        fence(Ordering::SeqCst);
    }
}

impl Backend {
    fn connect(domain: &Domain, vif: &Vif) -> Option<Backend> {
        let ring = |key: &str| {
            let value = domain.read(None, &format!("{}/{key}", vif.front_dir())).ok()?;
            let gref = std::str::from_utf8(&value).ok()?.parse().ok()?;
            Some(Mapped(ForeignPage::map(domain, FRONT, gref).ok()?))
        };
        Some(Backend {
            tx: BackRing::attach(ring("tx-ring-ref")?).ok()?,
            rx: BackRing::attach(ring("rx-ring-ref")?).ok()?,
        })
    }

    #[inline(never)]
    fn answer_tx(&mut self) -> Option<()> {
        self.tx.refresh().ok()?;
        while let Some((_, slot)) = self.tx.pop() {
            self.tx.push(TxResponse { id: slot.request().id, status: 0 }).ok()?;
        }
        let _ = self.tx.publish();
        Some(())
    }

    #[inline(never)]
    fn fill_rx(&mut self, count: usize) -> Option<()> {
        self.rx.refresh().ok()?;
        for _ in 0..count {
            let (_, request) = self.rx.pop()?;
            let response = RxResponse { id: request.id, offset: 0, flags: 0, status: 64 };
            self.rx.push(response.into()).ok()?;
        }
        let _ = self.rx.publish();
        Some(())
    }
}

fn run(path: &str, batch: usize, packets: usize) -> Option<String> {
    let host = Host::new(1);
    let (front, back) = (host.add_domain(FRONT, 1100), host.add_domain(BACK, 16));
    let vif = Vif::new(FRONT, BACK, 0);
    host.toolstack().add_vif(&vif);
    let pool = FramePool::new(&front, 1024).ok()?;
    let table = GrantTable::new(&front);
    let mut net =
        Netfront::open(front.clone(), front.clone(), &pool, &table, 0, Config::default()).ok()?;
    let state = format!("{}/state", vif.back_dir());
    back.write(None, &state, b"2").ok()?;
    net.service();
    let mut backend = Backend::connect(&back, &vif)?;
    back.write(None, &state, b"4").ok()?;
    net.service();
    if net.link() != Link::Up {
        return None;
    }
    let mut done = 0;
    while done < packets {
        if path == "idle" {
            if fe_idle(&mut net) {
                return None;
            }
            done += 1;
        } else if path == "rx" || path == "lent" {
            backend.fill_rx(batch)?;
            let receive = if path == "rx" { fe_poll } else { fe_lent };
            done += receive(&mut net, batch);
        } else {
            if path == "tx" {
                fe_submit(&mut net, batch);
            } else {
                fe_single(&mut net, batch);
            }
            backend.answer_tx()?;
            done += fe_reap(&mut net);
        }
    }
    let counters = net.counters();
    (counters.faults == 0
        && counters.clears == 0
        && counters.rx_drops.total() + counters.tx_drops.total() == 0)
        .then(|| {
            format!(
                "{done} packets, {} grants, {} revokes, {} events",
                counters.grants, counters.revokes, counters.events_sent
            )
        })
}

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    let path = args.next().unwrap_or_else(|| "tx".into());
    let batch = args.next().and_then(|batch| batch.parse().ok()).unwrap_or(32);
    let packets = args.next().and_then(|packets| packets.parse().ok()).unwrap_or(100_000);
    match run(&path, batch, packets) {
        Some(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        None => ExitCode::FAILURE,
    }
}
