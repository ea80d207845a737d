//! The addresses of a stack, beside a peer on the same wire that has a DHCP server and a TCP client.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::rc::Rc;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::mem;
use core::net::{IpAddr, Ipv4Addr};

use packet_views::copying::{Copying, RawIo};
use packet_views::header::MacAddr;
use packet_views::phy::Device;
use proptest::prelude::*;
use smoltcp::iface::SocketHandle;
use smoltcp::socket::{tcp, udp};
use smoltcp::time::Instant;
use smoltcp::wire::{
    ArpPacket, ArpRepr, DhcpMessageType, DhcpPacket, DhcpRepr, EthernetFrame, EthernetProtocol,
    Ipv4Cidr,
};

use super::*;
use crate::listener::Listener;
use crate::tcp_discard::TcpDiscard;

const MACS: [[u8; 6]; 2] = [[2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 1]];
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const FIRST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 57);
const SECOND: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 58);
/// The server's leases, in seconds: renewed after half of it.
const LEASE: i64 = 120;
const STEP: i64 = 100;
const CONNECTION: Changes = Changes::NONE.with_connection(true);

type Wire = Rc<RefCell<VecDeque<Vec<u8>>>>;

/// One end of two wires.
struct Io {
    incoming: Wire,
    outgoing: Wire,
    sent: Vec<Vec<u8>>,
}

impl RawIo for Io {
    fn recv(&mut self, target: &mut [u8]) -> Option<usize> {
        let frame = self.incoming.borrow_mut().pop_front()?;
        target.get_mut(..frame.len())?.copy_from_slice(&frame);
        Some(frame.len())
    }

    fn send(&mut self, bytes: &[u8]) -> bool {
        self.sent.push(bytes.to_vec());
        self.outgoing.borrow_mut().push_back(bytes.to_vec());
        true
    }
}

/// A machine on the wire.
struct Machine {
    device: Device<Copying<Io>>,
    /// On the heap: it holds the buffer that fragments are cut from.
    iface: Box<Interface>,
    sockets: SocketSet<'static>,
}

impl Machine {
    fn new(which: usize, wires: &[Wire; 2]) -> Machine {
        let [incoming, outgoing] = [which, 1 - which].map(|wire| wires[wire].clone());
        let io = Io { incoming, outgoing, sent: Vec::new() };
        let mut device = Device::new(Copying::new(io, MacAddr(MACS[which]), 1500));
        let iface = Box::new(device.interface(7 + which as u64, Instant::ZERO));
        Machine { device, iface, sockets: SocketSet::new(vec![]) }
    }
}

/// A server with one address to give.
struct Server {
    socket: SocketHandle,
    is_there: bool,
    gives: Ipv4Addr,
    mask: Option<Ipv4Addr>,
    router: Option<Ipv4Addr>,
    lease: Option<u32>,
    asked: Vec<DhcpMessageType>,
}

impl Server {
    fn new(peer: &mut Machine) -> Server {
        let buffer = || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 4], vec![0; 4096]);
        let mut socket = udp::Socket::new(buffer(), buffer());
        socket.bind(67).unwrap();
        Server {
            socket: peer.sockets.add(socket),
            is_there: true,
            gives: FIRST,
            mask: Some(Ipv4Addr::new(255, 255, 255, 0)),
            router: Some(SERVER),
            lease: Some(LEASE as u32),
            asked: Vec::new(),
        }
    }

    fn turn(&mut self, peer: &mut Machine) {
        let socket = peer.sockets.get_mut::<udp::Socket<'_>>(self.socket);
        while let Ok((bytes, _)) = socket.recv() {
            let bytes = bytes.to_vec();
            let packet = DhcpPacket::new_checked(&bytes[..]).unwrap();
            let asked = DhcpRepr::parse(&packet).unwrap();
            if !self.is_there {
                continue;
            }
            self.asked.push(asked.message_type);
            let wants = asked.requested_ip.unwrap_or(asked.client_ip);
            let message_type = match asked.message_type {
                DhcpMessageType::Discover => DhcpMessageType::Offer,
                DhcpMessageType::Request if wants == self.gives => DhcpMessageType::Ack,
                DhcpMessageType::Request => DhcpMessageType::Nak,
                other => panic!("{other:?}"),
            };
            let answer = DhcpRepr {
                message_type,
                your_ip: self.gives,
                client_ip: Ipv4Addr::UNSPECIFIED,
                server_ip: SERVER,
                router: self.router,
                subnet_mask: self.mask,
                lease_duration: self.lease,
                server_identifier: Some(SERVER),
                requested_ip: None,
                client_identifier: None,
                parameter_request_list: None,
                max_size: None,
                ..asked
            };
            let mut bytes = vec![0; answer.buffer_len()];
            answer.emit(&mut DhcpPacket::new_unchecked(&mut bytes)).unwrap();
            socket.send_slice(&bytes, (Ipv4Addr::BROADCAST, 68)).unwrap();
        }
    }
}

struct World {
    own: Machine,
    addresses: Addresses,
    service: Listener<TcpDiscard>,
    peer: Machine,
    server: Server,
    now: i64,
}

impl World {
    fn new(line: &str) -> World {
        let wires = [Wire::default(), Wire::default()];
        let [mut own, mut peer] = [0, 1].map(|which| Machine::new(which, &wires));
        let options = crate::options::Options::parse(line, |bad| panic!("{bad}"));
        let options = options.vifs[&0].clone();
        let addresses = Addresses::new(0, options, &mut own.iface, &mut own.sockets);
        let service =
            Listener::new(&mut own.sockets, 2, || [vec![0; 2048].leak(), vec![0; 2048].leak()]);
        peer.iface.update_ip_addrs(|list| list.push(IpCidr::new(SERVER.into(), 24)).unwrap());
        let server = Server::new(&mut peer);
        World { own, addresses, service, peer, server, now: 0 }
    }

    /// As `vif.rs` does it.
    fn turn(&mut self) {
        let now = Instant::from_millis(self.now);
        for _ in 0..100 {
            let Machine { device, iface, sockets } = &mut self.own;
            self.addresses.announce(iface, device.inner_mut());
            device.poll_ingress(iface, sockets, now);
            let mut moved = self.addresses.turn(iface, sockets, now);
            moved |= self.service.turn(sockets, now, &mut 0);
            device.poll_egress(iface, sockets, now);
            let Machine { device, iface, sockets } = &mut self.peer;
            device.poll(iface, sockets, now);
            self.server.turn(&mut self.peer);
            let Machine { device, iface, sockets } = &mut self.peer;
            device.poll(iface, sockets, now);
            if !moved && self.own.device.inner_mut().io().incoming.borrow().is_empty() {
                return;
            }
        }
        panic!("at {now} it never comes to rest");
    }

    fn run(&mut self, seconds: i64) {
        let end = self.now + 1000 * seconds;
        while self.now < end {
            self.turn();
            self.now += STEP;
        }
    }

    fn follow(&mut self, changes: Changes) {
        let Machine { iface, sockets, .. } = &mut self.own;
        self.addresses.follow(changes, iface, sockets, Instant::from_millis(self.now));
    }

    fn has(&self, ip: impl Into<IpAddress>) -> bool {
        self.own.iface.has_ip_addr(ip)
    }

    fn asked(&mut self) -> Vec<DhcpMessageType> {
        mem::take(&mut self.server.asked)
    }

    /// Where packets to somebody far away go.
    fn router(&mut self) -> Option<IpAddress> {
        let mut router = None;
        self.own.iface.routes_mut().update(|routes| {
            router = routes.iter().map(|it| it.via_router).find(|it| it.version() == IPV4);
        });
        router
    }

    /// Times that we have announced an address, since this was last asked.
    fn announced(&mut self, ip: Ipv4Addr) -> usize {
        let frames = mem::take(&mut self.own.device.inner_mut().io().sent);
        let is_announcement = |frame: &&Vec<u8>| {
            let frame = EthernetFrame::new_checked(&frame[..]).unwrap();
            frame.ethertype() == EthernetProtocol::Arp
                && matches!(
                    ArpRepr::parse(&ArpPacket::new_checked(frame.payload()).unwrap()),
                    Ok(ArpRepr::EthernetIpv4 { source_protocol_addr: from, target_protocol_addr, .. })
                        if from == ip && target_protocol_addr == ip
                )
        };
        frames.iter().filter(is_announcement).count()
    }
}

const IPV4: smoltcp::wire::IpVersion = smoltcp::wire::IpVersion::Ipv4;
const LEASED: [DhcpMessageType; 2] = [DhcpMessageType::Discover, DhcpMessageType::Request];

#[test]
fn an_address_is_leased_and_announced() {
    let mut world = World::new("ip=dhcp");
    assert!(world.own.iface.ip_addrs().is_empty());
    world.run(1);
    let address = Ipv4Cidr::new(FIRST, 24);
    let lease = Lease { address, router: Some(SERVER), server: SERVER };
    assert_eq!(world.addresses.lease(), Some(lease));
    assert_eq!(world.own.iface.ip_addrs(), [IpCidr::Ipv4(address)]);
    assert_eq!(world.router(), Some(SERVER.into()));
    assert_eq!(world.announced(FIRST), 1);
    assert_eq!(world.asked(), LEASED);
    assert_eq!(alloc::format!("{lease}"), "10.0.0.57/24 leased by 10.0.0.1, router 10.0.0.1");
}

#[test]
fn a_lease_is_renewed_and_stays() {
    let mut world = World::new("ip=dhcp");
    world.run(1);
    world.asked();
    world.announced(FIRST);
    for _ in 0..10 * LEASE {
        world.run(1);
        assert!(world.has(FIRST) && world.router().is_some(), "at {} ms", world.now);
    }
    let asked = world.asked();
    assert!((15..=21).contains(&asked.len()), "{asked:?}");
    assert!(asked.iter().all(|it| *it == DhcpMessageType::Request), "{asked:?}");
    assert_eq!(world.announced(FIRST), 0);
}

#[test]
fn what_the_server_takes_back_is_given_up_for_another() {
    let mut world = World::new("ip=dhcp");
    world.run(1);
    world.asked();
    world.server.gives = SECOND;
    world.server.router = None;
    world.run(LEASE / 2 - 2);
    assert!(world.has(FIRST));
    world.run(4);
    assert!(!world.has(FIRST) && world.has(SECOND));
    assert_eq!(world.own.iface.ip_addrs().len(), 1);
    // Its router was the old lease's.
    assert_eq!(world.router(), None);
    assert_eq!(world.announced(SECOND), 1);
    assert_eq!(world.asked()[..2], [DhcpMessageType::Request, DhcpMessageType::Discover]);
}

#[test]
fn a_lease_that_nobody_renews_ends_in_time() {
    let mut world = World::new("ip=dhcp");
    world.run(1);
    world.server.is_there = false;
    world.run(LEASE - 2);
    assert!(world.has(FIRST) && world.router().is_some());
    world.run(2);
    assert_eq!(world.addresses.lease(), None);
    assert!(world.own.iface.ip_addrs().is_empty() && world.router().is_none());
    // It goes on asking.
    world.run(5 * LEASE);
    world.server.is_there = true;
    world.asked();
    world.run(11);
    assert!(world.has(FIRST) && world.router().is_some());
    assert_eq!(world.asked(), LEASED);
}

#[test]
fn behind_another_connection_it_asks_anew() {
    let mut world = World::new("ip=dhcp");
    world.run(1);
    world.asked();
    world.announced(FIRST);
    for gives in [FIRST, SECOND, FIRST] {
        world.server.gives = gives;
        world.follow(CONNECTION);
        world.run(2);
        assert!(world.has(gives) && world.own.iface.ip_addrs().len() == 1);
        assert!(world.router().is_some());
        assert_eq!(world.announced(gives), 1);
        assert_eq!(world.asked(), LEASED);
    }
    // That of another hardware address is another's.
    world.follow(CONNECTION.with_mac(true));
    assert!(world.own.iface.ip_addrs().is_empty() && world.router().is_none());
    world.run(2);
    assert_eq!((world.has(FIRST), world.asked()), (true, LEASED.into()));
    // What else changes is nothing to the lease.
    world.follow(Changes::NONE.with_mtu(true));
    assert!(world.has(FIRST));
    world.run(2);
    assert_eq!(world.asked(), []);
}

#[test]
fn behind_another_connection_a_lease_is_not_kept_for_long() {
    let mut world = World::new("ip=dhcp");
    world.run(1);
    world.server.is_there = false;
    world.follow(CONNECTION);
    world.run(20);
    assert!(world.has(FIRST) && world.router().is_some());
    // It is not kept longer because there is yet another connection.
    world.follow(CONNECTION);
    world.run(10);
    assert!(world.has(FIRST));
    let until = world.addresses.deadline().unwrap().total_millis();
    world.now = until - 1;
    world.turn();
    assert!(world.has(FIRST));
    world.now = until;
    world.turn();
    assert!(world.own.iface.ip_addrs().is_empty() && world.router().is_none());
    assert_eq!(until, 36_000);
    world.run(2);
    assert_eq!(world.addresses.deadline(), None);
    world.server.is_there = true;
    world.run(11);
    assert!(world.has(FIRST));
}

#[test]
fn a_lease_that_has_ended_is_not_kept_by_a_new_connection() {
    let mut world = World::new("ip=dhcp");
    world.run(1);
    world.server.is_there = false;
    // The stack ends it, and what it has to say of that has not been seen.
    world.now += 1000 * LEASE;
    let now = Instant::from_millis(world.now);
    let Machine { device, iface, sockets } = &mut world.own;
    device.poll_egress(iface, sockets, now);
    world.follow(CONNECTION);
    assert!(world.own.iface.ip_addrs().is_empty() && world.addresses.lease().is_none());
}

#[test]
fn other_addresses_stay_whatever_becomes_of_the_leased_one() {
    let mut world = World::new("ip=dhcp ip=fd00::2/64 gw=fd00::1");
    let v6: IpAddr = "fd00::2".parse().unwrap();
    let link_local: IpAddr = "fe80::ff:fe00:2".parse().unwrap();
    let check = |world: &mut World, leased: bool| {
        assert_eq!(world.own.iface.ip_addrs().len(), 2 + usize::from(leased));
        assert!(world.has(v6) && world.has(link_local) && world.has(FIRST) == leased);
        let mut routes = 0;
        world.own.iface.routes_mut().update(|list| routes = list.len());
        assert_eq!(routes, 1 + usize::from(leased));
    };
    check(&mut world, false);
    world.run(1);
    check(&mut world, true);
    world.server.is_there = false;
    world.run(LEASE + 1);
    check(&mut world, false);
}

#[test]
fn without_dhcp_nobody_is_asked() {
    let mut world = World::new("ip=10.0.0.9/24 gw=10.0.0.7");
    let own = Ipv4Addr::new(10, 0, 0, 9);
    world.run(1);
    assert_eq!((world.announced(own), world.addresses.lease()), (1, None));
    world.follow(CONNECTION);
    assert!(world.has(own));
    assert_eq!(world.router(), Some(IpAddress::v4(10, 0, 0, 7)));
    world.run(20);
    assert_eq!(world.announced(own), 1);
    assert_eq!(world.asked(), []);
}

#[test]
fn connections_live_as_long_as_the_address_they_are_to() {
    let mut world = World::new("ip=dhcp");
    world.run(1);
    let buffer = || tcp::SocketBuffer::new(vec![0; 2048]);
    let client = world.peer.sockets.add(tcp::Socket::new(buffer(), buffer()));
    let socket = world.peer.sockets.get_mut::<tcp::Socket<'_>>(client);
    let discard = <TcpDiscard as crate::listener::Connection>::PORT;
    socket.connect(world.peer.iface.context(), (FIRST, discard), 40_000).unwrap();
    world.run(1);
    assert_eq!(world.service.connected(), 1);
    // The same address again: nothing happens to it.
    world.follow(CONNECTION);
    world.run(1);
    assert_eq!(world.service.connected(), 1);
    let socket = world.peer.sockets.get_mut::<tcp::Socket<'_>>(client);
    assert_eq!(socket.send_slice(b"still here"), Ok(10));
    world.run(2);
    let socket = world.peer.sockets.get_mut::<tcp::Socket<'_>>(client);
    assert_eq!(socket.send_queue(), 0);

    world.server.gives = SECOND;
    world.follow(CONNECTION);
    world.run(1);
    assert!(world.has(SECOND));
    assert_eq!(world.service.connected(), 0);
    world.own.device.inner_mut().io().sent.clear();
    world.run(60);
    let from = |frame: &Vec<u8>| frame[26..30] == FIRST.octets();
    assert!(
        !world.own.device.inner_mut().io().sent.iter().any(from),
        "it is not ours to send from"
    );
}

#[test]
fn leases_of_no_length_keep_nobody_busy() {
    let mut world = World::new("ip=dhcp");
    world.server.lease = Some(0);
    world.run(10);
    let asked = world.asked();
    assert!((10..=22).contains(&asked.len()), "{asked:?}");
    world.server.lease = None;
    world.run(2);
    assert!(world.has(FIRST));
}

/// What a server may say: addresses of all kinds, some of them none of a machine.
fn odd() -> impl Strategy<Value = Ipv4Addr> {
    let known = [
        [0; 4],
        [255; 4],
        [127, 0, 0, 1],
        [224, 0, 0, 1],
        [10, 0, 0, 57],
        [10, 0, 0, 255],
        [255, 255, 255, 0],
        [255, 0, 255, 0],
    ];
    prop_oneof![
        any::<u32>().prop_map(Ipv4Addr::from),
        proptest::sample::select(known.to_vec()).prop_map(Ipv4Addr::from)
    ]
}

proptest! {
    #[test]
    fn whatever_a_server_says_is_survived(
        gives in odd(),
        mask in proptest::option::of(odd()),
        router in proptest::option::of(odd()),
        lease in proptest::option::of(prop_oneof![0_u32..9, any::<u32>()]),
    ) {
        let mut world = World::new("ip=dhcp");
        world.server = Server { gives, mask, router, lease, ..world.server };
        for _ in 0..20 {
            world.run(1);
            let is_right = |ip: Ipv4Addr| !ip.is_unspecified() && !ip.is_multicast() && !ip.is_broadcast();
            let lease = world.addresses.lease();
            prop_assert!(lease.is_none_or(|it| it.address.address() == gives && is_right(gives)));
            prop_assert_eq!(world.has(gives), lease.is_some());
            let via = router.filter(|it| is_right(*it) && *it != gives && lease.is_some());
            prop_assert_eq!(world.router(), via.map(IpAddress::from));
        }
        // A server in its right mind is listened to afterwards.
        world.server = Server { gives: FIRST, lease: Some(60), ..world.server };
        world.server.mask = Some(Ipv4Addr::new(255, 255, 255, 0));
        world.follow(CONNECTION);
        world.run(2);
        prop_assert!(world.has(FIRST));
    }
}
