//! What a client can cost.

use super::*;

#[test]
fn b11_a_turn_is_bounded_whatever_is_on_the_ring() {
    // The most that one packet can take beyond the budget is itself.
    let most_ops = |counts: Counts| (counts.copies, counts.copy_calls);
    let (mut bench, mut client) = bench_at(0);
    for _ in 0..14 {
        client.chain(&[(0, 0, 3640); 18], 0, &[]);
    }
    client.show();
    let before = bench.back.counts();
    bench.netback.poll(1, |_| ());
    assert_eq!(most_ops(bench.back.counts() - before), (34, 1));
    let before = bench.back.counts();
    for _ in 0..30 {
        bench.netback.poll(1, |_| ());
    }
    assert_eq!(most_ops(bench.back.counts() - before), (0, 0), "it pays for the first one");

    // A ring full of extras behind one request: 256 slots of work, then a pause as long.
    let (mut bench, mut client) = bench_at(0);
    let hashes = |n: usize| {
        let more = |last| if last { 0 } else { Extra::MORE };
        (0..n).map(move |i| Extra { kind: Extra::HASH, flags: more(i + 1 == n), data: [0; 6] })
    };
    let extras: Vec<Extra> = hashes(255).collect();
    let sent = client.chain(&[(0, 0, 60)], 0, &extras);
    client.show();
    assert_eq!(bench.poll(), [sent]);
    let answers = client.statuses();
    assert_eq!((answers[0], answers.len()), (0, 256));
    assert!(answers[1..].iter().all(|status| *status == 1));
    client.chain(&[(0, 0, 60)], 0, &extras);
    client.show();
    assert_eq!(bench.netback.poll(1, |_| ()), 1);
    assert_eq!(client.answers().len(), 256);
    client.send(&[(0, 0, 60)]);
    let turns = (0..).take_while(|_| bench.netback.poll(1, |_| ()) == 0).count();
    assert!((95..=110).contains(&turns), "{turns}");
}

#[test]
fn b11_maps_and_memory_of_a_client_are_capped() {
    let config = Config::default().with_queue_packets(50).with_queue_frames(80);
    let (mut bench, mut client) = Bench::with_client(config, 128);
    for round in 0..200 {
        // It sends all it can, whoever keeps the packets.
        while client.tx.free() >= 18 {
            client.chain(&[(0, 0, 3640); 18], 0, &[]);
        }
        client.show();
        let mut held = Vec::new();
        bench.netback.poll(64, |packet| held.push(packet));
        client.answers();
        // All of it comes back to it, and it takes next to nothing.
        for packet in held {
            let _ = bench.netback.deliver(packet.freeze());
        }
        client.post((client.rx.free() as usize).min(round % 3));
        bench.netback.flush();
        client.receive();
        assert_eq!(bench.back.mappings(), 2);
        assert!(bench.netback.queued() <= 50);
        assert!(bench.pool.free() >= 128 - 80, "its queue holds no more than it may");
    }
    let counters = bench.netback.counters();
    assert!(counters.to_given_back > 0 && counters.to_packets > 0);
    assert_eq!(bench.back.pages_in_use(), 128);
}

#[test]
fn b11_a_storm_in_xenstore_is_paced() {
    let (mut bench, client) = bench_at(0);
    let store = client.domain.store();
    let (front, seconds) = (bench.vif.front_dir(), 20);
    let before = bench.back.counts();
    let end = bench.host.now() + Duration::from_secs(seconds);
    let mut state = 0_u32;
    while bench.host.now() < end {
        // All states in turn, and nonsense between them: each wakes us.
        state += 1;
        let text = if state % 11 == 10 { "x".to_owned() } else { (state % 11).to_string() };
        store.set(&format!("{front}/state"), &text);
        bench.netback.service();
        bench.netback.poll(64, |_| ());
        bench.netback.rearm();
        bench.host.advance(Duration::from_millis(1));
    }
    let asked = (bench.back.counts() - before).store_calls;
    let allowed = 400 + 500 * seconds + 100;
    assert!((2000..allowed).contains(&asked), "{asked} requests in {seconds} s");
    // Nothing is lost by it: a detach is answered within a second.
    bench.toolstack.begin_detach(&bench.vif);
    for _ in 0..100 {
        bench.host.advance(Duration::from_millis(10));
        bench.netback.service();
    }
    assert!(bench.netback.is_gone());
    assert_eq!(bench.back.mappings(), 0);
    assert_eq!(bench.host.violations(), []);
}

/// A pool of the size that the configuration names is enough for all that may wait for the client and
/// for all that it sends.
#[test]
fn a_pool_of_least_pages_never_lacks_one() {
    let takes_all = packet_views::features::Features::ALL;
    let config = Config::default().with_queue_packets(512).with_features(takes_all);
    let lacking = |pages| {
        let mut bench = Bench::new(config, pages);
        let mut client = Client::new(&bench.host, &bench.vif, 0);
        // It takes no large packets: they are cut for it, and the headers written into its pool.
        let plain = Features::default().with("feature-sg", "0").with("feature-gso-tcpv4", "0");
        client.connect(&mut bench.netback, &plain);
        bench.pool = FramePool::new(&bench.back, 400).unwrap();
        let large = frames::blank(frames::frame(false, true, 9, &pattern(1, 60_000)));
        for _ in 0..20 {
            let mut packet = bench.plain(&large);
            packet.meta = Meta { checksum: Checksum::Blank, gso: Some(gso(1000)) };
            let _ = bench.netback.deliver(packet);
        }
        // And what room is left goes to smaller ones.
        let small = frames::blank(frames::frame(false, true, 9, &pattern(1, 3000)));
        while {
            let mut packet = bench.plain(&small);
            packet.meta = Meta { checksum: Checksum::Blank, gso: Some(gso(1000)) };
            bench.netback.deliver(packet).is_ok()
        } {}
        while client.tx.free() >= 15 {
            client.chain(&[(0, 0, PAGE_SIZE as u16); 15], 0, &[]);
        }
        client.show();
        let packets = (0..20).map(|_| bench.netback.poll(100, drop)).sum::<usize>();
        let counters = bench.netback.counters();
        assert_eq!(packets as u64 + counters.from_drops.no_frame, 17);
        assert!(counters.to_given_back > 0, "as much waits as may");
        (counters.from_drops.no_frame, counters.to_drops.no_frame)
    };
    assert_eq!(config.least_pages(), 786);
    assert_eq!(lacking(config.least_pages()), (0, 0));
    assert!(lacking(config.queue_frames / 2).0 > 0);
}

#[test]
fn a_deadline_is_named_while_the_bus_rests() {
    let (mut bench, client) = bench_at(0);
    let mut deadline = None;
    for _ in 0..200 {
        client.set_state(4);
        bench.netback.service();
        deadline = bench.netback.next_deadline();
        if deadline.is_some() {
            break;
        }
    }
    let deadline: Instant = deadline.expect("the allowance comes to an end");
    client.set_state(5);
    bench.netback.service();
    assert!(bench.netback.is_connected(), "not looked at yet");
    bench.host.advance_to(deadline);
    bench.netback.service();
    assert!(!bench.netback.is_connected());
}

#[test]
fn faults_say_what_happened() {
    let faults = [
        Fault::Ring(PeerFault::UnknownId(1)),
        Fault::CrossesPage { offset: 4000, size: 97 },
        Fault::TooManySlots,
        Fault::CutShort,
        Fault::UnknownExtra(9),
        Fault::BadGso,
    ];
    for fault in faults {
        assert!(!fault.to_string().is_empty());
    }
    let _: DomId = CLIENT;
}
