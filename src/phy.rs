//! A smoltcp device on top of any [`Netif`] (feature `smoltcp`).
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
//! packet is held back, not lost, and comes first the next time.
//!
//! smoltcp computes and verifies all checksums. It has no notion of a blank one, which would look
//! wrong to it: those are filled in here first, in place if nobody else reads the packet, and
//! counted.
//!
//! A ping to ourselves, over a device that hands back what it is given:
//!
//! ```
//! use std::collections::VecDeque;
//!
//! use smoltcp::iface::{Config, Interface, SocketSet, SocketStorage};
//! use smoltcp::socket::raw::{PacketBuffer, PacketMetadata, Socket};
//! use smoltcp::time::Instant;
//! use smoltcp::wire::{EthernetAddress, IpAddress, IpCidr, IpProtocol, IpVersion, Ipv4Address};
//! use smoltcp::wire::{Ipv4Packet, Ipv4Repr};
//! use xen_netfront::copying::{Copying, RawIo};
//! use xen_netfront::header::MacAddr;
//! use xen_netfront::netif::Netif;
//! use xen_netfront::phy::Device;
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
//! let netif = Copying::new(Loopback(VecDeque::new()), mac, 1500);
//! let mut device = Device::new(netif);
//!
//! let now = Instant::ZERO;
//! let config = Config::new(EthernetAddress(device.netif().mac().0).into());
//! let mut iface = Interface::new(config, &mut device, now);
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

use core::iter;

use arrayvec::ArrayVec;
use smoltcp::iface::{Interface, PollResult, SocketSet};
use smoltcp::phy::{self, DeviceCapabilities, Medium};
use smoltcp::time::Instant;

use crate::buffer::{Checksum, Packet, TxBuf, View};
use crate::header::checksum;
use crate::netif::{Linear, Netif, Permit, RxOf};
use crate::wire::{MAX_PACKET, MAX_SLOTS};

/// Packets handed up before the stack gets a turn to send.
pub const BURST: u32 = 64;

/// A [`Netif`] as smoltcp's [`phy::Device`]. `N` may be a `&mut` to a device that the caller keeps.
///
/// After a round of `Interface::poll`, call [`flush`](Device::flush); or call
/// [`poll`](Device::poll), which does both. One round handles up to [`BURST`] received packets, so
/// a flood can't keep the stack from sending; there may be more, so ask the device before sleeping.
/// A packet may also be held back: see [`is_held`](Device::is_held).
pub struct Device<N: Netif> {
    rx: Receive<N>,
    tx: Transmit<N>,
}

/// What a [`Device`] has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Packets of several slots gathered into one slice, and frames scattered over several.
    pub linearised_packets: u64,
    /// Their bytes.
    pub linearised_bytes: u64,
    /// Blank checksums filled in.
    pub checksums_filled: u64,
    /// Of these, in a copy of the packet (linearised), for somebody else read it too.
    pub checksums_filled_in_copy: u64,
    /// Blank checksums of packets too odd to fill them in. The stack will refuse them.
    pub checksums_unfillable: u64,
    /// Times that a received packet was held back because transmit was full.
    pub held_back: u64,
    /// Frames that the stack made longer than the device takes. None, from a stack that minds the
    /// MTU.
    pub too_long: u64,
}

impl<N: Netif> Device<N> {
    /// The device, with all the memory it will ever need. `netif` is up, so that its MTU is known.
    pub fn new(netif: N) -> Device<N> {
        let can = netif.capabilities();
        let block = can.block_size.max(1);
        let per_frame =
            netif.max_frame().div_ceil(block).clamp(1, can.max_fragments.clamp(1, MAX_SLOTS));
        let max = netif.max_frame().min(block.saturating_mul(per_frame));
        let linear = Linear::with_capacity(if per_frame > 1 { max } else { 0 });
        Device {
            rx: Receive {
                packet: None,
                is_done: false,
                linear: Linear::with_capacity(MAX_PACKET),
                burst: 0,
                owes_flush: false,
                stats: Stats::default(),
            },
            tx: Transmit { netif, max, per_frame, bufs: ArrayVec::new(), linear, too_long: 0 },
        }
    }

    /// Lets the stack handle what was received and send what it has, then tells the peer.
    pub fn poll(
        &mut self,
        iface: &mut Interface,
        sockets: &mut SocketSet<'_>,
        now: Instant,
    ) -> PollResult {
        let result = iface.poll(now, self, sockets);
        self.flush();
        result
    }

    /// Tells the peer of what was sent: after a round of polling. Forgotten, it happens in the
    /// next round.
    pub fn flush(&mut self) {
        self.rx.owes_flush = false;
        self.tx.netif.flush();
    }

    /// Whether a received packet waits for room to transmit: poll again when there is some.
    pub fn is_held(&self) -> bool {
        self.rx.packet.is_some() && !self.rx.is_done
    }

    /// The device below.
    pub fn netif(&self) -> &N {
        &self.tx.netif
    }

    /// The device below, to drive it. Its MTU is to stay what it was.
    pub fn netif_mut(&mut self) -> &mut N {
        &mut self.tx.netif
    }

    /// What this adaptor has done. What the device has done, [`Netif::stats`] says.
    pub fn stats(&self) -> Stats {
        Stats {
            linearised_packets: self.rx.linear.packets() + self.tx.linear.packets(),
            linearised_bytes: self.rx.linear.bytes() + self.tx.linear.bytes(),
            too_long: self.tx.too_long,
            ..self.rx.stats
        }
    }
}

impl<N: Netif> phy::Device for Device<N> {
    type RxToken<'a>
        = RxToken<'a, N>
    where
        Self: 'a;
    type TxToken<'a>
        = TxToken<'a, N>
    where
        Self: 'a;

    fn receive(&mut self, _now: Instant) -> Option<(RxToken<'_, N>, TxToken<'_, N>)> {
        if !self.rx.fetch(&mut self.tx.netif) {
            return None;
        }
        let Some(tx) = self.tx.token() else {
            self.rx.stats.held_back += 1;
            return None;
        };
        Some((RxToken { rx: &mut self.rx }, tx))
    }

    fn transmit(&mut self, _now: Instant) -> Option<TxToken<'_, N>> {
        self.tx.token()
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = self.tx.max;
        capabilities
    }
}

/// The receiving half.
struct Receive<N: Netif> {
    packet: Option<RxOf<N>>,
    /// The packet has been handed up and may go.
    is_done: bool,
    linear: Linear,
    /// Packets handed up in this round.
    burst: u32,
    /// A round has ended, and nobody has flushed.
    owes_flush: bool,
    stats: Stats,
}

impl<N: Netif> Receive<N> {
    /// Whether there is a packet to hand up.
    fn fetch(&mut self, netif: &mut N) -> bool {
        if self.is_done {
            self.is_done = false;
            if let Some(packet) = self.packet.take() {
                netif.recycle(packet);
            }
        }
        if self.packet.is_some() {
            // The last round stopped for want of room.
            netif.flush();
        } else if self.burst < BURST {
            self.burst += 1;
            netif.receive(1, |packet| self.packet = Some(packet));
            if self.is_blank() {
                self.fill_checksum();
            }
        }
        if self.packet.is_none() {
            self.burst = 0;
            if core::mem::replace(&mut self.owes_flush, true) {
                netif.flush();
            }
        }
        self.packet.is_some()
    }

    fn is_blank(&self) -> bool {
        self.packet.as_ref().is_some_and(|packet| packet.meta.checksum == Checksum::Blank)
    }

    /// Fills in a blank checksum, unless somebody else reads the packet: they must not see it
    /// change. Then it stays blank until it is copied.
    fn fill_checksum(&mut self) {
        let Some(packet) = self.packet.take() else { return };
        self.packet = Some(match packet.try_into_tx() {
            Err(shared) => shared,
            Ok(mut packet) => {
                if checksum::fill_blank(&mut packet).is_some() {
                    self.stats.checksums_filled += 1;
                } else {
                    self.stats.checksums_unfillable += 1;
                    packet.meta.checksum = Checksum::Unknown;
                }
                packet.freeze()
            }
        });
    }
}

/// A received packet. Dropped unused, the packet is not lost.
pub struct RxToken<'a, N: Netif> {
    rx: &'a mut Receive<N>,
}

impl<N: Netif> phy::RxToken for RxToken<'_, N> {
    #[inline]
    fn consume<R, F>(self, f: F) -> R
    where
        F: FnOnce(&[u8]) -> R,
    {
        let Receive { packet, is_done, linear, stats, .. } = self.rx;
        *is_done = true;
        let Some(packet) = packet else { return f(&[]) };
        let is_blank = packet.meta.checksum == Checksum::Blank;
        if let ([only], false) = (packet.fragments(), is_blank) {
            return f(only.bytes());
        }
        let bytes = linear.gather(packet);
        if is_blank {
            let mut copy = Packet::from(&mut *bytes);
            copy.meta = packet.meta;
            if checksum::fill_blank(&mut copy).is_some() {
                stats.checksums_filled += 1;
                stats.checksums_filled_in_copy += 1;
            } else {
                stats.checksums_unfillable += 1;
            }
        }
        f(bytes)
    }
}

/// The transmitting half.
struct Transmit<N: Netif> {
    netif: N,
    /// The largest frame.
    max: usize,
    /// Buffers that it needs.
    per_frame: usize,
    bufs: ArrayVec<TxBuf<N::Block>, MAX_SLOTS>,
    linear: Linear,
    too_long: u64,
}

impl<N: Netif> Transmit<N> {
    /// A token, if the largest frame is sure to have memory and room.
    #[inline]
    fn token(&mut self) -> Option<TxToken<'_, N>> {
        while self.bufs.len() < self.per_frame {
            let buf = self.netif.alloc(0)?;
            self.bufs.try_push(buf).ok()?;
        }
        Some(TxToken {
            permit: self.netif.reserve(self.per_frame)?,
            max: self.max,
            bufs: &mut self.bufs,
            linear: &mut self.linear,
            too_long: &mut self.too_long,
        })
    }
}

/// Memory and room for one frame. Dropped unused, both serve the next.
pub struct TxToken<'a, N: Netif + 'a> {
    permit: N::Permit<'a>,
    max: usize,
    bufs: &'a mut ArrayVec<TxBuf<N::Block>, MAX_SLOTS>,
    linear: &'a mut Linear,
    too_long: &'a mut u64,
}

impl<N: Netif> phy::TxToken for TxToken<'_, N> {
    /// The closure gets zeroed bytes, so that what it leaves out is not some earlier packet's.
    #[inline]
    fn consume<R, F>(mut self, len: usize, f: F) -> R
    where
        F: FnOnce(&mut [u8]) -> R,
    {
        if len > self.max {
            *self.too_long += 1;
            return f(self.linear.blank(len));
        }
        if let Some(mut buf) = self.bufs.pop() {
            if let Some(bytes) = buf.append(len) {
                bytes.fill(0);
                let result = f(bytes);
                self.permit.send_single(buf);
                return result;
            }
            self.bufs.push(buf);
        }
        let result = f(self.linear.blank(len));
        if let Some(packet) = self.linear.scatter(len, iter::from_fn(|| self.bufs.pop())) {
            self.permit.send(packet);
        }
        result
    }
}

#[cfg(test)]
mod tests;
