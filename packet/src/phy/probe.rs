//! Questions from somebody who has no address yet.
//!
//! Who is about to take an address asks first whether it is free, and can't say who asks: an ARP probe
//! (RFC 5227, section 2.1.1) has the sender address 0.0.0.0, a neighbour solicitation for duplicate
//! address detection (RFC 4862, section 5.4.2) the source ::. smoltcp leaves both unread, and the
//! address that is its own would be taken. So they are answered here.

use arrayvec::ArrayVec;
use smoltcp::config::IFACE_MAX_ADDR_COUNT;
use smoltcp::iface::Interface;
use smoltcp::wire::{IpAddress, IpCidr, Ipv4Address, Ipv6Address};
use zerocopy::{Immutable, IntoBytes, Unaligned};

use crate::announce::{self, Advertisement};
use crate::buffer::AnyPacket;
use crate::header::checksum::{Verdict, verify};
use crate::header::{Arp, At, EtherType, Ethernet, Icmp, Ipv6, Layout, MacAddr, Network};
use crate::header::{Pieces, Transport};

/// The addresses of an interface that has been seen.
#[derive(Default)]
pub(super) struct Own {
    mac: Option<MacAddr>,
    ips: ArrayVec<IpCidr, IFACE_MAX_ADDR_COUNT>,
}

impl Own {
    /// They are this interface's now.
    pub(super) fn see(&mut self, iface: &Interface) {
        self.mac = iface.hardware_addr().as_bytes().try_into().ok().map(MacAddr);
        self.ips.clear();
        // There is room for as many as an interface may have.
        let _ = self.ips.try_extend_from_slice(iface.ip_addrs());
    }

    /// Whether a frame to this station may be for the interface.
    pub(super) fn is_for(&self, station: MacAddr) -> bool {
        station.is_group() || self.mac.is_none_or(|mac| mac == station)
    }

    fn has(&self, ip: impl Into<IpAddress>) -> bool {
        let ip = ip.into();
        self.ips.iter().any(|cidr| cidr.address() == ip)
    }
}

/// That an address is taken: a frame.
pub(super) enum Taken {
    /// To who has asked, as to anybody who asks for a neighbour.
    V4(Reply),
    /// To all nodes: who has asked has no address (RFC 4861, section 7.2.4).
    V6(Advertisement),
}

#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct Reply {
    ethernet: Ethernet,
    arp: Arp,
}

impl Taken {
    /// The answer to a frame, if it asks whether one of our addresses is free.
    pub(super) fn answer_to(frame: &[u8], layout: &Layout, own: &Own) -> Option<Taken> {
        let mac = own.mac?;
        let (ethernet, network) = At::new(frame).open()?;
        // What we have asked ourselves may come back.
        if ethernet.source == mac || !own.is_for(ethernet.destination) {
            return None;
        }
        match network {
            Network::Arp(arp) => {
                let arp = arp.open()?;
                let is_probe = arp.operation.get() == Arp::REQUEST && arp.sender_ip == [0; 4];
                let is_ours = own.has(Ipv4Address::from(arp.target_ip));
                let is_from_one = !arp.sender.is_group() && arp.sender != mac;
                (is_probe && is_ours && is_from_one).then(|| {
                    let (to, ip) = (arp.sender, arp.target_ip);
                    let kind = EtherType::ARP;
                    Taken::V4(Reply {
                        ethernet: Ethernet { destination: to, source: mac, kind },
                        arp: Arp::new(Arp::REPLY, (mac, ip), (to, [0; 4])),
                    })
                })
            }
            Network::Ipv6(ip) => {
                let target = Ipv6Address::from(solicited(frame, layout, ip)?);
                own.has(target).then(|| Taken::V6(announce::advertisement(mac, target)))
            }
            _ => None,
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Taken::V4(reply) => reply.as_bytes(),
            Taken::V6(advertisement) => advertisement.as_bytes(),
        }
    }
}

/// Which address a neighbour solicitation from :: is about, if it is a valid one (RFC 4861,
/// section 7.1.1).
fn solicited(frame: &[u8], layout: &Layout, ip: At<Ipv6, &[u8]>) -> Option<[u8; 16]> {
    const SOLICITATION: u8 = 135;
    /// No router has passed it on.
    const HOP_LIMIT: u8 = 255;
    let (header, transport) = ip.open()?;
    let Transport::Icmpv6(icmp) = transport else { return None };
    let (icmp, _) = icmp.open()?;
    let is_solicitation = (icmp.kind, icmp.code) == (SOLICITATION, 0);
    if header.source != [0; 16] || header.hop_limit != HOP_LIMIT || !is_solicitation {
        return None;
    }
    let target: [u8; 16] = frame.read(layout.ip?.transport + size_of::<Icmp>())?;
    // The group that those with the same last three bytes are in (RFC 4291, section 2.7.1).
    let mut group = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0, 0, 0];
    group.last_chunk_mut::<3>()?.copy_from_slice(target.last_chunk::<3>()?);
    let is_right = verify(&AnyPacket::from(frame)) == Verdict::Right;
    (header.destination == group && is_right).then_some(target)
}
