//! Checksums that a stack leaves to the device.

use etherparse::PacketBuilder;
use proptest::prelude::*;

use super::super::leave_blank;
use super::{Flow, Segment, flow, noise, whole};
use crate::buffer::{AnyPacket, Checksum};
use crate::header::checksum::{Verdict, fill_blank, verify};

use alloc::vec;
use alloc::vec::Vec;

/// A UDP datagram between a flow's ends.
fn datagram(flow: &Flow, data: &[u8]) -> Vec<u8> {
    let ethernet = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    let [from, to] = flow.addresses;
    let mut frame = vec![];
    let short = |address: [u8; 16]| *address.first_chunk().unwrap();
    let ip =
        if flow.v4 { ethernet.ipv4(short(from), short(to), 9) } else { ethernet.ipv6(from, to, 9) };
    ip.udp(flow.ports.0, flow.ports.1).write(&mut frame, data).unwrap();
    frame
}

/// What the device makes of it, if it is blank.
fn filled(frame: &mut [u8]) -> Option<()> {
    let mut packet = AnyPacket::from(frame);
    packet.meta.checksum = Checksum::Blank;
    fill_blank(&mut packet)
}

/// Whether etherparse's frame comes back if its checksum, two bytes at `field`, is left to us.
fn comes_back(frame: &[u8], field: usize) {
    let mut left = frame.to_vec();
    assert_eq!(leave_blank(&mut left), Checksum::Unknown, "it has been summed");
    assert_eq!(left, frame);
    left[field..field + 2].fill(0);
    assert_eq!(leave_blank(&mut left), Checksum::Blank);
    assert_ne!(left[field..field + 2], [0, 0], "the sum of the pseudo-header");
    filled(&mut left).unwrap();
    assert_eq!(left, frame);
}

proptest! {
    #[test]
    fn what_is_left_blank_and_filled_in_is_as_etherparse_builds_it(
        flow in flow(false),
        segment in whole(2000),
    ) {
        let flow = Flow { vlan: None, ..flow };
        let frame = flow.build(&segment);
        // One sum in 65,535 is zero, which is as good as not being there.
        let field = flow.tcp() + 16;
        prop_assume!(frame[field..field + 2] != [0, 0]);
        comes_back(&frame, field);
        let frame = datagram(&flow, &segment.data);
        comes_back(&frame, if flow.v4 { 40 } else { 60 });
    }

    /// Whatever the bytes: unchanged, or something that a device can fill in.
    #[test]
    fn anything_else_stays_as_it_is(
        flow in flow(false),
        segment in whole(300),
        udp: bool,
        zero: bool,
        changes in prop::collection::vec((0usize..80, any::<u8>()), 0..4),
        len in 0usize..500,
    ) {
        let mut frame = if udp { datagram(&flow, &segment.data) } else { flow.build(&segment) };
        let field = if udp { flow.ip() + if flow.v4 { 26 } else { 46 } } else { flow.tcp() + 16 };
        if zero && let Some(field) = frame.get_mut(field..field + 2) {
            field.fill(0);
        }
        for (at, value) in changes {
            if let Some(byte) = frame.get_mut(at) {
                *byte = value;
            }
        }
        frame.truncate(len);
        let before = frame.clone();
        if leave_blank(&mut frame) == Checksum::Unknown {
            prop_assert_eq!(frame, before);
        } else {
            prop_assert_eq!(filled(&mut frame), Some(()));
            prop_assert_eq!(verify(&AnyPacket::from(&frame[..])), Verdict::Right);
        }
    }
}

#[test]
fn fragments_and_what_is_neither_tcp_nor_udp_are_left_alone() {
    let flow = Flow::new(true);
    let mut udp = datagram(&flow, b"data");
    udp[40..42].fill(0);
    let mut tcp = flow.build(&Segment { data: noise(100, 1), ..Segment::default() });
    tcp[50..52].fill(0);
    type Change = fn(&mut Vec<u8>);
    let changes: [(&str, Change); 8] = [
        ("first fragment", |frame| frame[20] |= 0x20),
        ("later fragment", |frame| frame[21] |= 1),
        ("ICMP", |frame| frame[23] = 1),
        ("ARP", |frame| frame[13] = 6),
        ("tagged", |frame| drop(frame.splice(12..12, [0x81, 0, 0, 5]))),
        ("header too short", |frame| frame[14] = 0x44),
        ("longer than it is", |frame| frame[17] += 1),
        ("shorter than its headers", |frame| frame[16..18].copy_from_slice(&[0, 27])),
    ];
    for frame in [udp, tcp] {
        for (name, change) in changes {
            let mut changed = frame.clone();
            change(&mut changed);
            let before = changed.clone();
            assert_eq!(leave_blank(&mut changed), Checksum::Unknown, "{name}");
            assert_eq!(changed, before, "{name}");
        }
        assert_eq!(leave_blank(&mut frame.clone()), Checksum::Blank);
    }
}
