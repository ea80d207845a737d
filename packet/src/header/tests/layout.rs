//! The reader against etherparse: the same packet, in one piece there and cut anywhere here.

use alloc::vec;
use alloc::vec::Vec;

use etherparse::{
    Ethernet2Slice, IpAuthHeader, IpHeaders, IpNumber, Ipv4Extensions, Ipv4Header, Ipv4Options,
    Ipv4Slice, Ipv6Extensions, Ipv6FragmentHeader, Ipv6Header, Ipv6RawExtHeader,
    Ipv6RoutingExtensions, Ipv6Slice, SingleVlanSlice,
};
use proptest::prelude::*;

use super::super::*;
use crate::buffer::AnyPacket;

/// What etherparse finds: tags, type, where that starts; of IP its version, what it carries, where
/// that starts and ends, and whether it is a fragment.
type Facts = (usize, u16, usize, Option<(bool, u8, usize, usize, bool)>);

fn oracle(frame: &[u8]) -> Option<Facts> {
    let place = |slice: &[u8]| slice.as_ptr().addr() - frame.as_ptr().addr();
    let ethernet = Ethernet2Slice::from_slice_without_fcs(frame).ok()?;
    let (mut kind, mut rest, mut tags) = (ethernet.ether_type(), ethernet.payload_slice(), 0);
    while [0x8100, 0x88a8, 0x9100].contains(&kind.0) {
        let tag = SingleVlanSlice::from_slice(rest).ok()?;
        (kind, rest) = (tag.ether_type(), tag.payload_slice());
        tags += 1;
    }
    let ip = match kind.0 {
        0x0800 => {
            let ip = Ipv4Slice::from_slice(rest).ok()?;
            let payload = ip.payload();
            let end = place(rest) + usize::from(ip.header().total_len());
            Some((true, payload.ip_number.0, place(payload.payload), end, payload.fragmented))
        }
        0x86dd => {
            let ip = Ipv6Slice::from_slice(rest).ok()?;
            let payload = ip.payload();
            let end = place(rest) + 40 + usize::from(ip.header().payload_length());
            Some((false, payload.ip_number.0, place(payload.payload), end, payload.fragmented))
        }
        _ => None,
    };
    Some((tags, kind.0, place(rest), ip))
}

fn facts(layout: &Layout) -> Facts {
    let ip = layout.ip.as_ref();
    let ip = ip.map(|ip| (ip.v4, ip.protocol.0, ip.transport, ip.end, ip.part.is_some()));
    (layout.tags, layout.kind.0.get(), layout.network, ip)
}

/// A frame in 18 fragments at most, empty ones among them.
pub(super) fn pieces<'a>(frame: &'a [u8], places: &[usize]) -> AnyPacket<&'a [u8]> {
    let mut places: Vec<usize> = places.iter().map(|&place| place.min(frame.len())).collect();
    places.sort_unstable();
    let mut packet = AnyPacket::new();
    let mut start = 0;
    for end in places.into_iter().chain([frame.len()]) {
        packet.push(&frame[start..end]).unwrap();
        start = end;
    }
    packet
}

fn raw(units: usize) -> Ipv6RawExtHeader {
    Ipv6RawExtHeader::new_raw(IpNumber(0), &vec![0; 6 + 8 * units]).unwrap()
}

fn authentication(words: usize) -> IpAuthHeader {
    IpAuthHeader::new(IpNumber(0), 1, 2, &vec![3; words * 4]).unwrap()
}

prop_compose! {
    fn extensions()(
        [hop, destination, routing, last] in any::<[Option<bool>; 4]>(),
        auth in prop::option::of(0usize..8),
        fragment in prop::option::of((prop_oneof![Just(0u16), 0u16..8192], any::<bool>())),
        segments_left in 0u8..3,
    ) -> Ipv6Extensions {
        let raw = |long: Option<bool>| long.map(|long| raw(if long { 3 } else { 0 }));
        let routing = raw(routing).map(|header| {
            let mut bytes = header.payload().to_vec();
            bytes[1] = segments_left;
            Ipv6RawExtHeader::new_raw(IpNumber(0), &bytes).unwrap()
        });
        Ipv6Extensions {
            hop_by_hop_options: raw(hop),
            destination_options: raw(destination),
            routing: routing.map(|routing| Ipv6RoutingExtensions {
                routing,
                final_destination_options: raw(last),
            }),
            fragment: fragment.map(|(offset, more)| {
                Ipv6FragmentHeader::new(IpNumber(0), offset.try_into().unwrap(), more, 77)
            }),
            auth: auth.map(authentication),
        }
    }
}

prop_compose! {
    /// A packet with anything in front, and where its fragment header says that it is.
    fn frame()(
        tags in prop::collection::vec(
            prop::sample::select(&[0x8100u16, 0x88a8, 0x9100][..]), 0..5,
        ),
        v4: bool,
        words in 0usize..=10,
        auth in prop::option::of(0usize..8),
        place in prop_oneof![Just((0u16, false)), (0u16..8192, any::<bool>())],
        extensions in extensions(),
        protocol in prop::sample::select(&[1u8, 6, 17, 58, 59, 50, 132, 255][..]),
        payload in prop::collection::vec(any::<u8>(), 0..60),
        padding in 0usize..20,
    ) -> Vec<u8> {
        let mut ip = if v4 {
            let mut ip = Ipv4Header {
                options: Ipv4Options::try_from(&vec![1; words * 4][..]).unwrap(),
                ..Ipv4Header::default()
            };
            (ip.fragment_offset, ip.more_fragments) = (place.0.try_into().unwrap(), place.1);
            IpHeaders::Ipv4(ip, Ipv4Extensions { auth: auth.map(authentication) })
        } else {
            IpHeaders::Ipv6(Ipv6Header::default(), extensions)
        };
        ip.set_next_headers(IpNumber(protocol));
        let kind: u16 = if v4 { 0x0800 } else { 0x86dd };
        ip.set_payload_len(payload.len()).unwrap();
        let mut frame = vec![2; 12];
        for tag in tags {
            frame.extend(tag.to_be_bytes());
            frame.extend([0, 5]);
        }
        frame.extend(kind.to_be_bytes());
        ip.write(&mut frame).unwrap();
        frame.extend(payload);
        frame.extend(vec![0xee; padding]);
        frame
    }
}

fn places() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(prop_oneof![0usize..100, 0usize..400], 0..18)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn every_packet_is_laid_out_as_etherparse_says(frame in frame(), places in places()) {
        let ours = Layout::of(&pieces(&frame, &places)).unwrap();
        let theirs = oracle(&frame).unwrap();
        let late = ours.ip.is_some_and(|ip| ip.part.is_some_and(|part| part.offset > 0));
        if late {
            // They read on in what is no header: the bytes in the middle of a packet.
            let (at, end) = ours.ip.map(|ip| (ip.transport, ip.end)).unwrap();
            prop_assert_eq!((ours.tags, ours.network), (theirs.0, theirs.2));
            let (_, _, transport, their_end, fragmented) = theirs.3.unwrap();
            prop_assert!(fragmented && at <= transport && end == their_end);
        } else {
            prop_assert_eq!(facts(&ours), theirs);
        }
    }

    /// Damaged or cut short: in pieces or in one, it says the same, and never what etherparse
    /// denies.
    #[test]
    fn damaged_headers_are_laid_out_alike_or_refused(
        frame in frame(),
        places in places(),
        changes in prop::collection::vec((12usize..140, any::<u8>()), 0..4),
        len in prop::option::of(0usize..200),
    ) {
        let mut frame = frame;
        for (at, value) in changes {
            if let Some(byte) = frame.get_mut(at) {
                *byte = value;
            }
        }
        frame.truncate(len.unwrap_or(usize::MAX));
        let ours = Layout::of(&pieces(&frame, &places));
        prop_assert_eq!(&ours, &Layout::at_start(&frame[..], frame.len()));
        if let Ok(layout) = ours {
            prop_assert!(layout.network <= frame.len());
            if let Some(ip) = layout.ip {
                prop_assert!(layout.network < ip.transport);
                prop_assert!(ip.transport <= ip.end && ip.end <= frame.len());
                if let Some(theirs) = oracle(&frame)
                    && ip.part.is_none()
                    && !ip.extensions.has(Extensions::OTHER)
                {
                    prop_assert_eq!(facts(&layout), theirs);
                }
            }
        }
    }

    #[test]
    fn ports_are_found_wherever_they_are_cut(
        v4: bool,
        udp: bool,
        ports: [u8; 4],
        tag: bool,
        place in 0usize..70,
    ) {
        let kind = if udp { super::Kind::Udp } else { super::Kind::Tcp };
        let sample = super::Sample::new(v4, kind, 0, vec![], vec![]);
        let mut frame = sample.frame.clone();
        frame[sample.transport()..][..4].copy_from_slice(&ports);
        if tag {
            frame.splice(12..12, [0x81, 0, 0, 0]);
        }
        let packet = pieces(&frame, &[place, place, place + 1, place + 3]);
        let layout = Layout::of(&packet).unwrap();
        prop_assert_eq!(layout.ip.unwrap().ports(&packet), Some(ports));
        prop_assert_eq!(packet_flow_hash(&packet), flow_hash(&sample.frame.iter().copied().enumerate()
            .map(|(at, byte)| match at.checked_sub(sample.transport()) {
                Some(port @ 0..4) => ports[port],
                _ => byte,
            }).collect::<Vec<u8>>()));
    }
}

/// Of a fragment it says what IP does, and of those after the first it makes up no ports.
#[test]
fn fragments_are_parts() {
    let mut frame = super::Sample::new(true, super::Kind::Udp, 0, vec![], vec![5; 30]).frame;
    for (bits, part, ports) in [
        (0x4000, None, true),
        (0x2000, Some((0, true)), true),
        (0x2001, Some((8, true)), false),
        (0x0003, Some((24, false)), false),
    ] {
        frame[20..22].copy_from_slice(&u16::to_be_bytes(bits));
        let ip = Layout::of(&AnyPacket::from(&frame[..])).unwrap().ip.unwrap();
        assert_eq!(ip.part.map(|part| (part.offset, part.more)), part);
        assert_eq!(ip.ports(&frame[..]).is_some(), ports);
        if let Some(part) = ip.part {
            assert_eq!((part.protocol, part.start), (Protocol::UDP, 34));
        }
    }
}

#[test]
fn what_is_not_ip_has_no_more_to_say() {
    let mut frame = [2; 60];
    for kind in [0x0806u16, 0x88cc, 40, 0x8847] {
        frame[12..14].copy_from_slice(&kind.to_be_bytes());
        let layout = Layout::of(&AnyPacket::from(&frame[..])).unwrap();
        assert_eq!((layout.tags, layout.kind.0.get(), layout.network), (0, kind, 14));
        assert_eq!(layout.ip, None);
    }
    assert_eq!(Layout::of(&pieces(&frame[..13], &[5])), Err(HeaderError::Short));
    frame[12..14].copy_from_slice(&[0x81, 0]);
    assert_eq!(Layout::of(&pieces(&frame[..17], &[15])), Err(HeaderError::Short));
}
