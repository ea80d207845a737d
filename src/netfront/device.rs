//! The frontend as a [`NetDevice`].

use core::task::{Context, Poll};
use core::time::Duration;

use xen_grant::Frame;

use super::connection::Connection;
use super::{Netfront, TxPermit, software};
use crate::buffer::{BufMut, MixedPacket, PacketMut};
use crate::platform::Platform;
use crate::wire::MAX_PACKET;
use packet_views::buffer::{AnyPacket, View};
use packet_views::device::{
    self, Changes, Link, NetDevice, PacketOf, Permit, SendError, SendErrorKind,
};
use packet_views::features::Capabilities;
use packet_views::header::{ETHERNET_HEADER, LINK_HEADER, MacAddr};
use packet_views::offload::GsoError;
use xen_store::Store;

/// The most fragments that a layer above is told to use. A backend has to take 18, but Linux holds
/// 17 in one `sk_buff` (`MAX_SKB_FRAGS`): for the last one it takes a second, and copies all of it.
const MOST_FRAGMENTS: usize = 17;

impl<P: Platform, S: Store> NetDevice for Netfront<P, S> {
    type Block = Frame;
    type Permit<'a>
        = TxPermit<'a, P>
    where
        Self: 'a;

    fn mac(&self) -> Option<MacAddr> {
        self.backend().mac.map(MacAddr)
    }

    fn link(&self) -> Link {
        Netfront::link(self)
    }

    /// The vif's MTU, or what fits a page where a packet has only one.
    fn mtu(&self) -> usize {
        let mtu = usize::from(self.backend().mtu);
        if self.max_fragments() > 1 { mtu } else { mtu.min(xen_grant::PAGE_SIZE - LINK_HEADER) }
    }

    fn capabilities(&self) -> Capabilities {
        let features = self.features();
        Capabilities::plain(xen_grant::PAGE_SIZE)
            .with_max_fragments(features.max_fragments().min(MOST_FRAGMENTS))
            .with_features(features)
    }

    fn totals(&self) -> device::Totals {
        let counters = Netfront::counters(self);
        device::Totals::default()
            .with_rx_packets(counters.rx_packets)
            .with_rx_bytes(counters.rx_bytes)
            .with_rx_dropped(counters.rx_drops.total())
            .with_tx_packets(counters.tx_packets)
            .with_tx_bytes(counters.tx_bytes)
            .with_tx_dropped(counters.tx_drops.total())
            .with_copies(counters.tx_gathered)
            .with_copied_bytes(counters.copied_bytes)
    }

    fn take_changes(&mut self) -> Changes {
        core::mem::take(&mut self.changes)
    }

    #[inline]
    fn alloc(&mut self, headroom: usize) -> Option<BufMut> {
        Some(BufMut::new(self.frame()?, headroom))
    }

    /// What will be sent is not known yet, so it takes room on every queue;
    /// [`send`](NetDevice::send) looks at the packet first.
    #[inline(always)] // where packets go one by one, each asks
    fn reserve(&mut self, slots: usize) -> Option<TxPermit<'_, P>> {
        if !self.has_room(slots) && !self.has_room_now(slots) {
            return None;
        }
        let connection = self.connection.as_mut()?;
        let (budget, counters) = (&mut self.budget, &mut self.counters);
        Some(TxPermit::new(connection, slots, budget, counters, &self.platform))
    }

    fn room(&mut self) -> usize {
        for complete in [true, false] {
            let connection = self.connection.as_mut().filter(|it| it.takes_packets());
            let room = connection.map_or(0, |connection| connection.queues.room());
            if room > 0 || !complete || self.complete_tx() == 0 {
                return room;
            }
        }
        0
    }

    fn pause_receive(&mut self, is_paused: bool) {
        self.is_paused = is_paused;
    }

    #[inline]
    fn has_packet(&mut self) -> bool {
        self.has_news()
    }

    fn service(&mut self) -> Option<Duration> {
        Netfront::service(self);
        self.next_deadline().map(|at| at.since(self.platform.now()))
    }

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.wake.register(context.waker());
        if self.rearm() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Posts new pages in the place of those handed up; a backend that waits for some learns of them by
    /// [`flush`](Netfront::flush). It counts packets that were dropped too. Packets of a flow come in
    /// their order.
    #[inline]
    fn receive(&mut self, budget: usize, mut sink: impl FnMut(PacketOf<Self>)) -> usize {
        self.receive_with(budget, |packet| {
            sink(packet);
            None
        })
    }

    #[inline(always)]
    fn flush(&mut self) {
        Netfront::flush(self);
    }

    /// A full queue holds up its own flows only. A large packet that the backend does not take is
    /// cut here.
    #[inline]
    fn send(&mut self, packet: PacketMut) -> Result<(), SendError<PacketMut>> {
        if packet.meta.gso.is_some()
            && (packet.len() > MAX_PACKET || !self.features().takes_packet(&packet))
        {
            return self.send_cut(packet);
        }
        match self.reserve_for(&packet, device::slots(&packet)) {
            Some(mut permit) => permit.send(packet),
            None => Err(SendError::Full(packet)),
        }
    }

    /// What is shared is granted as it is, where the rest of its page is zero or known to the backend
    /// ([`SharedFrame::fit`](xen_grant::SharedFrame::fit)), and else copied: nobody can clear it.
    fn send_mixed(&mut self, packet: MixedPacket) -> Result<(), SendError<MixedPacket>> {
        let Some(Connection { features, longest, .. }) = self.connection else {
            return Err(SendError::Full(packet));
        };
        let longest = if packet.meta.gso.is_some() { MAX_PACKET } else { longest };
        let is_frame = (ETHERNET_HEADER..=longest).contains(&packet.len());
        if !is_frame || software::is_needed(&packet, &features) {
            return self.send_copied(packet);
        }
        if self.make_room(&packet, device::slots(&packet)).is_none() {
            return Err(SendError::Full(packet));
        }
        let Some(connection) = &mut self.connection else { return Err(SendError::Full(packet)) };
        let (queues, budget) = (&mut connection.queues, &mut self.budget);
        let packet = software::show(packet, queues, budget, &mut self.counters)?;
        // At most MAX_PACKET.
        let size = packet.len() as u16;
        queues.of_packet(&packet).tx.send_mixed(packet, size, &mut self.counters);
        Ok(())
    }
}

/// What a connection may change.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Settings {
    mac: Option<MacAddr>,
    mtu: usize,
    capabilities: Capabilities,
}

impl<P: Platform, S: Store> Netfront<P, S> {
    /// What there is now.
    fn settings(&self) -> Settings {
        Settings { mac: self.mac(), mtu: self.mtu(), capabilities: self.capabilities() }
    }

    /// A connection has come up: notes what is otherwise than in the one before.
    pub(super) fn note_changes(&mut self) {
        let now = self.settings();
        let was = self.settings.replace(now);
        let differs =
            |part: fn(&Settings, &Settings) -> bool| was.is_none_or(|was| part(&was, &now));
        let changes = Changes::NONE
            .with_connection(true)
            .with_mac(differs(|was, now| was.mac != now.mac))
            .with_mtu(differs(|was, now| was.mtu != now.mtu))
            .with_capabilities(differs(|was, now| was.capabilities != now.capabilities));
        self.changes = self.changes.and(changes);
    }

    /// Whether so many slots have room, whichever queue they go to.
    #[inline]
    fn has_room(&self, slots: usize) -> bool {
        let connection = self.connection.as_ref().filter(|it| it.takes_packets());
        connection.is_some_and(|connection| connection.queues.has_room(slots))
    }

    /// The same, when earlier packets have been taken back.
    #[cold]
    #[inline(never)]
    fn has_room_now(&mut self, slots: usize) -> bool {
        let has_room = self.complete_tx() > 0 && self.has_room(slots);
        if let (false, Some(connection)) = (has_room, &mut self.connection) {
            connection.queues.want(slots);
        }
        has_room
    }

    /// Room for a packet, on the queue that it will go to.
    #[inline]
    fn reserve_for(&mut self, packet: &PacketMut, slots: usize) -> Option<TxPermit<'_, P>> {
        self.make_room(packet, slots)?;
        let connection = self.connection.as_mut()?;
        let (budget, counters) = (&mut self.budget, &mut self.counters);
        Some(TxPermit::new(connection, slots, budget, counters, &self.platform))
    }

    /// Sees to it that the queue of a packet has so much room; `None` if it has not.
    #[inline]
    fn make_room<V: View>(&mut self, packet: &AnyPacket<V>, slots: usize) -> Option<()> {
        for complete in [true, false] {
            let connection = self.connection.as_mut().filter(|it| it.takes_packets())?;
            if connection.queues.of_packet(packet).tx.has_room(slots) {
                return Some(());
            }
            if complete {
                self.complete_tx();
            } else {
                connection.queues.of_packet(packet).tx.want(slots);
            }
        }
        None
    }

    /// Sends a packet that has to be changed first, or can't be sent at all.
    #[cold]
    #[expect(clippy::result_large_err, reason = "the packet comes back, not an error")]
    fn send_copied(&mut self, packet: MixedPacket) -> Result<(), SendError<MixedPacket>> {
        let alloc = || Some(BufMut::new(self.frame()?, 0));
        let (packet, copied) = packet.into_own(alloc).map_err(SendError::Full)?;
        self.counters.copied_bytes += copied as u64;
        NetDevice::send(self, packet).map_err(SendError::map_into)
    }

    #[cold]
    #[expect(clippy::result_large_err, reason = "the packet comes back, not an error")]
    fn send_cut(&mut self, packet: PacketMut) -> Result<(), SendError<PacketMut>> {
        let Some(Connection { features, longest, .. }) = self.connection else {
            return Err(SendError::Full(packet));
        };
        let slots = software::slots_when_cut(&packet, &features, longest)
            .map_err(|why| self.counters.unsent(why))?;
        // More than a queue ever has room for is not to be waited for.
        if slots > self.connection.as_ref().map_or(0, |it| it.queues.capacity()) {
            return Err(self.counters.unsent(SendErrorKind::Gso(GsoError::TooMany)).into());
        }
        if self.make_room(&packet, slots).is_none() {
            return Err(SendError::Full(packet));
        }
        let Some(connection) = &mut self.connection else { return Err(SendError::Full(packet)) };
        software::cut(
            packet,
            &features,
            &mut connection.queues,
            &mut self.budget,
            &mut self.counters,
        )?;
        Ok(())
    }
}
