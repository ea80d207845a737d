//! Memory, and devices beside each other.

use super::*;

#[test]
fn one_devices_trouble_is_not_anothers() {
    let host = Host::new(1);
    let vif = Vif::new(FRONT, BACK, 0).back_key("feature-sg", "1");
    let mut bench = Bench::on(host.clone(), vif, Config::default(), 1024);
    bench.connect();
    let other_vif = Vif::new(FRONT, DomId(3), 1);
    let other = host.add_domain(DomId(3), 16);
    bench.toolstack.add_vif(&other_vif);
    let mut net = xen_netfront::netfront::Netfront::open(
        bench.domain.clone(),
        bench.domain.clone(),
        &bench.pool,
        &bench.table,
        1,
        raw_backend::full_ring(),
    )
    .unwrap();
    bench.toolstack.store().set(&format!("{}/state", other_vif.back_dir()), "2");
    net.service();
    bench.toolstack.store().set(&format!("{}/state", other_vif.back_dir()), "4");
    net.service();
    assert_eq!(net.link(), Link::Up);
    // Everything of the second device is held by its backend.
    let grants = bench.domain.grants().into_iter().filter(|(_, entry)| entry.permits(DomId(3)));
    let kept: Vec<_> = grants.map(|(gref, _)| other.map_page(FRONT, gref, true).unwrap()).collect();
    bench.toolstack.store().set(&format!("{}/state", other_vif.back_dir()), "6");
    net.service();
    assert!(net.quarantined() > 200);
    for _ in 0..1000 {
        bench.assert_receives();
    }
    drop(net);
    assert!(bench.table.usage().quarantined > 200, "left to the table");
    drop(kept);
    bench.table.sweep();
    assert_eq!(bench.table.usage().quarantined, 0);
    bench.assert_no_leak();
}

/// Frames that are kept at hand for sending, beyond what it was promised, are there to be received into
/// when there are no others.
#[test]
fn r14_frames_kept_for_sending_do_not_starve_a_queue_that_receives() {
    let config = Config::default().with_queues(2).with_rx_floor(20).with_rx_ceiling(20);
    let vif = Vif::new(FRONT, BACK, 0).back_key("multi-queue-max-queues", "2");
    let frames = config.least_pages() + 60;
    let vif = vif.back_key("feature-rx-copy", "1");
    let mut bench = Bench::on(Host::new(1), vif, config, frames);
    bench.connect();
    // All but rings and posted pages is in flight, then at hand.
    let mut port = 0;
    while bench
        .send_whole(&super::packets::Flow::udp(false, port).packet(0, &[1; 60]), Default::default())
    {
        port += 1;
        if bench.pool.free() == 0 {
            break;
        }
    }
    for queue in 0..2 {
        bench.queue = queue;
        for request in bench.tx_requests() {
            bench.answer_tx(request.id, 0);
        }
    }
    bench.front.complete_tx();
    assert!(bench.pool.free() < 20, "{} frames are free", bench.pool.free());
    let mut kept = Vec::new();
    for queue in 0..2 {
        bench.queue = queue;
        // More than there were posted, and the layer above keeps them all.
        for nth in 0..38 {
            bench.deliver(&[&pattern(nth, 100)]);
            bench.front.receive(10, |packet| kept.push(packet));
            bench.front.service();
        }
    }
    assert_eq!(kept.len(), 76);
    for _ in 0..64 {
        assert!(bench.send(&[&pattern(1, 60)]), "what was promised to sending is there");
    }
    kept.clear();
    bench.front.flush();
    bench.assert_sound();
    bench.assert_no_leak();
}

#[test]
fn r14_memory_is_bounded_and_a_layer_that_keeps_its_packets_starves_only_its_receiving() {
    let vif = Vif::new(FRONT, BACK, 0).back_key("feature-sg", "1").back_key("feature-rx-copy", "1");
    let config = raw_backend::full_ring();
    let frames = config.least_pages() + 40;
    let mut bench = Bench::on(Host::new(1), vif, config, frames);
    bench.connect();
    let mut kept = Vec::new();
    // The ring's 256 pages, and what else the pool has but for the rings' two and those to send with.
    for n in 0..256 + 40 {
        bench.deliver(&[&pattern(n, 100)]);
        bench.front.receive(10, |packet| kept.push(packet));
    }
    assert_eq!((kept.len(), bench.pool.free()), (296, 0));
    bench.rings().rx.refresh().unwrap();
    assert!(bench.rings().rx.pop().is_none(), "no page is left to post");
    assert!(bench.front.counters().no_frame > 0);
    let soon = bench.front.next_deadline().unwrap();
    assert!(soon.since(bench.host.now()) <= Duration::from_millis(10), "it looks again by itself");
    for (n, packet) in kept.iter().enumerate() {
        assert_eq!(raw_backend::bytes(packet), pattern(n as u64, 100), "what was kept is intact");
    }
    // It may answer all the same: what it keeps, it keeps maybe until it has.
    for n in 0..64 {
        assert!(bench.send(&[&pattern(n, 60)]), "{n} of 64 sent");
    }
    assert!(!bench.send(&[&pattern(1, 60)]), "there are no more");
    for request in bench.tx_requests() {
        bench.answer_tx(request.id, 0);
    }
    kept.clear();
    bench.pass(Duration::from_millis(20));
    bench.assert_receives();
    assert!(bench.send(&[&pattern(1, 60)]));
    assert!(bench.pool.high_water() <= bench.pool.size());
    bench.assert_sound();
    bench.assert_no_leak();
}

/// What another device left to the table is looked at again where somebody connects, or is opened.
#[test]
fn what_others_left_in_quarantine_comes_free_for_who_connects() {
    for anew in [false, true] {
        let mut bench = Bench::new();
        let mut other = bench.beside(1, DomId(3), Config::default().with_rx_floor(20));
        other.connect();
        let pages = |bench: &Bench| -> Vec<_> {
            let grants = bench.domain.grants().into_iter();
            let mine = grants.filter(|(_, entry)| entry.permits(bench.vif.backend));
            mine.map(|(gref, _)| bench.back.map_page(FRONT, gref, true).unwrap()).collect()
        };
        let kept = pages(&other);
        other.queues.clear();
        let Bench { front, .. } = other;
        drop(front);
        assert!(bench.table.usage().quarantined >= 20);
        drop(kept);
        if anew {
            let (platform, store) = (bench.domain.clone(), bench.domain.clone());
            let config = Config::default().with_rx_floor(20);
            let opened = xen_netfront::netfront::Netfront::open(
                platform,
                store,
                &bench.pool,
                &bench.table,
                2,
                config,
            );
            assert!(opened.is_ok());
            assert_eq!(bench.table.usage().quarantined, 0);
        } else {
            bench.queues.clear();
            bench.set_state(6);
            bench.pass(Duration::from_millis(100));
            bench.connect();
            assert_eq!(bench.table.usage().quarantined, 0);
        }
    }
}

/// Whatever a connection finds wanting, and however far it has come: nothing of it is left, and the device
/// says what it is.
#[test]
fn a_connection_that_cannot_be_made_leaves_nothing() {
    use xen_netfront::netfront::Obstacle;
    use xen_netfront::platform::EventError;
    const ENOSPC: EventError = EventError(28);
    for (queues, split) in [(1, false), (1, true), (3, false), (3, true)] {
        let ports = if split { 2 * queues } else { queues };
        // An event channel that there is not, or a page.
        let cases = (0..ports).map(|nth| (Some(nth), None));
        for (port, pages) in cases.chain((0..2 * queues).map(|nth| (None, Some(nth)))) {
            let vif = Vif::new(FRONT, BACK, 0).back_key("feature-rx-copy", "1");
            let vif = vif.back_key("multi-queue-max-queues", "8");
            let vif = vif.back_key("feature-split-event-channels", "1");
            let config = Config::default().with_queues(queues).with_split_event_channels(split);
            let mut bench = Bench::on(Host::new(1), vif, config, 400);
            let (claimed, unreserved) = (bench.table.usage().claimed, bench.pool.unreserved());
            let rule = port.map(|nth| FaultRule {
                after: nth.into(),
                every: Some(std::num::NonZeroU64::MIN),
                error: ENOSPC,
            });
            bench.domain.change_faults(|faults| faults.alloc_unbound = rule);
            let held: Vec<_> = match pages {
                None => Vec::new(),
                Some(left) => bench.pool.take_many(400 - left as usize).collect(),
            };
            let free = bench.pool.free();
            bench.set_state(2);
            bench.pass(SECOND);
            let case = (queues, split, port, pages);
            let expected = match port {
                Some(_) => Obstacle::NoEventChannel(ENOSPC),
                None => Obstacle::NoPages,
            };
            assert_eq!(bench.front.obstacle(), Some(expected), "{case:?}");
            assert!(!expected.to_string().is_empty());
            assert_eq!(bench.domain.open_ports(), [], "{case:?}");
            assert_eq!(
                (bench.pool.free(), bench.pool.unreserved()),
                (free, unreserved),
                "{case:?}"
            );
            let usage = bench.table.usage();
            assert_eq!((usage.claimed, usage.quarantined), (claimed, 0), "{case:?}");
            assert_eq!(bench.domain.grants().len(), 0, "{case:?}");
            let counters = *bench.front.counters();
            assert_eq!(counters.grants, counters.revokes, "{case:?}");
            assert_eq!(bench.front_state(), Some(1));
            let again = bench.front.next_deadline().expect("it tries again");
            assert!(again.since(bench.host.now()) <= Duration::from_millis(500), "{case:?}");
            drop(held);
            bench.domain.change_faults(|faults| faults.alloc_unbound = None);
            bench.connect();
            assert_eq!(bench.front.obstacle(), None);
            assert_eq!(bench.domain.open_ports().len(), ports as usize);
            bench.assert_receives();
            bench.assert_sound();
            bench.assert_no_leak();
        }
    }
}
