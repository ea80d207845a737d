//! Offloads from the backend: what it says of a packet is handed up with it, unless that makes no
//! sense.

use fastrand::Rng;
use packet_views::buffer::{Checksum, Meta};
use packet_views::buffer::{Gso, GsoKind};
use packet_views::features::Features;

use super::packets::{Flow, MOST_DATA, check};
use super::*;

const BLANK: u16 = rx_flags::CSUM_BLANK | rx_flags::DATA_VALIDATED;

fn bench(features: Features) -> Bench {
    Bench::with(raw_backend::full_ring().with_features(features), &[], &[])
}

fn pages(bytes: &[u8]) -> Vec<&[u8]> {
    bytes.chunks(4096).collect()
}

fn extra(size: u16, kind: GsoKind) -> Extra {
    Extra::from_gso(Gso { size: size.try_into().unwrap(), kind })
}

/// The ring is as good as new: every slot is posted again.
#[track_caller]
fn assert_whole(bench: &mut Bench) {
    for _ in 0..300 {
        bench.assert_receives();
    }
    // Pages are posted several at a time.
    let posted = bench.rings().rx.refresh().unwrap();
    assert!((224..=256).contains(&posted), "{posted} pages are posted");
    assert_eq!(bench.front.counters().faults, 0);
    bench.assert_sound();
}

#[test]
fn what_the_backend_says_of_a_checksum_is_handed_up() {
    let mut bench = bench(Features::ALL);
    let validated = rx_flags::DATA_VALIDATED;
    let states = [
        (0, Checksum::Unknown),
        (validated, Checksum::Complete),
        (BLANK, Checksum::Blank),
        // It implies the other one.
        (rx_flags::CSUM_BLANK, Checksum::Blank),
    ];
    for flow in Flow::each_kind(1) {
        for (flags, checksum) in states {
            for size in [10, 1400, 9000] {
                let data = pattern(2, size);
                let bytes = match checksum {
                    Checksum::Blank => flow.blank(1, &data),
                    Checksum::Unknown | Checksum::Complete => flow.packet(1, &data),
                };
                bench.deliver_with(&pages(&bytes), flags, &[]);
                let got = bench.received_with_meta();
                assert_eq!(got, [(bytes, Meta { checksum, gso: None })]);
                check(&got[0].0, got[0].1);
            }
        }
    }
    assert_whole(&mut bench);
}

#[test]
fn large_packets_are_handed_up_whole_and_blank() {
    let mut bench = bench(Features::ALL);
    for v6 in [false, true] {
        let flow = Flow::tcp(v6, 1);
        for size in [1, 4042, 4043, 20_000, MOST_DATA] {
            let data = pattern(2, size);
            for said in [BLANK, rx_flags::DATA_VALIDATED, 0] {
                let before = *bench.front.counters();
                let bytes = match said {
                    BLANK => flow.blank(1, &data),
                    _ => flow.packet(1, &data),
                };
                bench.deliver_with(&pages(&bytes), said, &[extra(1448, flow.gso_kind())]);
                let got = bench.received_with_meta();
                assert_eq!((got.len(), got[0].1), (1, flow.meta(1448)));
                let arrived = check(&got[0].0, got[0].1);
                assert!(arrived.flow == flow && arrived.data == data);
                let after = bench.front.counters();
                assert_eq!(after.rx_gso - before.rx_gso, 1);
                let made = u64::from(said != BLANK);
                assert_eq!(after.rx_made_blank - before.rx_made_blank, made, "{said}");
            }
        }
    }
    assert_eq!(bench.front.counters().rx_drops.total(), 0);
    assert_whole(&mut bench);
}

#[test]
fn f9_gso_of_a_kind_that_was_not_asked_for_is_dropped() {
    let none = Features::NONE.with_scatter_gather(true);
    let only = |v6: bool| {
        none.with_checksum_v4(true).with_checksum_v6(true).with_gso_v4(!v6).with_gso_v6(v6)
    };
    for features in [only(false), only(true), none, Features::ALL] {
        let mut bench = bench(features);
        let mut dropped = 0;
        for v6 in [false, true] {
            let flow = Flow::tcp(v6, 1);
            let bytes = flow.blank(1, &pattern(2, 9000));
            bench.deliver_with(&pages(&bytes), BLANK, &[extra(1448, flow.gso_kind())]);
            let asked = features.takes_gso(flow.gso_kind());
            assert_eq!(bench.received().len(), usize::from(asked));
            dropped += u64::from(!asked);
            let drops = bench.front.counters().rx_drops;
            assert_eq!((drops.bad_extra, drops.total()), (dropped, dropped));
        }
        assert_whole(&mut bench);
    }
}

#[test]
fn f9_a_gso_extra_that_makes_no_sense_costs_its_packet() {
    let raw = |data| Extra { kind: Extra::GSO, flags: 0, data };
    let good = extra(1448, GsoKind::TcpV4);
    let more = |extra: Extra| Extra { flags: Extra::MORE, ..extra };
    let hash = Extra { kind: Extra::HASH, flags: 0, data: [1; 6] };
    let cases: [(&str, Vec<Extra>); 8] = [
        ("size 0", vec![raw([0, 0, 1, 0, 0, 0])]),
        ("type 0", vec![raw([0, 4, 0, 0, 0, 0])]),
        ("type 3", vec![raw([0, 4, 3, 0, 0, 0])]),
        ("type 255", vec![raw([0, 4, 255, 0, 0, 0])]),
        ("twice", vec![more(good), good]),
        ("with a hash", vec![more(good), hash]),
        ("behind a hash", vec![more(hash), good]),
        ("a good one, then nonsense", vec![more(good), raw([0, 0, 1, 0, 0, 0])]),
    ];
    for (name, extras) in cases {
        let mut bench = bench(Features::ALL);
        let flow = Flow::tcp(false, 1);
        for size in [100, 9000] {
            let bytes = flow.blank(1, &pattern(2, size));
            bench.deliver_with(&pages(&bytes), BLANK, &extras);
            assert_eq!(bench.received(), Vec::<Vec<u8>>::new(), "{name}");
        }
        let drops = bench.front.counters().rx_drops;
        assert_eq!((drops.bad_extra, drops.total()), (2, 2), "{name}");
        assert_whole(&mut bench);
    }
}

/// Without a blank checksum one has to be made, which takes headers that are what they are said
/// to be.
#[test]
fn f9_large_packets_without_their_headers_are_dropped() {
    let mut bench = bench(Features::ALL);
    let flow = Flow::tcp(false, 1);
    let good = flow.packet(1, &pattern(2, 9000));
    let changed = |at: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[at] = value;
        bytes
    };
    let wrong = [
        changed(23, 17),   // UDP
        changed(12, 0x86), // no IP
        changed(14, 0x44), // headers shorter than they can be
        changed(16, 0xff), // longer than the packet
        changed(46, 0x40), // TCP's too short
        Flow::tcp(true, 1).packet(1, &pattern(2, 9000)),
        pattern(3, 9000),
    ];
    for (nth, bytes) in wrong.iter().enumerate() {
        bench.deliver_with(&pages(bytes), 0, &[extra(1448, GsoKind::TcpV4)]);
        assert_eq!(bench.received().len(), 0, "{nth}");
    }
    assert_eq!(bench.front.counters().rx_drops.bad_extra, wrong.len() as u64);
    // A packet that ends before its headers do.
    bench.deliver_with(&[&good[..40]], 0, &[extra(1448, GsoKind::TcpV4)]);
    assert_eq!(bench.received().len(), 0);
    assert_whole(&mut bench);
}

/// 18 pages and an extra, round and round the ring.
#[test]
fn received_gso_chains_wrap_with_the_ring_indices() {
    for before in [0, 3, 18, 255] {
        let config = raw_backend::full_ring().with_ring_start(u32::MAX - before);
        let mut bench = Bench::with(config, &[], &[]);
        let mut rng = Rng::with_seed(before.into());
        for round in 0..40 {
            let flow = Flow::tcp(rng.bool(), round);
            let data = pattern(round.into(), rng.usize(1..=MOST_DATA));
            let bytes = flow.blank(rng.u32(..), &data);
            // As few parts as there can be, or all 18.
            let part = if rng.bool() { 4096 } else { bytes.len().div_ceil(18) };
            let parts: Vec<&[u8]> = bytes.chunks(part).collect();
            let gso = rng.bool();
            let size = if gso { rng.u16(1..) } else { 0 };
            let extras = [extra(size.max(1), flow.gso_kind())];
            bench.deliver_with(&parts, BLANK, if gso { &extras } else { &[] });
            let got = bench.received_with_meta();
            assert_eq!(got.len(), 1, "round {round}");
            assert_eq!(got[0].1, flow.meta(size));
            assert!(got[0].0 == bytes, "round {round}");
        }
        assert_eq!(bench.front.counters().rx_drops.total(), 0);
        assert_whole(&mut bench);
        bench.assert_no_leak();
    }
}
