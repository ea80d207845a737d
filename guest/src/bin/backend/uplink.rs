//! The vif of our own that leads out of the switch.

use core::mem;

use packet_views::buffer::View;
use packet_views::device::{Link, NetDevice, SendError};
use xen_grant::{FramePool, GrantTable};
use xen_guest::Xen;
use xen_netfront::buffer::{Packet, PacketMut};
use xen_netfront::netfront::{Config, Netfront, OpenError};
use xen_netfront::platform::Instant;

/// Slots of the largest packet.
const LARGEST: usize = 19;
/// Packets that are taken from it in a turn.
const BUDGET: usize = 64;

pub struct Uplink {
    number: u32,
    net: Netfront<Xen, Xen>,
    link: Link,
    /// Packets that were to be sent and were not, for there was no room.
    pub full: u64,
}

impl Uplink {
    pub fn open(xen: Xen, pool: &FramePool, number: u32, config: Config) -> Result<Uplink, OpenError> {
        let net = Netfront::open(xen, xen, pool, &GrantTable::new(&xen), number, config)?;
        Ok(Uplink { number, net, link: Link::Down, full: 0 })
    }

    pub fn service(&mut self) {
        self.net.service();
        self.net.complete_tx();
        let link = self.net.link();
        if mem::replace(&mut self.link, link) != link {
            log::info!("uplink, vif {}: link {link:?}, mtu {}", self.number, self.net.mtu());
        }
    }

    /// For how much work of clients there is room; any amount while nothing can be sent, for then it
    /// is dropped and not waited for.
    pub fn room(&mut self) -> usize {
        match self.link {
            Link::Up => self.net.room().saturating_sub(LARGEST - 1),
            Link::Down | Link::NoCarrier => usize::MAX,
        }
    }

    /// Hands packets to `sink`; whether there were any.
    pub fn receive(&mut self, sink: impl FnMut(Packet)) -> bool {
        NetDevice::receive(&mut self.net, BUDGET, sink) > 0
    }

    pub fn send(&mut self, packet: PacketMut) {
        // Refused ones the driver counts.
        if let Err(SendError::Full(_)) = NetDevice::send(&mut self.net, packet) {
            self.full += 1;
        }
    }

    /// Sends a copy of a packet that others have too.
    pub fn send_copy(&mut self, packet: &Packet) {
        match self.copy_of(packet) {
            Some(copy) => self.send(copy),
            None => self.full += 1,
        }
    }

    fn copy_of(&mut self, packet: &Packet) -> Option<PacketMut> {
        let mut copy = PacketMut::new();
        for fragment in packet.fragments() {
            let mut buf = self.net.alloc(0)?;
            buf.append(fragment.len())?.copy_from_slice(fragment.bytes());
            copy.push(buf).ok()?;
        }
        copy.meta = packet.meta;
        Some(copy)
    }

    pub fn flush(&mut self) {
        self.net.flush();
    }

    /// Before sleeping: asks for an event. True if there is something to do already.
    pub fn rearm(&mut self) -> bool {
        self.net.rearm()
    }

    pub fn resumed(&mut self) {
        self.net.resumed();
    }

    pub fn next_deadline(&self) -> Option<Instant> {
        self.net.next_deadline()
    }

    /// What has crossed it, for people.
    pub fn report(&self) {
        let (number, totals, full) = (self.number, self.net.totals(), self.full);
        log::info!(
            "uplink, vif {number}: received {} packets, {} bytes; sent {} packets, {} bytes; dropped {} \
             received, {} to be sent, {full} for want of room",
            totals.rx_packets, totals.rx_bytes, totals.tx_packets, totals.tx_bytes,
            totals.rx_dropped, totals.tx_dropped
        );
    }
}
