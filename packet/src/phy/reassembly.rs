//! Datagrams in fragments are put together here, not by the stack.
//!
//! smoltcp has few places for datagrams that are not whole, one unless a feature says more, and
//! whoever has one keeps it for as long as the time-out: fragments that are lost shut out all other
//! datagrams meanwhile. And nobody verifies what it has put together. So it gets whole packets:
//!
//! ```text
//!  fragment ─► header right, length right? ─► its datagram's place, or one that it may take
//!                                                    │
//!  packet  ◄─ header made anew ◄─ all bytes there? ──┘
//!     └─► checksum verified like that of any other, known or not
//! ```
//!
//! A place holds the largest datagram there is, in memory that is taken when the place is first
//! needed and kept. Of several a newcomer takes the one that is worth least, see [`Worth`]: many
//! datagrams at once, in order, cost those for which there is no place, and a flood of fragments that
//! are never completed costs the others only what arrives in the middle of it.
//!
//! What overlaps is a trick or a mix of two datagrams: it ends the datagram (RFC 5722, for IPv6; Linux
//! does the same for IPv4). What comes twice counts once.

use alloc::vec::Vec;
use core::ops::Range;

use smoltcp::time::{Duration, Instant};
use zerocopy::{FromBytes, IntoBytes};

use super::Counters;
use crate::buffer::MAX_PACKET;
use crate::header::checksum::Sum;
use crate::header::{At, ETHERNET_HEADER, Ipv4, Ipv6, Layout, Protocol, U16};

/// Datagrams that are put together at a time.
const PLACES: usize = 4;
/// How long a datagram may take from its first fragment on (RFC 791, section 3.2).
const TIMEOUT: Duration = Duration::from_secs(15);
/// Fragments are sent one after the other: who has got none for so long has lost one.
const IDLE: Duration = Duration::from_millis(100);

/// Offsets of fragments, and lengths of all but the last, are multiples of it.
const UNIT: usize = 8;
/// Where the data starts: in front of it lie Ethernet's header and the longest IPv4 header.
const DATA: usize = ETHERNET_HEADER + 60;
/// Bytes of a fragment header (RFC 8200, section 4.5).
const FRAGMENT_HEADER: usize = 8;

/// Datagrams of which fragments are missing.
pub(super) struct Reassembly {
    places: [Place; PLACES],
    /// The frame that was completed last: which place, and where in it.
    whole: (usize, Range<usize>),
    reassembled: u64,
    /// Fragments that came in vain.
    dropped: u64,
}

/// A datagram's fragments have the same.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Key {
    ends: [[u8; 16]; 2],
    id: u32,
    /// Over IPv6 it does not count.
    protocol: Option<Protocol>,
}

/// A fragment that has come.
struct Incoming<'a> {
    key: Key,
    /// The frame's headers as far as all fragments have them, and what the packet carries.
    headers: &'a [u8],
    protocol: Protocol,
    offset: usize,
    data: &'a [u8],
    more: bool,
}

struct Place {
    key: Option<Key>,
    began: Instant,
    touched: Instant,
    /// Fragments that have come.
    fragments: u64,
    /// Bytes of headers in front of the data, once the first fragment is there.
    headers: Option<usize>,
    /// Bytes of data, once the last fragment is there.
    total: Option<usize>,
    /// The end of the data that is there.
    furthest: usize,
    /// Units of data that are there, and which.
    units: usize,
    seen: Vec<bool>,
    frame: Vec<u8>,
}

/// What a place's datagram is worth, least first: nothing; one that waits for longer than it should;
/// one without its first fragment; few fragments; that of longest ago.
#[derive(Default, PartialEq, Eq, PartialOrd, Ord)]
struct Worth {
    is_active: bool,
    has_first: bool,
    fragments: u64,
    touched: Option<Instant>,
}

impl<'a> Incoming<'a> {
    /// The fragment that a frame is; `None` if it is malformed.
    fn of(frame: &'a [u8], layout: &Layout) -> Option<Incoming<'a>> {
        let ip = layout.ip?;
        let part = ip.part?;
        let ends = layout.addresses(frame)?;
        let data = frame.get(part.start..ip.end)?;
        let is_cut_right = !part.more || data.len().is_multiple_of(UNIT);
        let fits = part.offset + data.len() <= MAX_PACKET;
        let (headers, protocol) = if ip.v4 {
            let header = At::<Ipv4, _>::claim(frame.get(layout.network..)?);
            (header.checksum_is_right().then_some(part.start)?, Some(part.protocol))
        } else {
            // Other extension headers in front of a fragment's are nothing that the stack knows.
            let headers = part.start - FRAGMENT_HEADER;
            (Some(headers).filter(|end| end - layout.network == size_of::<Ipv6>())?, None)
        };
        (!data.is_empty() && is_cut_right && fits).then_some(Incoming {
            key: Key { ends, id: part.id, protocol },
            headers: frame.get(..headers)?,
            protocol: part.protocol,
            offset: part.offset,
            data,
            more: part.more,
        })
    }
}

impl Reassembly {
    /// No memory yet.
    pub(super) fn new() -> Reassembly {
        let places = core::array::from_fn(|_| Place::empty());
        Reassembly { places, whole: (0, 0..0), reassembled: 0, dropped: 0 }
    }

    /// Takes in a fragment, a frame without tags; whether its datagram is [`whole`](Self::whole) now.
    pub(super) fn add(&mut self, frame: &[u8], layout: &Layout, now: Instant) -> bool {
        let Some(fragment) = Incoming::of(frame, layout) else {
            self.dropped += 1;
            return false;
        };
        let Some(at) = self.place_for(&fragment, now) else {
            self.dropped += 1;
            return false;
        };
        let Some(place) = self.places.get_mut(at) else { return false };
        place.touched = now;
        place.fragments += 1;
        match place.add(&fragment) {
            Some(None) => false,
            Some(Some(frame)) => {
                place.key = None;
                self.whole = (at, frame);
                self.reassembled += 1;
                true
            }
            None => {
                self.dropped += place.fragments;
                place.key = None;
                false
            }
        }
    }

    /// The frame that was completed last, until there is another fragment.
    pub(super) fn whole(&self) -> &[u8] {
        let (at, range) = &self.whole;
        let place = self.places.get(*at);
        place.and_then(|place| place.frame.get(range.clone())).unwrap_or_default()
    }

    /// The same, to write.
    #[cfg(feature = "embassy")]
    pub(super) fn whole_mut(&mut self) -> &mut [u8] {
        let (at, range) = &self.whole;
        let place = self.places.get_mut(*at);
        place.and_then(|place| place.frame.get_mut(range.clone())).unwrap_or_default()
    }

    /// The place of a fragment's datagram, a new one if it has none.
    fn place_for(&mut self, fragment: &Incoming<'_>, now: Instant) -> Option<usize> {
        let is_its = |place: &Place| place.key == Some(fragment.key) && !place.is_over(now);
        if let Some(at) = self.places.iter().position(is_its) {
            return Some(at);
        }
        let worths = self.places.iter().map(|place| place.worth(now)).zip(0..);
        let (least, at) = worths.min()?;
        // A datagram begins with its first fragment: without that, it ends no other that has begun.
        if least.is_active && least.has_first && fragment.offset > 0 {
            return None;
        }
        let place = self.places.get_mut(at)?;
        if place.key.is_some() {
            self.dropped += place.fragments;
        }
        place.begin(fragment.key, now).then_some(at)
    }

    pub(super) fn count(&self, counters: &mut Counters) {
        counters.reassembled += self.reassembled;
        counters.fragments_dropped += self.dropped;
    }
}

impl Place {
    fn empty() -> Place {
        Place {
            key: None,
            began: Instant::ZERO,
            touched: Instant::ZERO,
            fragments: 0,
            headers: None,
            total: None,
            furthest: 0,
            units: 0,
            seen: Vec::new(),
            frame: Vec::new(),
        }
    }

    fn is_over(&self, now: Instant) -> bool {
        self.key.is_none() || now - self.began > TIMEOUT
    }

    fn worth(&self, now: Instant) -> Worth {
        if self.is_over(now) {
            return Worth::default();
        }
        Worth {
            is_active: now - self.touched < IDLE,
            has_first: self.headers.is_some(),
            fragments: self.fragments,
            touched: Some(self.touched),
        }
    }

    /// A datagram of which nothing is there; false if there is no memory for it.
    fn begin(&mut self, key: Key, now: Instant) -> bool {
        let frame = DATA + MAX_PACKET;
        let units = MAX_PACKET.div_ceil(UNIT);
        // Both are empty, or have their length.
        if self.frame.try_reserve_exact(frame - self.frame.len()).is_err()
            || self.seen.try_reserve_exact(units - self.seen.len()).is_err()
        {
            return false;
        }
        self.frame.resize(frame, 0);
        self.seen.clear();
        self.seen.resize(units, false);
        *self = Place {
            key: Some(key),
            began: now,
            touched: now,
            frame: core::mem::take(&mut self.frame),
            seen: core::mem::take(&mut self.seen),
            ..Place::empty()
        };
        true
    }

    /// Takes in a fragment; where in memory the frame is, if all of it is there. `None` if it does
    /// not go with the others.
    fn add(&mut self, fragment: &Incoming<'_>) -> Option<Option<Range<usize>>> {
        let end = fragment.offset + fragment.data.len();
        let units = self.seen.get_mut(fragment.offset / UNIT..end.div_ceil(UNIT))?;
        if units.iter().any(|&seen| seen) {
            return units.iter().all(|&seen| seen).then_some(None);
        }
        units.fill(true);
        self.units += units.len();
        self.frame.get_mut(DATA + fragment.offset..DATA + end)?.copy_from_slice(fragment.data);
        self.furthest = self.furthest.max(end);
        if !fragment.more {
            self.total = Some(end);
        }
        if fragment.offset == 0 {
            let headers = fragment.headers.len();
            let place = self.frame.get_mut(DATA.checked_sub(headers)?..DATA)?;
            place.copy_from_slice(fragment.headers);
            self.headers = Some(headers);
            if fragment.key.protocol.is_none() {
                Ipv6::mut_from_prefix(place.get_mut(ETHERNET_HEADER..)?).ok()?.0.next_header =
                    fragment.protocol;
            }
        }
        match (self.headers, self.total) {
            (_, Some(total)) if self.furthest > total => None,
            (Some(headers), Some(total)) if self.units == total.div_ceil(UNIT) => {
                let ip = self.frame.get_mut(DATA - headers + ETHERNET_HEADER..DATA)?;
                write_lengths(ip, total, fragment.key.protocol.is_some())?;
                Some(Some(DATA - headers..DATA + total))
            }
            _ => Some(None),
        }
    }
}

/// Makes the header of a first fragment that of the whole packet; `None` if that is too long.
fn write_lengths(ip: &mut [u8], data: usize, v4: bool) -> Option<()> {
    if !v4 {
        Ipv6::mut_from_prefix(ip).ok()?.0.payload_len = U16::new(u16::try_from(data).ok()?);
        return Some(());
    }
    let total = u16::try_from(ip.len() + data).ok()?;
    let header = Ipv4::mut_from_prefix(ip).ok()?.0;
    header.total_len = U16::new(total);
    header.flags_fragment = U16::ZERO;
    header.checksum = U16::ZERO;
    // With its options.
    let sum = Sum::of(ip.as_bytes()).checksum();
    Ipv4::mut_from_prefix(ip).ok()?.0.checksum = U16::new(sum);
    Some(())
}
