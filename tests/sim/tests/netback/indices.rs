//! Ring indices that make no sense.

use super::*;

#[test]
fn b1_a_producer_index_beyond_the_ring_shuts_the_vif() {
    for start in STARTS {
        // Some requests are popped and answered, some published and not looked at.
        for (done, ahead, sound) in [
            (0, 256, true),
            (0, 257, false),
            (5, 256, true),
            (5, 257, false),
            (5, 0x8000_0000, false),
            (5, u32::MAX, false),
        ] {
            for transmit in [true, false] {
                let (mut bench, mut client) = bench_at(start);
                if transmit {
                    for _ in 0..done {
                        client.send(&[(0, 0, 60)]);
                    }
                    assert_eq!(bench.poll().len(), done);
                } else {
                    client.post(done);
                    for _ in 0..done {
                        bench.netback.deliver(bench.plain(&[1; 60])).unwrap();
                    }
                    bench.netback.flush();
                }
                let page = if transmit { &client.tx_page } else { &client.rx_page };
                // A sound index needs sound requests: a copy of one everywhere.
                for slot in 0..256 {
                    let words = if transmit {
                        xen_ring::Wire::to_words(request(&client, 0, 0, 60, 0, slot as u16))
                            .to_vec()
                    } else {
                        let gref = client.targets[slot].1;
                        xen_ring::Wire::to_words(RxRequest { id: slot as u16, gref }).to_vec()
                    };
                    for (word, value) in words.iter().enumerate() {
                        let at = SLOTS + slot * words.len() + word;
                        page.words()[at].store(*value, Ordering::Relaxed);
                    }
                }
                let index = start.wrapping_add(done as u32).wrapping_add(ahead);
                page.words()[REQ_PROD].store(index, Ordering::Release);
                bench.netback.deliver(bench.plain(&[1; 60])).unwrap();
                let got = bench.netback.poll(10_000, |_| ());
                bench.netback.flush();
                assert_eq!(bench.netback.is_connected(), sound, "{start:#x} {done} {ahead:#x}");
                if sound {
                    assert_eq!(got, if transmit { 256 } else { 0 });
                    let answered = bench.netback.counters().to_packets
                        - if transmit { 0 } else { done as u64 };
                    assert_eq!(answered, u64::from(!transmit));
                } else {
                    expect_shut(bench, client);
                }
            }
        }
    }
}

#[test]
fn b1_an_index_that_goes_back_shuts_the_vif() {
    for start in STARTS {
        let (mut bench, mut client) = bench_at(start);
        for _ in 0..10 {
            client.chain(&[(0, 0, 60)], 0, &[]);
        }
        client.show();
        assert_eq!(bench.netback.poll(3, |_| ()), 3);
        client.tx_page.words()[REQ_PROD].store(start.wrapping_add(5), Ordering::Release);
        assert_eq!(bench.netback.poll(3, |_| ()), 0);
        expect_shut(bench, client);
    }
}

#[test]
fn f5_what_we_published_is_not_read_back() {
    let (mut bench, mut client) = bench_at(0);
    let sent = client.send(&[(0, 0, 60)]);
    assert_eq!(bench.poll(), [sent]);
    client.tx_page.words()[RSP_PROD].store(0xdead_beef, Ordering::Release);
    let sent = client.send(&[(1, 0, 60)]);
    assert_eq!(bench.poll(), [sent]);
    assert_eq!(client.statuses(), [0, 0]);
}

#[test]
fn rings_that_start_with_an_impossible_index_are_not_connected() {
    for page in 0..2 {
        let mut bench = Bench::new(Config::default(), 8);
        let mut client = Client::new(&bench.host, &bench.vif, 0);
        bench.netback.service();
        let rings = [&client.tx_page, &client.rx_page];
        rings[page].words()[REQ_PROD].store(300, Ordering::Release);
        client.publish(&Features::default());
        bench.netback.service();
        assert!(!bench.netback.is_connected());
        assert_eq!(bench.back.mappings(), 0);
        assert_eq!(bench.netback.counters().faults, 1);
    }
}
