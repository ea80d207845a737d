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

use core::num::NonZeroU16;

use zerocopy::FromBytes;

use super::layout::Layout;
use super::segment::{CWR, URG};
use crate::buffer::{Checksum, Meta, Packet, View};
use crate::header::checksum::Sum;
use crate::header::{Ipv4, Ipv6, Narrow, Tcp, ViewMut};
use crate::netif::Capabilities;
use crate::wire::{Gso, GsoKind, MAX_PACKET, MAX_SLOTS};

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

/// What is known of the segments that wait.
#[derive(Clone, Copy)]
struct Run {
    at: Layout,
    segments: u16,
    /// Data of the first.
    size: usize,
    /// Data of all.
    data: usize,
    ids: Ids,
    /// The last one's identification.
    id: u16,
    flags: u8,
}

/// What IPv4's identification does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ids {
    /// There is only one, or it is IPv6.
    Any,
    Same,
    Counting,
}

/// Whether a packet joins those that wait.
enum Verdict {
    Joins(Run),
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
            Verdict::Joins(run) => self.join(run, packet.into_fragments(), sink),
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
            Verdict::Joins(run) => self.join(run, Some(buf), sink),
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
        if run.segments > 1 && finish(&mut packet, &run).is_some() {
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
        run: Run,
        fragments: impl IntoIterator<Item = V>,
        sink: impl FnMut(Packet<V>),
    ) {
        let mut headers = run.at.payload;
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
        self.run = Some(run);
        if run.flags & Tcp::PSH != 0 || !run.data.is_multiple_of(run.size) {
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
        let Some((at, id)) = candidate(head, len) else { return Verdict::Passes };
        match at.kind {
            GsoKind::TcpV4 if !self.v4 => return Verdict::Passes,
            GsoKind::TcpV6 if !self.v6 => return Verdict::Passes,
            _ => {}
        }
        if let Some(run) = &self.run
            && let Some(run) = joins(run, self.pending.head(), &at, head, id)
            && self.fits(fragments)
        {
            return Verdict::Joins(run);
        }
        if at.flags & Tcp::PSH != 0 {
            return Verdict::Passes;
        }
        Verdict::Starts(Run {
            at,
            segments: 1,
            size: at.data(),
            data: at.data(),
            ids: Ids::Any,
            id,
            flags: at.flags,
        })
    }

    /// Whether there are slots for a packet's fragments, even if none of them is all headers.
    #[inline]
    fn fits(&self, fragments: &[V]) -> bool {
        self.pending.fragments().len() + fragments.len() <= self.max_fragments
    }
}

/// Whether a packet can be put together with others at all; where its headers are, and its IPv4
/// identification.
#[inline]
fn candidate(head: &[u8], len: usize) -> Option<(Layout, u16)> {
    let at = Layout::of(head, len).ok()?;
    let one_segment = Tcp::SYN | Tcp::FIN | Tcp::RST | URG;
    if at.end != len || at.data() == 0 || at.flags & (one_segment | Tcp::ACK) != Tcp::ACK {
        return None;
    }
    if at.kind == GsoKind::TcpV6 {
        return Some((at, 0));
    }
    let header = head.get(at.ip..at.tcp)?;
    let (ip, options) = Ipv4::ref_from_prefix(header).ok()?;
    (options.is_empty() && Sum::of(header).is_right()).then_some((at, ip.id.get()))
}

/// The segments with one more; `None` if it does not belong to them.
#[inline]
fn joins(run: &Run, first: &[u8], at: &Layout, next: &[u8], id: u16) -> Option<Run> {
    let same_shape = (run.at.kind, run.at.ip, run.at.tcp, run.at.payload)
        == (at.kind, at.ip, at.tcp, at.payload);
    let data = run.data + at.data();
    if !same_shape || at.data() > run.size || run.at.payload + data > MAX_PACKET {
        return None;
    }
    // CWR may be in the first only.
    if (run.flags ^ at.flags) & !(Tcp::PSH | CWR) != 0 || at.flags & CWR != 0 {
        return None;
    }
    let same_flow = first.get(..at.ip)? == next.get(..at.ip)?
        && same_tcp(first.get(at.tcp..at.payload)?, next.get(at.tcp..at.payload)?, run.data)?;
    if !same_flow {
        return None;
    }
    let (ip, next) = (first.get(at.ip..)?, next.get(at.ip..)?);
    let ids = match at.kind {
        GsoKind::TcpV4 => same_v4(run, ip, next, id)?,
        GsoKind::TcpV6 => same_v6(ip, next)?,
    };
    let segments = run.segments.checked_add(1)?;
    Some(Run { segments, data, ids, id, flags: run.flags | at.flags, ..*run })
}

/// What the identification does, if IPv4 headers are of one flow.
#[inline]
fn same_v4(run: &Run, first: &[u8], next: &[u8], id: u16) -> Option<Ids> {
    let (a, _) = Ipv4::ref_from_prefix(first).ok()?;
    let (b, _) = Ipv4::ref_from_prefix(next).ok()?;
    let same = a.tos == b.tos
        && a.ttl == b.ttl
        && a.flags_fragment == b.flags_fragment
        && a.source == b.source
        && a.destination == b.destination;
    let ids = if id == run.id.wrapping_add(1) {
        Ids::Counting
    } else if id == run.id && b.flags_fragment.get() & Ipv4::DONT_FRAGMENT != 0 {
        Ids::Same
    } else {
        return None;
    };
    (same && (run.ids == Ids::Any || run.ids == ids)).then_some(ids)
}

#[inline]
fn same_v6(first: &[u8], next: &[u8]) -> Option<Ids> {
    let (a, _) = Ipv6::ref_from_prefix(first).ok()?;
    let (b, _) = Ipv6::ref_from_prefix(next).ok()?;
    let same = a.version_class_flow == b.version_class_flow
        && a.hop_limit == b.hop_limit
        && a.source == b.source
        && a.destination == b.destination;
    same.then_some(Ids::Any)
}

/// Whether a TCP header with its options continues the first, `data` bytes on. Flags and checksum
/// are not compared.
#[inline]
fn same_tcp(first: &[u8], next: &[u8], data: usize) -> Option<bool> {
    let (a, a_options) = Tcp::ref_from_prefix(first).ok()?;
    let (b, b_options) = Tcp::ref_from_prefix(next).ok()?;
    Some(
        a.source == b.source
            && a.destination == b.destination
            // `data` is at most 65535.
            && b.sequence.get() == a.sequence.get().wrapping_add(data as u32)
            && a.acknowledgment == b.acknowledgment
            && a.data_offset == b.data_offset
            && a.window == b.window
            && a.urgent == b.urgent
            && a_options == b_options,
    )
}

/// Writes the headers of a packet made of several segments.
fn finish<V: ViewMut>(packet: &mut Packet<V>, run: &Run) -> Option<()> {
    let size = NonZeroU16::new(u16::try_from(run.size).ok()?)?;
    let head = packet.fragments_mut().first_mut()?.bytes_mut();
    let headers = head.get_mut(..run.at.payload)?;
    run.at.seal(headers, run.data)?;
    run.at.tcp(headers)?.flags = run.flags;
    packet.meta = Meta { checksum: Checksum::Blank, gso: Some(Gso { size, kind: run.at.kind }) };
    Some(())
}
