//! Nobody sleeps through an event.

use super::*;

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
        let config = Config::default().with_queue_packets(4).with_queue_frames(20);
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

/// With its uplink full, whoever drives a backend takes no packets from the client for a while: it sleeps,
/// and finds them afterwards.
#[test]
fn n4_nobody_goes_round_for_packets_that_nobody_takes() {
    let (mut bench, mut client) = Bench::with_client(Config::default(), 64);
    client.send(&[(0, 0, 100)]);
    assert!(bench.netback.rearm(), "somebody takes them");
    bench.netback.pause_receive(true);
    for _ in 0..1000 {
        assert!(!bench.netback.rearm());
    }
    assert_eq!(bench.netback.next_deadline(), None);
    // One event was asked for before, at the most; the client goes on, and wakes nobody.
    let quiet = client.domain.counts().notifies;
    for _ in 0..50 {
        client.send(&[(0, 0, 100)]);
        assert!(!bench.netback.rearm());
    }
    assert_eq!(client.domain.counts().notifies, quiet);
    // The other way goes on: pages wake it, and packets go out.
    bench.netback.deliver(bench.plain(&pattern(1, 60))).unwrap();
    assert!(!bench.netback.rearm());
    client.post_as(0, client.targets[0].1);
    assert!(client.show_posted());
    assert!(!bench.netback.rearm(), "it has been used");
    assert_eq!(client.receive().len(), 1);

    bench.netback.pause_receive(false);
    assert!(bench.netback.rearm(), "they are all there");
    assert_eq!(bench.poll().len(), 51);
    assert!(!bench.netback.rearm());
    client.chain(&[(0, 0, 100)], 0, &[]);
    assert!(client.show(), "and the next one wakes it");
}

/// What is given back is whole, and is not counted as lost; it goes when there is room.
#[test]
fn n7_what_does_not_fit_comes_back() {
    let config = Config::default().with_queue_packets(10).with_queue_frames(40);
    let (mut bench, mut client) = Bench::with_client(config, 100);
    let mut back = Vec::new();
    for n in 0..15 {
        let packet = bench.packet(&pattern(n, 3000), &[100, 1000, 2000]);
        if let Err(error) = bench.netback.deliver(packet) {
            back.push((n, error.into_packet().expect("there is no room now")));
        }
    }
    // Ten packets of four frames each.
    assert_eq!((bench.netback.queued(), back.len()), (10, 5));
    for (n, packet) in &back {
        assert!(raw_client::bytes(packet) == pattern(*n, 3000));
        assert_eq!(packet.fragments().len(), 4);
    }
    client.post(20);
    bench.netback.flush();
    for (_, packet) in back {
        bench.netback.deliver(packet).unwrap();
    }
    bench.netback.flush();
    let received: Vec<_> = client.receive().into_iter().map(|got| got.unwrap().bytes).collect();
    assert!(received.iter().zip(0..).all(|(got, n)| *got == pattern(n, 3000)));
    let counters = bench.netback.counters();
    assert_eq!((received.len(), counters.to_given_back, counters.to_drops.total()), (15, 5, 0));
    assert_eq!(bench.pool.free(), 100);
}
