//! Receive: bad packets, and what is read when.

use super::*;

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
        let drops = bench.front.counters().rx_drops;
        assert_eq!((counter(&drops), drops.total()), (1, 1), "{name}: {drops:?}");
        assert_eq!(bench.front.counters().faults, 0, "{name}");
        // Its slots were recycled: the ring is full again.
        for _ in 0..600 {
            bench.assert_receives();
        }
        bench.assert_sound();
        bench.assert_no_leak();
    }
}

/// However it is cut, a packet has an Ethernet header or is none.
#[test]
fn f9_a_runt_of_several_slots_is_a_runt() {
    let mut bench = Bench::new();
    let size = std::num::NonZeroU16::new(1448).unwrap();
    let gso = packet_views::buffer::Gso { size, kind: packet_views::buffer::GsoKind::TcpV4 };
    let cuts: [&[usize]; 10] = [
        &[6, 7],
        &[0, 13],
        &[13, 0],
        &[0, 0],
        &[1; 13],
        &[6, 8],
        &[0, 14],
        &[14, 0],
        &[1; 14],
        &[13, 1],
    ];
    let mut runts = 0;
    for cut in cuts {
        for extras in [&[][..], &[Extra::from_gso(gso)]] {
            let parts: Vec<Vec<u8>> = cut.iter().map(|len| vec![7; *len]).collect();
            let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
            bench.deliver_with(&parts, rx_flags::CSUM_BLANK, extras);
            let whole = parts.concat();
            if whole.len() < 14 {
                runts += 1;
                assert_eq!(bench.received(), [[0; 0]; 0], "{cut:?}");
            } else {
                assert_eq!(bench.received(), [whole], "{cut:?}");
            }
            let drops = bench.front.counters().rx_drops;
            assert_eq!((drops.runt, drops.total()), (runts, runts), "{cut:?}");
        }
    }
    bench.assert_receives();
    bench.assert_sound();
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
    assert_eq!(bench.front.counters().rx_drops.still_in_use, 1);
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
    bench.front.receive(10, |packet: Packet| {
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
    let rings = bench.take_rings();
    let page = rings.rx.into_page();
    let mut received = Vec::new();
    bench.front.receive(10, |packet| {
        received.push(raw_backend::bytes(&packet));
        // Slot 0 has been validated and used; rewriting it must change nothing any more.
        page.store(16, 0xffff_ffff);
        page.store(17, 0xffff_ffff);
    });
    assert_eq!(received, [packet.clone(), packet]);
    assert_eq!(bench.front.counters().faults, 0);
}

/// The bound of what is received is one, with GSO and without: an IP packet of 65,535 bytes, as Linux's
/// GRO makes it, in Ethernet with two tags.
#[test]
fn one_bound_for_the_length_of_what_is_received() {
    use packet_views::buffer::{Gso, GsoKind, MAX_FRAME};
    let size = std::num::NonZeroU16::new(1448).unwrap();
    let gso = Extra::from_gso(Gso { size, kind: GsoKind::TcpV4 });
    let all = pattern(1, 18 * 4096);
    for (len, taken) in [
        (65_535, true),
        (65_549, true),
        (MAX_FRAME, true),
        (MAX_FRAME + 1, false),
        (18 * 4096, false),
    ] {
        for with_gso in [false, true] {
            let mut bench = Bench::new();
            let parts: Vec<&[u8]> = all[..len].chunks(4096).collect();
            if with_gso {
                let flags = rx_flags::CSUM_BLANK | rx_flags::DATA_VALIDATED;
                bench.deliver_with(&parts, flags, &[gso]);
            } else {
                bench.deliver(&parts);
            }
            let lengths: Vec<usize> = bench.received().iter().map(Vec::len).collect();
            assert_eq!(lengths, if taken { vec![len] } else { vec![] });
            let drops = bench.front.counters().rx_drops;
            assert_eq!((drops.too_long, drops.total()), (u64::from(!taken), u64::from(!taken)));
            bench.assert_receives();
            bench.assert_sound();
        }
    }
}
