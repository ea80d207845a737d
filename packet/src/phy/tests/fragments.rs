//! Datagrams in fragments, through a stack that has one place for them.

use alloc::collections::BTreeSet;

use proptest::prelude::*;
use smoltcp::socket::udp;

use super::frames::{Kind, frame, is_right, plainly};
use super::*;

/// Some data that no other datagram has.
fn data(len: usize, seed: u8) -> Vec<u8> {
    (0..len).map(|at| (at * 7 + at / 256) as u8 ^ seed).collect()
}

/// IPv4 again right.
fn sum_header(frame: &mut [u8]) {
    let len = usize::from(frame[14] & 15) * 4;
    frame[24..26].fill(0);
    let sum = !plainly(&frame[14..14 + len]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
}

/// The part `from..to` of what a packet carries, as a fragment of the packet `id`.
fn cut(whole: &[u8], id: u16, from: usize, to: usize) -> Vec<u8> {
    let more = to < whole.len() - if whole[12] == 8 { 34 } else { 54 };
    if whole[12] == 8 {
        let mut frame = [&whole[..34], &whole[34 + from..34 + to]].concat();
        frame[16..18].copy_from_slice(&((to - from + 20) as u16).to_be_bytes());
        frame[18..20].copy_from_slice(&id.to_be_bytes());
        let place = (from / 8) as u16 | u16::from(more) << 13;
        frame[20..22].copy_from_slice(&place.to_be_bytes());
        sum_header(&mut frame);
        frame
    } else {
        let place = from as u16 | u16::from(more);
        let mut frame = [&whole[..54], &[whole[20], 0], &place.to_be_bytes()].concat();
        frame.extend([[7, 7], id.to_be_bytes()].concat());
        frame.extend(&whole[54 + from..54 + to]);
        frame[18..20].copy_from_slice(&((to - from + 8) as u16).to_be_bytes());
        frame[20] = 44;
        frame
    }
}

/// The fragments of a packet, each but the last with `size` bytes.
fn fragments(whole: &[u8], id: u16, size: usize) -> Vec<Vec<u8>> {
    let len = whole.len() - if whole[12] == 8 { 34 } else { 54 };
    (0..len).step_by(size).map(|from| cut(whole, id, from, len.min(from + size))).collect()
}

/// A stack with a socket for the frames that [`frame`] makes.
struct Hearer {
    stack: Stack,
    socket: SocketHandle,
}

impl Hearer {
    fn new() -> Hearer {
        let mut stack = Stack::new(1, mock());
        let buffer =
            || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 32], vec![0; 1 << 19]);
        let mut socket = udp::Socket::new(buffer(), buffer());
        socket.bind(7).unwrap();
        let socket = stack.sockets.add(socket);
        Hearer { stack, socket }
    }

    /// What is heard when these frames have come.
    fn hears<F: AsRef<[u8]>>(&mut self, frames: impl IntoIterator<Item = F>) -> Vec<Vec<u8>> {
        let incoming = &mut self.stack.device.inner_mut().incoming;
        incoming.extend(frames.into_iter().map(|frame| packet(&[frame.as_ref()])));
        while !self.stack.device.inner().incoming.is_empty() {
            self.stack.poll();
        }
        let mut heard = vec![];
        while let Ok((data, _)) = self.stack.socket::<udp::Socket<'_>>(self.socket).recv() {
            heard.push(data.to_vec());
        }
        heard
    }
}

#[test]
fn what_is_put_together_is_verified() {
    for v4 in [true, false] {
        for len in [1473, 1480, 4000, 9000, 65_507] {
            for state in [Checksum::Unknown, Checksum::Complete] {
                let data = data(len, 0);
                let right = frame(v4, Kind::Udp, &data);
                let mut wrong = right.clone();
                *wrong.last_mut().unwrap() ^= 1;
                for (whole, expected) in [(&right, vec![data]), (&wrong, vec![])] {
                    let mut hearer = Hearer::new();
                    let parts = fragments(whole, 5, 1472);
                    let mut parts: Vec<_> = parts.iter().map(|part| packet(&[part])).collect();
                    parts.iter_mut().for_each(|packet| packet.meta.checksum = state);
                    hearer.stack.device.inner_mut().incoming.extend(parts);
                    assert_eq!(hearer.hears([[]; 0]), expected, "{v4} {len} {state:?}");
                    let counters = hearer.stack.device.counters();
                    assert_eq!(counters.checksums_wrong, u64::from(expected.is_empty()));
                    assert_eq!((counters.reassembled, counters.fragments_dropped), (1, 0));
                }
            }
        }
    }
}

/// RFC 768: nobody has summed it.
#[test]
fn udp_without_a_checksum_is_put_together() {
    let data = data(3000, 0);
    let mut whole = frame(true, Kind::Udp, &data);
    whole[40..42].fill(0);
    assert_eq!(Hearer::new().hears(fragments(&whole, 5, 1480)), [data]);
}

/// Of one, three, a hundred datagrams something is lost, whatever it is: the next one is heard.
#[test]
fn what_is_lost_shuts_out_nobody() {
    let lost = data(5000, 1);
    let next = data(6000, 2);
    for v4 in [true, false] {
        let (lost, whole) = (frame(v4, Kind::Udp, &lost), frame(v4, Kind::Udp, &next));
        for count in [1, 3, 4, 100] {
            for missing in 0..4 {
                let mut hearer = Hearer::new();
                let of = |id| {
                    let mut parts = fragments(&lost, id, 1480);
                    parts.remove(missing);
                    parts
                };
                assert!(hearer.hears((0..count).flat_map(of)).is_empty());
                assert_eq!(hearer.hears(fragments(&whole, 999, 1480)), [&next[..]], "{missing}");
                // Only the first of each, over and over.
                let of = |id| fragments(&lost, 1000 + id, 1480).swap_remove(0);
                assert!(hearer.hears((0..count).map(of)).is_empty());
                assert_eq!(hearer.hears(fragments(&whole, 998, 1480)), [&next[..]], "{missing}");
            }
        }
    }
}

/// A flood of fragments that begin nothing, or end nothing, between the fragments of a datagram.
#[test]
fn a_flood_in_between_shuts_out_nobody() {
    let lost = frame(true, Kind::Udp, &data(5000, 1));
    let next = data(6000, 2);
    for part_of_flood in 0..4 {
        let mut id = 0;
        let mut flood = |count| {
            (0..count)
                .map(|_| {
                    id += 1;
                    fragments(&lost, id, 1480).swap_remove(part_of_flood)
                })
                .collect::<Vec<_>>()
        };
        let mut frames = vec![];
        for part in fragments(&frame(true, Kind::Udp, &next), 999, 1480) {
            frames.push(part);
            // It takes another fragment to be worth more than one that has just begun.
            frames.extend(flood(if part_of_flood == 0 && frames.len() == 1 { 3 } else { 50 }));
        }
        assert_eq!(Hearer::new().hears(frames), [&next[..]], "{part_of_flood}");
    }
}

/// Who has lost something and hears no more gives its place to anybody, also to one whose first
/// fragment comes last; before that only to one that begins, or that is no better off.
#[test]
fn who_waits_for_long_gives_its_place_away() {
    let lost = frame(true, Kind::Udp, &data(5000, 1));
    let next = data(4000, 2);
    for (there, millis, heard) in [(0..3, 50, 0), (0..3, 150, 1), (1..3, 50, 1)] {
        let mut hearer = Hearer::new();
        let of = |id| fragments(&lost, id, 1480).drain(there.clone()).collect::<Vec<_>>();
        assert!(hearer.hears((0..4).flat_map(of)).is_empty());
        hearer.stack.now += smoltcp::time::Duration::from_millis(millis);
        let mut parts = fragments(&frame(true, Kind::Udp, &next), 999, 1480);
        parts.reverse();
        assert_eq!(hearer.hears(parts).len(), heard, "{there:?} {millis}");
    }
}

/// On a slow link it is the last fragment that counts, not the first.
#[test]
fn who_goes_on_hearing_keeps_its_place() {
    let all: Vec<_> = (0..4).map(|id| data(4000, id)).collect();
    let parts: Vec<_> = all
        .iter()
        .zip(0..)
        .map(|(data, id)| fragments(&frame(true, Kind::Udp, data), id, 1480))
        .collect();
    let mut hearer = Hearer::new();
    for turn in 0..2 {
        assert!(hearer.hears(parts.iter().map(|parts| &parts[turn])).is_empty());
        hearer.stack.now += smoltcp::time::Duration::from_millis(60);
    }
    let lost = frame(true, Kind::Udp, &data(5000, 9));
    assert!(hearer.hears((10..60).map(|id| fragments(&lost, id, 1480).swap_remove(1))).is_empty());
    assert_eq!(hearer.hears(parts.iter().map(|parts| &parts[2])), all);
}

/// More senders at a time than there are places, in turn: some are heard, and whole.
#[test]
fn of_many_at_once_some_are_heard() {
    let all: Vec<_> = (0..10).map(|id| data(8000, id)).collect();
    let parts: Vec<_> = (0..10u8)
        .map(|id| fragments(&frame(true, Kind::Udp, &all[usize::from(id)]), id.into(), 1480))
        .collect();
    let turns = (0..parts[0].len()).flat_map(|turn| parts.iter().map(move |parts| &parts[turn]));
    let heard = Hearer::new().hears(turns);
    assert!(heard.len() >= 4 && heard.iter().all(|data| all.contains(data)), "{}", heard.len());
}

#[test]
fn the_memory_of_a_place_is_taken_once_and_shows_nothing_old() {
    let mut hearer = Hearer::new();
    for (id, len) in [(1, 60_000), (2, 2000), (3, 1999), (4, 60_000)] {
        let data = data(len, id);
        let heard = hearer.hears(fragments(&frame(true, Kind::Udp, &data), id.into(), 1480));
        assert_eq!(heard, [data]);
    }
}

/// The stack sees one packet, whose header is right, options and all.
#[test]
fn the_whole_is_a_packet_like_any_other() {
    for v4 in [true, false] {
        let whole = frame(v4, Kind::Tcp, &data(3000, 0));
        let mut device = Device::new(mock());
        let parts = fragments(&whole, 5, 1400);
        device.inner_mut().incoming.extend(parts.iter().map(|part| packet(&[part])));
        let (bytes, _) = receive(&mut device).unwrap();
        assert!(is_right(&bytes));
        assert_eq!(bytes[26..], whole[26..]);
        assert!(receive(&mut device).is_none());
        assert_eq!(device.inner().recycled, parts.len());
    }
    // Only the first has the options.
    let data = data(3000, 0);
    let whole = frame(true, Kind::Udp, &data);
    let mut parts = fragments(&whole, 5, 1480);
    let len = u16::from_be_bytes([parts[0][16], parts[0][17]]) + 8;
    parts[0].splice(34..34, [1; 8]);
    parts[0][14] = 0x47;
    parts[0][16..18].copy_from_slice(&len.to_be_bytes());
    sum_header(&mut parts[0]);
    parts.reverse();
    assert_eq!(Hearer::new().hears(parts), [data]);
}

/// Padded to the least that Ethernet carries, tagged, in several slots.
#[test]
fn fragments_come_as_frames_do() {
    let data = data(2990, 0);
    let mut parts = fragments(&frame(true, Kind::Udp, &data), 5, 1496);
    parts[2].resize(60, 0xee);
    parts[1].splice(12..12, [0x81, 0, 0xe0, 0]);
    let mut hearer = Hearer::new();
    let packets = [packet(&[&parts[0][..700], &parts[0][700..]]), packet(&[&parts[1]])];
    hearer.stack.device.inner_mut().incoming.extend(packets);
    assert_eq!(hearer.hears([&parts[2]]), [data]);
}

#[test]
fn what_makes_no_sense_ends_its_own_datagram_only() {
    let data = data(4000, 0);
    let whole = frame(true, Kind::Udp, &data);
    let good = fragments(&whole, 5, 1480);
    let mut bad_header = good[1].clone();
    bad_header[24] ^= 1;
    let mut odd = cut(&whole, 5, 1480, 1487);
    odd[20] |= 0x20;
    let mut empty = cut(&whole, 5, 1480, 1480);
    empty[20] |= 0x20;
    let mut beyond = good[1].clone();
    beyond[20..22].copy_from_slice(&0x3fff_u16.to_be_bytes());
    sum_header(&mut odd);
    sum_header(&mut empty);
    sum_header(&mut beyond);
    let mut elsewhere = good[1].clone();
    elsewhere[5] = 9;
    *elsewhere.last_mut().unwrap() ^= 1;
    // Dropped, and nothing else happens.
    for (bad, dropped) in [(bad_header, 1), (odd, 1), (empty, 1), (beyond, 1), (elsewhere, 0)] {
        let mut hearer = Hearer::new();
        assert_eq!(hearer.hears([&good[0], &bad, &good[1], &good[2]]), [&data[..]]);
        assert_eq!(hearer.stack.device.counters().fragments_dropped, dropped);
    }
    // What comes twice counts once.
    assert_eq!(
        Hearer::new().hears([&good[0], &good[1], &good[0], &good[1], &good[2]]),
        [&data[..]]
    );
    // What overlaps without being the same, or goes on behind the end.
    let mut early_end = cut(&whole, 5, 1480, 1600);
    early_end[20] &= !0x20;
    sum_header(&mut early_end);
    for bad in [cut(&whole, 5, 1472, 1600), cut(&whole, 5, 2952, 2968), early_end] {
        for order in [[&good[0], &good[2], &bad, &good[1]], [&good[2], &bad, &good[1], &good[0]]] {
            let mut hearer = Hearer::new();
            let heard = hearer.hears(order);
            assert!(heard.is_empty());
            assert!(hearer.stack.device.counters().fragments_dropped >= 2);
            assert_eq!(hearer.hears(fragments(&whole, 6, 1480)), [&data[..]]);
        }
    }
}

/// As many bytes as the end says, but not those in front of it.
#[test]
fn what_lies_behind_the_end_fills_no_hole() {
    let whole = frame(true, Kind::Udp, &data(4000, 0));
    let mut end = cut(&whole, 5, 1480, 1600);
    end[20] &= !0x20;
    sum_header(&mut end);
    let parts = [cut(&whole, 5, 0, 1472), cut(&whole, 5, 2960, 2968), end];
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
        let mut hearer = Hearer::new();
        assert!(hearer.hears(order.map(|at| &parts[at])).is_empty());
        let counters = hearer.stack.device.counters();
        assert_eq!((counters.reassembled, counters.checksums_wrong), (0, 0));
        assert!(counters.fragments_dropped >= 2);
    }
}

/// Identifications are used again.
#[test]
fn what_is_too_old_is_forgotten() {
    let (old, new) = (data(3000, 1), data(3000, 2));
    let old = fragments(&frame(true, Kind::Udp, &old), 5, 1480);
    let whole = frame(true, Kind::Udp, &new);
    let mut hearer = Hearer::new();
    assert!(hearer.hears(&old[..2]).is_empty());
    hearer.stack.now += smoltcp::time::Duration::from_secs(16);
    assert_eq!(hearer.hears(fragments(&whole, 5, 1480)), [new]);
    assert_eq!(hearer.stack.device.counters().fragments_dropped, 2);
}

/// What differs in one of these is of another datagram.
#[test]
fn a_datagram_is_known_by_addresses_identification_and_protocol() {
    let whole = frame(true, Kind::Udp, &data(2000, 0));
    let parts = fragments(&whole, 5, 1480);
    for place in [19, 23, 29, 33] {
        let mut other = parts[1].clone();
        other[place] ^= 2;
        sum_header(&mut other);
        let mut hearer = Hearer::new();
        assert!(hearer.hears([&parts[0], &other]).is_empty());
        assert_eq!(hearer.stack.device.counters().reassembled, 0);
    }
}

proptest! {
    /// Cut anywhere, in any order, in and out of each other.
    #[test]
    fn any_cut_in_any_order_is_put_together(
        v4: bool,
        lens in prop::collection::vec(9usize..30_000, 1..4),
        sizes in prop::collection::vec(1usize..300, 1..8),
        order: u64,
    ) {
        let all: Vec<_> = lens.iter().zip(1..).map(|(&len, id)| data(len, id)).collect();
        let mut frames = vec![];
        for (data, id) in all.iter().zip(1..) {
            let whole = frame(v4, Kind::Udp, data);
            let (mut from, mut sizes) = (0, sizes.iter().cycle());
            while from < data.len() + 8 {
                // No more than fit into a round.
                let to = (data.len() + 8).min(from + (sizes.next().unwrap() + 100) * 8);
                if from > 0 || to < data.len() + 8 {
                    frames.push(cut(&whole, id, from, to));
                } else {
                    frames.push(whole.clone());
                }
                from = to;
            }
        }
        let mut random = order | 1;
        for at in (1..frames.len()).rev() {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            frames.swap(at, (random >> 33) as usize % (at + 1));
        }
        let heard: BTreeSet<_> = Hearer::new().hears(frames).into_iter().collect();
        prop_assert_eq!(heard, all.into_iter().collect());
    }
}
