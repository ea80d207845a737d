//! Putting consecutive segments of a flow together, without a copy.
//!
//! ```text
//!  push    | headers | data 1 |     starts: it waits
//!  push    |.headers.| data 2 |     joins: its headers are skipped
//!  push    |.headers.| data 3 |     joins; shorter than the first, or PSH: nothing can follow
//!            │
//!            ▼
//!  sink    | headers | data 1 | data 2 | data 3 |      lengths, checksums and PSH rewritten
//!                                                      meta: GSO size of data 1, blank checksum
//! ```
//!
//! Up to eight flows have a packet waiting, for a stack that serves its sockets in turn:
//!
//! ```text
//!  push   A1 B1 C1 A2 B2 U A3 B3 flush     U is UDP, A and B are flows of many segments
//!  sink   U A1-A3 B1-B3 C1                 the oldest first; with a ninth flow, it leaves at once
//! ```
//!
//! A flow's packets stay in order: one that does not join leaves after what waits of its flow, and
//! one whose flow can't be told (a fragment of an IP packet, headers that are cut short) after all
//! that waits. Other packets need not wait, so they overtake. Whether a segment joins is decided
//! as Linux's GRO does it, whose rules make sure that cutting the packet again gives the segments
//! back (RFC 9293 for the fields):
//!
//! | | a segment joins if |
//! |---|---|
//! | Ethernet | the header is the same, its VLAN tag included |
//! | IPv4 | version, TOS, TTL, DF and addresses are the same; no options, no padding, and the header's checksum is right |
//! | identification | it goes up by one with every segment, or it stays and DF is set in all: RFC 6864 gives it no meaning then. Cut again, the latter goes up too |
//! | IPv6 | traffic class, flow label, hop limit and addresses are the same; no extension headers, no padding |
//! | TCP | ports, acknowledgment, window, urgent pointer and all options are the same, timestamps too; the sequence number follows |
//! | flags | the same, ACK set, none of SYN, FIN, RST and URG. PSH may be set in the last, CWR (RFC 3168) in the first |
//! | data | as much as in the first, or less in the last, and some |
//! | GSO | the size is that of the first's segments. Of such a packet there may be any amount of data: all of it is one stream, cut anew |
//! | checksum | complete or blank. Of an unknown one nobody knows if it is right, and it could not be told afterwards |

use arrayvec::ArrayVec;

use super::ends::Ends;
use super::flow::{Run, Step};
use crate::buffer::{AnyPacket, Checksum, Meta, View};
use crate::buffer::{GsoKind, MAX_FRAGMENTS};
use crate::features::Capabilities;
use crate::header::{Narrow, ViewMut};

/// Flows that have a packet waiting, at most.
pub const FLOWS: usize = 8;

/// What a [`Coalescer`] has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Packets taken.
    pub taken: u64,
    /// Packets handed on as they came.
    pub unchanged: u64,
    /// Packets made of several.
    pub coalesced: u64,
    /// Of how many.
    pub segments: u64,
}

/// Puts consecutive segments together into packets that a device takes.
///
/// Packets of up to [`FLOWS`] flows wait here, until [`flush`](Coalescer::flush) at the end of a
/// burst. They are written in place, so fragments have one owner; those that are shared can be
/// tried with [`AnyPacket::try_into_mut`].
///
/// ```
/// # use packet_views::buffer::{HeapBlock, PacketMut};
/// # use packet_views::features::Capabilities;
/// use packet_views::offload::Coalescer;
///
/// # fn send(_: PacketMut<HeapBlock>) {}
/// # fn burst(capabilities: &Capabilities, packets: Vec<PacketMut<HeapBlock>>) {
/// let mut coalescer = Coalescer::new(capabilities);
/// for packet in packets {
///     coalescer.push(packet, send);
/// }
/// coalescer.flush(send);
/// # }
/// ```
pub struct Coalescer<V> {
    /// The oldest first.
    waiting: ArrayVec<Waiting<V>, FLOWS>,
    /// All of theirs.
    fragments: usize,
    max_fragments: usize,
    v4: bool,
    v6: bool,
    counters: Counters,
}

/// The segments of a flow, so far.
struct Waiting<V> {
    run: Run,
    /// In one packet, headers as they came.
    packet: AnyPacket<V>,
}

/// Whether a packet joins those that wait.
enum Merge {
    /// The packet at this place.
    Joins(usize, Step),
    /// It does not; others could join it.
    Starts(Run),
    Passes,
}

impl<V: View + ViewMut + Narrow> Coalescer<V> {
    /// For a device that can do this. What it can't cut (GSO of that kind, with blank checksums),
    /// passes.
    pub fn new(device: &Capabilities) -> Coalescer<V> {
        let mut coalescer = Coalescer {
            waiting: ArrayVec::new_const(),
            fragments: 0,
            max_fragments: 0,
            v4: false,
            v6: false,
            counters: Counters::default(),
        };
        coalescer.adapt(device);
        coalescer
    }

    /// From now on for a device that can do this. What waits is as the old one takes it.
    pub fn adapt(&mut self, device: &Capabilities) {
        self.max_fragments = device.max_fragments.min(MAX_FRAGMENTS);
        let several = self.max_fragments > 1;
        self.v4 = several && device.features.gso_v4 && device.features.checksum_v4;
        self.v6 = several && device.features.gso_v6 && device.features.checksum_v6;
    }

    /// Whether any packet is put together with another: whether the device takes them.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.v4 || self.v6
    }

    /// What it has done.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Whether a packet waits.
    #[inline]
    pub fn is_pending(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The most [`slots`](crate::device::slots) that what waits takes, and a packet that joins it
    /// besides its own fragments.
    #[inline]
    pub fn slots(&self) -> usize {
        // One more each for the GSO size.
        self.fragments + self.waiting.len()
    }

    /// Takes a packet. `sink` gets those that are done: none, one, or several.
    #[inline]
    pub fn push(&mut self, packet: AnyPacket<V>, mut sink: impl FnMut(AnyPacket<V>)) {
        self.counters.taken += 1;
        match self.judge(packet.fragments(), packet.meta) {
            Merge::Joins(at, step) => self.join(at, step, packet.into_fragments(), sink),
            Merge::Starts(run) => {
                self.make_way(packet.fragments(), true, &mut sink);
                self.start(run, packet);
            }
            Merge::Passes => {
                self.make_way(packet.fragments(), false, &mut sink);
                self.counters.unchanged += 1;
                sink(packet);
            }
        }
    }

    /// As [`push`](Coalescer::push), for a packet of one fragment.
    #[inline]
    pub fn push_single(&mut self, buf: V, meta: Meta, mut sink: impl FnMut(AnyPacket<V>)) {
        self.counters.taken += 1;
        match self.judge(core::slice::from_ref(&buf), meta) {
            Merge::Joins(at, step) => self.join(at, step, Some(buf), sink),
            Merge::Starts(run) => {
                self.make_way(core::slice::from_ref(&buf), true, &mut sink);
                self.start(run, with_meta(buf, meta));
            }
            Merge::Passes => {
                self.make_way(core::slice::from_ref(&buf), false, &mut sink);
                self.counters.unchanged += 1;
                sink(with_meta(buf, meta));
            }
        }
    }

    /// Hands on all that waits, the oldest first: at the end of a burst.
    #[inline]
    pub fn flush(&mut self, mut sink: impl FnMut(AnyPacket<V>)) {
        while !self.waiting.is_empty() {
            self.release(0, &mut sink);
        }
    }

    /// Hands on one packet.
    #[inline]
    fn release(&mut self, at: usize, sink: &mut impl FnMut(AnyPacket<V>)) {
        let Some(Waiting { run, mut packet }) = self.waiting.pop_at(at) else { return };
        self.fragments -= packet.fragments().len();
        if run.segments > 1 && run.finish(&mut packet).is_some() {
            self.counters.coalesced += 1;
            self.counters.segments += u64::from(run.segments);
        } else {
            self.counters.unchanged += 1;
        }
        sink(packet);
    }

    /// Hands on what must leave before a packet of these fragments: what may be of its flow, and the
    /// oldest if it is to wait and there is no place.
    #[inline]
    fn make_way(&mut self, packet: &[V], waits: bool, sink: &mut impl FnMut(AnyPacket<V>)) {
        if self.waiting.is_empty() {
            return;
        }
        let ends = Ends::of(packet);
        let mut at = 0;
        while let Some(waiting) = self.waiting.get(at) {
            if ends.may_be(Ends::of(&waiting.packet)) {
                self.release(at, sink);
            } else {
                at += 1;
            }
        }
        if waits && self.waiting.is_full() {
            self.release(0, sink);
        }
    }

    /// Lets a packet wait. There is a place.
    #[inline]
    fn start(&mut self, run: Run, packet: AnyPacket<V>) {
        self.fragments += packet.fragments().len();
        let _ = self.waiting.try_push(Waiting { run, packet });
    }

    /// Adds a packet's data to one that waits.
    #[inline]
    fn join(
        &mut self,
        at: usize,
        step: Step,
        fragments: impl IntoIterator<Item = V>,
        mut sink: impl FnMut(AnyPacket<V>),
    ) {
        let Some(Waiting { run, packet }) = self.waiting.get_mut(at) else { return };
        let mut headers = run.at.payload;
        run.add(step);
        for mut fragment in fragments {
            let now = headers.min(fragment.bytes().len());
            // There are that many.
            let _ = fragment.advance_by(now);
            headers -= now;
            if !fragment.bytes().is_empty() {
                self.fragments += 1;
                // They have been counted.
                let _ = packet.push(fragment);
            }
        }
        if step.is_last || packet.fragments().len() >= self.max_fragments {
            self.release(at, &mut sink);
        }
    }

    #[inline]
    fn judge(&self, fragments: &[V], meta: Meta) -> Merge {
        if meta.checksum == Checksum::Unknown || !self.is_on() {
            return Merge::Passes;
        }
        let head = fragments.first().map_or(&[][..], View::bytes);
        let len = fragments.iter().map(|fragment| fragment.bytes().len()).sum();
        for (at, Waiting { run, packet }) in self.waiting.iter().enumerate() {
            // As if none of its fragments were all headers.
            let slots = packet.fragments().len() + fragments.len();
            if run.is_like(head)
                && slots <= self.max_fragments
                && let Some(step) = run.step(packet.head(), head, len, meta.gso)
            {
                return Merge::Joins(at, step);
            }
        }
        match Run::start(head, len, meta) {
            Some(run) if self.takes(run.at.kind) => Merge::Starts(run),
            _ => Merge::Passes,
        }
    }

    #[inline]
    fn takes(&self, kind: GsoKind) -> bool {
        match kind {
            GsoKind::TcpV4 => self.v4,
            GsoKind::TcpV6 => self.v6,
        }
    }
}

#[inline]
fn with_meta<V>(buf: V, meta: Meta) -> AnyPacket<V> {
    let mut packet = AnyPacket::from(buf);
    packet.meta = meta;
    packet
}

impl<V> core::fmt::Debug for Coalescer<V> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Coalescer")
            .field("flows", &self.waiting.len())
            .field("fragments", &self.fragments)
            .field("v4", &self.v4)
            .field("v6", &self.v6)
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}
