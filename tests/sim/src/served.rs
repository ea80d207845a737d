//! A client's vif as a device for a stack: netback behind [`NetDevice`].
//!
//! What the client sends is what the stack receives, and the reverse.

use std::collections::VecDeque;

use packet_views::buffer::Fragment;
use packet_views::device::{self, Link, NetDevice, PacketOf, Permit, SendError};
use packet_views::features::Capabilities;
use packet_views::features::Features;
use packet_views::header::MacAddr;
use xen_grant::{Frame, FramePool};
use xen_netfront::buffer::{BufMut, MixedPacket, Packet, PacketMut};
use xen_netfront::netback::{Counters, DeliverError, Netback};
use xen_netfront::wire::MAX_SLOTS;

use crate::{Domain, StoreClient};

/// Packets taken from the client at once: what one grant-copy hypercall carries.
const BATCH: usize = 64;
/// Packets queued for the client at most. Beyond that the stack has to wait.
pub const QUEUE: usize = 128;

/// The device.
pub type Back = Netback<Domain, StoreClient>;

/// A vif and what it needs to be a device.
pub struct Served {
    /// `None` while somebody else plays the backend.
    pub vif: Option<Back>,
    pool: FramePool,
    mac: MacAddr,
    mtu: usize,
    arrived: VecDeque<Packet>,
    /// What backends that are no more have done.
    past: Counters,
}

impl Served {
    /// `vif` as a device with this address.
    pub fn new(vif: Back, pool: &FramePool, mac: [u8; 6], mtu: u16) -> Served {
        Served {
            vif: Some(vif),
            pool: pool.clone(),
            mac: MacAddr(mac),
            mtu: mtu.into(),
            arrived: VecDeque::with_capacity(BATCH),
            past: Counters::default(),
        }
    }

    /// Ends the backend, as a crash or a restart does; what it counted stays.
    pub fn kill(&mut self) {
        if let Some(vif) = self.vif.take() {
            self.past = sum(&self.past, vif.counters());
        }
    }

    /// Asks for an event when there is something to do; true if there is already.
    pub fn rearm(&mut self) -> bool {
        self.vif.as_mut().is_some_and(Back::rearm) || !self.arrived.is_empty() && !self.is_full()
    }

    /// Whether the stack can't send, and so can't receive: it answers what it receives.
    fn is_full(&self) -> bool {
        self.vif.as_ref().is_none_or(|vif| !vif.is_connected() || vif.queued() >= QUEUE)
    }

    /// What all backends here have done.
    pub fn counters(&self) -> Counters {
        match &self.vif {
            Some(vif) => sum(&self.past, vif.counters()),
            None => self.past,
        }
    }
}

/// The counters that add up, added up.
fn sum(a: &Counters, b: &Counters) -> Counters {
    let mut from_drops = a.from_drops;
    let mut to_drops = a.to_drops;
    macro_rules! add {
        ($sum:ident, $other:expr; $($field:ident)*) => { $($sum.$field += $other.$field;)* };
    }
    add!(from_drops, b.from_drops; runt too_many_slots sizes multicast gso copy_failed no_frame);
    add!(to_drops, b.to_drops; not_connected bad_length offload no_frame no_memory queue_full stalled copy_failed disconnected);
    let mut all = *a;
    (all.from_drops, all.to_drops) = (from_drops, to_drops);
    add!(all, b; from_packets from_bytes from_slots to_packets to_bytes to_slots);
    add!(all, b; copy_hypercalls copy_ops copy_failures hypervisor_copied_bytes copied_bytes);
    add!(all, b; events_sent maps connects faults stalls to_given_back);
    all.queue_high_water = all.queue_high_water.max(b.queue_high_water);
    all
}

impl NetDevice for Served {
    type Block = Frame;
    type Permit<'a> = Delivery<'a>;

    fn mac(&self) -> Option<MacAddr> {
        Some(self.mac)
    }

    fn mtu(&self) -> usize {
        self.mtu
    }

    fn link(&self) -> Link {
        if self.vif.as_ref().is_some_and(|vif| vif.is_connected()) { Link::Up } else { Link::Down }
    }

    fn capabilities(&self) -> Capabilities {
        let offer = self.vif.as_ref().and_then(|vif| vif.frontend());
        let takes = offer.map_or(Features::NONE, |offer| offer.features.coherent());
        Capabilities::plain(xen_grant::PAGE_SIZE).with_max_fragments(MAX_SLOTS).with_features(takes)
    }

    fn totals(&self) -> device::Totals {
        let counters = Served::counters(self);
        device::Totals::default()
            .with_rx_packets(counters.from_packets)
            .with_rx_bytes(counters.from_bytes)
            .with_rx_dropped(counters.from_drops.total())
            .with_tx_packets(counters.to_packets)
            .with_tx_bytes(counters.to_bytes)
            .with_tx_dropped(counters.to_drops.total())
            .with_copied_bytes(counters.copied_bytes)
    }

    fn alloc(&mut self, headroom: usize) -> Option<BufMut> {
        Some(BufMut::new(self.pool.take()?, headroom))
    }

    fn reserve(&mut self, _slots: usize) -> Option<Delivery<'_>> {
        let vif = self.vif.as_mut().filter(|vif| vif.is_connected())?;
        if vif.queued() >= QUEUE {
            vif.flush();
        }
        (vif.queued() < QUEUE).then_some(Delivery { vif, pool: &self.pool })
    }

    fn room(&mut self) -> usize {
        let vif = self.vif.as_ref().filter(|vif| vif.is_connected());
        vif.map_or(0, |vif| QUEUE.saturating_sub(vif.queued()))
    }

    fn has_packet(&mut self) -> bool {
        if let (true, Some(vif)) = (self.arrived.is_empty(), &mut self.vif) {
            vif.poll(BATCH, |packet| self.arrived.push_back(packet.freeze()));
        }
        !self.arrived.is_empty()
    }

    fn receive(&mut self, budget: usize, mut sink: impl FnMut(PacketOf<Self>)) -> usize {
        self.has_packet();
        let count = budget.min(self.arrived.len());
        self.arrived.drain(..count).for_each(&mut sink);
        count
    }

    /// What is shared stays so: the hypervisor copies it for the client.
    fn send_mixed(&mut self, packet: MixedPacket) -> Result<(), SendError<MixedPacket>> {
        let Some(Delivery { vif, .. }) = self.reserve(device::slots(&packet)) else {
            return Err(SendError::Full(packet));
        };
        match vif.deliver(packet.freeze()) {
            Err(DeliverError::Full(packet)) => {
                let mut back = MixedPacket::new();
                back.meta = packet.meta;
                for fragment in packet.into_fragments() {
                    let _as_many = back.push(Fragment::Shared(fragment));
                }
                Err(SendError::Full(back))
            }
            // What the client does not take is lost on the way, and counted there.
            Ok(()) | Err(DeliverError::Refused(_)) => Ok(()),
        }
    }

    fn flush(&mut self) {
        if let Some(vif) = &mut self.vif {
            vif.flush();
        }
    }
}

/// A place in the client's queue.
pub struct Delivery<'a> {
    vif: &'a mut Back,
    pool: &'a FramePool,
}

impl Permit for Delivery<'_> {
    type Block = Frame;

    fn alloc(&mut self, headroom: usize) -> Option<BufMut> {
        Some(BufMut::new(self.pool.take()?, headroom))
    }

    fn send(&mut self, packet: PacketMut) -> Result<(), SendError<PacketMut>> {
        match self.vif.deliver(packet.freeze()) {
            // It had one owner, and has again.
            Err(DeliverError::Full(packet)) => match packet.try_into_mut() {
                Ok(packet) => Err(SendError::Full(packet)),
                Err(_) => Ok(()),
            },
            // What the client does not take is lost on the way, and counted there.
            Ok(()) | Err(DeliverError::Refused(_)) => Ok(()),
        }
    }

    fn flush(self) {
        self.vif.flush();
    }
}

impl std::fmt::Debug for Served {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Served")
            .field("vif", &self.vif)
            .field("arrived", &self.arrived.len())
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Delivery<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Delivery").field(&self.vif).finish()
    }
}
