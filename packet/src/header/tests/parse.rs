//! Opening headers.

use alloc::vec;
use alloc::vec::Vec;

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use proptest::prelude::*;

use super::super::*;
use super::{Kind, Sample, sample};
use crate::buffer::{AnyPacket, Buf, BufMut, HeapBlock, View};

/// What the layers of a frame say, down to the data.
#[derive(Debug, PartialEq, Eq)]
struct Facts {
    kind: EtherType,
    addresses: Vec<u8>,
    ports: Option<(u16, u16)>,
    numbers: Option<(u32, u32)>,
    data: Vec<u8>,
}

fn bytes_of<V: Source + Gather>(view: V) -> Vec<u8> {
    view.gather()
}

/// All bytes of a view, for comparing.
trait Gather {
    fn gather(&self) -> Vec<u8>;
}

impl<V: View> Gather for V {
    fn gather(&self) -> Vec<u8> {
        self.bytes().to_vec()
    }
}

/// A packet as one more kind of view.
struct Whole(AnyPacket<Buf<crate::buffer::SharedHeapBlock>>);

impl Gather for Whole {
    fn gather(&self) -> Vec<u8> {
        self.0.fragments().iter().flat_map(|fragment| fragment.bytes().to_vec()).collect()
    }
}

impl Pieces for Whole {
    fn read<H: Header>(&self, at: usize) -> Option<H> {
        self.0.read(at)
    }
}

impl Source for Whole {
    type Ref<H: Header> = Copied<H>;

    fn head(&self) -> &[u8] {
        Source::head(&self.0)
    }

    fn len(&self) -> usize {
        Source::len(&self.0)
    }

    fn take<H: Header>(self) -> Option<(Copied<H>, Self)> {
        self.0.take().map(|(header, rest)| (header, Whole(rest)))
    }

    fn skip(self, count: usize) -> Option<Self> {
        self.0.skip(count).map(Whole)
    }

    fn keep(self, len: usize) -> Self {
        Whole(self.0.keep(len))
    }
}

fn facts<V: Source + Gather>(frame: V) -> Option<Facts> {
    let (ethernet, network) = At::new(frame).open()?;
    let (addresses, transport) = match network {
        Network::Ipv4(ip) => {
            let (ip, transport) = ip.open()?;
            ([&ip.source[..], &ip.destination].concat(), transport)
        }
        Network::Ipv6(ip) => {
            let (ip, transport) = ip.open()?;
            ([&ip.source[..], &ip.destination].concat(), transport)
        }
        _ => return None,
    };
    let (ports, numbers, data) = match transport {
        Transport::Tcp(tcp) => {
            let (tcp, data) = tcp.open()?;
            let ports = (tcp.source.get(), tcp.destination.get());
            (Some(ports), Some((tcp.sequence.get(), tcp.acknowledgment.get())), data)
        }
        Transport::Udp(udp) => {
            let (udp, data) = udp.open()?;
            (Some((udp.source.get(), udp.destination.get())), None, data)
        }
        Transport::Icmp(icmp) | Transport::Icmpv6(icmp) => {
            let (icmp, data) = icmp.open()?;
            (None, Some((icmp.id.get().into(), icmp.sequence.get().into())), data)
        }
        _ => return None,
    };
    Some(Facts { kind: ethernet.kind, addresses, ports, numbers, data: bytes_of(data) })
}

/// The same from etherparse.
fn oracle(frame: &[u8]) -> Option<Facts> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    let (kind, addresses) = match packet.net? {
        NetSlice::Ipv4(ip) => {
            let ip = ip.header();
            (EtherType::IPV4, [ip.source(), ip.destination()].concat())
        }
        NetSlice::Ipv6(ip) => {
            let ip = ip.header();
            (EtherType::IPV6, [ip.source(), ip.destination()].concat())
        }
        _ => return None,
    };
    let (ports, numbers, data) = match packet.transport? {
        TransportSlice::Tcp(tcp) => {
            let numbers = (tcp.sequence_number(), tcp.acknowledgment_number());
            (Some((tcp.source_port(), tcp.destination_port())), Some(numbers), tcp.payload())
        }
        TransportSlice::Udp(udp) => {
            (Some((udp.source_port(), udp.destination_port())), None, udp.payload())
        }
        TransportSlice::Icmpv4(icmp) => (None, Some(echo(icmp.bytes5to8())), &icmp.slice()[8..]),
        TransportSlice::Icmpv6(icmp) => (None, Some(echo(icmp.bytes5to8())), &icmp.slice()[8..]),
        _ => return None,
    };
    Some(Facts { kind, addresses, ports, numbers, data: data.to_vec() })
}

fn echo([a, b, c, d]: [u8; 4]) -> (u32, u32) {
    (u16::from_be_bytes([a, b]).into(), u16::from_be_bytes([c, d]).into())
}

fn received(bytes: &[u8]) -> Buf<crate::buffer::SharedHeapBlock> {
    let mut buf = BufMut::new(HeapBlock::new(bytes.len() + 40), 17);
    buf.append(bytes.len()).unwrap().copy_from_slice(bytes);
    buf.freeze()
}

proptest! {
    /// However it comes, a packet says what it says to etherparse, and its padding is not data.
    #[test]
    fn r2_every_source_is_read_alike(sample in sample(), padding in 0usize..50, cut in 0usize..400) {
        let mut frame = sample.frame.clone();
        frame.extend(vec![0xa5; padding]);
        let expected = oracle(&sample.frame);
        prop_assert_eq!(&expected.as_ref().unwrap().data, &sample.data);
        prop_assert_eq!(&facts(&frame[..]), &expected);
        prop_assert_eq!(&facts(&mut frame.clone()[..]), &expected);
        prop_assert_eq!(&facts(received(&frame)), &expected);
        prop_assert_eq!(&facts(received(&frame).try_into_mut().unwrap()), &expected);

        // Headers that are cut are copied together.
        let (head, tail) = frame.split_at(cut.min(frame.len()));
        let mut packet = AnyPacket::from(received(head));
        packet.push(received(&[])).unwrap();
        packet.push(received(tail)).unwrap();
        prop_assert_eq!(&facts(Whole(packet)), &expected);
    }

    /// Headers that are cut, changed or made up: both agree on what is there, nothing panics.
    #[test]
    fn r6_damaged_headers_are_read_or_refused(
        sample in sample(),
        cut in prop::option::of(0usize..400),
        changes in prop::collection::vec((12usize..80, any::<u8>()), 0..4),
    ) {
        let mut frame = sample.frame;
        frame.truncate(cut.unwrap_or(usize::MAX));
        for (at, value) in changes {
            if let Some(byte) = frame.get_mut(at) {
                *byte = value;
            }
        }
        let ours = facts(&frame[..]);
        prop_assert_eq!(&ours, &facts(&mut frame.clone()[..]));
        prop_assert_eq!(&ours, &facts(received(&frame)));
        // We are stricter about IPv6 extensions; what we both read, we read alike.
        if let Some(theirs) = oracle(&frame)
            && (theirs.kind == EtherType::IPV4 || ours.is_some())
        {
            prop_assert_eq!(ours, Some(theirs));
        }
    }

    #[test]
    fn r6_any_bytes_are_harmless(bytes in prop::collection::vec(any::<u8>(), 0..120), kind in 0usize..5) {
        let mut bytes = bytes;
        let kinds = [EtherType::IPV4, EtherType::IPV6, EtherType::ARP, EtherType::VLAN];
        if let (Some(place), Some(kind)) = (bytes.get_mut(12..14), kinds.get(kind)) {
            place.copy_from_slice(kind.as_bytes());
        }
        facts(&bytes[..]);
        let ip = At::<Ipv4, _>::claim(&bytes[..]);
        ip.options();
        ip.checksum_is_right();
        At::<Tcp, _>::claim(&bytes[..]).options();
        if let Some((_, Network::Arp(arp))) = At::new(&bytes[..]).open() {
            arp.open();
        }
    }

    /// No count is so large that adding to it wraps.
    #[test]
    fn r6_counts_near_the_largest(
        len in 0usize..100,
        below in 0usize..40,
        skipped in 0usize..100,
    ) {
        let bytes = vec![1; len];
        for count in [usize::MAX - below, isize::MAX as usize - below, u32::MAX as usize - below] {
            prop_assert!((&bytes[..]).skip(count).is_none());
            prop_assert!((&mut bytes.clone()[..]).skip(count).is_none());
            prop_assert_eq!((&bytes[..]).keep(count).len(), len);
            prop_assert_eq!((&mut bytes.clone()[..]).keep(count).len(), len);
            let mut packet = AnyPacket::from(received(&bytes));
            packet.push(received(&bytes)).unwrap();
            prop_assert!(packet.read::<u8>(count).is_none());
            prop_assert!(packet.clone().skip(count).is_none());
            prop_assert_eq!(Source::len(&packet.clone().keep(count)), 2 * len);
            prop_assert_eq!(packet.clone().skip(skipped).is_some(), skipped <= 2 * len);
            let rest = packet.keep(skipped);
            prop_assert_eq!(Source::len(&rest), skipped.min(2 * len));
        }
    }

    #[test]
    fn addresses_are_read_as_written(bytes: [u8; 6], text in "[0-9a-fA-F:+ ]{0,20}") {
        let mac = MacAddr(bytes);
        prop_assert_eq!(MacAddr::parse(&alloc::format!("{mac}")), Some(mac));
        prop_assert_eq!(MacAddr::parse(&alloc::format!("{mac}").to_uppercase()), Some(mac));
        let shape = text.split(':').all(|part| part.len() == 2 && !part.contains(['+', ' ']));
        let right = shape && text.split(':').count() == 6;
        prop_assert_eq!(MacAddr::parse(&text).is_some(), right);
    }
}

#[test]
fn options_are_what_lies_between_header_and_data() {
    let sample = Sample::new(true, Kind::Tcp, 0, vec![1; 12], vec![9; 5]);
    let (_, Network::Ipv4(ip)) = At::new(&sample.frame[..]).open().unwrap() else { panic!() };
    assert_eq!(ip.options(), Some(&[][..]));
    let (_, Transport::Tcp(tcp)) = ip.open().unwrap() else { panic!() };
    assert_eq!(tcp.options(), Some(&[1; 12][..]));

    // The same packet with 8 bytes of IPv4 options.
    let mut frame = sample.frame.clone();
    frame.splice(34..34, [1; 8]);
    frame[14] = 0x47;
    frame[17] += 8;
    assert!(facts(&frame[..]) == facts(&sample.frame[..]));
    let (_, Network::Ipv4(ip)) = At::new(&frame[..]).open().unwrap() else { panic!() };
    assert_eq!(ip.options(), Some(&[1; 8][..]));
    assert!(!ip.checksum_is_right());
    let (header, _) = Ipv4::mut_from_prefix(&mut frame[14..]).unwrap();
    header.checksum = U16::ZERO;
    let sum = checksum::Sum::of(&frame[14..42]).checksum();
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    let (_, Network::Ipv4(ip)) = At::new(&frame[..]).open().unwrap() else { panic!() };
    assert!(ip.checksum_is_right());
}

/// UDP has a length of its own, and what IP carries behind it is not data.
#[test]
fn r2_a_datagram_ends_where_it_says() {
    let mut frame = Sample::new(true, Kind::Udp, 0, vec![], vec![9; 24]).frame;
    for (len, expected) in [(8, Some(0)), (20, Some(12)), (32, Some(24)), (33, None), (7, None)] {
        frame[39] = len;
        assert_eq!(facts(&frame[..]).map(|facts| facts.data.len()), expected);
    }
}

#[test]
fn a_fragment_is_not_taken_for_a_packet() {
    let mut frame = Sample::new(true, Kind::Udp, 0, vec![], vec![9; 24]).frame;
    let transport = |frame: &[u8]| {
        let (_, Network::Ipv4(ip)) = At::new(frame).open().unwrap() else { panic!() };
        let (_, Transport::Fragment(fragment)) = ip.open().unwrap() else { return None };
        Some((fragment.offset, fragment.more, fragment.first().is_some()))
    };
    assert_eq!(transport(&frame), None);
    for (bits, expected) in [
        (0x4000, None),
        (0x2000, Some((0, true, true))),
        (0x2001, Some((8, true, false))),
        (0x1fff, Some((65528, false, false))),
    ] {
        frame[20..22].copy_from_slice(&u16::to_be_bytes(bits));
        assert_eq!(transport(&frame), expected);
    }
}

#[test]
fn arp_is_about_ipv4_on_ethernet_or_nothing() {
    let own = (MacAddr([2, 0, 0, 0, 0, 1]), [10, 0, 0, 1]);
    let arp = Arp::new(Arp::REQUEST, own, (MacAddr::default(), [10, 0, 0, 2]));
    let mut bytes = arp.as_bytes().to_vec();
    assert_eq!(bytes.len(), 28);
    let opened = At::<Arp, _>::claim(&bytes[..]).open().unwrap();
    assert_eq!((opened.sender, opened.target_ip), (own.0, [10, 0, 0, 2]));
    assert!(At::<Arp, _>::claim(&bytes[..27]).open().is_none());
    for at in [0, 1, 2, 3, 4, 5] {
        bytes[at] ^= 1;
        assert!(At::<Arp, _>::claim(&bytes[..]).open().is_none());
        bytes[at] ^= 1;
    }
}

/// Layers push their headers in front; what is sent reads back, and holds no byte of earlier use.
#[test]
fn r3_headers_are_pushed_into_the_headroom() {
    let mut block = HeapBlock::new(64);
    crate::buffer::Block::range_mut(&mut block, 0..64).unwrap().fill(0xa5);
    let mut buf = BufMut::new(block, ETHERNET_HEADER + 20 + 8);
    buf.append(5).unwrap().copy_from_slice(b"hello");
    push(&mut buf, Udp::new(1000, 53, 5).unwrap()).unwrap();
    push(&mut buf, Ipv4::new(Protocol::UDP, [10, 0, 0, 1], [10, 0, 0, 2], 13).unwrap()).unwrap();
    let ethernet = Ethernet {
        destination: MacAddr::BROADCAST,
        source: MacAddr([2, 0, 0, 0, 0, 1]),
        kind: EtherType::IPV4,
    };
    push(&mut buf, ethernet).unwrap().source = MacAddr([2, 0, 0, 0, 0, 2]);
    assert!(push(&mut buf, ethernet).is_none());
    assert_eq!(buf.len(), 47);
    assert!(!buf.bytes().contains(&0xa5));

    let mut expected = Vec::new();
    etherparse::PacketBuilder::ethernet2([2, 0, 0, 0, 0, 2], [0xff; 6])
        .ip(etherparse::IpHeaders::Ipv4(
            etherparse::Ipv4Header::new(
                0,
                64,
                etherparse::ip_number::UDP,
                [10, 0, 0, 1],
                [10, 0, 0, 2],
            )
            .unwrap(),
            Default::default(),
        ))
        .udp(1000, 53)
        .write(&mut expected, b"hello")
        .unwrap();
    expected[40..42].fill(0);
    assert_eq!(buf.bytes(), expected);
}

#[test]
fn lengths_that_do_not_fit_a_packet_make_no_header() {
    assert!(Ipv4::new(Protocol::UDP, [0; 4], [0; 4], 65515).is_some());
    assert!(Ipv6::new(Protocol::UDP, [0; 16], [0; 16], 65535).is_some());
    assert!(Udp::new(0, 0, 65527).is_some());
    for len in [65536, usize::MAX, usize::MAX - 8, usize::MAX - 20] {
        assert!(Ipv4::new(Protocol::UDP, [0; 4], [0; 4], len).is_none());
        assert!(Ipv6::new(Protocol::UDP, [0; 16], [0; 16], len).is_none());
        assert!(Udp::new(0, 0, len).is_none());
    }
    assert!(Ipv4::new(Protocol::UDP, [0; 4], [0; 4], 65516).is_none());
    assert!(Udp::new(0, 0, 65528).is_none());
}
