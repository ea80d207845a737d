//! The backend: with clients that keep to the rules, and with such that do not.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod connect;
mod copies;
mod detach;
mod frames;
mod from_client;
mod indices;
mod limits;

mod memory;
mod offloads;
mod queues;
#[path = "../raw_client/mod.rs"]
mod raw_client;
mod requests;
mod sessions;
mod shapes;
mod software;
mod terms;
mod to_client;
mod waking;

use std::num::NonZeroU16;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use packet_views::buffer::{Checksum, Meta};
use packet_views::buffer::{Gso, GsoKind};
use raw_client::{BACK, Bench, CLIENT, Client, Features, TX_PAGES, bytes, pattern};
use xen_grant::{DomId, FramePool, PAGE_SIZE};
use xen_netfront::netback::{Config, DeliverError, DeliverErrorKind, Fault};
use xen_netfront::platform::{Instant, Platform};
use xen_netfront::wire::{Extra, RxRequest, RxResponse, TxRequest, TxSlot, rx_flags, tx_flags};
use xen_ring::PeerFault;
use xen_sim::{
    Access, Chaos, Counts, Ctx, FaultRule, Host, Limits, Next, Outcome, Perms, Scheduler, Vif,
};

const HEADROOM: usize = 128;

fn gso(size: u16) -> Gso {
    Gso { size: NonZeroU16::new(size).unwrap(), kind: GsoKind::TcpV4 }
}

/// Whether a packet is queued, and if not why it was dropped: `None` if it was given back.
fn outcome(delivered: Result<(), DeliverError>) -> Result<(), Option<DeliverErrorKind>> {
    delivered.map_err(|error| error.why())
}

/// Words of a ring's header.
const REQ_PROD: usize = 0;
const RSP_PROD: usize = 2;
/// Word of the first slot.
const SLOTS: usize = 16;

const STARTS: [u32; 4] = [0, 0x7fff_ff80, 0u32.wrapping_sub(256), 0u32.wrapping_sub(1)];

fn bench_at(start: u32) -> (Bench, Client) {
    let mut bench = Bench::new(Config::default(), 128);
    let mut client = Client::new(&bench.host, &bench.vif, start);
    client.connect(&mut bench.netback, &Features::default());
    (bench, client)
}

fn request(client: &Client, page: usize, offset: u16, size: u16, flags: u16, id: u16) -> TxRequest {
    TxRequest { gref: client.sources[page].1, offset, flags, id, size }
}

/// The vif is shut at once, taken down once and later, and comes back.
fn expect_shut(mut bench: Bench, mut client: Client) {
    // B2: nothing moves any more, and nothing is torn down either.
    let before = bench.back.counts();
    assert!(!bench.netback.is_connected());
    assert_eq!(bench.netback.poll(64, |_| ()), 0);
    assert_eq!(
        outcome(bench.netback.deliver(bench.plain(&[1; 60]))),
        Err(Some(DeliverErrorKind::NotConnected))
    );
    bench.netback.flush();
    assert!(bench.netback.rearm(), "somebody has to see to it");
    assert_eq!(bench.back.counts() - before, Counts::default());
    assert_eq!(bench.back.mappings(), 2);
    let faults = bench.netback.counters().faults;

    bench.netback.service();
    assert_eq!(bench.netback.counters().faults, faults + 1);
    assert_eq!((bench.back.counts() - before).unmaps, 2);
    assert_eq!(bench.back.mappings(), 0);
    assert!(!bench.netback.rearm());
    assert_eq!(bench.toolstack.states(&bench.vif).1, Some(5));
    for _ in 0..3 {
        bench.netback.service();
    }
    assert_eq!((bench.back.counts() - before).unmaps, 2);
    assert_eq!(bench.pool.free(), bench.pool.size());

    client.set_state(6);
    bench.netback.service();
    bench.host.advance(Duration::from_secs(1));
    client.set_state(1);
    client.reset_rings();
    client.connect(&mut bench.netback, &Features::default());
    let sent = client.send(&[(0, 0, 100)]);
    assert_eq!(bench.poll(), [sent]);
    assert_eq!(bench.host.violations(), []);
}

/// Packs fragments of these sizes onto the client's pages, each at an offset of its own.
fn place(sizes: &[u16], rng: &mut fastrand::Rng) -> Vec<(usize, u16, u16)> {
    let place = |(slot, &size): (usize, &u16)| {
        let room = PAGE_SIZE as u16 - size;
        let offset = match rng.u8(..4) {
            0 => 0,
            1 => room,
            _ => rng.u16(..=room),
        };
        (slot % TX_PAGES, offset, size)
    };
    sizes.iter().enumerate().map(place).collect()
}

/// Some way to cut `total` bytes into `count` fragments of up to a page.
fn split(total: usize, count: usize, rng: &mut fastrand::Rng) -> Vec<u16> {
    let mut left = total;
    (0..count)
        .map(|slot| {
            let later = (count - slot - 1) * PAGE_SIZE;
            let (least, most) = (left.saturating_sub(later), left.min(PAGE_SIZE));
            let size = match rng.u8(..5) {
                0 => least,
                1 => most,
                2 => 1.clamp(least, most),
                _ => rng.usize(least..=most),
            };
            let size = if slot + 1 == count { left } else { size };
            left -= size;
            size as u16
        })
        .collect()
}
