//! What the backend does not take, done by the frontend: checksums filled in, fragments gathered,
//! large packets cut.

use fastrand::Rng;
use packet_views::buffer::{Checksum, Meta};
use packet_views::device::Permit;
use packet_views::device::{SendError, SendErrorKind};
use packet_views::features::Features;
use packet_views::header::checksum::ChecksumError;
use packet_views::offload::GsoError;
use xen_netfront::netfront::Counters;

use super::packets::{Flow, HEADERS, check, join};
use super::*;
use xen_netfront::xenbus::feature_nodes;

/// A backend that takes this, and packets of any length.
fn backend(features: Features) -> Bench {
    Bench::with(raw_backend::full_ring(), &[("mtu", "65000")], &feature_nodes(&features))
}

const SG: Features = Features::NONE.with_scatter_gather(true);

/// All that is sent now, as it is on the ring. Answered, so that there is room again.
fn take_all(bench: &mut Bench) -> Vec<(Vec<u8>, Meta)> {
    bench.front.flush();
    let sent = bench.sent();
    for packet in &sent {
        bench.answer_sent(packet, 0);
    }
    bench.front.complete_tx();
    sent.into_iter().map(|packet| (packet.meta(), packet.bytes)).map(|(m, b)| (b, m)).collect()
}

#[test]
fn blank_checksums_are_filled_in_where_the_backend_takes_none() {
    for (v4, v6) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut bench = backend(SG.with_checksum_v4(v4).with_checksum_v6(v6));
        let mut rng = Rng::with_seed(1);
        let mut filled = 0;
        for round in 0..200_u16 {
            let flow = Flow::each_kind(round)[usize::from(round) % 4];
            let data = pattern(round.into(), rng.usize(0..3000));
            let bytes = flow.blank(5, &data);
            // Anywhere behind the headers.
            let mut cuts: Vec<usize> = (0..rng.usize(..5))
                .map(|_| rng.usize(HEADERS..=bytes.len().max(HEADERS)))
                .collect();
            cuts.retain(|at| *at <= bytes.len());
            cuts.sort_unstable();
            let packet = bench.packet(&bytes, &cuts, flow.meta(0));
            let Ok(()) = send(&mut bench.front, packet) else { panic!("no room") };
            let sent = take_all(&mut bench);
            assert_eq!(sent.len(), 1, "round {round}");
            let is_filled = !(if flow.v6 { v6 } else { v4 });
            filled += u64::from(is_filled);
            let state = if is_filled { Checksum::Complete } else { Checksum::Blank };
            assert_eq!(sent[0].1.checksum, state, "round {round}");
            let arrived = check(&sent[0].0, sent[0].1);
            assert!(arrived.flow == flow && arrived.data == data, "round {round}");
        }
        let counters = bench.front.counters();
        assert_eq!((counters.tx_filled, counters.tx_blank), (filled, 200 - filled));
        assert_eq!((counters.copied_bytes, counters.tx_drops.total()), (0, 0));
        bench.assert_sound();
        bench.assert_no_leak();
    }
}

/// The headers, and the field too, may be cut anywhere.
#[test]
fn a_blank_checksum_is_filled_in_behind_cut_headers() {
    let mut bench = backend(SG);
    for flow in Flow::each_kind(1) {
        for cut in 1..90 {
            let packet = bench.packet(&flow.blank(0, &[1; 500]), &[cut, cut + 1], flow.meta(0));
            send(&mut bench.front, packet).unwrap();
            let sent = take_all(&mut bench);
            assert_eq!((sent.len(), sent[0].1.checksum), (1, Checksum::Complete));
            assert_eq!(check(&sent[0].0, sent[0].1).data, [1; 500], "{flow:?} {cut}");
        }
    }
    assert_eq!(bench.front.counters().tx_drops.total(), 0);
    bench.assert_sound();
    bench.assert_no_leak();
}

#[test]
fn fragments_are_gathered_where_the_backend_takes_one() {
    for features in [Features::NONE, Features::NONE.with_checksum_v4(true)] {
        let mut bench = backend(features);
        let flow = Flow::tcp(false, 1);
        for (count, size) in [(2, 60), (3, 1400), (18, 3000), (2, 4042)] {
            let data = pattern(1, size);
            let bytes = flow.blank(0, &data);
            assert!(bytes.len() <= 4096);
            let cuts: Vec<usize> = (1..count).map(|nth| nth * bytes.len() / count).collect();
            let before = *bench.front.counters();
            let packet = bench.packet(&bytes, &cuts, flow.meta(0));
            assert!(send(&mut bench.front, packet).is_ok());
            let sent = take_all(&mut bench);
            assert_eq!(sent.len(), 1);
            assert_eq!(check(&sent[0].0, sent[0].1).data, data);
            let after = bench.front.counters();
            assert_eq!(after.tx_slots - before.tx_slots, 1, "one slot");
            assert_eq!(after.tx_gathered - before.tx_gathered, 1);
            assert_eq!(after.copied_bytes - before.copied_bytes, bytes.len() as u64);
        }
        // One byte more than a page.
        let bytes = flow.packet(0, &pattern(1, 4043));
        let packet = bench.packet(&bytes, &[54], Meta::default());
        assert_eq!(refusal(&mut bench, packet), SendErrorKind::TooManyFragments);
        assert_eq!(take_all(&mut bench).len(), 0);
        let drops = bench.front.counters().tx_drops;
        assert_eq!((drops.too_many_slots, drops.total()), (1, 1));
        bench.assert_sound();
        bench.assert_no_leak();
    }
}

/// Why a packet is refused.
#[track_caller]
fn refusal(bench: &mut Bench, packet: PacketMut) -> SendErrorKind {
    match send(&mut bench.front, packet) {
        Err(SendError::Refused(why)) => why,
        Err(SendError::Full(_)) => panic!("no room"),
        Ok(()) => panic!("it was sent"),
    }
}

/// What has been done between two moments.
fn done(before: &Counters, after: &Counters) -> (u64, u64, u64) {
    let drops = after.tx_drops.total() - before.tx_drops.total();
    (after.tx_cut - before.tx_cut, after.tx_packets - before.tx_packets, drops)
}

#[test]
fn large_packets_are_cut_where_the_backend_takes_none() {
    let blank = Features::NONE.with_checksum_v4(true).with_checksum_v6(true);
    let only_v4 = blank.with_gso_v4(true).with_scatter_gather(true);
    for features in [Features::NONE, SG, blank, blank.with_scatter_gather(true), only_v4] {
        let mut bench = backend(features);
        let mut rng = Rng::with_seed(9);
        for v6 in [false, true] {
            let flow = Flow::tcp(v6, 1);
            if features.takes_gso(flow.gso_kind()) {
                continue;
            }
            for (size, len) in [
                (1448, 30_000),
                (1448, 65_000),
                (500, 2001),
                (1000, 5000),
                (1000, 1000),
                (3900, 64_000),
            ] {
                let sequence = u32::MAX - rng.u32(..20_000);
                let data = pattern(len as u64, len);
                let bytes = flow.blank(sequence, &data);
                let count = rng.usize(bytes.len().div_ceil(4096)..=18);
                let cuts: Vec<usize> = (1..count).map(|nth| nth * bytes.len() / count).collect();
                let before = *bench.front.counters();
                let packet = bench.packet(&bytes, &cuts, flow.meta(size));
                assert!(send(&mut bench.front, packet).is_ok());
                let sent = take_all(&mut bench);
                let segments = len.div_ceil(size.into());
                assert_eq!(done(&before, bench.front.counters()), (1, segments as u64, 0));
                assert_eq!(sent.len(), segments);
                assert!(join(flow, sequence, size.into(), &sent) == data);
                let takes_blank = if v6 { features.checksum_v6 } else { features.checksum_v4 };
                let state = if takes_blank { Checksum::Blank } else { Checksum::Complete };
                assert!(sent.iter().all(|(_, meta)| meta.checksum == state));
            }
        }
        let counters = bench.front.counters();
        if !features.scatter_gather {
            assert_eq!(counters.tx_slots, counters.tx_packets, "one slot each");
        }
        assert_eq!(counters.tx_gso, 0);
        bench.assert_sound();
        bench.assert_no_leak();
    }
}

#[test]
fn a_large_packet_without_room_for_all_segments_comes_back_whole() {
    let mut bench = backend(SG);
    let flow = Flow::tcp(false, 1);
    let data = pattern(1, 60_000);
    let bytes = flow.blank(0, &data);
    let mut sent = Vec::new();
    while sent.len() < 1000 && bench.send_whole(&bytes, flow.meta(1448)) {
        sent.extend(bench.sent());
        assert!(bench.front.counters().tx_cut < 100, "there is no end to the room");
    }
    // 42 segments, no more than one of them two slots a page.
    assert!(sent.len() % 42 == 0 && (3 * 42..=6 * 42).contains(&sent.len()), "{}", sent.len());
    assert_eq!(bench.front.counters().tx_cut, sent.len() as u64 / 42);
    let cuts: Vec<usize> = (4096..bytes.len()).step_by(4096).collect();
    let packet = bench.packet(&bytes, &cuts, flow.meta(1448));
    let back = send(&mut bench.front, packet).unwrap_err().into_packet().unwrap();
    assert_eq!((back.len(), back.meta), (bytes.len(), flow.meta(1448)));
    for packet in &sent[..42] {
        bench.answer_sent(packet, 0);
    }
    assert!(send(&mut bench.front, back).is_ok());
    let again: Vec<_> = take_all(&mut bench);
    assert!(join(flow, 0, 1448, &again) == data);
    assert_eq!(bench.front.counters().tx_drops.total(), 0);
    for packet in &sent[42..] {
        bench.answer_sent(packet, 0);
    }
    bench.front.complete_tx();
    bench.assert_sound();
    bench.assert_no_leak();
}

#[test]
fn without_frames_the_rest_of_a_large_packet_is_dropped_and_counted() {
    let mut bench = backend(SG);
    let flow = Flow::tcp(false, 1);
    let bytes = flow.blank(0, &pattern(1, 29_000));
    let cuts: Vec<usize> = (4096..bytes.len()).step_by(4096).collect();
    let packet = bench.packet(&bytes, &cuts, flow.meta(1450));
    let left = 7;
    let mut hogged: Vec<_> = std::iter::from_fn(|| bench.front.alloc(0)).collect();
    hogged.truncate(hogged.len() - left);
    assert_eq!(refusal(&mut bench, packet), SendErrorKind::NoMemory);
    bench.front.flush();
    let sent = bench.sent();
    let lost = bench.front.counters().tx_drops.no_frame;
    // Headers in free room cost no frame.
    assert!(sent.len() >= left && lost > 0, "{} sent, {lost} lost", sent.len());
    assert_eq!(sent.len() as u64 + lost, 20);
    drop(hogged);
    for packet in &sent {
        bench.answer_sent(packet, 0);
    }
    bench.front.complete_tx();
    bench.assert_sound();
    bench.assert_no_leak();
}

#[test]
fn large_packets_that_can_neither_go_nor_be_cut_are_dropped() {
    let mut bench = backend(SG);
    let flow = Flow::tcp(false, 1);
    let good = flow.blank(0, &pattern(1, 9000));
    let mut udp = good.clone();
    udp[23] = 17;
    let mut syn = good.clone();
    syn[47] |= 2;
    let meta = flow.meta(1448);
    // The last would take more segments than a ring has slots.
    for (bytes, meta, why) in [
        (udp, meta, GsoError::NotTcp),
        (syn, meta, GsoError::Flags),
        (pattern(1, 9000), meta, GsoError::NotTcp),
        (good.clone(), Flow::tcp(true, 1).meta(1448), GsoError::NotTcp),
        (good.clone(), flow.meta(20), GsoError::TooMany),
        (good.clone(), flow.meta(1), GsoError::TooMany),
    ] {
        let before = *bench.front.counters();
        let cuts: Vec<usize> = (4096..bytes.len()).step_by(4096).collect();
        let packet = bench.packet(&bytes, &cuts, meta);
        assert_eq!(refusal(&mut bench, packet), SendErrorKind::Gso(why));
        assert_eq!(done(&before, bench.front.counters()), (0, 0, 1));
    }
    // A permit has room for the packet, not for its segments.
    let cuts = [4096, 8192];
    let packet = bench.packet(&good, &cuts, meta);
    let refused = bench.front.reserve(4).unwrap().send(packet);
    assert_eq!(refused.unwrap_err().why(), Some(SendErrorKind::NoGso));
    assert_eq!(bench.front.counters().tx_drops.no_gso, 7);
    assert_eq!(take_all(&mut bench).len(), 0);
    bench.assert_sound();
    bench.assert_no_leak();
}

/// The longest IP packet and an Ethernet header are more than the 65,535 bytes of a chain: cut,
/// whoever takes large packets. A segment as long is refused.
#[test]
fn what_is_longer_than_a_chain_is_cut() {
    for features in [SG, Features::ALL] {
        let mut bench = backend(features);
        for v6 in [false, true] {
            let flow = Flow::tcp(v6, 1);
            let len = if v6 { 65_535 - 20 } else { 65_535 - 40 };
            let data = pattern(1, len);
            let bytes = flow.blank(7, &data);
            assert_eq!(bytes.len(), if v6 { 65_589 } else { 65_549 });
            let cuts: Vec<usize> = (4096..bytes.len()).step_by(4096).collect();
            let packet = bench.packet(&bytes, &cuts, flow.meta(1448));
            send(&mut bench.front, packet).unwrap();
            let sent = take_all(&mut bench);
            assert_eq!(sent.len(), len.div_ceil(1448));
            assert!(join(flow, 7, 1448, &sent) == data);
            let packet = bench.packet(&bytes, &cuts, flow.meta(65_480));
            assert_eq!(refusal(&mut bench, packet), SendErrorKind::TooLong);
        }
        let drops = bench.front.counters().tx_drops;
        assert_eq!((drops.bad_length, drops.total()), (2, 2));
        bench.assert_sound();
        bench.assert_no_leak();
    }
}

#[test]
fn a_blank_checksum_is_filled_in_for_a_backend_without_offload() {
    use packet_views::buffer::{Checksum, View};
    use packet_views::header::checksum::{Verdict, verify};
    let mut bench = Bench::with(Config::default(), &[], &[("feature-no-csum-offload", "1")]);
    // UDP from 10.0.0.1:1 to 10.0.0.2:2, 4 bytes; the checksum field holds the pseudo-header sum.
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0];
    frame.extend([0x45, 0, 0, 32, 0, 0, 0, 0, 64, 17, 0x66, 0xcb, 10, 0, 0, 1, 10, 0, 0, 2]);
    let pseudo: u32 = 0x0a00 + 0x0001 + 0x0a00 + 0x0002 + 17 + 12;
    frame.extend([0, 1, 0, 2, 0, 12, (pseudo >> 8) as u8, pseudo as u8, 1, 2, 3, 4]);
    let mut buf = bench.front.alloc(0).unwrap();
    buf.append(frame.len()).unwrap().copy_from_slice(&frame);
    let mut packet = PacketMut::from(buf);
    packet.meta.checksum = Checksum::Blank;
    bench.front.reserve(1).unwrap().send(packet).unwrap();
    bench.front.flush();
    let request = bench.tx_requests()[0];
    assert_eq!(request.flags & 1, 0, "not blank any more");
    let sent = bench.sent_bytes(&request, frame.len());
    assert_ne!(sent, frame);
    let mut check = bench.front.alloc(0).unwrap();
    check.append(sent.len()).unwrap().copy_from_slice(&sent);
    assert_eq!(check.bytes().len(), sent.len());
    assert_eq!(verify(&PacketMut::from(check)), Verdict::Right);

    // One whose headers make no sense can't be filled in.
    let mut buf = bench.front.alloc(0).unwrap();
    buf.append(60).unwrap().fill(0xff);
    let mut packet = PacketMut::from(buf);
    packet.meta.checksum = Checksum::Blank;
    let refused = bench.front.reserve(1).unwrap().send(packet);
    assert_eq!(refused.unwrap_err().why(), Some(SendErrorKind::Checksum(ChecksumError::Unknown)));
    assert_eq!(bench.front.counters().tx_drops.bad_checksum, 1);
    bench.assert_sound();
}
