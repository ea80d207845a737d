//! What idle clients cost, to be counted by callgrind:
//!
//!     clients PATH CLIENTS TURNS
//!
//! makes so many turns of the loop of a backend with so many clients, in which nothing happened.
//! `scripts/instructions` collects inside `be_clients` only. (A program of its own: where two drive a vif,
//! none of them has its packet path to itself.)
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../tests/raw_client/mod.rs"]
mod raw_client;

use std::hint::black_box;
use std::process::ExitCode;
use std::time::Duration;

use raw_client::{BACK, Client, Features};
use xen_grant::{DomId, FramePool};
use xen_netfront::netback::{Budget, Clients, Config};
use xen_sim::{Domain, Host, Quota, Vif};

/// A turn of the loop of a backend with many clients, when nothing has happened.
#[inline(never)]
fn be_clients(clients: &mut Clients<Domain, Domain>) -> bool {
    clients.turn(64, |_, _, packet| {
        black_box(packet.head());
    });
    clients.rearm()
}

/// So many clients, all of them connected, and idle.
fn run(count: usize, turns: usize) -> bool {
    let host = Host::new(1);
    host.set_store_quota(Quota { nodes: 5000, ..Quota::default() });
    let back = host.add_domain(BACK, 20_000);
    let pool = FramePool::new(&back, 4096).unwrap();
    let budget = Budget::dividing(pool.size(), count).unwrap();
    let (platform, store) = (back.clone(), back.clone());
    let mut clients = Clients::open(platform, store, &pool, &budget, Config::default()).unwrap();
    let mut peers = Vec::new();
    for number in 0..count {
        let vif = Vif::new(DomId(100 + number as u16), BACK, 0);
        host.add_domain(vif.frontend, 400);
        host.toolstack().add_vif(&vif);
        while set_up(&mut clients) {}
        let mut client = Client::new(&host, &vif, 0);
        client.publish(&Features::default());
        peers.push(client);
        // What xenstore is asked for one has been paid for when the next comes.
        host.advance(Duration::from_secs(1));
        while set_up(&mut clients) {}
    }
    let connected = clients.iter().filter(|(_, vif)| vif.is_connected()).count();
    println!("{connected} clients");
    connected == count && (0..turns).all(|_| !be_clients(&mut clients))
}

/// The same turn, not counted.
fn set_up(clients: &mut Clients<Domain, Domain>) -> bool {
    clients.turn(64, |_, _, _| ());
    clients.rearm()
}

fn main() -> ExitCode {
    let args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    let mut numbers = args.skip(1).filter_map(|arg| arg.parse().ok());
    let (clients, turns) = (numbers.next().unwrap_or(64), numbers.next().unwrap_or(10_000));
    if run(clients, turns) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
