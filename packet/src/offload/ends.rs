//! Which TCP flow a packet is of: between which ends.
//!
//! ```text
//!  | Ethernet | VLAN | IPv4 ...  source destination | TCP  source destination ...
//!             | tag? | or IPv6   `── addresses ───' |      `───── ports ────'
//! ```
//!
//! Packets of one flow stay in order; others may overtake each other. So what can't be told counts
//! as of any flow.

use crate::header::{EtherType, Layout, Pieces, Protocol};

/// What a packet's headers say about its flow.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Ends {
    /// It is TCP, with these addresses, padded, and ports.
    Tcp { addresses: [[u8; 16]; 2], ports: [u8; 4] },
    /// It is none.
    Other,
    /// It may be anything: a fragment of an IP packet, say.
    Unclear,
}

impl Ends {
    /// Reads the headers at the start of a packet.
    #[inline]
    pub(super) fn of<P: Pieces + ?Sized>(packet: &P) -> Ends {
        Ends::read(packet).unwrap_or(Ends::Unclear)
    }

    /// Whether packets of these two may be packets of one flow.
    #[inline]
    pub(super) fn may_be(self, other: Ends) -> bool {
        match (self, other) {
            (Ends::Other, _) | (_, Ends::Other) => false,
            (Ends::Unclear, _) | (_, Ends::Unclear) => true,
            (Ends::Tcp { .. }, Ends::Tcp { .. }) => self == other,
        }
    }

    #[inline]
    fn read<P: Pieces + ?Sized>(packet: &P) -> Option<Ends> {
        // How long the packet is does not matter here.
        let layout = Layout::at_start(packet, usize::MAX).ok()?;
        let Some(ip) = layout.ip else {
            return (layout.kind == EtherType::ARP).then_some(Ends::Other);
        };
        match ip.protocol {
            _ if ip.part.is_some() => None,
            Protocol::TCP => {
                let (addresses, ports) = (layout.addresses(packet)?, ip.ports(packet)?);
                Some(Ends::Tcp { addresses, ports })
            }
            Protocol::UDP | Protocol::ICMP | Protocol::ICMPV6 => Some(Ends::Other),
            _ => None,
        }
    }
}
