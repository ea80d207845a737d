//! Cutting a large TCP packet into segments.
//!
//! ```text
//!  packet     | headers | data ........ | ................ | ...... |     fragments, cut anywhere
//!                  │
//!  template   | headers |  sequence += size, IPv4 id += 1, lengths, sums
//!                  │ copied for each
//!                  ▼
//!  segment 1  | headers | data view |                      CWR, not FIN or PSH
//!  segment 2  | headers | data view | data view |          neither
//!  segment 3  | headers | data view |                      FIN and PSH, shorter
//! ```

use arrayvec::ArrayVec;

use super::cuttable::Cuttable;
use super::layout::{GsoError, Layout, MAX_HEADERS};
use crate::buffer::MAX_FRAGMENTS;
use crate::buffer::{AnyPacket, BufMut, Checksum, Meta};
use crate::header::checksum::{Sum, plus};
use crate::header::{Extensions, Narrow, Tcp, copy_out, parts};

/// The most segments that a packet is cut into. A GSO size of a few bytes would turn one packet
/// into tens of thousands; this many still allow 64 bytes a segment in the largest.
pub const MAX_SEGMENTS: usize = 1024;

/// What becomes of the segments' TCP checksums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sums {
    /// Each is left [`Checksum::Blank`], with the sum of its own pseudo-header.
    Blank,
    /// Each is computed: [`Checksum::Complete`].
    Fill,
}

/// Bytes copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CopiedBytes {
    /// Of headers: once for each segment.
    pub headers: u64,
    /// Of data. Segments of shared fragments copy none, but for packets of 18 fragments whose
    /// first segment needs them all: the data behind its headers joins them.
    pub payload: u64,
}

/// Why there are no more segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CutError {
    /// There is no free block now.
    NoMemory,
    /// The headers, or what has to be copied, do not fit the blocks.
    NoRoom,
}

impl core::fmt::Display for CutError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            CutError::NoMemory => "no free block for a segment's headers",
            CutError::NoRoom => "the blocks are too small for a segment's headers",
        })
    }
}

impl core::error::Error for CutError {}

/// The segments of a packet, made one at a time: it can be kept while a device has no room.
///
/// The transport checksum of a packet with a GSO size is taken for blank, whatever its state says:
/// the sums of the segments are made anew.
///
/// ```
/// # use packet_views::buffer::{HeapBlock, AnyPacket, Buf, SharedHeapBlock, BufMut};
/// use packet_views::offload::{Segments, Sums};
///
/// # fn send(_: AnyPacket<Buf<SharedHeapBlock>>) {}
/// # fn forward(packet: AnyPacket<Buf<SharedHeapBlock>>) {
/// # let mut dropped = 0;
/// match Segments::new(packet, Sums::Blank) {
///     Ok(mut segments) => {
///         while let Some(Ok(segment)) = segments.cut(|| Some(BufMut::new(HeapBlock::new(256), 64))) {
///             send(segment);
///         }
///         dropped += segments.remaining();
///     }
///     Err((_why, _packet)) => dropped += 1,
/// }
/// # }
/// ```
pub struct Segments<V> {
    /// What is left of the data, its last fragment first; none is empty.
    rest: ArrayVec<V, MAX_FRAGMENTS>,
    /// The next segment's headers, but for flags, and TCP's checksum if it is filled in.
    template: [u8; MAX_HEADERS],
    /// How much data the template's lengths and sums are for, and its blank checksum.
    sealed: Option<(usize, u16)>,
    at: Layout,
    size: usize,
    /// Bytes of data left.
    left: usize,
    remaining: usize,
    /// TCP's, of the whole packet; CWR only until the first segment has it.
    flags: u8,
    sums: Sums,
    stopped: bool,
    copied: CopiedBytes,
}

/// What a packet will be cut into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Plan {
    /// How many segments.
    pub segments: usize,
    /// Bytes of the longest, with all headers.
    pub longest: usize,
}

impl<V: Cuttable> Segments<V> {
    /// Looks at a packet that carries a GSO size, without taking it.
    pub fn plan(packet: &AnyPacket<V>) -> Result<Plan, GsoError> {
        let (at, size) = check(packet)?;
        let longest = at.payload + size.min(at.data());
        Ok(Plan { segments: count(at.data(), size), longest })
    }

    /// Looks at a packet that carries a GSO size. If it can't be cut, it comes back as it was.
    ///
    /// A packet whose data fits one segment becomes that segment.
    pub fn new(
        mut packet: AnyPacket<V>,
        sums: Sums,
    ) -> Result<Segments<V>, (GsoError, AnyPacket<V>)> {
        let (at, size) = match check(&packet) {
            Ok(checked) => checked,
            Err(refusal) => return Err((refusal, packet)),
        };
        let mut template = [0; MAX_HEADERS];
        let headers = template.get_mut(..at.payload);
        if headers.and_then(|headers| copy_out(packet.fragments(), 0, headers)).is_none()
            || packet.advance_by(at.payload).is_none()
        {
            return Err((GsoError::Headers, packet));
        }
        packet.truncate_to(at.data());
        packet.drop_empty();
        let mut rest = packet.into_fragments();
        rest.reverse();
        Ok(Segments {
            rest,
            template,
            sealed: None,
            at,
            size,
            left: at.data(),
            remaining: count(at.data(), size),
            flags: at.flags,
            sums,
            stopped: false,
            copied: CopiedBytes::default(),
        })
    }

    /// Segments that have not been made. After an error, these are lost.
    #[inline]
    pub fn remaining(&self) -> usize {
        self.remaining
    }

    /// Bytes copied so far.
    #[inline]
    pub fn copied(&self) -> CopiedBytes {
        self.copied
    }

    /// Makes the next segment; `None` when all are made, or after an error.
    ///
    /// `alloc` gives empty buffers, with whatever headroom the device wants in front of a packet;
    /// headers take at most 512 bytes of each, and without IPv6 extension headers
    /// 166. It is called once a segment for fragments that are
    /// shared. Of fragments with one owner, data that ends within one is copied into such a
    /// buffer, behind the headers if there is room; what is whole is moved, and headers are
    /// written in front of it where it has the headroom, without a buffer.
    #[inline]
    pub fn cut(
        &mut self,
        mut alloc: impl FnMut() -> Option<BufMut<V::Block>>,
    ) -> Option<Result<AnyPacket<V>, CutError>> {
        if self.remaining == 0 || self.stopped {
            return None;
        }
        let take = self.size.min(self.left);
        let mut segment = AnyPacket::new();
        let result = self
            .write_headers(take)
            .ok_or(CutError::NoRoom)
            .and_then(|()| self.fill(&mut segment, take, &mut alloc));
        if let Err(stopped) = result {
            self.stopped = true;
            self.rest.clear();
            return Some(Err(stopped));
        }
        segment.meta = Meta {
            checksum: match self.sums {
                Sums::Blank => Checksum::Blank,
                Sums::Fill => Checksum::Complete,
            },
            gso: None,
        };
        self.advance(take);
        Some(Ok(segment))
    }

    /// Finishes the template for a segment of `take` bytes of data.
    #[inline]
    fn write_headers(&mut self, take: usize) -> Option<()> {
        let at = self.at;
        let headers = self.template.get_mut(..at.payload)?;
        let blank = match self.sealed {
            Some((data, blank)) if data == take => blank,
            _ => at.seal(headers, take)?,
        };
        self.sealed = Some((take, blank));
        let tcp = at.tcp(headers)?;
        tcp.checksum.set(blank);
        tcp.flags =
            if self.remaining == 1 { self.flags } else { self.flags & !(Tcp::FIN | Tcp::PSH) };
        if self.sums == Sums::Fill {
            // The blank checksum in its place is part of the sum.
            let mut sum = Sum::of(headers.get(at.tcp..)?);
            parts(self.rest.iter().rev(), 0, take).for_each(|bytes| sum.add(bytes));
            at.tcp(headers)?.checksum.set(sum.checksum());
        }
        Some(())
    }

    /// Prepares the template for what follows `take` bytes of data.
    #[inline]
    fn advance(&mut self, take: usize) {
        self.left -= take;
        self.remaining -= 1;
        self.flags &= !Tcp::CWR;
        if let Some(ip) = self.at.v4(&mut self.template) {
            let id = ip.id.get();
            ip.id.set(id.wrapping_add(1));
            // RFC 1624: the sum grows as the number does, and 0xffff counts for nothing in it.
            ip.checksum.set(!plus(!ip.checksum.get(), u16::from(id != u16::MAX)));
        }
        if let Some(tcp) = self.at.tcp(&mut self.template) {
            // `take` is at most 65535.
            tcp.sequence.set(tcp.sequence.get().wrapping_add(take as u32));
        }
    }

    /// Headers and `take` bytes of data.
    #[inline]
    fn fill(
        &mut self,
        segment: &mut AnyPacket<V>,
        take: usize,
        alloc: &mut impl FnMut() -> Option<BufMut<V::Block>>,
    ) -> Result<(), CutError> {
        let room = CutError::NoRoom;
        let headers = self.template.get(..self.at.payload).ok_or(room)?;
        self.copied.headers += headers.len() as u64;
        let mut need = take;
        let in_front = match self.rest.last_mut() {
            Some(piece) if piece.bytes().len() <= take => {
                let len = piece.bytes().len();
                piece.grow_front(headers.len()).inspect(|_| need -= len)
            }
            _ => None,
        };
        if let Some(place) = in_front {
            place.copy_from_slice(headers);
            self.rest.pop().and_then(|piece| segment.push(piece).ok()).ok_or(room)?;
        } else {
            let mut head = alloc().ok_or(CutError::NoMemory)?;
            head.append(headers.len()).ok_or(room)?.copy_from_slice(headers);
            need -= self.copy_behind(&mut head, take);
            segment.push(V::from_buf(head)).map_err(|_| room)?;
        }
        while need > 0 {
            let piece = self.rest.last_mut().ok_or(room)?;
            let len = piece.bytes().len();
            let part = if len <= need {
                need -= len;
                self.rest.pop().ok_or(room)?
            } else if let Some(view) = piece.share_front(need) {
                need = 0;
                view
            } else {
                let mut buf = alloc().ok_or(CutError::NoMemory)?;
                let now = need.min(buf.tailroom());
                if now == 0 || !move_front(piece, &mut buf, now) {
                    return Err(room);
                }
                self.copied.payload += now as u64;
                need -= now;
                V::from_buf(buf)
            };
            segment.push(part).map_err(|_| room)?;
        }
        Ok(())
    }

    /// Copies data right behind the headers, where it is better there: if it is the beginning of
    /// a fragment that can't be shared, or if the segment would have a fragment too many. Returns
    /// how much.
    #[inline]
    fn copy_behind(&mut self, head: &mut BufMut<V::Block>, take: usize) -> usize {
        let is_full = self.rest.len() == MAX_FRAGMENTS
            && parts(self.rest.iter().rev(), 0, take).count() == MAX_FRAGMENTS;
        let Some(piece) = self.rest.last_mut() else { return 0 };
        let len = piece.bytes().len();
        if !is_full && (V::SHARED || len <= take) {
            return 0;
        }
        let now = len.min(take).min(head.tailroom());
        if !move_front(piece, head, now) {
            return 0;
        }
        if now == len {
            self.rest.pop();
        }
        self.copied.payload += now as u64;
        now
    }
}

/// Copies the first `count` bytes of a piece into a buffer, and drops them there.
fn move_front<V: Cuttable>(piece: &mut V, buf: &mut BufMut<V::Block>, count: usize) -> bool {
    let copied = piece.bytes().get(..count).and_then(|bytes| {
        buf.append(count)?.copy_from_slice(bytes);
        Some(())
    });
    copied.and_then(|()| piece.advance_by(count)).is_some()
}

/// Segments that `data` bytes make.
fn count(data: usize, size: usize) -> usize {
    data.div_ceil(size.max(1)).max(1)
}

/// Whether a packet can be cut; where its headers are, and the data of a segment.
fn check<V: Cuttable>(packet: &AnyPacket<V>) -> Result<(Layout, usize), GsoError> {
    let gso = packet.meta.gso.ok_or(GsoError::NotGso)?;
    let at = Layout::of_packet(packet)?;
    if at.kind != gso.kind {
        return Err(GsoError::NotTcp);
    }
    let size = usize::from(gso.size.get());
    let count = count(at.data(), size);
    if count > MAX_SEGMENTS {
        return Err(GsoError::TooMany);
    }
    if count > 1 && at.flags & (Tcp::SYN | Tcp::RST) != 0 {
        return Err(GsoError::Flags);
    }
    if at.extensions.has(Extensions::AUTHENTICATION) {
        return Err(GsoError::Authenticated);
    }
    if at.payload > MAX_HEADERS {
        return Err(GsoError::Headers);
    }
    at.blank(0)?;
    Ok((at, size))
}

impl<V> core::fmt::Debug for Segments<V> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Segments")
            .field("size", &self.size)
            .field("left", &self.left)
            .field("remaining", &self.remaining)
            .finish_non_exhaustive()
    }
}
