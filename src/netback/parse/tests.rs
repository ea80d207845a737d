//! Chains of every kind, read.

use core::num::NonZeroU16;

use super::*;
use packet_views::buffer::{Gso, GsoKind};

struct Read {
    parsed: Option<Result<(), Bad>>,
    chain: Chain,
    answers: Vec<Answer>,
    /// Slots taken from the ring.
    taken: usize,
}

fn parse(ring: &[TxSlot], offered: Features) -> Read {
    let (mut chain, mut answers) = (Chain::new(), Vec::new());
    let mut iter = ring.iter();
    let parsed = read(|| iter.next().copied(), offered, &mut answers, &mut chain);
    Read { parsed, chain, answers, taken: ring.len() - iter.len() }
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

/// What a backend offers that does no more than it must.
const PLAIN: Features = Features::NONE.with_scatter_gather(true);

const MORE: u16 = tx_flags::MORE_DATA;
const EXTRA: u16 = tx_flags::EXTRA_INFO;
const COPY: Option<Result<(), Bad>> = Some(Ok(()));

fn dropped(why: FromClientDrop) -> Option<Result<(), Bad>> {
    Some(Err(Bad::Packet(why)))
}

fn fatal(fault: Fault) -> Option<Result<(), Bad>> {
    Some(Err(Bad::Peer(fault)))
}

#[test]
fn an_empty_ring_is_no_packet() {
    assert_eq!(parse(&[], Features::ALL).parsed, None);
}

#[test]
fn one_slot() {
    let read = parse(&[request(7, 96, 60, 0), request(8, 0, 60, 0)], PLAIN);
    assert_eq!((read.parsed, read.taken), (COPY, 1));
    assert_eq!(read.answers, [Answer::Request(7)]);
    assert_eq!(read.chain.extents.as_slice(), [Extent { gref: 107, offset: 96, size: 60 }]);
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
        let read = parse(&chain(&sizes), PLAIN);
        assert_eq!((read.parsed, read.taken), (COPY, sizes.len()), "{sizes:?}");
        let own: Vec<u16> = read.chain.extents.iter().map(|f| f.size).collect();
        assert_eq!((own, read.chain.total), (sizes, 16));
    }
    let read = parse(&chain(&[1; MAX_SLOTS]), PLAIN);
    assert_eq!((read.parsed, read.chain.extents.len()), (COPY, MAX_SLOTS));
}

#[test]
fn b9_slots_without_bytes_are_legal() {
    for sizes in [&[0, 14][..], &[14, 0], &[7, 0, 0, 7], &[0, 0, 0, 60, 0]] {
        assert_eq!(parse(&chain(sizes), PLAIN).parsed, COPY, "{sizes:?}");
    }
}

#[test]
fn b10_a_slot_that_crosses_its_page_is_fatal() {
    for (offset, size) in [(4096, 14), (1, 4096), (4083, 14), (u16::MAX, u16::MAX), (0, 4097)] {
        let crosses = fatal(Fault::CrossesPage { offset, size });
        assert_eq!(parse(&[request(0, offset, size, 0)], PLAIN).parsed, crosses);
        let first = request(0, 0, size.saturating_add(60), MORE);
        let read = parse(&[first, request(1, offset, size, 0)], PLAIN);
        assert_eq!(read.parsed, crosses);
    }
    assert_eq!(parse(&[request(0, 4082, 14, 0)], PLAIN).parsed, COPY);
    assert_eq!(parse(&[request(0, 0, 4096, 0)], PLAIN).parsed, COPY);
    // The first slot's own size counts, not the packet's.
    let slots = [request(0, 4090, 60, MORE), request(1, 0, 54, 0)];
    assert_eq!(parse(&slots, PLAIN).parsed, COPY);
    let slots = [request(0, 4090, 60, MORE), request(1, 0, 53, 0)];
    let crosses = Fault::CrossesPage { offset: 4090, size: 7 };
    assert_eq!(parse(&slots, PLAIN).parsed, fatal(crosses));
}

#[test]
fn b10_nineteen_slots_drop_the_packet_and_twenty_are_fatal() {
    for count in 1..=40 {
        let read = parse(&chain(&alloc::vec![20; count]), PLAIN);
        let expected = match count {
            ..=18 => COPY,
            19 => dropped(FromClientDrop::TooManySlots),
            _ => fatal(Fault::TooManySlots),
        };
        assert_eq!((read.parsed, read.taken), (expected, count.min(20)));
        assert_eq!(read.answers.len(), read.taken);
    }
}

#[test]
fn b10_more_bytes_than_the_first_size_drop_the_packet() {
    let slots = [request(0, 0, 60, MORE), request(1, 0, 60, MORE), request(2, 0, 1, 0)];
    let read = parse(&slots, PLAIN);
    assert_eq!((read.parsed, read.taken), (dropped(FromClientDrop::Sizes), 3));
    // What a frontend does that overflows 16 bits.
    let slots = chain(&[4096; 17]);
    assert_eq!(parse(&slots, PLAIN).parsed, dropped(FromClientDrop::Sizes));
}

#[test]
fn a_packet_shorter_than_a_header_is_dropped() {
    for sizes in [&[0][..], &[13], &[1; 13], &[0, 0]] {
        assert_eq!(parse(&chain(sizes), PLAIN).parsed, dropped(FromClientDrop::Runt));
    }
}

#[test]
fn a_chain_that_goes_on_behind_the_end_is_fatal() {
    let cut = fatal(Fault::CutShort);
    assert_eq!(parse(&[request(0, 0, 60, MORE)], PLAIN).parsed, cut);
    assert_eq!(parse(&[request(0, 0, 60, EXTRA)], PLAIN).parsed, cut);
    let slots = [request(0, 0, 60, EXTRA), extra(Extra::HASH, Extra::MORE, [0; 6])];
    assert_eq!(parse(&slots, PLAIN).parsed, cut);
    for sizes in [2, 18] {
        let slots = chain(&alloc::vec![20; sizes]);
        assert_eq!(parse(&slots[..sizes - 1], PLAIN).parsed, cut);
    }
}

#[test]
fn gso_and_blank_checksums_travel_in_the_meta() {
    let gso = Gso { size: NonZeroU16::MIN, kind: GsoKind::TcpV6 };
    let first = request(0, 0, 100, EXTRA | MORE | tx_flags::CSUM_BLANK);
    let slots = [first, Extra::from_gso(gso).into(), request(2, 0, 50, 0)];
    let read = parse(&slots, Features::ALL);
    assert_eq!((read.parsed, read.taken), (COPY, 3));
    assert_eq!(read.chain.meta, Meta { checksum: Checksum::Blank, gso: Some(gso) });
    assert_eq!(read.answers, [Answer::Request(0), Answer::Null, Answer::Request(2)]);
    assert_eq!(parse(&slots, PLAIN).parsed, dropped(FromClientDrop::Gso));
    // A client's word for its own checksum proves nothing.
    let read = parse(&[request(0, 0, 60, tx_flags::DATA_VALIDATED)], PLAIN);
    assert_eq!(read.chain.meta.checksum, Checksum::Unknown);
}

#[test]
fn bad_extras_are_fatal_and_multicast_is_dropped() {
    let with = |slot| parse(&[request(0, 0, 60, EXTRA), slot, request(1, 0, 60, 0)], Features::ALL);
    for data in [[0, 0, 1, 0, 0, 0], [1, 0, 0, 0, 0, 0], [1, 0, 3, 0, 0, 0]] {
        assert_eq!(with(extra(Extra::GSO, 0, data)).parsed, fatal(Fault::BadGso));
    }
    for kind in [0, 5, 6, 255] {
        assert_eq!(with(extra(kind, 0, [0; 6])).parsed, fatal(Fault::UnknownExtra(kind)));
    }
    for kind in [Extra::MCAST_ADD, Extra::MCAST_DEL] {
        let read = with(extra(kind, 0, [1; 6]));
        assert_eq!((read.parsed, read.taken), (dropped(FromClientDrop::Multicast), 2));
        // Slots that such a request must not have are not the next packet's.
        let first = request(0, 0, 0, EXTRA | MORE);
        let slots = [first, extra(kind, 0, [1; 6]), request(2, 0, 60, MORE), request(3, 0, 9, 0)];
        for offered in [Features::ALL, Features::NONE] {
            let read = parse(&slots, offered);
            assert_eq!((read.parsed, read.taken), (dropped(FromClientDrop::Multicast), 4));
            assert_eq!(
                read.answers,
                [Answer::Request(0), Answer::Null, Answer::Request(2), Answer::Request(3)]
            );
        }
        assert_eq!(parse(&slots[..3], Features::ALL).parsed, fatal(Fault::CutShort));
    }
    assert_eq!(with(extra(Extra::HASH, 0, [9; 6])).parsed, COPY);
}

#[test]
fn whatever_the_slots_say_what_is_made_of_them_is_sound() {
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
        let read = parse(&ring, Features::ALL);
        assert_eq!(read.answers.len(), read.taken);
        assert_eq!(read.parsed.is_none(), ring.is_empty());
        match read.parsed {
            Some(Ok(())) => {
                seen[0] += 1;
                let sum: usize = read.chain.extents.iter().map(|f| usize::from(f.size)).sum();
                assert_eq!(sum, usize::from(read.chain.total));
                assert!(sum >= usize::from(SHORTEST));
                for f in &read.chain.extents {
                    assert!(usize::from(f.offset) + usize::from(f.size) <= PAGE_SIZE);
                }
            }
            Some(Err(Bad::Packet(_))) => seen[1] += 1,
            Some(Err(Bad::Peer(_))) => seen[2] += 1,
            None => {}
        }
    }
    assert!(seen.iter().all(|&count| count > 1000), "{seen:?}");
}
