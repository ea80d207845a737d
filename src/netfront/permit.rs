//! Room on the transmit rings, and what is sent into it.

use packet_views::buffer::View;
use packet_views::device::{self, Permit, SendError, SendErrorKind};
use packet_views::features::Features;
use packet_views::header::ETHERNET_HEADER;
use xen_grant::Frame;

use super::budget::Budget;
use super::connection::Connection;
use super::counters::Counters;
use super::queues::Queues;
use super::software;
use crate::buffer::{BufMut, PacketMut};
use crate::platform::Platform;
use crate::wire::MAX_PACKET;

/// Room on the rings. What is the same for all packets of a burst is looked up once.
#[must_use = "a permit that is not used reserves nothing"]
pub struct TxPermit<'a, P: Platform> {
    platform: &'a P,
    queues: &'a mut Queues,
    features: Features,
    longest: usize,
    /// Slots that are left of those reserved: there is room for them, whichever queue they go to.
    reserved: usize,
    budget: &'a mut Budget,
    counters: &'a mut Counters,
}

impl<'a, P: Platform> TxPermit<'a, P> {
    /// The caller has seen that there is room for `reserved` slots on every queue.
    #[inline]
    pub(super) fn new(
        connection: &'a mut Connection,
        reserved: usize,
        budget: &'a mut Budget,
        counters: &'a mut Counters,
        platform: &'a P,
    ) -> TxPermit<'a, P> {
        let Connection { queues, features, longest, .. } = connection;
        let (features, longest) = (*features, *longest);
        TxPermit { platform, queues, features, longest, reserved, budget, counters }
    }

    /// Whether a packet is a frame, and no longer than that.
    #[inline]
    fn check_length(&mut self, size: usize, longest: usize) -> Result<(), SendErrorKind> {
        if size < ETHERNET_HEADER {
            return Err(self.counters.unsent(SendErrorKind::TooShort));
        }
        if size > longest {
            return Err(self.counters.unsent(SendErrorKind::TooLong));
        }
        Ok(())
    }
}

impl<P: Platform> Permit for TxPermit<'_, P> {
    type Block = Frame;

    #[inline]
    fn alloc(&mut self, headroom: usize) -> Option<BufMut> {
        Some(BufMut::new(self.queues.frame(self.budget)?, headroom))
    }

    /// Puts the packet on a ring: that of its flow.
    ///
    /// What the backend does not take is done here where it needs no more slots: a blank checksum
    /// is filled in, several fragments that fit a page are put into one, the Ethernet header into
    /// the first. GSO that the backend does not take is refused; such a packet is cut by
    /// [`NetDevice::send`](packet_views::device::NetDevice::send), which sees to room for all its segments.
    #[inline]
    fn send(&mut self, mut packet: PacketMut) -> Result<(), SendError<PacketMut>> {
        let size = packet.fragments().iter().map(BufMut::len).sum();
        let longest = if packet.meta.gso.is_some() { MAX_PACKET } else { self.longest };
        self.check_length(size, longest)?;
        let slots = device::slots(&packet);
        match self.reserved.checked_sub(slots) {
            Some(left) => self.reserved = left,
            None => {
                let tx = &mut self.queues.of_packet(&packet).tx;
                if !tx.has_room(slots) {
                    tx.want(slots);
                    return Err(SendError::Full(packet));
                }
            }
        }
        if software::is_needed(&packet, &self.features) {
            let alloc = || self.queues.frame(self.budget);
            packet = software::fit(packet, &self.features, alloc, self.counters)
                .map_err(|why| self.counters.unsent(why))?;
        }
        // At most MAX_PACKET.
        self.queues.of_packet(&packet).tx.send(packet, size as u16, self.counters);
        Ok(())
    }

    #[inline(always)] // the usual packet, within the loop of a burst
    fn send_single(&mut self, buf: BufMut) -> Result<(), SendError<BufMut>> {
        let size = buf.len();
        self.check_length(size, self.longest)?;
        let tx = &mut self.queues.of_flow(buf.bytes()).tx;
        match self.reserved.checked_sub(1) {
            Some(left) => self.reserved = left,
            None if tx.takes_bytes() => {}
            None => {
                tx.want(1);
                return Err(SendError::Full(buf));
            }
        }
        tx.send_single(buf, size as u16, self.counters).map_err(|buf| {
            tx.want(1);
            SendError::Full(buf)
        })
    }

    #[inline]
    fn flush(self) {
        self.queues.flush(self.counters, self.platform);
    }
}

impl<P: Platform> core::fmt::Debug for TxPermit<'_, P> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("TxPermit")
            .field("features", &self.features)
            .field("room", &self.queues.room())
            .finish_non_exhaustive()
    }
}
