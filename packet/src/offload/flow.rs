//! Whether segments belong together: the rules of [`Coalescer`](super::Coalescer).
//!
//! ```text
//!  first  | Ethernet | IP ........ | TCP ........ options |     read once: lengths, flags, sums
//!             =           =              =           =          equal, so no need to read it again
//!  next   | Ethernet | IP ........ | TCP ........ options |     but for length, id, sequence, PSH
//! ```

use core::num::NonZeroU16;

use zerocopy::FromBytes;

use super::layout::Layout;
use crate::buffer::{Checksum, Meta, Packet};
use crate::buffer::{Gso, GsoKind, MAX_PACKET};
use crate::header::checksum::Sum;
use crate::header::{ETHERNET_HEADER, Extensions, Ipv4, Ipv6, Tcp, ViewMut};

/// Flags that only a segment of its own can have.
const ALONE: u8 = Tcp::SYN | Tcp::FIN | Tcp::RST | Tcp::URG;

/// Segments that belong together, so far.
#[derive(Clone, Copy)]
pub(super) struct Run {
    at: Layout,
    /// Source and destination, as they come.
    ports: [u8; 4],
    pub(super) segments: u16,
    /// Data of each segment that it is cut into: that of the first, or its GSO size.
    size: usize,
    /// Data of all.
    data: usize,
    ids: Ids,
    /// The last one's identification.
    id: u16,
    /// What is right in IPv4's checksum, see [`residue`].
    residue: u32,
    /// All their flags.
    flags: u8,
}

/// What one more segment adds.
#[derive(Clone, Copy)]
pub(super) struct Step {
    data: usize,
    ids: Ids,
    id: u16,
    flags: u8,
    /// None can follow.
    pub(super) is_last: bool,
}

/// What IPv4's identification does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ids {
    /// There is only one, or it is IPv6.
    Any,
    Same,
    Counting,
}

impl Run {
    /// A run of one packet; `None` if none could join it.
    #[inline]
    pub(super) fn start(head: &[u8], len: usize, meta: Meta) -> Option<Run> {
        let at = Layout::of(head, len, meta.checksum).ok()?;
        if at.payload > head.len() || at.extensions != Extensions::default() {
            return None;
        }
        if at.end != len || at.data() == 0 || at.flags & (ALONE | Tcp::PSH | Tcp::ACK) != Tcp::ACK {
            return None;
        }
        let (mut id, mut right) = (0, 0);
        if at.kind == GsoKind::TcpV4 {
            let header = head.get(at.ip..at.tcp)?;
            let (ip, options) = Ipv4::ref_from_prefix(header).ok()?;
            if !options.is_empty() || !Sum::of(header).is_right() {
                return None;
            }
            (id, right) = (ip.id.get(), residue(ip));
        }
        let (ports, _) = head.get(at.tcp..)?.split_first_chunk()?;
        let data = at.data();
        let size = match meta.gso {
            Some(gso) if gso.kind == at.kind => gso.size.get().into(),
            Some(_) => return None,
            None => data,
        };
        let (ports, flags, residue) = (*ports, at.flags, right);
        Some(Run { at, ports, segments: 1, size, data, ids: Ids::Any, id, residue, flags })
    }

    /// Whether a packet that begins so may be of the same flow: a look at the ports, to save all
    /// the others.
    #[inline]
    pub(super) fn is_like(&self, next: &[u8]) -> bool {
        let ports = next.get(self.at.tcp..).and_then(<[u8]>::first_chunk);
        ports == Some(&self.ports)
    }

    /// What the next packet, of `len` bytes, adds to the run that starts with `first`; `None` if
    /// it does not belong there.
    ///
    /// Every header field that is not looked at for itself is compared with the first packet's, so
    /// what was found out about that one (lengths, flags, that there are no IPv4 options) goes for
    /// this one too.
    #[inline]
    pub(super) fn step(
        &self,
        first: &[u8],
        next: &[u8],
        len: usize,
        gso: Option<Gso>,
    ) -> Option<Step> {
        let data = len.checked_sub(self.at.payload)?;
        let total = self.at.payload + self.data + data;
        let fits = match gso {
            Some(gso) => usize::from(gso.size.get()) == self.size,
            None => data <= self.size,
        };
        if data == 0 || !fits || total > MAX_PACKET {
            return None;
        }
        let (first, a_options) = first.get(..self.at.payload)?.split_at_checked(self.at.tcp)?;
        let (next, b_options) = next.get(..self.at.payload)?.split_at_checked(self.at.tcp)?;
        let flags = self.same_tcp(a_options, b_options)?;
        let (ethernet, a) = first.split_first_chunk::<ETHERNET_HEADER>()?;
        let (other, b) = next.split_first_chunk::<ETHERNET_HEADER>()?;
        let (a_tag, a) = a.split_at_checked(self.at.ip - ETHERNET_HEADER)?;
        let (b_tag, b) = b.split_at_checked(self.at.ip - ETHERNET_HEADER)?;
        if ethernet != other || !a_tag.is_empty() && a_tag != b_tag {
            return None;
        }
        let (ids, id) = match self.at.kind {
            GsoKind::TcpV4 => self.same_v4(a, b, len - self.at.ip)?,
            GsoKind::TcpV6 => same_v6(a, b, len - self.at.tcp)?,
        };
        let is_last = data < self.size || flags & Tcp::PSH != 0;
        Some(Step { data, ids, id, flags, is_last })
    }

    /// One more segment.
    #[inline]
    pub(super) fn add(&mut self, step: Step) {
        // At most one a byte of a packet.
        self.segments += 1;
        self.data += step.data;
        self.ids = step.ids;
        self.id = step.id;
        self.flags |= step.flags;
    }

    /// Bytes of each packet's headers.
    #[inline]
    pub(super) fn headers(&self) -> usize {
        self.at.payload
    }

    #[inline]
    pub(super) fn kind(&self) -> GsoKind {
        self.at.kind
    }

    /// Writes the headers of a packet that all the run's data has been added to.
    pub(super) fn finish<V: ViewMut>(&self, packet: &mut Packet<V>) -> Option<()> {
        let size = NonZeroU16::new(u16::try_from(self.size).ok()?)?;
        let head = packet.fragments_mut().first_mut()?.bytes_mut();
        let headers = head.get_mut(..self.at.payload)?;
        self.at.seal(headers, self.data)?;
        self.at.tcp(headers)?.flags = self.flags;
        packet.meta =
            Meta { checksum: Checksum::Blank, gso: Some(Gso { size, kind: self.at.kind }) };
        Some(())
    }

    /// The next one's flags, if its TCP header with the options continues the run.
    #[inline]
    fn same_tcp(&self, first: &[u8], next: &[u8]) -> Option<u8> {
        let (a, a_options) = Tcp::ref_from_prefix(first).ok()?;
        let (b, b_options) = Tcp::ref_from_prefix(next).ok()?;
        // `data` is at most 65535.
        let sequence = a.sequence.get().wrapping_add(self.data as u32);
        let same = b.sequence.get() == sequence
            && a.source == b.source
            && a.destination == b.destination
            && a.acknowledgment == b.acknowledgment
            && a.data_offset == b.data_offset
            // CWR may be in the first only. What is in `ALONE` is not in the first.
            && (a.flags ^ b.flags) & !(Tcp::PSH | Tcp::CWR) == 0
            && b.flags & Tcp::CWR == 0
            && a.window == b.window
            && a.urgent == b.urgent
            && a_options == b_options;
        same.then_some(b.flags)
    }

    /// What the identification does, and the next one's, if its IPv4 header is of the same flow
    /// and right.
    #[inline]
    fn same_v4(&self, first: &[u8], next: &[u8], len: usize) -> Option<(Ids, u16)> {
        let (a, _) = Ipv4::ref_from_prefix(first).ok()?;
        let (b, _) = Ipv4::ref_from_prefix(next).ok()?;
        let same = a.version_ihl == b.version_ihl
            && a.tos == b.tos
            && usize::from(b.total_len.get()) == len
            && a.flags_fragment == b.flags_fragment
            && a.ttl == b.ttl
            && a.protocol == b.protocol
            && a.source == b.source
            && a.destination == b.destination
            && residue(b) == self.residue;
        let id = b.id.get();
        let ids = if id == self.id.wrapping_add(1) {
            Ids::Counting
        } else if id == self.id && b.flags_fragment.get() & Ipv4::DONT_FRAGMENT != 0 {
            Ids::Same
        } else {
            return None;
        };
        (same && (self.ids == Ids::Any || self.ids == ids)).then_some((ids, id))
    }
}

#[inline]
fn same_v6(first: &[u8], next: &[u8], len: usize) -> Option<(Ids, u16)> {
    let (a, _) = Ipv6::ref_from_prefix(first).ok()?;
    let (b, _) = Ipv6::ref_from_prefix(next).ok()?;
    let same = a.version_class_flow == b.version_class_flow
        && usize::from(b.payload_len.get()) == len
        && a.next_header == b.next_header
        && a.hop_limit == b.hop_limit
        && a.source == b.source
        && a.destination == b.destination;
    same.then_some((Ids::Any, 0))
}

/// What the fields that differ between segments, and the checksum, add to the sum of an IPv4
/// header. One's complement sums are numbers modulo 65535 (RFC 1071), so a header that is else the
/// same as one whose checksum is right, is right if this is the same.
#[inline]
fn residue(ip: &Ipv4) -> u32 {
    let sum = u32::from(ip.total_len.get()) + u32::from(ip.id.get()) + u32::from(ip.checksum.get());
    sum % 0xffff
}
