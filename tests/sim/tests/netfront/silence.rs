//! Rings that stand still, or lie.

use super::*;

#[test]
fn f1_an_impossible_index_on_either_ring_breaks_the_device_until_reconnected() {
    use xen_ring::RingPage;
    for start in [0, u32::MAX - 5] {
        for (ring, by) in [("rx", 257_u32), ("rx", u32::MAX), ("tx", 1), ("tx", 0x8000_0000)] {
            let mut bench =
                Bench::with(Config { ring_start: start, ..Config::default() }, &[], &[]);
            let Rings { tx, rx } = bench.take_rings();
            let (page, other) = if ring == "rx" {
                (rx.into_page(), tx.into_page())
            } else {
                (tx.into_page(), rx.into_page())
            };
            drop(other);
            page.store(2, page.load(2).wrapping_add(by));
            assert_eq!(bench.received(), Vec::<Vec<u8>>::new());
            bench.front.complete_tx();
            assert!(bench.front.rearm(), "service has something to see to");
            assert_recovers(&mut bench, 1);
            drop(page);
            bench.assert_no_leak();
        }
    }
}

#[test]
fn f13_a_silent_backend_is_counted_and_the_device_reconnects_while_receiving_goes_on() {
    let mut bench = Bench::new();
    assert!(bench.send(&[&pattern(1, 60)]));
    bench.pass(SECOND * 9);
    assert_eq!((bench.front.stats().stalls, bench.front.link()), (0, Link::Up));
    bench.assert_receives();
    bench.pass(Duration::from_millis(1100));
    assert_eq!(bench.front.stats().stalls, 1);
    assert_eq!(bench.front_state(), Some(5), "it asks the backend to start over");
    bench.assert_receives();
    bench.connect();
    bench.assert_receives();
    let stats = bench.front.stats();
    assert_eq!(
        (stats.connects, stats.stalls, stats.faults, stats.tx_drops.disconnected),
        (2, 1, 0, 1)
    );
    bench.assert_sound();
    bench.assert_no_leak();
}

#[test]
fn f13_a_backend_that_answers_is_not_silent() {
    let mut bench = Bench::new();
    for n in 0..30 {
        assert!(bench.send(&[&pattern(n, 60)]));
        bench.pass(SECOND);
        let requests = bench.tx_requests();
        bench.answer_tx(requests[0].id, 0);
        bench.front.complete_tx();
    }
    bench.pass(SECOND * 60);
    assert_eq!((bench.front.stats().stalls, bench.front.stats().connects), (0, 1));
}
