//! The receiving half of the adaptor.
//!
//! ```text
//!  NetDevice::receive ─► several slots? gather ─► unknown checksum? verify ─► held until a token takes it
//!                                  │                  └─► wrong: dropped, the next one
//!                                  └─► not plain IP? look closer:
//!                                        tagged for no VLAN         the tags go, as above
//!                                        a fragment                 Reassembly, verify what it completes
//!                                        asks for a free address    Taken is sent, the next one
//! ```

mod unusual;

use smoltcp::phy;
use smoltcp::time::Instant;

use super::linear::Linear;
use super::probe::{Own, Taken};
use super::reassembly::Reassembly;
use super::transmit::{Transmit, Want};
use super::{BURST, Counters};
#[cfg(feature = "embassy")]
use crate::buffer::BufMut;
use crate::buffer::MAX_FRAME;
use crate::buffer::{AnyPacket, Checksum};
use crate::device::{Link, NetDevice, PacketOf};
use crate::header::checksum::{Verdict, verify};
use crate::header::{At, Network, Protocol};

pub(super) struct Receive<N: NetDevice> {
    /// Held, if it has one slot.
    packet: Option<PacketOf<N>>,
    /// Another one is held.
    copied: Option<CopiedTo>,
    /// What is held has been handed up and may go.
    is_done: bool,
    linear: Linear,
    reassembly: Reassembly,
    /// To be sent before anything else is received.
    answer: Option<Taken>,
    /// Packets taken in this round.
    burst: u32,
    /// A round has ended, and nobody has flushed.
    owes_flush: bool,
    /// What is held waits for room to answer.
    wants_room: bool,
    wrong: u64,
    held_back: u64,
    held_without_memory: u64,
    answered: u64,
}

/// Where a packet is that has been copied.
enum CopiedTo {
    /// Gathered, from this byte on.
    Linear(usize),
    /// Put together of fragments.
    Reassembly,
}

/// What becomes of a packet.
enum Fate {
    /// The stack gets it.
    Up,
    /// Its checksum is wrong, or its headers.
    Wrong,
    /// It has been dealt with.
    Done,
}

impl Fate {
    #[inline]
    fn of(is_good: bool) -> Fate {
        if is_good { Fate::Up } else { Fate::Wrong }
    }
}

impl<N: NetDevice> Receive<N> {
    pub(super) fn new() -> Receive<N> {
        Receive {
            packet: None,
            copied: None,
            is_done: false,
            linear: Linear::with_capacity(MAX_FRAME),
            reassembly: Reassembly::new(),
            answer: None,
            burst: 0,
            owes_flush: false,
            wants_room: false,
            wrong: 0,
            held_back: 0,
            held_without_memory: 0,
            answered: 0,
        }
    }

    /// Whether there is a packet to hand up.
    pub(super) fn fetch(&mut self, tx: &mut Transmit<N>, own: &Own, now: Instant) -> bool {
        if core::mem::take(&mut self.wants_room) {
            tx.below().pause_receive(false);
        }
        if self.is_done {
            self.is_done = false;
            self.drop_held(tx);
        } else if self.is_held() {
            // The last round stopped for want of room.
            tx.flush();
            if self.has_packet() {
                return true;
            }
            if self.answer.is_some() && !self.send_answer(tx) {
                return false;
            }
        }
        if self.burst == 0 {
            tx.begin_round();
        }
        while self.burst < BURST {
            self.burst += 1;
            if tx.below().receive(1, |packet| self.packet = Some(packet)) == 0 {
                break;
            }
            match self.look(tx, own, now) {
                Fate::Up => return true,
                Fate::Wrong => self.wrong += 1,
                Fate::Done => {}
            }
            self.drop_held(tx);
            if self.answer.is_some() && !self.send_answer(tx) {
                return false;
            }
        }
        self.burst = 0;
        if core::mem::replace(&mut self.owes_flush, true) {
            tx.flush();
        }
        false
    }

    /// Puts a packet that has just come into one slice, and verifies its checksum if that is due.
    #[inline]
    fn look(&mut self, tx: &mut Transmit<N>, own: &Own, now: Instant) -> Fate {
        let Some(packet) = &self.packet else { return Fate::Done };
        // A large packet's is blank, whatever its state says.
        let is_known = packet.meta.checksum != Checksum::Unknown || packet.meta.gso.is_some();
        if packet.fragments().len() == 1 {
            if is_plain(packet.head()) {
                return Fate::of(is_known || verify(packet) != Verdict::Wrong);
            }
        } else {
            let bytes = &*self.linear.gather(packet);
            if is_plain(bytes) {
                let is_good = is_known || verify(&AnyPacket::from(bytes)) != Verdict::Wrong;
                self.drop_held(tx);
                self.copied = Some(CopiedTo::Linear(0));
                return Fate::of(is_good);
            }
            self.drop_held(tx);
            self.copied = Some(CopiedTo::Linear(0));
        }
        self.look_closer(tx, is_known, own, now)
    }

    #[inline(never)] // in one place, the packet need not be moved
    fn drop_held(&mut self, tx: &mut Transmit<N>) {
        self.copied = None;
        if let Some(packet) = self.packet.take() {
            tx.below().recycle(packet);
        }
    }

    fn has_packet(&self) -> bool {
        self.packet.is_some() || self.copied.is_some()
    }

    /// What has been fetched, for the stack.
    pub(super) fn token(&mut self) -> RxToken<'_, N> {
        RxToken { rx: self }
    }

    /// What has been fetched stays until there is room to transmit, and memory.
    pub(super) fn hold(&mut self, want: Want) {
        match want {
            Want::Room => {
                self.held_back += 1;
                self.wants_room = true;
            }
            Want::Memory => self.hold_copied(),
        }
    }

    /// Before waiting: more packets are not waited for while nothing can be sent at all.
    pub(super) fn before_waiting(&mut self, tx: &mut Transmit<N>) {
        if self.wants_room && tx.below().link() != Link::Up {
            tx.below().pause_receive(true);
        }
    }

    #[cold]
    fn hold_copied(&mut self) {
        self.held_without_memory += 1;
        if let Some(packet) = self.packet.take() {
            let _ = self.linear.gather(&packet);
            self.copied = Some(CopiedTo::Linear(0));
        }
    }

    pub(super) fn is_held(&self) -> bool {
        (self.has_packet() || self.answer.is_some()) && !self.is_done
    }

    pub(super) fn flushed(&mut self) {
        self.owes_flush = false;
    }

    pub(super) fn count(&self, counters: &mut Counters) {
        counters.linearised_packets += self.linear.packets();
        counters.linearised_bytes += self.linear.bytes();
        counters.checksums_wrong += self.wrong;
        counters.held_back += self.held_back;
        counters.held_without_memory += self.held_without_memory;
        counters.probes_answered += self.answered;
        self.reassembly.count(counters);
    }
}

/// A received packet. Dropped unused, the packet is not lost.
pub struct RxToken<'a, N: NetDevice> {
    rx: &'a mut Receive<N>,
}

impl<N: NetDevice> phy::RxToken for RxToken<'_, N> {
    #[inline]
    fn consume<R, F>(self, f: F) -> R
    where
        F: FnOnce(&[u8]) -> R,
    {
        let Receive { packet, copied, is_done, linear, reassembly, .. } = self.rx;
        *is_done = true;
        f(match copied {
            Some(CopiedTo::Reassembly) => reassembly.whole(),
            _ => arrived::<N>(packet, copied, linear),
        })
    }
}

#[cfg(feature = "embassy")]
impl<N: NetDevice> RxToken<'_, N> {
    /// As `consume`, for who may write to the bytes: where they are if nobody else reads them.
    pub(super) fn consume_mut<R>(self, f: impl FnOnce(&mut [u8]) -> R) -> R {
        let Receive { packet, copied, is_done, linear, reassembly, .. } = self.rx;
        *is_done = true;
        match packet.take().map(AnyPacket::try_into_mut) {
            Some(Ok(mut own)) => {
                let result = f(own.fragments_mut().first_mut().map_or(&mut [], BufMut::bytes_mut));
                *packet = Some(own.freeze());
                return result;
            }
            Some(Err(shared)) => {
                linear.gather(&shared);
                *packet = Some(shared);
                return f(linear.contents_mut());
            }
            None => {}
        }
        f(match copied {
            Some(CopiedTo::Reassembly) => reassembly.whole_mut(),
            Some(CopiedTo::Linear(from)) => {
                linear.contents_mut().get_mut(*from..).unwrap_or_default()
            }
            None => &mut [],
        })
    }
}

impl<N: NetDevice> core::fmt::Debug for RxToken<'_, N> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Receive { packet, copied, linear, reassembly, .. } = &*self.rx;
        let frame = match copied {
            Some(CopiedTo::Reassembly) => reassembly.whole(),
            _ => arrived::<N>(packet, copied, linear),
        };
        write!(f, "RxToken({} bytes)", frame.len())
    }
}

/// The bytes of a frame that has come.
#[inline]
fn arrived<'a, N: NetDevice>(
    packet: &'a Option<PacketOf<N>>,
    copied: &Option<CopiedTo>,
    linear: &'a Linear,
) -> &'a [u8] {
    match (packet, copied) {
        (Some(packet), _) => packet.head(),
        (None, Some(CopiedTo::Linear(from))) => linear.contents().get(*from..).unwrap_or_default(),
        (None, _) => &[],
    }
}

/// Whether a frame is nothing but IP, whole, from somebody with an address.
#[inline]
fn is_plain(frame: &[u8]) -> bool {
    match At::new(frame).open() {
        Some((_, Network::Ipv4(ip))) => ip.peek().is_some_and(|ip| !ip.is_fragment()),
        Some((_, Network::Ipv6(ip))) => ip.peek().is_some_and(|ip| {
            matches!(ip.next_header, Protocol::TCP | Protocol::UDP | Protocol::ICMPV6)
                && ip.source != [0; 16]
        }),
        _ => false,
    }
}
