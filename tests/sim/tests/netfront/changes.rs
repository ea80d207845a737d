//! N8: what belongs to a connection changes with it, and the layers above are told.

use etherparse::{SlicedPacket, TcpOptionElement, TransportSlice};
use packet_views::device::Changes;
use packet_views::features::Features;
use packet_views::header::MacAddr;
use packet_views::phy::Device;
use smoltcp::iface::{Interface, SocketSet};
use smoltcp::socket::tcp;
use smoltcp::wire::{EthernetAddress, IpAddress, IpCidr, Ipv4Address};
use xen_netfront::netfront::{Netfront, Obstacle};
use xen_netfront::platform::Platform;
use xen_netfront::store::Store;

use super::*;
use xen_netfront::xenbus::feature_nodes;

/// The toolstack or the backend writes these keys, and the connection is made anew.
fn come_back(bench: &mut Bench, front: &[(&str, &str)], back: &[(&str, &str)]) {
    bench.queues.clear();
    bench.set_state(6);
    bench.pass(Duration::from_millis(100));
    for (dir, keys) in [(bench.vif.front_dir(), front), (bench.vif.back_dir(), back)] {
        for (key, value) in keys {
            bench.toolstack.store().set(&format!("{dir}/{key}"), value);
        }
    }
    bench.connect();
}

#[test]
fn n8_one_event_says_what_a_connection_has_changed() {
    let mut bench = Bench::with(Config::default(), &[], &feature_nodes(&Features::ALL));
    let all =
        Changes::NONE.with_connection(true).with_mac(true).with_mtu(true).with_capabilities(true);
    assert_eq!((bench.front.take_changes(), bench.front.take_changes()), (all, Changes::NONE));
    let same = Changes::NONE.with_connection(true);
    come_back(&mut bench, &[], &[]);
    assert_eq!(bench.front.take_changes(), same);
    come_back(&mut bench, &[("mtu", "1400")], &[]);
    assert_eq!(bench.front.take_changes(), same.with_mtu(true));
    assert_eq!(NetDevice::mtu(&bench.front), 1400);
    come_back(&mut bench, &[("mac", "00:16:3e:00:00:77")], &[]);
    assert_eq!(bench.front.take_changes(), same.with_mac(true));
    assert_eq!(NetDevice::mac(&bench.front), Some(MacAddr([0, 0x16, 0x3e, 0, 0, 0x77])));
    come_back(&mut bench, &[], &[("feature-gso-tcpv4", "0")]);
    assert_eq!(bench.front.take_changes(), same.with_capabilities(true));
    // Two at once, and two connections that nobody asked about.
    come_back(&mut bench, &[("mtu", "1500")], &[]);
    come_back(&mut bench, &[], &[("feature-gso-tcpv4", "1")]);
    assert_eq!(bench.front.take_changes(), same.with_mtu(true).with_capabilities(true));
    // Between two connections there is nothing new.
    bench.set_state(5);
    bench.pass(SECOND);
    assert_eq!(bench.front.take_changes(), Changes::NONE);
}

/// Where a packet has one page, that is what fits it, with the tag of a VLAN.
#[test]
fn n8_the_mtu_of_a_backend_that_takes_one_page_is_what_fits() {
    let mut bench = Bench::with(Config::default(), &[("mtu", "9000")], &[("feature-sg", "0")]);
    assert!(bench.front.take_changes().mtu);
    assert_eq!(NetDevice::mtu(&bench.front), 4096 - 18);
    for len in [4096 - 18 + 14, 4096] {
        assert!(bench.send(&[&pattern(1, len)]));
    }
    assert_eq!(bench.tx_requests().len(), 2);
    // It changes with that alone, as with the vif's own.
    let seen: Vec<_> = [("feature-sg", "1"), ("feature-sg", "0")]
        .map(|feature| {
            come_back(&mut bench, &[], &[feature]);
            let changes = bench.front.take_changes();
            (NetDevice::mtu(&bench.front), changes.mtu, changes.capabilities, changes.mac)
        })
        .into();
    assert_eq!(seen, [(9000, true, true, false), (4078, true, true, false)]);
    come_back(&mut bench, &[("mtu", "4079")], &[]);
    assert!(!bench.front.take_changes().mtu);
    come_back(&mut bench, &[("mtu", "4077")], &[]);
    assert_eq!((NetDevice::mtu(&bench.front), bench.front.take_changes().mtu), (4077, true));
}

/// What a stack's interface announces as the largest segment it takes, from which both sides size theirs.
fn announced_mss(bench: &mut Bench, device: &mut Device<Front>, iface: &mut Interface) -> u16 {
    let buffer = || tcp::SocketBuffer::new(vec![0; 4096]);
    let mut sockets = SocketSet::new(vec![]);
    let socket = sockets.add(tcp::Socket::new(buffer(), buffer()));
    let peer = (IpAddress::v4(10, 0, 0, 2), 80);
    sockets.get_mut::<tcp::Socket>(socket).connect(iface.context(), peer, 4000).unwrap();
    for _ in 0..10 {
        device.poll(iface, &mut sockets, bench.domain.now());
        for sent in bench.sent() {
            bench.answer_sent(&sent, 0);
            let bytes = &sent.bytes;
            if bytes[12..14] == [8, 6] {
                // An ARP reply: the request turned round.
                let mut reply = [&bytes[6..12], &[2, 0, 0, 0, 0, 2], &bytes[12..20]].concat();
                reply.extend([0, 2, 2, 0, 0, 0, 0, 2]);
                reply.extend([&bytes[38..42], &bytes[22..32]].concat());
                bench.deliver(&[&reply]);
            } else {
                let packet = SlicedPacket::from_ethernet(bytes).unwrap();
                let Some(TransportSlice::Tcp(tcp)) = packet.transport else { panic!("{bytes:?}") };
                let mss = tcp.options_iterator().find_map(|option| match option.unwrap() {
                    TcpOptionElement::MaximumSegmentSize(mss) => Some(mss),
                    _ => None,
                });
                return mss.unwrap();
            }
        }
        bench.host.advance(Duration::from_millis(1100));
    }
    panic!("no SYN");
}

/// A stack's interface follows: its segments and its address are those of the vif as it is now.
#[test]
fn n8_the_stacks_interface_follows_mtu_and_address() {
    let mut bench = Bench::with(Config::default(), &[], &feature_nodes(&Features::ALL));
    let spare = Bench::new();
    // The device is the stack's, except while the test makes it connect.
    let mut device = Device::new(std::mem::replace(&mut bench.front, spare.front));
    let mut iface = device.interface(1, bench.domain.now());
    let cidr = IpCidr::new(IpAddress::v4(10, 0, 0, 1), 24);
    iface.update_ip_addrs(|list| list.push(cidr).unwrap());
    let router = Ipv4Address::new(10, 0, 0, 9);
    iface.routes_mut().add_default_ipv4_route(router).unwrap();
    let now = bench.domain.now();
    let first = device.follow(&mut iface, || panic!("nothing to make anew"), now);
    assert!(first.connection);
    assert_eq!(announced_mss(&mut bench, &mut device, &mut iface), 1460);
    for (mtu, mac) in [("1280", 0x11), ("9000", 0x22), ("1500", 0x33)] {
        let address = format!("00:16:3e:00:00:{mac:02x}");
        std::mem::swap(&mut bench.front, device.inner_mut());
        come_back(&mut bench, &[("mtu", mtu), ("mac", &address)], &[]);
        std::mem::swap(&mut bench.front, device.inner_mut());
        let now = bench.domain.now();
        let changes = device.follow(&mut iface, || 7, now);
        assert!(changes.connection && changes.mtu && changes.mac && !changes.capabilities);
        assert_eq!(iface.hardware_addr(), EthernetAddress([0, 0x16, 0x3e, 0, 0, mac]).into());
        assert_eq!(iface.ip_addrs(), [cidr]);
        assert!(iface.routes().get_default_ipv4_route().is_some());
        let mtu: u16 = mtu.parse().unwrap();
        assert_eq!(announced_mss(&mut bench, &mut device, &mut iface), mtu - 40);
        assert_eq!(device.follow(&mut iface, || 8, now), Changes::NONE);
    }
}

/// A vif without an address of its own is not served, and says why; with one it is.
#[test]
fn without_a_stations_address_the_link_stays_down_and_says_why() {
    let cases = [
        "",
        "00:16:3e:5e:6c",
        "00:16:3e:5e:6c:00:01",
        "00-16-3e-5e-6c-00",
        "00:00:00:00:00:00",
        "01:00:5e:00:00:01",
        "ff:ff:ff:ff:ff:ff",
        "garbage",
    ];
    for mac in cases.map(Some).into_iter().chain([None]) {
        let vif = Vif::new(FRONT, BACK, 0).back_key("feature-rx-copy", "1");
        let mut bench = Bench::on(Host::new(1), vif, Config::default(), 300);
        let node = format!("{}/mac", bench.vif.front_dir());
        match mac {
            Some(mac) => bench.toolstack.store().set(&node, mac),
            None => bench.toolstack.store().remove(None, &node).unwrap(),
        }
        bench.set_state(2);
        let before = bench.domain.counts().store_calls;
        bench.pass(SECOND * 20);
        let calls = bench.domain.counts().store_calls - before;
        assert!(calls < 400, "{calls} calls of xenstore in 20 s");
        assert_eq!((bench.front.link(), bench.front_state()), (Link::Down, Some(1)), "{mac:?}");
        assert_eq!(bench.front.obstacle(), Some(Obstacle::NoMac));
        assert_eq!(NetDevice::mac(&bench.front), None);
        assert!(!bench.send(&[&pattern(1, 60)]));
        assert_eq!(bench.domain.open_ports(), []);
        // The toolstack makes good for it.
        bench.toolstack.store().set(&node, "0:16:3e:a:B:0c");
        bench.connect();
        assert_eq!(bench.front.obstacle(), None);
        assert_eq!(NetDevice::mac(&bench.front), Some(MacAddr([0, 0x16, 0x3e, 0xa, 0xb, 0xc])));
        bench.assert_receives();
        bench.assert_no_leak();
    }
}

const CANARY: &[u8] = b"SECRET-OF-THE-OLD-MACHINE";

/// Canaries that the backend could read in all the pages that it has been granted.
fn visible_canaries(bench: &Bench) -> usize {
    let pages = bench.back.dump_granted(FRONT);
    let in_page =
        |bytes: &[u8; 4096]| bytes.windows(CANARY.len()).filter(|at| *at == CANARY).count();
    pages.iter().map(|page| in_page(&page.bytes)).sum()
}

/// A device that has sent and been sent secrets, and left the machine whose backend knew them.
fn migrated(told: bool, really: bool) -> Bench {
    let mut bench = Bench::with(Config::default(), &[], &[]);
    let secret: Vec<u8> = CANARY.iter().copied().cycle().take(1500).collect();
    for _ in 0..200 {
        assert!(bench.send(&[&secret]));
        for request in bench.tx_requests() {
            bench.answer_tx(request.id, 0);
        }
        bench.deliver(&[&secret]);
        bench.received();
        bench.front.complete_tx();
    }
    bench.queues.clear();
    if really {
        bench.domain.migrate_grants();
    }
    if told {
        bench.front.resumed();
    }
    bench
}

fn open_anew(bench: &mut Bench) {
    let (platform, store) = (bench.domain.clone(), bench.domain.clone());
    bench.front = Netfront::open(platform, store, &bench.pool, &bench.table, 0, Config::default())
        .expect("the pool has room for a second");
}

/// Which machine the peer is on, the domain knows and not the device: dom0 has number 0 everywhere.
#[test]
fn n8_a_backend_of_another_machine_sees_nothing_that_the_old_ones_did() {
    for (told, really) in [(true, true), (true, false), (false, true)] {
        for again in [false, true] {
            let mut bench = migrated(told, really);
            if again || !told {
                open_anew(&mut bench);
            }
            bench.connect();
            assert_eq!(visible_canaries(&bench), 0, "told {told}, opened anew {again}");
        }
    }
}

/// Several devices are told of one migration: each page is cleared for it once.
#[test]
fn n8_devices_that_share_a_pool_count_a_migration_once() {
    let mut bench = Bench::new();
    let mut other = bench.beside(1, DomId(3), Config::default().with_rx_floor(20));
    other.connect();
    let table = bench.table.clone();
    let before = table.machine();
    for resume in 1..4 {
        bench.domain.migrate_grants();
        bench.queues.clear();
        other.queues.clear();
        bench.front.resumed();
        other.front.resumed();
        assert_eq!(table.machine(), before + resume);
        bench.connect();
        other.connect();
        assert_eq!(table.machine(), before + resume);
    }
}
