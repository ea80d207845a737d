//! A client connects, detaches, comes back.

use super::*;

#[test]
fn a_client_connects_and_a_detach_leaves_nothing_behind() {
    for split in [false, true] {
        let mut bench = Bench::new(Config::default(), 64);
        let mut client = Client::new(&bench.host, &bench.vif, 0);
        assert_eq!(bench.netback.poll(64, |_| ()), 0);
        let features = Features { split, ..Features::default() };
        client.connect(&mut bench.netback, &features);
        assert_eq!(bench.toolstack.states(&bench.vif), (Some(4), Some(4)));
        let ports: Vec<_> = bench.netback.ports().collect();
        assert_eq!(ports.len(), if split { 2 } else { 1 });
        assert!(!split || ports[0] != ports[1]);
        assert_eq!(bench.back.mappings(), 2);
        assert_eq!(bench.netback.client_mac(), Some([0, 0x16, 0x3e, 0, 7, 0]));

        let sent = client.send(&[(0, 100, 60)]);
        assert_eq!(bench.poll(), [sent]);
        client.post(4);
        bench.netback.deliver(bench.plain(&pattern(1, 1514))).unwrap();
        bench.netback.flush();
        assert_eq!(client.receive()[0].as_ref().unwrap().bytes, pattern(1, 1514));

        bench.toolstack.begin_detach(&bench.vif);
        bench.netback.service();
        assert!(bench.netback.is_gone() && !bench.netback.is_connected());
        assert_eq!(bench.back.mappings(), 0);
        let store = bench.back.store();
        assert_eq!(store.get(&bench.vif.back_dir()), None);
        assert_eq!(store.watches(), 0);
        assert_eq!(bench.pool.free(), 64);
        assert_eq!(bench.host.violations(), []);
    }
}

#[test]
fn a_client_reconnects_with_nothing_left_of_before() {
    let (mut bench, mut client) = Bench::with_client(Config::default(), 64);
    for round in 0..20 {
        // Half of a conversation is under way each time.
        client.send(&[(0, 0, 60)]);
        bench.netback.deliver(bench.plain(&pattern(round, 200))).unwrap();
        client.set_state(5);
        bench.netback.service();
        client.set_state(6);
        bench.netback.service();
        assert!(!bench.netback.is_connected());
        assert_eq!(bench.back.mappings(), 0);
        assert_eq!(bench.pool.free(), 64);
        assert_eq!(
            outcome(bench.netback.deliver(bench.plain(&[0; 60]))),
            Err(Some(DeliverErrorKind::NotConnected))
        );
        client.set_state(1);
        client.reset_rings();
        // It may take a while until xenstore has been paid for.
        bench.host.advance(Duration::from_secs(1));
        client.connect(&mut bench.netback, &Features::default());
    }
    let sent = client.send(&[(3, 7, 900)]);
    assert_eq!(bench.poll(), [sent]);
    let counters = bench.netback.counters();
    assert_eq!((counters.connects, counters.faults, counters.maps), (21, 0, 42));
    assert_eq!(counters.to_drops.disconnected, 20);
}

/// The toolstack's MTU, if it is one: the frontend takes the same for it.
#[test]
fn an_mtu_that_makes_no_sense_is_none() {
    let cases = [
        ("67", 1500),
        ("68", 68),
        ("69", 69),
        ("0", 1500),
        ("9000", 9000),
        ("65521", 65521),
        ("65522", 1500),
        ("65535", 1500),
        ("65536", 1500),
        ("65604", 1500),
        ("-1", 1500),
        ("", 1500),
        (" 1400\n", 1400),
    ];
    for (said, read) in cases {
        let mut bench = Bench::new(Config::default(), 64);
        assert_eq!(bench.netback.mtu(), 1500, "nobody has said anything");
        bench.toolstack.store().set(&format!("{}/mtu", bench.vif.back_dir()), said);
        let mut client = Client::new(&bench.host, &bench.vif, 0);
        client.connect(&mut bench.netback, &Features::default());
        assert_eq!(bench.netback.mtu(), read, "{said:?}");
    }
}
