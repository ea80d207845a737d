//! The receiving half of the adaptor.
//!
//! ```text
//!  Netif::receive ─► several slots? gather ─► unknown checksum? verify ─► held until a token takes it
//!                                                     └─► wrong: dropped, the next one
//! ```

use smoltcp::phy;

use super::transmit::Transmit;
use super::{BURST, Stats};
use crate::buffer::{Checksum, Packet};
use crate::header::checksum::{Verdict, verify};
use crate::netif::{Linear, Netif, RxOf};
use crate::wire::MAX_FRAME;

pub(super) struct Receive<N: Netif> {
    /// Held, if it has one slot.
    packet: Option<RxOf<N>>,
    /// Another one is held, in `linear`.
    is_gathered: bool,
    /// What is held has been handed up and may go.
    is_done: bool,
    linear: Linear,
    /// Packets taken in this round.
    burst: u32,
    /// A round has ended, and nobody has flushed.
    owes_flush: bool,
    wrong: u64,
    held_back: u64,
}

impl<N: Netif> Receive<N> {
    pub(super) fn new() -> Receive<N> {
        Receive {
            packet: None,
            is_gathered: false,
            is_done: false,
            linear: Linear::with_capacity(MAX_FRAME),
            burst: 0,
            owes_flush: false,
            wrong: 0,
            held_back: 0,
        }
    }

    /// Whether there is a packet to hand up.
    pub(super) fn fetch(&mut self, tx: &mut Transmit<N>) -> bool {
        if self.is_done {
            self.is_done = false;
            self.drop_held(tx);
        }
        if self.has_packet() {
            // The last round stopped for want of room.
            tx.flush();
            return true;
        }
        if self.burst == 0 {
            tx.begin_round();
        }
        while self.burst < BURST {
            self.burst += 1;
            if tx.below().receive(1, |packet| self.packet = Some(packet)) == 0 {
                break;
            }
            if self.is_good(tx) {
                return true;
            }
            self.wrong += 1;
            self.drop_held(tx);
        }
        self.burst = 0;
        if core::mem::replace(&mut self.owes_flush, true) {
            tx.flush();
        }
        false
    }

    /// Puts a packet that has just come into one slice, and verifies its checksum if that is due.
    #[inline]
    fn is_good(&mut self, tx: &mut Transmit<N>) -> bool {
        let Some(packet) = &self.packet else { return false };
        // A large packet's is blank, whatever its state says.
        let is_known = packet.meta.checksum != Checksum::Unknown || packet.meta.gso.is_some();
        if packet.fragments().len() == 1 {
            return is_known || verify(packet) != Verdict::Wrong;
        }
        let bytes = &*self.linear.gather(packet);
        let is_good = is_known || verify(&Packet::from(bytes)) != Verdict::Wrong;
        self.drop_held(tx);
        self.is_gathered = true;
        is_good
    }

    fn drop_held(&mut self, tx: &mut Transmit<N>) {
        self.is_gathered = false;
        if let Some(packet) = self.packet.take() {
            tx.below().recycle(packet);
        }
    }

    fn has_packet(&self) -> bool {
        self.packet.is_some() || self.is_gathered
    }

    /// What has been fetched, for the stack.
    pub(super) fn token(&mut self) -> RxToken<'_, N> {
        RxToken { rx: self }
    }

    /// What has been fetched stays until there is room to transmit.
    pub(super) fn hold(&mut self) {
        self.held_back += 1;
    }

    pub(super) fn is_held(&self) -> bool {
        self.has_packet() && !self.is_done
    }

    pub(super) fn flushed(&mut self) {
        self.owes_flush = false;
    }

    pub(super) fn count(&self, stats: &mut Stats) {
        stats.linearised_packets += self.linear.packets();
        stats.linearised_bytes += self.linear.bytes();
        stats.checksums_wrong += self.wrong;
        stats.held_back += self.held_back;
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
        let Receive { packet, is_done, linear, .. } = self.rx;
        *is_done = true;
        match packet {
            Some(packet) => f(packet.head()),
            None => f(linear.contents()),
        }
    }
}
