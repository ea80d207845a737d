//! What there is to tell about the guest, at one moment: for the page and for the metrics.

use alloc::vec::Vec;

use packet_views::features::Features;
use packet_views::phy;
use smoltcp::wire::{EthernetAddress, IpCidr};
use xen_netfront::netfront;

/// All of it.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// Our domain's number, if Xen says it.
    pub domain: Option<u16>,
    /// Seconds since Xen started the clock.
    pub uptime: f64,
    /// Bytes that nobody has asked for yet.
    pub free_memory: u64,
    /// Pages of the packet pool.
    pub pool: Pool,
    /// Each vif that is served.
    pub vifs: Vec<Vif>,
}

/// The packet pool, in pages.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pool {
    /// All of them.
    pub size: usize,
    /// Those that nobody holds.
    pub free: usize,
    /// The most that were ever held.
    pub high_water: usize,
}

/// One vif.
#[derive(Clone, Debug)]
pub struct Vif {
    /// Its number.
    pub number: u32,
    /// Whether both ends are connected.
    pub up: bool,
    /// Its hardware address.
    pub mac: EthernetAddress,
    /// The largest IP packet.
    pub mtu: usize,
    /// Our addresses on it.
    pub addresses: Vec<IpCidr>,
    /// Whether the toolstack trusts the backend.
    pub trusted: bool,
    /// What both ends agreed on, for each direction.
    pub agreed: Agreed,
    /// The driver's counters.
    pub counters: netfront::Counters,
    /// Events that the backend has woken us by.
    pub events: u64,
    /// Pages that the backend has not let go of.
    pub quarantined: usize,
    /// The counters of what lies between the driver and the stack.
    pub adaptor: phy::Counters,
    /// What is served.
    pub services: Vec<Service>,
}

/// What a vif's ends agreed on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Agreed {
    /// What we may send.
    pub transmit: Features,
    /// What we may be sent.
    pub receive: Features,
    /// Pairs of rings.
    pub queues: usize,
    /// An event channel for each ring.
    pub split: bool,
}

/// One service on one vif.
#[derive(Clone, Copy, Debug)]
pub struct Service {
    /// `tcp_echo`, say.
    pub name: &'static str,
    /// Connections now.
    pub connected: usize,
    /// Connections, datagrams or requests so far.
    pub served: u64,
}

/// A feature's name, and whether it is on.
pub fn named(features: Features) -> [(&'static str, bool); 5] {
    let Features { scatter_gather, checksum_v4, checksum_v6, gso_v4, gso_v6, .. } = features;
    [
        ("sg", scatter_gather),
        ("csum-v4", checksum_v4),
        ("csum-v6", checksum_v6),
        ("gso-v4", gso_v4),
        ("gso-v6", gso_v6),
    ]
}

#[cfg(test)]
pub fn example() -> Status {
    let service = Service { name: "tcp_echo", connected: 1, served: 5 };
    let mut counters = netfront::Counters::default();
    (counters.rx_packets, counters.grants, counters.revokes) = (11, 300, 44);
    Status {
        domain: Some(7),
        uptime: 3.25,
        free_memory: 1 << 20,
        pool: Pool { size: 640, free: 100, high_water: 600 },
        vifs: [0, 2]
            .map(|number| Vif {
                number,
                up: number == 0,
                mac: EthernetAddress([0, 0x16, 0x3e, 0, 0, 2]),
                mtu: 1500,
                addresses: alloc::vec![IpCidr::new(smoltcp::wire::IpAddress::v4(10, 0, 0, 2), 24)],
                trusted: true,
                agreed: Agreed {
                    transmit: Features::ALL,
                    receive: Features::NONE,
                    queues: 2,
                    split: true,
                },
                counters,
                events: 7,
                quarantined: 0,
                adaptor: phy::Counters::default(),
                services: alloc::vec![service],
            })
            .into(),
    }
}
