//! Transmit: responses, requests, packets that can and cannot be sent.

use packet_views::device::Permit;
use packet_views::device::{SendError, SendErrorKind};

use super::*;

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
    let counters = bench.front.counters();
    assert_eq!((counters.tx_drops.backend_error, counters.tx_drops.backend_dropped), (3, 1));
    assert_eq!((counters.tx_completed, counters.faults), (5, 0));
    assert_eq!(bench.front.link(), Link::Up);
    bench.assert_sound();
    bench.assert_no_leak();
}

#[test]
fn packets_that_cannot_be_sent_are_dropped_and_counted() {
    let mut bench = Bench::with(Config::default(), &[("mtu", "1500")], &[("feature-sg", "0")]);
    assert_eq!(bench.front.max_fragments(), 1);
    assert!(bench.send(&[&pattern(1, 1514)]));
    let long = pattern(2, 1519);
    assert!(bench.send(&[&long]));
    let refused = bench.front.reserve(1).unwrap().send(PacketMut::new());
    assert_eq!(refused.unwrap_err().why(), Some(SendErrorKind::TooShort));
    assert!(bench.send(&[&pattern(4, 13)]));
    let drops = bench.front.counters().tx_drops;
    assert_eq!((drops.bad_length, drops.total()), (3, 3));
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
fn a_batch_is_one_event_and_gives_back_what_has_no_room() {
    let mut bench = Bench::new();
    for round in 1..=3 {
        let events = bench.front.counters().events_sent;
        let mut batch = bench.front.reserve(1).unwrap();
        // Too long, and empty.
        let mut long = batch.alloc(0).unwrap();
        long.append(4000).unwrap();
        assert!(batch.send_single(long).unwrap_err().why() == Some(SendErrorKind::TooLong));
        let empty = batch.alloc(0).unwrap();
        assert!(batch.send_single(empty).unwrap_err().why() == Some(SendErrorKind::TooShort));
        let mut sent = 0;
        loop {
            let mut buf = batch.alloc(2).unwrap();
            buf.append(60).unwrap().copy_from_slice(&pattern(sent, 60));
            if let Err(back) = batch.send_single(buf) {
                assert_eq!(back.into_packet().unwrap().len(), 60);
                break;
            }
            sent += 1;
        }
        drop(batch);
        bench.front.flush();
        assert_eq!(sent, 256);
        let counters = *bench.front.counters();
        // The backend asked for the first event, and for no other.
        assert_eq!(counters.events_sent, events + u64::from(round == 1));
        assert_eq!(counters.tx_packets, 256 * round);
        assert_eq!(counters.tx_drops.bad_length, 2 * round);
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

/// Each way to send has the same bounds: an Ethernet header, and what the MTU of this connection allows.
#[test]
fn no_way_to_send_is_past_the_mtu() {
    fn why<P>(sent: Result<(), SendError<P>>) -> Result<(), SendErrorKind> {
        sent.map_err(|error| error.why().expect("there is room"))
    }
    let single = |bench: &mut Bench, len: usize| {
        let mut permit = bench.front.reserve(1).unwrap();
        let mut buf = permit.alloc(0).unwrap();
        buf.append(len).unwrap().fill(1);
        why(permit.send_single(buf))
    };
    let whole = |bench: &mut Bench, len: usize| {
        let packet = bench.packet(&vec![1; len], &[], Default::default());
        why(bench.front.reserve(1).unwrap().send(packet))
    };
    let cut = |bench: &mut Bench, len: usize| {
        let packet = bench.packet(&vec![1; len], &[len / 2], Default::default());
        why(bench.front.send(packet))
    };
    type Way = fn(&mut Bench, usize) -> Result<(), SendErrorKind>;
    let ways: [Way; 3] = [single, whole, cut];
    let mut bench = Bench::new();
    // What is allowed changes with the connection.
    for mtu in [1500, 68, 3000, 1280] {
        bench.set_state(6);
        bench.queues.clear();
        bench.pass(Duration::from_millis(100));
        let node = format!("{}/mtu", bench.vif.front_dir());
        bench.toolstack.store().set(&node, &mtu.to_string());
        bench.connect();
        // With the tag of a VLAN.
        let longest = mtu + 18;
        for way in ways {
            let before = bench.front.counters().tx_drops.bad_length;
            assert_eq!(way(&mut bench, 13), Err(SendErrorKind::TooShort));
            assert_eq!(way(&mut bench, longest + 1), Err(SendErrorKind::TooLong), "{mtu}");
            assert_eq!(way(&mut bench, 4096), Err(SendErrorKind::TooLong), "{mtu}");
            assert_eq!(bench.front.counters().tx_drops.bad_length, before + 3);
            for len in [14, longest] {
                assert_eq!(way(&mut bench, len), Ok(()), "{mtu}");
                bench.front.flush();
                assert_eq!(usize::from(bench.tx_requests()[0].size), len);
            }
        }
    }
    bench.assert_sound();
    bench.assert_no_leak();
}
