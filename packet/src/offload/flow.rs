//! Whether segments belong together: the rules of [`Coalescer`](super::Coalescer).
//!
//! ```text
//!  first  | Ethernet | IP ........ | TCP ........ options |     read once: lengths, flags, sums
//!             =           =              =           =          equal, so no need to read it again
//!  next   | Ethernet | IP ........ | TCP ........ options |     but for length, id, sequence, PSH
//! ```

use core::num::NonZeroU16;

use zerocopy::{FromBytes, IntoBytes};

use super::layout::Layout;
use crate::buffer::{AnyPacket, Checksum, Meta};
use crate::buffer::{Gso, GsoKind, MAX_PACKET};
use crate::header::checksum::Sum;
use crate::header::{ETHERNET_HEADER, Extensions, Ipv4, Ipv6, Pieces, Tcp, U16, U32, ViewMut};

/// Flags that only a segment of its own can have.
const ALONE: u8 = Tcp::SYN | Tcp::FIN | Tcp::RST | Tcp::URG;

/// Segments that belong together, so far.
#[derive(Clone, Copy)]
pub(super) struct Run {
    /// The first packet's.
    pub(super) at: Layout,
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
    /// What is right in IPv4's checksum, see [`of_what_differs`].
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
        let is_plain = at.payload <= head.len()
            && at.extensions == Extensions::default()
            && at.end == len
            && at.flags & (ALONE | Tcp::PSH | Tcp::ACK) == Tcp::ACK;
        if !is_plain || at.data() == 0 {
            return None;
        }
        let (mut id, mut residue) = (0, 0);
        if at.kind == GsoKind::TcpV4 {
            let header = head.get(at.ip..at.tcp)?;
            let (ip, options) = Ipv4::ref_from_prefix(header).ok()?;
            if !options.is_empty() || !Sum::of(header).is_right() {
                return None;
            }
            (id, residue) = (ip.id.get(), of_what_differs(ip));
        }
        let ports = head.read(at.tcp)?;
        let data = at.data();
        let size = match meta.gso {
            Some(gso) if gso.kind == at.kind => gso.size.get().into(),
            Some(_) => return None,
            None => data,
        };
        let (segments, ids, flags) = (1, Ids::Any, at.flags);
        Some(Run { at, ports, segments, size, data, ids, id, residue, flags })
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
        let (first, next) = (first.get(..self.at.payload)?, next.get(..self.at.payload)?);
        let flags = self.same_tcp(first, next)?;
        // Most have no tag.
        let (ip, ethernet) = (self.at.ip, first.first_chunk::<ETHERNET_HEADER>());
        let same_link = ethernet == next.first_chunk()
            && (ip == ETHERNET_HEADER || first.get(..ip) == next.get(..ip));
        if !same_link {
            return None;
        }
        let (ids, id) = match self.at.kind {
            GsoKind::TcpV4 => self.same_v4(first, next, len - self.at.ip)?,
            GsoKind::TcpV6 => self.same_v6(first, next, len - self.at.tcp)?,
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

    /// Writes the headers of a packet that all the run's data has been added to.
    pub(super) fn finish<V: ViewMut>(&self, packet: &mut AnyPacket<V>) -> Option<()> {
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
        let (a, a_options) = Tcp::ref_from_prefix(first.get(self.at.tcp..)?).ok()?;
        let (b, b_options) = Tcp::ref_from_prefix(next.get(self.at.tcp..)?).ok()?;
        // `data` is at most 65535.
        let sequence = U32::new(a.sequence.get().wrapping_add(self.data as u32));
        let expected = Tcp { sequence, flags: b.flags, checksum: b.checksum, ..*a };
        // CWR may be in the first only. What is in `ALONE` is not in the first.
        let has_flags =
            (a.flags ^ b.flags) & !(Tcp::PSH | Tcp::CWR) == 0 && b.flags & Tcp::CWR == 0;
        let same = has_flags && expected.as_bytes() == b.as_bytes() && a_options == b_options;
        same.then_some(b.flags)
    }

    /// What the identification does, and the next one's, if its IPv4 header is of the same flow
    /// and right.
    #[inline]
    fn same_v4(&self, first: &[u8], next: &[u8], len: usize) -> Option<(Ids, u16)> {
        let (a, b): (Ipv4, Ipv4) = (first.read(self.at.ip)?, next.read(self.at.ip)?);
        let total_len = U16::new(u16::try_from(len).ok()?);
        let expected = Ipv4 { total_len, id: b.id, checksum: b.checksum, ..a };
        let same = expected.as_bytes() == b.as_bytes() && of_what_differs(&b) == self.residue;
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

    /// The same of an IPv6 header, which has none.
    #[inline]
    fn same_v6(&self, first: &[u8], next: &[u8], len: usize) -> Option<(Ids, u16)> {
        let (a, b): (Ipv6, Ipv6) = (first.read(self.at.ip)?, next.read(self.at.ip)?);
        let expected = Ipv6 { payload_len: U16::new(u16::try_from(len).ok()?), ..a };
        (expected.as_bytes() == b.as_bytes()).then_some((Ids::Any, 0))
    }
}

/// What the fields that differ between segments, and the checksum, add to the sum of an IPv4
/// header. One's complement sums are numbers modulo 65535 (RFC 1071), so a header that is else the
/// same as one whose checksum is right, is right if this is the same.
#[inline]
fn of_what_differs(ip: &Ipv4) -> u32 {
    let sum = u32::from(ip.total_len.get()) + u32::from(ip.id.get()) + u32::from(ip.checksum.get());
    sum % 0xffff
}
