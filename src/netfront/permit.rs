//! Room on the transmit ring, reserved; and the frontend as a [`Netif`].

use xen_grant::{Frame, FramePool};

use super::connect::Queue;
use super::stats::Stats;
use super::tx::TxQueue;
use super::{Link, Netfront};
use crate::buffer::{TxBuf, TxPacket};
use crate::header::checksum::fill_blank;
use crate::header::{ETHERNET_HEADER, MacAddr};
use crate::netif::{self, Capabilities, Linear, Netif, Permit, RxOf};
use crate::platform::{Platform, Port};
use crate::store::Store;
use crate::wire::MAX_PACKET;
use crate::xenbus::BackendOffer;

/// Ethernet header with a VLAN tag, which netif does not count into the MTU.
const LINK_HEADER: usize = 18;

/// Room on the ring for one packet, so that sending it can't fail.
#[must_use = "a permit that is not used reserves nothing"]
pub struct TxPermit<'a> {
    tx: &'a mut TxQueue,
    stats: &'a mut Stats,
    slots: usize,
    largest: usize,
}

impl<'a> TxPermit<'a> {
    #[inline]
    pub(super) fn new(
        tx: &'a mut TxQueue,
        stats: &'a mut Stats,
        offer: &BackendOffer,
        slots: usize,
    ) -> TxPermit<'a> {
        TxPermit { tx, stats, slots, largest: largest(offer) }
    }

    /// Puts the packet on the ring. The backend learns of it with the next
    /// [`flush`](Netfront::flush).
    ///
    /// A packet that can't be sent (shorter than an Ethernet header or too long, more fragments than
    /// reserved or than the backend takes) is dropped and counted. A blank checksum is filled in:
    /// offload has not been agreed on with any backend.
    #[inline]
    pub fn send(&mut self, mut packet: TxPacket) {
        let fragments = packet.fragments().len();
        let size: usize = packet.fragments().iter().map(TxBuf::len).sum();
        let drops = &mut self.stats.tx_drops;
        if fragments > self.slots {
            drops.too_many_slots += 1;
        } else if packet.meta.gso.is_some() {
            drops.no_gso += 1;
        } else if !(ETHERNET_HEADER..=self.largest).contains(&size) {
            drops.bad_length += 1;
        } else if fill_blank(&mut packet).is_none() {
            drops.bad_checksum += 1;
        } else {
            self.tx.send(packet, size as u16, self.stats);
        }
    }

    /// As [`send`](TxPermit::send), for a packet of one fragment and nothing known about it.
    #[inline]
    pub fn send_single(&mut self, buf: TxBuf) {
        let size = buf.len();
        if !(ETHERNET_HEADER..=self.largest).contains(&size) || self.slots == 0 {
            self.stats.tx_drops.bad_length += 1;
        } else {
            // Room was reserved.
            let _sent = self.tx.send_single(buf, size as u16, self.stats);
        }
    }
}

/// The most bytes of a packet, Ethernet header included.
#[inline]
fn largest(offer: &BackendOffer) -> usize {
    (usize::from(offer.mtu) + LINK_HEADER).min(MAX_PACKET)
}

/// A burst of packets of one fragment each. What is the same for all of them is looked up once;
/// the backend learns of them when the batch is dropped.
///
/// ```no_run
/// # use xen_netfront::{netfront::Netfront, platform::Platform, store::Store};
/// # fn example<P: Platform, S: Store>(net: &mut Netfront<P, S>, frames: &[&[u8]]) -> Option<()> {
/// let mut batch = net.batch()?;
/// for frame in frames {
///     let mut buf = batch.buffer(0)?;
///     buf.append(frame.len())?.copy_from_slice(frame);
///     batch.send(buf).ok()?; // full: try again after `complete_tx`
/// }
/// # Some(())
/// # }
/// ```
pub struct TxBatch<'a, P: Platform> {
    tx: &'a mut TxQueue,
    stats: &'a mut Stats,
    largest: usize,
    pool: &'a FramePool,
    platform: &'a P,
    port: Port,
}

impl<'a, P: Platform> TxBatch<'a, P> {
    #[inline]
    pub(super) fn new(
        queue: &'a mut Queue,
        stats: &'a mut Stats,
        offer: &BackendOffer,
        pool: &'a FramePool,
        platform: &'a P,
    ) -> TxBatch<'a, P> {
        let (tx, port) = (&mut queue.tx, queue.port);
        TxBatch { tx, stats, largest: largest(offer), pool, platform, port }
    }

    /// An empty buffer with `headroom` bytes reserved in front. `None` when the pool has no frame
    /// left.
    #[inline]
    pub fn buffer(&mut self, headroom: usize) -> Option<TxBuf> {
        Some(TxBuf::new(self.tx.frame(self.pool)?, headroom))
    }

    /// Puts a packet on the ring; gives it back if the ring is full.
    ///
    /// One that can't be sent (shorter than an Ethernet header or too long) is dropped and counted.
    #[inline]
    pub fn send(&mut self, buf: TxBuf) -> Result<(), TxBuf> {
        let size = buf.len();
        if !(ETHERNET_HEADER..=self.largest).contains(&size) {
            self.stats.tx_drops.bad_length += 1;
            Ok(())
        } else {
            self.tx.send_single(buf, size as u16, self.stats)
        }
    }
}

impl<P: Platform> Drop for TxBatch<'_, P> {
    #[inline]
    fn drop(&mut self) {
        self.tx.flush(self.stats, self.platform, self.port);
    }
}

impl Permit for TxPermit<'_> {
    type Block = Frame;

    #[inline]
    fn send(&mut self, packet: TxPacket) {
        TxPermit::send(self, packet);
    }

    #[inline]
    fn send_single(&mut self, buf: TxBuf) {
        TxPermit::send_single(self, buf);
    }
}

impl<P: Platform, S: Store> Netif for Netfront<P, S> {
    type Block = Frame;
    type Permit<'a>
        = TxPermit<'a>
    where
        Self: 'a;

    fn mac(&self) -> MacAddr {
        MacAddr(self.backend().mac.unwrap_or_default())
    }

    /// The vif's MTU, or what fits a page where a packet has only one.
    fn mtu(&self) -> usize {
        let mtu = usize::from(self.backend().mtu);
        if self.max_fragments() > 1 { mtu } else { mtu.min(xen_grant::PAGE_SIZE - LINK_HEADER) }
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            block_size: xen_grant::PAGE_SIZE,
            max_fragments: self.max_fragments(),
            ..Capabilities::default()
        }
    }

    fn stats(&self) -> netif::Stats {
        let stats = Netfront::stats(self);
        netif::Stats {
            rx_packets: stats.rx_packets,
            rx_bytes: stats.rx_bytes,
            rx_dropped: stats.rx_drops.total(),
            tx_packets: stats.tx_packets,
            tx_bytes: stats.tx_bytes,
            tx_dropped: stats.tx_drops.total(),
            copies: 0,
            copied_bytes: 0,
            linearised_packets: self.linear.packets(),
            linearised_bytes: self.linear.bytes(),
        }
    }

    #[inline]
    fn alloc(&mut self, headroom: usize) -> Option<TxBuf> {
        self.buffer(headroom)
    }

    #[inline]
    fn reserve(&mut self, slots: usize) -> Option<TxPermit<'_>> {
        if self.link() == Link::Up && self.room() < slots {
            self.complete_tx();
        }
        Netfront::reserve(self, slots)
    }

    #[inline]
    fn receive(&mut self, budget: usize, sink: impl FnMut(RxOf<Self>)) -> usize {
        self.poll_rx(budget, sink)
    }

    fn flush(&mut self) {
        Netfront::flush(self);
    }

    fn linear(&mut self) -> &mut Linear {
        &mut self.linear
    }
}
