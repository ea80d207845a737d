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
//! Only packets that come right after each other are put together, so nothing overtakes anything,
//! in a flow or across flows. Whether one joins is decided as Linux's GRO does it, whose rules
//! make sure that cutting the packet again gives the segments back (RFC 9293 for the fields):
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
//! | checksum | complete or blank. Of an unknown one nobody knows if it is right, and it could not be told afterwards |

use super::flow::{Run, Step};
use crate::buffer::{Checksum, Meta, Packet, View};
use crate::header::{Narrow, ViewMut};
use crate::netif::Capabilities;
use crate::wire::{GsoKind, MAX_SLOTS};

/// What a [`Coalescer`] has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
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
/// At most one packet waits here, until [`flush`](Coalescer::flush) at the end of a burst. Packets
/// are written in place, so fragments have one owner; those that are shared can be tried with
/// [`Packet::try_into_tx`].
///
/// ```
/// # use xen_netfront::buffer::{HeapBlock, TxPacket};
/// # use xen_netfront::netif::Capabilities;
/// use xen_netfront::offload::Coalescer;
///
/// # fn send(_: TxPacket<HeapBlock>) {}
/// # fn burst(capabilities: &Capabilities, packets: Vec<TxPacket<HeapBlock>>) {
/// let mut coalescer = Coalescer::new(capabilities);
/// for packet in packets {
///     coalescer.push(packet, send);
/// }
/// coalescer.flush(send);
/// # }
/// ```
pub struct Coalescer<V> {
    /// The segments so far in one packet, headers as they came; empty if there are none.
    pending: Packet<V>,
    run: Option<Run>,
    max_fragments: usize,
    v4: bool,
    v6: bool,
    stats: Stats,
}

/// Whether a packet joins those that wait.
enum Verdict {
    Joins(Step),
    /// It does not; others could join it.
    Starts(Run),
    Passes,
}

impl<V: View + ViewMut + Narrow> Coalescer<V> {
    /// For a device that can do this. What it can't cut (GSO of that kind, with blank checksums),
    /// passes.
    pub fn new(device: &Capabilities) -> Coalescer<V> {
        let max_fragments = device.max_fragments.min(MAX_SLOTS);
        Coalescer {
            pending: Packet::new(),
            run: None,
            max_fragments,
            v4: max_fragments > 1 && device.gso_v4 && device.checksum_v4,
            v6: max_fragments > 1 && device.gso_v6 && device.checksum_v6,
            stats: Stats::default(),
        }
    }

    /// What it has done.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// Whether a packet waits.
    #[inline]
    pub fn is_pending(&self) -> bool {
        self.run.is_some()
    }

    /// Takes a packet. `sink` gets those that are done, in the order they came: none, one, or two.
    #[inline]
    pub fn push(&mut self, packet: Packet<V>, mut sink: impl FnMut(Packet<V>)) {
        self.stats.taken += 1;
        match self.judge(packet.fragments(), packet.meta) {
            Verdict::Joins(step) => self.join(step, packet.into_fragments(), sink),
            Verdict::Starts(run) => {
                self.flush(sink);
                self.run = Some(run);
                self.pending = packet;
            }
            Verdict::Passes => {
                self.flush(&mut sink);
                self.stats.unchanged += 1;
                sink(packet);
            }
        }
    }

    /// As [`push`](Coalescer::push), for a packet of one fragment.
    #[inline]
    pub fn push_single(&mut self, buf: V, meta: Meta, mut sink: impl FnMut(Packet<V>)) {
        self.stats.taken += 1;
        match self.judge(core::slice::from_ref(&buf), meta) {
            Verdict::Joins(step) => self.join(step, Some(buf), sink),
            Verdict::Starts(run) => {
                self.flush(sink);
                self.run = Some(run);
                self.pending.meta = meta;
                // Flushed, it is empty.
                let _ = self.pending.push(buf);
            }
            Verdict::Passes => {
                self.flush(&mut sink);
                self.stats.unchanged += 1;
                let mut packet = Packet::from(buf);
                packet.meta = meta;
                sink(packet);
            }
        }
    }

    /// Hands on what waits: at the end of a burst.
    #[inline]
    pub fn flush(&mut self, mut sink: impl FnMut(Packet<V>)) {
        let Some(run) = self.run.take() else { return };
        let mut packet = core::mem::take(&mut self.pending);
        if run.segments > 1 && run.finish(&mut packet).is_some() {
            self.stats.coalesced += 1;
            self.stats.segments += u64::from(run.segments);
        } else {
            self.stats.unchanged += 1;
        }
        sink(packet);
    }

    /// Adds a packet's data to what waits.
    #[inline]
    fn join(
        &mut self,
        step: Step,
        fragments: impl IntoIterator<Item = V>,
        sink: impl FnMut(Packet<V>),
    ) {
        let Some(run) = &mut self.run else { return };
        let mut headers = run.headers();
        run.add(step);
        for mut fragment in fragments {
            let now = headers.min(fragment.bytes().len());
            // There are that many.
            let _ = fragment.advance_by(now);
            headers -= now;
            if !fragment.bytes().is_empty() {
                // They have been counted.
                let _ = self.pending.push(fragment);
            }
        }
        if step.is_last {
            self.flush(sink);
        }
    }

    #[inline]
    fn judge(&self, fragments: &[V], meta: Meta) -> Verdict {
        if meta.gso.is_some() || meta.checksum == Checksum::Unknown || !(self.v4 || self.v6) {
            return Verdict::Passes;
        }
        let head = fragments.first().map_or(&[][..], View::bytes);
        let len = fragments.iter().map(|fragment| fragment.bytes().len()).sum();
        // As if none of its fragments were all headers.
        let slots = self.pending.fragments().len() + fragments.len();
        if let Some(run) = &self.run
            && slots <= self.max_fragments
            && let Some(step) = run.step(self.pending.head(), head, len)
        {
            return Verdict::Joins(step);
        }
        match Run::start(head, len) {
            Some(run) if self.takes(run.kind()) => Verdict::Starts(run),
            _ => Verdict::Passes,
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
