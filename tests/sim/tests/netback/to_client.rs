//! What a client gets: pages, flags, bounds.

use super::*;

#[test]
fn any_fragments_arrive_whole_each_page_filled_from_its_start() {
    let (mut bench, mut client) = Bench::with_client(Config::default(), 64);
    let mut rng = fastrand::Rng::with_seed(9);
    for round in 0..600_u64 {
        let count = rng.usize(1..=18);
        let len = match rng.u8(..3) {
            0 => rng.usize(14..200),
            1 => [4095, 4096, 4097, 8192, 8193, 65535][rng.usize(..6)],
            _ => rng.usize(14..=65535),
        }
        .min(count * PAGE_SIZE);
        let mut cuts = Vec::new();
        let mut at = 0;
        for size in split(len, count, &mut rng) {
            at += usize::from(size);
            cuts.push(at);
        }
        cuts.pop();
        let large = len > 54 && rng.bool();
        let sent = match large {
            true => frames::blank(frames::frame(false, true, 7, &pattern(round, len - 54))),
            false => pattern(round, len),
        };
        let mut packet = bench.packet(&sent, &cuts);
        if large {
            packet.meta = Meta { checksum: Checksum::Blank, gso: Some(gso(1400)) };
        }
        let slots = len.div_ceil(PAGE_SIZE) + usize::from(large);
        // One page too few: it waits.
        client.post(slots - 1);
        bench.netback.deliver(packet).unwrap();
        bench.netback.flush();
        assert!(client.receive().is_empty());
        client.post(1);
        bench.netback.flush();
        let got = client.receive();
        assert_eq!(got.len(), 1);
        let got = got[0].as_ref().unwrap();
        assert!(got.bytes == sent, "{len} bytes cut at {cuts:?}");
        assert_eq!((got.slots, got.gso), (slots, large.then(|| gso(1400))));
    }
    let counters = bench.netback.counters();
    assert_eq!((counters.to_packets, counters.to_drops.total()), (600, 0));
    assert_eq!(bench.pool.free(), 64);
}

#[test]
fn the_flags_of_the_receive_ring_are_its_own() {
    let (mut bench, mut client) = Bench::with_client(Config::default(), 64);
    client.post(3);
    let ipv4 = frames::frame(false, false, 7, &pattern(4, 60));
    for checksum in [Checksum::Unknown, Checksum::Complete, Checksum::Blank] {
        let mut packet = bench.plain(&ipv4);
        packet.meta.checksum = checksum;
        bench.netback.deliver(packet).unwrap();
    }
    bench.netback.flush();
    let flags: Vec<u16> = client.receive().iter().map(|got| got.as_ref().unwrap().flags).collect();
    assert_eq!(flags, [0, 1, 3]);
    assert_eq!((rx_flags::DATA_VALIDATED, rx_flags::CSUM_BLANK), (1, 2));
}

#[test]
fn a_client_gets_only_what_it_takes() {
    let plain =
        Features { split: false, keys: vec![("request-rx-copy", "1"), ("feature-rx-notify", "1")] }
            .with("feature-no-csum-offload", "1");
    let mut bench = Bench::new(Config::default(), 64);
    let mut client = Client::new(&bench.host, &bench.vif, 0);
    client.connect(&mut bench.netback, &plain);
    client.post(100);
    let mut ipv4 = pattern(4, 60);
    ipv4[12..14].copy_from_slice(&[0x08, 0x00]);
    let mut blank = bench.plain(&ipv4);
    blank.meta.checksum = Checksum::Blank;
    let mut large = bench.plain(&ipv4);
    large.meta.gso = Some(gso(1000));
    let expected = [
        (bench.plain(&pattern(1, 4096)), Ok(())),
        (bench.packet(&pattern(1, 4096), &[1, 2, 3]), Ok(())),
        (bench.plain(&pattern(1, 4097)), Err(Some(DeliverErrorKind::BadLength))),
        (bench.plain(&pattern(1, 13)), Err(Some(DeliverErrorKind::BadLength))),
        (blank, Err(Some(DeliverErrorKind::Offload))),
        (large, Err(Some(DeliverErrorKind::Offload))),
    ];
    for (packet, expected) in expected {
        assert_eq!(outcome(bench.netback.deliver(packet)), expected);
    }
    bench.netback.flush();
    assert_eq!(client.receive().len(), 2);
    let drops = bench.netback.counters().to_drops;
    assert_eq!((drops.bad_length, drops.offload, drops.total()), (2, 2, 4));
    assert_eq!(bench.pool.free(), 64);
}

#[test]
fn b7_the_queue_is_bounded_in_packets_and_in_frames() {
    let config = Config::default().with_queue_packets(20).with_queue_frames(30);
    let (mut bench, mut client) = Bench::with_client(config, 100);
    for _ in 0..20 {
        bench.netback.deliver(bench.plain(&[1; 60])).unwrap();
    }
    assert_eq!(outcome(bench.netback.deliver(bench.plain(&[1; 60]))), Err(None));
    assert_eq!((bench.netback.queued(), bench.pool.free()), (20, 80));
    client.post(200);
    bench.netback.flush();
    assert_eq!((client.receive().len(), bench.pool.free()), (20, 100));
    // Ten fragments of 60 bytes pin ten pages.
    let cuts: Vec<usize> = (1..10).map(|n| n * 6).collect();
    for _ in 0..3 {
        bench.netback.deliver(bench.packet(&[2; 60], &cuts)).unwrap();
    }
    assert_eq!(outcome(bench.netback.deliver(bench.plain(&[1; 60]))), Err(None));
    bench.netback.flush();
    assert_eq!(client.receive().len(), 3);
    let counters = bench.netback.counters();
    assert_eq!((counters.to_given_back, counters.queue_high_water), (2, 20));
    assert_eq!(counters.to_drops.total(), 0);
}

#[test]
fn b7_a_client_that_posts_nothing_is_stalled_and_holds_no_frames() {
    let (mut bench, mut client) = Bench::with_client(Config::default(), 64);
    let seconds = Duration::from_secs;
    client.post(2);
    for n in 0..5 {
        bench.netback.deliver(bench.plain(&pattern(n, 5000))).unwrap();
    }
    bench.netback.flush();
    assert_eq!(client.receive().len(), 1);
    let deadline = bench.netback.next_deadline().unwrap();
    assert_eq!(deadline.since(bench.back.now()), seconds(10));
    bench.host.advance(seconds(9));
    bench.netback.flush();
    assert_eq!(bench.netback.queued(), 4);
    // Progress starts the wait anew.
    client.post(2);
    bench.netback.flush();
    bench.host.advance(seconds(9));
    bench.netback.flush();
    assert_eq!((client.receive().len(), bench.netback.queued()), (1, 3));
    bench.host.advance(seconds(1));
    bench.netback.flush();
    assert_eq!((bench.netback.queued(), bench.pool.free()), (0, 64));
    for size in [60, 5000] {
        assert_eq!(
            outcome(bench.netback.deliver(bench.plain(&vec![1; size]))),
            Err(Some(DeliverErrorKind::Stalled))
        );
    }
    assert!(!bench.netback.rearm(), "an event will tell of a page");
    // One page, and it is served again: what fits, and what may fit when it has posted another.
    client.post(1);
    bench.netback.flush();
    bench.netback.deliver(bench.plain(&pattern(6, 5000))).unwrap();
    bench.netback.flush();
    client.post(1);
    bench.netback.flush();
    assert_eq!(client.receive()[0].as_ref().unwrap().bytes, pattern(6, 5000));
    let counters = bench.netback.counters();
    assert_eq!((counters.stalls, counters.to_drops.stalled), (1, 5));
}

/// A client may have few pages, and no more than it has posted: it gets what fits into them, however
/// often a packet comes that never will.
#[test]
fn b7_a_client_with_few_pages_is_served_what_fits() {
    let (mut bench, mut client) = Bench::with_client(Config::default(), 64);
    client.post(3);
    let mut got = 0;
    for round in 0..5 {
        // Four pages' worth, then two packets of one.
        let _ = bench.netback.deliver(bench.plain(&pattern(9, 4096 * 3 + 1)));
        for n in 0..2 {
            let _ = bench.netback.deliver(bench.plain(&pattern(n, 60)));
        }
        for _ in 0..22 {
            bench.netback.flush();
            bench.host.advance(Duration::from_millis(500));
        }
        for packet in client.receive() {
            assert_eq!(packet.unwrap().bytes, pattern(got % 2, 60), "round {round}");
            got += 1;
            client.post(1);
        }
        assert_eq!(got, 2 * (round + 1), "{:?}", bench.netback.counters());
    }
    assert_eq!(bench.netback.counters().to_drops.stalled, 5);
}

/// Pages that come one by one are progress: the largest packet takes longer than the patience, and is
/// delivered.
#[test]
fn b7_a_client_that_posts_slowly_is_not_stalled() {
    let (mut bench, mut client) = Bench::with_client(Config::default(), 64);
    bench.netback.deliver(bench.plain(&pattern(1, 60_000))).unwrap();
    for _ in 0..15 {
        client.post(1);
        bench.netback.flush();
        bench.host.advance(Duration::from_secs(6));
        bench.netback.flush();
    }
    let packets = client.receive();
    assert_eq!(packets[0].as_ref().unwrap().bytes, pattern(1, 60_000));
    assert_eq!(bench.netback.counters().stalls, 0);
}

/// What a stall leaves is what there are pages for, whole and in its order.
#[test]
fn b7_after_a_stall_what_fits_goes_out_in_its_order() {
    let (mut bench, mut client) = Bench::with_client(Config::default(), 64);
    client.post(3);
    // The first and the third need a page more than there are; the others have several fragments.
    let lengths = [3 * 4096 + 1, 900, 4 * 4096, 4097, 3 * 4096, 60];
    let sent: Vec<Vec<u8>> = (0..).zip(lengths).map(|(n, len)| pattern(n, len)).collect();
    for bytes in &sent {
        let packet = match bytes.len() {
            len @ (900 | 4097) => bench.packet(bytes, &[14, len / 2, len - 1]),
            _ => bench.plain(bytes),
        };
        bench.netback.deliver(packet).unwrap();
    }
    bench.netback.flush();
    bench.host.advance(Duration::from_secs(10));
    bench.netback.flush();
    // Its time has come, so nobody sleeps over it.
    assert!(bench.netback.next_deadline().unwrap() <= bench.back.now());
    bench.netback.flush();
    let received = |client: &mut Client| -> Vec<Vec<u8>> {
        client.receive().into_iter().map(|packet| packet.unwrap().bytes).collect()
    };
    assert!(received(&mut client) == [sent[1].clone(), sent[3].clone()]);
    assert_eq!((bench.netback.queued(), bench.netback.counters().to_drops.stalled), (2, 2));
    client.post(4);
    bench.netback.flush();
    assert!(received(&mut client) == [sent[4].clone(), sent[5].clone()]);
    assert_eq!((bench.netback.queued(), bench.pool.free()), (0, 64));
    assert_eq!(bench.netback.next_deadline(), None);
}

/// A stalled client has pages: it gets what fits all of them, and tells of the next one.
#[test]
fn b7_a_stalled_client_gets_what_fits_its_pages_and_tells_of_more() {
    for fits in [60, 3 * 4096] {
        let (mut bench, mut client) = Bench::with_client(Config::default(), 64);
        client.post(3);
        bench.netback.deliver(bench.plain(&pattern(1, 3 * 4096 + 1))).unwrap();
        bench.netback.flush();
        bench.host.advance(Duration::from_secs(10));
        bench.netback.flush();
        assert_eq!((bench.netback.queued(), bench.netback.counters().stalls), (0, 1));
        let larger = bench.plain(&pattern(1, 3 * 4096 + 1));
        assert_eq!(outcome(bench.netback.deliver(larger)), Err(Some(DeliverErrorKind::Stalled)));
        // It sleeps until there is another page, and no longer.
        assert!(!bench.netback.rearm());
        assert_eq!(bench.netback.next_deadline(), None);
        if fits == 60 {
            client.post_as(3, client.targets[3].1);
            assert!(client.show_posted(), "nobody hears of the page");
            bench.netback.flush();
            bench.netback.deliver(bench.plain(&pattern(1, 3 * 4096 + 1))).unwrap();
        } else {
            bench.netback.deliver(bench.plain(&pattern(2, fits))).unwrap();
        }
        bench.netback.flush();
        assert_eq!(client.receive().len(), 1, "{fits}");
    }
}

/// The wait of one packet is not that of the next.
#[test]
fn b7_each_wait_begins_anew() {
    let (mut bench, mut client) = Bench::with_client(Config::default(), 64);
    for _ in 0..3 {
        bench.netback.deliver(bench.plain(&pattern(1, 5000))).unwrap();
        bench.netback.flush();
        bench.host.advance(Duration::from_secs(9));
        client.post(2);
        bench.netback.flush();
        assert_eq!((client.receive().len(), bench.netback.next_deadline()), (1, None));
    }
    assert_eq!(bench.netback.counters().to_drops.total(), 0);

    // The same where the wait has ended, of a client that does not tell; it is not longer than configured.
    for (patience, wait) in [(10_000, 30), (31, 30), (29, 29), (5, 5)] {
        let config = Config::default().with_patience(Duration::from_millis(patience));
        let mut bench = Bench::new(config, 64);
        let mut client = Client::new(&bench.host, &bench.vif, 0);
        client.connect(&mut bench.netback, &Features::default().with("feature-rx-notify", "0"));
        for _ in 0..3 {
            bench.netback.deliver(bench.plain(&[1; 60])).unwrap();
            bench.netback.flush();
            let deadline = bench.netback.next_deadline().unwrap();
            assert_eq!(deadline.since(bench.back.now()), Duration::from_millis(wait));
            assert_eq!(bench.netback.queued(), 1, "it waits as long as the first");
            bench.host.advance_to(deadline);
            bench.netback.flush();
            assert_eq!((bench.netback.queued(), bench.netback.next_deadline()), (0, None));
        }
    }
}

#[test]
fn a_client_that_does_not_tell_of_pages_is_not_waited_for() {
    let mut bench = Bench::new(Config::default(), 64);
    let mut client = Client::new(&bench.host, &bench.vif, 0);
    client.connect(&mut bench.netback, &Features::default().with("feature-rx-notify", "0"));
    bench.netback.deliver(bench.plain(&[1; 60])).unwrap();
    bench.netback.flush();
    let deadline = bench.netback.next_deadline().unwrap();
    assert_eq!(deadline.since(bench.back.now()), Duration::from_millis(30));
    bench.host.advance_to(deadline);
    bench.netback.flush();
    assert_eq!(bench.netback.queued(), 0);
    bench.netback.deliver(bench.plain(&[2; 60])).unwrap();
    client.post(1);
    bench.netback.flush();
    assert_eq!(client.receive().len(), 1);
}

/// Once a client has been stalled, what it has shown no pages for is refused at once, and what fits is
/// not held up by it.
#[test]
fn b7_after_a_stall_large_packets_do_not_hold_up_small_ones() {
    let (mut bench, mut client) = Bench::with_client(Config::default(), 64);
    client.post(3);
    let large = pattern(9, 4096 * 3 + 1);
    bench.netback.deliver(bench.plain(&large)).unwrap();
    for _ in 0..22 {
        bench.netback.flush();
        bench.host.advance(Duration::from_millis(500));
    }
    assert_eq!(bench.netback.counters().stalls, 1);
    for n in 0..100 {
        assert_eq!(
            outcome(bench.netback.deliver(bench.plain(&large))),
            Err(Some(DeliverErrorKind::Stalled))
        );
        bench.netback.deliver(bench.plain(&pattern(n, 60))).unwrap();
        bench.netback.flush();
        assert_eq!(client.receive().len(), 1, "small packet {n} comes at once");
        client.post(1);
        bench.host.advance(Duration::from_millis(100));
    }
    // One page more than it ever had, and the next large one is worth waiting for.
    client.post(1);
    bench.netback.flush();
    bench.netback.deliver(bench.plain(&large)).unwrap();
    bench.netback.flush();
    assert_eq!(client.receive()[0].as_ref().unwrap().bytes, large);
    assert_eq!(bench.netback.counters().stalls, 1);
}
