//! What one seed of the deterministic host stands for: a scenario, played to its end.

mod honest;
mod hostile_backend;
mod hostile_client;

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use fastrand::Rng;
use xen_netfront::{netback, netfront};
use xen_sim::Chaos;

use crate::pair::{Pair, Plan, Shape};

/// The scenario of a seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Both ends keep to the rules; anything else happens to them.
    Honest,
    /// The frontend's peer follows a random script.
    HostileBackend,
    /// One of the backend's two clients follows a random script.
    HostileClient,
    /// Both ends keep to the rules, and xenstore refuses most of what they want.
    FlakyStore,
}

pub fn kind(seed: u64) -> Kind {
    match seed % 5 {
        0 => Kind::Honest,
        1 | 2 => Kind::HostileBackend,
        3 => Kind::HostileClient,
        _ => Kind::FlakyStore,
    }
}

/// Plays the scenario; returns a hash of all that happened.
pub fn play(seed: u64) -> u64 {
    let mut rng = Rng::with_seed(seed ^ 0x5eed_0000_0000);
    match kind(seed) {
        Kind::Honest => honest::play(seed, &mut rng, false),
        Kind::FlakyStore => honest::play(seed, &mut rng, true),
        Kind::HostileBackend => hostile_backend::play(seed, &mut rng),
        Kind::HostileClient => hostile_client::play(seed, &mut rng),
    }
}

/// A pair of any configuration; more often than not its ring indices wrap early on.
pub fn any_plan(seed: u64, rng: &mut Rng) -> Plan {
    let ring_start = match rng.u8(..5) {
        0 => 0,
        1 => rng.u32(..),
        _ => u32::MAX - rng.u32(..300),
    };
    let patience = Duration::from_millis([100, 1000, 10_000][rng.usize(..3)]);
    Plan {
        seed,
        front: netfront::Config::default().with_ring_start(ring_start),
        back: netback::Config::default()
            .with_headroom([0, 2, 128, 2048, 4096][rng.usize(..5)])
            .with_queue_packets([4, 64, 256][rng.usize(..3)])
            .with_queue_frames([40, 512][rng.usize(..2)])
            .with_patience(patience),
        mtu: [68, 1500, 9000, 65521][rng.usize(..4)],
        front_frames: [330, 420, 700][rng.usize(..3)],
        back_frames: [20, 64, 512][rng.usize(..3)],
    }
    .with_any_features(rng)
}

/// Late and spurious events, or none; transactions that fail.
pub fn any_chaos(rng: &mut Rng) -> Chaos {
    let late = Duration::from_micros([0, 0, 50, 1000][rng.usize(..4)]);
    Chaos {
        delay: Duration::ZERO..late,
        lost: 0.0,
        spurious: [0.0, 0.02, 0.2][rng.usize(..3)],
        conflicts: [0.0, 0.2][rng.usize(..2)],
    }
}

/// Packets of any size that the MTU allows, and of any number of fragments; half of them of flows,
/// blank, and some of these to be cut.
pub fn any_shapes(rng: &mut Rng, count: usize, mtu: u16) -> VecDeque<Shape> {
    let largest = (usize::from(mtu) + 18).min(65535);
    let shape = |_| {
        let len = match rng.u8(..6) {
            0 => 14,
            1 => 60.min(largest),
            2 => largest,
            3 => 1514.min(largest),
            _ => rng.usize(14..=largest),
        };
        let fragments = if rng.bool() { 1 } else { rng.usize(1..=18) };
        match rng.bool() {
            true => Shape::of_flow(rng, len, fragments),
            false => Shape::random(rng, len, fragments),
        }
    };
    (0..count).map(shape).collect()
}

/// A hash of everything that has happened on the host.
pub fn trace(pair: &Pair) -> u64 {
    let mut hasher = DefaultHasher::new();
    pair.host.now().0.hash(&mut hasher);
    for change in pair.host.store_trace() {
        (change.at.0, change.domain.0, change.path, change.value).hash(&mut hasher);
    }
    for domain in [pair.front_domain(), pair.back_domain()] {
        format!("{:?}", domain.counts()).hash(&mut hasher);
        for (gref, entry) in domain.grants() {
            let frame = domain.frame_index(entry.frame).ok_or(entry.frame);
            (gref, entry.flags, entry.peer.0, frame).hash(&mut hasher);
        }
    }
    pair.describe().hash(&mut hasher);
    hasher.finish()
}
