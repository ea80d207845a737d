//! Checksums.

use alloc::vec;
use alloc::vec::Vec;

use proptest::prelude::*;

use super::super::checksum::{Sum, Verdict, fill_blank, update, update_blank, update_udp, verify};
use super::super::*;
use super::{ADDRESSES, ADDRESSES_V6, Kind, Sample, sample, sample_of};
use crate::buffer::{AnyPacket, Checksum, HeapBlock, View};

/// RFC 1071 word by word, as the RFC defines it.
fn plainly(bytes: &[u8]) -> u16 {
    let mut sum = 0u64;
    for (index, byte) in bytes.iter().enumerate() {
        sum += u64::from(*byte) << if index % 2 == 0 { 8 } else { 0 };
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// A frame in fragments that end at the given places, with empty ones in between.
fn cut(frame: &[u8], places: &[usize], checksum: Checksum) -> AnyPacket<BufMut<HeapBlock>> {
    let mut packet = AnyPacket::new();
    packet.meta.checksum = checksum;
    let mut places: Vec<usize> = places.iter().map(|&place| place.min(frame.len())).collect();
    places.sort_unstable();
    let mut start = 0;
    for end in places.into_iter().chain([frame.len()]) {
        let mut buf = BufMut::new(HeapBlock::new(end - start + 3), 2);
        buf.append(end - start).unwrap().copy_from_slice(&frame[start..end]);
        packet.push(buf).unwrap();
        start = end;
    }
    packet
}

fn joined(packet: &AnyPacket<BufMut<HeapBlock>>) -> Vec<u8> {
    packet.fragments().iter().flat_map(|fragment| fragment.bytes().to_vec()).collect()
}

impl Sample {
    /// The sum that a blank checksum field holds.
    fn pseudo(&self, which: usize) -> u16 {
        let len = self.frame.len() - self.transport();
        let protocol = if self.kind == Kind::Tcp { 6 } else { 17 };
        if self.v4 {
            let (source, destination) = ADDRESSES[which];
            Sum::pseudo_v4(source, destination, protocol, len as u16).value()
        } else {
            let (source, destination) = ADDRESSES_V6[which];
            Sum::pseudo_v6(source, destination, protocol, len as u32).value()
        }
    }

    fn which(&self) -> usize {
        usize::from(self.frame[14 + if self.v4 { 16 } else { 24 }] == 255)
    }

    fn blank(&self) -> Vec<u8> {
        let mut frame = self.frame.clone();
        let pseudo = self.pseudo(self.which());
        frame[self.field()..][..2].copy_from_slice(&pseudo.to_be_bytes());
        frame
    }
}

#[test]
fn the_example_of_rfc_1071() {
    let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
    assert_eq!(Sum::of(&bytes).value(), 0xddf2);
    assert_eq!(Sum::of(&bytes).checksum(), 0x220d);
}

#[test]
fn the_example_of_rfc_1624() {
    let mut field = U16::new(0xdd2f);
    update(&mut field, &[0x55, 0x55], &[0x32, 0x85]);
    assert_eq!(field.get(), 0x0000);
    // In UDP a 0 would mean that there is none.
    let mut field = U16::new(0xdd2f);
    update_udp(&mut field, &[0x55, 0x55], &[0x32, 0x85]);
    assert_eq!(field.get(), 0xffff);
    let mut none = U16::ZERO;
    update_udp(&mut none, &[0x55, 0x55], &[0x32, 0x85]);
    assert_eq!(none.get(), 0);
}

/// Every word all ones: the most carries there can be.
#[test]
fn carries_are_not_lost() {
    for len in [0, 1, 2, 3, 4, 5, 7, 8, 65535, (1 << 20) - 1, (1 << 20) + 3, 3 << 20] {
        let bytes = vec![0xff; len];
        assert_eq!(Sum::of(&bytes).value(), plainly(&bytes), "{len}");
    }
}

#[test]
fn a_computed_zero_is_sent_as_ones_in_udp_only() {
    for (kind, expected) in [(Kind::Udp, [0xff; 2]), (Kind::Tcp, [0; 2])] {
        // Data that makes the sum come out as all ones, whose complement is 0.
        let sample = Sample::new(true, kind, 0, vec![], vec![0; 2]);
        let sum = !u16::from_be_bytes(sample.checksum());
        let data = (0xffff - sum).to_be_bytes().to_vec();
        let sample = Sample::new(true, kind, 0, vec![], data);
        let mut packet = cut(&sample.blank(), &[], Checksum::Blank);
        assert_eq!(fill_blank(&mut packet), Some(()));
        assert_eq!(joined(&packet)[sample.field()..][..2], expected);
        assert_eq!(verify(&packet), Verdict::Right);
    }
}

#[test]
fn what_is_not_a_whole_tcp_or_udp_packet_is_left_alone() {
    let refused = |frame: &[u8]| {
        let mut packet = cut(frame, &[], Checksum::Blank);
        assert_eq!(fill_blank(&mut packet), None);
        assert_eq!(packet.meta.checksum, Checksum::Blank);
        assert_eq!(joined(&packet), frame);
    };
    let udp = Sample::new(true, Kind::Udp, 0, vec![], vec![5; 11]);
    refused(&Sample::new(true, Kind::Icmp, 0, vec![], vec![5; 11]).frame);
    refused(&Sample::new(false, Kind::Icmp, 0, vec![], vec![5; 11]).frame);
    refused(&[]);
    for len in 0..udp.frame.len() {
        refused(&udp.blank()[..len]);
    }
    let mut fragment = udp.blank();
    fragment[20] = 0x20;
    refused(&fragment);

    // Not blank: not touched either.
    for state in [Checksum::Unknown, Checksum::Complete] {
        let mut packet = cut(&udp.blank(), &[], state);
        assert_eq!(fill_blank(&mut packet), Some(()));
        assert_eq!(joined(&packet), udp.blank());
        assert_eq!(packet.meta.checksum, state);
    }
}

/// A datagram's checksum ends where the datagram does, not where IP's payload does.
#[test]
fn what_follows_a_datagram_is_not_summed() {
    let sample = Sample::new(true, Kind::Udp, 0, vec![], vec![5; 11]);
    let mut frame = sample.blank();
    frame.extend([0x77; 6]);
    frame[17] += 6;
    let mut packet = cut(&frame, &[], Checksum::Blank);
    assert_eq!(fill_blank(&mut packet), Some(()));
    assert_eq!(joined(&packet)[40..42], sample.checksum());
    assert_eq!(verify(&packet), Verdict::Right);
}

#[test]
fn what_has_no_checksum_is_not_wrong() {
    let mut frame = Sample::new(true, Kind::Udp, 0, vec![], vec![5; 11]).frame;
    let verdict = |frame: &[u8]| verify(&AnyPacket::from(frame));
    assert_eq!(verdict(&frame), Verdict::Right);
    frame[40..42].fill(0);
    assert_eq!(verdict(&frame), Verdict::None);
    frame[20] = 0x20;
    assert_eq!(verdict(&frame), Verdict::None);
    frame[13] = 6;
    assert_eq!(verdict(&frame), Verdict::None);
    assert_eq!(verdict(&[]), Verdict::Wrong);
    // Over IPv6 a checksum of 0 is no checksum, but wrong (RFC 8200, section 8.1).
    let mut frame = Sample::new(false, Kind::Udp, 0, vec![], vec![5; 11]).frame;
    frame[60..62].fill(0);
    assert_eq!(verdict(&frame), Verdict::Wrong);
}

proptest! {
    /// However bytes are cut into pieces, at odd places too, the sum is that of the whole.
    #[test]
    fn sums_of_pieces(
        bytes in prop::collection::vec(any::<u8>(), 0..600),
        cuts in prop::collection::vec(0usize..600, 0..6),
    ) {
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
        cuts.sort_unstable();
        let mut sum = Sum::default();
        let mut start = 0;
        for end in cuts.into_iter().chain([bytes.len()]) {
            sum.add(&bytes[start..end]);
            start = end;
        }
        prop_assert_eq!(sum.value(), plainly(&bytes));
    }

    /// A change made known to the checksum equals summing anew (RFC 1624).
    #[test]
    fn updates_equal_sums(
        bytes in prop::collection::vec(any::<u16>(), 2..20),
        at in 0usize..20,
        new: u16,
    ) {
        let at = at % bytes.len();
        let mut words = bytes;
        words[0] |= 1; // All zero is the one sum that differs, and no packet has it.
        let sum = |words: &[u16]| {
            Sum::of(&words.iter().flat_map(|word| word.to_be_bytes()).collect::<Vec<u8>>())
        };
        let mut field = U16::new(sum(&words).checksum());
        let mut blank = U16::new(sum(&words).value());
        let old = core::mem::replace(&mut words[at], new | u16::from(at == 0));
        let new = words[at];
        update(&mut field, &old.to_be_bytes(), &new.to_be_bytes());
        prop_assert_eq!(field.get(), sum(&words).checksum());
        update_blank(&mut blank, &old.to_be_bytes(), &new.to_be_bytes());
        prop_assert_eq!(blank.get(), sum(&words).value());
    }

    /// A blank packet, its data cut anywhere, is filled in with what etherparse computes.
    #[test]
    fn blank_packets_are_filled_in(
        sample in sample_of(&[Kind::Tcp, Kind::Udp]),
        cuts in prop::collection::vec(0usize..300, 0..6),
        empty_first: bool,
        padding in 0usize..20,
    ) {
        let mut cuts: Vec<usize> = cuts.iter().map(|at| sample.payload() + at).collect();
        if empty_first {
            cuts.push(0);
        }
        let mut frame = sample.blank();
        frame.extend(vec![0xa5; padding]);
        let mut packet = cut(&frame, &cuts, Checksum::Blank);
        prop_assert_eq!(fill_blank(&mut packet), Some(()));
        prop_assert_eq!(packet.meta.checksum, Checksum::Complete);
        prop_assert_eq!(&joined(&packet)[..sample.frame.len()], &sample.frame[..]);
        prop_assert_eq!(&joined(&packet)[sample.frame.len()..], &vec![0xa5; padding][..]);
        prop_assert_eq!(verify(&packet), Verdict::Right);
    }

    /// Right is what etherparse has made; one bit changed is wrong; padding does not matter.
    #[test]
    fn verdicts(
        sample in sample(),
        cuts in prop::collection::vec(0usize..300, 0..6),
        padding in 0usize..20,
        bit in 0usize..8 * 320,
    ) {
        let cuts: Vec<usize> = cuts.iter().map(|at| sample.payload() + at).collect();
        let mut frame = sample.frame.clone();
        frame.extend(vec![0xa5; padding]);
        prop_assert_eq!(verify(&cut(&frame, &cuts, Checksum::Unknown)), Verdict::Right);
        let bit = 8 * sample.payload() + bit;
        if let Some(byte) = frame[..sample.frame.len()].get_mut(bit / 8) {
            *byte ^= 1 << (bit % 8);
            prop_assert_eq!(verify(&cut(&frame, &cuts, Checksum::Unknown)), Verdict::Wrong);
        }
    }

    /// Rewriting addresses while the checksum is blank, then filling it in, is right.
    #[test]
    fn blank_packets_can_be_rewritten(
        data in prop::collection::vec(any::<u8>(), 0..100),
        which in 0usize..2,
        new: [u8; 4],
    ) {
        let sample = Sample::new(true, Kind::Tcp, which, vec![], data);
        let mut frame = sample.blank();
        let (_, Network::Ipv4(ip)) = At::new(&mut frame[..]).open().unwrap() else { panic!() };
        let (ip, Transport::Tcp(tcp)) = ip.open().unwrap() else { panic!() };
        let (tcp, _) = tcp.open().unwrap();
        update_blank(&mut tcp.checksum, &ip.source, &new);
        update(&mut ip.checksum, &ip.source, &new);
        ip.source = new;
        let (_, Network::Ipv4(ip)) = At::new(&frame[..]).open().unwrap() else { panic!() };
        prop_assert!(ip.checksum_is_right());
        let mut packet = cut(&frame, &[], Checksum::Blank);
        prop_assert_eq!(fill_blank(&mut packet), Some(()));
        prop_assert_eq!(verify(&packet), Verdict::Right);
    }

    #[test]
    fn r6_any_bytes_can_be_summed(bytes in prop::collection::vec(any::<u8>(), 0..120), v4: bool) {
        let mut bytes = bytes;
        let kind = if v4 { EtherType::IPV4 } else { EtherType::IPV6 };
        if let Some(place) = bytes.get_mut(12..14) {
            place.copy_from_slice(kind.as_bytes());
        }
        if let Some(version) = bytes.get_mut(14) {
            *version = if v4 { 0x40 | *version & 15 } else { 0x60 };
        }
        verify(&AnyPacket::from(&bytes[..]));
        let mut packet = AnyPacket::from(&mut bytes[..]);
        packet.meta.checksum = Checksum::Blank;
        fill_blank(&mut packet);
    }
}
