//! Checksums and large packets: what is offered, what is taken, what is done in software.

use packet_views::features::Features as Takes;

use super::*;
use xen_netfront::xenbus::feature_nodes;

/// All sets of features.
fn all_sets() -> impl Iterator<Item = Takes> {
    (0..32_u32).map(|bits| {
        Takes::NONE
            .with_scatter_gather(bits & 1 != 0)
            .with_checksum_v4(bits & 2 != 0)
            .with_checksum_v6(bits & 4 != 0)
            .with_gso_v4(bits & 8 != 0)
            .with_gso_v6(bits & 16 != 0)
    })
}

/// A client that takes exactly this, with rings that start there.
pub fn client_that_takes(takes: Takes, config: Config, start: u32) -> (Bench, Client) {
    let mut bench = Bench::new(config, 600);
    let mut client = Client::new(&bench.host, &bench.vif, start);
    let mut features = Features::default();
    for (key, value) in feature_nodes(&takes) {
        features = features.with(key, value);
    }
    client.connect(&mut bench.netback, &features);
    (bench, client)
}

pub fn offering(features: Takes) -> Config {
    Config::default().with_features(features)
}

fn gso_of(v6: bool, size: u16) -> Gso {
    let kind = if v6 { GsoKind::TcpV6 } else { GsoKind::TcpV4 };
    Gso { size: NonZeroU16::new(size).unwrap(), kind }
}

/// Checks a packet that a client has received, and completes its checksum if it is blank.
fn checked(got: &raw_client::Received, takes: Takes) -> frames::Opened {
    let takes = takes.coherent();
    let opened = frames::open(&got.bytes);
    assert!(takes.scatter_gather || got.slots == 1, "{} slots", got.slots);
    if let Some(gso) = got.gso {
        assert!(takes.takes_gso(gso.kind));
        assert_eq!(gso.kind == GsoKind::TcpV6, opened.v6);
        assert!(got.flags & rx_flags::CSUM_BLANK != 0);
    }
    if got.flags & rx_flags::CSUM_BLANK == 0 {
        assert!(opened.right, "neither right nor blank");
    } else {
        assert!(got.flags & rx_flags::DATA_VALIDATED != 0);
        assert!(if opened.v6 { takes.checksum_v6 } else { takes.checksum_v4 });
        assert_eq!(frames::blank(got.bytes.clone()), got.bytes, "the pseudo-header's sum");
    }
    opened
}

/// Whatever a client takes, what goes in comes out: the same bytes, their checksums right or
/// blank, in one packet or in segments that fit it.
#[test]
fn whatever_a_client_takes_it_gets_the_same_data() {
    let (mut cut, mut filled) = (0, 0);
    for (seed, takes) in all_sets().enumerate() {
        let start = 0_u32.wrapping_sub(seed as u32 * 40);
        let (mut bench, mut client) = client_that_takes(takes, offering(Takes::NONE), start);
        let mut rng = fastrand::Rng::with_seed(seed as u64);
        for round in 0..120 {
            let (v6, tcp) = (rng.bool(), rng.bool());
            let large = tcp && rng.bool();
            let most = match (large, takes.scatter_gather) {
                (true, _) => 60_000,
                (false, true) => 12_000,
                (false, false) => 4000,
            };
            let data = pattern(round, rng.usize(..most));
            let mut meta = Meta { checksum: Checksum::Blank, gso: None };
            if large {
                meta.gso = Some(gso_of(v6, [1448, 536, 3900, 9][rng.usize(..4)]));
            }
            let whole = frames::frame(v6, tcp, 7, &data);
            let frame = if large || rng.bool() {
                frames::blank(whole)
            } else {
                meta.checksum = if rng.bool() { Checksum::Complete } else { Checksum::Unknown };
                whole
            };
            let size = meta.gso.map_or(usize::MAX, |gso| usize::from(gso.size.get()));
            if data.len().div_ceil(size) > 200 {
                continue;
            }

            // Headers in one piece, the data cut anywhere.
            let headers = frame.len() - data.len();
            let pages = frame.len().div_ceil(PAGE_SIZE);
            let mut cuts: Vec<usize> =
                (1..pages).map(|page| (page * PAGE_SIZE).max(headers)).collect();
            if rng.bool() && pages < 15 {
                cuts.push(rng.usize(headers..=frame.len()));
                cuts.sort_unstable();
            }
            let mut packet = bench.packet(&frame, &cuts);
            packet.meta = meta;
            // Read by somebody else, too: then it must not change.
            let other = rng.bool().then(|| packet.clone());
            let room = client.rx.free() as usize;
            client.post(room);
            let before = *bench.netback.counters();
            bench.netback.deliver(packet).unwrap();
            bench.netback.flush();
            let got = client.receive();
            let after = *bench.netback.counters();

            let mut arrived = Vec::new();
            for (number, part) in got.iter().enumerate() {
                let part = part.as_ref().unwrap();
                let opened = checked(part, takes);
                assert_eq!((opened.v6, opened.tcp, opened.ports.0), (v6, tcp, 7));
                if tcp {
                    assert_eq!(opened.sequence as usize, 1000 + arrived.len());
                }
                if got.len() > 1 {
                    let last = number + 1 == got.len();
                    assert!(last || opened.data.len() == size);
                }
                arrived.extend(opened.data);
            }
            assert!(arrived == data, "{takes:?}");

            // As it is, if the client takes it so; else in segments, or with the sum filled in.
            if takes.coherent().takes(meta, &frame) {
                let got = got[0].as_ref().unwrap();
                assert_eq!((&got.bytes, got.gso), (&frame, meta.gso));
                assert_eq!((after.cut, after.sums_filled), (before.cut, before.sums_filled));
            } else if let Some(gso) = meta.gso {
                assert!(got.iter().all(|part| part.as_ref().unwrap().gso.is_none()));
                let count = data.len().div_ceil(usize::from(gso.size.get())).max(1);
                assert_eq!((got.len(), after.segments - before.segments), (count, count as u64));
                assert_eq!((after.cut - before.cut, after.copied_bytes), (1, before.copied_bytes));
            } else {
                assert_eq!((got.len(), after.sums_filled - before.sums_filled), (1, 1));
                let first = cuts.first().copied().unwrap_or(frame.len()) as u64;
                let copied = if other.is_some() { first } else { 0 };
                assert_eq!(after.copied_bytes - before.copied_bytes, copied);
            }
            if let Some(other) = other {
                assert!(raw_client::bytes(&other) == frame, "somebody else's packet has changed");
            }
        }
        let counters = bench.netback.counters();
        assert_eq!(counters.to_drops.total(), 0);
        cut += counters.cut;
        filled += counters.sums_filled;
        assert_eq!(bench.pool.free(), 600);
        assert_eq!(bench.host.violations(), []);
    }
    assert!(cut > 300 && filled > 300, "{cut} cut, {filled} filled in");
}

/// What a backend offers is what it takes: all sets of features, all kinds of packets.
#[test]
fn b10_a_client_may_use_what_was_offered_and_nothing_else() {
    for offered in all_sets() {
        let (mut bench, mut client) = client_that_takes(Takes::ALL, offering(offered), 5);
        let offered = offered.coherent();
        let store = bench.back.store();
        for (key, value) in feature_nodes(&offered) {
            let said = store.get(&format!("{}/{key}", bench.vif.back_dir()));
            // What is off is not written: the protocol says so.
            assert_eq!(said.as_deref(), (value == "1").then_some("1"), "{key}");
        }
        let mut drops = bench.netback.counters().from_drops;
        for v6 in [false, true] {
            for (len, size) in [(100, None), (5000, None), (3000, Some(1000)), (20_000, Some(1448))]
            {
                let frame = frames::blank(frames::frame(v6, true, 9, &pattern(3, len)));
                let fragments = client.lay(0, &frame);
                let gso = size.map(|size| gso_of(v6, size));
                let extras: Vec<Extra> = gso.into_iter().map(Extra::from_gso).collect();
                client.chain(&fragments, tx_flags::CSUM_BLANK, &extras);
                client.show();
                let got = bench.poll_packets();
                if gso.is_some_and(|gso| !offered.takes_gso(gso.kind)) {
                    drops.gso += 1;
                } else if fragments.len() > 1 && !offered.scatter_gather {
                    drops.scatter_gather += 1;
                } else {
                    assert_eq!(got.len(), 1);
                    assert_eq!(got[0].meta, Meta { checksum: Checksum::Blank, gso });
                    assert_eq!(bytes(&got[0]), frame);
                }
                assert_eq!(bench.netback.counters().from_drops, drops, "{offered:?}");
                let status = if got.is_empty() { -1 } else { 0 };
                let mut expected = vec![status; fragments.len()];
                if gso.is_some() {
                    expected.insert(1, 1);
                }
                assert_eq!(client.statuses(), expected);
            }
        }
        assert!(bench.netback.is_connected());
        assert_eq!((bench.pool.free(), bench.netback.counters().faults), (600, 0));
    }
}

/// protocol.md 2.6: GSO always leaves the checksum to whoever cuts it, said or not.
#[test]
fn gso_that_is_not_blank_is_made_so() {
    let (mut bench, mut client) = client_that_takes(Takes::ALL, offering(Takes::ALL), 0);
    for (n, v6) in [false, true].into_iter().enumerate() {
        for flags in [0, tx_flags::DATA_VALIDATED] {
            let whole = frames::frame(v6, true, 9, &pattern(3, 9000));
            let fragments = client.lay(0, &whole);
            client.chain(&fragments, flags, &[Extra::from_gso(gso_of(v6, 1400))]);
        }
        client.show();
        for packet in bench.poll_packets() {
            assert_eq!(packet.meta.checksum, Checksum::Blank);
            let expected = frames::blank(frames::frame(v6, true, 9, &pattern(3, 9000)));
            assert!(bytes(&packet) == expected);
        }
        assert_eq!(bench.netback.counters().gso_not_blank, 2 * (n as u64 + 1));
    }
    assert_eq!(bench.netback.counters().from_packets, 4);
}

#[test]
fn b10_gso_with_headers_of_another_kind_is_dropped() {
    let (mut bench, mut client) = client_that_takes(Takes::ALL, offering(Takes::ALL), 0);
    let good = frames::blank(frames::frame(false, true, 9, &pattern(1, 3000)));
    let mut fragment = good.clone();
    fragment[20] = 0x20;
    let mut long = good.clone();
    long[16..18].copy_from_slice(&4000_u16.to_be_bytes());
    let mut offset = good.clone();
    offset[46] = 0x30;
    let bad = [
        (frames::frame(true, true, 9, &pattern(1, 3000)), false),
        (good.clone(), true),
        (frames::frame(false, false, 9, &pattern(1, 3000)), false),
        (pattern(5, 3000), false),
        (good[..50].to_vec(), false),
        (fragment, false),
        (long, false),
        (offset, false),
    ];
    for (n, (frame, v6)) in bad.iter().enumerate() {
        for flags in [0, tx_flags::CSUM_BLANK] {
            let fragments = client.lay(0, frame);
            client.chain(&fragments, flags, &[Extra::from_gso(gso_of(*v6, 1000))]);
            // It costs no other packet of the batch.
            let after = client.chain(&[(9, 0, 60)], 0, &[]);
            client.show();
            assert_eq!(bench.poll(), [after], "case {n}");
            assert_eq!(client.statuses(), [-1, 1, 0]);
        }
        assert_eq!(bench.netback.counters().from_drops.gso_headers, 2 * (n as u64 + 1));
    }
    assert_eq!((bench.pool.free(), bench.netback.counters().gso_not_blank), (600, 0));
}

/// Chains with extras, of all lengths, from shortly before the index wrap, in both directions and
/// in several queues.
#[test]
fn b8_gso_chains_cross_the_index_wrap() {
    for back in 1..24_u32 {
        let mut bench = Bench::new(offering(Takes::ALL).with_max_queues(2), 600);
        let new = |_| Client::new(&bench.host, &bench.vif, 0_u32.wrapping_sub(back));
        let mut queues: Vec<_> = (0..2).map(new).collect();
        Client::connect_all(&mut queues, &mut bench.netback, &Features::default());
        let mut rng = fastrand::Rng::with_seed(u64::from(back));
        for round in 0..30 {
            let queue = &mut queues[round % 2];
            let data = pattern(round as u64, rng.usize(1..60_000));
            let frame = frames::blank(frames::frame(false, true, round as u16, &data));
            // Any split: the sources are 32 pages, filled from where each fragment lies.
            let count = rng.usize(frame.len().div_ceil(PAGE_SIZE)..=18);
            let places = place(&split(frame.len(), count, &mut rng), &mut rng);
            let mut at = 0;
            for &(page, offset, size) in &places {
                let part = &frame[at..at + usize::from(size)];
                queue.sources[page].0.write(usize::from(offset), part);
                at += part.len();
            }
            let hash = Extra { kind: Extra::HASH, flags: Extra::MORE, data: [9; 6] };
            let extras = [hash, Extra::from_gso(gso_of(false, 1400))];
            let extras = if rng.bool() { &extras[..] } else { &extras[1..] };
            queue.chain(&places, tx_flags::CSUM_BLANK, extras);
            queue.show();
            let packets = bench.poll_packets();
            assert_eq!(packets.len(), 1);
            assert!(bytes(&packets[0]) == frame);
            let mut expected = vec![0; count];
            extras.iter().for_each(|_| expected.insert(1, 1));
            assert_eq!(queue.statuses(), expected);

            // And back, in the queue of its flow.
            for packet in packets {
                for queue in &mut queues {
                    let room = queue.rx.free().min(20) as usize;
                    queue.post(room);
                }
                bench.netback.deliver(packet.freeze()).unwrap();
            }
            bench.netback.flush();
            let mut got: Vec<_> = queues.iter_mut().flat_map(Client::receive).collect();
            let got = got.pop().unwrap().unwrap();
            assert!(got.bytes == frame);
            assert_eq!((got.gso, got.flags & 3), (Some(gso_of(false, 1400)), 3));
        }
        assert_eq!(bench.pool.free(), 600);
        assert_eq!(bench.netback.counters().from_drops.total(), 0);
        assert_eq!(bench.host.violations(), []);
    }
}

#[test]
fn b11_small_segments_count_as_the_work_that_cutting_them_is() {
    let turns = |size| {
        let (mut bench, mut client) = client_that_takes(Takes::ALL, offering(Takes::ALL), 0);
        let frame = frames::blank(frames::frame(false, true, 9, &pattern(1, 60_000)));
        let fragments = client.lay(0, &frame);
        client.chain(&fragments, tx_flags::CSUM_BLANK, &[Extra::from_gso(gso(size))]);
        client.chain(&[(20, 0, 60)], 0, &[]);
        client.show();
        assert_eq!(bench.netback.poll(1, |_| ()), 1);
        (0..).take_while(|_| bench.netback.poll(1, |_| ()) == 0).count()
    };
    let usual = turns(1448);
    assert!((28..45).contains(&usual), "{usual}");
    // Sixty bytes each: a thousand.
    assert!(turns(60) > 10 * usual);
    assert!(turns(1) > 500 * usual);
}
