//! Real sockets of real stacks, on what the adaptor sends and receives.

use smoltcp::iface::PollResult;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::socket::{icmp, raw, tcp, udp};
use smoltcp::wire::{IcmpRepr, Icmpv4Packet, Icmpv4Repr, IpProtocol, IpVersion};

use super::frames::{Kind, blank, filled_in, frame, is_right, kind};
use super::*;

pub(super) fn udp_socket(port: u16) -> udp::Socket<'static> {
    let buffer = || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 32], vec![0; 8 * 1500]);
    let mut socket = udp::Socket::new(buffer(), buffer());
    socket.bind(port).unwrap();
    socket
}

fn tcp_socket(size: usize) -> tcp::Socket<'static> {
    let buffer = || tcp::SocketBuffer::new(vec![0; size]);
    tcp::Socket::new(buffer(), buffer())
}

/// What peers may take.
fn peers() -> [Features; 5] {
    let none = Features::NONE;
    let v4 = Features { checksum_v4: true, ..none };
    let v6 = Features { checksum_v6: true, ..none };
    let blank = Features { gso_v4: false, gso_v6: false, ..Features::ALL };
    [none, v4, v6, blank, Features::ALL]
}

/// Two stacks that have found each other, by ARP and neighbour discovery.
fn pair(peer: Features, mtu: usize) -> (Stack, Stack) {
    let new = |number| Stack::new(number, Mock { mtu, peer, block_size: 4096, ..mock() });
    let (mut one, mut two) = (new(1), new(2));
    for v4 in [true, false] {
        let socket = one.sockets.add(udp_socket(1000));
        one.socket::<udp::Socket<'_>>(socket).send_slice(b"hi", (address(v4, 2), 9)).unwrap();
        for _ in 0..4 {
            one.poll();
            carry(&mut one, &mut two);
            two.poll();
            carry(&mut two, &mut one);
        }
        one.sockets.remove(socket);
        assert!(one.device.counters().checksums_left > u64::from(!v4));
        // It asks for neighbours once a second.
        one.now += smoltcp::time::Duration::from_secs(2);
    }
    (one, two)
}

/// All that a stack sends, over either IP: right on the wire, and blank where the peer takes it.
#[test]
fn what_sockets_send_is_right_whatever_the_peer_takes() {
    for peer in peers() {
        let (mut one, _) = pair(peer, 1500);
        for v4 in [true, false] {
            let udp = one.sockets.add(udp_socket(2000));
            one.socket::<udp::Socket<'_>>(udp).send_slice(b"odd", (address(v4, 2), 9)).unwrap();
            let tcp = one.sockets.add(tcp_socket(4000));
            let socket = one.sockets.get_mut::<tcp::Socket<'_>>(tcp);
            socket.connect(one.iface.context(), (address(v4, 2), 9), 3000).unwrap();
            // A ping, whose answer is ours.
            let ping = frame(v4, Kind::Icmp, b"ping");
            one.device.inner_mut().incoming.push_back(packet(&[&ping]));
            let left = one.device.counters().checksums_left;
            one.poll();
            assert_eq!(one.device.counters().checksums_left, left + 2);
            let takes = if v4 { peer.checksum_v4 } else { peer.checksum_v6 };
            let mut kinds = vec![];
            for packet in one.device.inner_mut().sent.drain(..) {
                let bytes = joined(&packet);
                let its = kind(&bytes).unwrap();
                kinds.push(its);
                if its == Kind::Icmp || !takes {
                    assert_ne!(packet.meta.checksum, Checksum::Blank);
                    assert!(is_right(&bytes), "{v4} {its:?} {peer:?}");
                } else {
                    assert_eq!(packet.meta.checksum, Checksum::Blank, "{v4} {its:?} {peer:?}");
                    assert!(is_right(&filled_in(&bytes)), "{v4} {its:?}");
                    assert_eq!(blank(&bytes), bytes, "the sum of the pseudo-header");
                }
            }
            assert_eq!(kinds, [Kind::Icmp, Kind::Udp, Kind::Tcp]);
            one.sockets.remove(udp);
            one.sockets.remove(tcp);
        }
    }
}

/// What sockets receive, over either IP: what is blank or right, nothing that is wrong.
#[test]
fn sockets_receive_blank_packets_and_no_wrong_ones() {
    for v4 in [true, false] {
        let (mut one, _) = pair(Features::NONE, 1500);
        let udp = one.sockets.add(udp_socket(7));
        let right = frame(v4, Kind::Udp, b"right");
        let mut wrong = frame(v4, Kind::Udp, b"wrong");
        *wrong.last_mut().unwrap() ^= 1;
        let mut ping = frame(v4, Kind::Icmp, b"wrong");
        *ping.last_mut().unwrap() ^= 1;
        let mut header = frame(v4, Kind::Udp, b"header");
        // Not covered by UDP's checksum: TTL, which IPv4's covers.
        header[22] ^= u8::from(v4);
        for (bytes, state) in [
            (&blank(&right), Checksum::Blank),
            (&wrong, Checksum::Unknown),
            (&right, Checksum::Unknown),
            (&right, Checksum::Complete),
            // Nothing that is called complete but ICMP, which smoltcp verifies anyway.
            (&ping, Checksum::Complete),
            (&ping, Checksum::Unknown),
            (&header, Checksum::Complete),
        ] {
            for cut in [bytes.len(), 20, 45] {
                let (head, rest) = bytes.split_at(cut);
                let parts = [head, rest];
                let parts = if rest.is_empty() { &parts[..1] } else { &parts[..] };
                let mut packet = packet(parts);
                packet.meta.checksum = state;
                one.device.inner_mut().incoming.push_back(packet);
            }
        }
        for _ in 0..7 {
            one.poll();
        }
        let mut heard = vec![];
        while let Ok((data, _)) = one.socket::<udp::Socket<'_>>(udp).recv() {
            heard.push(data.to_vec());
        }
        let (right, header) = heard.split_at(9);
        assert!(right.iter().all(|data| data == b"right"), "{heard:?}");
        // Over IPv6 it is nobody's.
        assert_eq!(header.len(), if v4 { 0 } else { 3 });
        assert_eq!(one.device.counters().checksums_wrong, 6);
        assert!(one.device.inner().sent.is_empty(), "no answer to a wrong ping");
    }
}

/// A datagram that needs fragments goes without a checksum over IPv4, none of them blank.
#[test]
fn fragments_are_never_blank() {
    let (mut one, mut two) = pair(Features::ALL, 600);
    let (from, to) = (one.sockets.add(udp_socket(5)), two.sockets.add(udp_socket(6)));
    let data: Vec<u8> = (0..1400).map(|at| at as u8).collect();
    one.socket::<udp::Socket<'_>>(from).send_slice(&data, (address(true, 2), 6)).unwrap();
    for _ in 0..4 {
        one.poll();
    }
    let sent = &one.device.inner().sent;
    assert_eq!(sent.len(), 3);
    assert!(sent.iter().all(|packet| packet.meta.checksum == Checksum::Unknown));
    assert_eq!(sent[0].head()[40..42], [0, 0]);
    assert!(sent.iter().all(|packet| {
        let header = etherparse::Ipv4Header::from_slice(&packet.head()[14..]).unwrap().0;
        header.header_checksum == header.calc_header_checksum()
    }));
    carry(&mut one, &mut two);
    two.poll();
    let (heard, _) = two.socket::<udp::Socket<'_>>(to).recv().unwrap();
    assert_eq!(heard, data);
}

/// What a raw socket has summed itself is not ours.
#[test]
fn a_raw_sockets_own_checksum_stays() {
    let (mut one, _) = pair(Features::ALL, 1500);
    let buffer = || raw::PacketBuffer::new(vec![raw::PacketMetadata::EMPTY; 4], vec![0; 4000]);
    let socket = raw::Socket::new(Some(IpVersion::Ipv4), Some(IpProtocol::Udp), buffer(), buffer());
    let socket = one.sockets.add(socket);
    let mut frame = frame(true, Kind::Udp, b"mine");
    // The other way.
    for at in 26..30 {
        frame.swap(at, at + 4);
    }
    one.socket::<raw::Socket<'_>>(socket).send_slice(&frame[14..]).unwrap();
    one.poll();
    let sent = one.device.inner_mut().sent.pop().unwrap();
    assert_eq!(sent.meta.checksum, Checksum::Unknown);
    assert!(is_right(&joined(&sent)));
    assert_eq!(sent.head()[34..], frame[34..]);
}

/// An ICMP socket's pings, answered by another stack.
#[test]
fn pings_come_back() {
    let (mut one, mut two) = pair(Features::ALL, 1500);
    let buffer = || icmp::PacketBuffer::new(vec![icmp::PacketMetadata::EMPTY; 4], vec![0; 4000]);
    let mut socket = icmp::Socket::new(buffer(), buffer());
    socket.bind(icmp::Endpoint::Ident(5)).unwrap();
    let socket = one.sockets.add(socket);
    let ping = Icmpv4Repr::EchoRequest { ident: 5, seq_no: 6, data: &[8; 1000] };
    let icmp = one.socket::<icmp::Socket<'_>>(socket);
    let room = icmp.send(ping.buffer_len(), address(true, 2)).unwrap();
    ping.emit(&mut Icmpv4Packet::new_unchecked(room), &ChecksumCapabilities::default());
    for _ in 0..2 {
        one.poll();
        carry(&mut one, &mut two);
        two.poll();
        carry(&mut two, &mut one);
    }
    let (pong, _) = one.socket::<icmp::Socket<'_>>(socket).recv().unwrap();
    let pong = Icmpv4Packet::new_checked(pong).unwrap();
    let pong = IcmpRepr::Ipv4(Icmpv4Repr::parse(&pong, &Default::default()).unwrap());
    let expected = Icmpv4Repr::EchoReply { ident: 5, seq_no: 6, data: &[8; 1000] };
    assert_eq!(pong, IcmpRepr::Ipv4(expected));
}

/// Bytes that no two places have alike.
fn pattern(flow: usize, at: usize) -> u8 {
    (at.wrapping_mul(2654435761) >> 11) as u8 ^ flow as u8
}

/// Sends so many bytes through each of `flows` connections; `meddle` may change the stacks in
/// every turn, the sender's device not being flushed yet. Returns the sender's statistics and the
/// longest packet.
fn bulk(
    pair: (Stack, Stack),
    v4: bool,
    flows: usize,
    bytes: usize,
    mut meddle: impl FnMut(usize, &mut Stack),
) -> (Counters, usize) {
    let (mut one, mut two) = pair;
    let connect = |flow: usize| {
        let (from, to) =
            (one.sockets.add(tcp_socket(256 << 10)), two.sockets.add(tcp_socket(256 << 10)));
        two.socket::<tcp::Socket<'_>>(to).listen(1000 + flow as u16).unwrap();
        let socket = one.sockets.get_mut::<tcp::Socket<'_>>(from);
        let server = (address(v4, 2), 1000 + flow as u16);
        socket.connect(one.iface.context(), server, 2000 + flow as u16).unwrap();
        (from, to, 0, 0)
    };
    let mut connections: Vec<_> = (0..flows).map(connect).collect();
    let mut longest = 0;
    for turn in 0..20_000 {
        for (flow, (from, to, sent, heard)) in connections.iter_mut().enumerate() {
            let socket = one.socket::<tcp::Socket<'_>>(*from);
            if socket.can_send() {
                *sent += socket
                    .send(|room| {
                        let now = room.len().min(bytes - *sent);
                        for (at, byte) in room[..now].iter_mut().enumerate() {
                            *byte = pattern(flow, *sent + at);
                        }
                        (now, now)
                    })
                    .unwrap();
            }
            let socket = two.socket::<tcp::Socket<'_>>(*to);
            if socket.can_recv() {
                *heard += socket
                    .recv(|data| {
                        for (at, &byte) in data.iter().enumerate() {
                            assert_eq!(byte, pattern(flow, *heard + at), "flow {flow}");
                        }
                        (data.len(), data.len())
                    })
                    .unwrap();
            }
        }
        if connections.iter().all(|connection| connection.3 == bytes) {
            return (one.device.counters(), longest);
        }
        one.now += smoltcp::time::Duration::from_millis(1);
        one.iface.poll(one.now, &mut one.device, &mut one.sockets);
        meddle(turn, &mut one);
        one.device.flush();
        longest = longest.max(carry(&mut one, &mut two));
        two.poll();
        carry(&mut two, &mut one);
    }
    panic!("it does not end");
}

#[test]
fn segments_of_several_sockets_leave_as_large_packets_and_are_taken() {
    for (v4, flows) in [(true, 1), (false, 1), (true, 4), (false, 4), (true, 12)] {
        let (counters, longest) = bulk(pair(Features::ALL, 1500), v4, flows, 400_000, |_, _| ());
        let coalesced = counters.coalesced;
        assert!(longest > 10_000, "{longest}");
        assert_eq!((counters.lost, counters.too_long), (0, 0));
        // Twelve flows in turn are more than can wait.
        if flows <= 8 {
            assert!(coalesced.segments > coalesced.coalesced * 10, "{flows}: {coalesced:?}");
            // Over IPv4 the stack fills pages, over IPv6 it sends segments.
            let packets = flows * if v4 { 90 } else { 270 };
            assert!(coalesced.segments as usize > packets, "{flows}: {coalesced:?}");
        }
    }
}

/// Nothing is put together for a peer that does not take it, nor waits.
#[test]
fn no_large_packet_for_a_peer_that_takes_none() {
    for peer in peers() {
        let v4_only = Features { gso_v6: false, ..Features::ALL };
        for (peer, v4) in [(peer, true), (peer, false), (v4_only, false)] {
            if !(if v4 { peer.gso_v4 } else { peer.gso_v6 }) {
                let (counters, longest) = bulk(pair(peer, 1500), v4, 2, 200_000, |_, _| ());
                assert_eq!((longest, counters.coalesced.coalesced), (1514, 0));
            }
        }
    }
}

/// The peer is another one every few turns, packets waiting or not.
#[test]
fn peers_come_and_go_and_nothing_is_lost_or_changed() {
    for v4 in [true, false] {
        let peers = peers();
        let (counters, longest) = bulk(pair(peers[4], 1500), v4, 3, 2_000_000, |turn, one| {
            one.device.inner_mut().peer = peers[(turn / 2).wrapping_mul(7) % peers.len()];
        });
        assert!(longest > 10_000 && counters.coalesced.coalesced > 10, "{counters:?}");
        assert_eq!((counters.lost, counters.checksums_wrong), (0, 0));
    }
}

/// One call fills the device, whatever waits, and leaves nothing waiting.
#[test]
fn one_poll_fills_the_device() {
    for (peer, flows) in [(Features::NONE, 1), (Features::ALL, 1), (Features::ALL, 5)] {
        let (mut one, mut two) = pair(peer, 1500);
        let mut sockets = vec![];
        for flow in 0..flows {
            let to = two.sockets.add(tcp_socket(1 << 20));
            two.socket::<tcp::Socket<'_>>(to).listen(1000 + flow).unwrap();
            let from = one.sockets.add(tcp_socket(1 << 20));
            let socket = one.sockets.get_mut::<tcp::Socket<'_>>(from);
            let server = (address(true, 2), 1000 + flow);
            socket.connect(one.iface.context(), server, 2000 + flow).unwrap();
            sockets.push(from);
        }
        for _ in 0..4 {
            one.poll();
            carry(&mut one, &mut two);
            two.poll();
            carry(&mut two, &mut one);
        }
        // The first acknowledgment opens the window.
        for &from in &sockets {
            one.socket::<tcp::Socket<'_>>(from).send_slice(b"x").unwrap();
        }
        for _ in 0..20 {
            one.poll();
            carry(&mut one, &mut two);
            two.poll();
            carry(&mut two, &mut one);
        }
        for from in sockets {
            let socket = one.socket::<tcp::Socket<'_>>(from);
            assert_eq!(socket.send_slice(&vec![1; 1 << 20]), Ok(1 << 20));
        }
        one.poll();
        assert!(one.device.inner().room <= 2, "{} are free", one.device.inner().room);
        let sent = one.device.inner().sent.len();
        one.device.flush();
        assert_eq!(one.device.inner().sent.len(), sent);
        let fragments: usize =
            one.device.inner().sent.iter().map(|packet| packet.fragments().len()).sum();
        assert!(fragments >= 256 * 18 / 20, "{fragments}");
    }
}

/// Sleeping until the stack says is sleeping, also while there is no room for what it has to send.
#[test]
fn a_stack_without_room_is_not_polled_at_once() {
    let (mut one, _) = pair(Features::NONE, 1500);
    let now = Instant::from_micros(5_000);
    let poll_at = |stack: &mut Stack| stack.device.poll_at(&mut stack.iface, &stack.sockets, now);
    assert_eq!(poll_at(&mut one), None);
    let socket = one.sockets.add(udp_socket(9));
    one.socket::<udp::Socket<'_>>(socket).send_slice(b"x", (address(true, 2), 9)).unwrap();
    assert!(poll_at(&mut one).is_some_and(|at| at <= now));
    let room = core::mem::take(&mut one.device.inner_mut().room);
    assert_eq!(poll_at(&mut one), Some(Instant::from_micros(105_000)));
    one.device.inner_mut().room = room;
    assert!(poll_at(&mut one).is_some_and(|at| at <= now));
    one.device.poll(&mut one.iface, &mut one.sockets, now);
    assert_eq!(poll_at(&mut one), None);
}

/// What is read between the two halves of a poll is acknowledged once; else the window follows in a
/// packet of its own.
#[test]
fn what_is_read_between_the_halves_is_acknowledged_once() {
    for (halves, packets) in [(true, 1), (false, 2)] {
        let (mut one, mut two) = pair(Features::ALL, 1500);
        let (from, to) = (one.sockets.add(tcp_socket(8000)), two.sockets.add(tcp_socket(10_000)));
        two.socket::<tcp::Socket<'_>>(to).listen(9).unwrap();
        let socket = one.sockets.get_mut::<tcp::Socket<'_>>(from);
        socket.connect(one.iface.context(), (address(true, 2), 9), 3000).unwrap();
        for _ in 0..3 {
            one.poll();
            carry(&mut one, &mut two);
            two.poll();
            carry(&mut two, &mut one);
        }
        // A single packet might be acknowledged later.
        for _ in 0..2 {
            let socket = one.socket::<tcp::Socket<'_>>(from);
            socket.set_nagle_enabled(false);
            assert_eq!(socket.send_slice(&[7; 4000]), Ok(4000));
            one.poll();
        }
        carry(&mut one, &mut two);
        let Stack { device, iface, sockets, now } = &mut two;
        let read = |sockets: &mut SocketSet<'_>| {
            let read =
                sockets.get_mut::<tcp::Socket<'_>>(to).recv(|bytes| (bytes.len(), bytes.len()));
            assert_eq!(read, Ok(8000));
        };
        if halves {
            assert_eq!(device.poll_ingress(iface, sockets, *now), PollResult::SocketStateChanged);
            read(sockets);
            assert_eq!(device.poll_egress(iface, sockets, *now), PollResult::SocketStateChanged);
        } else {
            device.poll(iface, sockets, *now);
            read(sockets);
            device.poll(iface, sockets, *now);
        }
        assert_eq!(device.inner().sent.len(), packets);
        // Nothing is left to do.
        assert_eq!(device.poll_egress(iface, sockets, *now), PollResult::None);
        carry(&mut two, &mut one);
        one.poll();
        assert_eq!(one.socket::<tcp::Socket<'_>>(from).send_queue(), 0);
    }
}
