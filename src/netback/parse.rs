//! Reads one packet's requests off a client's transmit ring and checks them. Pure: slots go in, a
//! verdict comes out, and every word of it is hostile.
//!
//! ```text
//!  request 0          extra ...         request 1          request 2
//! +-----------------+-----------------+-----------------+-----------------+
//! | EXTRA|MORE_DATA | kind, MORE?     | MORE_DATA       | 0               |
//! | size of it all  |                 | its own size    | its own size    |
//! +-----------------+-----------------+-----------------+-----------------+
//! ```
//!
//! The first slot's own size is what the later ones leave over (xen/io/netif.h, "request size").
//! What is wrong with the packet drops it, what no frontend does by mistake shuts the vif; the
//! line between the two is the one that Linux draws (`xenvif_count_requests`,
//! `xenvif_get_extras`), with two exceptions that are ours: the limits count all data slots, so a
//! packet is fatal from 20 slots on rather than 22, and the first slot may be as short as it
//! likes, because headers are linearised anyway.

use alloc::vec::Vec;

use arrayvec::ArrayVec;
use xen_grant::PAGE_SIZE;

use super::fault::Fault;
use crate::buffer::{Checksum, Meta};
use crate::wire::{Extra, MAX_SLOTS, TxRequest, TxSlot, tx_flags};

/// From so many data slots on, a packet shuts the vif.
const FATAL_SLOTS: usize = 20;
/// An Ethernet header.
const SHORTEST: u16 = 14;

/// A slot that has been taken off the ring and must be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slot {
    /// With this id.
    Request(u16),
    /// With a NULL response.
    Extra,
}

/// Bytes of a packet in one of the client's pages, all of them within the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fragment {
    pub(super) gref: u32,
    pub(super) offset: u16,
    /// May be 0.
    pub(super) size: u16,
}

/// A packet as its requests describe it.
pub(super) struct Chain {
    /// Their sizes add up to `total`.
    pub(super) fragments: ArrayVec<Fragment, MAX_SLOTS>,
    pub(super) total: u16,
    pub(super) meta: Meta,
}

impl Chain {
    pub(super) fn new() -> Chain {
        Chain {
            fragments: ArrayVec::new_const(),
            total: 0,
            meta: Meta { checksum: Checksum::Unknown, gso: None },
        }
    }
}

/// Why a packet was dropped, and its slots answered with an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Shorter than an Ethernet header.
    Runt,
    /// More than 18 data slots.
    TooManySlots,
    /// Later slots have more bytes than the first says there are in all.
    Sizes,
    /// It asks for a multicast address, a feature that was not offered.
    Multicast,
    /// GSO, which was not offered.
    Gso,
}

/// What is to be done with what was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Copy it.
    Copy,
    /// Answer its slots with an error.
    Refuse(Refusal),
    /// Shut the vif.
    Fatal(Fault),
}

fn within_page(offset: u16, size: u16) -> Result<(), Fault> {
    if usize::from(offset) + usize::from(size) > PAGE_SIZE {
        return Err(Fault::CrossesPage { offset, size });
    }
    Ok(())
}

/// Takes the next packet's slots from `next`, notes in `slots` how each is to be answered, and
/// leaves the packet in `chain` if it is one. `None` if there was no slot at all.
///
/// `next` ends where the client's published requests end; a frontend publishes packets whole.
#[inline]
pub(super) fn read(
    mut next: impl FnMut() -> Option<TxSlot>,
    gso_offered: bool,
    slots: &mut Vec<Slot>,
    chain: &mut Chain,
) -> Option<Verdict> {
    let first = next()?.request();
    slots.push(Slot::Request(first.id));
    chain.fragments.clear();
    chain.total = first.size;
    // `data_validated` alone is a client's word for its own checksum: let somebody verify it.
    let blank = first.flags & tx_flags::CSUM_BLANK != 0;
    let checksum = if blank { Checksum::Blank } else { Checksum::Unknown };
    chain.meta = Meta { checksum, gso: None };

    let rest = if first.flags & (tx_flags::EXTRA_INFO | tx_flags::MORE_DATA) == 0 {
        let fragment = Fragment { gref: first.gref, offset: first.offset, size: first.size };
        chain.fragments.push(fragment);
        Ok(first.size)
    } else {
        read_long(&first, &mut next, gso_offered, slots, chain)
    };
    Some(match rest.and_then(|own| within_page(first.offset, own).map_err(Verdict::Fatal)) {
        Err(verdict) => verdict,
        Ok(()) if first.size < SHORTEST => Verdict::Refuse(Refusal::Runt),
        Ok(()) => Verdict::Copy,
    })
}

/// The rest of a packet of several slots. Returns the first slot's own size.
fn read_long(
    first: &TxRequest,
    next: &mut impl FnMut() -> Option<TxSlot>,
    gso_offered: bool,
    slots: &mut Vec<Slot>,
    chain: &mut Chain,
) -> Result<u16, Verdict> {
    let fatal = Verdict::Fatal;
    let mut refusal = None;
    if first.flags & tx_flags::EXTRA_INFO != 0 {
        refusal = read_extras(next, slots, &mut chain.meta).map_err(fatal)?;
        if refusal == Some(Refusal::Multicast) {
            // Such a request carries no packet; nothing else in it means anything.
            return Err(Verdict::Refuse(Refusal::Multicast));
        }
        if chain.meta.gso.is_some() && !gso_offered {
            refusal = Some(Refusal::Gso);
        }
    }

    chain.fragments.push(Fragment { gref: first.gref, offset: first.offset, size: 0 });
    let mut own = first.size;
    let mut data_slots = 1;
    let mut more = first.flags & tx_flags::MORE_DATA != 0;
    while more {
        let request = next().ok_or(fatal(Fault::CutShort))?.request();
        slots.push(Slot::Request(request.id));
        data_slots += 1;
        if data_slots >= FATAL_SLOTS {
            return Err(fatal(Fault::TooManySlots));
        }
        within_page(request.offset, request.size).map_err(fatal)?;
        match own.checked_sub(request.size) {
            Some(left) => own = left,
            None => refusal = refusal.or(Some(Refusal::Sizes)),
        }
        let fragment = Fragment { gref: request.gref, offset: request.offset, size: request.size };
        if chain.fragments.try_push(fragment).is_err() {
            refusal = refusal.or(Some(Refusal::TooManySlots));
        }
        more = request.flags & tx_flags::MORE_DATA != 0;
    }
    if let Some(refusal) = refusal {
        return Err(Verdict::Refuse(refusal));
    }
    if let Some(fragment) = chain.fragments.first_mut() {
        fragment.size = own;
    }
    Ok(own)
}

/// The extras behind the first slot. As many as there are slots; of a kind given twice the last
/// one counts.
fn read_extras(
    next: &mut impl FnMut() -> Option<TxSlot>,
    slots: &mut Vec<Slot>,
    meta: &mut Meta,
) -> Result<Option<Refusal>, Fault> {
    let mut refusal = None;
    loop {
        let extra = next().ok_or(Fault::CutShort)?.extra();
        slots.push(Slot::Extra);
        match extra.kind {
            Extra::GSO => meta.gso = Some(extra.gso().ok_or(Fault::BadGso)?),
            Extra::MCAST_ADD | Extra::MCAST_DEL => refusal = Some(Refusal::Multicast),
            // A hash that we did not ask for: a hint, and not taken.
            Extra::HASH => {}
            unknown => return Err(Fault::UnknownExtra(unknown)),
        }
        if extra.flags & Extra::MORE == 0 {
            return Ok(refusal);
        }
    }
}

#[cfg(test)]
mod tests {
    use core::num::NonZeroU16;

    use super::*;
    use crate::wire::{Gso, GsoKind};

    struct Read {
        verdict: Option<Verdict>,
        chain: Chain,
        slots: Vec<Slot>,
        /// Slots taken from the ring.
        taken: usize,
    }

    fn parse(ring: &[TxSlot], gso_offered: bool) -> Read {
        let (mut chain, mut slots) = (Chain::new(), Vec::new());
        let mut iter = ring.iter();
        let verdict = read(|| iter.next().copied(), gso_offered, &mut slots, &mut chain);
        Read { verdict, chain, slots, taken: ring.len() - iter.len() }
    }

    fn request(id: u16, offset: u16, size: u16, flags: u16) -> TxSlot {
        TxRequest { gref: u32::from(id) + 100, offset, flags, id, size }.into()
    }

    fn extra(kind: u8, flags: u8, data: [u8; 6]) -> TxSlot {
        Extra { kind, flags, data }.into()
    }

    /// A chain of these own sizes, the first slot giving the sum.
    fn chain(sizes: &[u16]) -> Vec<TxSlot> {
        let total = sizes.iter().fold(0_u16, |sum, size| sum.wrapping_add(*size));
        let last = sizes.len() - 1;
        let more = |slot| if slot < last { tx_flags::MORE_DATA } else { 0 };
        let size = |slot: usize| if slot == 0 { total } else { sizes[slot] };
        (0..sizes.len()).map(|slot| request(slot as u16, 0, size(slot), more(slot))).collect()
    }

    const MORE: u16 = tx_flags::MORE_DATA;
    const EXTRA: u16 = tx_flags::EXTRA_INFO;
    const COPY: Option<Verdict> = Some(Verdict::Copy);

    fn refused(why: Refusal) -> Option<Verdict> {
        Some(Verdict::Refuse(why))
    }

    fn fatal(fault: Fault) -> Option<Verdict> {
        Some(Verdict::Fatal(fault))
    }

    #[test]
    fn an_empty_ring_is_no_packet() {
        assert_eq!(parse(&[], true).verdict, None);
    }

    #[test]
    fn one_slot() {
        let read = parse(&[request(7, 96, 60, 0), request(8, 0, 60, 0)], false);
        assert_eq!((read.verdict, read.taken), (COPY, 1));
        assert_eq!(read.slots, [Slot::Request(7)]);
        assert_eq!(read.chain.fragments.as_slice(), [Fragment { gref: 107, offset: 96, size: 60 }]);
        assert_eq!((read.chain.total, read.chain.meta), (60, Meta::default()));
    }

    #[test]
    fn b8_every_split_of_a_small_packet_is_legal() {
        // All ways to cut 16 bytes into up to 16 pieces: a bit says where a cut is.
        for cuts in 0_u32..1 << 15 {
            let mut sizes = alloc::vec![1];
            for byte in 0..15 {
                match sizes.last_mut() {
                    Some(last) if cuts >> byte & 1 == 0 => *last += 1,
                    Some(_) | None => sizes.push(1),
                }
            }
            let read = parse(&chain(&sizes), false);
            assert_eq!((read.verdict, read.taken), (COPY, sizes.len()), "{sizes:?}");
            let own: Vec<u16> = read.chain.fragments.iter().map(|f| f.size).collect();
            assert_eq!((own, read.chain.total), (sizes, 16));
        }
        let read = parse(&chain(&[1; MAX_SLOTS]), false);
        assert_eq!((read.verdict, read.chain.fragments.len()), (COPY, MAX_SLOTS));
    }

    #[test]
    fn b9_slots_without_bytes_are_legal() {
        for sizes in [&[0, 14][..], &[14, 0], &[7, 0, 0, 7], &[0, 0, 0, 60, 0]] {
            assert_eq!(parse(&chain(sizes), false).verdict, COPY, "{sizes:?}");
        }
    }

    #[test]
    fn b10_a_slot_that_crosses_its_page_is_fatal() {
        for (offset, size) in [(4096, 14), (1, 4096), (4083, 14), (u16::MAX, u16::MAX), (0, 4097)] {
            let crosses = fatal(Fault::CrossesPage { offset, size });
            assert_eq!(parse(&[request(0, offset, size, 0)], false).verdict, crosses);
            let first = request(0, 0, size.saturating_add(60), MORE);
            let read = parse(&[first, request(1, offset, size, 0)], false);
            assert_eq!(read.verdict, crosses);
        }
        assert_eq!(parse(&[request(0, 4082, 14, 0)], false).verdict, COPY);
        assert_eq!(parse(&[request(0, 0, 4096, 0)], false).verdict, COPY);
        // The first slot's own size counts, not the packet's.
        let slots = [request(0, 4090, 60, MORE), request(1, 0, 54, 0)];
        assert_eq!(parse(&slots, false).verdict, COPY);
        let slots = [request(0, 4090, 60, MORE), request(1, 0, 53, 0)];
        let crosses = Fault::CrossesPage { offset: 4090, size: 7 };
        assert_eq!(parse(&slots, false).verdict, fatal(crosses));
    }

    #[test]
    fn b10_nineteen_slots_drop_the_packet_and_twenty_are_fatal() {
        for count in 1..=40 {
            let read = parse(&chain(&alloc::vec![20; count]), false);
            let expected = match count {
                ..=18 => COPY,
                19 => refused(Refusal::TooManySlots),
                _ => fatal(Fault::TooManySlots),
            };
            assert_eq!((read.verdict, read.taken), (expected, count.min(20)));
            assert_eq!(read.slots.len(), read.taken);
        }
    }

    #[test]
    fn b10_more_bytes_than_the_first_size_drop_the_packet() {
        let slots = [request(0, 0, 60, MORE), request(1, 0, 60, MORE), request(2, 0, 1, 0)];
        let read = parse(&slots, false);
        assert_eq!((read.verdict, read.taken), (refused(Refusal::Sizes), 3));
        // What a frontend does that overflows 16 bits.
        let slots = chain(&[4096; 17]);
        assert_eq!(parse(&slots, false).verdict, refused(Refusal::Sizes));
    }

    #[test]
    fn a_packet_shorter_than_a_header_is_refused() {
        for sizes in [&[0][..], &[13], &[1; 13], &[0, 0]] {
            assert_eq!(parse(&chain(sizes), false).verdict, refused(Refusal::Runt));
        }
    }

    #[test]
    fn a_chain_that_goes_on_behind_the_end_is_fatal() {
        let cut = fatal(Fault::CutShort);
        assert_eq!(parse(&[request(0, 0, 60, MORE)], false).verdict, cut);
        assert_eq!(parse(&[request(0, 0, 60, EXTRA)], false).verdict, cut);
        let slots = [request(0, 0, 60, EXTRA), extra(Extra::HASH, Extra::MORE, [0; 6])];
        assert_eq!(parse(&slots, false).verdict, cut);
        for sizes in [2, 18] {
            let slots = chain(&alloc::vec![20; sizes]);
            assert_eq!(parse(&slots[..sizes - 1], false).verdict, cut);
        }
    }

    #[test]
    fn gso_and_blank_checksums_travel_in_the_meta() {
        let gso = Gso { size: NonZeroU16::MIN, kind: GsoKind::TcpV6 };
        let first = request(0, 0, 100, EXTRA | MORE | tx_flags::CSUM_BLANK);
        let slots = [first, Extra::from_gso(gso).into(), request(2, 0, 50, 0)];
        let read = parse(&slots, true);
        assert_eq!((read.verdict, read.taken), (COPY, 3));
        assert_eq!(read.chain.meta, Meta { checksum: Checksum::Blank, gso: Some(gso) });
        assert_eq!(read.slots, [Slot::Request(0), Slot::Extra, Slot::Request(2)]);
        assert_eq!(parse(&slots, false).verdict, refused(Refusal::Gso));
        // A client's word for its own checksum proves nothing.
        let read = parse(&[request(0, 0, 60, tx_flags::DATA_VALIDATED)], false);
        assert_eq!(read.chain.meta.checksum, Checksum::Unknown);
    }

    #[test]
    fn bad_extras_are_fatal_and_multicast_is_refused() {
        let with = |slot| parse(&[request(0, 0, 60, EXTRA), slot, request(1, 0, 60, 0)], true);
        for data in [[0, 0, 1, 0, 0, 0], [1, 0, 0, 0, 0, 0], [1, 0, 3, 0, 0, 0]] {
            assert_eq!(with(extra(Extra::GSO, 0, data)).verdict, fatal(Fault::BadGso));
        }
        for kind in [0, 5, 6, 255] {
            assert_eq!(with(extra(kind, 0, [0; 6])).verdict, fatal(Fault::UnknownExtra(kind)));
        }
        for kind in [Extra::MCAST_ADD, Extra::MCAST_DEL] {
            let read = with(extra(kind, 0, [1; 6]));
            assert_eq!((read.verdict, read.taken), (refused(Refusal::Multicast), 2));
        }
        assert_eq!(with(extra(Extra::HASH, 0, [9; 6])).verdict, COPY);
    }

    #[test]
    fn whatever_the_slots_say_the_verdict_is_sound() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = |below: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 16) % below
        };
        let mut seen = [0_usize; 3];
        for _ in 0..200_000 {
            let wild = random(4) == 0;
            let ring: Vec<TxSlot> = (0..random(30))
                .map(|_| {
                    if wild {
                        return TxSlot([0; 3].map(|_: u32| random(1 << 32) as u32));
                    }
                    let flags = [0, 0, MORE, MORE, MORE, EXTRA, EXTRA | MORE][random(7) as usize];
                    request(1, 0, [0, 1, 60, 2000][random(4) as usize], flags)
                })
                .collect();
            let read = parse(&ring, true);
            assert_eq!(read.slots.len(), read.taken);
            assert_eq!(read.verdict.is_none(), ring.is_empty());
            match read.verdict {
                Some(Verdict::Copy) => {
                    seen[0] += 1;
                    let sum: usize = read.chain.fragments.iter().map(|f| usize::from(f.size)).sum();
                    assert_eq!(sum, usize::from(read.chain.total));
                    assert!(sum >= usize::from(SHORTEST));
                    for f in &read.chain.fragments {
                        assert!(usize::from(f.offset) + usize::from(f.size) <= PAGE_SIZE);
                    }
                }
                Some(Verdict::Refuse(_)) => seen[1] += 1,
                Some(Verdict::Fatal(_)) => seen[2] += 1,
                None => {}
            }
        }
        assert!(seen.iter().all(|&count| count > 1000), "{seen:?}");
    }
}
