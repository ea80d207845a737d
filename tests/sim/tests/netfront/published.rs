//! What the frontend publishes: what it is configured to, and nothing of an earlier connection.

use std::collections::{BTreeMap, BTreeSet};

use packet_views::features::Features;
use xen_netfront::store::Store;

use super::*;
use xen_netfront::xenbus::feature_nodes;

/// What the toolstack has written, and the state.
const NOT_OURS: [&str; 7] = ["backend", "backend-id", "handle", "mac", "trusted", "mtu", "state"];

/// All nodes that the frontend has published.
fn published(bench: &Bench) -> BTreeMap<String, String> {
    let store = bench.toolstack.store();
    let list = |path: &str| {
        let names = Store::list(store, None, path).unwrap();
        names.into_iter().filter(|name| !name.is_empty()).collect::<Vec<_>>()
    };
    let top = list(&bench.vif.front_dir()).into_iter();
    let mut nodes = BTreeMap::new();
    for name in top.filter(|name| !NOT_OURS.contains(&name.as_str())) {
        let path = format!("{}/{name}", bench.vif.front_dir());
        let below = list(&path);
        for inner in &below {
            nodes.insert(format!("{name}/{inner}"), store.get(&format!("{path}/{inner}")).unwrap());
        }
        if below.is_empty() {
            nodes.insert(name, store.get(&path).unwrap());
        }
    }
    nodes
}

/// Sees that these are the nodes of a frontend that takes `features`, with so many queues.
#[track_caller]
fn assert_published(bench: &Bench, features: Features, queues: usize, split: bool) {
    let on = |yes: bool| if yes { "1" } else { "0" }.to_owned();
    let mut nodes = published(bench);
    let mut expect = |name: &str, value: String| {
        assert_eq!(nodes.remove(name), Some(value), "{name}");
    };
    expect("request-rx-copy", on(true));
    expect("feature-rx-notify", on(true));
    expect("feature-sg", on(features.scatter_gather));
    expect("feature-no-csum-offload", on(!features.checksum_v4));
    expect("feature-ipv6-csum-offload", on(features.checksum_v6));
    expect("feature-gso-tcpv4", on(features.gso_v4));
    expect("feature-gso-tcpv6", on(features.gso_v6));
    if queues > 1 {
        expect("multi-queue-num-queues", queues.to_string());
    }
    let channels: &[&str] =
        if split { &["event-channel-tx", "event-channel-rx"] } else { &["event-channel"] };
    let (mut rings, mut ports) = (BTreeSet::new(), BTreeSet::new());
    for queue in 0..queues {
        let dir = if queues > 1 { format!("queue-{queue}/") } else { String::new() };
        let mut number = |name: &str| -> u32 {
            let value = nodes.remove(&format!("{dir}{name}"));
            value.unwrap_or_else(|| panic!("{dir}{name} is missing")).parse().unwrap()
        };
        for ring in ["tx-ring-ref", "rx-ring-ref"] {
            let gref = number(ring);
            let entry = bench.domain.grants().into_iter().find(|(number, _)| *number == gref);
            assert!(entry.is_some_and(|(_, entry)| entry.permits(BACK)), "{dir}{ring}");
            assert!(rings.insert(gref), "{dir}{ring}: a page of its own");
        }
        for channel in channels {
            assert!(ports.insert(number(channel)), "{dir}{channel}: a port of its own");
        }
    }
    assert_eq!(nodes, BTreeMap::new(), "what nobody asked for");
    assert_eq!(bench.front.queue_count(), queues);
    let ours: BTreeSet<u32> = bench.front.ports().map(|port| port.get()).collect();
    assert_eq!(ours, ports);
}

/// A backend that can have so many queues, and split channels.
fn able(queues: &'static str, split: &'static str) -> [(&'static str, &'static str); 2] {
    [("multi-queue-max-queues", queues), ("feature-split-event-channels", split)]
}

#[test]
fn queues_and_channels_are_published_as_configured_and_as_the_backend_can() {
    for queues in 0..=4 {
        for (most, offered) in [("1", 1), ("2", 2), ("3", 3), ("4", 4), ("100", 8), ("0", 1)] {
            for (split, can_split) in [(false, "1"), (true, "1"), (true, "0")] {
                let config = Config::default().with_queues(queues).with_split_event_channels(split);
                let bench = Bench::with(config, &[], &able(most, can_split));
                let expected = (queues.max(1) as usize).min(offered);
                assert_published(&bench, Features::ALL, expected, split && can_split == "1");
                bench.assert_no_leak();
            }
        }
    }
}

#[test]
fn features_are_published_whatever_the_backend_has() {
    for bits in 0..32 {
        let bit = |nth: u32| bits >> nth & 1 == 1;
        let features = Features::NONE
            .with_scatter_gather(bit(0))
            .with_checksum_v4(bit(1))
            .with_checksum_v6(bit(2))
            .with_gso_v4(bit(3))
            .with_gso_v6(bit(4));
        for backend in [Features::ALL, Features::NONE] {
            let config = Config::default().with_features(features);
            let bench = Bench::with(config, &[], &feature_nodes(&backend));
            // Large packets take several slots and a blank checksum: without these it can't have
            // them.
            assert_published(&bench, features.coherent(), 1, false);
            assert_eq!(bench.front.features(), features.and(backend).coherent());
        }
    }
}

/// The nodes of frontends with other queues, channels and features.
#[test]
fn stale_nodes_of_other_settings_are_removed() {
    let stale = [
        "tx-ring-ref",
        "rx-ring-ref",
        "event-channel",
        "event-channel-tx",
        "event-channel-rx",
        "multi-queue-num-queues",
        "queue-0/tx-ring-ref",
        "queue-0/event-channel-rx",
        "queue-3/tx-ring-ref",
        "queue-3/event-channel",
        "feature-gso-tcpv4-prefix",
        "feature-gso-tcpv6",
        "feature-sg",
        "request-multicast-control",
        "xdp-headroom",
    ];
    let old: Vec<(&str, &str)> = stale.iter().map(|name| (*name, "9")).collect();
    for (queues, split) in [(1, false), (1, true), (2, false), (4, true)] {
        let config = Config::default().with_queues(queues).with_split_event_channels(split);
        let bench = Bench::with(config, &old, &able("8", "1"));
        assert_published(&bench, Features::ALL, queues as usize, split);
    }
}

/// The backend comes back with other queues and features each time.
#[test]
fn each_connection_is_what_the_backend_can_have_now() {
    let config = Config::default().with_queues(4).with_split_event_channels(true);
    let mut bench = Bench::with(config, &[], &able("4", "1"));
    let quota = bench.table.usage().claimed;
    for (round, (most, split)) in
        [(1, "0"), (3, "1"), (2, "0"), (4, "1"), (1, "1"), (4, "0")].into_iter().enumerate()
    {
        let features = Features::ALL.with_scatter_gather(round % 2 == 0).coherent();
        bench.queues.clear();
        bench.set_state(6);
        bench.pass(SECOND);
        let text = most.to_string();
        let queues = [("multi-queue-max-queues", &*text), ("feature-split-event-channels", split)];
        for (key, value) in queues.into_iter().chain(feature_nodes(&features)) {
            bench.toolstack.store().set(&format!("{}/{key}", bench.vif.back_dir()), value);
        }
        bench.connect();
        assert_published(&bench, Features::ALL, most, split == "1");
        assert_eq!(bench.front.features(), features);
        assert_eq!(bench.queues.len(), most);
        assert_eq!(bench.table.usage().claimed, quota, "what it claimed when it was opened");
        for queue in 0..most {
            bench.queue = queue;
            bench.assert_receives();
        }
        bench.assert_sound();
    }
    bench.assert_no_leak();
}
