//! What is counted, at one moment and over a span of time.

use std::cell::RefCell;

use xen_netfront::{netback, netfront, netif::Netif, phy};
use xen_sim::{Counts, Domain};

use crate::alloc;
use crate::backend::Backend;
use crate::client::Client;

/// All counters of both ends at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Snapshot {
    /// The device's.
    pub front: netfront::Stats,
    /// Payload copies of the client's device.
    pub front_copies: u64,
    /// The client's adaptor's.
    pub front_phy: phy::Stats,
    /// The client domain's, as the hypervisor counts.
    pub front_domain: Counts,
    /// The backend's.
    pub back: netback::Stats,
    /// Payload copies of the backend's device.
    pub back_copies: u64,
    /// Its adaptor's.
    pub back_phy: phy::Stats,
    /// The backend domain's, as the hypervisor counts.
    pub back_domain: Counts,
    /// Heap allocations, the client's and the backend's.
    pub allocations: (u64, u64),
    /// Pages in the client's quarantine.
    pub quarantined: usize,
}

impl Snapshot {
    /// The counters now. The client's are zero as long as its device has not been up.
    pub fn take(
        client: &RefCell<Client>,
        backend: &RefCell<Backend>,
        domains: (&Domain, &Domain),
    ) -> Snapshot {
        let (client, backend) = (client.borrow(), backend.borrow());
        let Some(stack) = client.stack() else { return Snapshot::default() };
        let (net, back) = (stack.device.netif().below(), &backend.stack().device);
        Snapshot {
            front: *net.stats(),
            front_copies: Netif::stats(net).copies,
            front_phy: stack.device.stats(),
            front_domain: domains.0.counts(),
            back: back.netif().stats(),
            back_copies: Netif::stats(back.netif()).copies,
            back_phy: back.stats(),
            back_domain: domains.1.counts(),
            allocations: alloc::counts(),
            quarantined: net.quarantined(),
        }
    }
}

/// What one end did per packet.
#[derive(Clone, Copy, Debug, Default)]
pub struct PerPacket {
    /// Packets that the figures are per.
    pub packets: u64,
    /// Ring slots.
    pub slots: f64,
    /// Payload copies by this project's code.
    pub copies: f64,
    /// Heap allocations in the driver, its adaptor and the stack.
    pub allocations: f64,
    /// Grant copies by the hypervisor (operations, not hypercalls).
    pub grant_copies: f64,
    /// Hypercalls that are not events.
    pub hypercalls: f64,
    /// Events sent.
    pub events: f64,
    /// Pages granted.
    pub grants: f64,
    /// Grants for which something had to be cleared.
    pub clears: f64,
}

/// The client's figures between two moments.
pub fn front(from: &Snapshot, to: &Snapshot) -> PerPacket {
    let (a, b) = (&from.front, &to.front);
    let packets = b.rx_packets + b.tx_packets - a.rx_packets - a.tx_packets;
    let per = |count: u64| ratio(count, packets);
    let domain = to.front_domain - from.front_domain;
    PerPacket {
        packets,
        slots: per(b.rx_slots + b.tx_slots - a.rx_slots - a.tx_slots),
        copies: per(to.front_copies - from.front_copies),
        allocations: per(to.allocations.0 - from.allocations.0),
        grant_copies: per(domain.copies),
        hypercalls: per(domain.hypercalls()),
        events: per(domain.notifies),
        grants: per(b.grants - a.grants),
        clears: per(b.clears - a.clears),
    }
}

/// The backend's figures between two moments. It grants nothing, so it clears nothing. What a
/// hostile backend in the same domain does counts as well.
pub fn back(from: &Snapshot, to: &Snapshot) -> PerPacket {
    let (a, b) = (&from.back, &to.back);
    let packets = b.from_packets + b.to_packets - a.from_packets - a.to_packets;
    let per = |count: u64| ratio(count, packets);
    let domain = to.back_domain - from.back_domain;
    PerPacket {
        packets,
        slots: per(b.from_slots + b.to_slots - a.from_slots - a.to_slots),
        copies: per(to.back_copies - from.back_copies),
        allocations: per(to.allocations.1 - from.allocations.1),
        grant_copies: per(domain.copies),
        hypercalls: per(domain.hypercalls()),
        events: per(domain.notifies),
        grants: 0.0,
        clears: 0.0,
    }
}

/// Packets that did not get through, by end and reason; only reasons that occurred.
pub fn drops(at: &Snapshot) -> Vec<(&'static str, u64)> {
    let (rx, tx) = (&at.front.rx_drops, &at.front.tx_drops);
    let (from, to) = (&at.back.from_drops, &at.back.to_drops);
    macro_rules! reasons {
        ($($end:literal $drops:ident: $($reason:ident)*;)*) => {
            [$($((concat!($end, stringify!($reason)), $drops.$reason),)*)*]
        };
    }
    let all = reasons! {
        "front_rx_" rx: backend_error bad_extent too_many_slots truncated bad_extra runt still_in_use;
        "front_tx_" tx: bad_length too_many_slots no_gso backend_error backend_dropped disconnected;
        "back_from_" from: runt too_many_slots sizes multicast gso copy_failed no_frame;
        "back_to_" to: not_connected bad_length offload queue_full stalled copy_failed disconnected;
    };
    let total = rx.total() + tx.total() + from.total() + to.total();
    let named: u64 = all.iter().map(|(_, count)| count).sum();
    let mut some: Vec<_> = all.into_iter().filter(|(_, count)| *count > 0).collect();
    if total > named {
        some.push(("other", total - named));
    }
    some
}

fn ratio(count: u64, packets: u64) -> f64 {
    if packets == 0 { 0.0 } else { count as f64 / packets as f64 }
}
