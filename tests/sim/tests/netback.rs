//! The backend with clients that keep to the rules.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod raw_client;

use std::num::NonZeroU16;
use std::time::Duration;

use raw_client::{Bench, CLIENT, Client, Features, TX_PAGES, bytes, pattern};
use xen_grant::PAGE_SIZE;
use xen_netfront::buffer::{Checksum, Meta};
use xen_netfront::netback::{Config, Refused};
use xen_netfront::platform::Platform;
use xen_netfront::wire::{Extra, Gso, GsoKind, rx_flags, tx_flags};
use xen_sim::{Chaos, Ctx, Host, Limits, Next, Outcome, Scheduler};

const HEADROOM: usize = 128;

fn gso(size: u16) -> Gso {
    Gso { size: NonZeroU16::new(size).unwrap(), kind: GsoKind::TcpV4 }
}

// -- connecting -----------------------------------------------------------------------------------

#[test]
fn a_client_connects_and_a_detach_leaves_nothing_behind() {
    for split in [false, true] {
        let mut bench = Bench::new(Config::default(), 64);
        let mut client = Client::new(&bench.host, &bench.vif, 0);
        assert_eq!(bench.netback.poll(64, |_| ()), 0);
        let features = Features { split, ..Features::default() };
        client.connect(&mut bench.netback, &features);
        assert_eq!(bench.toolstack.states(&bench.vif), (Some(4), Some(4)));
        let (tx, rx) = bench.netback.ports().unwrap();
        assert_eq!(tx != rx, split);
        assert_eq!(bench.back.mappings(), 2);
        assert_eq!(bench.netback.client_mac(), Some([0, 0x16, 0x3e, 0, 7, 0]));

        let sent = client.send(&[(0, 100, 60)]);
        assert_eq!(bench.poll(), [sent]);
        client.post(4);
        bench.netback.deliver(bench.plain(&pattern(1, 1514))).unwrap();
        bench.netback.flush();
        assert_eq!(client.receive()[0].as_ref().unwrap().bytes, pattern(1, 1514));

        bench.toolstack.begin_detach(&bench.vif);
        bench.netback.service();
        assert!(bench.netback.is_gone() && !bench.netback.is_connected());
        assert_eq!(bench.back.mappings(), 0);
        let store = bench.back.store();
        assert_eq!(store.get(&bench.vif.back_dir()), None);
        assert_eq!(store.watches(), 0);
        assert_eq!(bench.pool.free(), 64);
        assert_eq!(bench.host.violations(), []);
    }
}

#[test]
fn a_client_reconnects_with_nothing_left_of_before() {
    let (mut bench, mut client) = Bench::with_client(Config::default(), 64);
    for round in 0..20 {
        // Half of a conversation is under way each time.
        client.send(&[(0, 0, 60)]);
        bench.netback.deliver(bench.plain(&pattern(round, 200))).unwrap();
        client.set_state(5);
        bench.netback.service();
        client.set_state(6);
        bench.netback.service();
        assert!(!bench.netback.is_connected());
        assert_eq!(bench.back.mappings(), 0);
        assert_eq!(bench.pool.free(), 64);
        assert_eq!(bench.netback.deliver(bench.plain(&[0; 60])), Err(Refused::NotConnected));
        client.set_state(1);
        client.reset_rings();
        // It may take a while until xenstore has been paid for.
        bench.host.advance(Duration::from_secs(1));
        client.connect(&mut bench.netback, &Features::default());
    }
    let sent = client.send(&[(3, 7, 900)]);
    assert_eq!(bench.poll(), [sent]);
    let stats = bench.netback.stats();
    assert_eq!((stats.connects, stats.faults, stats.maps), (21, 0, 42));
    assert_eq!(stats.to_drops.disconnected, 20);
}

// -- from the client ------------------------------------------------------------------------------

/// Packs fragments of these sizes onto the client's pages, each at an offset of its own.
fn place(sizes: &[u16], rng: &mut fastrand::Rng) -> Vec<(usize, u16, u16)> {
    let place = |(slot, &size): (usize, &u16)| {
        let room = PAGE_SIZE as u16 - size;
        let offset = match rng.u8(..4) {
            0 => 0,
            1 => room,
            _ => rng.u16(..=room),
        };
        (slot % TX_PAGES, offset, size)
    };
    sizes.iter().enumerate().map(place).collect()
}

/// Some way to cut `total` bytes into `count` fragments of up to a page.
fn split(total: usize, count: usize, rng: &mut fastrand::Rng) -> Vec<u16> {
    let mut left = total;
    (0..count)
        .map(|slot| {
            let later = (count - slot - 1) * PAGE_SIZE;
            let (least, most) = (left.saturating_sub(later), left.min(PAGE_SIZE));
            let size = match rng.u8(..5) {
                0 => least,
                1 => most,
                2 => 1.clamp(least, most),
                _ => rng.usize(least..=most),
            };
            let size = if slot + 1 == count { left } else { size };
            left -= size;
            size as u16
        })
        .collect()
}

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
    let stats = bench.netback.stats();
    assert_eq!((stats.from_drops.total(), stats.faults, stats.copied_bytes), (0, 0, 0));
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
    assert_eq!(bench.netback.stats().copy_failures, 0);
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
    assert_eq!(bench.netback.stats().from_drops.no_frame, 3);
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
    let config = Config { gso: true, checksum_offload: true, ..Config::default() };
    let (mut bench, mut client) = Bench::with_client(config, 64);
    let blank = tx_flags::CSUM_BLANK | tx_flags::DATA_VALIDATED;
    client.chain(&[(0, 0, 4000), (1, 0, 2000)], blank, &[Extra::from_gso(gso(1448))]);
    client.chain(&[(0, 0, 60)], tx_flags::DATA_VALIDATED, &[]);
    client.show();
    let metas: Vec<Meta> = bench.poll_packets().iter().map(|packet| packet.meta).collect();
    let large = Meta { checksum: Checksum::Blank, gso: Some(gso(1448)) };
    assert_eq!(metas, [large, Meta { checksum: Checksum::Unknown, gso: None }]);
    // An extra's slot is answered too, by a NULL response.
    assert_eq!(client.statuses(), [0, 1, 0, 0]);
}

// -- to the client --------------------------------------------------------------------------------

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
        let sent = pattern(round, len);
        let mut packet = bench.packet(&sent, &cuts);
        let large = rng.bool();
        packet.meta.gso = large.then(|| gso(1400));
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
    let stats = bench.netback.stats();
    assert_eq!((stats.to_packets, stats.to_drops.total()), (600, 0));
    assert_eq!(bench.pool.free(), 64);
}

#[test]
fn the_flags_of_the_receive_ring_are_its_own() {
    let (mut bench, mut client) = Bench::with_client(Config::default(), 64);
    client.post(3);
    let mut ipv4 = pattern(4, 60);
    ipv4[12..14].copy_from_slice(&[0x08, 0x00]);
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
        (bench.plain(&pattern(1, 4097)), Err(Refused::BadLength)),
        (bench.plain(&pattern(1, 13)), Err(Refused::BadLength)),
        (blank, Err(Refused::Offload)),
        (large, Err(Refused::Offload)),
    ];
    for (packet, outcome) in expected {
        assert_eq!(bench.netback.deliver(packet), outcome);
    }
    bench.netback.flush();
    assert_eq!(client.receive().len(), 2);
    let drops = bench.netback.stats().to_drops;
    assert_eq!((drops.bad_length, drops.offload, drops.total()), (2, 2, 4));
    assert_eq!(bench.pool.free(), 64);
}

#[test]
fn b7_the_queue_is_bounded_in_packets_and_in_frames() {
    let config = Config { queue_packets: 20, queue_frames: 30, ..Config::default() };
    let (mut bench, mut client) = Bench::with_client(config, 100);
    for _ in 0..20 {
        bench.netback.deliver(bench.plain(&[1; 60])).unwrap();
    }
    assert_eq!(bench.netback.deliver(bench.plain(&[1; 60])), Err(Refused::QueueFull));
    assert_eq!((bench.netback.queued(), bench.pool.free()), (20, 80));
    client.post(200);
    bench.netback.flush();
    assert_eq!((client.receive().len(), bench.pool.free()), (20, 100));
    // Ten fragments of 60 bytes pin ten pages.
    let cuts: Vec<usize> = (1..10).map(|n| n * 6).collect();
    for _ in 0..3 {
        bench.netback.deliver(bench.packet(&[2; 60], &cuts)).unwrap();
    }
    assert_eq!(bench.netback.deliver(bench.plain(&[1; 60])), Err(Refused::QueueFull));
    bench.netback.flush();
    assert_eq!(client.receive().len(), 3);
    let stats = bench.netback.stats();
    assert_eq!((stats.to_drops.queue_full, stats.queue_high_water), (2, 20));
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
    assert_eq!(bench.netback.deliver(bench.plain(&[1; 60])), Err(Refused::Stalled));
    // One page is not what the packet had waited for.
    client.post(1);
    bench.netback.flush();
    assert_eq!(bench.netback.deliver(bench.plain(&[1; 60])), Err(Refused::Stalled));
    assert!(!bench.netback.rearm());
    client.post(1);
    bench.netback.flush();
    bench.netback.deliver(bench.plain(&pattern(6, 5000))).unwrap();
    bench.netback.flush();
    assert_eq!(client.receive()[0].as_ref().unwrap().bytes, pattern(6, 5000));
    let stats = bench.netback.stats();
    assert_eq!((stats.stalls, stats.to_drops.stalled), (1, 5));
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

// -- waking up ------------------------------------------------------------------------------------

#[test]
fn rearm_asks_for_the_next_request_and_tells_of_those_that_are_there() {
    let (mut bench, mut client) = Bench::with_client(Config::default(), 64);
    assert!(!bench.netback.rearm());
    client.chain(&[(0, 0, 60)], 0, &[]);
    assert!(client.show(), "armed: the first packet wakes");
    client.chain(&[(0, 0, 60)], 0, &[]);
    assert!(!client.show(), "the second does not");
    assert!(bench.netback.rearm());
    assert_eq!(bench.poll().len(), 2);
    assert!(!bench.netback.rearm());

    // Nothing waits for pages: posting wakes nobody.
    client.post(3);
    assert!(!bench.netback.rearm());
    let quiet = client.domain.counts().notifies;
    client.post(3);
    assert_eq!(client.domain.counts().notifies, quiet);
    // A packet of 8 slots waits: whatever is posted next wakes, if not all at once.
    bench.netback.deliver(bench.plain(&pattern(1, 8 * 4096))).unwrap();
    assert!(!bench.netback.rearm());
    client.post_as(6, client.targets[6].1);
    assert!(client.show_posted());
    assert!(!bench.netback.rearm());
    client.post_as(7, client.targets[7].1);
    assert!(client.show_posted());
    bench.netback.flush();
    assert_eq!(client.receive().len(), 1);
    assert!(!bench.netback.rearm());
}

/// Both ends sleep whenever they can, and events are late. Were one missing, the run would be
/// stuck.
#[test]
fn nobody_waits_for_an_event_that_never_comes() {
    for seed in 0..30 {
        let host = Host::new(seed);
        let mut rng = fastrand::Rng::with_seed(seed);
        let start = 0_u32.wrapping_sub(rng.u32(..300));
        let config = Config { queue_packets: 4, queue_frames: 20, ..Config::default() };
        let mut bench = Bench::on(&host, CLIENT, config, 128);
        let mut client = Client::new(&host, &bench.vif, start);
        let features = Features { split: rng.bool(), ..Features::default() };
        client.connect(&mut bench.netback, &features);
        // Spurious events would wake a sleeper whom everybody else has forgotten.
        host.set_chaos(Chaos { spurious: 0.0, ..Chaos::rough() });

        let (domain, back) = (client.domain.clone(), bench.back.clone());
        let (mut to_send, mut answered, mut to_get) = (300, 0, 80);
        let mut to_deliver = to_get;
        let mut dice = fastrand::Rng::with_seed(!seed);
        let mut scheduler = Scheduler::new(&host);
        scheduler.add("client", &domain, |_: &mut Ctx<'_>| {
            answered += client.answers().len();
            to_get -= client.receive().len();
            let window = dice.usize(1..=20);
            while to_send > 0 && client.tx.outstanding() as usize + 2 < window {
                client.chain(&[(0, 0, 60), (1, 0, 60)], 0, &[]);
                client.show();
                to_send -= 1;
            }
            let room = client.rx.free() as usize;
            client.post(dice.usize(..=4).clamp(usize::from(room == 256), room));
            let idle = client.tx.outstanding() == 0 && to_send > 0;
            match to_send == 0 && answered == 600 && to_get == 0 {
                true => Next::Done,
                false if idle | client.rearm() => Next::Now,
                // Fewer pages than the next packet needs: only we can help.
                false if client.rx.outstanding() < 5 && to_get > 0 => Next::Now,
                false => Next::Wait,
            }
        });
        scheduler.add_background("backend", &back, |_: &mut Ctx<'_>| {
            bench.netback.poll(rng.usize(1..8), drop);
            while to_deliver > 0 {
                let packet = bench.plain(&pattern(1, rng.usize(14..20_000)));
                if bench.netback.deliver(packet).is_err() {
                    break;
                }
                to_deliver -= 1;
            }
            bench.netback.flush();
            let room = to_deliver > 0 && bench.netback.queued() < 4;
            if bench.netback.rearm() || room { Next::Now } else { Next::Wait }
        });
        let limits = Limits { patience: Duration::from_millis(1), ..Limits::default() };
        let outcome = scheduler.run(limits);
        assert_eq!(outcome, Outcome::Done, "seed {seed}");
    }
}

// -- both -----------------------------------------------------------------------------------------

/// Random traffic both ways, with reconnects, from shortly before the index wrap: everything
/// arrives unchanged and in order, or is counted as dropped; no frame is lost.
#[test]
fn whole_sessions_lose_and_change_nothing() {
    for seed in 0..16 {
        session(seed);
    }
}

fn session(seed: u64) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let start = if rng.bool() { 0_u32.wrapping_sub(rng.u32(..600)) } else { rng.u32(..) };
    let config = Config { queue_packets: 32, queue_frames: 64, ..Config::default() };
    let mut bench = Bench::on(&Host::new(seed), CLIENT, config, 160);
    let mut client = Client::new(&bench.host, &bench.vif, start);
    client.connect(&mut bench.netback, &Features { split: rng.bool(), ..Features::default() });
    let (mut queued, mut number) = (std::collections::VecDeque::new(), 0);
    let (mut accepted, mut refused, mut got) = (0, 0, 0);
    for _ in 0..150 {
        let mut sent = Vec::new();
        for _ in 0..rng.usize(..6) {
            let count = if rng.u8(..4) == 0 { rng.usize(1..=18) } else { 1 };
            let total = rng.usize(14..=60_000).min(count * PAGE_SIZE);
            if client.tx.free() as usize >= count {
                sent.push(client.chain(&place(&split(total, count, &mut rng), &mut rng), 0, &[]));
            }
        }
        client.show();
        let received = bench.poll();
        assert!(received == sent, "seed {seed}");
        assert!(client.statuses().iter().all(|status| *status == 0));

        for _ in 0..rng.usize(..4) {
            number += 1;
            let most = if rng.u8(..4) == 0 { 40_000 } else { 1600 };
            let len = rng.usize(14..most);
            let packet = bench.plain(&pattern(number, len));
            match bench.netback.deliver(packet) {
                Ok(()) => {
                    accepted += 1;
                    queued.push_back((number, len));
                }
                Err(Refused::QueueFull) => refused += 1,
                Err(other) => panic!("seed {seed}: {other}"),
            }
        }
        let room = client.rx.free() as usize;
        client.post(rng.usize(..=8).min(room));
        bench.netback.flush();
        for packet in client.receive() {
            let (number, len) = queued.pop_front().expect("only what was sent arrives");
            assert!(packet.unwrap().bytes == pattern(number, len), "seed {seed}");
            got += 1;
        }
        if rng.u8(..50) == 0 {
            client.set_state(5);
            bench.netback.service();
            client.set_state(6);
            bench.netback.service();
            assert_eq!(bench.pool.free(), 160);
            queued.clear();
            client.set_state(1);
            client.reset_rings();
            bench.host.advance(Duration::from_secs(1));
            client.connect(&mut bench.netback, &Features::default());
        }
    }
    let stats = *bench.netback.stats();
    assert_eq!(stats.to_packets, got);
    assert_eq!(stats.to_drops.queue_full, refused);
    assert_eq!(accepted, got + stats.to_drops.disconnected + bench.netback.queued() as u64);
    assert_eq!(stats.from_drops.total(), 0);
    drop(bench.netback);
    assert_eq!(bench.pool.free(), 160);
    assert_eq!(bench.back.mappings(), 0);
    assert_eq!(bench.host.violations(), [], "seed {seed}");
}
