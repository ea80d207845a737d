//! Answers echo requests of ICMP (RFC 792) and ICMPv6 (RFC 4443).
//!
//! smoltcp could do it alone, but for fragmented ones: it sums an ICMP packet over the whole buffer
//! that it cuts fragments from, with whatever an earlier, longer packet has left behind there.
//! Packets of a raw socket it takes as they are.

use alloc::vec;

use packet_views::header::{U16, checksum};
use smoltcp::iface::{Interface, SocketHandle, SocketSet};
use smoltcp::socket::raw::{PacketBuffer, PacketMetadata, Socket};
use smoltcp::wire::{
    Icmpv4Message, Icmpv4Packet, Icmpv6Message, Icmpv6Packet, IpProtocol, IpVersion, Ipv4Packet,
    Ipv6Packet,
};

use super::large::Large;

const HOP_LIMIT: u8 = 64;
/// Requests that may wait, as many as a ring may bring.
const WAITING: usize = 256;
/// The largest IPv4 packet.
const LARGEST: usize = 1 << 16;
/// What is too long to be answered over IPv6 need not wait long.
const WAITING_V6: usize = 64 << 10;

/// The sockets that echo requests come to.
pub struct Ping {
    v4: SocketHandle,
    v6: SocketHandle,
    answered: u64,
}

impl Ping {
    /// Adds its sockets.
    pub fn new(sockets: &mut SocketSet<'static>) -> Ping {
        let mut socket = |version, protocol, receive, transmit| {
            let buffer =
                |size| PacketBuffer::new(vec![PacketMetadata::EMPTY; WAITING], vec![0; size]);
            sockets.add(Socket::new(
                Some(version),
                Some(protocol),
                buffer(receive),
                buffer(transmit),
            ))
        };
        Ping {
            v4: socket(IpVersion::Ipv4, IpProtocol::Icmp, 2 * LARGEST, LARGEST),
            v6: socket(IpVersion::Ipv6, IpProtocol::Icmpv6, WAITING_V6, WAITING_V6),
            answered: 0,
        }
    }

    /// Whether an answer waits to be sent.
    pub fn is_sending(&self, sockets: &SocketSet<'_>) -> bool {
        sockets.get::<Socket<'_>>(self.v4).send_queue() > 0
    }

    /// How many requests have been answered.
    pub fn answered(&self) -> u64 {
        self.answered
    }

    /// Answers what has come; whether there was anything to answer. `scratch` holds the largest
    /// packet.
    pub fn turn(
        &mut self,
        sockets: &mut SocketSet<'_>,
        iface: &Interface,
        large: &mut Large,
        scratch: &mut [u8],
    ) -> bool {
        let before = self.answered;
        for (handle, answer) in [(self.v4, answer_v4 as Answer), (self.v6, answer_v6 as Answer)] {
            let socket = sockets.get_mut::<Socket<'_>>(handle);
            while let Ok(request) = socket.peek() {
                let len = request.len();
                let Some(copy) = scratch.get_mut(..len) else { break };
                copy.copy_from_slice(request);
                // Over IPv6 nobody cuts it.
                let goes = |packet: &&[u8]| handle == self.v4 || large.is_whole(packet.len());
                if let Some(packet) = answer(iface, copy).filter(goes) {
                    let room = socket.can_send() && large.admits(packet.len());
                    if !room || socket.send_slice(packet).is_err() {
                        break;
                    }
                    self.answered += 1;
                }
                // It is there, for we have seen it.
                let _ = socket.recv();
            }
        }
        self.answered > before
    }
}

/// Makes a request its answer, if it is one and meant for us.
type Answer = for<'a> fn(&Interface, &'a mut [u8]) -> Option<&'a [u8]>;

fn answer_v4<'a>(iface: &Interface, bytes: &'a mut [u8]) -> Option<&'a [u8]> {
    let whole = bytes.len();
    let mut ip = Ipv4Packet::new_checked(&mut *bytes).ok()?;
    let (from, to) = (ip.src_addr(), ip.dst_addr());
    let own = iface.has_ip_addr(to) && !from.is_unspecified();
    if !own || usize::from(ip.total_len()) != whole {
        return None;
    }
    let mut icmp = Icmpv4Packet::new_checked(ip.payload_mut()).ok()?;
    let request = icmp.msg_type() == Icmpv4Message::EchoRequest && icmp.msg_code() == 0;
    if !request || !Icmpv4Packet::new_unchecked(icmp.as_ref()).verify_checksum() {
        return None;
    }
    icmp.set_msg_type(Icmpv4Message::EchoReply);
    let sum = with_type(icmp.checksum(), Icmpv4Message::EchoRequest.into(), icmp.msg_type().into());
    icmp.set_checksum(sum);
    ip.set_src_addr(to);
    ip.set_dst_addr(from);
    ip.set_hop_limit(HOP_LIMIT);
    ip.fill_checksum();
    Some(bytes)
}

fn answer_v6<'a>(iface: &Interface, bytes: &'a mut [u8]) -> Option<&'a [u8]> {
    let mut ip = Ipv6Packet::new_checked(&mut *bytes).ok()?;
    let (from, to) = (ip.src_addr(), ip.dst_addr());
    if !iface.has_ip_addr(to) || ip.next_header() != IpProtocol::Icmpv6 {
        return None;
    }
    let mut icmp = Icmpv6Packet::new_checked(ip.payload_mut()).ok()?;
    let request = icmp.msg_type() == Icmpv6Message::EchoRequest && icmp.msg_code() == 0;
    if !request || !icmp.verify_checksum(&from, &to) {
        return None;
    }
    icmp.set_msg_type(Icmpv6Message::EchoReply);
    // Exchanging the addresses does not change their sum.
    let sum = with_type(icmp.checksum(), Icmpv6Message::EchoRequest.into(), icmp.msg_type().into());
    icmp.set_checksum(sum);
    ip.set_src_addr(to);
    ip.set_dst_addr(from);
    ip.set_hop_limit(HOP_LIMIT);
    Some(bytes)
}

/// The checksum of a packet whose type changes; its code is 0.
fn with_type(sum: u16, old: u8, new: u8) -> u16 {
    let mut field = U16::new(sum);
    checksum::update(&mut field, &[old, 0], &[new, 0]);
    field.get()
}
