//! The vif of our own that leads out of the switch.

use alloc::collections::VecDeque;
use core::mem;

use packet_views::buffer::View;
use packet_views::device::{Link, NetDevice, SendError};
use xen_grant::{FramePool, GrantTable};
use xen_guest::Xen;
use xen_netfront::buffer::{Packet, PacketMut};
use xen_netfront::netfront::{Config, Netfront, OpenError};
use xen_netfront::platform::Instant;

/// Packets that are taken from it in a turn.
const BUDGET: usize = 64;

pub struct Uplink {
    number: u32,
    net: Netfront<Xen, Xen>,
    link: Link,
    /// What there was no room for; as long as there is any, clients are not asked for more.
    waiting: VecDeque<PacketMut>,
    /// Packets that were to be sent and were not: the link was down, or there was no page for a copy.
    lost: u64,
}

impl Uplink {
    pub fn open(
        xen: Xen,
        pool: &FramePool,
        number: u32,
        config: Config,
    ) -> Result<Uplink, OpenError> {
        let net = Netfront::open(xen, xen, pool, &GrantTable::new(&xen), number, config)?;
        let waiting = VecDeque::new();
        Ok(Uplink { number, net, link: Link::Down, waiting, lost: 0 })
    }

    pub fn service(&mut self) {
        self.net.service();
        self.net.complete_tx();
        let link = self.net.link();
        if mem::replace(&mut self.link, link) != link {
            log::info!("uplink, vif {}: link {link:?}, mtu {}", self.number, self.net.mtu());
        }
    }

    /// Whether more may be sent; so it is while nothing can be, for then it is lost and not waited for.
    pub fn has_room(&mut self) -> bool {
        self.send_waiting();
        self.waiting.is_empty()
    }

    /// Hands packets to `sink`; whether there were any.
    pub fn receive(&mut self, sink: impl FnMut(Packet)) -> bool {
        NetDevice::receive(&mut self.net, BUDGET, sink) > 0
    }

    pub fn send(&mut self, packet: PacketMut) {
        if self.link != Link::Up {
            self.lost += 1;
        } else if !self.waiting.is_empty() {
            self.waiting.push_back(packet);
        } else if let Err(SendError::Full(packet)) = NetDevice::send(&mut self.net, packet) {
            // Refused ones the driver counts.
            self.waiting.push_back(packet);
        }
    }

    fn send_waiting(&mut self) {
        if self.link != Link::Up {
            self.lost += self.waiting.len() as u64;
            self.waiting.clear();
        }
        while let Some(packet) = self.waiting.pop_front() {
            if let Err(SendError::Full(packet)) = NetDevice::send(&mut self.net, packet) {
                self.waiting.push_front(packet);
                return;
            }
        }
    }

    /// Sends a copy of a packet that others have too.
    pub fn send_copy(&mut self, packet: &Packet) {
        match self.copy_of(packet) {
            Some(copy) => self.send(copy),
            None => self.lost += 1,
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
        let (number, totals, lost) = (self.number, self.net.totals(), self.lost);
        log::info!(
            "uplink, vif {number}: received {} packets, {} bytes, {} dropped; sent {} packets, {} \
             bytes, {} dropped",
            totals.rx_packets,
            totals.rx_bytes,
            totals.rx_dropped,
            totals.tx_packets,
            totals.tx_bytes,
            totals.tx_dropped + lost
        );
    }
}
