//! Pages that the backend does not let go of.

use super::*;

#[test]
fn f6_pages_that_the_backend_keeps_go_to_quarantine_and_come_back() {
    let mut bench = Bench::new();
    assert!(bench.send(&[&pattern(1, 60)]));
    let request = bench.tx_requests()[0];
    let kept = bench.back.map_page(FRONT, request.gref, false).unwrap();
    bench.answer_tx(request.id, 0);
    assert_eq!(bench.front.complete_tx(), 1);
    assert_eq!((bench.front.quarantined(), bench.front.counters().quarantined), (1, 1));
    bench.assert_sound();
    // The device goes on; neither page nor reference is used again.
    for n in 0..600 {
        assert!(bench.send(&[&pattern(n, 60)]));
        let next = bench.tx_requests()[0];
        assert_ne!(next.gref, request.gref);
        bench.answer_tx(next.id, 0);
        bench.front.complete_tx();
    }
    bench.pass(SECOND * 3);
    assert_eq!(bench.front.quarantined(), 1);
    drop(kept);
    bench.pass(SECOND * 2);
    assert_eq!(bench.front.quarantined(), 0);
    bench.assert_sound();
    bench.assert_no_leak();
}

#[test]
fn f6_with_more_than_a_quarter_in_quarantine_the_device_stays_down() {
    let mut bench = Bench::new();
    let pages = |bench: &Bench| -> Vec<_> {
        let grants = bench.domain.grants().into_iter().filter(|(_, entry)| entry.permits(BACK));
        grants.take(200).map(|(gref, _)| bench.back.map_page(FRONT, gref, true).unwrap()).collect()
    };
    let kept = pages(&bench);
    bench.queues.clear();
    bench.set_state(6);
    bench.pass(SECOND);
    bench.set_state(2);
    bench.pass(SECOND * 3);
    assert!(bench.front.quarantined() > 514 / 4, "{}", bench.front.quarantined());
    assert_eq!(
        (bench.front.link(), bench.front.ports().count()),
        (Link::Down, 0),
        "it makes no rings"
    );
    bench.assert_sound();
    drop(kept);
    bench.pass(SECOND * 2);
    assert_eq!(bench.front.quarantined(), 0);
    bench.connect();
    bench.assert_receives();
    bench.assert_no_leak();
}

#[test]
fn f6_a_receive_slot_that_lost_its_reference_takes_another() {
    let mut bench = Bench::new();
    let lost = bench.rx_request();
    let kept = bench.back.map_page(FRONT, lost.gref, true).unwrap();
    bench.answer(RxResponse { id: lost.id, offset: 0, flags: 0, status: 100 });
    bench.publish_rx();
    assert!(bench.received().is_empty());
    // Several rounds of the ring, with a page and a reference less.
    for n in 0..1000 {
        let posted = bench.rings().rx.refresh().unwrap();
        assert!((224..=255).contains(&posted), "{posted} pages are posted");
        let request = bench.rx_request();
        assert_ne!(request.gref, lost.gref);
        let packet = pattern(n, 100);
        bench.fill(&request, 0, &packet);
        bench.answer(RxResponse { id: request.id, offset: 0, flags: 0, status: 100 });
        bench.publish_rx();
        assert_eq!(bench.received(), [packet]);
    }
    assert_eq!(bench.front.counters().no_frame, 0);
    bench.assert_sound();
    drop(kept);
    bench.pass(SECOND * 2);
    assert_eq!(bench.front.quarantined(), 0);
    bench.assert_sound();
    bench.assert_no_leak();
}

/// A backend answers what is sent while it still uses each page, then behaves for ever after.
#[test]
fn f6_what_comes_out_of_quarantine_goes_back_to_sending() {
    for most in [100, 300] {
        let mut bench = Bench::new();
        let mut held = Vec::new();
        for _ in 0..most {
            if !bench.send(&[&pattern(1, 60)]) {
                break;
            }
            for request in bench.tx_requests() {
                held.push(bench.back.map_page(FRONT, request.gref, false).unwrap());
                bench.answer_tx(request.id, 0);
            }
            bench.front.complete_tx();
            bench.front.service();
        }
        assert!(held.len() >= 100);
        let connects = bench.front.counters().connects;
        let lost = most > 200;
        let seen = (bench.front.link(), bench.front.counters().crippled);
        assert_eq!(seen, if lost { (Link::Down, 1) } else { (Link::Up, 0) }, "{}", held.len());
        bench.assert_sound();
        drop(held);
        if lost {
            bench.queues.clear();
        }
        bench.pass(SECOND * 3);
        assert_eq!(bench.front.quarantined(), 0);
        if lost {
            bench.connect();
        }
        assert_eq!(bench.front.counters().connects, connects + u64::from(lost));
        assert_eq!(bench.front.room(), 256, "every id is to be had again");
        for n in 0..256 {
            assert!(bench.send(&[&pattern(n, 60)]), "{n} sent");
        }
        bench.assert_sound();
        bench.assert_no_leak();
    }
}

/// The same on the receive ring.
#[test]
fn f6_what_comes_out_of_quarantine_goes_back_to_receiving() {
    for most in [100, 256] {
        let mut bench = Bench::new();
        let mut held = Vec::new();
        for _ in 0..most {
            bench.rings().rx.refresh().unwrap();
            let Some((_, request)) = bench.rings().rx.pop() else { break };
            held.push(bench.back.map_page(FRONT, request.gref, true).unwrap());
            bench.answer(RxResponse { id: request.id, offset: 0, flags: 0, status: 60 });
            bench.publish_rx();
            bench.received();
            bench.front.service();
            if bench.front.link() == Link::Down {
                break;
            }
        }
        let lost = most > 200;
        let seen = (bench.front.link(), bench.front.counters().crippled);
        assert_eq!(seen, if lost { (Link::Down, 1) } else { (Link::Up, 0) }, "{}", held.len());
        bench.assert_sound();
        drop(held);
        if lost {
            bench.queues.clear();
        }
        bench.pass(SECOND * 3);
        assert_eq!(bench.front.quarantined(), 0);
        if lost {
            bench.connect();
        }
        bench.front.service();
        let posted = bench.rings().rx.refresh().unwrap();
        assert!((224..=256).contains(&posted), "{posted} pages are posted");
        for _ in 0..600 {
            bench.assert_receives();
        }
        bench.assert_sound();
        bench.assert_no_leak();
    }
}

/// With a pool that is just large enough, pages that a backend keeps are missing on its own vif only,
/// and too many take it down rather than to leave it half alive.
#[test]
fn f6_a_backend_that_keeps_pages_takes_none_of_another_devices() {
    let host = Host::new(1);
    let vif = Vif::new(FRONT, BACK, 0).back_key("feature-sg", "1").back_key("feature-rx-copy", "1");
    let config = Config::default();
    let mut bench = Bench::on(host.clone(), vif, config, 2 * config.least_pages());
    let mut keeper = bench.beside(1, DomId(3), config);
    bench.connect();
    keeper.connect();
    let mut held = Vec::new();
    while keeper.front.link() == Link::Up {
        keeper.rings().rx.refresh().unwrap();
        let Some((_, request)) = keeper.rings().rx.pop() else { panic!("no page, and it is up") };
        held.push(keeper.back.map_page(FRONT, request.gref, true).unwrap());
        keeper.answer(RxResponse { id: request.id, offset: 0, flags: 0, status: 60 });
        keeper.publish_rx();
        keeper.received();
        keeper.front.service();
        bench.assert_receives();
    }
    assert!((40..64).contains(&held.len()), "{} pages are kept", held.len());
    for _ in 0..200 {
        bench.assert_receives();
    }
    for n in 0..64 {
        assert!(bench.send(&[&pattern(n, 60)]), "{n} sent");
    }
    drop(held);
    keeper.pass(SECOND * 3);
    keeper.connect();
    keeper.assert_receives();
}
