//! The backend's packet path, to be counted by callgrind:
//!
//!     netback PATH BATCH PACKETS
//!
//! runs one path, `poll`, `deliver` (queue + flush) or `idle` (turns of the loop in which nothing
//! happened), in batches, with every check on.
//! `scripts/instructions` collects inside the `be_*` functions only, and not in the hypervisor's part.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../tests/raw_client/mod.rs"]
mod raw_client;

use std::hint::black_box;
use std::process::ExitCode;

use raw_client::{Back, Bench, Client, Features, pattern};
use xen_netfront::buffer::Packet;
use xen_netfront::netback::Config;

/// Takes packets of 64 bytes off the ring.
#[inline(never)]
fn be_poll(back: &mut Back, budget: usize) -> usize {
    // The layer above looks at the packet, and drops it.
    back.poll(budget, |packet| {
        black_box(packet.head());
    })
}

#[inline(never)]
fn be_deliver(back: &mut Back, packets: &mut Vec<Packet>) {
    for packet in packets.drain(..) {
        black_box(back.deliver(packet).is_ok());
    }
}

#[inline(never)]
fn be_flush(back: &mut Back) {
    back.flush();
}

/// A turn of the backend's loop, when nothing has happened.
#[inline(never)]
fn be_idle(back: &mut Back) -> bool {
    back.service();
    back.rearm()
}

fn run(path: &str, batch: usize, packets: usize) -> bool {
    let mut bench = Bench::new(Config::default(), 512);
    let mut client = Client::new(&bench.host, &bench.vif, 0);
    client.connect(&mut bench.netback, &Features::default());
    let packet = bench.plain(&pattern(1, 64));
    let mut waiting = Vec::with_capacity(batch);
    let mut done = 0;
    while done < packets {
        if path == "idle" {
            if be_idle(&mut bench.netback) {
                return false;
            }
            done += 1;
        } else if path == "poll" {
            for _ in 0..batch {
                client.chain(&[(0, 0, 64)], 0, &[]);
            }
            client.show();
            done += be_poll(&mut bench.netback, batch);
            client.answers();
        } else {
            client.post(batch);
            waiting.extend((0..batch).map(|_| packet.clone()));
            be_deliver(&mut bench.netback, &mut waiting);
            be_flush(&mut bench.netback);
            done += client.receive().len();
        }
        bench.netback.flush();
    }
    let counters = bench.netback.counters();
    println!(
        "{done} packets, {} hypercalls, {} events",
        counters.copy_hypercalls, counters.events_sent
    );
    counters.faults + counters.from_drops.total() + counters.to_drops.total() == 0
}

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    let path = args.next().unwrap_or_else(|| "poll".into());
    let batch = args.next().and_then(|batch| batch.parse().ok()).unwrap_or(64);
    let packets = args.next().and_then(|packets| packets.parse().ok()).unwrap_or(10_000);
    if run(&path, batch, packets) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
