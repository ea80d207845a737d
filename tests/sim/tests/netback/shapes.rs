//! Packets cut anywhere, tagged, or called blank without a checksum, on their way to a client: it
//! gets what its stack sees right.

use packet_views::features::Features as Takes;
use packet_views::header::checksum::{Verdict, verify};

use super::offloads::{client_that_takes, offering};
use super::*;

const TAGS: [&[u8]; 3] = [
    &[0x81, 0x00, 0x20, 0x00],
    &[0x81, 0x00, 0x00, 0x05],
    &[0x88, 0xa8, 0x00, 0x05, 0x81, 0x00, 0x00, 0x07],
];

fn tagged(frame: &[u8], tags: &[u8]) -> Vec<u8> {
    [&frame[..12], tags, &frame[12..]].concat()
}

/// What the client gets when this is delivered, with its flags; by somebody else read too, or not.
#[track_caller]
fn delivered(
    (bench, client): &mut (Bench, Client),
    bytes: &[u8],
    cuts: &[usize],
    meta: Meta,
    is_shared: bool,
) -> Vec<raw_client::Received> {
    let room = client.rx.free() as usize;
    client.post(room);
    let mut packet = bench.packet(bytes, cuts);
    packet.meta = meta;
    let other = is_shared.then(|| packet.clone());
    bench.netback.deliver(packet).unwrap();
    bench.netback.flush();
    if let Some(other) = other {
        assert_eq!(raw_client::bytes(&other), bytes, "somebody else's packet has changed");
    }
    client.receive().into_iter().map(Result::unwrap).collect()
}

const BLANK: Meta = Meta { checksum: Checksum::Blank, gso: None };

#[test]
fn a_blank_checksum_is_filled_in_wherever_the_packet_is_cut() {
    let mut both = client_that_takes(Takes::NONE, offering(Takes::ALL), 0);
    for (v6, tcp) in [(false, true), (false, false), (true, true), (true, false)] {
        let right = frames::frame(v6, tcp, 7, &pattern(1, 99));
        let blank = frames::blank(right.clone());

        for cut in 0..100 {
            // The same, without scatter-gather, in one page.
            let got = delivered(&mut both, &blank, &[cut, cut, cut + 1], BLANK, cut % 2 == 0);
            assert_eq!((got.len(), &got[0].bytes), (1, &right), "{v6} {tcp} {cut}");
            assert_eq!(got[0].flags & rx_flags::CSUM_BLANK, 0);
        }
    }
    assert_eq!(both.0.netback.counters().to_drops.total(), 0);
    assert_eq!(both.0.pool.free(), 600);
}

/// Linux's frontend does not look behind tags.
#[test]
fn behind_tags_checksums_are_filled_in_and_large_packets_cut() {
    let mut both = client_that_takes(Takes::ALL, offering(Takes::ALL), 0);
    for v6 in [false, true] {
        for tags in TAGS {
            let right = tagged(&frames::frame(v6, false, 7, &pattern(1, 99)), tags);
            let blank = tagged(&frames::blank(frames::frame(v6, false, 7, &pattern(1, 99))), tags);
            let got = delivered(&mut both, &blank, &[5, 15], BLANK, false);
            assert_eq!((got.len(), &got[0].bytes), (1, &right));
            assert_eq!(got[0].flags & rx_flags::CSUM_BLANK, 0);

            let data = pattern(2, 9000);
            let large = tagged(&frames::blank(frames::frame(v6, true, 7, &data)), tags);
            let kind = if v6 { GsoKind::TcpV6 } else { GsoKind::TcpV4 };
            let gso = Gso { size: NonZeroU16::new(1400).unwrap(), kind };
            let meta = Meta { gso: Some(gso), ..BLANK };
            let got = delivered(&mut both, &large, &[3, 4000, 8000], meta, true);
            assert_eq!(got.len(), 7);
            let mut arrived = Vec::new();
            for part in got {
                assert_eq!((part.gso, part.flags & rx_flags::CSUM_BLANK), (None, 0));
                assert_eq!(&part.bytes[12..12 + tags.len()], tags);
                let plain = [&part.bytes[..12], &part.bytes[12 + tags.len()..]].concat();
                let opened = frames::open(&plain);
                assert!(opened.right);
                arrived.extend(opened.data);
            }
            assert!(arrived == data);
        }
    }
    assert_eq!(both.0.netback.counters().to_drops.total(), 0);
    assert_eq!(both.0.pool.free(), 600);
}

#[test]
fn n7_what_has_no_checksum_is_never_called_blank() {
    let mut both = client_that_takes(Takes::ALL, offering(Takes::ALL), 0);
    let mut part = frames::frame(false, false, 7, &pattern(1, 99));
    part[20] = 0x20;
    let mut later = part.clone();
    later[20..22].copy_from_slice(&[0, 5]);
    let arp = [&[0xff; 6][..], &[2, 0, 0, 0, 0, 1, 8, 6], &[1; 28]].concat();
    for bytes in [tagged(&arp, TAGS[0]), part, later, arp] {
        let got = delivered(&mut both, &bytes, &[5], BLANK, true);
        assert_eq!((got.len(), &got[0].bytes, got[0].flags), (1, &bytes, 0));
    }
    // Where nobody can tell: neither TCP nor UDP.
    let mut packet = both.0.plain(&pattern(1, 60));
    packet.meta = BLANK;
    assert_eq!(outcome(both.0.netback.deliver(packet)), Err(Some(DeliverErrorKind::Offload)));
}

/// A client has a chain of 65,535 bytes; the longest IP packet and an Ethernet header are more.
#[test]
fn what_is_longer_than_a_chain_is_cut() {
    let mut both = client_that_takes(Takes::ALL, offering(Takes::ALL), 0);
    let data = pattern(1, 65_535 - 40);
    let large = frames::blank(frames::frame(false, true, 7, &data));
    let cuts: Vec<usize> = (4096..large.len()).step_by(4096).collect();
    let meta = Meta { gso: Some(gso(1448)), ..BLANK };
    let got = delivered(&mut both, &large, &cuts, meta, false);
    assert_eq!(got.len(), data.len().div_ceil(1448));
    let arrived: Vec<u8> = got.iter().flat_map(|part| frames::open(&part.bytes).data).collect();
    assert!(arrived == data);
}

/// The checksum of a large packet is blank, whatever was said of it.
#[test]
fn a_large_packet_that_is_complete_goes_to_a_client_blank() {
    let mut both = client_that_takes(Takes::ALL, offering(Takes::ALL), 0);
    let right = frames::frame(false, true, 7, &pattern(1, 9000));
    let blank = frames::blank(right.clone());
    for is_shared in [false, true] {
        let meta = Meta { checksum: Checksum::Complete, gso: Some(gso(1400)) };
        let got = delivered(&mut both, &right, &[51, 4000, 8000], meta, is_shared);
        assert_eq!((got.len(), &got[0].bytes, got[0].gso), (1, &blank, Some(gso(1400))));
        assert!(got[0].flags & rx_flags::CSUM_BLANK != 0);
    }
}

/// What a client sends that is tagged or behind extension headers is taken, and says the same.
#[test]
fn large_packets_of_a_client_may_be_tagged_or_extended() {
    let (mut bench, mut client) = client_that_takes(Takes::ALL, offering(Takes::ALL), 0);
    let plain = frames::blank(frames::frame(true, true, 7, &pattern(1, 9000)));
    let mut extended = plain.clone();
    extended[20] = 43;
    // A routing header with a segment left: the sum in the field is about the last destination.
    extended.splice(54..54, [&[6, 2, 4, 1, 0, 0, 0, 0][..], &[9; 16]].concat());
    let len = (extended.len() - 54) as u16;
    extended[18..20].copy_from_slice(&len.to_be_bytes());
    for frame in [tagged(&plain, TAGS[0]), tagged(&plain, TAGS[2]), extended] {
        let fragments = client.lay(0, &frame);
        let gso = Gso { size: NonZeroU16::new(1400).unwrap(), kind: GsoKind::TcpV6 };
        client.chain(&fragments, tx_flags::CSUM_BLANK, &[Extra::from_gso(gso)]);
        client.show();
        let got = bench.poll_packets();
        assert_eq!(got.len(), 1);
        assert!(bytes(&got[0]) == frame);
        assert_eq!(got[0].meta, Meta { gso: Some(gso), ..BLANK });
        let _ = client.statuses();
    }
    // And a plain one with a right checksum is verified as one behind a tag is.
    let right = tagged(&frames::frame(true, true, 7, &pattern(1, 99)), TAGS[2]);
    let packet = bench.packet(&right, &[7, 19, 61]);
    assert_eq!(verify(&packet), Verdict::Right);
}
