//! IPv6 extension headers.

use alloc::vec::Vec;

use super::super::*;

/// An IPv6 frame whose extension headers and payload are given.
fn v6_frame(next: Protocol, rest: &[u8]) -> Vec<u8> {
    let ethernet = Ethernet {
        destination: MacAddr::BROADCAST,
        source: MacAddr([2; 6]),
        kind: EtherType::IPV6,
    };
    let ip = Ipv6::new(next, [1; 16], [2; 16], rest.len()).unwrap();
    [ethernet.as_bytes(), ip.as_bytes(), rest].concat()
}

fn open_v6(frame: &[u8]) -> Option<Transport<&[u8]>> {
    let (_, Network::Ipv6(ip)) = At::new(frame).open()? else { return None };
    Some(ip.open()?.1)
}

#[test]
fn extension_headers_are_skipped_but_not_without_end() {
    let udp = Udp::new(1, 2, 3).unwrap();
    let extension = |next: Protocol| [next.0, 0, 0, 0, 0, 0, 0, 0];
    for count in 0..=9 {
        let mut rest = Vec::new();
        for left in (0..count).rev() {
            let next = if left == 0 { Protocol::UDP } else { Protocol::HOP_BY_HOP };
            rest.extend(extension(next));
        }
        rest.extend(udp.as_bytes());
        rest.extend([7; 3]);
        let first = if count == 0 { Protocol::UDP } else { Protocol::DESTINATION_OPTIONS };
        let frame = v6_frame(first, &rest);
        match open_v6(&frame) {
            Some(Transport::Udp(udp)) => {
                assert!(count <= 8);
                assert_eq!(udp.open().unwrap().1, [7; 3]);
            }
            None => assert_eq!(count, 9),
            other => panic!("{count}: {other:?}"),
        }
        // Cut anywhere, with the length of what is left, it is refused or has no more to show.
        for len in 0..rest.len() {
            if let Some(Transport::Udp(udp)) = open_v6(&v6_frame(first, &rest[..len])) {
                assert!(udp.open().is_none());
            }
        }
    }
}

#[test]
fn routing_and_fragment_headers() {
    let udp = Udp::new(1, 2, 0).unwrap();
    let with = |extension: [u8; 8]| [&extension[..], udp.as_bytes()].concat();
    let done = v6_frame(Protocol::ROUTING, &with([17, 0, 3, 0, 0, 0, 0, 0]));
    assert!(matches!(open_v6(&done), Some(Transport::Udp(_))));
    let under_way = v6_frame(Protocol::ROUTING, &with([17, 0, 3, 1, 0, 0, 0, 0]));
    assert!(matches!(open_v6(&under_way), Some(Transport::Other(Protocol::ROUTING, _))));

    let whole = v6_frame(Protocol::FRAGMENT, &with([17, 0, 0, 0, 1, 2, 3, 4]));
    assert!(matches!(open_v6(&whole), Some(Transport::Udp(_))));
    for (bits, offset, more) in [(1, 0, true), (8, 8, false), (0xfff9, 0xfff8, true)] {
        let [high, low] = u16::to_be_bytes(bits);
        let frame = v6_frame(Protocol::FRAGMENT, &with([17, 0, high, low, 1, 2, 3, 4]));
        let Some(Transport::Fragment(fragment)) = open_v6(&frame) else { panic!() };
        assert_eq!((fragment.offset, fragment.more), (offset, more));
        assert_eq!((fragment.protocol, fragment.id), (Protocol::UDP, 0x0102_0304));
    }
}
