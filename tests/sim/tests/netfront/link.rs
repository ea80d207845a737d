//! The link as the layers above see it, and what the platform is told of events.

use packet_views::device::Permit;
use packet_views::features::Features;
use xen_netfront::platform::{BackendPlatform, Port};

use super::*;
use xen_netfront::xenbus::feature_nodes;

fn set_carrier(bench: &mut Bench, value: Option<&str>) {
    let path = format!("{}/carrier", bench.vif.back_dir());
    match value {
        Some(value) => bench.toolstack.store().set(&path, value),
        None => xen_netfront::store::Store::remove(bench.toolstack.store(), None, &path).unwrap(),
    }
    bench.front.service();
}

#[test]
fn without_carrier_nothing_is_sent_and_what_comes_is_received() {
    let mut bench = Bench::new();
    assert_eq!(bench.front.link(), Link::Up);
    for round in 0..5 {
        assert!(bench.send(&[&pattern(1, 60)]));
        let sent = bench.tx_requests();
        set_carrier(&mut bench, Some("0"));
        assert_eq!(bench.front.link(), Link::NoCarrier);
        assert!(bench.front.reserve(1).is_none() && bench.front.reserve(1).is_none());
        assert!(!bench.send(&[&pattern(1, 60)]));
        bench.assert_receives();
        // What was sent before is still answered; and nobody waits for an answer meanwhile.
        if round % 2 == 0 {
            bench.pass(SECOND * 30);
        }
        bench.answer_tx(sent[0].id, 0);
        assert_eq!(bench.front.complete_tx(), 1);
        let up = [Some("1"), None, Some(""), Some("nonsense"), Some("7")][round];
        set_carrier(&mut bench, up);
        assert_eq!(bench.front.link(), Link::Up, "{up:?}");
    }
    let counters = bench.front.counters();
    assert_eq!((counters.connects, counters.faults, counters.stalls), (1, 0, 0));
    bench.assert_sound();
    bench.assert_no_leak();
}

#[test]
fn a_vif_may_come_up_without_carrier_and_time_without_it_is_not_silence() {
    let mut bench = Bench::with(raw_backend::full_ring(), &[], &[("carrier", "0")]);
    assert_eq!((bench.front.link(), bench.front.counters().connects), (Link::NoCarrier, 1));
    bench.assert_receives();
    set_carrier(&mut bench, Some("1"));
    assert!(bench.send(&[&pattern(1, 60)]));
    set_carrier(&mut bench, Some("0"));
    bench.pass(SECOND * 30);
    set_carrier(&mut bench, Some("1"));
    // Ten seconds from here on.
    bench.pass(SECOND * 9);
    assert_eq!((bench.front.counters().stalls, bench.front.link()), (0, Link::Up));
    bench.pass(SECOND * 2);
    assert_eq!(bench.front.counters().stalls, 1);
}

/// The frontend comes back from a suspend: all of the old connection is gone.
#[test]
fn after_a_resume_the_device_connects_anew() {
    let mut bench = Bench::new();
    for round in 1..4 {
        assert!(bench.send(&[&pattern(1, 60)]) && bench.send(&[&pattern(1, 60)]));
        bench.deliver(&[&pattern(1, 60)]);
        bench.queues.clear();
        bench.front.resumed();
        assert_eq!((bench.front.link(), bench.front.ports().count()), (Link::Down, 0));
        assert!(!bench.send(&[&pattern(1, 60)]) && bench.received().is_empty());
        bench.connect();
        let counters = bench.front.counters();
        assert_eq!((counters.connects, counters.faults), (round + 1, 0));
        assert_eq!(
            (counters.tx_drops.disconnected, counters.rx_drops.disconnected),
            (2 * round, round)
        );
        bench.assert_receives();
        bench.assert_sound();
    }
    bench.assert_no_leak();
}

/// Who has the backend's number after a resume may be somebody else, on another machine: what the
/// one before has seen, this one has not.
#[test]
fn f7_after_a_resume_the_backend_has_seen_nothing() {
    let mut bench = Bench::new();
    let cleared = |bench: &Bench| bench.front.counters().cleared_bytes;
    for _ in 0..3 {
        bench.deliver(&[&pattern(7, 1500)]);
        assert_eq!(bench.received().len(), 1);
        let before = cleared(&bench);
        // Reset by the same backend, which has seen it all.
        bench.queues.clear();
        bench.set_state(6);
        bench.front.service();
        bench.connect();
        bench.assert_receives();
        assert_eq!(cleared(&bench), before);
        bench.queues.clear();
        bench.front.resumed();
        bench.connect();
        assert!(cleared(&bench) > before + 4096);
        bench.assert_sound();
    }
}

/// The backend has used all pages and taken all requests, and asks for an event for more of either.
fn use_all_pages(bench: &mut Bench) {
    for _ in 0..bench.rings().rx.refresh().unwrap() {
        bench.deliver(&[&pattern(1, 60)]);
    }
    assert_eq!(bench.rings().rx.arm(), Ok(false));
    assert_eq!(bench.rings().tx.arm(), Ok(false));
    bench.back.take_pending();
}

/// An event for what is sent comes on one channel, an event for pages posted on the other.
#[test]
fn each_ring_has_a_channel_of_its_own() {
    let config = raw_backend::full_ring().with_split_event_channels(true);
    let mut bench = Bench::with(config, &[], &[("feature-split-event-channels", "1")]);
    let ports = ["event-channel-tx", "event-channel-rx"].map(|key| {
        let port = bench.front_key(key).unwrap().parse().unwrap();
        bench.back.bind_interdomain(FRONT, Port::new(port).unwrap()).unwrap()
    });
    bench.front.flush();
    for _ in 0..3 {
        use_all_pages(&mut bench);
        assert!(bench.send(&[&pattern(1, 60)]));
        assert_eq!(bench.back.take_pending(), [ports[0]]);
        assert!(!bench.received().is_empty());
        bench.front.flush();
        assert_eq!(bench.back.take_pending(), [ports[1]]);
        for request in bench.tx_requests() {
            bench.answer_tx(request.id, 0);
        }
        bench.front.complete_tx();
    }
    bench.assert_sound();
}

/// On one channel, what is sent and pages posted are one event, when they are flushed; not one more
/// when nothing has happened since.
#[test]
fn both_rings_share_an_event() {
    let mut bench = Bench::with(raw_backend::full_ring(), &[], &[]);
    let port = bench.front_key("event-channel").unwrap().parse().unwrap();
    let port = bench.back.bind_interdomain(FRONT, Port::new(port).unwrap()).unwrap();
    for _ in 0..3 {
        use_all_pages(&mut bench);
        let events = bench.front.counters().events_sent;
        assert!(!bench.received().is_empty());
        let buf = bench.packet(&pattern(1, 60), &[], Default::default()).into_single().unwrap();
        bench.front.reserve(1).unwrap().send_single(buf).unwrap();
        assert_eq!(bench.back.take_pending(), []);
        for _ in 0..2 {
            bench.front.flush();
        }
        assert_eq!(bench.back.take_pending(), [port]);
        assert_eq!(bench.front.counters().events_sent, events + 1);
        for request in bench.tx_requests() {
            bench.answer_tx(request.id, 0);
        }
        bench.front.complete_tx();
    }
    bench.assert_sound();
}

/// How often each port was said to be handled, with progress and without.
fn handled(bench: &Bench) -> Vec<(u64, u64)> {
    let ports: Vec<Port> = bench.front.ports().collect();
    ports.into_iter().map(|port| bench.domain.times_handled(port)).collect()
}

/// Of each queue one channel, or one for what is sent and one for what comes.
#[test]
fn p1_each_channel_is_handled_with_progress_where_there_was_some() {
    for (queues, split) in [(1, false), (1, true), (3, false), (3, true)] {
        let config = raw_backend::full_ring().with_queues(queues).with_split_event_channels(split);
        let nodes = feature_nodes(&Features::ALL).into_iter();
        let able = [("multi-queue-max-queues", "8"), ("feature-split-event-channels", "1")];
        let mut bench = Bench::with(config, &[], &nodes.chain(able).collect::<Vec<_>>());
        let per_queue = if split { 2 } else { 1 };
        let mut expected = vec![(0, 0); queues as usize * per_queue];
        let said = |bench: &mut Bench, expected: &mut Vec<(u64, u64)>, moved: &[usize]| {
            assert!(!bench.front.rearm(), "nothing is left to do");
            for (port, expected) in expected.iter_mut().enumerate() {
                match moved.contains(&port) {
                    true => expected.0 += 1,
                    false => expected.1 += 1,
                }
            }
            assert_eq!(handled(bench), *expected, "{queues} queues, split: {split}");
        };
        said(&mut bench, &mut expected, &[]);
        for queue in 0..queues as usize {
            let (tx, rx) = (queue * per_queue, (queue + 1) * per_queue - 1);
            bench.queue = queue;
            // Received.
            bench.deliver(&[&pattern(1, 60)]);
            assert!(bench.front.rearm(), "a packet is there: nothing is handled yet");
            assert_eq!(handled(&bench), expected);
            assert_eq!(bench.received().len(), 1);
            said(&mut bench, &mut expected, &[rx]);
            // Nothing since.
            said(&mut bench, &mut expected, &[]);
            // Sent, and answered.
            let mut port = 0;
            let requests = loop {
                let flow = super::packets::Flow::udp(false, port);
                assert!(bench.send_whole(&flow.packet(0, &[1; 60]), Default::default()));
                let requests = bench.tx_requests();
                if !requests.is_empty() {
                    break requests;
                }
                port += 1;
            };
            said(&mut bench, &mut expected, &[]);
            bench.answer_tx(requests[0].id, 0);
            bench.front.complete_tx();
            said(&mut bench, &mut expected, &[tx]);
            said(&mut bench, &mut expected, &[]);
        }
        bench.assert_sound();
    }
}

/// A frontend that polls all the time, and a backend that sends an event for each packet: each
/// comes when its packet has been taken, and none is held against it.
#[test]
fn p1_polling_all_the_time_against_an_honest_backend_adds_no_delay() {
    use xen_netfront::platform::Spurious;
    let mut bench = Bench::new();
    let port = bench.front.ports().next().unwrap();
    let mut channel = Spurious::new();
    for round in 0..2000 {
        bench.deliver(&[&pattern(1, 60)]);
        // The event is under way while the packet is taken.
        let before = bench.domain.times_handled(port);
        for _ in 0..round % 3 + 1 {
            bench.received();
            assert!(!bench.front.rearm());
        }
        let after = bench.domain.times_handled(port);
        assert_eq!(after.0, before.0 + 1, "said once");
        assert_eq!(after.1, before.1 + round % 3);
        channel.polled(true);
        // Here it comes.
        assert!(!bench.front.rearm());
        let late = bench.domain.times_handled(port);
        assert_eq!(late, (after.0, after.1 + 1));
        assert_eq!(channel.upcall(late.0 > after.0), None);
    }
}
