//! One end of a replay: sends every packet of the recording, and compares what comes with it.
//! Queues are for flows to overtake each other; the packets of one come in their order.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crc32fast::Hasher;
use packet_views::buffer::{AnyPacket, View};
use packet_views::device::{NetDevice, PacketMutOf, PacketOf, SendError};
use packet_views::header::{flow_hash, packet_flow_hash};

use super::recording::Recording;
use crate::stream::Digest;

/// Packets taken from the device before it is asked to send again.
const BURST: usize = 64;

/// One end, on any device.
pub struct Player<N: NetDevice> {
    /// The device.
    pub net: N,
    recording: Arc<Recording>,
    /// A packet for which there was no room yet.
    waiting: Option<PacketMutOf<N>>,
    queues: u8,
    sent: Progress,
    received: Received,
}

/// Packets that have passed, in whatever order.
#[derive(Clone, Default)]
struct Progress {
    packets: usize,
    bytes: u64,
    /// The CRC-32 of each, added up.
    crc: u32,
}

impl Progress {
    fn add<'a>(&mut self, pieces: impl Iterator<Item = &'a [u8]>) {
        let mut crc = Hasher::new();
        for piece in pieces {
            crc.update(piece);
            self.bytes += piece.len() as u64;
        }
        self.packets += 1;
        self.crc = self.crc.wrapping_add(crc.finalize());
    }

    fn digest(&self) -> Digest {
        Digest { bytes: self.bytes, crc: self.crc }
    }
}

/// What came, and how it differs from what should have.
struct Received {
    all: Progress,
    /// The packets of each flow that have not come yet.
    flows: HashMap<u32, VecDeque<usize>>,
    wrong: Option<String>,
}

impl Received {
    fn new(recording: &Recording, queues: u8) -> Received {
        let mut flows: HashMap<u32, VecDeque<usize>> = HashMap::new();
        for index in 0..recording.packets() {
            let flow = match (queues, recording.get(index)) {
                (2.., Some(packet)) => flow_hash(packet),
                // In one queue nothing overtakes anything.
                _ => 0,
            };
            flows.entry(flow).or_default().push_back(index);
        }
        Received { all: Progress::default(), flows, wrong: None }
    }

    /// Compares a packet with the next of its flow.
    fn compare<N: NetDevice>(&mut self, recording: &Recording, packet: &PacketOf<N>, queues: u8) {
        self.all.add(packet.fragments().iter().map(View::bytes));
        let flow = if queues > 1 { packet_flow_hash(packet) } else { 0 };
        let Some(index) = self.flows.get_mut(&flow).and_then(VecDeque::pop_front) else {
            let why = || format!("a packet of {} bytes came that nobody waits for", packet.len());
            self.wrong.get_or_insert_with(why);
            return;
        };
        let expected = recording.get(index).unwrap_or_default();
        let came = packet.fragments().iter().flat_map(View::bytes);
        let same = came.zip(expected).take_while(|(came, expected)| came == expected).count();
        if same < expected.len() || packet.len() > expected.len() {
            let why = || format!("packet {} is another one from byte {same} on", index + 1);
            self.wrong.get_or_insert_with(why);
        }
    }
}

impl<N: NetDevice> Player<N> {
    /// An end that has sent nothing yet, on a device of so many queues.
    pub fn new(net: N, recording: Arc<Recording>, queues: u8) -> Player<N> {
        let (sent, received) = (Progress::default(), Received::new(&recording, queues));
        Player { net, recording, waiting: None, queues, sent, received }
    }

    /// Takes what has come, and sends as much as there is room for.
    pub fn play(&mut self) {
        let Player { net, recording, received, queues, .. } = self;
        net.receive(BURST, |packet| received.compare::<N>(recording, &packet, *queues));
        while let Some(bytes) = self.recording.get(self.sent.packets) {
            let packet = self.waiting.take().or_else(|| build(&mut self.net, bytes));
            let Some(packet) = packet else { break };
            // One that is refused is missed at the other end.
            if let Err(SendError::Full(packet)) = self.net.send(packet) {
                self.waiting = Some(packet);
                break;
            }
            self.sent.add(core::iter::once(bytes));
        }
        self.net.flush();
    }

    /// Whether all has been sent, and as much has come.
    pub fn is_done(&self) -> bool {
        let all = self.recording.packets();
        self.sent.packets >= all && self.received.all.packets >= all
    }

    /// Packets received.
    pub fn received(&self) -> usize {
        self.received.all.packets
    }

    /// What was sent, and what was received.
    pub fn digests(&self) -> (Digest, Digest) {
        (self.sent.digest(), self.received.all.digest())
    }

    /// What was received that should not have been.
    pub fn wrong(&self) -> Option<&str> {
        self.received.wrong.as_deref()
    }
}

/// A packet with these bytes; `None` if the device is short of memory now.
fn build<N: NetDevice>(net: &mut N, bytes: &[u8]) -> Option<PacketMutOf<N>> {
    let mut packet = AnyPacket::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let mut buf = net.alloc(0)?;
        let (now, later) = rest.split_at(rest.len().min(buf.tailroom()));
        buf.append(now.len())?.copy_from_slice(now);
        packet.push(buf).ok()?;
        rest = later;
    }
    Some(packet)
}
