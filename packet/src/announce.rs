//! Telling neighbours and switches where our addresses are.
//!
//! A domain that has been migrated, or a vif whose backend has changed, answers at another port of
//! another switch than the neighbours believe: what they send is lost until they ask again. So call
//! [`announce`] whenever the link comes up, as Linux's netfront does.
//!
//! ```text
//!  IPv4    ARP request to all: who has the address, asked by itself      RFC 5227, section 3
//!  IPv6    neighbour advertisement to all nodes, that nobody asked for   RFC 4861, section 7.2.6
//! ```

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use zerocopy::{Immutable, IntoBytes, Unaligned};

use crate::device::{NetDevice, WriteError};
use crate::header::checksum::Sum;
use crate::header::{Arp, EtherType, Ethernet, Ipv6, MacAddr, Protocol, U16, U32};

/// Announces each of our `addresses`, and flushes. What is no address of one host is left out.
///
/// It ends with the first that can't be sent: with [`WriteError::Full`] (a link that is down or has no
/// carrier, for example) or [`WriteError::NoMemory`], announce all of them again later.
pub fn announce<N: NetDevice + ?Sized>(
    net: &mut N,
    addresses: impl IntoIterator<Item = IpAddr>,
) -> Result<(), WriteError> {
    // Without an address the link is down.
    let mac = net.mac().ok_or(WriteError::Full)?;
    let sent = addresses.into_iter().try_for_each(|address| match address {
        IpAddr::V4(ip) if is_host_v4(ip) => write(net, &request(mac, ip)),
        IpAddr::V6(ip) if is_host_v6(ip) => write(net, &advertisement(mac, ip)),
        _ => Ok(()),
    });
    net.flush();
    sent
}

fn is_host_v4(ip: Ipv4Addr) -> bool {
    !ip.is_unspecified() && !ip.is_multicast() && !ip.is_broadcast() && !ip.is_loopback()
}

fn is_host_v6(ip: Ipv6Addr) -> bool {
    !ip.is_unspecified() && !ip.is_multicast() && !ip.is_loopback()
}

fn write<N: NetDevice + ?Sized, F: IntoBytes + Immutable>(
    net: &mut N,
    frame: &F,
) -> Result<(), WriteError> {
    let frame = frame.as_bytes();
    net.write(frame.len(), |bytes| {
        // They are as long as each other.
        bytes.copy_from_slice(frame);
        frame.len()
    })
}

/// The IPv4 frame.
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct Request {
    ethernet: Ethernet,
    arp: Arp,
}

/// The IPv6 frame.
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct Advertisement {
    ethernet: Ethernet,
    ip: Ipv6,
    neighbour: Neighbour,
}

/// A neighbour advertisement (RFC 4861, section 4.4) with its one option (4.6.1).
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct Neighbour {
    kind: u8,
    code: u8,
    checksum: U16,
    flags: U32,
    target: [u8; 16],
    option: u8,
    /// In units of 8 bytes.
    option_len: u8,
    mac: MacAddr,
}

const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
/// What a neighbour believes is to be replaced.
const OVERRIDE: u32 = 1 << 29;
const TARGET_LINK_LAYER_ADDRESS: u8 = 2;
/// Who gets it knows by this that no router has passed it on.
const HOP_LIMIT: u8 = 255;
const ALL_NODES: [u8; 16] = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
/// [`ALL_NODES`] on Ethernet (RFC 2464, section 7).
const ALL_NODES_MAC: MacAddr = MacAddr([0x33, 0x33, 0, 0, 0, 1]);

fn request(mac: MacAddr, ip: Ipv4Addr) -> Request {
    let ip = ip.octets();
    Request {
        ethernet: Ethernet { destination: MacAddr::BROADCAST, source: mac, kind: EtherType::ARP },
        arp: Arp::new(Arp::REQUEST, (mac, ip), (MacAddr([0; 6]), ip)),
    }
}

pub(crate) fn advertisement(mac: MacAddr, ip: Ipv6Addr) -> Advertisement {
    let source = ip.octets();
    let mut neighbour = Neighbour {
        kind: NEIGHBOUR_ADVERTISEMENT,
        code: 0,
        checksum: U16::ZERO,
        flags: U32::new(OVERRIDE),
        target: source,
        option: TARGET_LINK_LAYER_ADDRESS,
        option_len: 1,
        mac,
    };
    let len = size_of::<Neighbour>() as u16;
    let mut sum = Sum::pseudo_v6(source, ALL_NODES, Protocol::ICMPV6.0, len.into());
    sum.add(neighbour.as_bytes());
    neighbour.checksum = U16::new(sum.checksum());
    Advertisement {
        ethernet: Ethernet { destination: ALL_NODES_MAC, source: mac, kind: EtherType::IPV6 },
        ip: Ipv6 {
            version_class_flow: U32::new(6 << 28),
            payload_len: U16::new(len),
            next_header: Protocol::ICMPV6,
            hop_limit: HOP_LIMIT,
            source,
            destination: ALL_NODES,
        },
        neighbour,
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use smoltcp::phy::ChecksumCapabilities;
    use smoltcp::wire::*;

    use super::*;
    use crate::copying::{Copying, RawIo};

    const MAC: [u8; 6] = [0, 0x16, 0x3e, 1, 2, 3];

    /// Takes as many frames as there is `room` for.
    struct Io {
        sent: Vec<Vec<u8>>,
        room: usize,
    }

    impl RawIo for Io {
        fn recv(&mut self, _target: &mut [u8]) -> Option<usize> {
            None
        }

        fn send(&mut self, bytes: &[u8]) -> bool {
            let fits = self.sent.len() < self.room;
            if fits {
                self.sent.push(bytes.to_vec());
            }
            fits
        }
    }

    fn device(room: usize) -> Copying<Io> {
        Copying::new(Io { sent: Vec::new(), room }, MacAddr(MAC), 1500)
    }

    fn announced(addresses: &[&str]) -> Vec<Vec<u8>> {
        let mut device = device(usize::MAX);
        announce(&mut device, addresses.iter().map(|text| text.parse().unwrap())).unwrap();
        core::mem::take(&mut device.io().sent)
    }

    #[test]
    fn ipv4_addresses_ask_for_themselves() {
        let sent = announced(&["10.0.0.2", "192.168.7.9"]);
        for (frame, ip) in sent.iter().zip([[10, 0, 0, 2], [192, 168, 7, 9]]) {
            let frame = EthernetFrame::new_checked(frame).unwrap();
            assert_eq!(frame.dst_addr(), EthernetAddress::BROADCAST);
            assert_eq!(frame.src_addr().0, MAC);
            assert_eq!(frame.ethertype(), EthernetProtocol::Arp);
            let arp = ArpRepr::parse(&ArpPacket::new_checked(frame.payload()).unwrap()).unwrap();
            let expected = ArpRepr::EthernetIpv4 {
                operation: ArpOperation::Request,
                source_hardware_addr: EthernetAddress(MAC),
                source_protocol_addr: ip.into(),
                target_hardware_addr: EthernetAddress([0; 6]),
                target_protocol_addr: ip.into(),
            };
            assert_eq!(arp, expected);
        }
        assert_eq!(sent.len(), 2);
    }

    #[test]
    fn ipv6_addresses_are_advertised_to_all_nodes() {
        let addresses = ["fd00::2", "fe80::216:3eff:fe01:203"];
        let sent = announced(&addresses);
        for (frame, ip) in sent.iter().zip(addresses) {
            let own: Ipv6Addr = ip.parse().unwrap();
            let frame = EthernetFrame::new_checked(frame).unwrap();
            assert_eq!(frame.dst_addr().0, [0x33, 0x33, 0, 0, 0, 1]);
            assert_eq!(frame.src_addr().0, MAC);
            assert_eq!(frame.ethertype(), EthernetProtocol::Ipv6);
            let ip = Ipv6Packet::new_checked(frame.payload()).unwrap();
            let all_nodes: Ipv6Addr = "ff02::1".parse().unwrap();
            assert_eq!((ip.src_addr(), ip.dst_addr(), ip.hop_limit()), (own, all_nodes, 255));
            assert_eq!(ip.payload().len(), frame.payload().len() - 40);
            let icmp = Icmpv6Packet::new_checked(ip.payload()).unwrap();
            let checksums = ChecksumCapabilities::default();
            let message = Icmpv6Repr::parse(&own, &all_nodes, &icmp, &checksums).unwrap();
            let expected = NdiscRepr::NeighborAdvert {
                flags: NdiscNeighborFlags::OVERRIDE,
                target_addr: own,
                lladdr: Some(EthernetAddress(MAC).into()),
            };
            assert_eq!(message, Icmpv6Repr::Ndisc(expected));
        }
        assert_eq!(sent.len(), 2);
    }

    #[test]
    fn only_addresses_of_one_host_are_announced() {
        let none = ["0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255", "::", "::1", "ff02::1"];
        assert!(announced(&none).is_empty());
        assert!(announced(&[]).is_empty());
    }

    #[test]
    fn without_room_it_is_told() {
        let addresses = || (1..200).map(|last| IpAddr::from([10, 0, 0, last]));
        let mut device = device(1);
        assert_eq!(announce(&mut device, addresses()), Err(WriteError::Full));
        device.io().room = usize::MAX;
        assert_eq!(announce(&mut device, addresses()), Ok(()));
    }
}
