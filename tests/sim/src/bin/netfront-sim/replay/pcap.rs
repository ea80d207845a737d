//! pcap files, in each form that is about: both byte orders, micro- and nanoseconds, modified
//! (Kuznetzov's), Nokia's, AIX's and Ixia's, lengths in the order of before version 2.3.
//!
//! ```text
//!   magic  version  zone  sigfigs  snaplen  link type     24 bytes, Ixia's 28
//!   seconds  fraction  bytes kept  bytes there were ...   16 bytes; others more
//!   the bytes kept
//! ```
//!
//! The link type's upper bits say how long a frame check sequence is: see
//! <https://www.ietf.org/archive/id/draft-ietf-opsawg-pcap-04.html>. Times, zone and snaplen are of
//! no use here, so no value of theirs is refused.

use super::recording::{ETHERNET, End, Found, Unusable};
use super::words::Words;

const PLAIN: u32 = 0xa1b2_c3d4;
const NANOSECONDS: u32 = 0xa1b2_3c4d;
const MODIFIED: u32 = 0xa1b2_cd34;
const IXIA: [u32; 2] = [0x1c00_01ac, 0x1c00_01ab];

/// What a file header has, and Ixia's after it: a length that nobody needs.
const HEADER: usize = 24;
const IXIA_MORE: usize = 4;
/// No record is longer: a larger number is damage.
const LONGEST: u32 = 256 << 10;
/// Set if the four bits from bit 28 on hold the length of the frame check sequence, in 16 bits.
const FCS_KNOWN: u32 = 1 << 26;
/// What AIX calls Ethernet.
const AIX_ETHERNET: u16 = 6;

/// In which order a record has its two lengths.
#[derive(Clone, Copy)]
enum Lengths {
    KeptFirst,
    KeptLast,
    /// The kept bytes are the fewer.
    Unsure,
}

struct Layout {
    first: usize,
    link: u16,
    fcs: usize,
    lengths: Lengths,
    /// Bytes before a packet: the magic number does not tell, so these are tried in turn.
    record_headers: &'static [usize],
}

/// Whether this may be the beginning of a pcap file.
pub fn is_pcap(start: [u8; 4]) -> bool {
    [u32::from_le_bytes(start), u32::from_be_bytes(start)].into_iter().any(is_magic)
}

fn is_magic(number: u32) -> bool {
    matches!(number, PLAIN | NANOSECONDS | MODIFIED) || IXIA.contains(&number)
}

/// Hands every packet of the file to `add`.
pub fn read(
    file: &[u8],
    mut add: impl FnMut(Found) -> Result<(), Unusable>,
) -> Result<End, Unusable> {
    let big = file.first_chunk().is_some_and(|start| is_magic(u32::from_be_bytes(*start)));
    let file = Words { bytes: file, big };
    let layout = Layout::of(file)?;
    // A guess is right if the last record ends where the file does.
    let whole =
        |&&len: &&usize| matches!(walk(file, &layout, len, &mut |_| Ok(())), Ok(End::Whole));
    let len = layout.record_headers.iter().find(whole).or(layout.record_headers.first());
    walk(file, &layout, *len.ok_or(Unusable::NoCapture)?, &mut add)
}

impl Layout {
    fn of(file: Words<'_>) -> Result<Layout, Unusable> {
        let header = || Some((file.u32(0)?, file.u16(4)?, file.u16(6)?, file.u32(20)?));
        let (magic, major, minor, network) = header().ok_or(Unusable::NoCapture)?;
        if major < 2 {
            return Err(Unusable::Version(major, minor));
        }
        let link = network as u16;
        let is_aix = magic == PLAIN && (major, minor, link) == (2, 2, AIX_ETHERNET);
        Ok(Layout {
            first: HEADER + if IXIA.contains(&magic) { IXIA_MORE } else { 0 },
            link: if is_aix { ETHERNET } else { link },
            fcs: if network & FCS_KNOWN != 0 { 2 * (network >> 28) as usize } else { 0 },
            lengths: match (major, minor) {
                (2, 0..=2) | (543, _) => Lengths::KeptLast,
                (2, 3) => Lengths::Unsure,
                _ => Lengths::KeptFirst,
            },
            record_headers: match magic {
                MODIFIED => &[24, 28],
                PLAIN if (major, minor) == (2, 4) => &[16, 24, 20],
                _ => &[16],
            },
        })
    }
}

fn walk(
    file: Words<'_>,
    layout: &Layout,
    header: usize,
    add: &mut dyn FnMut(Found) -> Result<(), Unusable>,
) -> Result<End, Unusable> {
    let mut at = layout.first;
    for number in 1.. {
        if at >= file.bytes.len() {
            return Ok(End::Whole);
        }
        let lengths = || Some((file.u32(at + 8)?, file.u32(at + 12)?));
        let Some((first, second)) = lengths() else { return Ok(End::Within(number)) };
        let (kept, had) = match layout.lengths {
            Lengths::KeptLast => (second, first),
            Lengths::Unsure if first > second => (second, first),
            Lengths::Unsure | Lengths::KeptFirst => (first, second),
        };
        if kept > LONGEST {
            return Err(Unusable::Damaged(number, format!("{kept} bytes are said to follow")));
        }
        let start = at + header;
        let end = start + kept as usize;
        if end > file.bytes.len() {
            return Ok(End::Within(number));
        }
        add(Found { number, link: layout.link, at: start..end, had, fcs: layout.fcs })?;
        at = end;
    }
    Ok(End::Whole)
}
