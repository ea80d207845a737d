//! What the stack gets to see.

use smoltcp::iface::SocketStorage;

use super::frames::{Kind, blank, frame};
use super::*;

#[test]
fn r10_one_slot_is_read_where_it_is() {
    let mut device = Device::new(mock());
    let packet = packet(&[&[1; 60]]);
    let place = packet.head().as_ptr();
    device.inner_mut().incoming.push_back(packet);
    assert_eq!(receive(&mut device), Some((vec![1; 60], place)));
    assert_eq!(device.counters(), Counters::default());
    assert!(receive(&mut device).is_none());
    assert_eq!(device.inner().recycled, 1);
}

#[test]
fn several_slots_are_gathered_once_in_memory_that_is_there() {
    let mut device = Device::new(mock());
    let mut places = Vec::new();
    for len in [1, 3640, 4000] {
        let part = vec![len as u8; len];
        device.inner_mut().incoming.push_back(packet(&[&part[..]; 18]));
        let (bytes, place) = receive(&mut device).unwrap();
        assert_eq!(bytes, vec![len as u8; 18 * len]);
        places.push(place);
    }
    // The largest packet there is fits; 18 whole pages, which no honest peer sends, make it grow.
    assert_eq!(places[0], places[1]);
    assert_eq!(device.counters().linearised_packets, 3);
    assert_eq!(device.counters().linearised_bytes, 18 * (1 + 4000 + 3640));
}

#[test]
fn when_transmit_is_full_receive_loses_nothing() {
    let mut device = Device::new(Mock { room: 0, ..mock() });
    for number in 0..3 {
        device.inner_mut().incoming.push_back(packet(&[&[number; 60]]));
    }
    assert!(!device.is_held());
    for _ in 0..5 {
        assert!(receive(&mut device).is_none());
        assert!(device.is_held());
    }
    assert_eq!(device.counters().held_back, 5);
    assert_eq!(device.inner().incoming.len(), 2);
    device.inner_mut().room = 9;
    for number in 0..3 {
        // A token that nobody uses loses nothing either.
        assert!(device.receive(Instant::ZERO).is_some());
        assert_eq!(receive(&mut device).unwrap().0, [number; 60]);
        assert!(!device.is_held());
    }
    assert!(receive(&mut device).is_none());
}

#[test]
fn without_memory_to_answer_receive_loses_nothing_and_holds_no_block() {
    let mut device = Device::new(Mock { blocks: 0, ..mock() });
    for number in 0..3 {
        device.inner_mut().incoming.push_back(packet(&[&[number; 60]]));
    }
    for _ in 0..5 {
        assert!(receive(&mut device).is_none());
        assert!(device.is_held());
    }
    let counters = device.counters();
    assert_eq!((counters.held_back, counters.held_without_memory), (0, 5));
    // Copied once, however often it is held.
    assert_eq!((counters.linearised_packets, counters.linearised_bytes), (1, 60));
    device.inner_mut().blocks = 9;
    for number in 0..3 {
        assert_eq!(receive(&mut device).unwrap().0, [number; 60]);
    }
    assert!(receive(&mut device).is_none());
}

#[test]
fn one_round_is_bounded_and_flushed_once() {
    let mut device = Device::new(mock());
    for _ in 0..100 {
        device.inner_mut().incoming.push_back(packet(&[&[1; 60]]));
    }
    let config = Config::new(EthernetAddress([2, 0, 0, 0, 0, 1]).into());
    let mut iface = Interface::new(config, &mut device, Instant::ZERO);
    let mut storage: [SocketStorage<'_>; 0] = [];
    let mut sockets = SocketSet::new(&mut storage[..]);
    for (left, flushes) in [(100 - BURST as usize, 1), (0, 2), (0, 3)] {
        device.poll(&mut iface, &mut sockets, Instant::ZERO);
        assert_eq!((device.inner().incoming.len(), device.inner().flushes), (left, flushes));
    }
    // Who forgets to flush gets it in the next round.
    iface.poll(Instant::ZERO, &mut device, &mut sockets);
    assert_eq!(device.inner().flushes, 3);
    iface.poll(Instant::ZERO, &mut device, &mut sockets);
    assert_eq!(device.inner().flushes, 4);
}

/// Whatever state a checksum is in, whether it is right, and however the packet is cut: the stack
/// sees the very bytes, or nothing of a packet that had to be verified and is wrong.
#[test]
fn unknown_checksums_are_verified_and_no_others() {
    for (v4, kind) in Kind::all() {
        let right = frame(v4, kind, &[7; 333]);
        let mut wrong = right.clone();
        wrong[200] ^= 0x10;
        let cuts: [&[usize]; 5] = [&[], &[100], &[20, 35, 50, 201], &[0, 14, 333], &[1, 2, 3]];
        for (bytes, is_right) in [(&right, true), (&wrong, false), (&blank(&right), false)] {
            for state in [Checksum::Unknown, Checksum::Complete, Checksum::Blank] {
                for cut in cuts {
                    let mut parts = vec![];
                    let mut rest = &bytes[..];
                    let mut before = 0;
                    for &at in cut {
                        let (part, behind) = rest.split_at(at - before);
                        parts.push(part);
                        (rest, before) = (behind, at);
                    }
                    parts.push(rest);
                    let mut packet = packet(&parts);
                    packet.meta.checksum = state;
                    // Somebody else reads it too.
                    let other = packet.clone();
                    let mut device = Device::new(mock());
                    device.inner_mut().incoming.push_back(packet);
                    let seen = receive(&mut device).map(|(bytes, _)| bytes);
                    let expected = is_right || state != Checksum::Unknown;
                    assert_eq!(seen, expected.then(|| bytes.clone()), "{v4} {kind:?} {state:?}");
                    let counters = device.counters();
                    assert_eq!(counters.checksums_wrong, u64::from(!expected));
                    assert_eq!(counters.linearised_packets, u64::from(!cut.is_empty()));
                    assert_eq!(&joined(&other), bytes, "nobody writes to it");
                    assert!(receive(&mut device).is_none());
                    assert_eq!(device.inner().recycled, 1);
                }
            }
        }
    }
}

#[test]
fn what_has_no_checksum_is_the_stacks() {
    let mut none = frame(true, Kind::Udp, b"data");
    none[40..42].fill(0);
    let arp = [&[0xff; 6][..], &[2, 0, 0, 0, 0, 2, 8, 6], &[1; 28]].concat();
    for bytes in [none, arp] {
        let mut device = Device::new(mock());
        device.inner_mut().incoming.push_back(packet(&[&bytes]));
        assert_eq!(receive(&mut device).map(|(bytes, _)| bytes), Some(bytes));
    }
}

/// Behind a tag a checksum is a checksum.
#[test]
fn tagged_packets_are_verified() {
    let mut right = frame(true, Kind::Udp, b"data");
    right.splice(12..12, [0x81, 0, 0, 5]);
    let mut wrong = right.clone();
    wrong[44] ^= 1;
    for (bytes, expected) in [(right.clone(), Some(right)), (wrong, None)] {
        let mut device = Device::new(mock());
        device.inner_mut().incoming.push_back(packet(&[&bytes]));
        assert_eq!(receive(&mut device).map(|(bytes, _)| bytes), expected);
    }
}

/// Wrong packets count for the burst: a flood of them can't keep the stack from sending.
#[test]
fn wrong_packets_are_skipped_and_bounded() {
    let mut device = Device::new(mock());
    let right = frame(true, Kind::Udp, b"data");
    let mut wrong = right.clone();
    wrong[45] ^= 1;
    let incoming = &mut device.inner_mut().incoming;
    incoming.extend((0..5).map(|_| packet(&[&wrong])));
    incoming.push_back(packet(&[&right]));
    incoming.extend((0..100).map(|_| packet(&[&wrong[..9], &wrong[9..]])));
    assert_eq!(receive(&mut device).map(|(bytes, _)| bytes), Some(right));
    assert!(receive(&mut device).is_none());
    assert_eq!(device.counters().checksums_wrong, u64::from(BURST) - 1);
    assert!(receive(&mut device).is_none());
    assert_eq!((device.counters().checksums_wrong, device.inner().recycled), (105, 106));
}

/// A gathered packet waits for room like any other.
#[test]
fn packets_of_several_slots_are_held_back_too() {
    let mut device = Device::new(Mock { room: 0, ..mock() });
    let bytes = frame(false, Kind::Tcp, &[9; 3000]);
    device.inner_mut().incoming.push_back(packet(&[&bytes[..1000], &bytes[1000..]]));
    for _ in 0..3 {
        assert!(receive(&mut device).is_none() && device.is_held());
    }
    device.inner_mut().room = 9;
    assert!(device.receive(Instant::ZERO).is_some());
    assert_eq!(receive(&mut device).map(|(bytes, _)| bytes), Some(bytes));
    assert!(!device.is_held() && receive(&mut device).is_none());
    assert_eq!(device.counters().linearised_packets, 1);
}

/// Who may write to what is received writes to it where it is, or to a copy if somebody else reads it.
#[cfg(feature = "embassy")]
#[test]
fn r5_a_packet_that_somebody_else_reads_is_written_in_a_copy() {
    let write = |device: &mut Device<Mock>| {
        let (rx, _) = device.receive(Instant::ZERO).unwrap();
        rx.consume_mut(|bytes| {
            bytes[59] = 9;
            (bytes.to_vec(), bytes.as_ptr())
        })
    };
    let mut written = vec![1; 60];
    written[59] = 9;
    let mut device = Device::new(mock());
    let alone = packet(&[&[1; 60]]);
    let place = alone.head().as_ptr();
    device.inner_mut().incoming.push_back(alone);
    assert_eq!(write(&mut device), (written.clone(), place));
    assert!(device.receive(Instant::ZERO).is_none());
    assert_eq!((device.inner().recycled, device.counters().linearised_packets), (1, 0));
    let shared = packet(&[&[1; 60]]);
    device.inner_mut().incoming.push_back(shared.clone());
    device.inner_mut().incoming.push_back(packet(&[&[1; 30], &[1; 30]]));
    assert_ne!(write(&mut device), (written.clone(), shared.head().as_ptr()));
    assert_eq!(shared.head(), [1; 60], "the other's view is as it was");
    assert_eq!(write(&mut device).0, written);
    assert_eq!(device.counters().linearised_packets, 2);
}
