//! F7 with offloads: whatever is done to a packet, a backend that is not trusted sees its bytes and
//! no others.

use packet_views::buffer::{Checksum, Meta};
use packet_views::device::NetDevice;
use packet_views::features::Features;

use super::packets::{Flow, check};
use super::*;
use xen_netfront::xenbus::feature_nodes;

/// What all pages are full of before.
const CANARY: u8 = 0xc7;

/// Fills every page of the pool with canaries, and gives them back.
fn poison(bench: &mut Bench) {
    let frames: Vec<_> = std::iter::from_fn(|| bench.pool.take()).collect();
    for frame in frames {
        let mut buf = xen_netfront::buffer::BufMut::new(frame, 0);
        buf.append(4096).unwrap().fill(CANARY);
    }
}

#[test]
fn f7_an_untrusted_backend_sees_no_byte_around_large_cut_filled_or_gathered_packets() {
    let sg = Features::NONE.with_scatter_gather(true);
    for features in [Features::ALL, sg, Features::NONE] {
        let mut bench = Bench::with(
            Config::default(),
            &[("trusted", "0"), ("mtu", "9000")],
            &feature_nodes(&features),
        );
        for round in 0..20_u16 {
            poison(&mut bench);
            let flow = Flow::tcp(round % 2 == 0, round);
            let large = features.gso_v4 || features.scatter_gather || round % 4 < 2;
            let data = vec![0x11; if large { 20_000 } else { 1400 }];
            let bytes = flow.blank(0, &data);
            let count = if large { 7 } else { 3 };
            let mut packet = PacketMut::new();
            for nth in 0..count {
                let range = nth * bytes.len() / count..(nth + 1) * bytes.len() / count;
                // At some place within the page.
                let mut buf = bench.front.alloc(nth * 100 + 7).unwrap();
                buf.append(range.len()).unwrap().copy_from_slice(&bytes[range]);
                packet.push(buf).unwrap();
            }
            packet.meta = flow.meta(if large { 1400 } else { 0 });
            assert!(NetDevice::send(&mut bench.front, packet).is_ok());
            bench.front.flush();
            let sent = bench.sent();
            let arrived: usize =
                sent.iter().map(|sent| check(&sent.bytes, sent.meta()).data.len()).sum();
            assert_eq!(arrived, data.len(), "round {round}");
            for packet in &sent {
                let later: u16 = packet.requests[1..].iter().map(|request| request.size).sum();
                for (nth, request) in packet.requests.iter().enumerate() {
                    let size = if nth == 0 { request.size - later } else { request.size };
                    let page = bench.back.map_page(FRONT, request.gref, false).unwrap().dump();
                    let (from, to) =
                        (usize::from(request.offset), usize::from(request.offset + size));
                    let around = page[..from].iter().chain(&page[to..]);
                    assert!(around.into_iter().all(|byte| *byte == 0), "around {from}..{to}");
                }
                bench.answer_sent(packet, 0);
            }
            bench.front.complete_tx();
            // Pages posted for receiving are all clean.
            for page in bench.back.dump_granted(FRONT) {
                assert!(!page.bytes.windows(8).any(|bytes| bytes == [CANARY; 8]));
            }
        }
        let counters = bench.front.counters();
        assert!(counters.clears > 0 && counters.tx_drops.total() == 0, "{counters:?}");
        bench.assert_sound();
    }
}

/// A trusted one may see what it has seen before, but nothing of anybody else's.
#[test]
fn f7_a_trusted_backend_sees_no_canary_either() {
    let mut bench = Bench::with(Config::default(), &[], &feature_nodes(&Features::ALL));
    for round in 0..10 {
        poison(&mut bench);
        let flow = Flow::tcp(false, round);
        let meta = Meta { checksum: Checksum::Complete, ..flow.meta(1000) };
        assert!(bench.send_whole(&flow.packet(0, &[0x11; 10_000]), meta));
        for sent in bench.sent() {
            check(&sent.bytes, sent.meta());
            for page in bench.back.dump_granted(FRONT) {
                assert!(!page.bytes.windows(8).any(|bytes| bytes == [CANARY; 8]));
            }
            bench.answer_sent(&sent, 0);
        }
        bench.front.complete_tx();
    }
}
