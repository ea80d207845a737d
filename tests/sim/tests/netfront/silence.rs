//! Rings that stand still, or lie.

use super::*;

#[test]
fn f1_an_impossible_index_on_either_ring_breaks_the_device_until_reconnected() {
    use xen_ring::RingPage;
    for start in [0, u32::MAX - 5] {
        for (ring, by) in [("rx", 257_u32), ("rx", u32::MAX), ("tx", 1), ("tx", 0x8000_0000)] {
            let mut bench = Bench::with(Config::default().with_ring_start(start), &[], &[]);
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
    assert_eq!((bench.front.counters().stalls, bench.front.link()), (0, Link::Up));
    bench.assert_receives();
    bench.pass(Duration::from_millis(1100));
    assert_eq!(bench.front.counters().stalls, 1);
    assert_eq!(bench.front_state(), Some(5), "it asks the backend to start over");
    bench.assert_receives();
    bench.connect();
    bench.assert_receives();
    let counters = bench.front.counters();
    assert_eq!(
        (counters.connects, counters.stalls, counters.faults, counters.tx_drops.disconnected),
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
    assert_eq!((bench.front.counters().stalls, bench.front.counters().connects), (0, 1));
}

/// A backend whose `rate` lets one large packet through in a minute is slow, not silent.
#[test]
fn f13_a_backend_with_a_rate_has_the_time_that_it_takes() {
    let flow = super::packets::Flow::tcp(false, 1);
    // rate=1KB/s, as libxl writes it.
    let back = [("rate", "51,50000"), ("feature-gso-tcpv4", "1")];
    let mut bench = Bench::with(Config::default(), &[], &back);
    for n in 0..3 {
        assert!(bench.send_whole(&flow.blank(0, &pattern(n, 60_000)), flow.meta(1448)));
    }
    let sent = bench.sent();
    for packet in &sent {
        bench.pass(SECOND * 64);
        assert_eq!((bench.front.counters().stalls, bench.front.link()), (0, Link::Up));
        bench.answer_sent(packet, 0);
        bench.front.complete_tx();
    }
    assert!(bench.send(&[&pattern(1, 60)]));
    bench.pass(SECOND * 200);
    assert_eq!(bench.front.counters().stalls, 1, "in the end it is silent all the same");
}

/// One that answers every 25 s without having said so is reconnected until that is known of it.
#[test]
fn f13_a_slow_backend_is_not_reconnected_again_and_again() {
    let mut bench = Bench::new();
    let (mut waiting, mut answered) = (Vec::new(), 0);
    for second in 0..500 {
        if bench.front.link() == Link::Down {
            waiting.clear();
            bench.connect();
        }
        while waiting.len() < 20 && bench.send(&[&pattern(1, 60)]) {
            waiting.extend(bench.tx_requests());
        }
        if second % 25 == 24 {
            bench.answer_tx(waiting.remove(0).id, 0);
            bench.front.complete_tx();
            answered += 1;
        }
        bench.pass(SECOND);
    }
    let stalls = bench.front.counters().stalls;
    assert!((1..=2).contains(&stalls) && answered >= 15, "{stalls} reconnects, {answered} answers");
}

/// The driver is looked after only when it asks for it, as its documentation has it: an idle hour is
/// nobody's silence.
#[test]
fn f13_what_has_just_been_sent_has_not_waited() {
    let mut bench = Bench::new();
    for _ in 0..3 {
        assert_eq!(bench.front.next_deadline(), None, "there is nothing to do");
        bench.host.advance(SECOND * 3600);
        assert!(bench.send(&[&pattern(1, 60)]));
        let deadline = bench.front.next_deadline().unwrap();
        assert_eq!(deadline.since(bench.host.now()), SECOND * 10);
        bench.front.service();
        assert_eq!((bench.front.counters().stalls, bench.front.link()), (0, Link::Up));
        for request in bench.tx_requests() {
            bench.answer_tx(request.id, 0);
        }
        bench.front.complete_tx();
    }
    // Nor is it taken for the backend's pace.
    bench.host.advance(SECOND * 3600);
    assert!(bench.send(&[&pattern(1, 60)]));
    bench.pass(SECOND * 11);
    assert_eq!(bench.front.counters().stalls, 1);
}
