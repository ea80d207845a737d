//! Room on the transmit rings, reserved, and what is sent into it.

use xen_grant::Frame;

use super::budget::Budget;
use super::connection::{Connection, Queues};
use super::software;
use super::stats::Stats;
use crate::buffer::{TxBuf, TxPacket, View};
use crate::features::Features;
use crate::header::ETHERNET_HEADER;
use crate::netif::{self, Permit};
use crate::platform::Platform;
use crate::wire::MAX_PACKET;

/// Room on the rings, so that sending can't fail: for one packet, or for several that take no
/// more slots together.
#[must_use = "a permit that is not used reserves nothing"]
pub struct TxPermit<'a> {
    queues: &'a mut Queues,
    features: Features,
    longest: usize,
    /// Slots left.
    slots: usize,
    budget: &'a mut Budget,
    stats: &'a mut Stats,
}

impl<'a> TxPermit<'a> {
    /// Room for `slots` slots; the caller has seen that it is there, on whichever queue.
    #[inline]
    pub(super) fn new(
        connection: &'a mut Connection,
        slots: usize,
        budget: &'a mut Budget,
        stats: &'a mut Stats,
    ) -> TxPermit<'a> {
        let Connection { queues, features, longest, .. } = connection;
        TxPermit { queues, features: *features, longest: *longest, slots, budget, stats }
    }

    /// Puts the packet on a ring: that of its flow. The backend learns of it with the next
    /// [`flush`](super::Netfront::flush).
    ///
    /// A packet that can't be sent (shorter than an Ethernet header, longer than the MTU and not GSO,
    /// more slots than are left) is dropped and counted. What the backend does not take is done
    /// here where it needs no more slots: a blank checksum is filled in, several fragments
    /// that fit a page are put into one. GSO that the backend does not take is dropped; a packet
    /// is cut by [`Netif::send`](crate::netif::Netif::send), which reserves for all its segments.
    #[inline]
    pub fn send(&mut self, mut packet: TxPacket) {
        let slots = netif::slots(&packet);
        let size = packet.fragments().iter().map(TxBuf::len).sum();
        let longest = if packet.meta.gso.is_some() { MAX_PACKET } else { self.longest };
        if slots > self.slots {
            self.stats.tx_drops.too_many_slots += 1;
            return;
        }
        if !(ETHERNET_HEADER..=longest).contains(&size) {
            self.stats.tx_drops.bad_length += 1;
            return;
        }
        if software::is_needed(&packet, &self.features) {
            let alloc = || self.queues.frame(self.budget);
            match software::fit(packet, &self.features, alloc, self.stats) {
                Some(fitting) => packet = fitting,
                None => return,
            }
        }
        self.slots -= slots;
        let queue = self.queues.of_packet(&packet);
        // At most MAX_PACKET.
        queue.tx.send(packet, size as u16, self.stats);
    }

    /// As [`send`](TxPermit::send), for a packet of one fragment and nothing known about it.
    #[inline]
    pub fn send_single(&mut self, buf: TxBuf) {
        let size = buf.len();
        if self.slots == 0 {
            self.stats.tx_drops.too_many_slots += 1;
        } else if !(ETHERNET_HEADER..=self.longest).contains(&size) {
            self.stats.tx_drops.bad_length += 1;
        } else {
            self.slots -= 1;
            let queue = self.queues.of_flow(buf.bytes());
            // Room was reserved.
            let _sent = queue.tx.send_single(buf, size as u16, self.stats);
        }
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
    queues: &'a mut Queues,
    longest: usize,
    budget: &'a mut Budget,
    stats: &'a mut Stats,
    platform: &'a P,
}

impl<'a, P: Platform> TxBatch<'a, P> {
    #[inline]
    pub(super) fn new(
        connection: &'a mut Connection,
        budget: &'a mut Budget,
        stats: &'a mut Stats,
        platform: &'a P,
    ) -> TxBatch<'a, P> {
        let Connection { queues, longest, .. } = connection;
        TxBatch { queues, longest: *longest, budget, stats, platform }
    }

    /// An empty buffer with `headroom` bytes reserved in front. `None` when there is no frame for it
    /// now.
    #[inline]
    pub fn buffer(&mut self, headroom: usize) -> Option<TxBuf> {
        Some(TxBuf::new(self.queues.frame(self.budget)?, headroom))
    }

    /// Puts a packet on the ring of its flow; gives it back if that is full.
    ///
    /// One that can't be sent (shorter than an Ethernet header or too long) is dropped and counted.
    #[inline]
    pub fn send(&mut self, buf: TxBuf) -> Result<(), TxBuf> {
        let size = buf.len();
        if !(ETHERNET_HEADER..=self.longest).contains(&size) {
            self.stats.tx_drops.bad_length += 1;
            return Ok(());
        }
        self.queues.of_flow(buf.bytes()).tx.send_single(buf, size as u16, self.stats)
    }
}

impl<P: Platform> Drop for TxBatch<'_, P> {
    #[inline]
    fn drop(&mut self) {
        self.queues.flush(self.stats, self.platform);
    }
}
