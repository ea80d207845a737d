//! Bounds that are asked for: bytes in flight, and pages posted.

use packet_views::buffer::Meta;
use packet_views::device::{NetDevice, SendError, SendErrorKind};
use packet_views::features::Features;

use super::packets::Flow;
use super::*;
use xen_netfront::xenbus::feature_nodes;

#[test]
fn no_more_bytes_are_in_flight_than_are_allowed_and_a_packet() {
    for (limit, size) in [(10_000, 1514), (1, 1514), (3028, 1514), (0, 60), (200_000, 1514)] {
        let config = Config::default().with_tx_bytes(Some(limit));
        let mut bench = Bench::with(config, &[], &[]);
        // With less than the limit in flight another one may go.
        let most = (limit.max(1) as usize).div_ceil(size).min(256);
        let mut sent = 0;
        for round in 0..20 {
            while bench.send(&[&pattern(round, size)]) {
                sent += 1;
            }
            assert_eq!(sent, most, "{limit} bytes, round {round}");
            assert_eq!(bench.front.room(), 0);
            // Half of them are answered, at least one.
            let requests = bench.tx_requests();
            let (done, late) = requests.split_at(requests.len() / 2 + 1);
            for request in late.iter().chain(done) {
                bench.answer_tx(request.id, 0);
            }
            assert_eq!(bench.front.complete_tx(), requests.len());
            sent = 0;
        }
        assert_eq!(bench.front.counters().tx_drops.total(), 0);
        bench.assert_sound();
        bench.assert_no_leak();
    }
}

/// A large packet counts with all its bytes, and one goes in any case.
#[test]
fn large_packets_count_with_all_their_bytes() {
    let config = Config::default().with_tx_bytes(Some(100_000));
    let mut bench = Bench::with(config, &[], &feature_nodes(&Features::ALL));
    let flow = Flow::tcp(true, 1);
    let bytes = flow.blank(0, &pattern(1, 60_000));
    assert!(bench.send_whole(&bytes, flow.meta(1440)));
    assert!(bench.send_whole(&bytes, flow.meta(1440)), "there was room for a byte");
    assert!(!bench.send_whole(&flow.packet(0, &[1]), Meta::default()));
    let sent = bench.sent();
    assert_eq!(sent.len(), 2);
    // A slot at a time: the ring has room all along, the bytes do not.
    for (nth, request) in sent[0].requests.iter().enumerate() {
        let full = bench.front.reserve(1).is_none();
        // 120,148 in flight; below 100,000 after five pages of 4096.
        assert_eq!(full, nth < 5, "{nth}");
        bench.answer_tx(request.id, 0);
        if nth == 0 {
            bench.answer_tx(0xffff, 1);
        }
        bench.front.complete_tx();
    }
    bench.assert_sound();
}

/// The limit is of each connection's, and nothing of an earlier one counts.
#[test]
fn bytes_of_a_connection_that_is_gone_do_not_count() {
    let config = Config::default().with_tx_bytes(Some(5000));
    let mut bench = Bench::with(config, &[], &[]);
    while bench.send(&[&pattern(1, 1514)]) {}
    bench.queues.clear();
    bench.set_state(6);
    bench.pass(SECOND);
    bench.connect();
    let mut sent = 0;
    while bench.send(&[&pattern(1, 1514)]) {
        sent += 1;
    }
    assert_eq!(sent, 4);
    bench.assert_sound();
}

/// Pages that lie on the receive ring for the backend to fill.
fn posted(bench: &mut Bench) -> usize {
    bench.rings().rx.refresh().unwrap() as usize
}

/// The largest packet and two extras: a ring never has fewer pages to post.
const LARGEST: usize = 20;

/// Pages that a device always has to send with.
const SENDING: usize = 64;

/// So many pages are to be posted. That is done an eighth at a time.
#[track_caller]
fn assert_posted(bench: &mut Bench, target: usize) {
    let posted = posted(bench);
    let least = (target - target / 8).max(18);
    assert!((least..=target).contains(&posted), "{posted} of {target} pages are posted");
}

#[test]
fn the_receive_ring_follows_traffic_between_floor_and_ceiling() {
    let cases =
        [(64, 256), (20, 40), (20, 256), (0, 0), (300, 5), (100, 100), (u16::MAX, u16::MAX)];
    for (rx_floor, rx_ceiling) in cases {
        let config = Config::default().with_rx_floor(rx_floor).with_rx_ceiling(rx_ceiling);
        let mut bench = Bench::with(config, &[], &[]);
        // The largest packet must fit.
        let ceiling = usize::from(rx_ceiling).clamp(LARGEST, 256);
        let floor = usize::from(rx_floor).clamp(LARGEST, ceiling);
        assert_posted(&mut bench, floor);
        // All that is posted is used, again and again.
        for _ in 0..6 {
            for _ in 0..posted(&mut bench) {
                bench.deliver(&[&pattern(1, 60)]);
            }
            bench.received();
            assert!(posted(&mut bench) <= ceiling);
        }
        assert_posted(&mut bench, ceiling);
        assert_eq!(bench.front.counters().no_frame, 0);
        // A packet at a time.
        for _ in 0..2000 {
            bench.assert_receives();
        }
        assert_posted(&mut bench, floor);
        bench.assert_sound();
        let in_use = bench.pool.size() - bench.pool.free();
        // Besides them the rings' two, and those kept to send with.
        assert!(in_use <= floor + 3 + SENDING, "{in_use} pages in use");
        bench.assert_no_leak();
    }
}

/// A large packet takes 18 slots and one for its extra, which the floor leaves room for.
#[test]
fn a_large_packet_fits_the_smallest_ring_of_pages() {
    let config = Config::default().with_rx_floor(0).with_rx_ceiling(256);
    let mut bench = Bench::with(config, &[], &[]);
    let flow = Flow::tcp(false, 1);
    let bytes = flow.blank(0, &pattern(1, 65_000));
    let gso = flow.meta(1448).gso.unwrap();
    let pages: Vec<&[u8]> = bytes.chunks(4096).collect();
    for _ in 0..3 {
        let blank = rx_flags::CSUM_BLANK | rx_flags::DATA_VALIDATED;
        bench.deliver_with(&pages, blank, &[Extra::from_gso(gso)]);
        assert!(bench.received() == [bytes.clone()]);
    }
    bench.assert_sound();
}

#[test]
fn a_backend_that_takes_large_packets_may_be_sent_longer_ones_than_the_mtu() {
    let mut bench =
        Bench::with(Config::default(), &[("mtu", "1500")], &feature_nodes(&Features::ALL));
    let flow = Flow::tcp(false, 1);
    let long = flow.blank(0, &pattern(1, 3000));
    assert!(bench.send_whole(&long, flow.meta(1448)));
    for cuts in [&[][..], &[1000]] {
        let long = bench.packet(&long, cuts, flow.meta(0));
        let refused = NetDevice::send(&mut bench.front, long).unwrap_err();
        assert!(matches!(refused, SendError::Refused(SendErrorKind::TooLong)));
    }
    assert_eq!((bench.sent().len(), bench.front.counters().tx_drops.bad_length), (1, 2));
}

/// What was reserved is sure, with a limit of bytes in flight too.
#[test]
fn n4_a_permit_is_sure_of_its_slots_with_a_limit_of_bytes() {
    use packet_views::device::Permit;
    let config = Config::default().with_tx_bytes(Some(1000));
    let mut bench = Bench::with(config, &[], &[]);
    let packet = |front: &mut Front| {
        let mut buf = front.alloc(0).unwrap();
        buf.append(1514).unwrap().fill(1);
        PacketMut::from(buf)
    };
    let both = [packet(&mut bench.front), packet(&mut bench.front)];
    let mut permit = bench.front.reserve(2).unwrap();
    let sent = both.map(|packet| permit.send(packet).is_ok());
    assert_eq!(sent, [true, true]);
}

/// And a burst of single fragments keeps to the limit as others do.
#[test]
fn n4_a_burst_of_single_fragments_keeps_to_the_limit_of_bytes() {
    use packet_views::device::Permit;
    let config = Config::default().with_tx_bytes(Some(3000));
    let mut bench = Bench::with(config, &[], &[]);
    let mut sent = 0;
    let mut burst = bench.front.reserve(0).unwrap();
    while let Some(mut buf) = burst.alloc(0) {
        buf.append(1514).unwrap().fill(1);
        if burst.send_single(buf).is_err() {
            break;
        }
        sent += 1;
    }
    assert_eq!(sent, 2);
}
