//! What nobody asked for, from either side: extras of kinds that are not in use or not known, and
//! control rings. It is refused, the device goes on or comes back, and nothing leaks.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod packets;
mod raw_backend;
mod raw_client;

use packet_views::device::NetDevice;
use std::num::NonZeroU16;
use std::time::Duration;

use packet_views::buffer::{Gso, GsoKind};
use packet_views::device::Link;
use packet_views::features::Features;
use packets::Flow;
use proptest::prelude::*;
use raw_client::{Client, Page, pattern};
use xen_grant::PAGE_SIZE;
use xen_netfront::buffer::{Packet, PacketMut};
use xen_netfront::platform::Platform;
use xen_netfront::wire::control::{Ctrl, CtrlRequest, CtrlRing, GrefList, HashAlgorithm, HashType};
use xen_netfront::wire::{Extra, Hash, Multicast, RxResponse, rx_flags, tx_flags};
use xen_netfront::{netback, netfront};
use xen_ring::{FrontRing, Notify};
use xen_sim::OwnPage;

const GROUP: [u8; 6] = [1, 0, 0x5e, 0, 0, 0xfb];

/// Keys of features that are known and not used: backends offer those, frontends ask with these.
const OFFERS: [&str; 4] = [
    "feature-ctrl-ring",
    "feature-multicast-control",
    "feature-dynamic-multicast-control",
    "feature-xdp-headroom",
];
const WISHES: [&str; 4] =
    ["ctrl-ring-ref", "event-channel-ctrl", "request-multicast-control", "xdp-headroom"];

fn gso() -> Extra {
    let size = NonZeroU16::new(1448).unwrap();
    Extra::from_gso(Gso { size, kind: GsoKind::TcpV4 })
}

fn hash() -> Extra {
    let (kind, algorithm) = (HashType::Ipv4Tcp, HashAlgorithm::Toeplitz);
    Extra::from_hash(Hash { kind, algorithm, value: 0x1234_5678 })
}

/// One of each kind that is not in use, and of some that do not exist.
fn unasked() -> Vec<Extra> {
    let add = Extra::from_multicast(Multicast::Add(GROUP));
    let del = Extra::from_multicast(Multicast::Del(GROUP));
    let unknown = [0, 6, 77, 255].map(|kind| Extra { kind, flags: 0, data: [1; 6] });
    [&[add, del, hash(), Extra::from_xdp_headroom(256)], &unknown[..]].concat()
}

/// The extra alone, and with GSO before, behind, and on both sides.
fn company(extra: Extra) -> [Vec<Extra>; 4] {
    [vec![extra], vec![gso(), extra], vec![extra, gso()], vec![gso(), extra, gso()]].map(linked)
}

/// The same extras, each saying whether another one follows.
fn linked(mut extras: Vec<Extra>) -> Vec<Extra> {
    let last = extras.len() - 1;
    for (nth, extra) in extras.iter_mut().enumerate() {
        extra.flags = if nth < last { Extra::MORE } else { 0 };
    }
    extras
}

/// A list of extras: any kind, the known ones often, and data that often makes sense.
fn any_extras() -> impl Strategy<Value = Vec<Extra>> {
    let known = prop_oneof![Just(gso()), Just(hash()), proptest::sample::select(unasked())];
    let wild = (0..7_u8, any::<[u8; 6]>()).prop_map(|(kind, data)| Extra { kind, flags: 0, data });
    let extra = prop_oneof![4 => known, 1 => wild];
    proptest::collection::vec(extra, 1..6).prop_map(linked)
}

// -- from a client -------------------------------------------------------------------------------

/// What becomes of a client's packet with extras.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// With this GSO.
    Arrives(Option<Gso>),
    /// Its request is answered with an error.
    Refused,
    /// And so is the vif.
    Shut,
}

fn fate(extras: &[Extra], gso_offered: bool) -> Fate {
    let senseless = |extra: &Extra| match extra.kind {
        Extra::GSO => extra.gso().is_none(),
        kind => ![Extra::MCAST_ADD, Extra::MCAST_DEL, Extra::HASH].contains(&kind),
    };
    let multicast = |extra: &Extra| [Extra::MCAST_ADD, Extra::MCAST_DEL].contains(&extra.kind);
    let gso = extras.iter().filter_map(Extra::gso).next_back();
    match gso {
        _ if extras.iter().any(senseless) => Fate::Shut,
        _ if extras.iter().any(multicast) => Fate::Refused,
        Some(_) if !gso_offered => Fate::Refused,
        // The packet is another.
        Some(Gso { kind: GsoKind::TcpV6, .. }) => Fate::Refused,
        gso => Fate::Arrives(gso),
    }
}

/// Takes the vif away: pages, frames, channels and directory are gone.
fn assert_detaches(mut bench: raw_client::Bench) {
    bench.toolstack.begin_detach(&bench.vif);
    bench.netback.service();
    assert!(bench.netback.is_gone());
    assert_eq!((bench.back.mappings(), bench.back.open_ports()), (0, vec![]));
    assert_eq!(bench.pool.free(), bench.pool.size());
    assert_eq!(bench.host.violations(), []);
}

/// Plays a packet with these extras to a fresh netback, which has to do what `expected` says; after
/// it the next packet arrives.
fn play_to_netback(extras: &[Extra], gso_offered: bool, expected: Fate) {
    let offered = Features::NONE.with_scatter_gather(true);
    let features = if gso_offered { Features::ALL } else { offered };
    let config = netback::Config::default().with_features(features);
    let (mut bench, mut client) = raw_client::Bench::with_client(config, 64);

    let blank = tx_flags::CSUM_BLANK | tx_flags::DATA_VALIDATED;
    let place = client.lay(0, &Flow::tcp(false, 1).blank(0, &[5; 3900]));
    let sent = client.chain(&place, blank, extras);
    client.show();
    let got: Vec<PacketMut> = bench.poll_packets();
    let faults = match expected {
        Fate::Arrives(gso) => {
            let got: Vec<_> = got.iter().map(|p| (raw_client::bytes(p), p.meta.gso)).collect();
            assert_eq!(got, [(sent, gso)], "{extras:?}");
            0
        }
        Fate::Refused | Fate::Shut => {
            assert!(got.is_empty(), "{extras:?}");
            u64::from(expected == Fate::Shut)
        }
    };
    assert_eq!(bench.netback.is_connected(), faults == 0, "{extras:?}");
    if faults == 0 {
        // NULL for each extra's slot, whatever becomes of the packet.
        let refused = u64::from(expected == Fate::Refused);
        let mut statuses = vec![1; 1 + extras.len()];
        statuses[0] = -(refused as i16);
        assert_eq!(client.statuses(), statuses, "{extras:?}");
        assert_eq!(bench.netback.counters().from_drops.total(), refused);
    } else {
        bench.netback.service();
        assert_eq!(bench.back.mappings(), 0);
        client.set_state(6);
        bench.netback.service();
        bench.host.advance(Duration::from_secs(1));
        client.set_state(1);
        client.reset_rings();
        client.connect(&mut bench.netback, &raw_client::Features::default());
    }
    drop(got);
    assert_eq!(bench.pool.free(), bench.pool.size());
    assert_eq!((bench.netback.counters().faults, bench.back.mappings()), (faults, 2));
    let sent = client.send(&[(1, 0, 900)]);
    assert_eq!(bench.poll(), [sent], "{extras:?}");
    assert_detaches(bench);
}

#[test]
fn extras_that_a_client_was_not_offered_are_refused() {
    for extra in unasked() {
        for gso_offered in [false, true] {
            for extras in company(extra) {
                let with_gso = extras.iter().find_map(Extra::gso);
                let expected = match (extra.kind, with_gso) {
                    (Extra::MCAST_ADD | Extra::MCAST_DEL, _) => Fate::Refused,
                    // A hint that is not taken.
                    (Extra::HASH, Some(_)) if !gso_offered => Fate::Refused,
                    (Extra::HASH, gso) => Fate::Arrives(gso),
                    _ => Fate::Shut,
                };
                assert_eq!(fate(&extras, gso_offered), expected);
                play_to_netback(&extras, gso_offered, expected);
            }
        }
    }
}

// -- from a backend ------------------------------------------------------------------------------

fn frontend(features: Features) -> raw_backend::Bench {
    let config = netfront::Config::default().with_features(features);
    raw_backend::Bench::with(config, &[], &[])
}

/// Delivers a packet with these extras, of one slot or of two: it is dropped, and the next one
/// arrives.
fn play_to_netfront(bench: &mut raw_backend::Bench, extras: &[Extra], slots: usize) {
    let before = bench.front.counters().rx_drops;
    for nth in 0..slots {
        let request = bench.rx_request();
        bench.fill(&request, 0, &pattern(nth as u64, 1000));
        let mut flags = if nth + 1 < slots { rx_flags::MORE_DATA } else { 0 };
        if nth == 0 {
            flags |= rx_flags::EXTRA_INFO | rx_flags::CSUM_BLANK | rx_flags::DATA_VALIDATED;
        }
        bench.answer(RxResponse { id: request.id, offset: 0, flags, status: 1000 });
        for extra in extras.iter().filter(|_| nth == 0) {
            // It takes the slot of a posted page.
            bench.rx_request();
            bench.answer(*extra);
        }
    }
    bench.publish_rx();
    bench.front.receive(10, |packet: Packet| panic!("{:?} with {extras:?}", packet.meta));
    let drops = bench.front.counters().rx_drops;
    assert_eq!(drops.bad_extra - before.bad_extra, 1, "{extras:?}: {drops:?}");
    assert_eq!(drops.total() - before.total(), 1, "{extras:?}: {drops:?}");
    bench.assert_receives();
    bench.assert_sound();
}

/// The device has gone on, every slot of the ring is in use, and nothing is lost.
fn assert_unharmed(mut bench: raw_backend::Bench) {
    let counters = bench.front.counters();
    assert_eq!((counters.faults, counters.connects, bench.front.link()), (0, 1, Link::Up));
    for _ in 0..600 {
        bench.assert_receives();
    }
    bench.assert_no_leak();
}

#[test]
fn extras_that_a_frontend_did_not_ask_for_cost_their_packet() {
    for features in [Features::NONE, Features::ALL] {
        let mut bench = frontend(features);
        for extra in unasked() {
            for extras in company(extra) {
                play_to_netfront(&mut bench, &extras, 1);
                play_to_netfront(&mut bench, &extras, 2);
            }
        }
        assert_unharmed(bench);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn any_extras_from_a_client_have_the_fate_that_the_rules_say(
        extras in any_extras(),
        gso_offered: bool,
    ) {
        play_to_netback(&extras, gso_offered, fate(&extras, gso_offered));
    }

    #[test]
    fn any_extras_from_a_backend_cost_their_packet(
        packets in proptest::collection::vec((any_extras(), 1..3_usize), 1..10),
        all: bool,
    ) {
        let mut bench = frontend(if all { Features::ALL } else { Features::NONE });
        for (extras, slots) in packets {
            // All but a single good GSO are more than anybody asks for.
            if extras.len() > 1 || extras[0].gso().is_none() {
                play_to_netfront(&mut bench, &extras, slots);
            }
        }
        assert_unharmed(bench);
    }
}

// -- control rings -------------------------------------------------------------------------------

#[test]
fn a_backend_offers_no_control_ring_no_filter_and_no_headroom() {
    let config = netback::Config::default().with_features(Features::ALL);
    let (bench, client) = raw_client::Bench::with_client(config, 64);
    let store = client.domain.store();
    let key = |key: &str| store.get(&format!("{}/{key}", bench.vif.back_dir()));
    assert_eq!(key("feature-gso-tcpv4").as_deref(), Some("1"), "the directory can be read");
    assert_eq!(OFFERS.map(key), OFFERS.map(|_| None));
}

/// All bytes of a page.
fn bytes_of(page: &OwnPage) -> Vec<u8> {
    let mut bytes = vec![0; PAGE_SIZE];
    page.read(0, &mut bytes);
    bytes
}

/// A client that shows a control ring all the same is connected without it: nobody maps the page,
/// binds its channel, or answers what is on it.
#[test]
fn a_control_ring_that_nobody_asked_for_is_left_alone() {
    let mut bench = raw_client::Bench::new(netback::Config::default(), 64);
    let mut client = Client::new(&bench.host, &bench.vif, 0);
    let (page, gref) = client.targets.pop().unwrap();
    let page = std::sync::Arc::new(page);
    let mut control = FrontRing::<CtrlRing, _>::new(Page(page.clone()));
    let port = client.domain.alloc_unbound(raw_client::BACK).unwrap();

    let (gref, port_number, tx_ring) =
        (gref.to_string(), port.get().to_string(), client.refs.0.to_string());
    let wishes = [
        [&*gref, &*port_number, "1", "256"],
        // One page for two rings, a channel that is not there.
        [&*tx_ring, "4000000000", "1", "40000"],
        ["4000000000", "0", "-1", "\u{1F480}"],
        ["", "", "", ""],
    ];
    for (round, values) in wishes.into_iter().enumerate() {
        for (key, value) in WISHES.into_iter().zip(values) {
            client.domain.store().set(&format!("{}/{key}", bench.vif.front_dir()), value);
        }
        client.connect(&mut bench.netback, &raw_client::Features::default());
        for ctrl in [
            Ctrl::SetHashAlgorithm(HashAlgorithm::Toeplitz),
            Ctrl::SetHashKey { gref: client.sources[0].1, len: 40 },
            Ctrl::AddGrefMapping(GrefList { queue: 0, gref: client.sources[0].1, len: 512 }),
        ] {
            control.push(CtrlRequest::new(1, ctrl)).unwrap();
        }
        // A new ring wants to hear of its first request; nobody ever says so again.
        assert_eq!(control.publish() == Notify::Needed, round == 0);
        client.domain.notify(port);
        let shown = bytes_of(&page);

        let sent = client.send(&[(0, 0, 900)]);
        assert_eq!(bench.poll(), [sent]);
        bench.netback.rearm();
        assert_eq!(client.statuses(), [0]);
        assert!(bytes_of(&page) == shown && control.refresh() == Ok(0), "nobody answers");
        assert_eq!(bench.back.mappings(), 2, "two rings and no more");
        let ports: Vec<_> = bench.netback.ports().collect();
        assert_eq!((ports.len(), bench.back.open_ports()), (1, ports));
        assert_eq!(bench.netback.counters().maps, 2 * (round as u64 + 1));

        client.set_state(6);
        bench.netback.service();
        assert_eq!(bench.back.mappings(), 0);
        bench.host.advance(Duration::from_secs(1));
        client.set_state(1);
        client.reset_rings();
    }
    assert_eq!(bench.netback.counters().faults, 0);
    assert_detaches(bench);
}

/// Our frontend asks for none of it, whatever it is offered, and takes back what somebody before it
/// asked for.
#[test]
fn a_frontend_asks_for_none_of_it_and_removes_earlier_wishes() {
    let offers = OFFERS.map(|key| (key, "1"));
    let mut bench = raw_backend::Bench::with(
        netfront::Config::default().with_features(Features::ALL),
        &WISHES.map(|key| (key, "9")),
        &offers,
    );
    for _ in 0..2 {
        assert_eq!(WISHES.map(|key| bench.front_key(key)), WISHES.map(|_| None));
        bench.assert_receives();
        bench.assert_sound();
        // Once more from the start, with nodes that turned up meanwhile.
        let store = bench.toolstack.store();
        for key in WISHES {
            store.set(&format!("{}/{key}", bench.vif.front_dir()), "9");
        }
        bench.queues.clear();
        bench.set_state(6);
        bench.pass(Duration::from_secs(1));
        bench.connect();
    }
    assert_eq!(bench.front.counters().connects, 3);
    bench.assert_no_leak();
}
