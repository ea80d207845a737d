//! Room on the transmit rings, reserved, and what is sent into it.

use xen_grant::Frame;

use super::budget::Budget;
use super::connection::{Connection, Queues};
use super::counters::Counters;
use super::software;
use crate::buffer::{BufMut, PacketMut};
use crate::platform::Platform;
use crate::wire::MAX_PACKET;
use packet_views::buffer::View;
use packet_views::device::{self, Permit, SendError, Unsendable};
use packet_views::features::Features;
use packet_views::header::ETHERNET_HEADER;

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
    counters: &'a mut Counters,
}

impl<'a> TxPermit<'a> {
    /// Room for `slots` slots; the caller has seen that it is there, on whichever queue.
    #[inline]
    pub(super) fn new(
        connection: &'a mut Connection,
        slots: usize,
        budget: &'a mut Budget,
        counters: &'a mut Counters,
    ) -> TxPermit<'a> {
        let Connection { queues, features, longest, .. } = connection;
        TxPermit { queues, features: *features, longest: *longest, slots, budget, counters }
    }

    /// Puts the packet on a ring: that of its flow. The backend learns of it with the next
    /// [`flush`](super::Netfront::flush).
    ///
    /// What the backend does not take is done here where it needs no more slots: a blank checksum
    /// is filled in, several fragments that fit a page are put into one, the Ethernet header into
    /// the first. GSO that the backend does not take is refused; a packet is cut by
    /// [`NetDevice::send`](packet_views::device::NetDevice::send), which reserves for all its segments.
    #[inline]
    pub fn send(&mut self, mut packet: PacketMut) -> Result<(), Unsendable> {
        let slots = device::slots(&packet);
        let size = packet.fragments().iter().map(BufMut::len).sum();
        let longest = if packet.meta.gso.is_some() { MAX_PACKET } else { self.longest };
        self.check(slots, size, longest)?;
        if software::is_needed(&packet, &self.features) {
            let alloc = || self.queues.frame(self.budget);
            packet = software::fit(packet, &self.features, alloc, self.counters)
                .map_err(|why| self.counters.tx_drops.count(why))?;
        }
        self.slots -= slots;
        let queue = self.queues.of_packet(&packet);
        // At most MAX_PACKET.
        queue.tx.send(packet, size as u16, self.counters);
        Ok(())
    }

    /// As [`send`](TxPermit::send), for a packet of one fragment and nothing known about it.
    #[inline]
    pub fn send_single(&mut self, buf: BufMut) -> Result<(), Unsendable> {
        let size = buf.len();
        self.check(1, size, self.longest)?;
        self.slots -= 1;
        let queue = self.queues.of_flow(buf.bytes());
        // Room was reserved.
        let _sent = queue.tx.send_single(buf, size as u16, self.counters);
        Ok(())
    }

    #[inline]
    fn check(&mut self, slots: usize, size: usize, longest: usize) -> Result<(), Unsendable> {
        if slots > self.slots {
            return Err(self.counters.tx_drops.count(Unsendable::TooManyFragments));
        }
        check_length(size, longest, self.counters)
    }
}

/// Whether a packet is a frame, and no longer than that.
#[inline]
fn check_length(size: usize, longest: usize, counters: &mut Counters) -> Result<(), Unsendable> {
    if size < ETHERNET_HEADER {
        return Err(counters.tx_drops.count(Unsendable::TooShort));
    }
    if size > longest {
        return Err(counters.tx_drops.count(Unsendable::TooLong));
    }
    Ok(())
}

impl Permit for TxPermit<'_> {
    type Block = Frame;

    #[inline]
    fn send(&mut self, packet: PacketMut) -> Result<(), Unsendable> {
        TxPermit::send(self, packet)
    }

    #[inline]
    fn send_single(&mut self, buf: BufMut) -> Result<(), Unsendable> {
        TxPermit::send_single(self, buf)
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
    counters: &'a mut Counters,
    platform: &'a P,
}

impl<'a, P: Platform> TxBatch<'a, P> {
    #[inline]
    pub(super) fn new(
        connection: &'a mut Connection,
        budget: &'a mut Budget,
        counters: &'a mut Counters,
        platform: &'a P,
    ) -> TxBatch<'a, P> {
        let Connection { queues, longest, .. } = connection;
        TxBatch { queues, longest: *longest, budget, counters, platform }
    }

    /// An empty buffer with `headroom` bytes reserved in front. `None` when there is no frame for it
    /// now.
    #[inline]
    pub fn buffer(&mut self, headroom: usize) -> Option<BufMut> {
        Some(BufMut::new(self.queues.frame(self.budget)?, headroom))
    }

    /// Puts a packet on the ring of its flow; gives it back if that is full.
    #[inline]
    pub fn send(&mut self, buf: BufMut) -> Result<(), SendError<BufMut>> {
        let size = buf.len();
        check_length(size, self.longest, self.counters)?;
        let queue = self.queues.of_flow(buf.bytes());
        queue.tx.send_single(buf, size as u16, self.counters).map_err(SendError::Full)
    }
}

impl<P: Platform> Drop for TxBatch<'_, P> {
    #[inline]
    fn drop(&mut self) {
        self.queues.flush(self.counters, self.platform);
    }
}
