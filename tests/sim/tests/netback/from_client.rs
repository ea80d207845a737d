//! What a client sends: splits, batches, budgets.

use super::*;

#[test]
fn b8_any_split_is_legal() {
    let (mut bench, mut client) = Bench::with_client(Config::default(), 400);
    let mut rng = fastrand::Rng::with_seed(8);
    let mut cases: Vec<Vec<u16>> = vec![
        vec![1; 18],
        vec![1, 13],
        vec![4096; 15],
        vec![0, 0, 14, 0],
        std::iter::repeat_n(3641, 17).chain([3638]).collect(),
    ];
    // Every length around the ends of a page and of everything, in every number of slots.
    for total in [14, 60, 1514, 3967, 3968, 3969, 4096, 4097, 8064, 8065, 65534, 65535] {
        for count in 1..=18 {
            if total <= count * PAGE_SIZE {
                cases.extend((0..8).map(|_| split(total, count, &mut rng)));
            }
        }
    }
    for _ in 0..1000 {
        let (count, total) = (rng.usize(1..=18), rng.usize(14..=65535));
        cases.push(split(total.min(count * PAGE_SIZE), count, &mut rng));
    }
    for sizes in cases {
        let fragments = place(&sizes, &mut rng);
        let total: usize = sizes.iter().map(|size| usize::from(*size)).sum();
        let before = bench.back.counts();
        let sent = client.send(&fragments);
        let packets = bench.poll_packets();
        let work = bench.back.counts() - before;
        assert_eq!(packets.len(), 1, "{fragments:?}");
        assert!(bytes(&packets[0]) == sent, "{fragments:?}");
        assert_eq!(client.statuses(), vec![0; sizes.len()]);

        // Densely packed from the headroom on: as few frames as can be, headers in one piece.
        let parts = packets[0].fragments();
        assert_eq!(parts.len(), (HEADROOM + total).div_ceil(PAGE_SIZE));
        assert_eq!(parts[0].headroom(), HEADROOM);
        assert_eq!(parts[0].len(), total.min(PAGE_SIZE - HEADROOM));
        assert!(parts[1..].iter().all(|part| part.headroom() == 0));
        let full = sizes.iter().filter(|size| **size > 0).count() as u64;
        assert!((full..full + parts.len() as u64).contains(&work.copies), "{fragments:?}");
        assert!(work.copies <= 34 && work.copy_calls == 1);
        assert_eq!((work.copy_bytes, work.maps), (total as u64, 0));
    }
    let counters = bench.netback.counters();
    assert_eq!((counters.from_drops.total(), counters.faults, counters.copied_bytes), (0, 0, 0));
    assert_eq!(bench.pool.free(), 400);
    assert_eq!(bench.host.violations(), []);
}

#[test]
fn b9_zero_length_fragments_take_no_operation() {
    let (mut bench, mut client) = Bench::with_client(Config::default(), 64);
    let (full, ops) = ([(0, 5, 7), (1, 9, 7)], 2);
    let cases = [
        vec![(2, 0, 0), full[0], full[1]],
        vec![full[0], (2, 4096, 0), full[1]],
        vec![full[0], (2, 100, 0), (3, 0, 0), full[1], (4, 1, 0)],
    ];
    for fragments in cases {
        let before = bench.back.counts();
        let sent = client.send(&fragments);
        assert_eq!(bench.poll(), [sent]);
        assert_eq!((bench.back.counts() - before).copies, ops);
        assert_eq!(client.statuses(), vec![0; fragments.len()]);
    }
    // Not even if the reference is nonsense.
    client.sources[9].1 = 0xffff_ffff;
    let sent = client.send(&[full[0], (9, 0, 0), full[1]]);
    assert_eq!(bench.poll(), [sent]);
    assert_eq!(client.statuses(), [0, 0, 0]);
    assert_eq!(bench.netback.counters().copy_failures, 0);
}

#[test]
fn a_batch_is_one_hypercall_and_one_event() {
    let (mut bench, mut client) = Bench::with_client(Config::default(), 256);
    for batch in [1_u64, 8, 64] {
        let sent: Vec<_> =
            (0..batch).map(|n| client.chain(&[(n as usize % 32, 0, 1514)], 0, &[])).collect();
        client.show();
        let before = bench.back.counts();
        assert_eq!(bench.poll(), sent);
        bench.netback.flush();
        let work = bench.back.counts() - before;
        assert_eq!((work.copy_calls, work.copies, work.notifies), (1, batch, 1));
        assert_eq!(work.hypercalls(), 1);
        assert_eq!(client.statuses(), vec![0; batch as usize]);
    }
    client.post(64);
    for _ in 0..64 {
        bench.netback.deliver(bench.plain(&pattern(1, 1514))).unwrap();
    }
    let before = bench.back.counts();
    bench.netback.flush();
    let work = bench.back.counts() - before;
    assert_eq!((work.copy_calls, work.copies, work.notifies), (1, 64, 1));
    assert_eq!(client.receive().len(), 64);

    // One channel for both rings: one event for both.
    client.send(&[(0, 0, 60)]);
    client.post(1);
    bench.netback.deliver(bench.plain(&pattern(2, 60))).unwrap();
    let before = bench.back.counts();
    assert_eq!(bench.poll().len(), 1);
    bench.netback.flush();
    assert_eq!((bench.back.counts() - before).notifies, 1);
}

#[test]
fn large_packets_are_split_over_hypercalls_of_256_operations() {
    let (mut bench, mut client) = Bench::with_client(Config::default(), 400);
    let sizes = vec![3640; 18];
    let mut rng = fastrand::Rng::with_seed(3);
    let sent: Vec<_> = (0..14).map(|_| client.chain(&place(&sizes, &mut rng), 0, &[])).collect();
    client.show();
    let before = bench.back.counts();
    assert!(bench.poll() == sent);
    let work = bench.back.counts() - before;
    assert_eq!((work.copies, work.copy_calls), (14 * 34, 2));
}

#[test]
fn the_budget_is_work_and_what_goes_beyond_comes_off_the_next() {
    let (mut bench, mut client) = Bench::with_client(Config::default(), 400);
    for _ in 0..100 {
        client.chain(&[(0, 0, 1514)], 0, &[]);
    }
    client.show();
    assert_eq!(bench.netback.poll(0, |_| ()), 0);
    assert_eq!(bench.netback.poll(1, |_| ()), 1);
    assert_eq!(bench.netback.poll(64, |_| ()), 64);
    assert_eq!(bench.netback.poll(64, |_| ()), 35);
    assert_eq!(client.statuses(), vec![0; 100]);
    // 65535 bytes in 17 slots cost what some 33 packets do.
    for _ in 0..10 {
        let huge: Vec<_> =
            (0..16).map(|page| (page, 0, 4096)).take(15).chain([(20, 0, 4095)]).collect();
        client.chain(&huge, 0, &[]);
    }
    client.show();
    let turns: Vec<usize> = (0..12).map(|_| bench.netback.poll(32, |_| ())).collect();
    assert_eq!(turns.iter().sum::<usize>(), 10, "{turns:?}");
    assert!(turns[..10].iter().all(|&packets| packets <= 2), "{turns:?}");
}

#[test]
fn an_empty_pool_drops_packets_and_never_the_ring() {
    let (mut bench, mut client) = Bench::with_client(Config::default(), 4);
    let mut held = Vec::new();
    for n in 0..6 {
        client.chain(&[(n, 0, 60)], 0, &[]);
    }
    client.show();
    bench.netback.poll(64, |packet| held.push(packet));
    assert_eq!(held.len(), 4);
    assert_eq!(client.statuses(), [0, 0, 0, 0, -2, -2]);
    held.truncate(2);
    // Room for two frames: a packet of three does not fit, and takes none.
    client.chain(&[(0, 0, 4096), (1, 0, 4096)], 0, &[]);
    client.chain(&[(0, 0, 4096)], 0, &[]);
    client.show();
    bench.netback.poll(64, |packet| held.push(packet));
    assert_eq!(client.statuses(), [-2, -2, 0]);
    assert_eq!(bench.netback.counters().from_drops.no_frame, 3);
    drop(held);
    assert_eq!(bench.pool.free(), 4);
}

#[test]
fn a_packet_can_be_rewritten_in_place_and_shared() {
    let (mut bench, mut client) = Bench::with_client(Config::default(), 4);
    let sent = client.send(&[(0, 0, 100)]);
    let mut packet = bench.poll_packets().pop().unwrap();
    packet.fragments_mut()[0].push_front(4).unwrap().copy_from_slice(b"head");
    let shared = packet.freeze();
    assert_eq!(bytes(&shared), [b"head", &sent[..]].concat());
    client.post(1);
    bench.netback.deliver(shared.clone()).unwrap();
    bench.netback.flush();
    assert_eq!(client.receive()[0].as_ref().unwrap().bytes, bytes(&shared));
}

#[test]
fn blank_checksums_and_gso_come_with_the_packet() {
    let config = Config::default().with_features(packet_views::features::Features::ALL);
    let (mut bench, mut client) = Bench::with_client(config, 64);
    let blank = tx_flags::CSUM_BLANK | tx_flags::DATA_VALIDATED;
    let sent = frames::blank(frames::frame(false, true, 7, &pattern(1, 6000)));
    let fragments = client.lay(0, &sent);
    client.chain(&fragments, blank, &[Extra::from_gso(gso(1448))]);
    client.chain(&[(0, 0, 60)], tx_flags::DATA_VALIDATED, &[]);
    client.show();
    let metas: Vec<Meta> = bench.poll_packets().iter().map(|packet| packet.meta).collect();
    let large = Meta { checksum: Checksum::Blank, gso: Some(gso(1448)) };
    assert_eq!(metas, [large, Meta { checksum: Checksum::Unknown, gso: None }]);
    // An extra's slot is answered too, by a NULL response.
    assert_eq!(client.statuses(), [0, 1, 0, 0]);
}

/// Headers are in one piece whatever headroom is asked for: half a page of it is the most.
#[test]
fn headroom_leaves_room_for_headers() {
    for headroom in [0, 1, 128, 2047, 2048, 2049, 4095, 4096, 4097, 70_000, usize::MAX] {
        let (mut bench, mut client) =
            Bench::with_client(Config::default().with_headroom(headroom), 128);
        let sent = [vec![(0, 0, 3640); 18], vec![(1, 5, 14)], vec![(2, 0, 4096), (3, 1, 2000)]];
        let sent = sent.map(|fragments| client.send(&fragments));
        let got = bench.poll_packets();
        for (packet, sent) in got.iter().zip(&sent) {
            assert!(bytes(packet) == *sent, "{headroom}");
            let first = &packet.fragments()[0];
            assert_eq!(first.headroom(), headroom.min(2048));
            assert!(first.len() >= sent.len().min(2048));
        }
        assert_eq!(got.len(), 3);
        assert_eq!(client.statuses(), [0; 21]);
        drop(got);
        assert_eq!((bench.pool.free(), bench.host.violations()), (128, vec![]));
    }
}
