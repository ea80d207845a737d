//! The frontend: with a backend that keeps to the rules, with each feature and without, and with
//! one that breaks a rule at a time (requirements F1 to F10, F12, F13).
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod accounts;
mod bounds;
mod changes;
mod frames;
mod lent;
mod lent_pages;
mod link;
mod memory;
mod offload_rx;
mod offload_tx;
#[path = "../packets/mod.rs"]
mod packets;
mod published;
mod pull;
mod quarantine;
mod queues;
#[path = "../raw_backend/mod.rs"]
mod raw_backend;
mod receive;
mod shapes;
mod silence;
mod software;
mod stack;
mod starvation;
mod transmit;
mod trust;

use std::time::Duration;

use packet_views::device::Link;
use packet_views::device::{NetDevice, PacketMutOf, SendError};
use raw_backend::{BACK, Bench, FRONT, Front, Rings, pattern};
use xen_grant::DomId;
use xen_netfront::buffer::{Packet, PacketMut};
use xen_netfront::netfront::{Config, RxDrops};
use xen_netfront::wire::{Extra, RxResponse, TxRequest, rx_flags};
use xen_sim::{FaultRule, Host, Vif};

/// The device's own way to send a packet.
#[expect(clippy::result_large_err, reason = "the packet comes back, not an error")]
fn send(net: &mut Front, packet: PacketMut) -> Result<(), SendError<PacketMut>> {
    NetDevice::send(net, packet)
}

const SECOND: Duration = Duration::from_secs(1);

/// After a fault: the link is down, and within a second of an honest backend's coming back
/// packets flow again.
#[track_caller]
fn assert_recovers(bench: &mut Bench, faults: u64) {
    bench.front.service();
    assert_eq!(bench.front.counters().faults, faults);
    assert_eq!(bench.front.link(), Link::Down);
    let before = bench.host.now();
    bench.connect();
    let took = bench.host.now().since(before);
    assert!(took <= SECOND, "it took {took:?}");
    bench.assert_receives();
    assert!(bench.send(&[&pattern(5, 60)]));
    assert_eq!(bench.tx_requests().len(), 1);
    bench.assert_sound();
}
