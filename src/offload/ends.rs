//! Which TCP flow a packet is of: between which ends.
//!
//! ```text
//!  | Ethernet | VLAN | IPv4 ...  source destination | TCP  source destination ...
//!             | tag? | or IPv6   `── addresses ───' |      `───── ports ────'
//! ```
//!
//! Packets of one flow stay in order; others may overtake each other. So what can't be told counts
//! as of any flow.

use zerocopy::FromBytes;

use super::layout::VLAN_TAG;
use crate::header::{ETHERNET_HEADER, EtherType, Ethernet, Ipv4, Ipv6, Protocol, Tcp};

/// What a packet's first bytes say about its flow.
#[derive(Clone, Copy)]
pub(super) enum Ends<'a> {
    /// It is TCP, with these addresses and ports.
    Tcp { addresses: &'a [u8], ports: &'a [u8] },
    /// It is none.
    Other,
    /// It may be anything: a fragment of an IP packet, say.
    Unclear,
}

impl<'a> Ends<'a> {
    /// Reads the headers at the start of a packet.
    #[inline]
    pub(super) fn of(head: &'a [u8]) -> Ends<'a> {
        Ends::read(head).unwrap_or(Ends::Unclear)
    }

    /// Whether packets of these two may be packets of one flow.
    #[inline]
    pub(super) fn may_be(self, other: Ends<'_>) -> bool {
        match (self, other) {
            (Ends::Other, _) | (_, Ends::Other) => false,
            (Ends::Unclear, _) | (_, Ends::Unclear) => true,
            (
                Ends::Tcp { addresses, ports },
                Ends::Tcp { addresses: other_addresses, ports: other_ports },
            ) => ports == other_ports && addresses == other_addresses,
        }
    }

    #[inline]
    fn read(head: &'a [u8]) -> Option<Ends<'a>> {
        let (ethernet, rest) = Ethernet::ref_from_prefix(head).ok()?;
        let (mut kind, mut ip) = (ethernet.kind, ETHERNET_HEADER);
        if kind == EtherType::VLAN {
            (kind, _) = EtherType::read_from_prefix(rest.get(VLAN_TAG - 2..)?).ok()?;
            ip += VLAN_TAG;
        }
        let network = head.get(ip..)?;
        let (protocol, header, addresses) = match kind {
            EtherType::IPV4 => {
                let (ip, _) = Ipv4::ref_from_prefix(network).ok()?;
                if ip.is_fragment() {
                    return None;
                }
                let addresses = core::mem::offset_of!(Ipv4, source)..size_of::<Ipv4>();
                (ip.protocol, ip.header_len(), addresses)
            }
            EtherType::IPV6 => {
                let (ip, _) = Ipv6::ref_from_prefix(network).ok()?;
                let addresses = core::mem::offset_of!(Ipv6, source)..size_of::<Ipv6>();
                (ip.next_header, size_of::<Ipv6>(), addresses)
            }
            EtherType::ARP => return Some(Ends::Other),
            _ => return None,
        };
        match protocol {
            Protocol::TCP => {
                let ports = network.get(header..header + core::mem::offset_of!(Tcp, sequence))?;
                Some(Ends::Tcp { addresses: network.get(addresses)?, ports })
            }
            Protocol::UDP | Protocol::ICMP | Protocol::ICMPV6 => Some(Ends::Other),
            _ => None,
        }
    }
}
