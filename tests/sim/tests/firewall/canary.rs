//! Packets made of canaries.
//!
//! ```text
//!   | control: 14 bytes | private canaries | canaries for the receiver | private canaries |
//!                        '---- skip ------'  '---------- keep --------'
//! ```
//!
//! The firewall sends on no more than what the control says is to be kept.

use fastrand::Rng;

/// Whose bytes they are, or who may see them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Party {
    Firewall,
    Left,
    Right,
    Client,
}

const PARTIES: [Party; 4] = [Party::Firewall, Party::Left, Party::Right, Party::Client];
/// A canary: this, whose it is, for whom, and both once more inverted. So one that is cut off by a
/// packet's end is none.
const MAGIC: [u8; 2] = [0xc4, 0x4e];
const CELL: usize = 6;
/// For nobody but its owner.
const PRIVATE: u8 = 0x7f;
pub const CONTROL: usize = 14;

/// What the control says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Control {
    /// `None`: the packet is dropped.
    pub to: Option<Party>,
    pub skip: usize,
    pub keep: usize,
}

impl Control {
    pub fn parse(head: &[u8]) -> Option<Control> {
        let &[0xaa, to, s0, s1, k0, k1, ..] = head else { return None };
        Some(Control {
            to: PARTIES.get(usize::from(to)).copied(),
            skip: CONTROL + usize::from(u16::from_le_bytes([s0, s1])),
            keep: u16::from_le_bytes([k0, k1]).into(),
        })
    }
}

/// Canaries of this owner, for this party's eyes or nobody's.
pub fn fill(bytes: &mut [u8], owner: Party, to: Option<Party>) {
    let ([a, b], owner, to) = (MAGIC, owner as u8, to.map_or(PRIVATE, |to| to as u8));
    let cell = [a, b, owner, to, !owner, !to];
    for (byte, canary) in bytes.iter_mut().zip(cell.iter().cycle()) {
        *byte = *canary;
    }
}

/// A packet of up to `largest` bytes, to somebody or to be dropped.
pub fn packet(rng: &mut Rng, owner: Party, largest: usize) -> Vec<u8> {
    let to = match PARTIES[rng.usize(..4)] {
        Party::Firewall => None,
        to => Some(to).filter(|to| *to != owner),
    };
    let skip = rng.usize(..200);
    let keep = 60 + rng.usize(..=largest - CONTROL - skip - 60);
    let tail = rng.usize(..=largest - CONTROL - skip - keep);
    let mut bytes = vec![0; CONTROL + skip + keep + tail];
    fill(&mut bytes[CONTROL..], owner, None);
    if to.is_some() {
        fill(&mut bytes[CONTROL + skip..CONTROL + skip + keep], owner, to);
    }
    bytes[..2].copy_from_slice(&[0xaa, to.map_or(PRIVATE, |to| to as u8)]);
    bytes[2..4].copy_from_slice(&(skip as u16).to_le_bytes());
    bytes[4..6].copy_from_slice(&(keep as u16).to_le_bytes());
    bytes
}

/// A canary that somebody has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sighting {
    pub at: usize,
    pub owner: u8,
    pub to: u8,
}

impl Sighting {
    /// Whether this party may see it: its own, or meant for it.
    pub fn is_for(&self, viewer: Party) -> bool {
        self.owner == viewer as u8 || self.to == viewer as u8
    }

    /// Whether it came to this party from another.
    pub fn is_foreign(&self, viewer: Party) -> bool {
        self.owner != viewer as u8
    }
}

/// All canaries in these bytes.
pub fn canaries(bytes: &[u8]) -> impl Iterator<Item = Sighting> + '_ {
    bytes
        .windows(CELL)
        .enumerate()
        .filter(|(_, cell)| cell[..2] == MAGIC && cell[4..] == [!cell[2], !cell[3]])
        .map(|(at, cell)| Sighting { at, owner: cell[2], to: cell[3] })
}

/// The first canary that this party must not see.
pub fn leak(bytes: &[u8], viewer: Party) -> Option<Sighting> {
    canaries(bytes).find(|sighting| !sighting.is_for(viewer))
}
