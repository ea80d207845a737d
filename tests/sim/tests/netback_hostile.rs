//! The backend with clients that do not keep to the rules.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod raw_client;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use raw_client::{Bench, CLIENT, Client, Features, pattern};
use xen_grant::{DomId, PAGE_SIZE};
use xen_netfront::netback::{Config, Fault, Refused};
use xen_netfront::platform::Instant;
use xen_netfront::wire::{Extra, RxRequest, RxResponse, TxRequest, TxSlot, rx_flags, tx_flags};
use xen_ring::PeerFault;
use xen_sim::{Counts, FaultRule, Host};

/// Words of a ring's header.
const REQ_PROD: usize = 0;
const RSP_PROD: usize = 2;
/// Word of the first slot.
const SLOTS: usize = 16;

const STARTS: [u32; 4] = [0, 0x7fff_ff80, 0u32.wrapping_sub(256), 0u32.wrapping_sub(1)];

fn bench_at(start: u32) -> (Bench, Client) {
    let mut bench = Bench::new(Config::default(), 128);
    let mut client = Client::new(&bench.host, &bench.vif, start);
    client.connect(&mut bench.netback, &Features::default());
    (bench, client)
}

fn request(client: &Client, page: usize, offset: u16, size: u16, flags: u16, id: u16) -> TxRequest {
    TxRequest { gref: client.sources[page].1, offset, flags, id, size }
}

/// The vif is shut at once, taken down once and later, and comes back.
fn expect_shut(mut bench: Bench, mut client: Client) {
    // B2: nothing moves any more, and nothing is torn down either.
    let before = bench.back.counts();
    assert!(!bench.netback.is_connected());
    assert_eq!(bench.netback.poll(64, |_| ()), 0);
    assert_eq!(bench.netback.deliver(bench.plain(&[1; 60])), Err(Refused::NotConnected));
    bench.netback.flush();
    assert!(bench.netback.rearm(), "somebody has to see to it");
    assert_eq!(bench.back.counts() - before, Counts::default());
    assert_eq!(bench.back.mappings(), 2);
    let faults = bench.netback.stats().faults;

    bench.netback.service();
    assert_eq!(bench.netback.stats().faults, faults + 1);
    assert_eq!((bench.back.counts() - before).unmaps, 2);
    assert_eq!(bench.back.mappings(), 0);
    assert!(!bench.netback.rearm());
    assert_eq!(bench.toolstack.states(&bench.vif).1, Some(5));
    for _ in 0..3 {
        bench.netback.service();
    }
    assert_eq!((bench.back.counts() - before).unmaps, 2);
    assert_eq!(bench.pool.free(), bench.pool.size());

    client.set_state(6);
    bench.netback.service();
    bench.host.advance(Duration::from_secs(1));
    client.set_state(1);
    client.reset_rings();
    client.connect(&mut bench.netback, &Features::default());
    let sent = client.send(&[(0, 0, 100)]);
    assert_eq!(bench.poll(), [sent]);
    assert_eq!(bench.host.violations(), []);
}

// -- indices --------------------------------------------------------------------------------------

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
                    let answered =
                        bench.netback.stats().to_packets - if transmit { 0 } else { done as u64 };
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
        assert_eq!(bench.netback.stats().faults, 1);
    }
}

// -- requests -------------------------------------------------------------------------------------

#[test]
fn b2_every_fatal_chain_shuts_the_vif_at_once_and_takes_it_down_later() {
    let extra = |kind, data| TxSlot::from(Extra { kind, flags: 0, data });
    let last_slots = 20;
    for case in 0..9 {
        let (mut bench, mut client) = bench_at(0);
        // Sound packets in front are part of the same batch.
        client.chain(&[(0, 0, 60)], 0, &[]);
        let one = |offset, size, flags| TxSlot::from(request(&client, 1, offset, size, flags, 9));
        let (more, with_extra) = (tx_flags::MORE_DATA, tx_flags::EXTRA_INFO);
        let slots: Vec<TxSlot> = match case {
            0 => vec![one(4096, 14, 0)],
            1 => vec![one(0, 100, more), one(4090, 7, 0)],
            2 => vec![one(0, 60, more)],
            3 => vec![one(0, 60, with_extra)],
            4 => vec![one(0, 60, with_extra), extra(0, [0; 6])],
            5 => vec![one(0, 60, with_extra), extra(77, [0; 6])],
            6 => vec![one(0, 60, with_extra), extra(Extra::GSO, [0, 0, 1, 0, 0, 0])],
            7 => vec![one(0, 60, with_extra), extra(Extra::GSO, [1, 0, 9, 0, 0, 0])],
            _ => (0..last_slots)
                .map(|slot| one(0, 60, if slot + 1 < last_slots { more } else { 0 }))
                .collect(),
        };
        for slot in slots {
            client.push(slot);
        }
        client.show();
        assert_eq!(bench.netback.poll(64, |_| ()), 0, "case {case}");
        assert_eq!(bench.pool.free(), bench.pool.size());
        expect_shut(bench, client);
    }
}

#[test]
fn b10_a_bad_packet_is_answered_and_costs_only_itself() {
    let (mut bench, mut client) = bench_at(0u32.wrapping_sub(9));
    let more = tx_flags::MORE_DATA;
    for round in 0..50 {
        let first = client.chain(&[(0, 0, 60)], 0, &[]);
        // 19 slots.
        client.chain(&[(1, 0, 4); 19], 0, &[]);
        // More bytes in the later slots than in all.
        for (size, flags, id) in [(60, more, 101), (60, more, 102), (60, 0, 103)] {
            let slot = request(&client, 2, 0, size, flags, id);
            client.push(slot);
        }
        // Runts.
        client.chain(&[(3, 0, 13)], 0, &[]);
        client.chain(&[(3, 0, 0)], 0, &[]);
        // Multicast and GSO, which were not offered.
        for kind in [Extra::MCAST_ADD, Extra::MCAST_DEL] {
            client.chain(&[(3, 0, 60)], 0, &[Extra { kind, flags: 0, data: [1; 6] }]);
        }
        let gso = Extra { kind: Extra::GSO, flags: 0, data: [0, 5, 1, 0, 0, 0] };
        client.chain(&[(3, 0, 60), (4, 0, 60)], 0, &[gso]);
        let last = client.chain(&[(4, 0, 60)], 0, &[]);
        client.show();
        assert_eq!(bench.poll(), [first, last]);
        let expected = [
            vec![0],
            vec![-1; 19],
            vec![-1; 3],
            vec![-1, -1],
            vec![-1, 1, -1, 1],
            vec![-1, 1, -1],
            vec![0],
        ];
        let answers = client.answers();
        let statuses: Vec<i16> = answers.iter().map(|answer| answer.status).collect();
        assert_eq!(statuses, expected.concat());
        // Each with its own id, in order.
        let ids: Vec<u16> = answers[20..23].iter().map(|answer| answer.id).collect();
        assert_eq!(ids, [101, 102, 103]);
        let drops = bench.netback.stats().from_drops;
        let n = round + 1;
        assert_eq!((drops.too_many_slots, drops.sizes, drops.runt), (n, n, 2 * n));
        assert_eq!((drops.multicast, drops.gso, drops.total()), (2 * n, n, 7 * n));
    }
    assert!(bench.netback.is_connected());
    assert_eq!((bench.pool.free(), bench.netback.stats().faults), (128, 0));
}

// -- copies ---------------------------------------------------------------------------------------

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
            let stats = bench.netback.stats();
            assert_eq!((stats.from_drops.copy_failed, stats.copy_failures), (1, 1));
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
        let stats = bench.netback.stats();
        assert_eq!((stats.to_packets, stats.to_drops.copy_failed), (4, 1));
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
        bench.netback.service();
        assert!(!bench.netback.is_connected());
        assert_eq!(bench.back.mappings(), 0);
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

// -- shared memory --------------------------------------------------------------------------------

struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A slot changes all the time while we look at it. Whatever is taken from it is taken once: a
/// packet is what one moment said, or the vif is shut.
#[test]
fn b3_each_word_is_read_once() {
    let mut kinds = [0; 2];
    for round in 0..12 {
        let (mut bench, mut client) = {
            let host = Host::threaded(round);
            let mut bench = Bench::on(&host, CLIENT, Config::default(), 64);
            let mut client = Client::new(&host, &bench.vif, 0);
            client.connect(&mut bench.netback, &Features::default());
            (bench, client)
        };
        let calm = pattern(0, 60);
        let (page, stop) = (client.tx_page.clone(), AtomicBool::new(false));
        // The last word of each slot: size 60, size 100 (more than the rest of the page), size 0.
        let offset = if round % 2 == 0 { 0 } else { 4000 };
        let (stop, seen) = (&stop, &mut kinds);
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let sizes = [60_u32, 100, 0, 60];
                let mut turn = 0;
                while !stop.load(Ordering::Relaxed) {
                    for slot in 0..256 {
                        turn += 1;
                        let size = sizes[turn % sizes.len()] << 16;
                        page.words()[SLOTS + slot * 3 + 2].store(size, Ordering::Relaxed);
                    }
                }
            });
            // Also when an assertion fails: the other thread must end.
            let _ends = Stop(stop);
            for _ in 0..200 {
                while client.tx.free() > 0 {
                    client.chain(&[(0, offset, 60)], 0, &[]);
                }
                client.show();
                bench.netback.poll(256, |packet| {
                    let got = raw_client::bytes(&packet);
                    match got.len() {
                        60 if offset == 0 => assert!(got == calm),
                        60 => {}
                        100 if offset == 0 => {}
                        len => panic!("{len} bytes at offset {offset}"),
                    }
                });
                if !bench.netback.is_connected() {
                    seen[1] += 1;
                    break;
                }
                seen[0] += 1;
                client.answers();
            }
        });
        bench.netback.service();
        assert_eq!(bench.host.violations(), []);
        assert_eq!(bench.pool.free(), 64);
    }
    assert!(kinds.iter().all(|&kind| kind > 0), "{kinds:?}");
}

/// Whatever lay on the pages before, every word of a response is one that we wrote.
#[test]
fn b4_every_byte_published_is_initialised() {
    let config = Config { gso: true, ..Config::default() };
    for filler in [0xa5a5_a5a5_u32, 0, u32::MAX] {
        let (mut bench, mut client) = Bench::with_client(config, 64);
        let extra = Extra { kind: Extra::GSO, flags: 0, data: [0, 5, 1, 0xee, 0xee, 0xee] };
        client.chain(&[(0, 0, 60), (1, 0, 60)], 0, &[extra]);
        client.chain(&[(2, 0, 13)], 0, &[]);
        for word in SLOTS + 12..1024 {
            client.tx_page.words()[word].store(filler, Ordering::Relaxed);
        }
        client.show();
        assert_eq!(bench.poll().len(), 1);
        let word =
            |page: &xen_sim::OwnPage, word: usize| page.words()[word].load(Ordering::Relaxed);
        // Slots of three words, responses of one: id and status, and nothing else is touched.
        let response = |id: u32, status: i16| id | u32::from(status as u16) << 16;
        let expected = [response(1, 0), response(0, 1), response(2, 0), response(3, -1)];
        for (slot, expected) in expected.into_iter().enumerate() {
            assert_eq!(word(&client.tx_page, SLOTS + slot * 3), expected);
        }
        assert!((SLOTS + 12..1024).all(|at| word(&client.tx_page, at) == filler));

        client.post(3);
        for at in SLOTS + 6..1024 {
            client.rx_page.words()[at].store(filler, Ordering::Relaxed);
        }
        let mut packet = bench.plain(&pattern(1, 5000));
        packet.meta.gso = extra.gso();
        bench.netback.deliver(packet).unwrap();
        bench.netback.flush();
        let words: Vec<u32> = (SLOTS..SLOTS + 6).map(|at| word(&client.rx_page, at)).collect();
        let (more, with_extra) = (rx_flags::MORE_DATA, rx_flags::EXTRA_INFO);
        let slot = |id, flags, status| {
            xen_ring::Wire::to_words(RxResponse { id, offset: 0, flags, status })
        };
        let expected = [
            slot(0, more | with_extra, 4096),
            // type 1, flags 0, size 0x500, kind 1, and zeros where netif.h pads.
            [0x0500_0001, 0x0000_0001],
            slot(2, 0, 904),
        ];
        assert_eq!(words, expected.concat());
        assert!((SLOTS + 6..1024).all(|at| word(&client.rx_page, at) == filler));
    }
}

/// F7, from the other side: no page of ours is ever granted to a client, and no byte beyond a
/// packet's is copied to it.
#[test]
fn r15_no_stale_byte_reaches_a_client() {
    let (mut bench, mut client) = bench_at(0);
    // Every frame is full of another client's secrets.
    let canary = [0xc5; PAGE_SIZE];
    let frames: Vec<_> = core::iter::from_fn(|| bench.pool.take())
        .map(|mut frame| {
            frame.bytes_mut().copy_from_slice(&canary);
            frame
        })
        .collect();
    drop(frames);
    client.post(20);
    for (n, len) in [60_usize, 1514, 4097, 9000].into_iter().enumerate() {
        let sent: Vec<u8> = pattern(n as u64, len).iter().map(|byte| byte & 0x3f).collect();
        bench.netback.deliver(bench.plain(&sent)).unwrap();
    }
    bench.netback.flush();
    assert_eq!(client.receive().len(), 4);
    for (page, _) in &client.targets {
        let mut bytes = [0; PAGE_SIZE];
        page.read(0, &mut bytes);
        assert!(bytes.iter().all(|byte| *byte != 0xc5));
    }
    assert_eq!(client.domain.dump_granted(bench.back.id()).len(), 0);
}

// -- limits ---------------------------------------------------------------------------------------

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
    let config = Config { queue_packets: 50, queue_frames: 80, ..Config::default() };
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
    let stats = bench.netback.stats();
    assert!(stats.to_drops.queue_full > 0 && stats.to_packets > 0);
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
