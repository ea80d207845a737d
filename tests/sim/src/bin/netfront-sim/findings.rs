//! What a run comes to, before it is put into words.

use core::time::Duration;

use crate::capture::Counts;
use crate::hostile::Record;
use crate::measure::Snapshot;
use crate::replay::LeftOut;
use crate::stream::{Digest, Sink, Source};

/// One stream, seen from both of its ends.
#[derive(Clone, Copy, Debug)]
pub struct Transfer {
    /// What was sent.
    pub sent: Digest,
    /// What arrived.
    pub received: Digest,
    /// Where something else arrived than was sent.
    pub first_wrong: Option<u64>,
}

impl Transfer {
    /// A stream between these ends.
    pub fn new(source: &Source, sink: &Sink) -> Transfer {
        Transfer { sent: source.digest(), received: sink.digest(), first_wrong: sink.first_wrong() }
    }

    /// Whether all that was sent arrived, unchanged.
    pub fn is_right(&self) -> bool {
        self.sent == self.received && self.first_wrong.is_none()
    }
}

/// What happened to one client.
pub struct OfClient {
    /// Client to backend.
    pub upload: Transfer,
    /// Backend to client.
    pub download: Transfer,
    /// Packets through its rings, both ways.
    pub packets: u64,
    /// How often its device came up.
    pub connects: u64,
    /// Attacks on it, if there were to be any.
    pub attacks: Option<Record>,
}

/// What was replayed.
#[derive(Clone, Debug)]
pub struct Replayed {
    /// Packets of the file.
    pub packets: usize,
    /// Bytes of the longest.
    pub longest: usize,
    /// What the file has besides.
    pub left_out: LeftOut,
}

/// What happened.
pub struct Findings {
    /// To each client.
    pub clients: Vec<OfClient>,
    /// The MTU of their devices.
    pub mtu: usize,
    /// From the first connection to the last byte.
    pub time: Duration,
    /// When everything had found its pace.
    pub warm: Snapshot,
    /// When the last byte was transferred.
    pub end: Snapshot,
    /// What should not be after an orderly disconnect: leaked pages, broken rules.
    pub complaints: Vec<String>,
    /// The file that was replayed, if that is what was done.
    pub replay: Option<Replayed>,
    /// What was captured, if that was wished for.
    pub capture: Option<Counts>,
    /// It was told to end before all was done.
    pub interrupted: bool,
}
