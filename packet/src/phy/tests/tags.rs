//! Frames with headers that say nothing: VLAN tags, and a fragment header of what is whole.

use super::frames::{Kind, frame};
use super::*;

const PRIORITY: [u8; 4] = [0x81, 0, 0xe0, 0];

fn tagged(frame: &[u8], tags: &[[u8; 4]]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame.splice(12..12, tags.concat());
    frame
}

#[test]
fn tags_for_priority_go_and_nothing_is_copied() {
    for tags in [&[PRIORITY][..], &[[0x81, 0, 0x10, 0]], &[[0x88, 0xa8, 0, 0], PRIORITY]] {
        for (v4, kind) in Kind::all() {
            for state in [Checksum::Unknown, Checksum::Complete] {
                let bytes = frame(v4, kind, b"data");
                let mut packet = packet(&[&tagged(&bytes, tags)]);
                packet.meta.checksum = state;
                let place = packet.head().as_ptr().wrapping_add(4 * tags.len());
                let mut device = Device::new(mock());
                device.inner_mut().incoming.push_back(packet);
                assert_eq!(receive(&mut device), Some((bytes, place)));
                assert_eq!(device.counters(), Counters::default());
                assert!(receive(&mut device).is_none());
                assert_eq!(device.inner().recycled, 1);
            }
        }
    }
}

/// Cut anywhere, read by somebody else too: gathered, and nobody writes to it.
#[test]
fn tags_go_however_the_frame_is_cut() {
    let bytes = frame(true, Kind::Udp, b"data");
    let long = tagged(&bytes, &[PRIORITY]);
    for at in 0..long.len() {
        let parts = [&long[..at], &long[at..]];
        let packet = packet(if at == 0 { &parts[1..] } else { &parts });
        let other = packet.clone();
        let mut device = Device::new(mock());
        device.inner_mut().incoming.push_back(packet);
        assert_eq!(receive(&mut device).unwrap().0, bytes);
        assert_eq!(joined(&other), long);
        assert_eq!(device.counters().linearised_packets, 1);
        assert!(receive(&mut device).is_none());
        assert_eq!(device.inner().recycled, 1);
    }
}

/// A VLAN that we are not in is the stack's to ignore.
#[test]
fn other_tags_stay() {
    let bytes = frame(true, Kind::Udp, b"data");
    for tags in [&[[0x81, 0, 0, 5]][..], &[PRIORITY, [0x81, 0, 0x20, 1]], &[PRIORITY; 9]] {
        let long = tagged(&bytes, tags);
        let mut device = Device::new(mock());
        let mut packet = packet(&[&long]);
        packet.meta.checksum = Checksum::Complete;
        device.inner_mut().incoming.push_back(packet);
        assert_eq!(receive(&mut device).unwrap().0, long);
    }
}

/// A wrong checksum is one, whatever was in front of it.
#[test]
fn behind_tags_is_verified() {
    let mut wrong = frame(true, Kind::Udp, b"data");
    *wrong.last_mut().unwrap() ^= 1;
    let mut device = Device::new(mock());
    device.inner_mut().incoming.push_back(packet(&[&tagged(&wrong, &[PRIORITY])]));
    assert!(receive(&mut device).is_none());
    assert_eq!(device.counters().checksums_wrong, 1);
}

#[test]
fn r6_any_frame_cut_short_is_harmless() {
    let long = tagged(&frame(true, Kind::Udp, b"data"), &[PRIORITY, PRIORITY]);
    for len in 0..long.len() {
        let mut packet = packet(&[&long[..len]]);
        packet.meta.checksum = Checksum::Complete;
        let mut device = Device::new(mock());
        device.inner_mut().incoming.push_back(packet);
        let _ = receive(&mut device);
    }
}

/// A stack answers a ping that has one.
#[test]
fn a_ping_with_a_tag_for_priority_is_answered() {
    let mut stack = Stack::new(1, mock());
    let mut ask = [&[0xff; 6], &[2, 0, 0, 0, 0, 2, 0x81, 0, 0, 0][..]].concat();
    ask.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 2, 10, 0, 0, 2, 0, 0, 0, 0, 0, 0]);
    ask.extend([10, 0, 0, 1]);
    let ping = tagged(&frame(true, Kind::Icmp, b"ping"), &[PRIORITY]);
    stack.device.inner_mut().incoming.extend([packet(&[&ask]), packet(&[&ping])]);
    stack.poll();
    let sent = &stack.device.inner().sent;
    assert_eq!(sent.len(), 2);
    assert_eq!((sent[0].head()[12..14].to_vec(), sent[1].head()[34]), (vec![8, 6], 0));
}

/// RFC 6946, behind a tag or not, cut or not, for anything that IPv6 carries.
#[test]
fn a_fragment_header_of_what_is_whole_goes() {
    for kind in [Kind::Tcp, Kind::Udp, Kind::Icmp] {
        let bytes = frame(false, kind, b"data");
        let mut long = bytes.clone();
        long.splice(54..54, [bytes[20], 0, 0, 0, 1, 2, 3, 4]);
        (long[20], long[19]) = (44, long[19] + 8);
        for frame in [long.clone(), tagged(&long, &[PRIORITY])] {
            for at in [0, 13, 56] {
                let parts = [&frame[..at], &frame[at..]];
                let packet = packet(if at == 0 { &parts[1..] } else { &parts });
                let other = (at == 13).then(|| packet.clone());
                let mut device = Device::new(mock());
                device.inner_mut().incoming.push_back(packet);
                assert_eq!(receive(&mut device).map(|(bytes, _)| bytes), Some(bytes.clone()));
                assert_eq!(device.counters().linearised_packets, u64::from(at > 0));
                assert!(other.is_none_or(|other| joined(&other) == frame));
                assert!(receive(&mut device).is_none());
                assert_eq!(device.inner().recycled, 1);
            }
        }
        // Another header in front of it is the stack's to refuse.
        let mut behind = long.clone();
        behind.splice(54..54, [44, 0, 1, 4, 0, 0, 0, 0]);
        (behind[20], behind[19]) = (60, behind[19] + 8);
        let mut device = Device::new(mock());
        device.inner_mut().incoming.push_back(packet(&[&behind]));
        assert_eq!(receive(&mut device).map(|(bytes, _)| bytes), Some(behind));
    }
}
