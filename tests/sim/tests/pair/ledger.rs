//! What went one way: numbered packets, each looked at when it arrives, whole or in segments.

use std::collections::BTreeMap;

use fastrand::Rng;
use packet_views::buffer::{AnyPacket, Meta, View};

use super::packets::{Flow, MOST_DATA, check};

/// What a packet consists of, besides its number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// Bytes that are nobody's protocol.
    #[default]
    Plain,
    /// A packet of a flow, its checksum blank; with a GSO size, unless that is 0.
    Flow(Flow, u16),
}

/// The fragments of a packet: room in front, and bytes, of each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    pub fragments: Vec<(u16, u16)>,
    pub kind: Kind,
}

impl Shape {
    /// Of such fragments.
    pub fn plain(fragments: Vec<(u16, u16)>) -> Shape {
        Shape { fragments, kind: Kind::Plain }
    }

    /// One fragment from the start of its page.
    pub fn single(len: u16) -> Shape {
        Shape::plain(vec![(0, len)])
    }

    /// `len` bytes in `count` fragments, or in as many as it takes.
    pub fn random(rng: &mut Rng, len: usize, count: usize) -> Shape {
        let count = count.clamp(len.div_ceil(4096).max(1), 18);
        let mut left = len;
        let mut fragments = Vec::with_capacity(count);
        for nth in 0..count {
            let later = (count - nth - 1) * 4096;
            let range = left.saturating_sub(later)..=left.min(4096);
            let size = if nth + 1 == count { left } else { rng.usize(range) };
            let room = if rng.bool() { 0 } else { rng.usize(..=4096 - size) };
            fragments.push((room as u16, size as u16));
            left -= size;
        }
        Shape::plain(fragments)
    }

    /// A packet of one of a few flows, of up to `largest` bytes, or of any length and to be cut.
    /// Headers are in one piece. Plain if there is no room for headers.
    pub fn of_flow(rng: &mut Rng, largest: usize, count: usize) -> Shape {
        let flow = Flow::each_kind(rng.u16(..6))[rng.usize(..4)];
        let headers = flow.packet(0, &[]).len();
        // A number goes into the data of those that have no other place for it.
        let Some(most) = largest.checked_sub(headers).filter(|most| *most >= 4) else {
            return Shape::random(rng, largest, count);
        };
        let (len, size) = match flow.tcp && rng.bool() {
            true => (rng.usize(1..=MOST_DATA), rng.u16(200..=1448)),
            false => (rng.usize(4..=most), 0),
        };
        let data = Shape::random(rng, len, count.min(17)).fragments;
        let head = (rng.u16(..=4096 - headers as u16), headers as u16);
        let fragments = match data[..] {
            // All in one.
            [(_, len)] if usize::from(len) + headers <= 4096 => vec![(0, len + head.1)],
            _ => [vec![head], data].concat(),
        };
        Shape { fragments, kind: Kind::Flow(flow, size) }
    }

    /// Bytes in all.
    pub fn len(&self) -> usize {
        self.fragments.iter().map(|&(_, len)| usize::from(len)).sum()
    }

    /// What is known of such a packet.
    pub fn meta(&self) -> Meta {
        match self.kind {
            Kind::Plain => Meta::default(),
            Kind::Flow(flow, size) => flow.meta(size),
        }
    }

    /// The bytes of packet `number`.
    fn bytes(&self, number: usize) -> Vec<u8> {
        match self.kind {
            Kind::Plain => pattern(number, self.len()),
            Kind::Flow(flow, _) => flow.blank(sequence(number), &pattern(number, self.data())),
        }
    }

    /// Bytes that have to arrive: without headers, which each segment has.
    fn data(&self) -> usize {
        match self.kind {
            Kind::Plain => self.len(),
            Kind::Flow(flow, _) => self.len() - flow.packet(0, &[]).len(),
        }
    }
}

/// Room for the data of a packet between one and the next.
fn sequence(number: usize) -> u32 {
    (number as u32) << 16
}

/// A packet on its way.
struct OnItsWay {
    shape: Shape,
    /// Data before that has arrived, or never will.
    next: usize,
    /// Data that has arrived.
    came: usize,
}

/// Packets that a driver has accepted, and what has become of them.
#[derive(Default)]
pub struct Ledger {
    packets: Vec<OnItsWay>,
    /// The last that has come: of each flow, or, with one queue, of all.
    last: BTreeMap<Option<Flow>, usize>,
    arrived: u64,
    bytes: u64,
    /// There are several queues, and flows may overtake each other.
    several: bool,
    /// Any bytes may come: the peer is hostile.
    pub lenient: bool,
}

impl Ledger {
    /// Of a way with one queue, or with several.
    pub fn new(several: bool) -> Ledger {
        Ledger { several, ..Ledger::default() }
    }

    /// The bytes of the next packet to send.
    pub fn next_packet(&self, shape: &Shape) -> Vec<u8> {
        shape.bytes(self.packets.len())
    }

    /// That packet has been accepted.
    pub fn accepted(&mut self, shape: &Shape) {
        self.packets.push(OnItsWay { shape: shape.clone(), next: 0, came: 0 });
    }

    /// A packet has come: one that was accepted or a segment of one, later than all that came
    /// before, unchanged.
    pub fn arrive<V: View>(&mut self, packet: &AnyPacket<V>) {
        let mut bytes = vec![0; packet.len()];
        packet.copy_to_slice(&mut bytes).unwrap();
        self.bytes += bytes.len() as u64;
        if self.lenient {
            self.arrived += 1;
            return;
        }
        // The stations of flows; no plain packet begins like that.
        let is_flow =
            bytes.len() > 45 && bytes[..5] == [2, 0, 0, 0, 0] && bytes[6..11] == bytes[..5];
        let (number, flow, offset, data) = match is_flow {
            true => {
                let arrived = check(&bytes, packet.meta);
                let (number, offset) = match arrived.flow.tcp {
                    true => (arrived.sequence >> 16, arrived.sequence & 0xffff),
                    false => (number_in(&arrived.data), 0),
                };
                (number as usize, Some(arrived.flow), offset as usize, arrived.data)
            }
            false => (number_in(&bytes) as usize, None, 0, bytes),
        };
        let last = self.last.entry(flow.filter(|_| self.several)).or_default();
        // Plain packets are of no flow that anybody knows.
        let ordered = !self.several || flow.is_some();
        let expected = *last;
        assert!(number >= expected || !ordered, "packet {number} after {expected}: out of order");
        *last = number;
        let Some(sent) = self.packets.get_mut(number) else {
            panic!("packet {number} from nowhere")
        };
        let whole = pattern(number, sent.shape.data());
        match sent.shape.kind {
            Kind::Plain => assert_eq!(flow, None, "packet {number}"),
            Kind::Flow(sent, _) => assert_eq!(flow, Some(sent), "packet {number}"),
        }
        assert!(offset >= sent.next, "packet {number}: from {offset} on again");
        let part = whole.get(offset..offset + data.len());
        assert!(part == Some(&data[..]), "packet {number} has changed from {offset} on");
        sent.next = offset + data.len();
        sent.came += data.len();
        self.arrived += u64::from(sent.came == whole.len());
    }

    /// Packets accepted.
    pub fn sent(&self) -> u64 {
        self.packets.len() as u64
    }

    /// Packets all of which has arrived.
    pub fn arrived(&self) -> u64 {
        self.arrived
    }

    /// Packets that were accepted and have not arrived, or not all of them.
    pub fn lost(&self) -> u64 {
        self.sent().saturating_sub(self.arrived)
    }
}

impl core::fmt::Debug for Ledger {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{} sent, {} arrived, {} bytes", self.sent(), self.arrived, self.bytes)
    }
}

fn number_in(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(bytes[..4].try_into().unwrap())
}

/// Packet `number`: its number, then bytes that are its own.
fn pattern(number: usize, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    Rng::with_seed(number as u64).fill(&mut bytes);
    let head = (number as u32).to_le_bytes();
    let at = head.len().min(len);
    bytes[..at].copy_from_slice(&head[..at]);
    bytes
}
