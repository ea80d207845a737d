//! ARP for IPv4 over Ethernet (RFC 826).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{At, EtherType, MacAddr, Source, U16};

/// An ARP message.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Arp {
    /// 1: Ethernet.
    pub hardware: U16,
    /// IPv4's ether type.
    pub protocol: EtherType,
    /// 6.
    pub hardware_len: u8,
    /// 4.
    pub protocol_len: u8,
    /// [`Arp::REQUEST`] or [`Arp::REPLY`].
    pub operation: U16,
    /// Who says it.
    pub sender: MacAddr,
    /// And its IPv4 address.
    pub sender_ip: [u8; 4],
    /// Whom it is about; in a request, zero.
    pub target: MacAddr,
    /// And its IPv4 address.
    pub target_ip: [u8; 4],
}

impl Arp {
    /// Who has the address?
    pub const REQUEST: u16 = 1;
    /// I have.
    pub const REPLY: u16 = 2;

    /// A message about IPv4 addresses on Ethernet.
    pub fn new(operation: u16, sender: (MacAddr, [u8; 4]), target: (MacAddr, [u8; 4])) -> Arp {
        Arp {
            hardware: U16::new(1),
            protocol: EtherType::IPV4,
            hardware_len: 6,
            protocol_len: 4,
            operation: U16::new(operation),
            sender: sender.0,
            sender_ip: sender.1,
            target: target.0,
            target_ip: target.1,
        }
    }
}

impl<V: Source> At<Arp, V> {
    /// The message; `None` if it is cut short or not about IPv4 on Ethernet.
    #[inline]
    pub fn open(self) -> Option<V::Ref<Arp>> {
        let (arp, _) = self.take()?;
        let shape = (arp.hardware.get(), arp.protocol, arp.hardware_len, arp.protocol_len);
        (shape == (1, EtherType::IPV4, 6, 4)).then_some(arp)
    }
}
