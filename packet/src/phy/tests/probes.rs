//! Who is about to take an address that is ours is told.

use smoltcp::wire::*;

use super::frames::is_right;
use super::*;

const MAC: EthernetAddress = EthernetAddress([2, 0, 0, 0, 0, 9]);

/// Is 10.0.0.`number` free?
fn arp_probe(number: u8) -> Vec<u8> {
    let mut frame = [&[0xff; 6], &MAC.0[..], &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &MAC.0].concat();
    frame.extend([0; 4]);
    frame.extend([0; 6]);
    frame.extend([10, 0, 0, number]);
    frame.resize(60, 0);
    frame
}

/// Is fd00::`number` free? With the option that says that it is meant this time (RFC 7527).
fn solicitation(number: u8) -> Vec<u8> {
    let target = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, number];
    let group = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0, 0, number];
    let mut message = vec![135, 0, 0, 0, 0, 0, 0, 0];
    message.extend(target);
    message.extend([14, 1, 1, 2, 3, 4, 5, 6]);
    let mut pseudo = [0; 16].to_vec();
    pseudo.extend(group);
    pseudo.extend([0, 0, 0, message.len() as u8, 0, 0, 0, 58]);
    pseudo.extend(&message);
    let sum = !frames::plainly(&pseudo);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut frame = [&[0x33, 0x33, 0xff, 0, 0, number], &MAC.0[..], &[0x86, 0xdd]].concat();
    frame.extend([0x60, 0, 0, 0, 0, message.len() as u8, 58, 255]);
    frame.extend([0; 16]);
    frame.extend(group);
    frame.extend(message);
    frame
}

/// What a stack sends when these frames have come.
fn sent(stack: &mut Stack, frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let incoming = &mut stack.device.inner_mut().incoming;
    incoming.extend(frames.iter().map(|frame| packet(&[frame])));
    stack.poll();
    stack.device.inner_mut().sent.drain(..).map(|packet| joined(&packet)).collect()
}

#[test]
fn an_arp_probe_is_answered_to_who_has_asked() {
    let mut stack = Stack::new(1, mock());
    let sent = sent(&mut stack, &[arp_probe(1), arp_probe(2)]);
    assert_eq!(sent.len(), 1);
    let frame = EthernetFrame::new_checked(&sent[0]).unwrap();
    assert_eq!((frame.dst_addr(), frame.src_addr().0), (MAC, [2, 0, 0, 0, 0, 1]));
    let arp = ArpRepr::parse(&ArpPacket::new_checked(frame.payload()).unwrap()).unwrap();
    let expected = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Reply,
        source_hardware_addr: EthernetAddress([2, 0, 0, 0, 0, 1]),
        source_protocol_addr: Ipv4Address::new(10, 0, 0, 1),
        target_hardware_addr: MAC,
        target_protocol_addr: Ipv4Address::UNSPECIFIED,
    };
    assert_eq!(arp, expected);
    assert_eq!(stack.device.counters().probes_answered, 1);
}

/// RFC 4861, section 7.2.4.
#[test]
fn a_duplicate_address_probe_is_answered_to_all_nodes() {
    let mut stack = Stack::new(1, mock());
    let sent = sent(&mut stack, &[solicitation(1), solicitation(2)]);
    assert_eq!(sent.len(), 1);
    assert!(is_right(&sent[0]));
    let frame = EthernetFrame::new_checked(&sent[0]).unwrap();
    assert_eq!(frame.dst_addr().0, [0x33, 0x33, 0, 0, 0, 1]);
    let ip = Ipv6Packet::new_checked(frame.payload()).unwrap();
    let own = Ipv6Address::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
    let all_nodes = Ipv6Address::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    assert_eq!((ip.src_addr(), ip.dst_addr(), ip.hop_limit()), (own, all_nodes, 255));
    let icmp = Icmpv6Packet::new_checked(ip.payload()).unwrap();
    assert_eq!(icmp.msg_type(), Icmpv6Message::NeighborAdvert);
    assert_eq!(icmp.target_addr(), own);
    assert_eq!(icmp.neighbor_flags(), NdiscNeighborFlags::OVERRIDE);
    let option = NdiscOption::new_checked(icmp.payload()).unwrap();
    assert_eq!(option.link_layer_addr(), RawHardwareAddress::from_bytes(&[2, 0, 0, 0, 0, 1]));
}

/// Tagged for priority, in several slots, behind a tag: it is answered all the same.
#[test]
fn a_probe_comes_as_frames_do() {
    for probe in [arp_probe(1), solicitation(1)] {
        let mut tagged = probe.clone();
        tagged.splice(12..12, [0x81, 0, 0, 0]);
        let mut stack = Stack::new(1, mock());
        let incoming = &mut stack.device.inner_mut().incoming;
        incoming.push_back(packet(&[&probe[..13], &probe[13..]]));
        incoming.push_back(packet(&[&tagged]));
        assert_eq!(sent(&mut stack, &[]).len(), 2);
    }
}

/// Other addresses, other stations, what we have sent ourselves, what is malformed.
#[test]
fn nothing_else_is_answered() {
    let change = |frame: Vec<u8>, place: usize, value: u8| {
        let mut frame = frame;
        frame[place] = value;
        frame
    };
    let mut ours = arp_probe(1);
    ours[11] = 1;
    let mut ours_v6 = solicitation(1);
    ours_v6[11] = 1;
    let mut to_another = solicitation(1);
    to_another[..6].copy_from_slice(&[2, 0, 0, 0, 0, 7]);
    let mut arp_to_another = arp_probe(1);
    arp_to_another[..6].copy_from_slice(&[2, 0, 0, 0, 0, 7]);
    let frames = [
        arp_probe(2),
        solicitation(2),
        ours,
        ours_v6,
        to_another,
        arp_to_another,
        // A reply, from a group, from ourselves.
        change(arp_probe(1), 21, 2),
        change(arp_probe(1), 22, 3),
        change(arp_probe(1), 27, 1),
        // Cut short.
        arp_probe(1)[..41].to_vec(),
        solicitation(1)[..70].to_vec(),
        // Passed on by a router; another code, a wrong checksum, another group.
        change(solicitation(1), 21, 254),
        change(solicitation(1), 55, 1),
        change(solicitation(1), 56, 1),
        change(solicitation(1), 53, 2),
    ];
    for frame in frames {
        let mut stack = Stack::new(1, mock());
        assert!(sent(&mut stack, core::slice::from_ref(&frame)).is_empty(), "{frame:x?}");
        assert_eq!(stack.device.counters().probes_answered, 0);
    }
}

/// Addresses come and go.
#[test]
fn the_addresses_are_those_of_now() {
    let mut stack = Stack::new(1, mock());
    let probes = [arp_probe(1), arp_probe(3), solicitation(1), solicitation(3)];
    assert_eq!(sent(&mut stack, &probes).len(), 2);
    stack.iface.update_ip_addrs(|addresses| {
        addresses.clear();
        addresses.push(IpCidr::new(address(true, 3), 24)).unwrap();
    });
    assert_eq!(sent(&mut stack, &probes).len(), 1);
}

/// Without room the answer waits, what comes behind it too, and the page of the question does not.
#[test]
fn an_answer_waits_for_room() {
    let mut stack = Stack::new(1, Mock { room: 0, ..mock() });
    let frames = [arp_probe(1), arp_probe(1), solicitation(1)];
    for _ in 0..3 {
        assert!(sent(&mut stack, &[]).is_empty());
    }
    assert!(sent(&mut stack, &frames).is_empty());
    assert!(stack.device.is_held());
    assert_eq!((stack.device.inner().incoming.len(), stack.device.inner().recycled), (2, 1));
    assert!(sent(&mut stack, &[]).is_empty() && stack.device.is_held());
    stack.device.inner_mut().room = 9;
    assert_eq!(sent(&mut stack, &[]).len(), 3);
    assert!(!stack.device.is_held());
}

/// A flood is bounded as any other packets are.
#[test]
fn a_flood_of_probes_is_bounded() {
    let mut stack = Stack::new(1, mock());
    let flood = vec![arp_probe(1); 100];
    assert_eq!(sent(&mut stack, &flood).len(), BURST as usize);
    assert_eq!(sent(&mut stack, &[]).len(), 100 - BURST as usize);
}

/// What was to be answered with an address that the vif has no more is not answered.
#[test]
fn no_answer_outlives_its_connection() {
    let mut stack = Stack::new(1, Mock { room: 0, ..mock() });
    assert!(sent(&mut stack, &[solicitation(1)]).is_empty() && stack.device.is_held());
    let net = stack.device.inner_mut();
    (net.mac, net.room) = (5, 9);
    net.changes = Changes { connection: true, mac: true, ..Changes::NONE };
    stack.device.follow(&mut stack.iface, || 1, stack.now);
    assert!(!stack.device.is_held());
    assert!(sent(&mut stack, &[]).is_empty());
    let answer = &sent(&mut stack, &[solicitation(1)])[0];
    assert_eq!(
        (&answer[6..12], &answer[80..86]),
        (&[2, 0, 0, 0, 0, 5][..], &[2, 0, 0, 0, 0, 5][..])
    );
}
