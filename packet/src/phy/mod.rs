//! A smoltcp device on top of any [`NetDevice`] (feature `smoltcp`).
//!
//! The stack reads received bytes where they are, and writes straight into the memory that is
//! sent:
//!
//! ```text
//!  receive   one slot        the closure sees the slot's bytes        no copy
//!            several slots   gathered in one slice, then as above     one copy, counted
//!  transmit  ≤ one block     the closure fills the block to be sent   no copy
//!            more            filled in one slice, then scattered      one copy, counted
//! ```
//!
//! A transmit token stands for buffers already taken and room already reserved, so using it can't
//! fail. smoltcp wants one with every received packet, to answer it; when transmit is full, the
//! packet is held back, not lost, and comes first the next time. If it is memory that is wanting, what is
//! held back is copied, and its block goes home: it may be the one that is wanted.
//!
//! # Checksums
//!
//! smoltcp has one switch for each protocol, and no notion of a blank checksum. Those of TCP and
//! UDP are this adaptor's:
//!
//! | | TCP, UDP | ICMP | IPv4 header |
//! |---|---|---|---|
//! | received, unknown | verified here; wrong: dropped and counted | the same, and smoltcp verifies | smoltcp verifies |
//! | received, complete or blank | handed up as it is: the data is known to be good | smoltcp verifies | smoltcp verifies |
//! | sent | left blank for the device | smoltcp computes | smoltcp computes |
//!
//! A device whose peer takes no blank checksum of that IP version, or none any more, fills it in,
//! as [`NetDevice::send`] promises: nothing here depends on when a peer comes and goes. What a raw
//! socket has summed itself, stays. Fragments of an IPv4 datagram can't be left blank, so smoltcp
//! sends datagrams of UDP that need fragments without a checksum, which RFC 768 allows.
//!
//! # Fragments
//!
//! Datagrams that come in fragments, over IPv4 or IPv6, are put together here, four at a time: the
//! stack sees one packet, of up to 65,535 bytes of data, whose checksum has been verified, whatever is
//! known of the fragments. What is lost shuts out nobody: a datagram that begins takes the place of
//! the one that is worth least, and none is waited for longer than 15 s. A place has memory of 72 KB,
//! taken when it is first needed and kept. smoltcp's own reassembly never has anything to do, so it
//! needs no feature, no buffers and no time-out. A packet over IPv6 that has a fragment header and is
//! whole (RFC 6946) goes up without it. Other extension headers in front of it are nothing that smoltcp
//! takes: such fragments are dropped, such a whole packet goes up as it is.
//!
//! What is sent above the MTU, smoltcp cuts over IPv4, if it has its feature `proto-ipv4-fragmentation`
//! and a buffer that is large enough (`fragmentation-buffer-size-65536`; 1,500 bytes unless a feature
//! says more). Over IPv6 smoltcp 0.14 drops it without a word, before this adaptor sees anything of
//! it: a ping of more than the MTU less 48 bytes of headers is received whole, and not answered.
//!
//! # Who asks whether an address is free
//!
//! ARP probes from 0.0.0.0 (RFC 5227) and neighbour solicitations from :: (RFC 4862) smoltcp leaves
//! unread. They are answered here for the addresses that the interface had when it was last handed to
//! [`poll`](Device::poll) or [`poll_ingress`](Device::poll_ingress): one answer to each, and no more
//! of them in a round than there are packets. Who calls `Interface::poll` itself answers none.
//!
//! # Tags
//!
//! A frame with VLAN tags that all have the number 0 is in no VLAN: it has them for its priority, and
//! goes up without them, its 12 bytes of addresses moved in place if nobody else reads it, else gathered. Frames of
//! a VLAN go up as they are, and smoltcp ignores them.
//!
//! # Large packets
//!
//! A received GSO packet goes up as it is, up to 65,535 bytes of IP in one slice. Of what smoltcp sends,
//! consecutive pieces of a TCP connection leave as one packet where the device's peer takes GSO
//! ([`Coalescer`]), without a copy. They wait until the end of the round, in which
//! [`flush`](Device::flush) is called; with a peer that takes none, nothing ever waits. A piece is a
//! segment; over IPv4 it is as much as a block holds (smoltcp's `segmentation-offload`, which in 0.14
//! loses packets over IPv6), if the device's peer takes GSO when the interface is made. Should it take
//! none later, such a piece is cut here.
//!
//! # Windows
//!
//! A socket that receives and sends in bulk at once should have a receive buffer of 65,535 bytes at
//! most: its window needs no scaling then. Scaled windows are rounded down, so that their edge moves
//! back and forth by a few bytes; a peer that has sent up to the highest edge numbers its
//! acknowledgements beyond the one that counts, and smoltcp 0.14, with its own window shut, leaves
//! these unread (RFC 9293, 3.10.7.4, would have it look). With both directions full, that is the end.
//! Who only receives in bulk, or only sends, may have larger ones.
//!
//! # embassy-net
//!
//! With the feature `embassy` a [`Device`] is an `embassy_net_driver::Driver`, and goes to
//! `embassy_net::new` as it is, whichever smoltcp embassy-net has. The stack's task then drives the
//! device too: it calls [`NetDevice::service`] and is woken when that is due, by embassy's clock, when
//! packets come, and when there is room again. What else is to wake it, a xenstore watch say, wakes the
//! device's [`Wake`](crate::Wake). Each packet is shown to the peer as it is sent, so none waits to leave
//! together with others. The stack asks for the MTU once, when it is made, and never follows: make it when the
//! link is up. An address that changes it follows. Questions whether an address is free are not answered,
//! for the stack's addresses are not known here.
//!
//! # An example
//!
//! A ping to ourselves, over a device that hands back what it is given:
//!
//! ```
//! use std::collections::VecDeque;
//!
//! use smoltcp::iface::{SocketSet, SocketStorage};
//! use smoltcp::socket::raw::{PacketBuffer, PacketMetadata, Socket};
//! use smoltcp::time::Instant;
//! use smoltcp::wire::{IpAddress, IpCidr, IpProtocol, IpVersion};
//! use smoltcp::wire::{Ipv4Address, Ipv4Packet, Ipv4Repr};
//! use packet_views::copying::{Copying, RawIo};
//! use packet_views::header::MacAddr;
//! use packet_views::phy::Device;
//!
//! struct Loopback(VecDeque<Vec<u8>>);
//!
//! impl RawIo for Loopback {
//!     fn recv(&mut self, target: &mut [u8]) -> Option<usize> {
//!         let frame = self.0.pop_front()?;
//!         target.get_mut(..frame.len())?.copy_from_slice(&frame);
//!         Some(frame.len())
//!     }
//!
//!     fn send(&mut self, bytes: &[u8]) -> bool {
//!         self.0.push_back(bytes.to_vec());
//!         true
//!     }
//! }
//!
//! // From here on it does not matter which device it is.
//! let mac = MacAddr([2, 0, 0, 0, 0, 1]);
//! let net = Copying::new(Loopback(VecDeque::new()), mac, 1500);
//! let mut device = Device::new(net);
//!
//! let now = Instant::ZERO;
//! let seed = 4; // of chance numbers: another one each time
//! let mut iface = device.interface(seed, now);
//! let own = Ipv4Address::new(10, 0, 0, 1);
//! iface.update_ip_addrs(|addrs| addrs.push(IpCidr::new(IpAddress::Ipv4(own), 24)).unwrap());
//!
//! // Protocol 253 is for experiments (RFC 3692).
//! let protocol = IpProtocol::Unknown(253);
//! let buffer = || PacketBuffer::new(vec![PacketMetadata::EMPTY; 4], vec![0; 4096]);
//! let mut storage = [SocketStorage::EMPTY];
//! let mut sockets = SocketSet::new(&mut storage[..]);
//! let socket = Socket::new(Some(IpVersion::Ipv4), Some(protocol), buffer(), buffer());
//! let socket = sockets.add(socket);
//!
//! let header = Ipv4Repr {
//!     src_addr: own, dst_addr: own, next_header: protocol, payload_len: 5, hop_limit: 64,
//! };
//! let packet = sockets.get_mut::<Socket>(socket).send(header.buffer_len() + 5).unwrap();
//! header.emit(&mut Ipv4Packet::new_unchecked(&mut *packet), &Default::default());
//! packet[header.buffer_len()..].copy_from_slice(b"hello");
//!
//! for millis in 0..10 {
//!     device.poll(&mut iface, &mut sockets, Instant::from_millis(millis));
//! }
//! let received = sockets.get_mut::<Socket>(socket).recv().unwrap();
//! assert!(received.ends_with(b"hello"));
//! ```

#[cfg(feature = "embassy")]
mod embassy;
mod follow;
mod linear;
mod probe;
mod reassembly;
mod receive;
impl<N: NetDevice> core::fmt::Debug for Device<N> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Device")
            .field("is_held", &self.is_held())
            .field("max_frame", &self.shown.max)
            .field("counters", &self.counters())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
mod transmit;

use smoltcp::iface::{Interface, PollIngressSingleResult, PollResult, SocketSet};
use smoltcp::phy::{self, Checksum, DeviceCapabilities, Medium};
use smoltcp::time::{Duration, Instant};

use self::probe::Own;
use self::receive::Receive;
use self::transmit::{Shape, Transmit};
use crate::device::NetDevice;
#[cfg(doc)]
use crate::offload::Coalescer;
use crate::offload::Counters as CoalescerCounters;

#[cfg(feature = "embassy")]
pub use self::embassy::FlushingTxToken;
pub use self::receive::RxToken;
pub use self::transmit::TxToken;

/// Packets handed up before the stack gets a turn to send.
pub const BURST: u32 = 64;

/// How soon to look again when the stack wants to send and there is no room: an event should come
/// first.
const NO_ROOM: Duration = Duration::from_millis(100);

/// A [`NetDevice`] as smoltcp's `phy::Device`. `N` may be a `&mut` to a device that the caller keeps.
///
/// After a round of `Interface::poll`, call [`flush`](Device::flush); or call
/// [`poll`](Device::poll), which does both. One round handles up to [`BURST`] received packets, so
/// a flood can't keep the stack from sending; there may be more, so ask the device before sleeping.
/// A packet may also be held back: see [`is_held`](Device::is_held).
pub struct Device<N: NetDevice> {
    rx: Receive<N>,
    tx: Transmit<N>,
    /// What the interface believes that it may fill.
    shown: Shape,
    /// The interface's addresses, when it was seen last.
    own: Own,
}

/// What a [`Device`] has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Packets of several slots gathered into one slice, and frames scattered over several.
    pub linearised_packets: u64,
    /// Their bytes.
    pub linearised_bytes: u64,
    /// Received packets dropped because a checksum that had to be verified is wrong, or headers
    /// in front of it are malformed.
    pub checksums_wrong: u64,
    /// Checksums of sent frames left blank for the device.
    pub checksums_left: u64,
    /// Frames that the stack sent together with others, as fewer packets.
    pub coalesced: CoalescerCounters,
    /// Times that a received packet was held back because transmit was full.
    pub held_back: u64,
    /// Times that one was held back for want of memory to answer it: copied, so that it holds none
    /// itself.
    pub held_without_memory: u64,
    /// Frames that the stack made longer than the device takes. None, from a stack that minds the
    /// MTU.
    pub too_long: u64,
    /// Datagrams put together of fragments.
    pub reassembled: u64,
    /// Fragments dropped: malformed, or of a datagram that never became whole, contradicts itself or
    /// had to make place for another.
    pub fragments_dropped: u64,
    /// Answers to those who were about to take an address of the interface's.
    pub probes_answered: u64,
    /// Packets that waited while the device changed, and found no room on the new one.
    pub lost: u64,
}

impl<N: NetDevice> Device<N> {
    /// The device, with all the memory that it will need as long as the MTU does not grow and nothing
    /// comes in fragments.
    ///
    /// What it says of itself is what `net` says now. A device that is not up yet, or goes down and comes
    /// back, may have another MTU or another address then: see [`follow`](Device::follow).
    pub fn new(net: N) -> Device<N> {
        let tx = Transmit::new(net);
        Device { rx: Receive::new(), shown: tx.last_shape(), own: Own::default(), tx }
    }

    /// Lets the stack handle what was received and send what it has, until the device is full, then
    /// tells the peer. Whether the state of a socket may have changed.
    ///
    /// Who answers what is received does better with the two halves of it:
    /// [`poll_ingress`](Device::poll_ingress), then the sockets' owners, then
    /// [`poll_egress`](Device::poll_egress). Then an answer leaves at once, and what the owners have
    /// read need not be acknowledged twice, first as received and then as room in the window.
    pub fn poll(
        &mut self,
        iface: &mut Interface,
        sockets: &mut SocketSet<'_>,
        now: impl Into<Instant>,
    ) -> PollResult {
        let now = now.into();
        let received = self.poll_ingress(iface, sockets, now);
        let sent = self.poll_egress(iface, sockets, now);
        if received == PollResult::None { sent } else { received }
    }

    /// Lets the stack handle what was received. Whether the state of a socket may have changed.
    pub fn poll_ingress(
        &mut self,
        iface: &mut Interface,
        sockets: &mut SocketSet<'_>,
        now: impl Into<Instant>,
    ) -> PollResult {
        let now = now.into();
        let mut result = PollResult::None;
        self.own.see(iface);
        iface.poll_maintenance(now);
        loop {
            match iface.poll_ingress_single(now, self, sockets) {
                PollIngressSingleResult::None => return result,
                PollIngressSingleResult::PacketProcessed => {}
                PollIngressSingleResult::SocketStateChanged => {
                    result = PollResult::SocketStateChanged;
                }
            }
        }
    }

    /// Lets the stack send what it has, until the device is full, then tells the peer. Whether the
    /// state of a socket may have changed.
    pub fn poll_egress(
        &mut self,
        iface: &mut Interface,
        sockets: &mut SocketSet<'_>,
        now: impl Into<Instant>,
    ) -> PollResult {
        let now = now.into();
        let mut result = PollResult::None;
        // No room comes back before the peer is told.
        while iface.poll_egress(now, self, sockets) != PollResult::None {
            result = PollResult::SocketStateChanged;
        }
        self.flush();
        result
    }

    /// When to poll again though nothing happens: `now` if the stack has something to send, `None`
    /// if it waits for nothing.
    ///
    /// `Interface::poll_at` says `now` as long as there is no room for what it has to send; who
    /// sleeps until then never sleeps.
    pub fn poll_at(
        &mut self,
        iface: &mut Interface,
        sockets: &SocketSet<'_>,
        now: impl Into<Instant>,
    ) -> Option<Instant> {
        let now = now.into();
        let at = iface.poll_at(now, sockets)?;
        let stuck = at <= now && self.tx.token().is_err();
        Some(if stuck { now + NO_ROOM } else { at })
    }

    /// Sends what waits for more to come, and tells the peer of what was sent: after a round of
    /// polling. Forgotten, it happens in the next round.
    pub fn flush(&mut self) {
        self.rx.flushed();
        self.tx.flush();
        self.rx.before_waiting(&mut self.tx);
    }

    /// Whether a received packet, or an answer to one, waits for room to transmit: poll again when there is some.
    pub fn is_held(&self) -> bool {
        self.rx.is_held()
    }

    /// The device below.
    pub fn inner(&self) -> &N {
        self.tx.inner()
    }

    /// The device below, to drive it.
    pub fn inner_mut(&mut self) -> &mut N {
        self.tx.inner_mut()
    }

    /// What this adaptor has done. What the device has done, [`NetDevice::totals`] says.
    pub fn counters(&self) -> Counters {
        let mut counters = Counters::default();
        self.rx.count(&mut counters);
        self.tx.count(&mut counters);
        counters
    }
}

impl<N: NetDevice> phy::Device for Device<N> {
    type RxToken<'a>
        = RxToken<'a, N>
    where
        Self: 'a;
    type TxToken<'a>
        = TxToken<'a, N>
    where
        Self: 'a;

    fn receive(&mut self, now: Instant) -> Option<(RxToken<'_, N>, TxToken<'_, N>)> {
        if !self.rx.fetch(&mut self.tx, &self.own, now) {
            return None;
        }
        match self.tx.token() {
            Ok(tx) => Some((self.rx.token(), tx)),
            Err(want) => {
                self.rx.hold(want);
                None
            }
        }
    }

    fn transmit(&mut self, _now: Instant) -> Option<TxToken<'_, N>> {
        self.tx.token().ok()
    }

    /// The stack asks once, when an `Interface` is made: see [`follow`](Device::follow).
    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = self.tx.last_shape().max;
        // Verified and left blank here.
        capabilities.checksum.tcp = Checksum::None;
        capabilities.checksum.udp = Checksum::None;
        // smoltcp 0.14 drops what is larger than the MTU over IPv6.
        capabilities.segmentation.tcpv4 = self.tx.last_shape().large;
        capabilities
    }
}
