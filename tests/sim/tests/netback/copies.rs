//! Grant copies that fail.

use super::*;

#[test]
fn b6_a_failed_operation_drops_its_packet_only() {
    // Each operation of a batch in turn, and all ways that a reference can be bad.
    for bad in 0..12 {
        for way in 0..3 {
            let (mut bench, mut client) = bench_at(0);
            let gref = client.sources[bad].1;
            client.sources[bad].1 = match way {
                0 => 0xffff_fff0,
                1 => 1,
                _ => {
                    assert!(client.domain.end_grant(gref));
                    gref
                }
            };
            // Packets of 1, 3, 2, 4, 2 fragments, one page each.
            let mut page = 0;
            let mut sent = Vec::new();
            for count in [1, 3, 2, 4, 2] {
                let fragments: Vec<_> = (page..page + count).map(|page| (page, 7, 50)).collect();
                sent.push((page..page + count, client.chain(&fragments, 0, &[])));
                page += count;
            }
            client.show();
            let before = bench.back.counts();
            let got = bench.poll();
            assert_eq!((bench.back.counts() - before).copy_calls, 1);
            let good = sent.iter().filter(|(pages, _)| !pages.contains(&bad));
            assert_eq!(got, good.map(|(_, bytes)| bytes.clone()).collect::<Vec<_>>());
            let expected: Vec<i16> = sent
                .iter()
                .flat_map(|(pages, _)| vec![if pages.contains(&bad) { -1 } else { 0 }; pages.len()])
                .collect();
            assert_eq!(client.statuses(), expected);
            let counters = bench.netback.counters();
            assert_eq!((counters.from_drops.copy_failed, counters.copy_failures), (1, 1));
            assert!(bench.netback.is_connected());
            assert_eq!(bench.pool.free(), 128);
        }
    }
}

#[test]
fn b6_a_failed_operation_to_the_client_drops_its_packet_only() {
    let sizes = [60, 9000, 4096, 8200, 5000];
    let slots: Vec<usize> = sizes.iter().map(|size: &usize| size.div_ceil(PAGE_SIZE)).collect();
    let total: usize = slots.iter().sum();
    for bad in 0..total {
        let (mut bench, mut client) = bench_at(0);
        for id in 0..total {
            // A page that is read-only, and one that is not there.
            let gref = match (id == bad, bad % 2) {
                (true, 0) => client.sources[0].1,
                (true, _) => 0xffff_0000,
                (false, _) => client.targets[id].1,
            };
            client.post_as(id as u16, gref);
        }
        client.show_posted();
        for (n, size) in sizes.iter().enumerate() {
            bench.netback.deliver(bench.plain(&pattern(n as u64, *size))).unwrap();
        }
        let before = bench.back.counts();
        bench.netback.flush();
        assert_eq!((bench.back.counts() - before).copy_calls, 1);
        let mut got = client.receive().into_iter();
        let mut first = 0;
        for (n, count) in slots.iter().enumerate() {
            if (first..first + count).contains(&bad) {
                // Each of its pages comes back, and says so.
                assert!((0..*count).all(|_| got.next() == Some(Err(-1))));
            } else {
                assert_eq!(got.next().unwrap().unwrap().bytes, pattern(n as u64, sizes[n]));
            }
            first += count;
        }
        assert_eq!(got.next(), None);
        let counters = bench.netback.counters();
        assert_eq!((counters.to_packets, counters.to_drops.copy_failed), (4, 1));
        assert_eq!(bench.pool.free(), 128);
    }
}

#[test]
fn b6_a_hypervisor_that_refuses_everything_costs_the_packets_only() {
    let (mut bench, mut client) = bench_at(0);
    let refuse = xen_grant::GrantStatus::EAGAIN;
    bench.back.change_faults(|faults| faults.copy = Some(FaultRule::always(refuse)));
    client.post(8);
    for n in 0..8 {
        client.chain(&[(n, 0, 60)], 0, &[]);
        bench.netback.deliver(bench.plain(&[1; 60])).unwrap();
    }
    client.show();
    assert!(bench.poll().is_empty());
    bench.netback.flush();
    assert_eq!(client.statuses(), [-1; 8]);
    assert_eq!(client.receive(), [const { Err(-1) }; 8]);
    bench.back.change_faults(|faults| faults.copy = None);
    let sent = client.send(&[(0, 0, 60)]);
    assert_eq!(bench.poll(), [sent]);
    assert_eq!(bench.pool.free(), 128);
}

#[test]
fn ring_pages_and_channels_that_do_not_exist_are_refused_and_nothing_stays_mapped() {
    for case in 0..4 {
        let mut bench = Bench::new(Config::default(), 8);
        let mut client = Client::new(&bench.host, &bench.vif, 0);
        bench.netback.service();
        let refs = client.refs;
        match case {
            0 => client.refs.0 = 0xffff_fff0,
            1 => client.refs.1 = 0xffff_fff0,
            // A page that may only be read.
            2 => client.refs.1 = client.sources[0].1,
            _ => {}
        }
        client.publish(&Features::default());
        if case == 3 {
            let store = client.domain.store();
            store.set(&format!("{}/event-channel", bench.vif.front_dir()), "4000");
        }
        // What may pass is tried again.
        for _ in 0..50 {
            bench.netback.service();
            assert!(!bench.netback.is_connected());
            assert_eq!(bench.back.mappings(), 0);
            bench.host.advance(Duration::from_millis(10));
        }
        let error = bench.back.store().get(&format!("{}/error", bench.vif.back_dir()));
        assert!(error.is_some_and(|error| !error.is_empty()));
        client.refs = refs;
        client.set_state(6);
        bench.netback.service();
        bench.host.advance(Duration::from_secs(1));
        client.set_state(1);
        client.connect(&mut bench.netback, &Features::default());
    }
}

/// The most operations that a hypercall has, exactly and not one more, whatever the packets are.
#[test]
fn b6_a_hypercall_has_no_more_than_256_operations() {
    // The largest packet takes 34.
    for (small, large, calls) in [(0, 14, 2), (18, 7, 1), (19, 7, 2), (52, 6, 1), (53, 6, 2)] {
        let (mut bench, mut client) = Bench::with_client(Config::default(), 300);
        let mut sent = Vec::new();
        for nth in 0..small + large {
            let with_all = [(0, 0, 3640); 18];
            let fragments = if nth < small { &with_all[..1] } else { &with_all };
            sent.push(client.chain(fragments, 0, &[]));
        }
        client.show();
        let before = bench.back.counts();
        assert!(bench.poll() == sent);
        let counts = bench.back.counts() - before;
        assert_eq!((counts.copies, counts.copy_calls), (small + large * 34, calls), "{small}");
    }
}

/// To the client too, where the largest packet takes 33.
#[test]
fn b6_a_hypercall_to_the_client_has_no_more_than_256_operations() {
    for (small, large, calls) in [(0, 14, 2), (25, 7, 1), (26, 7, 2), (58, 6, 1), (59, 6, 2)] {
        let (mut bench, mut client) = Bench::with_client(Config::default(), 300);
        client.post(256);
        let mut sent = Vec::new();
        for nth in 0..small + large {
            let packet = if nth < small {
                sent.push(pattern(nth, 60));
                bench.plain(&sent[nth as usize])
            } else {
                // 18 fragments over 16 pages, no end of the one at an end of the other.
                sent.push(pattern(nth, 18 * 3640));
                let cuts: Vec<usize> = (1..18).map(|cut| cut * 3640).collect();
                bench.packet(&sent[nth as usize], &cuts)
            };
            bench.netback.deliver(packet).unwrap();
        }
        let before = bench.back.counts();
        bench.netback.flush();
        let counts = bench.back.counts() - before;
        assert_eq!((counts.copies, counts.copy_calls), (small + large * 33, calls), "{small}");
        let got = client.receive();
        assert!(got.iter().zip(&sent).all(|(got, sent)| got.as_ref().unwrap().bytes == *sent));
        assert_eq!(got.len(), sent.len());
    }
}
