//! Packets that the layer above is only lent: their pages are posted again at once.

use packet_views::features::Features;
use xen_netfront::xenbus::feature_nodes;

use super::*;

#[test]
fn n4_what_is_only_lent_goes_back_to_the_ring_and_needs_nothing_of_the_pool() {
    let mut bench = Bench::with(raw_backend::full_ring(), &[], &[]);
    let hoard: Vec<_> = std::iter::from_fn(|| bench.pool.take()).collect();
    for n in 0..2000 {
        bench.deliver(&[&pattern(n, 100)]);
        let mut seen = Vec::new();
        assert_eq!(bench.front.receive_lent(10, |packet| seen.push(raw_backend::bytes(packet))), 1);
        assert_eq!(seen, [pattern(n, 100)]);
        bench.assert_sound();
    }
    let counters = bench.front.counters();
    assert_eq!((counters.rx_packets, counters.no_frame), (2000, 0));
    assert!(counters.grants >= 2000);
    drop(hoard);
    bench.assert_no_leak();
}

/// In several fragments, dropped for what is wrong with them, or more than are kept at hand.
#[test]
fn r14_pages_of_whatever_packets_are_all_accounted_for() {
    let mut bench = Bench::with(Config::default(), &[], &feature_nodes(&Features::ALL));
    for round in 0..50 {
        let waiting = bench.rings().rx.refresh().unwrap();
        for n in 0..waiting / 4 {
            match n % 3 {
                0 => bench.deliver(&[&pattern(1, 4096), &pattern(2, 4096), &pattern(3, 50)]),
                1 => bench.deliver(&[&pattern(4, 13)]),
                _ => bench.deliver(&[&pattern(5, 60)]),
            }
        }
        bench.front.receive_lent(1000, |_| ());
        bench.assert_sound();
        let out = bench.pool.size() - bench.pool.free();
        assert!(out <= 2 + 64 + 256, "{out} pages in round {round}");
    }
    // A rule is broken while pages are at hand.
    bench.deliver(&[&pattern(1, 60)]);
    let request = bench.rx_request();
    bench.answer(RxResponse { id: request.id ^ 1, offset: 0, flags: 0, status: 60 });
    bench.publish_rx();
    assert_eq!(bench.front.receive_lent(10, |_| ()), 0);
    bench.assert_sound();
    bench.assert_no_leak();
}

#[test]
fn r5_a_packet_that_was_cloned_is_kept_and_its_page_not_posted() {
    let mut bench = Bench::new();
    let mut kept = Vec::new();
    for n in 0..100 {
        bench.deliver(&[&pattern(n, 100)]);
        bench.front.receive_lent(10, |packet| {
            if n % 2 == 0 {
                kept.push((n, packet.clone()));
            }
        });
    }
    for _ in 0..1000 {
        bench.deliver(&[&[0xff; 1514]]);
        bench.front.receive_lent(10, |_| ());
    }
    for (n, packet) in &kept {
        assert_eq!(raw_backend::bytes(packet), pattern(*n, 100));
    }
    bench.assert_sound();
    drop(kept);
    bench.assert_no_leak();
}

/// Pages at hand are of those that the queue may have posted anyway.
#[test]
fn n4_pages_at_hand_leave_sending_what_it_was_promised() {
    for frames in [130, 140, 200, 258, 300] {
        let vif = Vif::new(FRONT, BACK, 0).back_key("feature-rx-copy", "1");
        let mut bench = Bench::on(Host::new(1), vif, Config::default(), frames);
        bench.connect();
        for round in 0..100 {
            for _ in 0..bench.rings().rx.refresh().unwrap().min(1 + round * 7) {
                bench.deliver(&[&pattern(1, 60)]);
            }
            bench.front.receive_lent(1000, |_| ());
            bench.front.service();
            for n in 0..64 {
                assert!(bench.send(&[&pattern(1, 60)]), "{n} in round {round} with {frames}");
            }
            for request in bench.tx_requests() {
                bench.answer_tx(request.id, 0);
            }
            bench.front.complete_tx();
        }
        bench.assert_sound();
        bench.assert_no_leak();
    }
}

/// When the layer above has taken what the pool had, a queue gets what another one keeps at hand.
#[test]
fn n4_pages_at_hand_are_let_go_for_a_queue_that_has_none() {
    let config = Config::default().with_queues(2).with_rx_floor(160).with_rx_ceiling(160);
    let vif = Vif::new(FRONT, BACK, 0).back_key("multi-queue-max-queues", "2");
    let vif = vif.back_key("feature-rx-copy", "1");
    let mut bench = Bench::on(Host::new(1), vif, config, config.least_pages());
    bench.connect();
    let mut kept = Vec::new();
    // Of queue 1 all pages stay with the layer above.
    bench.queue = 1;
    for n in 0..160 {
        bench.deliver(&[&pattern(n, 60)]);
    }
    bench.front.receive(1000, |packet| kept.push(packet));
    assert_eq!(bench.pool.free(), 0);
    // Of queue 0 some are at hand, too few to be worth posting.
    bench.queue = 0;
    for n in 0..15 {
        bench.deliver(&[&pattern(n, 60)]);
    }
    assert_eq!(bench.front.receive_lent(1000, |_| ()), 15);
    bench.queue = 1;
    assert_eq!(bench.rings().rx.refresh(), Ok(0));
    bench.pass(Duration::from_millis(20));
    assert_eq!(bench.rings().rx.refresh(), Ok(15));
    bench.assert_sound();
    drop(kept);
    bench.assert_no_leak();
}
