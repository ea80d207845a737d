//! The frontend against a backend that breaks a rule at a time (requirements F1 to F10, F12, F13).
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod raw_backend;

use std::time::Duration;

use raw_backend::{BACK, Bench, FRONT, Rings, pattern};
use xen_grant::DomId;
use xen_netfront::buffer::{RxPacket, TxPacket};
use xen_netfront::netfront::{Config, Link, RxDrops};
use xen_netfront::wire::{Extra, RxResponse, TxRequest, rx_flags};
use xen_sim::{Host, Vif};

const SECOND: Duration = Duration::from_secs(1);

/// After a fault: the link is down, and within a second of an honest backend's coming back
/// packets flow again.
fn assert_recovers(bench: &mut Bench, faults: u64) {
    bench.front.service();
    assert_eq!(bench.front.stats().faults, faults);
    assert_eq!(bench.front.link(), Link::Down);
    let before = bench.host.now();
    bench.connect();
    assert!(
        bench.host.now().since(before) <= SECOND,
        "it took {:?}",
        bench.host.now().since(before)
    );
    bench.assert_receives();
    assert!(bench.send(&[&pattern(5, 60)]));
    assert_eq!(bench.tx_requests().len(), 1);
    bench.assert_sound();
}

#[test]
fn f1_an_impossible_index_on_either_ring_breaks_the_device_until_reconnected() {
    use xen_ring::RingPage;
    for start in [0, u32::MAX - 5] {
        for (ring, by) in [("rx", 257_u32), ("rx", u32::MAX), ("tx", 1), ("tx", 0x8000_0000)] {
            let mut bench =
                Bench::with(Config { ring_start: start, ..Config::default() }, &[], &[]);
            let Rings { tx, rx } = bench.rings.take().unwrap();
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
fn f4_ids_are_answered_once_and_in_range() {
    let wrong: [fn(&[TxRequest]) -> u16; 4] =
        [|_| 256, |_| u16::MAX, |sent| sent[0].id, |sent| (sent[0].id ^ sent[1].id) + 77];
    for pick in wrong {
        let mut bench = Bench::new();
        assert!(bench.send(&[&pattern(1, 60)]) && bench.send(&[&pattern(2, 60)]));
        let sent = bench.tx_requests();
        bench.answer_tx(sent[0].id, 0);
        assert_eq!(bench.front.complete_tx(), 1);
        bench.answer_tx(pick(&sent), 0);
        bench.front.complete_tx();
        assert_recovers(&mut bench, 1);
        bench.assert_no_leak();
    }
}

#[test]
fn f4_a_null_response_without_an_extra_breaks_the_device() {
    let mut bench = Bench::new();
    assert!(bench.send(&[&pattern(1, 60)]));
    bench.tx_requests();
    bench.answer_tx(0xffff, 1);
    bench.front.complete_tx();
    assert_recovers(&mut bench, 1);
}

#[test]
fn f4_errors_and_drops_are_counted_and_not_fatal() {
    let mut bench = Bench::new();
    for (status, _) in [(-1, 0), (-2, 0), (0, 0), (-7, 0), (5, 0)] {
        assert!(bench.send(&[&pattern(1, 60)]));
        let id = bench.tx_requests()[0].id;
        bench.answer_tx(id, status);
        assert_eq!(bench.front.complete_tx(), 1);
    }
    let stats = bench.front.stats();
    assert_eq!((stats.tx_drops.backend_error, stats.tx_drops.backend_dropped), (3, 1));
    assert_eq!((stats.tx_completed, stats.faults), (5, 0));
    assert_eq!(bench.front.link(), Link::Up);
    bench.assert_sound();
    bench.assert_no_leak();
}

#[test]
fn f4_a_receive_response_names_the_request_in_its_slot() {
    let mut bench = Bench::new();
    let request = bench.rx_request();
    bench.answer(RxResponse { id: request.id ^ 1, offset: 0, flags: 0, status: 60 });
    bench.publish_rx();
    assert!(bench.received().is_empty());
    assert_recovers(&mut bench, 1);
    bench.assert_no_leak();
}

#[test]
fn f6_pages_that_the_backend_keeps_go_to_quarantine_and_come_back() {
    let mut bench = Bench::new();
    assert!(bench.send(&[&pattern(1, 60)]));
    let request = bench.tx_requests()[0];
    let kept = bench.back.map_page(FRONT, request.gref, false).unwrap();
    bench.answer_tx(request.id, 0);
    assert_eq!(bench.front.complete_tx(), 1);
    assert_eq!((bench.front.quarantined(), bench.front.stats().quarantined), (1, 1));
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
    bench.rings = None;
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
fn f9_a_bad_packet_is_dropped_and_counted_and_the_next_one_arrives() {
    type Case = (&'static str, fn(&mut Bench), fn(&RxDrops) -> u64);
    fn answer(bench: &mut Bench, offset: u16, flags: u16, status: i16) {
        let request = bench.rx_request();
        bench.answer(RxResponse { id: request.id, offset, flags, status });
    }
    fn extra(bench: &mut Bench, kind: u8, data: [u8; 6]) {
        answer(bench, 0, rx_flags::EXTRA_INFO, 60);
        bench.rx_request();
        bench.answer(Extra { kind, flags: 0, data });
    }
    const MORE: u16 = rx_flags::MORE_DATA;
    let cases: [Case; 12] = [
        ("negative status", |b| answer(b, 0, 0, -1), |d| d.backend_error),
        ("most negative status", |b| answer(b, 0, 0, i16::MIN), |d| d.backend_error),
        ("beyond the page", |b| answer(b, 4000, 0, 97), |d| d.bad_extent),
        ("far beyond the page", |b| answer(b, u16::MAX, 0, i16::MAX), |d| d.bad_extent),
        (
            "19 slots",
            |b| (0..19).for_each(|n| answer(b, 0, if n < 18 { MORE } else { 0 }, 60)),
            |d| d.too_many_slots,
        ),
        ("a missing continuation", |b| answer(b, 0, MORE, 60), |d| d.truncated),
        ("a missing extra", |b| answer(b, 0, rx_flags::EXTRA_INFO, 60), |d| d.truncated),
        ("an extra of no known kind", |b| extra(b, 77, [0; 6]), |d| d.bad_extra),
        ("a hash nobody asked for", |b| extra(b, Extra::HASH, [0; 6]), |d| d.bad_extra),
        ("a GSO size of 0", |b| extra(b, Extra::GSO, [0, 0, 1, 0, 0, 0]), |d| d.bad_extra),
        ("a GSO type of 3", |b| extra(b, Extra::GSO, [1, 0, 3, 0, 0, 0]), |d| d.bad_extra),
        ("a runt", |b| answer(b, 0, 0, 13), |d| d.runt),
    ];
    for (name, play, counter) in cases {
        let mut bench = Bench::new();
        play(&mut bench);
        bench.publish_rx();
        assert!(bench.received().is_empty(), "{name}");
        let drops = bench.front.stats().rx_drops;
        assert_eq!((counter(&drops), drops.total()), (1, 1), "{name}: {drops:?}");
        assert_eq!(bench.front.stats().faults, 0, "{name}");
        // Its slots were recycled: the ring is full again.
        for _ in 0..600 {
            bench.assert_receives();
        }
        bench.assert_sound();
        bench.assert_no_leak();
    }
}

#[test]
fn f10_nothing_is_read_while_the_backend_can_write_it() {
    let mut bench = Bench::new();
    let request = bench.rx_request();
    bench.fill(&request, 0, &pattern(1, 100));
    let kept = bench.back.map_page(FRONT, request.gref, true).unwrap();
    bench.answer(RxResponse { id: request.id, offset: 0, flags: 0, status: 100 });
    bench.publish_rx();
    assert!(bench.received().is_empty(), "a page still in use is not handed up");
    assert_eq!(bench.front.stats().rx_drops.still_in_use, 1);
    assert_eq!(bench.front.quarantined(), 1);
    drop(kept);
    bench.assert_receives();
    bench.assert_sound();
}

#[test]
fn r16_access_has_ended_when_a_packet_is_handed_up() {
    let mut bench = Bench::new();
    bench.deliver(&[&pattern(1, 100), &pattern(2, 100)]);
    let grefs: Vec<u32> = bench.domain.grants().into_iter().map(|(gref, _)| gref).collect();
    let back = bench.back.clone();
    let (mut seen, domain) = (0, bench.domain.clone());
    bench.front.poll_rx(10, |packet: RxPacket| {
        seen += 1;
        // The backend tries every reference that there was.
        let open: Vec<u32> =
            domain.grants().into_iter().filter(|(_, e)| e.permits(BACK)).map(|(g, _)| g).collect();
        for gref in grefs.iter().filter(|gref| **gref >= 8) {
            assert_eq!(back.map_page(FRONT, *gref, true).is_ok(), open.contains(gref));
        }
        assert_eq!(open.len(), grefs.iter().filter(|gref| **gref >= 8).count() - 2);
        drop(packet);
    });
    assert_eq!(seen, 1);
}

#[test]
fn f12_what_was_validated_is_what_is_used() {
    use xen_ring::RingPage;
    // The backend changes the slot while the frontend works on it: what was copied counts.
    let mut bench = Bench::new();
    let packet = pattern(3, 300);
    bench.deliver(&[&packet]);
    bench.deliver(&[&packet]);
    let rings = bench.rings.take().unwrap();
    let page = rings.rx.into_page();
    let mut received = Vec::new();
    bench.front.poll_rx(10, |packet| {
        received.push(raw_backend::bytes(&packet));
        // Slot 0 has been validated and used; rewriting it must change nothing any more.
        page.store(16, 0xffff_ffff);
        page.store(17, 0xffff_ffff);
    });
    assert_eq!(received, [packet.clone(), packet]);
    assert_eq!(bench.front.stats().faults, 0);
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

#[test]
fn packets_that_cannot_be_sent_are_dropped_and_counted() {
    let mut bench = Bench::with(Config::default(), &[("mtu", "1500")], &[("feature-sg", "0")]);
    assert_eq!(bench.front.max_fragments(), 1);
    assert!(bench.send(&[&pattern(1, 1514)]));
    let long = pattern(2, 1519);
    assert!(bench.send(&[&long]));
    bench.front.reserve(1).unwrap().send(TxPacket::new());
    assert!(bench.send(&[&pattern(4, 13)]));
    // Two fragments into room for one.
    let two: TxPacket = [700, 700].into_iter().fold(TxPacket::new(), |mut packet, len| {
        let mut buf = bench.front.buffer(0).unwrap();
        buf.append(len).unwrap().fill(1);
        packet.push(buf).unwrap();
        packet
    });
    bench.front.reserve(1).unwrap().send(two);
    let drops = bench.front.stats().tx_drops;
    assert_eq!((drops.bad_length, drops.too_many_slots, drops.total()), (3, 1, 4));
    assert_eq!(bench.tx_requests().len(), 1);
    bench.assert_sound();
    bench.assert_no_leak();
}

#[test]
fn scatter_gather_of_18_slots_goes_both_ways() {
    let mut bench = Bench::with(Config::default(), &[("mtu", "65000")], &[]);
    let parts: Vec<Vec<u8>> = (0..18).map(|n| pattern(n, 1000 + n as usize)).collect();
    let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    assert!(bench.send(&parts));
    let requests = bench.tx_requests();
    assert_eq!(requests.len(), 18);
    assert_eq!(usize::from(requests[0].size), parts.iter().map(|part| part.len()).sum::<usize>());
    for (n, (request, part)) in requests.iter().zip(&parts).enumerate() {
        assert_eq!(request.flags, if n < 17 { 4 } else { 0 });
        assert!(n == 0 || usize::from(request.size) == part.len());
        assert_eq!(bench.sent_bytes(request, part.len()), *part);
    }
    bench.deliver(&parts);
    assert_eq!(bench.received(), [parts.concat()]);
    for request in requests {
        bench.answer_tx(request.id, 0);
    }
    assert_eq!(bench.front.complete_tx(), 18);
    bench.assert_sound();
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
        assert_eq!(bench.rings().rx.refresh(), Ok(255));
        let request = bench.rx_request();
        assert_ne!(request.gref, lost.gref);
        let packet = pattern(n, 100);
        bench.fill(&request, 0, &packet);
        bench.answer(RxResponse { id: request.id, offset: 0, flags: 0, status: 100 });
        bench.publish_rx();
        assert_eq!(bench.received(), [packet]);
    }
    assert_eq!(bench.front.stats().no_frame, 0);
    bench.assert_sound();
    drop(kept);
    bench.pass(SECOND * 2);
    assert_eq!(bench.front.quarantined(), 0);
    bench.assert_sound();
    bench.assert_no_leak();
}

#[test]
fn a_batch_is_one_event_and_gives_back_what_has_no_room() {
    let mut bench = Bench::new();
    for round in 1..=3 {
        let events = bench.front.stats().events_sent;
        let mut batch = bench.front.batch().unwrap();
        // Too long, and empty: dropped.
        let mut long = batch.buffer(0).unwrap();
        long.append(4000).unwrap();
        assert!(batch.send(long).is_ok());
        let empty = batch.buffer(0).unwrap();
        assert!(batch.send(empty).is_ok());
        let mut sent = 0;
        loop {
            let mut buf = batch.buffer(2).unwrap();
            buf.append(60).unwrap().copy_from_slice(&pattern(sent, 60));
            if let Err(back) = batch.send(buf) {
                assert_eq!(back.len(), 60);
                break;
            }
            sent += 1;
        }
        drop(batch);
        assert_eq!(sent, 256);
        let stats = *bench.front.stats();
        // The backend asked for the first event, and for no other.
        assert_eq!(stats.events_sent, events + u64::from(round == 1));
        assert_eq!(stats.tx_packets, 256 * round);
        assert_eq!(stats.tx_drops.bad_length, 2 * round);
        let requests = bench.tx_requests();
        assert_eq!(requests.len(), 256);
        for (n, request) in requests.iter().enumerate() {
            assert_eq!((request.offset, request.size), (2, 60));
            assert_eq!(bench.sent_bytes(request, 60), pattern(n as u64, 60));
            bench.answer_tx(request.id, 0);
        }
        assert_eq!(bench.front.complete_tx(), 256);
        bench.assert_sound();
    }
    bench.assert_no_leak();
}

#[test]
fn a_blank_checksum_is_filled_in_for_a_backend_without_offload() {
    use xen_netfront::buffer::{Checksum, View};
    use xen_netfront::header::checksum::{Verdict, verify};
    let mut bench = Bench::with(Config::default(), &[], &[("feature-no-csum-offload", "1")]);
    // UDP from 10.0.0.1:1 to 10.0.0.2:2, 4 bytes; the checksum field holds the pseudo-header sum.
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0];
    frame.extend([0x45, 0, 0, 32, 0, 0, 0, 0, 64, 17, 0x66, 0xcb, 10, 0, 0, 1, 10, 0, 0, 2]);
    let pseudo: u32 = 0x0a00 + 0x0001 + 0x0a00 + 0x0002 + 17 + 12;
    frame.extend([0, 1, 0, 2, 0, 12, (pseudo >> 8) as u8, pseudo as u8, 1, 2, 3, 4]);
    let mut buf = bench.front.buffer(0).unwrap();
    buf.append(frame.len()).unwrap().copy_from_slice(&frame);
    let mut packet = TxPacket::from(buf);
    packet.meta.checksum = Checksum::Blank;
    bench.front.reserve(1).unwrap().send(packet);
    bench.front.flush();
    let request = bench.tx_requests()[0];
    assert_eq!(request.flags & 1, 0, "not blank any more");
    let sent = bench.sent_bytes(&request, frame.len());
    assert_ne!(sent, frame);
    let mut check = bench.front.buffer(0).unwrap();
    check.append(sent.len()).unwrap().copy_from_slice(&sent);
    assert_eq!(check.bytes().len(), sent.len());
    assert_eq!(verify(&TxPacket::from(check)), Verdict::Right);

    // One whose headers make no sense can't be filled in.
    let mut buf = bench.front.buffer(0).unwrap();
    buf.append(60).unwrap().fill(0xff);
    let mut packet = TxPacket::from(buf);
    packet.meta.checksum = Checksum::Blank;
    bench.front.reserve(1).unwrap().send(packet);
    assert_eq!(bench.front.stats().tx_drops.bad_checksum, 1);
    bench.assert_sound();
}

#[test]
fn r14_memory_is_bounded_and_a_layer_that_keeps_its_packets_starves_only_itself() {
    let vif = Vif::new(FRONT, BACK, 0).back_key("feature-sg", "1").back_key("feature-rx-copy", "1");
    let mut bench = Bench::on(Host::new(1), vif, raw_backend::full_ring(), 300);
    bench.connect();
    let mut kept = Vec::new();
    // The ring's 256 pages, and what else the pool has but for the rings' two.
    for n in 0..298 {
        bench.deliver(&[&pattern(n, 100)]);
        bench.front.poll_rx(10, |packet| kept.push(packet));
    }
    assert_eq!((kept.len(), bench.pool.free()), (298, 0));
    bench.rings().rx.refresh().unwrap();
    assert!(bench.rings().rx.pop().is_none(), "no page is left to post");
    assert!(bench.front.stats().no_frame > 0);
    assert!(!bench.send(&[&pattern(1, 60)]), "nor one to send");
    let soon = bench.front.next_deadline().unwrap();
    assert!(soon.since(bench.host.now()) <= Duration::from_millis(10), "it looks again by itself");
    for (n, packet) in kept.iter().enumerate() {
        assert_eq!(raw_backend::bytes(packet), pattern(n as u64, 100), "what was kept is intact");
    }
    kept.clear();
    bench.pass(Duration::from_millis(20));
    bench.assert_receives();
    assert!(bench.send(&[&pattern(1, 60)]));
    assert!(bench.pool.high_water() <= bench.pool.size());
    bench.assert_sound();
    bench.assert_no_leak();
}
