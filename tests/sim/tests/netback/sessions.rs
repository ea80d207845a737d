//! Whole sessions, both ways.

use super::*;

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
    let config = Config::default().with_queue_packets(32).with_queue_frames(64);
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
            match outcome(bench.netback.deliver(packet)) {
                Ok(()) => {
                    accepted += 1;
                    queued.push_back((number, len));
                }
                Err(None) => refused += 1,
                Err(other) => panic!("seed {seed}: {other:?}"),
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
    let counters = *bench.netback.counters();
    assert_eq!(counters.to_packets, got);
    assert_eq!(counters.to_given_back, refused);
    assert_eq!(accepted, got + counters.to_drops.disconnected + bench.netback.queued() as u64);
    assert_eq!(counters.from_drops.total(), 0);
    drop(bench.netback);
    assert_eq!(bench.pool.free(), 160);
    assert_eq!(bench.back.mappings(), 0);
    assert_eq!(bench.host.violations(), [], "seed {seed}");
}
