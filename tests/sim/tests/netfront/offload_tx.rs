//! Offloads to a backend that takes them: nothing is done to a packet, and all is said of it.

use fastrand::Rng;
use packet_views::buffer::{Checksum, Meta};
use packet_views::device::Permit;
use packet_views::features::Features;
use xen_netfront::wire::{Status, TxResponse};

use super::packets::{Flow, MOST_DATA, check};
use super::*;
use xen_netfront::xenbus::feature_nodes;

/// A frontend whose backend takes everything, its ring indices shortly before they wrap.
fn able(before: u32) -> Bench {
    let config = Config::default().with_ring_start(u32::MAX - before).with_rx_floor(64);
    Bench::with(config, &[], &feature_nodes(&Features::ALL))
}

#[test]
fn what_is_known_of_a_checksum_is_told_to_the_backend() {
    let mut bench = able(0);
    for flow in Flow::each_kind(1) {
        for checksum in [Checksum::Unknown, Checksum::Complete, Checksum::Blank] {
            let bytes = match checksum {
                Checksum::Blank => flow.blank(7, &pattern(1, 1000)),
                Checksum::Unknown | Checksum::Complete => flow.packet(7, &pattern(1, 1000)),
            };
            let meta = Meta { checksum, gso: None };
            assert!(bench.send_whole(&bytes, meta));
            let sent = bench.sent();
            assert_eq!((sent.len(), sent[0].meta(), &sent[0].bytes), (1, meta, &bytes));
            check(&sent[0].bytes, meta);
            bench.answer_sent(&sent[0], 0);
            bench.front.complete_tx();
        }
    }
    let counters = bench.front.counters();
    assert_eq!((counters.tx_packets, counters.tx_blank, counters.tx_filled), (12, 4, 0));
    assert_eq!(counters.copied_bytes, 0);
    bench.assert_sound();
    bench.assert_no_leak();
}

/// Random shapes of large packets, round and round the ring.
#[test]
fn gso_chains_wrap_with_the_ring_indices() {
    for before in [0, 1, 5, 18, 255, 256] {
        let mut bench = able(before);
        let mut rng = Rng::with_seed(before.into());
        let mut in_flight = std::collections::VecDeque::new();
        let mut slots = 0;
        for round in 0..60 {
            let flow = Flow::tcp(rng.bool(), round);
            let data = pattern(round.into(), rng.usize(1..=60_000));
            let bytes = flow.blank(rng.u32(..), &data);
            let fewest = bytes.len().div_ceil(4096);
            // Fragments as equal as they can be, as many as there may be.
            let count = rng.usize(fewest..=18);
            let cuts: Vec<usize> = (1..count).map(|nth| nth * bytes.len() / count).collect();
            let meta = flow.meta(rng.u16(1..=9000));
            let packet = bench.packet(&bytes, &cuts, meta);
            while slots + count + 1 > 256 || rng.u8(..3) == 0 && !in_flight.is_empty() {
                let sent = in_flight.pop_front().unwrap();
                bench.answer_sent(&sent, 0);
                assert_eq!(bench.front.complete_tx(), sent.slots());
                slots -= sent.slots();
            }
            assert_eq!(bench.front.room(), 256 - slots);
            assert!(send(&mut bench.front, packet).is_ok());
            bench.front.flush();
            let sent = bench.sent().pop().unwrap();
            assert_eq!((sent.requests.len(), sent.meta()), (count, meta));
            assert_eq!(usize::from(sent.requests[0].size), bytes.len());
            assert!(sent.bytes == bytes, "round {round}");
            check(&sent.bytes, meta);
            slots += sent.slots();
            in_flight.push_back(sent);
            bench.assert_sound();
        }
        for sent in in_flight {
            bench.answer_sent(&sent, 0);
        }
        bench.front.complete_tx();
        let counters = bench.front.counters();
        assert_eq!(
            (counters.tx_gso, counters.tx_packets, counters.tx_slots),
            (60, 60, counters.tx_completed)
        );
        assert_eq!((counters.faults, counters.tx_drops.total(), bench.front.room()), (0, 0, 256));
        bench.assert_no_leak();
    }
}

#[test]
fn the_largest_packet_of_18_fragments_takes_19_slots() {
    let mut bench = able(3);
    for v6 in [false, true] {
        let flow = Flow::tcp(v6, 1);
        let bytes = flow.blank(9, &pattern(1, MOST_DATA));
        assert!(bytes.len() >= 65_515);
        let cuts: Vec<usize> = (1..18).map(|nth| nth * bytes.len() / 18).collect();
        let packet = bench.packet(&bytes, &cuts, flow.meta(1448));
        bench.front.reserve(19).unwrap().send(packet).unwrap();
        bench.front.flush();
        let sent = bench.sent();
        assert_eq!((sent.len(), sent[0].requests.len(), sent[0].slots()), (1, 18, 19));
        assert!(sent[0].bytes == bytes);
        bench.answer_sent(&sent[0], 0);
        assert_eq!(bench.front.complete_tx(), 19);
        // One slot less than it takes: it comes back, and a smaller one goes.
        while bench.front.room() > 18 {
            assert!(bench.send(&[&pattern(5, 60)]));
        }
        let packet = bench.packet(&bytes, &cuts, flow.meta(1448));
        let mut permit = bench.front.reserve(18).unwrap();
        let back = permit.send(packet).unwrap_err().into_packet().unwrap();
        assert_eq!((back.len(), back.meta), (bytes.len(), flow.meta(1448)));
        let mut buf = permit.alloc(0).unwrap();
        buf.append(60).unwrap().fill(1);
        assert!(permit.send_single(buf).is_ok());
        drop(back);
        bench.front.flush();
        for request in bench.tx_requests() {
            bench.answer_tx(request.id, 0);
        }
        bench.front.complete_tx();
        assert_eq!((bench.front.room(), bench.front.counters().tx_drops.total()), (256, 0));
    }
    bench.assert_no_leak();
}

#[test]
fn f4_as_many_null_responses_as_there_are_extras_and_no_more() {
    for extra_nulls in [0, 1] {
        let mut bench = able(2);
        let flow = Flow::tcp(false, 1);
        let mut all = Vec::new();
        for nth in 0..3 {
            assert!(bench.send_whole(&flow.blank(nth, &[1; 5000]), flow.meta(1000)));
            all.extend(bench.sent());
        }
        // A packet whose slots all fail has its extra answered all the same.
        for (nth, sent) in all.iter().enumerate() {
            bench.answer_sent(sent, -(nth as i16));
        }
        assert_eq!(bench.front.complete_tx(), 9);
        let drops = bench.front.counters().tx_drops;
        assert_eq!((drops.backend_error, drops.backend_dropped), (2, 2));
        // Another request is out there, but no extra.
        assert!(bench.send_whole(&flow.packet(0, &[1; 50]), Meta::default()));
        let plain = bench.sent().remove(0);
        if extra_nulls == 0 {
            bench.answer_sent(&plain, 0);
            bench.front.complete_tx();
            assert_eq!(bench.front.link(), Link::Up);
            bench.assert_no_leak();
        } else {
            let tx = &mut bench.rings().tx;
            tx.push(TxResponse { id: 0, status: Status::Null.number() }).unwrap();
            let _ = tx.publish();
            bench.front.complete_tx();
            assert_recovers(&mut bench, 1);
        }
    }
}

#[test]
fn f4_an_extra_of_one_queue_does_not_answer_for_another() {
    let config = Config::default().with_queues(2);
    let nodes = feature_nodes(&Features::ALL);
    let back: Vec<_> = nodes.into_iter().chain([("multi-queue-max-queues", "2")]).collect();
    let mut bench = Bench::with(config, &[], &back);
    let flow = Flow::tcp(false, 1);
    assert!(bench.send_whole(&flow.blank(0, &[1; 5000]), flow.meta(1000)));
    let busy = (0..2).find(|queue| {
        bench.queue = *queue;
        !bench.sent().is_empty()
    });
    bench.queue = 1 - busy.unwrap();
    // A request of its own, so that there is a slot to answer in.
    while bench.sent().is_empty() {
        let port = bench.host.random(|rng| rng.u16(..));
        assert!(bench.send_whole(&Flow::udp(false, port).packet(0, &[1; 50]), Meta::default()));
    }
    let tx = &mut bench.rings().tx;
    tx.push(TxResponse { id: 0, status: Status::Null.number() }).unwrap();
    let _ = tx.publish();
    bench.front.complete_tx();
    bench.queue = 0;
    bench.front.service();
    assert_eq!((bench.front.counters().faults, bench.front.link()), (1, Link::Down));
}

#[test]
fn gso_with_a_complete_checksum_leaves_blank() {
    let mut bench = able(0);
    for v6 in [false, true] {
        let flow = Flow::tcp(v6, 1);
        let data = pattern(3, 20_000);
        let meta = Meta { checksum: Checksum::Complete, ..flow.meta(1400) };
        assert!(bench.send_whole(&flow.packet(5, &data), meta));
        let sent = bench.sent().remove(0);
        assert_eq!(sent.meta(), flow.meta(1400));
        assert_eq!(check(&sent.bytes, sent.meta()).data, data);
    }
    // One whose headers are no TCP.
    let mut bytes = Flow::tcp(false, 1).packet(5, &[1; 3000]);
    bytes[23] = 17;
    let meta = Meta { checksum: Checksum::Unknown, ..Flow::tcp(false, 1).meta(1000) };
    assert!(!bench.send_whole(&bytes, meta), "refused");
    assert_eq!((bench.sent().len(), bench.front.counters().tx_drops.no_gso), (0, 1));
    bench.assert_sound();
}

#[test]
fn a_permit_is_sure_of_its_slots_and_gives_back_what_has_no_room() {
    let mut bench = able(4);
    let flow = Flow::tcp(true, 1);
    let large = flow.blank(0, &pattern(1, 30_000));
    let cuts: Vec<usize> = (4096..large.len()).step_by(4096).collect();
    let meta = flow.meta(1440);
    // Nine slots each, and the last one two.
    let packets: Vec<PacketMut> = (0..4).map(|_| bench.packet(&large, &cuts, meta)).collect();
    let small: Vec<PacketMut> =
        (0..3).map(|_| bench.packet(&flow.packet(1, &[2; 100]), &[54], Meta::default())).collect();
    // Room for no more than is reserved.
    while bench.front.room() > 29 {
        assert!(bench.send(&[&pattern(5, 60)]));
    }
    assert_eq!(bench.tx_requests().len(), 256 - 29);
    let mut permit = bench.front.reserve(29).unwrap();
    let mut back = Vec::new();
    let sent: Vec<bool> = packets
        .into_iter()
        .chain(small)
        .map(|packet| match permit.send(packet) {
            Ok(()) => true,
            Err(error) => {
                back.push(error.into_packet().unwrap().len());
                false
            }
        })
        .collect();
    assert_eq!(sent, [true, true, true, false, true, false, false]);
    bench.front.flush();
    let sent = bench.sent();
    assert_eq!(sent.iter().map(raw_backend::Sent::slots).collect::<Vec<_>>(), [9, 9, 9, 2]);
    let small = flow.packet(1, &[2; 100]).len();
    assert_eq!(back, [large.len(), small, small]);
    assert_eq!(bench.front.counters().tx_drops.total(), 0);
    for sent in &sent {
        bench.answer_sent(sent, 0);
    }
    bench.front.complete_tx();
    assert_eq!(bench.front.room(), 29);
    bench.assert_sound();
    bench.assert_no_leak();
}

#[test]
fn a_packet_that_finds_no_room_comes_back_whole() {
    let mut bench = able(1);
    let flow = Flow::tcp(false, 1);
    let bytes = flow.blank(0, &pattern(1, 50_000));
    let mut sent = Vec::new();
    while bench.send_whole(&bytes, flow.meta(1448)) {
        sent.extend(bench.sent());
    }
    // 13 pages and an extra each.
    assert_eq!((sent.len(), bench.front.room()), (18, 256 - 18 * 14));
    let cuts: Vec<usize> = (4096..bytes.len()).step_by(4096).collect();
    let packet = bench.packet(&bytes, &cuts, flow.meta(1448));
    let back = send(&mut bench.front, packet).unwrap_err().into_packet().unwrap();
    assert_eq!((back.len(), back.meta), (bytes.len(), flow.meta(1448)));
    bench.answer_sent(&sent[0], 0);
    assert!(send(&mut bench.front, back).is_ok(), "it takes back what is done by itself");
    bench.front.flush();
    assert!(bench.sent()[0].bytes == bytes);
    assert_eq!(bench.front.counters().tx_drops.total(), 0);
    bench.assert_sound();
}
