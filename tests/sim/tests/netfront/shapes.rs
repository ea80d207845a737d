//! Packets that a layer above may well make, and no stack of ours does: cut anywhere, tagged,
//! behind extension headers, called blank without a checksum. What leaves is what Linux's backend
//! takes and its network sees right.

use packet_views::buffer::{Checksum, Meta, View};
use packet_views::device::{NetDevice, SendError, SendErrorKind};
use packet_views::features::Features;
use packet_views::header::checksum::{Verdict, verify};
use xen_netfront::wire::tx_flags;

use super::packets::{Flow, check, join};
use super::raw_backend::Sent;
use super::*;
use xen_netfront::xenbus::feature_nodes;

const SG: Features = Features::NONE.with_scatter_gather(true);
const BLANK: Meta = Meta { checksum: Checksum::Blank, gso: None };

fn backend(features: Features) -> Bench {
    Bench::with(raw_backend::full_ring(), &[("mtu", "9000")], &feature_nodes(&features))
}

/// What leaves when this is sent. Answered, so that there is room again.
#[track_caller]
fn sent(bench: &mut Bench, bytes: &[u8], cuts: &[usize], meta: Meta) -> Vec<Sent> {
    let packet = bench.packet(bytes, cuts, meta);
    NetDevice::send(&mut bench.front, packet).unwrap();
    bench.front.flush();
    let sent = bench.sent();
    for packet in &sent {
        assert_taken(packet);
        bench.answer_sent(packet, 0);
    }
    bench.front.complete_tx();
    sent
}

/// As Linux's backend wants it: an Ethernet header in the first slot, bytes in each, a blank
/// checksum only where it looks for one.
#[track_caller]
fn assert_taken(packet: &Sent) {
    let later: u16 = packet.requests[1..].iter().map(|request| request.size).sum();
    assert!(packet.requests[0].size - later >= 14, "the first of {:?}", packet.requests);
    assert!(packet.requests[1..].iter().all(|request| request.size > 0));
    if packet.requests[0].flags & tx_flags::CSUM_BLANK != 0 {
        assert!(matches!(packet.bytes[12..14], [0x08, 0x00] | [0x86, 0xdd]), "behind a tag");
    }
}

/// The frame with this between the stations and the rest.
fn tagged(frame: &[u8], tags: &[u8]) -> Vec<u8> {
    [&frame[..12], tags, &frame[12..]].concat()
}

const TAGS: [&[u8]; 4] = [
    &[0x81, 0x00, 0x20, 0x00],
    &[0x81, 0x00, 0x00, 0x05],
    &[0x88, 0xa8, 0x00, 0x05, 0x81, 0x00, 0x00, 0x07],
    &[0x91, 0x00, 0x00, 0x05, 0x81, 0x00, 0x00, 0x07],
];

fn verdict(bytes: &[u8]) -> Verdict {
    struct Bytes(Vec<u8>);
    impl View for Bytes {
        fn bytes(&self) -> &[u8] {
            &self.0
        }
    }
    verify(&packet_views::buffer::AnyPacket::from(Bytes(bytes.to_vec())))
}

#[test]
fn n7_a_first_fragment_without_room_for_a_header_is_led_by_one() {
    for features in [SG, Features::ALL] {
        let mut bench = backend(features);
        for flow in Flow::each_kind(1) {
            let bytes = flow.packet(5, &pattern(7, 3000));
            for first in 0..=14 {
                for cuts in [
                    vec![first],
                    vec![0, first],
                    vec![first, first, bytes.len()],
                    (0..14).collect(),
                    (first..first + 17).collect(),
                ] {
                    let before = bench.front.counters().copied_bytes;
                    let sent = sent(&mut bench, &bytes, &cuts, Meta::default());
                    assert!(sent.len() == 1 && sent[0].bytes == bytes, "{cuts:?}");
                    // Nothing is copied but the header.
                    assert!(bench.front.counters().copied_bytes - before <= 14, "{cuts:?}");
                }
            }
        }
        assert_eq!(bench.front.counters().tx_drops.total(), 0);
        bench.assert_sound();
        bench.assert_no_leak();
    }
}

/// A first fragment at the end of its page has no room behind.
#[test]
fn a_first_fragment_at_the_end_of_its_page_is_led_by_another_page() {
    let mut bench = backend(SG);
    let bytes = Flow::tcp(false, 1).packet(5, &pattern(7, 300));
    for first in 1..14 {
        let mut packet = bench.packet(&bytes, &[first], Meta::default());
        let mut head = bench.front.alloc(4096 - first).unwrap();
        head.append(first).unwrap().copy_from_slice(&bytes[..first]);
        packet.fragments_mut()[0] = head;
        NetDevice::send(&mut bench.front, packet).unwrap();
        bench.front.flush();
        let sent = bench.sent();
        assert_taken(&sent[0]);
        assert_eq!(sent[0].bytes, bytes);
        bench.answer_sent(&sent[0], 0);
        bench.front.complete_tx();
    }
    bench.assert_sound();
    bench.assert_no_leak();
}

/// What a layer has taken off the front stays as fragments without bytes.
#[test]
fn n7_fragments_without_bytes_take_no_slot() {
    use packet_views::header::Source;
    let mut bench = backend(SG);
    let inner = Flow::udp(true, 9).packet(0, &pattern(3, 500));
    let bytes = [&[0xee; 50][..], &inner].concat();
    for cuts in [vec![20, 50], vec![7, 20, 50, 53], vec![50, 50, 50]] {
        let packet = bench.packet(&bytes, &cuts, Meta::default()).skip(50).unwrap();
        NetDevice::send(&mut bench.front, packet).unwrap();
        bench.front.flush();
        let sent = bench.sent();
        assert_taken(&sent[0]);
        assert_eq!(sent[0].bytes, inner);
        bench.answer_sent(&sent[0], 0);
        bench.front.complete_tx();
    }
    bench.assert_sound();
    bench.assert_no_leak();
}

#[test]
fn n7_what_is_no_frame_is_refused_and_says_why() {
    let mut bench = backend(SG);
    for (len, cuts, why) in [
        (0, vec![], SendErrorKind::TooShort),
        (13, vec![], SendErrorKind::TooShort),
        (13, vec![5], SendErrorKind::TooShort),
        (9019, vec![4096, 8192], SendErrorKind::TooLong),
    ] {
        let packet = bench.packet(&pattern(1, len), &cuts, Meta::default());
        match NetDevice::send(&mut bench.front, packet) {
            Err(SendError::Refused(found)) => assert_eq!(found, why),
            other => panic!("{len}: {other:?}"),
        }
    }
    bench.front.flush();
    assert_eq!(bench.sent().len(), 0);
    assert_eq!(bench.front.counters().tx_drops.bad_length, 4);
}

/// Linux does not look behind tags: it would answer that all is well and drop the packet.
#[test]
fn n7_a_blank_checksum_behind_tags_is_filled_in() {
    for features in [SG, Features::ALL, Features::NONE] {
        let mut bench = backend(features);
        for flow in Flow::each_kind(1) {
            for tags in TAGS {
                let right = tagged(&flow.packet(5, &pattern(7, 700)), tags);
                let blank = tagged(&flow.blank(5, &pattern(7, 700)), tags);
                for cuts in [vec![], vec![5], vec![13, 15, 17], vec![60, 61]] {
                    let sent = sent(&mut bench, &blank, &cuts, BLANK);
                    assert_eq!((sent.len(), sent[0].meta().checksum), (1, Checksum::Complete));
                    assert_eq!(sent[0].bytes, right, "{tags:?} {cuts:?}");
                }
            }
        }
        assert_eq!(bench.front.counters().tx_drops.total(), 0);
        bench.assert_sound();
        bench.assert_no_leak();
    }
}

#[test]
fn large_packets_behind_tags_are_cut() {
    for features in [SG, Features::ALL, Features::NONE] {
        let mut bench = backend(features);
        for v6 in [false, true] {
            let flow = Flow::tcp(v6, 1);
            let data = pattern(7, 9000);
            for tags in TAGS {
                let blank = tagged(&flow.blank(5, &data), tags);
                let sent = sent(&mut bench, &blank, &[5, 4000, 8000], flow.meta(1400));
                let plain: Vec<_> = sent
                    .into_iter()
                    .map(|segment| {
                        let meta = segment.meta();
                        assert_eq!(meta.checksum, Checksum::Complete);
                        assert_eq!(&segment.bytes[12..12 + tags.len()], tags);
                        ([&segment.bytes[..12], &segment.bytes[12 + tags.len()..]].concat(), meta)
                    })
                    .collect();
                assert_eq!(plain.len(), 7);
                assert!(join(flow, 5, 1400, &plain) == data);
            }
        }
        assert_eq!(bench.front.counters().tx_drops.total(), 0);
        bench.assert_sound();
        bench.assert_no_leak();
    }
}

/// Linux would sum what follows a packet, and cut it as if it were data.
#[test]
fn padding_is_neither_summed_nor_cut() {
    let padding = pattern(9, 30);
    for features in [SG, Features::ALL] {
        let mut bench = backend(features);
        for flow in Flow::each_kind(1) {
            let (right, blank) = (flow.packet(5, &[7; 9]), flow.blank(5, &[7; 9]));
            let sent = sent(&mut bench, &[blank, padding.clone()].concat(), &[5], BLANK);
            assert_eq!((sent.len(), sent[0].meta().checksum), (1, Checksum::Complete));
            assert_eq!(sent[0].bytes, [right, padding.clone()].concat());
        }
        for v6 in [false, true] {
            let (flow, data) = (Flow::tcp(v6, 1), pattern(1, 2800));
            let padded = [flow.blank(5, &data), padding.clone()].concat();
            let sent = sent(&mut bench, &padded, &[50], flow.meta(1400));
            let sent: Vec<_> =
                sent.into_iter().map(|one| (one.bytes.clone(), one.meta())).collect();
            assert_eq!(sent.len(), 2);
            assert!(join(flow, 5, 1400, &sent) == data);
        }
        assert_eq!(bench.front.counters().tx_drops.total(), 0);
        bench.assert_sound();
    }
}

/// Nothing there can be filled in, and nothing is to be: Linux would swallow it.
#[test]
fn n7_what_has_no_checksum_is_never_called_blank() {
    for features in [SG, Features::ALL] {
        let mut bench = backend(features);
        let flow = Flow::udp(false, 1);
        let mut part = flow.packet(0, &pattern(1, 100));
        part[20..22].copy_from_slice(&[0x20, 0]);
        let mut later = part.clone();
        later[20..22].copy_from_slice(&[0, 5]);
        let mut none = flow.packet(0, &pattern(1, 100));
        none[40..42].fill(0);
        let arp = [&[0xff; 6][..], &[2, 0, 0, 0, 0, 1, 8, 6], &[1; 28]].concat();
        // An IPv6 fragment header: eight bytes further.
        let mut part_v6 = Flow::udp(true, 1).packet(0, &pattern(1, 100));
        part_v6.splice(54..54, [17, 0, 0, 9, 1, 2, 3, 4]);
        part_v6[19] += 8;
        part_v6[20] = 44;
        for bytes in [part, later, none, arp, part_v6] {
            for bytes in [tagged(&bytes, TAGS[0]), bytes] {
                for cuts in [vec![], vec![5, 15]] {
                    let sent = sent(&mut bench, &bytes, &cuts, BLANK);
                    assert_eq!((sent.len(), sent[0].meta().checksum), (1, Checksum::Unknown));
                    assert_eq!(sent[0].bytes, bytes);
                }
            }
        }
        // Where nobody can tell.
        for kind in [[0x88, 0x64], [0x08, 0x00]] {
            let mut bytes = pattern(1, 100);
            bytes[12..14].copy_from_slice(&kind);
            bytes[14] = 0;
            let packet = bench.packet(&bytes, &[], BLANK);
            assert!(matches!(
                NetDevice::send(&mut bench.front, packet),
                Err(SendError::Refused(SendErrorKind::Checksum(_)))
            ));
        }
        assert_eq!(bench.front.counters().tx_drops.bad_checksum, 2);
        bench.assert_sound();
        bench.assert_no_leak();
    }
}

/// An IPv6 frame with these bytes behind its header, the first of them of this kind.
fn extended(frame: &[u8], kind: u8, extension: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    let extension = [&[frame[20]][..], &extension[1..]].concat();
    frame[20] = kind;
    let len = u16::from_be_bytes([frame[18], frame[19]]) + extension.len() as u16;
    frame[18..20].copy_from_slice(&len.to_be_bytes());
    frame.splice(54..54, extension);
    frame
}

#[test]
fn n7_large_packets_behind_extension_headers_are_cut_or_go_whole() {
    let flow = Flow::tcp(true, 1);
    let data = pattern(7, 9000);
    let options = [0, 1, 1, 4, 0, 0, 0, 0, 1, 8, 0, 0, 0, 0, 0, 0];
    for (features, kind, segments) in [
        (SG, 60, 7),
        (SG, 0, 7),
        (SG, 135, 7),
        (Features::ALL, 60, 1),
        (Features::ALL, 0, 1),
        // What Linux does not go past, is cut here.
        (Features::ALL, 135, 7),
    ] {
        let mut bench = backend(features);
        let bytes = extended(&flow.blank(5, &data), kind, &options);
        let meta = flow.meta(1400);
        for cuts in [vec![4000, 8000], vec![3, 57, 4000, 8000]] {
            let sent = sent(&mut bench, &bytes, &cuts, meta);
            assert_eq!(sent.len(), segments);
            if segments == 1 {
                assert_eq!((sent[0].meta(), &sent[0].bytes), (meta, &bytes));
                continue;
            }
            let mut all = Vec::new();
            for (nth, segment) in sent.iter().enumerate() {
                assert_eq!(verdict(&segment.bytes), Verdict::Right, "segment {nth}");
                assert_eq!(segment.bytes[55..70], options[1..], "segment {nth}");
                let mut plain = segment.bytes.clone();
                plain.drain(54..70);
                plain[20] = 6;
                let len = (plain.len() - 54) as u16;
                plain[18..20].copy_from_slice(&len.to_be_bytes());
                all.extend(check(&plain, segment.meta()).data);
            }
            assert!(all == data);
        }
        assert_eq!(bench.front.counters().tx_drops.total(), 0);
        bench.assert_sound();
        bench.assert_no_leak();
    }
}

/// A routing header that has segments left: what is in the field is all that is needed.
#[test]
fn blank_behind_a_routing_header_and_authentication_is_filled_in() {
    let routing: Vec<u8> = [&[0, 2, 4, 1, 0, 0, 0, 0][..], &[9; 16]].concat();
    let authentication: Vec<u8> = [&[0, 4][..], &[0; 22]].concat();
    for tcp in [true, false] {
        let flow = if tcp { Flow::tcp(true, 1) } else { Flow::udp(true, 1) };
        let (right, blank) = (flow.packet(5, &pattern(7, 700)), flow.blank(5, &pattern(7, 700)));
        for (kind, extension) in [(43, &routing), (51, &authentication)] {
            let (right, blank) =
                (extended(&right, kind, extension), extended(&blank, kind, extension));
            let mut bench = backend(SG);
            for cuts in [vec![], vec![5], vec![60, 80, 95, 96]] {
                let sent = sent(&mut bench, &blank, &cuts, BLANK);
                assert_eq!((sent.len(), &sent[0].bytes), (1, &right), "{kind} {cuts:?}");
                assert_eq!(sent[0].meta().checksum, Checksum::Complete);
            }
            // Where Linux finds it, Linux fills it in.
            let mut bench = backend(Features::ALL);
            let sent = sent(&mut bench, &blank, &[], BLANK);
            assert_eq!((sent[0].meta(), &sent[0].bytes), (BLANK, &blank));
        }
    }
}
