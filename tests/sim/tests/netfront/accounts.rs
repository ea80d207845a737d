//! N4: what a device may have of its pool, to the page. What it draws beyond its promise comes back, and
//! pages that a backend keeps are missing on nobody else's account.

use xen_netfront::netfront::Obstacle;

use super::packets::Flow;
use super::*;

/// Pages that a device always has to send with, and how many it draws at a time beyond them.
const SENDING: usize = 64;
const STEP: usize = 32;
/// A queue with fewer pages or requests does not carry the largest packet.
const LARGEST: usize = 20;

/// A device with this configuration, in a pool that has much more.
fn bench(config: Config) -> Bench {
    let vif = Vif::new(FRONT, BACK, 0).back_key("feature-sg", "1").back_key("feature-rx-copy", "1");
    let vif = vif.back_key("multi-queue-max-queues", "8");
    let mut bench = Bench::on(Host::new(1), vif, config, 2000);
    bench.connect();
    bench
}

/// Pages beyond its promise that the device has drawn.
#[track_caller]
fn drawn(bench: &Bench, config: &Config) -> usize {
    // Whoever holds no more than it was promised leaves the others theirs.
    assert!(bench.pool.free() >= bench.pool.unreserved(), "it has pages of others");
    2000 - config.least_pages() - bench.pool.unreserved()
}

fn posted(bench: &mut Bench) -> usize {
    bench.rings().rx.refresh().unwrap() as usize
}

/// As many packets as pages are posted.
fn use_up(bench: &mut Bench) {
    for _ in 0..posted(bench) {
        bench.deliver(&[&pattern(1, 60)]);
    }
    bench.received();
}

/// That again and again.
fn burst(bench: &mut Bench) {
    (0..6).for_each(|_| use_up(bench));
}

fn calm(bench: &mut Bench) {
    for _ in 0..2000 {
        bench.assert_receives();
    }
}

fn fill_tx_ring(bench: &mut Bench) {
    for n in 0..256 {
        assert!(bench.send(&[&pattern(n, 60)]));
    }
}

fn answer_all(bench: &mut Bench) {
    for request in bench.tx_requests() {
        bench.answer_tx(request.id, 0);
    }
    bench.front.complete_tx();
    bench.front.service();
}

/// The backend answers so many received pages and keeps them.
fn keep_rx(bench: &mut Bench, most: usize) -> Vec<xen_sim::ForeignPage> {
    let mut kept = Vec::new();
    while kept.len() < most && bench.front.link() == Link::Up {
        let request = bench.rx_request();
        kept.push(bench.back.map_page(FRONT, request.gref, true).unwrap());
        bench.answer(RxResponse { id: request.id, offset: 0, flags: 0, status: 60 });
        bench.publish_rx();
        bench.received();
        bench.front.service();
    }
    kept
}

/// Breaks the connection off, and makes it anew.
fn come_back(bench: &mut Bench) {
    bench.queues.clear();
    bench.set_state(6);
    bench.pass(Duration::from_millis(100));
    bench.connect();
}

#[test]
fn n4_what_a_burst_draws_comes_back_when_it_is_calm() {
    for rx_floor in [20, 64, 100] {
        let config = Config::default().with_rx_floor(rx_floor);
        let mut bench = bench(config);
        for _ in 0..3 {
            assert_eq!(drawn(&bench, &config), 0);
            burst(&mut bench);
            assert_eq!(drawn(&bench, &config), 256 - usize::from(rx_floor));
            calm(&mut bench);
        }
        assert_eq!(drawn(&bench, &config), 0);
        bench.assert_sound();
        bench.assert_no_leak();
    }
}

#[test]
fn n4_what_is_drawn_to_send_comes_back_with_the_answers() {
    let config = Config::default();
    let mut bench = bench(config);
    for _ in 0..3 {
        fill_tx_ring(&mut bench);
        assert_eq!(drawn(&bench, &config), 256 - SENDING);
        // What is in flight is no want of room.
        bench.front.service();
        assert_eq!((bench.front.link(), bench.front.counters().crippled), (Link::Up, 0));
        answer_all(&mut bench);
        assert_eq!(drawn(&bench, &config), STEP);
    }
    // Nor is what the layers above take and keep for a while.
    let held: Vec<_> = (0..SENDING).map(|_| bench.front.alloc(0).unwrap()).collect();
    bench.front.service();
    // As many more lie ready in their place, and it keeps its promise for when those come home.
    assert_eq!(bench.pool.unreserved(), 2000 - config.least_pages());
    drop(held);
    bench.front.service();
    for n in 0..SENDING as u64 {
        assert!(bench.send(&[&pattern(n, 60)]));
    }
    bench.assert_sound();
    bench.assert_no_leak();
}

/// Nobody's pages are another device's now: this one has what it was promised, neither more nor less, whatever
/// it had before.
#[test]
fn n4_where_nothing_is_left_a_device_has_its_promise_to_the_page() {
    for again in [false, true] {
        let config = Config::default();
        let mut bench = bench(config);
        if again {
            burst(&mut bench);
            fill_tx_ring(&mut bench);
            come_back(&mut bench);
            assert_eq!(drawn(&bench, &config), 0, "a connection begins with what was promised");
        }
        let others = bench.pool.reserve(bench.pool.unreserved()).unwrap();
        burst(&mut bench);
        assert!(posted(&mut bench) <= 64);
        let mut sent = 0;
        while bench.send(&[&pattern(sent, 60)]) {
            sent += 1;
        }
        assert_eq!(sent as usize, SENDING);
        assert!(bench.pool.free() >= others.pages() as usize);
        // Nothing is lost of it either: the layers above take all there is to send with, and give it back.
        answer_all(&mut bench);
        for _ in 0..3 {
            let held: Vec<_> = core::iter::from_fn(|| bench.front.alloc(0)).collect();
            assert!(held.len() >= SENDING);
            bench.front.service();
            assert_eq!(bench.pool.unreserved(), 0, "it gave away what it was promised");
            drop(held);
            bench.front.service();
        }
        calm(&mut bench);
        assert_eq!(bench.pool.unreserved(), 0);
        bench.assert_sound();
        drop(others);
        bench.assert_no_leak();
    }
}

/// Pages that a backend keeps are on its device's account, in this connection and the next; when it lets go,
/// all is as before.
#[test]
fn n4_pages_that_a_backend_keeps_are_its_own_devices() {
    for queues in [1, 2] {
        for again in [false, true] {
            let config = Config::default().with_queues(queues);
            let mut bench = bench(config);
            let others = bench.pool.reserve(bench.pool.unreserved()).unwrap();
            let (promise, all) = (others.pages() as usize, bench.pool.size());
            bench.queue = queues as usize - 1;
            let kept = keep_rx(&mut bench, 40);
            assert_eq!((kept.len(), bench.front.link()), (40, Link::Up));
            if again {
                come_back(&mut bench);
            }
            for queue in 0..queues as usize {
                bench.queue = queue;
                burst(&mut bench);
                let posted = posted(&mut bench);
                let missing = match (again, queue + 1 == queues as usize) {
                    // The share of each.
                    (true, _) => 40 / queues as usize,
                    (false, last) => {
                        if last {
                            40
                        } else {
                            0
                        }
                    }
                };
                let least = 64 - missing - (64 - missing) / 8;
                assert!((least..=64 - missing).contains(&posted), "{posted} in queue {queue}");
            }
            assert!(bench.pool.free() >= promise);
            drop(kept);
            bench.pass(SECOND * 3);
            assert_eq!(bench.front.quarantined(), 0);
            // All of them are posted again, and those to send with are there.
            for queue in 0..queues as usize {
                bench.queue = queue;
                for _ in 0..6 {
                    use_up(&mut bench);
                    assert_eq!(bench.pool.unreserved(), 0, "not even for a while");
                }
                let posted = posted(&mut bench);
                assert!((56..=64).contains(&posted), "{posted} in queue {queue}");
            }
            assert!(bench.pool.free() >= promise);
            assert!(all - bench.pool.free() <= config.least_pages());
            assert_eq!(bench.pool.unreserved(), 0, "and it gave nothing of it away");
            bench.assert_sound();
            drop(others);
            bench.assert_no_leak();
        }
    }
}

/// With pages enough elsewhere, others stand in for those, however many they are, and as long as it keeps
/// them.
#[test]
fn n4_others_stand_in_for_pages_that_a_backend_keeps() {
    let config = Config::default();
    for most in [1, 40, 100] {
        let mut bench = bench(config);
        let kept = keep_rx(&mut bench, most);
        // Pages are posted several at a time.
        assert!(kept.len() == most && drawn(&bench, &config) <= most);
        for _ in 0..3 {
            come_back(&mut bench);
            assert_eq!((posted(&mut bench), drawn(&bench, &config)), (64, most));
        }
        drop(kept);
        bench.pass(SECOND * 3);
        calm(&mut bench);
        assert_eq!((bench.front.quarantined(), drawn(&bench, &config)), (0, 0));
        bench.assert_sound();
        bench.assert_no_leak();
    }
}

/// Pages that a backend keeps of those sent count as sent with.
#[test]
fn n4_pages_kept_of_those_sent_are_of_the_same_account() {
    let config = Config::default();
    let mut bench = bench(config);
    let mut kept = Vec::new();
    for n in 0..100 {
        assert!(bench.send(&[&pattern(n, 60)]));
        let request = bench.tx_requests()[0];
        kept.push(bench.back.map_page(FRONT, request.gref, false).unwrap());
        bench.answer_tx(request.id, 0);
        bench.front.complete_tx();
        bench.front.service();
        drawn(&bench, &config);
    }
    let others = bench.pool.reserve(bench.pool.unreserved()).unwrap();
    let mut sent = 0;
    while bench.send(&[&pattern(sent, 60)]) {
        sent += 1;
    }
    assert!((1..=SENDING as u64).contains(&sent), "{sent}");
    assert!(bench.pool.free() >= others.pages() as usize);
    drop(kept);
}

/// As soon as a queue does not carry the largest packet any more, whichever it is and whichever way, the
/// device reconnects; not before.
#[test]
fn f6_the_page_that_is_one_too_many_is_that_of_any_queue() {
    for queue in 0..3 {
        for sends in [false, true] {
            let config = Config::default().with_queues(3);
            let mut bench = bench(config);
            bench.queue = queue;
            let flow = (0..).find(|port| {
                let packet = Flow::udp(false, *port).packet(0, &[1; 60]);
                assert!(bench.send_whole(&packet, Default::default()));
                !bench.sent().is_empty()
            });
            come_back(&mut bench);
            bench.queue = queue;
            let packet = Flow::udp(false, flow.unwrap()).packet(0, &[1; 60]);
            let mut kept = Vec::new();
            while bench.front.link() == Link::Up {
                if sends {
                    assert!(bench.send_whole(&packet, Default::default()));
                    let request = bench.tx_requests()[0];
                    kept.push(bench.back.map_page(FRONT, request.gref, false).unwrap());
                    bench.answer_tx(request.id, 0);
                    bench.front.complete_tx();
                    bench.front.service();
                } else {
                    kept.extend(keep_rx(&mut bench, 1));
                }
            }
            assert_eq!(kept.len(), 256 - LARGEST + 1, "queue {queue}");
            assert_eq!(bench.front.counters().crippled, 1);
            assert_eq!(bench.front_state(), Some(5));
        }
    }
}

/// Without carrier likewise.
#[test]
fn f6_a_queue_that_is_crippled_without_carrier_is_made_anew() {
    let mut bench = bench(Config::default());
    bench.toolstack.store().set(&format!("{}/carrier", bench.vif.back_dir()), "0");
    bench.front.service();
    let mut kept = Vec::new();
    while bench.front.link() == Link::NoCarrier {
        let request = bench.rx_request();
        kept.push(bench.back.map_page(FRONT, request.gref, true).unwrap());
        bench.answer(RxResponse { id: request.id, offset: 0, flags: 0, status: 60 });
        bench.publish_rx();
        bench.received();
        bench.front.service();
    }
    assert_eq!((kept.len(), bench.front.counters().crippled), (256 - LARGEST + 1, 1));
}

/// With too few pages to post, it does not come up, says so, and comes up when it has them.
#[test]
fn f6_too_few_pages_for_the_largest_packet_are_none() {
    let config = Config::default().with_rx_floor(25);
    let mut bench = bench(config);
    let others = bench.pool.reserve(bench.pool.unreserved()).unwrap();
    let kept = keep_rx(&mut bench, usize::MAX);
    assert_eq!(kept.len(), 6, "19 are left");
    bench.queues.clear();
    bench.set_state(6);
    bench.pass(SECOND);
    bench.set_state(2);
    bench.pass(SECOND * 3);
    assert_eq!((bench.front.obstacle(), bench.front.link()), (Some(Obstacle::NoPages), Link::Down));
    assert_eq!((bench.front_state(), bench.front.ports().count()), (Some(1), 0));
    drop(kept);
    bench.pass(SECOND * 3);
    bench.connect();
    bench.assert_receives();
    drop(others);
    bench.assert_no_leak();
}

/// While too few pages are posted for the largest packet, the device looks again by itself.
#[test]
fn r14_a_queue_that_lacks_pages_looks_again_before_it_has_none() {
    let config = Config::default().with_rx_floor(25).with_rx_ceiling(25);
    let mut bench = bench(config);
    let mut frames: Vec<_> = bench.pool.take_many(2000).collect();
    let mut kept = Vec::new();
    for left in (1..25).rev() {
        bench.deliver(&[&pattern(1, 60)]);
        bench.front.receive(1, |packet| kept.push(packet));
        bench.front.service();
        assert_eq!(posted(&mut bench), left);
        let soon = bench
            .front
            .next_deadline()
            .is_some_and(|at| at.since(bench.host.now()) <= Duration::from_millis(10));
        assert_eq!(soon, left < LARGEST, "{left} are posted");
    }
    frames.truncate(10);
    bench.pass(Duration::from_millis(10));
    assert_eq!(posted(&mut bench), 25);
}

/// Frames that lie ready to send with stay there, however many, while no queue lacks any.
#[test]
fn frames_at_hand_stay_there_while_nobody_lacks_any() {
    let config = Config::default().with_queues(2);
    let mut bench = bench(config);
    for port in 0..200 {
        let packet = Flow::udp(false, port).packet(0, &[1; 60]);
        assert!(bench.send_whole(&packet, Default::default()));
    }
    for queue in 0..2 {
        bench.queue = queue;
        answer_all(&mut bench);
    }
    let free = bench.pool.free();
    bench.front.service();
    assert_eq!(bench.pool.free(), free);
    let (rings, posted) = (4, 128);
    assert_eq!(bench.pool.size() - free, rings + posted + 2 * SENDING);
    bench.assert_no_leak();
}
