//! What fate does to a pair, between the turns of its two ends.

use std::num::NonZeroU64;

use fastrand::Rng;
use xen_grant::GrantStatus;
use xen_netfront::store::Store;
use xen_sim::FaultRule;

use super::{BACK, FRONT, Pair};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Blow {
    /// The frontend closes in good order, and a new one opens.
    CloseFront,
    /// The frontend is gone from one moment to the next, and a new one opens.
    RestartFront,
    /// The same with the backend.
    RestartBack,
    /// The toolstack detaches the vif in good order, and attaches it again.
    Detach,
    /// The toolstack removes both directories, and makes new ones: at once, or later.
    Pull { at_once: bool },
    /// One end writes nonsense into its directory.
    Garbage { front: bool, key: &'static str, value: Vec<u8> },
    /// One end removes a key of its own.
    Unkey { front: bool, key: &'static str },
    /// Every n-th copy of the backend fails, or none any more.
    CopyFaults(Option<NonZeroU64>),
    /// The frontend's pool is all but used up, or free again.
    Hog(bool),
    /// The layer above the frontend holds on to so many packets.
    Hold(usize),
}

const FRONT_KEYS: [&str; 12] = [
    "state",
    "state",
    "tx-ring-ref",
    "rx-ring-ref",
    "event-channel",
    "request-rx-copy",
    "feature-sg",
    "feature-rx-notify",
    "multi-queue-num-queues",
    "queue-0/tx-ring-ref",
    "ctrl-ring-ref",
    "garbage",
];
const BACK_KEYS: [&str; 7] = [
    "state",
    "state",
    "feature-sg",
    "feature-rx-copy",
    "carrier",
    "multi-queue-max-queues",
    "garbage/deep/down",
];

impl Blow {
    /// Something that ends the connection; another one follows.
    pub fn random_reconnect(rng: &mut Rng) -> Blow {
        match rng.u8(..6) {
            0 => Blow::CloseFront,
            1 => Blow::RestartFront,
            2 => Blow::RestartBack,
            3 => Blow::Detach,
            4 => Blow::Pull { at_once: true },
            _ => Blow::Pull { at_once: false },
        }
    }

    /// A key of a peer's that makes no sense.
    pub fn random_garbage(rng: &mut Rng) -> Blow {
        let front = rng.bool();
        let keys: &[&str] = if front { &FRONT_KEYS } else { &BACK_KEYS };
        let key = keys[rng.usize(..keys.len())];
        if rng.u8(..4) == 0 {
            return Blow::Unkey { front, key };
        }
        let value = match rng.u8(..7) {
            0 => Vec::new(),
            1 => rng.u32(..).to_string().into_bytes(),
            2 => rng.u8(..9).to_string().into_bytes(),
            3 => vec![b'4'; rng.usize(..4096)],
            4 => (0..rng.usize(..64)).map(|_| rng.u8(..)).collect(),
            5 => b"-1".to_vec(),
            _ => b"18446744073709551617".to_vec(),
        };
        Blow::Garbage { front, key, value }
    }

    /// Something that lasts until it is taken back.
    pub fn random_shortage(rng: &mut Rng) -> Blow {
        match rng.u8(..5) {
            0 => Blow::CopyFaults(NonZeroU64::new(rng.u64(1..40))),
            1 => Blow::CopyFaults(None),
            2 => Blow::Hog(true),
            3 => Blow::Hog(false),
            _ => Blow::Hold(rng.usize(..40)),
        }
    }

    /// Strikes. False if it is not over yet: strike again a little later.
    pub fn strike(&self, pair: &Pair) -> bool {
        let (mut front, mut back) = (pair.front.borrow_mut(), pair.back.borrow_mut());
        let (toolstack, vif) = (&pair.toolstack, &pair.vif);
        match self {
            Blow::CloseFront => {
                if !front.disconnect() {
                    return false;
                }
                front.close();
                front.open();
            }
            Blow::RestartFront => {
                front.close();
                front.open();
            }
            Blow::RestartBack => {
                back.close();
                back.open();
            }
            Blow::Detach => {
                toolstack.begin_detach(vif);
                if !toolstack.detached(vif) {
                    return false;
                }
                toolstack.remove_vif(vif);
                toolstack.add_vif(vif);
            }
            Blow::Pull { at_once } => {
                let there = toolstack.states(vif) != (None, None);
                toolstack.remove_vif(vif);
                if there && !at_once {
                    return false;
                }
                toolstack.add_vif(vif);
            }
            Blow::Garbage { front, key, value } => {
                let path = path(pair, *front, key);
                // What xenstore does not take does no harm.
                let _ = pair.host.store_as(owner(*front)).write(None, &path, value);
            }
            Blow::Unkey { front, key } => {
                let path = path(pair, *front, key);
                let _ = pair.host.store_as(owner(*front)).remove(None, &path);
            }
            Blow::CopyFaults(every) => back.domain.change_faults(|faults| {
                faults.copy =
                    every.map(|every| FaultRule::every(every, GrantStatus::GENERAL_ERROR));
            }),
            Blow::Hog(true) => {
                while let Some(frame) = front.pool.take() {
                    front.hogged.push(frame);
                }
            }
            Blow::Hog(false) => front.hogged.clear(),
            Blow::Hold(count) => {
                front.holds = *count;
                front.held.clear();
            }
        }
        true
    }
}

fn owner(front: bool) -> xen_grant::DomId {
    if front { FRONT } else { BACK }
}

fn path(pair: &Pair, front: bool, key: &str) -> String {
    let dir = if front { pair.vif.front_dir() } else { pair.vif.back_dir() };
    format!("{dir}/{key}")
}
