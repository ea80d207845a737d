//! Packets both ways, compared byte by byte.

use std::num::NonZeroU16;

use packet_views::buffer::{Checksum, Gso, GsoKind, Meta};
use xen_grant::PAGE_SIZE;
use xen_netfront::buffer::{Buf, Packet};
use xen_netfront::wire::rx_flags;

use super::frames;
use super::guest::{Guest, Takes};
use super::queue::Frame;
use super::raw_client::{Received, bytes, pattern};
use super::world::World;

const PLAIN: Meta = Meta { checksum: Checksum::Unknown, gso: None };

/// A frame of noise.
pub fn noise(seed: u64, len: usize) -> Frame {
    Frame { bytes: pattern(seed, len), meta: PLAIN }
}

/// TCP or UDP whose checksum is blank.
pub fn blank(v6: bool, tcp: bool, seed: u64, len: usize) -> Frame {
    let bytes = frames::blank(frames::frame(v6, tcp, 4000, &pattern(seed, len)));
    Frame { bytes, meta: Meta { checksum: Checksum::Blank, gso: None } }
}

/// TCP of `len` bytes of data, to be cut into segments of `size`.
pub fn large(v6: bool, seed: u64, len: usize, size: u16) -> Frame {
    let mut frame = blank(v6, true, seed, len);
    let kind = if v6 { GsoKind::TcpV6 } else { GsoKind::TcpV4 };
    frame.meta.gso = Some(Gso { size: NonZeroU16::new(size).unwrap(), kind });
    frame
}

/// Something that may be sent by whoever can do this.
fn any(rng: &mut fastrand::Rng, can: Takes, longest: usize) -> Frame {
    let (seed, v6) = (rng.u64(..), rng.bool());
    let short = |rng: &mut fastrand::Rng| match rng.u8(..4) {
        0 => 60,
        1 => 1514.min(longest),
        _ => rng.usize(60..=1514.min(longest)),
    };
    let (sums, cuts) = if v6 { (can.blank_v6, can.gso_v6) } else { (can.blank_v4, can.gso_v4) };
    match rng.u8(..6) {
        0 if can.chains => noise(seed, rng.usize(60..=longest)),
        1 | 2 if sums => blank(v6, rng.bool(), seed, rng.usize(1..1400.min(longest - 80))),
        3 if cuts => {
            large(v6, seed, rng.usize(2000..64_000), [1448, 1428, 536, 8948][rng.usize(..4)])
        }
        _ => noise(seed, short(rng)),
    }
}

/// `count` packets that this guest can send.
pub fn from_guest(rng: &mut fastrand::Rng, guest: &Guest, count: usize) -> Vec<Frame> {
    let can = guest.may_send;
    let longest = if can.chains { guest.frontend.sends.longest } else { 1514 };
    (0..count).map(|_| any(rng, can, longest)).collect()
}

/// Sends these packets, waits for room as often as it takes, and has our side compare them; all are answered.
pub fn send(world: &mut World, number: usize, frames: &[Frame]) {
    let name = world.guests[number].frontend.name;
    let mut left = frames.to_vec();
    while !left.is_empty() {
        let before = left.len();
        left = world.guests[number].send(left);
        assert!(left.len() < before, "{name}: no room, and nobody told it of any");
        world.settle();
    }
    let id = world.guests[number].id();
    let (mine, others) =
        std::mem::take(&mut world.backend.received).into_iter().partition(|(from, _)| *from == id);
    world.backend.received = others;
    let mine: Vec<_> = mine;
    let mut got: Vec<_> =
        mine.iter().map(|(_, packet)| Frame { bytes: bytes(packet), meta: packet.meta }).collect();
    let mut sent = frames.to_vec();
    if world.guests[number].queues.len() > 1 {
        got.sort_by(|a, b| a.bytes.cmp(&b.bytes));
        sent.sort_by(|a, b| a.bytes.cmp(&b.bytes));
    }
    assert_eq!(got.len(), sent.len(), "{name}: packets that arrived");
    for (number, (got, sent)) in got.iter().zip(&sent).enumerate() {
        assert_eq!(got.meta, sent.meta, "{name}: packet {number}");
        assert!(got.bytes == sent.bytes, "{name}: packet {number} has changed");
    }
    for queue in &mut world.guests[number].queues {
        queue.collect();
        assert_eq!(queue.unanswered(), 0, "{name}");
    }
    assert!(world.guests[number].statuses().iter().all(|status| *status == 0), "{name}");
}

/// A packet of ours, in pages cut anywhere, its headers in one piece.
pub fn packet(world: &World, frame: &Frame, rng: &mut fastrand::Rng) -> Packet {
    let pool = world.backend.pool().clone();
    let mut packet = Packet::new();
    let mut rest = &frame.bytes[..];
    while !rest.is_empty() {
        let offset = if rest.len() < 2000 { rng.usize(..2000) } else { 0 };
        let (part, later) = rest.split_at(rest.len().min(PAGE_SIZE - offset));
        let mut page = pool.take().expect("the pool is large enough");
        page.range_mut(offset..offset + part.len()).unwrap().copy_from_slice(part);
        packet.push(Buf::new(page.share(), offset..offset + part.len()).unwrap()).unwrap();
        rest = later;
    }
    packet.meta = frame.meta;
    packet
}

/// What a guest has got must be the packet, or its segments, in a form that it takes.
fn take_one(name: &str, takes: Takes, sent: &Frame, got: &mut impl Iterator<Item = Received>) {
    let mut next = || got.next().unwrap_or_else(|| panic!("{name}: a packet is missing"));
    let first = next();
    assert!(takes.chains || first.slots == 1, "{name}: {} slots", first.slots);
    let blank = first.flags & rx_flags::CSUM_BLANK != 0;
    assert!(
        !blank || first.flags & rx_flags::DATA_VALIDATED != 0,
        "{name}: blank implies validated"
    );
    let Meta { checksum, gso } = sent.meta;
    if checksum != Checksum::Blank {
        assert!(!blank && first.bytes == sent.bytes, "{name}: a packet has changed");
        return;
    }
    let whole = frames::open(&sent.bytes);
    let (takes_blank, takes_gso) =
        if whole.v6 { (takes.blank_v6, takes.gso_v6) } else { (takes.blank_v4, takes.gso_v4) };
    if takes_gso || gso.is_none() && takes_blank {
        assert!(blank && first.bytes == sent.bytes, "{name}: a packet has changed");
        assert_eq!(first.gso, gso, "{name}");
        return;
    }
    let (mut segment, mut data) = (first, Vec::new());
    loop {
        let opened = frames::open(&segment.bytes);
        let blank = segment.flags & rx_flags::CSUM_BLANK != 0;
        assert_eq!(segment.gso, None, "{name}");
        assert!(opened.right != blank && (takes_blank || !blank), "{name}: its sum");
        assert!(takes.chains || segment.slots == 1, "{name}: {} slots", segment.slots);
        assert_eq!(opened.ports, whole.ports, "{name}");
        data.extend(opened.data);
        if data.len() >= whole.data.len() {
            break;
        }
        segment = next();
    }
    assert!(data == whole.data, "{name}: the segments' data");
}

/// Delivers these packets, and has the guest compare them.
pub fn deliver(world: &mut World, number: usize, frames: &[Frame], rng: &mut fastrand::Rng) {
    let (id, name) = (world.guests[number].id(), world.guests[number].frontend.name);
    let takes = world.guests[number].takes();
    let ordered = world.guests[number].queues.len() == 1;
    world.guests[number].received.clear();
    for frames in if ordered { frames.chunks(8) } else { frames.chunks(1) } {
        for frame in frames {
            let packet = packet(world, frame, rng);
            world.backend.deliver(id, packet).unwrap();
        }
        world.settle();
        let mut got = std::mem::take(&mut world.guests[number].received).into_iter();
        frames.iter().for_each(|frame| take_one(name, takes, frame, &mut got));
        assert_eq!(got.count(), 0, "{name}: more than was sent");
    }
}

/// Packets to a guest, of every kind: what it does not take is done for it.
pub fn to_guest(rng: &mut fastrand::Rng, guest: &Guest, count: usize) -> Vec<Frame> {
    let chains = guest.takes().chains;
    let all = Takes { chains, blank_v4: true, blank_v6: true, gso_v4: true, gso_v6: true };
    let longest = guest.frontend.receives;
    let fits = |frame: &Frame| {
        // A segment must fit a guest's page too.
        frame.meta.gso.is_none_or(|gso| chains || usize::from(gso.size.get()) + 100 < longest)
    };
    std::iter::repeat_with(|| any(rng, all, longest)).filter(fits).take(count).collect()
}

/// Traffic both ways, of every kind that this guest can do with.
pub fn both_ways(world: &mut World, number: usize, seed: u64, rounds: usize) {
    let mut rng = fastrand::Rng::with_seed(seed);
    for round in 0..rounds {
        // Now and then more than a ring holds.
        let count = if round % 4 == 3 { 300 } else { rng.usize(1..8) };
        let frames = from_guest(&mut rng, &world.guests[number], count);
        send(world, number, &frames);
        let count = rng.usize(1..12);
        let frames = to_guest(&mut rng, &world.guests[number], count);
        deliver(world, number, &frames, &mut rng);
    }
}
