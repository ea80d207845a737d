//! Several queues: each flow keeps to one, all of them are used, and they fail and recover together.

use packet_views::device::Permit;
use std::collections::BTreeMap;

use packet_views::buffer::Meta;
use packet_views::device::NetDevice;
use packet_views::features::Features;

use super::packets::{Flow, check};
use super::*;
use xen_netfront::xenbus::feature_nodes;

fn bench(queues: u32, split: bool) -> Bench {
    let config = Config::default().with_queues(queues).with_split_event_channels(split);
    let nodes = feature_nodes(&Features::ALL).into_iter();
    let able = [("multi-queue-max-queues", "8"), ("feature-split-event-channels", "1")];
    Bench::with(config, &[], &nodes.chain(able).collect::<Vec<_>>())
}

/// What is on each queue's transmit ring; answered.
fn take_all(bench: &mut Bench) -> Vec<Vec<raw_backend::Sent>> {
    let take = |bench: &mut Bench, queue| {
        bench.queue = queue;
        let sent = bench.sent();
        for packet in &sent {
            bench.answer_sent(packet, 0);
        }
        sent
    };
    let sent = (0..bench.queues.len()).map(|queue| take(bench, queue)).collect();
    bench.queue = 0;
    bench.front.complete_tx();
    sent
}

#[test]
fn a_flow_keeps_its_queue_and_its_order_and_all_queues_are_used() {
    let mut bench = bench(4, false);
    let mut rng = fastrand::Rng::with_seed(4);
    let mut next: BTreeMap<Flow, u32> = BTreeMap::new();
    let mut expected: BTreeMap<Flow, u32> = BTreeMap::new();
    let mut queue_of: BTreeMap<Flow, usize> = BTreeMap::new();
    let mut used = [0; 4];
    for round in 0..400 {
        let flow = Flow::tcp(rng.bool(), rng.u16(..40));
        let sequence = next.entry(flow).or_default();
        let data = pattern(round, rng.usize(1..6000));
        let bytes = flow.blank(*sequence, &data);
        *sequence += 1;
        // However it is cut, by whichever way it goes.
        let cuts = match rng.u8(..6) {
            _ if bytes.len() > 4096 => vec![54, 4000],
            0 => vec![14],
            1 => vec![30, 35],
            2 => vec![54],
            3 => vec![1, 2, 3],
            _ => vec![],
        };
        let gso = if bytes.len() > 1514 { 1000 } else { 0 };
        let packet = bench.packet(&bytes, &cuts, flow.meta(gso));
        match rng.u8(..3) {
            0 => {
                let slots = packet_views::device::slots(&packet);
                bench.front.reserve(slots).unwrap().send(packet).unwrap();
            }
            _ => assert!(NetDevice::send(&mut bench.front, packet).is_ok()),
        }
        if rng.u8(..10) > 0 {
            continue;
        }
        bench.front.flush();
        for (queue, sent) in take_all(&mut bench).iter().enumerate() {
            used[queue] += sent.len();
            for packet in sent {
                let arrived = check(&packet.bytes, packet.meta());
                let expected = expected.entry(arrived.flow).or_default();
                assert_eq!(arrived.sequence, *expected, "{:?} on queue {queue}", arrived.flow);
                *expected += 1;
                assert_eq!(*queue_of.entry(arrived.flow).or_insert(queue), queue);
            }
        }
    }
    assert!(used.iter().all(|packets| *packets > 40), "{used:?}");
    assert!(queue_of.len() > 60);
    bench.front.flush();
    bench.assert_sound();
    bench.assert_no_leak();
}

/// A batch and single packets choose the same queue.
#[test]
fn a_batch_spreads_its_packets_too_with_an_event_a_queue() {
    let mut bench = bench(3, true);
    // Of pages posted.
    bench.front.flush();
    let events = bench.front.counters().events_sent;
    let packets: Vec<_> =
        (0..90).map(|port| (port, Flow::udp(true, port).packet(0, &[1; 60]))).collect();
    let mut batch = bench.front.reserve(1).unwrap();
    for (_, bytes) in &packets {
        let mut buf = batch.alloc(0).unwrap();
        buf.append(bytes.len()).unwrap().copy_from_slice(bytes);
        assert!(batch.send_single(buf).is_ok());
    }
    drop(batch);
    bench.front.flush();
    assert_eq!(bench.front.counters().events_sent, events + 3);
    let batched = take_all(&mut bench);
    for (_, bytes) in &packets {
        let buf = bench.packet(bytes, &[], Meta::default()).into_single().unwrap();
        bench.front.reserve(1).unwrap().send_single(buf).unwrap();
    }
    bench.front.flush();
    let single = take_all(&mut bench);
    for (batched, single) in batched.iter().zip(&single) {
        assert!(batched.len() > 10);
        let bytes = |sent: &[raw_backend::Sent]| -> Vec<Vec<u8>> {
            sent.iter().map(|packet| packet.bytes.clone()).collect()
        };
        assert_eq!(bytes(batched), bytes(single));
    }
    bench.assert_sound();
    bench.assert_no_leak();
}

/// A full queue keeps its own flows waiting, and no others; a permit, which is for any flow, waits
/// for it.
#[test]
fn a_full_queue_holds_up_its_own_flows_only() {
    let mut bench = bench(2, false);
    let send = |bench: &mut Bench, port| {
        bench.send_whole(&Flow::udp(false, port).packet(0, &[1; 60]), Meta::default())
    };
    let mut ports = [Vec::new(), Vec::new()];
    for port in 0..40 {
        assert!(send(&mut bench, port));
        let queue = take_all(&mut bench).iter().position(|sent| !sent.is_empty());
        ports[queue.unwrap()].push(port);
    }
    for _ in 0..256 {
        assert!(send(&mut bench, ports[1][0]));
    }
    assert_eq!(bench.front.room(), 0);
    assert!(bench.front.reserve(1).is_none());
    assert!(ports[1].iter().all(|port| !send(&mut bench, *port)));
    assert!(ports[0].iter().all(|port| send(&mut bench, *port)));
    let sent = take_all(&mut bench);
    assert_eq!((sent[0].len(), sent[1].len()), (ports[0].len(), 256));
    assert!(ports[1].iter().all(|port| send(&mut bench, *port)));
    bench.assert_sound();
    bench.assert_no_leak();
}

#[test]
fn one_broken_queue_takes_the_device_down_and_all_of_it_comes_back() {
    use xen_ring::RingPage;
    for queue in 0..4 {
        for ring in ["tx", "rx"] {
            let mut bench = bench(4, true);
            bench.queue = (queue + 1) % 4;
            bench.deliver(&[&pattern(1, 100)]);
            let Rings { tx, rx } = bench.queues.remove(queue);
            let pages = match ring {
                "tx" => [tx.into_page(), rx.into_page()],
                _ => [rx.into_page(), tx.into_page()],
            };
            let [page, other] = pages;
            drop(other);
            page.store(2, page.load(2).wrapping_add(1000));
            bench.queue = 0;
            bench.front.complete_tx();
            let got = bench.received();
            assert!(got.is_empty() || got == [pattern(1, 100)]);
            assert!(bench.front.rearm());
            assert!(!bench.send(&[&pattern(2, 60)]), "no queue sends any more");
            drop(page);
            bench.front.service();
            assert_eq!((bench.front.counters().faults, bench.front.link()), (1, Link::Down));
            bench.connect();
            assert_eq!((bench.queues.len(), bench.front.ports().count()), (4, 8));
            for queue in 0..4 {
                bench.queue = queue;
                bench.assert_receives();
            }
            bench.assert_sound();
            bench.assert_no_leak();
        }
    }
}

#[test]
fn f13_one_silent_queue_among_busy_ones_is_found() {
    let mut bench = bench(3, false);
    let mut port = 0;
    // One packet on the queue that will be silent.
    let silent = 1;
    loop {
        port += 1;
        assert!(bench.send_whole(&Flow::udp(false, port).packet(0, &[1; 60]), Meta::default()));
        bench.queue = silent;
        if bench.tx_requests().len() == 1 {
            break;
        }
    }
    // The others are busy, and are answered.
    for second in 0..12 {
        for more in 0..30 {
            let flow = Flow::udp(true, second * 100 + more);
            let _ = bench.send_whole(&flow.packet(0, &[1; 60]), Meta::default());
        }
        for queue in [0, 2] {
            bench.queue = queue;
            for request in bench.tx_requests() {
                bench.answer_tx(request.id, 0);
            }
            if bench.front.counters().stalls == 0 {
                bench.assert_receives();
            }
        }
        bench.front.complete_tx();
        let stalled = bench.front.counters().stalls;
        assert_eq!(stalled, u64::from(second > 9), "after {second} s");
        if stalled > 0 {
            break;
        }
        bench.pass(SECOND);
    }
    assert_eq!(bench.front_state(), Some(5), "it asks the backend to start over");
    bench.queue = 0;
    bench.connect();
    bench.assert_receives();
    assert_eq!((bench.front.counters().connects, bench.front.counters().faults), (2, 0));
    bench.assert_sound();
    bench.assert_no_leak();
}

/// Each queue keeps some frames for the next packets, but with the pool empty for no flow alone.
#[test]
fn frames_that_another_queue_keeps_are_to_be_had() {
    let config = Config::default().with_queues(2).with_rx_floor(20).with_rx_ceiling(20);
    let vif = Vif::new(FRONT, BACK, 0).back_key("multi-queue-max-queues", "2");
    let mut bench = Bench::on(Host::new(1), vif.back_key("feature-rx-copy", "1"), config, 108);
    bench.connect();
    let mut sent = [0, 0];
    for port in 0..400 {
        assert!(
            bench.send_whole(&Flow::udp(false, port).packet(0, &[1; 60]), Meta::default()),
            "no frame after {sent:?}"
        );
        for (queue, packets) in take_all(&mut bench).iter().enumerate() {
            sent[queue] += packets.len();
        }
    }
    assert!(sent[1] > 100);
    bench.assert_sound();
    bench.assert_no_leak();
}

/// Whatever the budget, no queue is left waiting.
#[test]
fn queues_take_turns_to_be_received_from() {
    let mut bench = bench(4, false);
    for queue in 0..4 {
        bench.queue = queue;
        for nth in 0..40 {
            bench.deliver(&[&pattern(queue as u64 * 100 + nth, 60 + queue)]);
        }
    }
    let mut got = [0; 4];
    for turn in 0..8 {
        let looked = bench.front.receive(5, |packet| got[packet.len() - 60] += 1);
        assert_eq!(looked, 5);
        if turn == 3 {
            assert_eq!(got, [5; 4]);
        }
    }
    assert_eq!(got, [10; 4]);
    bench.assert_sound();
}
