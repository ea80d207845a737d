//! What a client sees of our memory, and what it changes while we look.

use super::*;

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
    let config = Config::default().with_features(packet_views::features::Features::ALL);
    for filler in [0xa5a5_a5a5_u32, 0, u32::MAX] {
        let (mut bench, mut client) = Bench::with_client(config, 64);
        let extra = Extra { kind: Extra::GSO, flags: 0, data: [0, 5, 1, 0xee, 0xee, 0xee] };
        let large = client.lay(0, &frames::frame(false, true, 7, &pattern(1, 5000)));
        client.chain(&large, 0, &[extra]);
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
        let large = frames::blank(frames::frame(false, true, 7, &pattern(1, 5000 - 54)));
        let mut packet = bench.plain(&large);
        packet.meta = Meta { checksum: Checksum::Blank, gso: extra.gso() };
        bench.netback.deliver(packet).unwrap();
        bench.netback.flush();
        let words: Vec<u32> = (SLOTS..SLOTS + 6).map(|at| word(&client.rx_page, at)).collect();
        let (more, with_extra) = (rx_flags::MORE_DATA, rx_flags::EXTRA_INFO);
        let blank = rx_flags::CSUM_BLANK | rx_flags::DATA_VALIDATED;
        let slot = |id, flags, status| {
            xen_ring::Wire::to_words(RxResponse { id, offset: 0, flags, status })
        };
        let expected = [
            slot(0, more | with_extra | blank, 4096),
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
