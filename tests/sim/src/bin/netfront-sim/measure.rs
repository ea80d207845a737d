//! What is counted, at one moment and over a span of time, of all clients together.

use core::ops::{AddAssign, Sub};
use std::collections::BTreeMap;

use packet_views::device::NetDevice;
use packet_views::features::Features;
use packet_views::phy;
use xen_sim::Domain;

use crate::alloc;
use crate::client::Front;
use xen_sim::served::Served;

/// What one end has done.
#[derive(Clone, Copy, Debug, Default)]
pub struct Work {
    /// Packets, both ways.
    pub packets: u64,
    /// Ring slots.
    pub slots: u64,
    /// Payload copies by this project's code.
    pub copies: u64,
    /// Heap allocations in the driver, its adaptor and the stack.
    pub allocations: u64,
    /// Grant copies by the hypervisor (operations, not hypercalls).
    pub grant_copies: u64,
    /// Hypercalls that are not events.
    pub hypercalls: u64,
    /// Events sent.
    pub events: u64,
    /// Pages granted.
    pub grants: u64,
    /// Grants for which something had to be cleared.
    pub clears: u64,
}

/// The same, per packet.
#[derive(Clone, Copy, Debug, Default)]
pub struct PerPacket {
    /// Packets that the figures are per.
    pub packets: u64,
    /// Ring slots, and so on as in [`Work`].
    pub slots: f64,
    pub copies: f64,
    pub allocations: f64,
    pub grant_copies: f64,
    pub hypercalls: f64,
    pub events: f64,
    pub grants: f64,
    pub clears: f64,
}

/// A rule that names every counter once.
macro_rules! each {
    ($rule:ident) => {
        $rule!(packets slots copies allocations grant_copies hypercalls events grants clears)
    };
}

impl AddAssign for Work {
    fn add_assign(&mut self, other: Work) {
        macro_rules! add { ($($field:ident)*) => { $(self.$field += other.$field;)* }; }
        each!(add);
    }
}

impl Sub for Work {
    type Output = Work;

    fn sub(self, other: Work) -> Work {
        macro_rules! sub {
            ($($field:ident)*) => { Work { $($field: self.$field.saturating_sub(other.$field),)* } };
        }
        each!(sub)
    }
}

impl Work {
    /// What a domain has asked of the hypervisor.
    fn of_domain(domain: &Domain) -> Work {
        let counts = domain.counts();
        Work {
            grant_copies: counts.copies,
            hypercalls: counts.hypercalls(),
            events: counts.notifies,
            ..Work::default()
        }
    }

    /// The figures per packet.
    pub fn per_packet(&self) -> PerPacket {
        let per = |count: u64| match self.packets {
            0 => 0.0,
            packets => count as f64 / packets as f64,
        };
        PerPacket {
            packets: self.packets,
            slots: per(self.slots),
            copies: per(self.copies),
            allocations: per(self.allocations),
            grant_copies: per(self.grant_copies),
            hypercalls: per(self.hypercalls),
            events: per(self.events),
            grants: per(self.grants),
            clears: per(self.clears),
        }
    }
}

/// What the clients' ends leave to their backends.
#[derive(Clone, Copy, Debug, Default)]
pub struct Offloads {
    /// Large packets, both ways.
    pub large: u64,
    /// Packets sent with a blank checksum.
    pub blank: u64,
    /// Packets made fit in software for a backend that takes less.
    pub in_software: u64,
}

/// What a client and its backend have agreed on, as long as they are connected.
#[derive(Clone, Copy, Debug)]
pub struct Agreed {
    /// Queues of the vif.
    pub queues: usize,
    /// Each ring of a queue has an event channel of its own.
    pub split: bool,
    /// What may be left to the backend.
    pub features: Features,
}

impl Agreed {
    /// With the backend of this device; `None` while it has no connection.
    pub fn of(net: &Front) -> Option<Agreed> {
        let queues = net.queue_count();
        let split = net.ports().count() > queues;
        (queues > 0).then(|| Agreed { queues, split, features: net.features() })
    }
}

/// All counters at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The clients'.
    pub front: Work,
    /// The backend's. It grants nothing, so it clears nothing. What a hostile backend in the same
    /// domain does counts as well.
    pub back: Work,
    /// Bytes that were copied because a stack wanted them in one slice: the clients', the
    /// backend's.
    pub linearised_bytes: (u64, u64),
    /// Packets that did not get through, by end and reason; only reasons that occurred.
    pub drops: BTreeMap<&'static str, u64>,
    /// What one of the clients has agreed on, if one is connected.
    pub agreed: Option<Agreed>,
    /// Offloads at the clients' ends.
    pub offloads: Offloads,
    /// Pages in the clients' quarantine now, and those that were there at some time.
    pub quarantined: (usize, u64),
}

/// Adds to `$drops` what each of these reasons has counted, and to "other" the rest of the total.
macro_rules! add_drops {
    ($drops:expr, $counted:expr, $end:literal: $($reason:ident)*) => {
        let counted = $counted;
        let mut rest = counted.total();
        $(
            rest -= counted.$reason;
            count($drops, concat!($end, stringify!($reason)), counted.$reason);
        )*
        count($drops, concat!($end, "other"), rest);
    };
}

fn count(drops: &mut BTreeMap<&'static str, u64>, reason: &'static str, count: u64) {
    if count > 0 {
        *drops.entry(reason).or_default() += count;
    }
}

impl Snapshot {
    /// The counters of the backend's domain and of the program; ends are added one by one.
    pub fn new(back: &Domain) -> Snapshot {
        let mut snapshot = Snapshot { back: Work::of_domain(back), ..Snapshot::default() };
        (snapshot.front.allocations, snapshot.back.allocations) = alloc::counts();
        snapshot
    }

    /// A client's end, and what is on top of it.
    pub fn add_front(&mut self, net: &Front, phy: phy::Counters, domain: &Domain) {
        let counters = net.counters();
        self.front += Work::of_domain(domain);
        self.front += Work {
            packets: counters.rx_packets + counters.tx_packets,
            slots: counters.rx_slots + counters.tx_slots,
            copies: NetDevice::totals(net).copies,
            grants: counters.grants,
            clears: counters.clears,
            ..Work::default()
        };
        self.agreed = Agreed::of(net).or(self.agreed);
        self.offloads.large += counters.rx_gso + counters.tx_gso;
        self.offloads.blank += counters.tx_blank;
        self.offloads.in_software += counters.tx_filled + counters.tx_cut + counters.tx_gathered;
        self.linearised_bytes.0 += phy.linearised_bytes;
        self.quarantined.0 += net.quarantined();
        self.quarantined.1 += counters.quarantined;
        let drops = &mut self.drops;
        add_drops!(drops, counters.rx_drops, "front_rx_":
            backend_error bad_extent too_many_slots truncated bad_extra runt still_in_use
            disconnected);
        add_drops!(drops, counters.tx_drops, "front_tx_":
            bad_length bad_checksum too_many_slots no_gso no_frame backend_error backend_dropped disconnected);
    }

    /// The backend's end for a client, and what is on top of it.
    pub fn add_back(&mut self, served: &Served, phy: phy::Counters) {
        let counters = served.counters();
        self.back += Work {
            packets: counters.from_packets + counters.to_packets,
            slots: counters.from_slots + counters.to_slots,
            copies: NetDevice::totals(served).copies,
            ..Work::default()
        };
        self.linearised_bytes.1 += phy.linearised_bytes;
        let drops = &mut self.drops;
        add_drops!(drops, counters.from_drops, "back_from_":
            runt too_many_slots sizes multicast gso copy_failed no_frame);
        add_drops!(drops, counters.to_drops, "back_to_":
            not_connected bad_length offload no_frame no_memory queue_full stalled copy_failed
            disconnected);
    }
}

#[cfg(test)]
mod tests {
    use packet_views::device::Link;
    use xen_grant::{DomId, FramePool, GrantTable};
    use xen_netfront::netfront::{Config, Netfront};
    use xen_sim::{Host, Vif};

    use super::*;

    #[test]
    fn what_is_agreed_on_is_not_what_is_asked_for() {
        let host = Host::new(1);
        let (back, front) = (host.add_domain(DomId(1), 64), host.add_domain(DomId(2), 800));
        let vif = Vif::new(front.id(), back.id(), 0);
        host.toolstack().add_vif(&vif);
        let pool = FramePool::new(&front, 640).unwrap();
        let table = GrantTable::new(&front);
        let config = Config::default().with_queues(4).with_split_event_channels(true);
        let mut net =
            Netfront::open(front.clone(), front.store(), &pool, &table, 0, config).unwrap();
        assert!(Agreed::of(&net).is_none());
        // A backend with one queue, one channel, and nothing but single packets.
        let say = |key: &str, value| host.toolstack().store().set(&(vif.back_dir() + key), value);
        for (key, value) in [("/feature-rx-copy", "1"), ("/feature-sg", "0"), ("/state", "2")] {
            say(key, value);
        }
        net.service();
        say("/state", "4");
        while net.service() == Link::Down {}
        let agreed = Agreed::of(&net).unwrap();
        assert_eq!((agreed.queues, agreed.split), (1, false));
        assert!(!agreed.features.scatter_gather && !agreed.features.gso_v4);
    }
}
