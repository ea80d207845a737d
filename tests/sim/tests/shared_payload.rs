//! One packet for several receivers, each with headers of its own: a client's multicast goes to other
//! clients and to two uplinks, and nobody copies its payload but the hypervisor.
//!
//! ```text
//!   client ──► netback ──► | headers | payload |        one page, filled by the hypervisor
//!                               │         │ shared
//!              | headers' | ────┼─────────┼──► netfront ──► uplink 1     granted as it lies
//!              | headers" | ────┴─────────┼──► netfront ──► uplink 2     the same page
//!              | headers  | ──────────────┴──► netback  ──► client       copied by the hypervisor
//! ```
#![allow(missing_docs, dead_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod raw_backend;
mod raw_client;

use std::time::Duration;

use packet_views::device::{Link, NetDevice, SendError};
use raw_client::{BACK, CLIENT, Client, Features, pattern};
use xen_grant::{DomId, PAGE_SIZE};
use xen_netfront::buffer::{MixedPacket, PacketMut};
use xen_netfront::netback;
use xen_netfront::netfront::Config;
use xen_netfront::wire::TxRequest;
use xen_sim::{Host, Vif};

const PAGES: usize = 800;
const UPLINKS: [DomId; 2] = [DomId(20), DomId(21)];
/// Ethernet and IPv4.
const HEADERS: usize = 34;

/// The domain in the middle: a client below, two uplinks above.
struct Middle {
    below: raw_client::Bench,
    client: Client,
    above: Vec<raw_backend::Bench>,
}

impl Middle {
    /// With an uplink more, or less, trusted.
    fn new(trusted: [&str; 2], mtu: &str) -> Middle {
        let host = Host::new(1);
        let config = netback::Config::default().with_headroom(64);
        let mut below = raw_client::Bench::on(&host, CLIENT, config, 64);
        let mut client = Client::new(&host, &below.vif, 0);
        client.connect(&mut below.netback, &Features::default());
        let vif = Vif::new(BACK, UPLINKS[0], 0).back_key("feature-rx-copy", "1");
        let vif = vif.back_key("feature-sg", "1");
        let first = raw_backend::Bench::on(host.clone(), vif, Config::default(), PAGES);
        let second = first.beside(1, UPLINKS[1], Config::default());
        let mut above = vec![first, second];
        for (bench, trusted) in above.iter_mut().zip(trusted) {
            for (key, value) in [("trusted", trusted), ("mtu", mtu)] {
                bench.toolstack.store().set(&format!("{}/{key}", bench.vif.front_dir()), value);
            }
            bench.connect();
            assert_eq!(bench.front.link(), Link::Up);
        }
        Middle { below, client, above }
    }

    /// What a client sends comes in.
    fn receive(&mut self, bytes: &[u8]) -> PacketMut {
        let place = self.client.lay(0, bytes);
        self.client.send(&place);
        let packet = self.below.poll_packets().pop().expect("it has been sent");
        self.below.netback.flush();
        self.client.answers();
        packet
    }

    /// An uplink's requests, and all bytes of each page that it can read.
    fn seen(&mut self, uplink: usize) -> Vec<(TxRequest, Vec<u8>)> {
        let bench = &mut self.above[uplink];
        bench.front.flush();
        let requests = bench.tx_requests();
        let page = |request: TxRequest| {
            let page = bench.back.map_page(BACK, request.gref, false).unwrap();
            (request, page.dump().to_vec())
        };
        requests.into_iter().map(page).collect()
    }

    fn answer(&mut self, uplink: usize, seen: &[(TxRequest, Vec<u8>)]) {
        for (request, _) in seen {
            self.above[uplink].answer_tx(request.id, 0);
        }
        assert_eq!(self.above[uplink].front.complete_tx(), seen.len());
        self.above[uplink].assert_sound();
    }

    fn copied(&self) -> u64 {
        let above = self.above.iter().map(|bench| bench.front.counters().copied_bytes);
        above.sum::<u64>() + self.below.netback.counters().copied_bytes
    }

    fn end(self) {
        let Middle { below, client, above } = self;
        drop((below.netback, client));
        let (pool, table) = (above[0].pool.clone(), above[0].table.clone());
        for bench in above {
            drop(bench.queues);
            drop(bench.front);
            assert_eq!(bench.host.violations(), []);
        }
        table.sweep();
        assert_eq!((pool.free(), table.usage().claimed), (PAGES, 0));
        assert_eq!(below.pool.free(), 64);
    }
}

/// Writes headers anew: these for this receiver.
fn rewrite(packet: &mut MixedPacket, mark: u8) {
    packet.head_mut().unwrap().bytes_mut()[..HEADERS].fill(mark);
}

/// What a packet on the wire consists of, and what else of its pages its receiver sees.
fn split(seen: &[(TxRequest, Vec<u8>)]) -> (Vec<u8>, Vec<u8>) {
    let (mut bytes, mut rest) = (Vec::new(), Vec::new());
    let total = usize::from(seen[0].0.size);
    let others: usize = seen[1..].iter().map(|(request, _)| usize::from(request.size)).sum();
    for (number, (request, page)) in seen.iter().enumerate() {
        let len = if number == 0 { total - others } else { usize::from(request.size) };
        let (start, end) = (usize::from(request.offset), usize::from(request.offset) + len);
        bytes.extend(&page[start..end]);
        rest.extend(page[..start].iter().chain(&page[end..]));
    }
    (bytes, rest)
}

#[test]
fn r10_a_mirrored_packets_payload_is_copied_by_nobody_and_nothing_else_is_seen() {
    for trusted in [["1", "1"], ["1", "0"], ["0", "0"]] {
        let mut middle = Middle::new(trusted, "65521");
        let mut rounds = 0;
        for len in [60, 1514, 4096, 9014, 1514, 200, 14 + 65521].repeat(3) {
            rounds += 1;
            let sent = pattern(rounds, len);
            let received = middle.receive(&sent);
            let head = middle.above[0].front.alloc(32).unwrap();
            let packet = received.share_behind(HEADERS, head).unwrap();
            let mut seen = Vec::new();
            for uplink in 0..2 {
                let head = middle.above[uplink].front.alloc(32).unwrap();
                let mut copy = packet.copy_head(head).unwrap();
                rewrite(&mut copy, uplink as u8 + 1);
                middle.above[uplink].front.send_mixed(copy).unwrap();
                seen.push(middle.seen(uplink));
            }
            let mut back = packet;
            rewrite(&mut back, 9);
            let vif = &mut middle.below.netback;
            vif.deliver(back.freeze()).unwrap();
            middle.client.post(len.div_ceil(PAGE_SIZE));
            vif.flush();
            // All of them read the same page now, or have it.
            let got = middle.client.receive().remove(0).unwrap();
            assert!(got.bytes[HEADERS..] == sent[HEADERS..] && got.bytes[..HEADERS] == [9; 34]);
            for (uplink, seen) in seen.iter().enumerate() {
                let (bytes, rest) = split(seen);
                assert!(bytes[HEADERS..] == sent[HEADERS..], "{len} bytes to uplink {uplink}");
                assert_eq!(bytes[..HEADERS], [uplink as u8 + 1; HEADERS]);
                // Whether it knows its own earlier headers or none: of the client's packet it sees no
                // more than was sent.
                for stale in sent[..HEADERS].windows(6) {
                    assert!(rest.windows(6).all(|seen| seen != stale), "{len} bytes");
                }
                let shared: usize = seen[1..].iter().map(|(_, page)| page.len()).sum();
                let rest = &rest[rest.len() - (shared - (len - HEADERS))..];
                assert!(rest.iter().all(|byte| *byte == 0), "{len} bytes");
            }
            for (uplink, seen) in seen.iter().enumerate() {
                middle.answer(uplink, seen);
            }
        }
        assert_eq!(middle.copied(), 0, "{trusted:?}");
        middle.end();
    }
}

/// A packet that others have already: its page may hold what an uplink must not see, so what is not fit
/// to be shown is copied, and counted. The uplink that had the page last sees it as it is.
#[test]
fn f7_a_packet_that_is_shared_already_shows_an_uplink_no_byte_of_its_headers() {
    let mut middle = Middle::new(["1", "1"], "9000");
    let sent = pattern(5, 1514);
    let shared = middle.receive(&sent).freeze();
    for uplink in 0..2 {
        let head = middle.above[uplink].front.alloc(32).unwrap();
        let mut packet = shared.with_own_head(HEADERS, head).unwrap();
        rewrite(&mut packet, 7);
        middle.above[uplink].front.send_mixed(packet).unwrap();
        let seen = middle.seen(uplink);
        let (bytes, rest) = split(&seen);
        assert!(bytes[..HEADERS] == [7; HEADERS] && bytes[HEADERS..] == sent[HEADERS..]);
        assert!(rest.iter().all(|byte| *byte == 0));
        middle.answer(uplink, &seen);
        assert_eq!(middle.copied(), (uplink as u64 + 1) * (1514 - HEADERS as u64));
    }
    assert_eq!(shared.head()[..], sent[..]);
    // Whole, it is fit for them: there was never anything else in its page.
    for uplink in 0..2 {
        let mut whole = MixedPacket::new();
        let view = shared.fragments()[0].clone();
        whole.push(packet_views::buffer::Fragment::Shared(view)).unwrap();
        middle.above[uplink].front.send_mixed(whole).unwrap();
        let seen = middle.seen(uplink);
        assert!(split(&seen).0 == sent);
        middle.answer(uplink, &seen);
    }
    assert_eq!(middle.copied(), 2 * (1514 - HEADERS as u64));
    drop(shared);
    middle.end();
}

/// What is still with an uplink is not written, whoever else lets go of it; and the end of the
/// connection ends that, too.
#[test]
fn r5_a_payload_that_an_uplink_reads_is_out_of_reach() {
    let mut middle = Middle::new(["1", "1"], "9000");
    let sent = pattern(5, 3000);
    let packet = middle.receive(&sent);
    let head = middle.above[0].front.alloc(32).unwrap();
    let packet = packet.share_behind(HEADERS, head).unwrap();
    let head = middle.above[0].front.alloc(32).unwrap();
    let copy = packet.copy_head(head).unwrap();
    let head = middle.above[1].front.alloc(32).unwrap();
    let other = packet.copy_head(head).unwrap();
    middle.above[0].front.send_mixed(copy).unwrap();
    middle.above[1].front.send_mixed(other).unwrap();
    let seen = [middle.seen(0), middle.seen(1)];
    // The last view of it, here: both uplinks read it.
    let packet = packet.freeze().try_into_mut().expect_err("others read it");
    middle.answer(0, &seen[0]);
    let packet = packet.try_into_mut().expect_err("one reads it");
    drop(packet);
    assert_eq!(middle.below.pool.free(), 63);
    // Uplink 1 goes away with it unanswered.
    middle.above[1].set_state(6);
    middle.above[1].pass(Duration::from_millis(100));
    assert_eq!((middle.above[1].front.link(), middle.below.pool.free()), (Link::Down, 64));
    middle.end();
}

/// No room, no connection, too long: as any packet. What comes back is as it was.
#[test]
fn n7_a_packet_of_shared_payload_is_sent_given_back_or_refused() {
    let mut middle = Middle::new(["1", "1"], "1500");
    let sent = pattern(5, 1514);
    let mut full = 0;
    let packet = middle.receive(&sent);
    let head = middle.above[0].front.alloc(32).unwrap();
    let packet = packet.share_behind(HEADERS, head).unwrap();
    for _ in 0..200 {
        let Some(head) = middle.above[0].front.alloc(32) else { break };
        let copy = packet.copy_head(head).unwrap();
        match middle.above[0].front.send_mixed(copy) {
            Ok(()) => {}
            Err(SendError::Full(back)) => {
                assert!(raw_client::bytes(&back) == sent);
                full += 1;
            }
            Err(SendError::Refused(why)) => panic!("{why}"),
        }
    }
    assert!(full > 0 && middle.above[0].front.counters().tx_packets == 128);
    let seen = middle.seen(0);
    assert_eq!(seen.len(), 256);
    middle.answer(0, &seen);
    // No frame.
    let mut short = MixedPacket::from(packet_views::buffer::Fragment::from(
        middle.above[0].front.alloc(0).unwrap(),
    ));
    short.head_mut().unwrap().append(13).unwrap().fill(0);
    let refused = middle.above[0].front.send_mixed(short).unwrap_err();
    assert_eq!(refused.why(), Some(packet_views::device::SendErrorKind::TooShort));
    // More than the MTU.
    let long = middle.receive(&pattern(6, 1600));
    let head = middle.above[0].front.alloc(0).unwrap();
    let long = long.freeze().with_own_head(HEADERS, head).unwrap();
    let refused = middle.above[0].front.send_mixed(long).unwrap_err();
    assert_eq!(refused.why(), Some(packet_views::device::SendErrorKind::TooLong));
    assert_eq!(middle.above[0].front.counters().tx_drops.total(), 2);
    middle.above[1].set_state(6);
    middle.above[1].pass(Duration::from_millis(100));
    let back = middle.above[1].front.send_mixed(packet).unwrap_err().into_packet();
    assert!(raw_client::bytes(&back.expect("it is down, for now")) == sent);
    middle.end();
}
