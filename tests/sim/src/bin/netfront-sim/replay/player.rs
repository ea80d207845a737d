//! One end of a replay: sends every packet of the recording, and compares what comes with it.

use std::sync::Arc;

use crc32fast::Hasher;
use xen_netfront::buffer::{Packet, View};
use xen_netfront::netif::{Netif, RxOf, SendError, TxOf};

use super::recording::Recording;
use crate::stream::Digest;

/// Packets taken from the device before it is asked to send again.
const BURST: usize = 64;

/// One end, on any device.
pub struct Player<N: Netif> {
    /// The device.
    pub netif: N,
    recording: Arc<Recording>,
    /// A packet for which there was no room yet.
    waiting: Option<TxOf<N>>,
    sent: Progress,
    received: Received,
}

/// Packets that have passed.
#[derive(Clone, Default)]
struct Progress {
    packets: usize,
    bytes: u64,
    crc: Hasher,
}

impl Progress {
    fn add(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.crc.update(bytes);
    }

    fn digest(&self) -> Digest {
        Digest { bytes: self.bytes, crc: self.crc.clone().finalize() }
    }
}

/// What came, and how it differs from what should have.
#[derive(Clone, Default)]
struct Received {
    all: Progress,
    wrong: Option<String>,
}

impl Received {
    /// Compares a packet with the next of the recording.
    fn compare<N: Netif>(&mut self, recording: &Recording, packet: &RxOf<N>) {
        let number = self.all.packets + 1;
        let mut expected = recording.get(self.all.packets).unwrap_or_default();
        let mut at = 0;
        let mut wrong = None;
        for fragment in packet.fragments() {
            let bytes = fragment.bytes();
            let (now, later) = expected.split_at(expected.len().min(bytes.len()));
            let same = now.iter().zip(bytes).take_while(|(a, b)| a == b).count();
            if wrong.is_none() && same < bytes.len() {
                wrong = Some(at + same);
            }
            at += bytes.len();
            expected = later;
            self.all.add(bytes);
        }
        self.all.packets = number;
        if wrong.is_none() && !expected.is_empty() {
            wrong = Some(at);
        }
        if let (None, Some(byte)) = (&self.wrong, wrong) {
            self.wrong = Some(format!("packet {number} is another one from byte {byte} on"));
        }
    }
}

impl<N: Netif> Player<N> {
    /// An end that has sent nothing yet.
    pub fn new(netif: N, recording: Arc<Recording>) -> Player<N> {
        let (sent, received) = Default::default();
        Player { netif, recording, waiting: None, sent, received }
    }

    /// Takes what has come, and sends as much as there is room for.
    pub fn play(&mut self) {
        let Player { netif, recording, received, .. } = self;
        netif.receive(BURST, |packet| received.compare::<N>(recording, &packet));
        while let Some(bytes) = self.recording.get(self.sent.packets) {
            let packet = self.waiting.take().or_else(|| build(&mut self.netif, bytes));
            let Some(packet) = packet else { break };
            // One that is refused is missed at the other end.
            if let Err(SendError::Full(packet)) = self.netif.send(packet) {
                self.waiting = Some(packet);
                break;
            }
            self.sent.packets += 1;
            self.sent.add(bytes);
        }
        self.netif.flush();
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
fn build<N: Netif>(netif: &mut N, bytes: &[u8]) -> Option<TxOf<N>> {
    let mut packet = Packet::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let mut buf = netif.alloc(0)?;
        let (now, later) = rest.split_at(rest.len().min(buf.tailroom()));
        buf.append(now.len())?.copy_from_slice(now);
        packet.push(buf).ok()?;
        rest = later;
    }
    Some(packet)
}
