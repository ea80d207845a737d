//! What the toolstack allows a client: so many bytes in a time, packets of such a length.

use super::*;

/// A vif of which the toolstack says more.
fn bench(keys: &[(&str, &str)]) -> (Bench, Client) {
    let mut bench = Bench::new(Config::default(), 300);
    for (key, value) in keys {
        bench.toolstack.store().set(&format!("{}/{key}", bench.vif.back_dir()), value);
    }
    let mut client = Client::new(&bench.host, &bench.vif, 0);
    client.connect(&mut bench.netback, &Features::default());
    (bench, client)
}

/// Sends all that there is room for, for so long; the backend sleeps whenever it may. Returns the bytes
/// that came through, and how often the backend turned.
fn flood(bench: &mut Bench, client: &mut Client, len: u16, time: Duration) -> (u64, u64) {
    let (end, mut bytes, mut turns) = (bench.host.now() + time, 0, 0);
    while bench.host.now() < end {
        client.answers();
        while client.tx.free() > 0 {
            client.chain(&[(0, 0, len)], 0, &[]);
        }
        client.show();
        turns += 1;
        bench.netback.poll(64, |packet| bytes += packet.len() as u64);
        if !bench.netback.rearm() {
            let next = bench.netback.next_deadline().expect("there will be credit");
            assert!(next > bench.host.now(), "it asks for ever");
            bench.host.advance_to(next.min(end));
        }
    }
    (bytes, turns)
}

#[test]
fn b11_rate_limits_what_a_client_sends_and_sleeps_meanwhile() {
    // 1 MB/s, in windows of 50 ms; less in a window than a packet; 10 Gbit/s, which is no limit here.
    for (rate, len, fair) in [
        ("50000,50000", 1514, 1_000_000),
        ("50000,50000", 60, 1_000_000),
        ("1000,20000", 1514, 50_000),
    ] {
        let (mut bench, mut client) = bench(&[("rate", rate)]);
        let seconds = 10;
        let (bytes, turns) = flood(&mut bench, &mut client, len, Duration::from_secs(seconds));
        let fair = fair * seconds;
        assert!(bytes.abs_diff(fair) <= fair / 20 + u64::from(len), "{bytes} of {fair} at {rate}");
        // It wakes once a window, and goes on until credit or ring are empty.
        assert!(turns <= 60 * seconds + bytes / u64::from(len) / 32, "{turns} turns at {rate}");
        // What it saves up while it is quiet is one burst of 128 KB.
        bench.host.advance(Duration::from_secs(3600));
        let mut burst = 0;
        for _ in 0..2000 / 64 + 2100 {
            bench.netback.poll(64, |packet| burst += packet.len() as u64);
            client.answers();
            while client.tx.free() > 0 {
                client.chain(&[(0, 0, len)], 0, &[]);
            }
            client.show();
        }
        assert!((131_072..131_072 + u64::from(len)).contains(&burst), "{burst} at {rate}");
        assert_eq!(bench.netback.counters().from_drops.total(), 0);
        // A detach waits for no credit.
        bench.toolstack.begin_detach(&bench.vif);
        bench.netback.service();
        assert!(!bench.netback.is_connected());
    }
}

#[test]
fn b11_all_queues_of_a_client_have_one_rate() {
    let config = Config::default().with_max_queues(4);
    let mut bench = Bench::new(config, 300);
    bench.toolstack.store().set(&format!("{}/rate", bench.vif.back_dir()), "100000,50000");
    let mut queues: Vec<Client> = (0..4).map(|_| Client::new(&bench.host, &bench.vif, 0)).collect();
    Client::connect_all(&mut queues, &mut bench.netback, &Features::default());
    let end = bench.host.now() + Duration::from_secs(5);
    let (mut bytes, mut by_queue) = (0, [0_u64; 4]);
    while bench.host.now() < end {
        for (queue, count) in queues.iter_mut().zip(&mut by_queue) {
            *count += queue.answers().len() as u64;
            while queue.tx.free() > 0 {
                queue.chain(&[(0, 0, 1514)], 0, &[]);
            }
            queue.show();
        }
        bench.netback.poll(64, |packet| bytes += packet.len() as u64);
        if !bench.netback.rearm() {
            let next = bench.netback.next_deadline().unwrap();
            bench.host.advance_to(next);
        }
    }
    let fair = 5 * 2_000_000_u64;
    assert!(bytes.abs_diff(fair) <= fair / 10, "{bytes} of {fair}");
    let most = by_queue.iter().max().unwrap();
    assert!(by_queue.iter().all(|count| count * 2 >= *most), "{by_queue:?}");
}

#[test]
fn without_a_rate_or_with_one_that_makes_no_sense_there_is_no_limit() {
    for rate in [None, Some("0,50000"), Some("x"), Some("5,"), Some("")] {
        let keys: Vec<_> = rate.map(|rate| ("rate", rate)).into_iter().collect();
        let (mut bench, mut client) = bench(&keys);
        let mut packets = 0;
        for _ in 0..100 {
            while client.tx.free() > 0 {
                client.chain(&[(0, 0, 1514)], 0, &[]);
            }
            client.show();
            packets += bench.netback.poll(1000, drop);
            client.answers();
        }
        assert_eq!((packets, bench.netback.next_deadline()), (25_600, None), "{rate:?}");
    }
}

#[test]
fn n7_a_packet_beyond_the_mtu_is_refused_and_counted() {
    let too_long = Err(Some(DeliverErrorKind::BadLength));
    for (mtu, longest) in
        [(Some("1500"), 1518), (Some("9000"), 9018), (Some("68"), 86), (None, 65_535)]
    {
        let keys: Vec<_> = mtu.map(|mtu| ("mtu", mtu)).into_iter().collect();
        let (mut bench, mut client) = bench(&keys);
        client.post(40);
        for (n, len) in (0..).zip([60, longest, longest + 1]) {
            let bytes = pattern(n, len);
            let expected = if len > longest { too_long } else { Ok(()) };
            assert_eq!(outcome(bench.netback.deliver(bench.plain(&bytes))), expected, "{len}");
            // However it is cut.
            let cuts: Vec<usize> = (1..18).map(|n| n * len / 18).collect();
            assert_eq!(outcome(bench.netback.deliver(bench.packet(&bytes, &cuts))), expected);
        }
        bench.netback.flush();
        assert_eq!(client.receive().len(), 4, "{mtu:?}");
        let drops = bench.netback.counters().to_drops;
        assert_eq!((drops.bad_length, drops.total()), (2, 2));
        // A large one is not meant to be as short: it is cut.
        let large = frames::blank(frames::frame(false, true, 9, &pattern(1, 20_000)));
        let mut packet = bench.plain(&large);
        packet.meta = Meta { checksum: Checksum::Blank, gso: Some(gso(1000)) };
        assert_eq!(outcome(bench.netback.deliver(packet)), Ok(()));
    }
}
