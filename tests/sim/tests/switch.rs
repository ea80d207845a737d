//! A switch of four vifs: what is known of a packet crosses it with the packet, so that what one
//! client leaves to others is not done in between, unless the receiver takes less.
//!
//! ```text
//!   client 1   client 2   client 3   client 4     netfronts, in domains of their own
//!      │          │          │          │
//!   ┌──┴──────────┴──────────┴──────────┴──┐
//!   │ netback    netback   netback  netback│     one domain, which learns who is where
//!   └──────────────────────────────────────┘
//! ```
#![allow(missing_docs)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod packets;

use std::collections::BTreeMap;
use std::time::Duration;

use fastrand::Rng;
use packet_views::buffer::{Checksum, Meta};
use packet_views::device::Link;
use packet_views::device::NetDevice;
use packet_views::features::Features;
use packets::{Arrived, Flow, check};
use xen_grant::{DomId, FramePool, GrantTable};
use xen_netfront::buffer::{Packet, PacketMut};
use xen_netfront::netback::{self, Netback};
use xen_netfront::netfront::{self, Netfront};
use xen_sim::{Domain, Host, Vif};

const SWITCH: DomId = DomId(1);
const CLIENTS: u8 = 4;
const ALL: [u8; CLIENTS as usize] = [1, 2, 3, 4];

/// A client: station number n lives in domain 10 + n.
struct Client {
    domain: Domain,
    pool: FramePool,
    net: Netfront<Domain, Domain>,
    received: Vec<(Vec<u8>, Meta)>,
}

struct Switch {
    host: Host,
    domain: Domain,
    pools: Vec<FramePool>,
    vifs: Vec<Netback<Domain, Domain>>,
    /// Which port a station is at.
    learned: BTreeMap<[u8; 6], usize>,
    clients: Vec<Client>,
}

impl Switch {
    /// With clients that take these features; the switch takes all.
    fn new(features: [Features; CLIENTS as usize], queues: u32) -> Switch {
        let host = Host::new(1);
        let domain = host.add_domain(SWITCH, 1600);
        let (mut pools, mut vifs, mut clients) = (Vec::new(), Vec::new(), Vec::new());
        for (station, features) in ALL.into_iter().zip(features) {
            let id = DomId(10 + u16::from(station));
            let theirs = host.add_domain(id, 800);
            host.toolstack().add_vif(&Vif::new(id, SWITCH, 0));
            let pool = FramePool::new(&domain, 384).unwrap();
            let config = netback::Config::default()
                .with_features(Features::ALL)
                .with_max_queues(4)
                .with_queue_frames(300);
            let (platform, store) = (domain.clone(), domain.clone());
            vifs.push(Netback::open(platform, store, &pool, id, 0, config).unwrap());
            pools.push(pool);
            let pool = FramePool::new(&theirs, 700).unwrap();
            let table = GrantTable::new(&theirs);
            let config = netfront::Config::default()
                .with_features(features)
                .with_queues(queues)
                .with_ring_start(u32::MAX - 30)
                .with_rx_floor(128);
            let (platform, store) = (theirs.clone(), theirs.clone());
            let net = Netfront::open(platform, store, &pool, &table, 0, config).unwrap();
            clients.push(Client { domain: theirs, pool, net, received: Vec::new() });
        }
        let mut switch = Switch { host, domain, pools, vifs, learned: BTreeMap::new(), clients };
        for _ in 0..20 {
            switch.turn();
            switch.host.advance(Duration::from_millis(1));
        }
        assert!(switch.clients.iter().all(|client| client.net.link() == Link::Up));
        switch
    }

    /// Everybody's turn: the switch forwards, the clients take what has come.
    fn turn(&mut self) {
        let mut packets: Vec<(usize, Packet)> = Vec::new();
        for (port, vif) in self.vifs.iter_mut().enumerate() {
            vif.service();
            vif.poll(64, |packet| packets.push((port, packet.freeze())));
        }
        for (from, packet) in packets {
            let (to, sender) = (packet.head()[..6].try_into(), packet.head()[6..12].try_into());
            self.learned.insert(sender.unwrap(), from);
            match self.learned.get::<[u8; 6]>(&to.unwrap()) {
                Some(port) => assert!(self.vifs[*port].deliver(packet).is_ok()),
                None => {
                    for port in (0..self.vifs.len()).filter(|port| *port != from) {
                        assert!(self.vifs[port].deliver(packet.clone()).is_ok());
                    }
                }
            }
        }
        for vif in &mut self.vifs {
            vif.flush();
        }
        for client in &mut self.clients {
            client.net.service();
            client.net.complete_tx();
            let received = &mut client.received;
            client.net.receive(256, |packet| {
                let mut bytes = vec![0; packet.len()];
                packet.copy_to_slice(&mut bytes).unwrap();
                received.push((bytes, packet.meta));
            });
        }
    }

    /// Turns until nothing moves any more.
    fn settle(&mut self) {
        for _ in 0..10 {
            self.turn();
        }
        assert!(self.vifs.iter().all(|vif| vif.queued() == 0));
    }

    fn client(&mut self, station: u8) -> &mut Client {
        &mut self.clients[usize::from(station) - 1]
    }

    fn send(&mut self, flow: Flow, bytes: &[u8], meta: Meta) {
        let client = self.client(flow.from);
        let mut packet = PacketMut::new();
        for part in bytes.chunks(4000) {
            let mut buf = client.net.alloc(30).expect("a frame");
            buf.append(part.len()).unwrap().copy_from_slice(part);
            packet.push(buf).unwrap();
        }
        packet.meta = meta;
        assert!(NetDevice::send(&mut client.net, packet).is_ok(), "there is room");
        client.net.flush();
    }

    /// What a client has received, by flow, each packet checked.
    fn received(&mut self, station: u8) -> BTreeMap<Flow, Vec<(Arrived, Meta)>> {
        let mut flows: BTreeMap<Flow, Vec<_>> = BTreeMap::new();
        for (bytes, meta) in std::mem::take(&mut self.client(station).received) {
            let arrived = check(&bytes, meta);
            flows.entry(arrived.flow).or_default().push((arrived, meta));
        }
        flows
    }

    /// Has everybody be heard once, so that all are known.
    fn introduce(&mut self) {
        for from in ALL {
            let flow = Flow { from, to: from % CLIENTS + 1, ..Flow::udp(false, 1) };
            self.send(flow, &flow.packet(0, &[1; 20]), Meta::default());
            self.settle();
        }
        self.clients.iter_mut().for_each(|client| client.received.clear());
    }

    fn tear_down(self) {
        let Switch { host, domain, pools, vifs, clients, .. } = self;
        assert_eq!(host.violations(), []);
        drop(vifs);
        for Client { domain, pool, net, .. } in clients {
            drop(net);
            assert_eq!((pool.free(), domain.open_ports()), (pool.size(), vec![]));
        }
        assert!(pools.iter().all(|pool| pool.free() == pool.size()), "frames leaked");
        assert_eq!(domain.open_ports(), []);
    }
}

/// A packet that a client sends.
struct Sent {
    data: Vec<u8>,
    size: u16,
}

/// Everybody sends to everybody: TCP in packets of up to 60,000 bytes, UDP, both with blank
/// checksums.
fn traffic(switch: &mut Switch, rounds: usize, seed: u64) -> BTreeMap<Flow, Vec<Sent>> {
    let mut rng = Rng::with_seed(seed);
    let mut sent: BTreeMap<Flow, Vec<Sent>> = BTreeMap::new();
    for _ in 0..rounds {
        for from in ALL {
            let to = (from + rng.u8(..CLIENTS - 1)) % CLIENTS + 1;
            let kinds = Flow::each_kind(rng.u16(..3));
            let flow = Flow { from, to, ..kinds[rng.usize(..4)] };
            let earlier = sent.entry(flow).or_default();
            let sequence: usize = earlier.iter().map(|sent| sent.data.len()).sum();
            let (len, size) = match (flow.tcp, rng.u8(..3)) {
                (true, 0) => (rng.usize(1..=60_000), 1400),
                (true, 1) => (rng.usize(1401..9000), 1400),
                _ => (rng.usize(1..=1400), 0),
            };
            let mut data = vec![0; len];
            rng.fill(&mut data);
            let bytes = flow.blank(sequence as u32, &data);
            earlier.push(Sent { data, size });
            switch.send(flow, &bytes, flow.meta(size));
        }
        switch.turn();
        switch.turn();
    }
    switch.settle();
    sent
}

/// What has arrived of a flow is what was sent, however it was cut.
#[track_caller]
fn assert_arrived(flow: Flow, sent: &[Sent], arrived: &[(Arrived, Meta)]) {
    let expected: Vec<u8> = sent.iter().flat_map(|sent| sent.data.clone()).collect();
    let mut data: Vec<u8> = Vec::new();
    for (packet, _) in arrived {
        if flow.tcp {
            assert_eq!(packet.sequence, data.len() as u32, "{flow:?}");
        }
        data.extend(&packet.data);
    }
    assert!(data == expected, "{flow:?}: {} of {} bytes", data.len(), expected.len());
}

/// Packets that a client has cut, has filled in, has been sent cut, has been sent filled in.
fn in_software(switch: &Switch) -> Vec<[u64; 4]> {
    let pairs = switch.clients.iter().zip(&switch.vifs);
    pairs
        .map(|(client, vif)| {
            let (front, back) = (client.net.counters(), vif.counters());
            [front.tx_cut, front.tx_filled, back.cut, back.sums_filled]
        })
        .collect()
}

#[test]
fn what_is_known_of_a_packet_crosses_unsegmented_and_unsummed() {
    for queues in [1, 3] {
        let mut switch = Switch::new([Features::ALL; 4], queues);
        switch.introduce();
        let totals = |switch: &Switch| {
            let fronts = switch.clients.iter().map(|client| *client.net.counters());
            let backs = switch.vifs.iter().map(|vif| *vif.counters());
            (fronts.collect::<Vec<_>>(), backs.collect::<Vec<_>>())
        };
        let (fronts, backs) = totals(&switch);
        let before = switch.domain.counts();
        let sent = traffic(&mut switch, 60, queues.into());
        let (fronts_after, backs_after) = totals(&switch);

        for station in ALL {
            let received = switch.received(station);
            let expected: Vec<Flow> =
                sent.keys().filter(|flow| flow.to == station).copied().collect();
            assert_eq!(received.keys().copied().collect::<Vec<_>>(), expected);
            for (flow, arrived) in &received {
                assert_arrived(*flow, &sent[flow], arrived);
                // One packet for each that was sent, and the same is known of it.
                let metas: Vec<Meta> = sent[flow].iter().map(|sent| flow.meta(sent.size)).collect();
                assert_eq!(arrived.iter().map(|(_, meta)| *meta).collect::<Vec<_>>(), metas);
            }
        }
        let sum = |of: fn(&netfront::Counters) -> u64| -> u64 {
            let all = fronts_after.iter().zip(&fronts);
            all.map(|(after, before)| of(after) - of(before)).sum()
        };
        let packets = sent.values().flatten().count() as u64;
        let large = sent.values().flatten().filter(|sent| sent.size > 0).count() as u64;
        assert!(packets == 240 && large > 50, "{packets} packets, {large} of them large");
        assert_eq!(
            (sum(|s| s.tx_packets), sum(|s| s.tx_blank), sum(|s| s.tx_gso)),
            (packets, packets, large)
        );
        assert_eq!((sum(|s| s.rx_packets), sum(|s| s.rx_gso)), (packets, large));
        assert_eq!(sum(|s| s.tx_cut + s.tx_filled + s.tx_gathered + s.rx_made_blank), 0);
        assert_eq!(sum(|s| s.copied_bytes), 0);
        let sum = |of: fn(&netback::Counters) -> u64| -> u64 {
            backs_after.iter().zip(&backs).map(|(after, before)| of(after) - of(before)).sum()
        };
        assert_eq!(sum(|s| s.cut + s.segments + s.sums_filled + s.gso_not_blank), 0);
        assert_eq!(sum(|s| s.from_drops.total() + s.to_drops.total()), 0);
        // The hypervisor copies each byte in, and out. Nobody else copies any.
        assert_eq!(sum(|s| s.copied_bytes), 0);
        let bytes = sum(|s| s.from_bytes);
        assert_eq!(sum(|s| s.hypervisor_copied_bytes), 2 * bytes);
        let calls = switch.domain.counts() - before;
        assert_eq!(calls.copy_bytes, 2 * bytes);
        switch.tear_down();
    }
}

#[test]
fn a_client_that_takes_less_costs_others_nothing() {
    let sg = Features::NONE.with_scatter_gather(true);
    let blank = sg.with_checksum_v4(true).with_checksum_v6(true);
    let poor = [
        Features::NONE,
        sg,
        blank,
        blank.with_gso_v4(true),
        blank.with_scatter_gather(false),
        Features::ALL.with_checksum_v6(false).with_gso_v6(false),
    ];
    for (nth, features) in poor.into_iter().enumerate() {
        let mut all = [Features::ALL; 4];
        all[2] = features;
        let mut switch = Switch::new(all, 1 + nth as u32 % 2);
        switch.introduce();
        let before = in_software(&switch);
        let sent = traffic(&mut switch, 40, nth as u64);
        // What must have been done for client 3: to its packets, and to those for it.
        let mut expected = before.clone();
        let takes = |flow: &Flow| if flow.v6 { features.checksum_v6 } else { features.checksum_v4 };
        for (flow, sent) in &sent {
            let column = match (flow.from, flow.to) {
                (3, _) => 0,
                (_, 3) => 2,
                _ => continue,
            };
            for packet in sent {
                if packet.size > 0 && !features.takes_gso(flow.gso_kind()) {
                    expected[2][column] += 1;
                } else if !takes(flow) {
                    expected[2][column + 1] += 1;
                }
            }
        }
        assert_ne!(expected, before);
        assert_eq!(in_software(&switch), expected, "{features:?}");
        for station in ALL {
            for (flow, arrived) in switch.received(station) {
                assert_arrived(flow, &sent[&flow], &arrived);
                // Between the others all is as it was sent.
                if flow.from != 3 && flow.to != 3 {
                    let metas: Vec<Meta> =
                        sent[&flow].iter().map(|sent| flow.meta(sent.size)).collect();
                    assert_eq!(arrived.iter().map(|(_, meta)| *meta).collect::<Vec<_>>(), metas);
                }
                if flow.to == 3 {
                    let kept = |(_, meta): &(Arrived, Meta)| {
                        (meta.checksum == Checksum::Blank) == takes(&flow)
                            && meta.gso.is_none_or(|gso| features.takes_gso(gso.kind))
                    };
                    assert!(arrived.iter().all(kept), "{flow:?}");
                }
            }
        }
        let drops = switch.vifs.iter().map(|vif| vif.counters().to_drops.total()).sum::<u64>();
        assert_eq!(drops, 0);
        switch.tear_down();
    }
}

/// A packet for nobody known goes to all, in the same frames: what is done for one of them, the
/// others do not see.
#[test]
fn what_is_flooded_is_filled_in_and_cut_for_those_alone_who_need_it() {
    let sg = Features::NONE.with_scatter_gather(true);
    let mut switch = Switch::new([Features::ALL, sg, Features::ALL, Features::NONE], 1);
    for v6 in [false, true] {
        for (len, size) in [(1000, 0), (20_000, 1400)] {
            // Station 9 is nowhere.
            let flow = Flow { to: 9, ..Flow::tcp(v6, 1) };
            let data: Vec<u8> = (0..len).map(|at| at as u8).collect();
            switch.send(flow, &flow.blank(0, &data), flow.meta(size));
            switch.settle();
            for station in [2, 3, 4] {
                let mut received = switch.received(station);
                let arrived = received.remove(&flow).unwrap();
                assert_arrived(flow, &[Sent { data: data.clone(), size }], &arrived);
                if station == 3 {
                    assert_eq!((arrived.len(), arrived[0].1), (1, flow.meta(size)));
                } else {
                    let metas = arrived.iter().map(|(_, meta)| *meta);
                    let complete = Meta { checksum: Checksum::Complete, gso: None };
                    assert!(metas.into_iter().all(|meta| meta == complete));
                }
            }
        }
    }
    let copied: Vec<u64> = switch.vifs.iter().map(|vif| vif.counters().copied_bytes).collect();
    assert_eq!((copied[0], copied[2]), (0, 0), "of first fragments that others read too");
    assert!(copied[1] > 0);
    assert_eq!(in_software(&switch).iter().map(|of| of[2]).collect::<Vec<_>>(), [0, 2, 0, 2]);
    assert_eq!(in_software(&switch).iter().map(|of| of[3]).collect::<Vec<_>>(), [0, 2, 0, 2]);
    switch.tear_down();
}
