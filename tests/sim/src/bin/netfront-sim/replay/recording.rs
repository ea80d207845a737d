//! The file that is replayed, read whole: refused unless each of its Ethernet packets that was
//! captured whole can be sent as it was. What Wireshark opens of pcap and pcapng is opened; so is what gzip has compressed.

use core::fmt;
use core::ops::Range;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, ErrorKind, Read};

use flate2::read::MultiGzDecoder;
use packet_views::header::ETHERNET_HEADER;

use super::{pcap, pcapng};

/// `LINKTYPE_ETHERNET`
pub const ETHERNET: u16 = 1;
/// A file with more bytes is refused: all of it is in memory while it is replayed.
const MOST: u64 = 4 << 30;
const GZIP: [u8; 2] = [0x1f, 0x8b];
/// What else files are compressed with: how it begins, and its name.
const PACKED: [(&[u8], &str); 5] = [
    (&[0x28, 0xb5, 0x2f, 0xfd], "zstd"),
    (&[0x04, 0x22, 0x4d, 0x18], "lz4"),
    (&[0xfd, b'7', b'z', b'X'], "xz"),
    (b"BZh", "bzip2"),
    (b"PK\x03\x04", "zip"),
];

/// The packets of a capture file, in order.
#[derive(Debug, Default)]
pub struct Recording {
    file: Vec<u8>,
    /// Where each packet is in there.
    packets: Vec<Range<usize>>,
    /// What was left out of it.
    pub left_out: LeftOut,
}

/// What a file has and a replay has not.
#[derive(Clone, Debug, Default)]
pub struct LeftOut {
    /// Packets that are not Ethernet, by their link type.
    pub others: BTreeMap<u16, usize>,
    /// Packets without their frame check sequence, which netif does not carry.
    pub fcs: usize,
    /// Packets that were not kept whole when they were captured.
    pub cut: usize,
    /// The numbers of the first of these, ten at most.
    pub cut_first: Vec<usize>,
    /// The packet within which the file ends.
    pub ends_within: Option<usize>,
}

impl LeftOut {
    fn cut(&mut self, number: usize) {
        self.cut += 1;
        if self.cut_first.len() < 10 {
            self.cut_first.push(number);
        }
    }
}

/// A packet in a file.
pub struct Found {
    /// Counted from 1, as Wireshark counts them.
    pub number: usize,
    /// `LINKTYPE_...`
    pub link: u16,
    /// Where the bytes are that were kept of it.
    pub at: Range<usize>,
    /// How many it had.
    pub had: u32,
    /// Bytes of its frame check sequence.
    pub fcs: usize,
}

/// How a file ends.
pub enum End {
    /// After a packet.
    Whole,
    /// Within this one.
    Within(usize),
}

/// Why a file can't be replayed. Packets count from 1, as Wireshark counts them.
#[derive(Debug)]
pub enum Unusable {
    /// It can't be read.
    Io(io::Error),
    /// It is neither pcap nor pcapng.
    NoCapture,
    /// It is compressed with something else than gzip.
    Packed(&'static str),
    /// It has more bytes than are kept in memory.
    Large,
    /// It is of this version, which nobody knows.
    Version(u16, u16),
    /// What it holds is not Ethernet.
    NotEthernet(u16),
    /// The file ends within this packet, the first.
    Ends(usize),
    /// It makes no sense from this packet on.
    Damaged(usize, String),
    /// When it was captured, not all of this packet was kept, nor of any other: bytes kept, and what
    /// it had.
    Cut(usize, usize, u32),
    /// This packet has fewer bytes than an Ethernet header.
    Short(usize, usize),
    /// This packet has more bytes than the ring carries: those, and what it carries.
    Long(usize, usize, usize),
    /// It has no packets.
    Empty,
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unusable::Io(error) => error.fmt(f),
            Unusable::NoCapture => f.write_str(
                "neither a pcap nor a pcapng file (editcap converts others that Wireshark opens)",
            ),
            Unusable::Packed(how) => write!(f, "compressed with {how}: decompress it first"),
            Unusable::Large => write!(f, "larger than {} GiB (editcap -c splits it)", MOST >> 30),
            Unusable::Version(major, minor) => {
                write!(f, "version {major}.{minor} of its format, which is unknown")
            }
            Unusable::NotEthernet(link) => {
                write!(f, "holds {} packets, not Ethernet", link_name(*link))?;
                if matches!(link, 113 | 276) {
                    f.write_str(" (captured on \"any\": name one interface instead)")?;
                }
                Ok(())
            }
            Unusable::Ends(packet) => write!(f, "truncated: it ends within packet {packet}"),
            Unusable::Damaged(packet, how) => {
                write!(f, "damaged within packet {packet} or before it: {how}")
            }
            Unusable::Cut(packet, kept, had) => write!(
                f,
                "only {kept} of the {had} bytes of packet {packet} were captured (tcpdump -s 0 \
                 captures all)"
            ),
            Unusable::Short(packet, len) => {
                write!(f, "packet {packet} has {len} bytes, less than an Ethernet header")
            }
            Unusable::Long(packet, len, most) => {
                write!(f, "packet {packet} has {len} bytes; the ring carries {most} at most")
            }
            Unusable::Empty => f.write_str("has no packets"),
        }
    }
}

impl From<io::Error> for Unusable {
    fn from(error: io::Error) -> Unusable {
        Unusable::Io(error)
    }
}

/// What a link type is called; a number unless it is met often.
pub fn link_name(link: u16) -> String {
    let name = match link {
        0 | 108 => "loopback",
        6 => "token ring",
        9 => "PPP",
        12 | 14 | 101 => "RAW",
        105 => "IEEE802_11",
        113 => "LINUX_SLL",
        127 => "IEEE802_11_RADIOTAP",
        189 | 220 => "USB",
        228 => "IPV4",
        229 => "IPV6",
        276 => "LINUX_SLL2",
        _ => return format!("link type {link}"),
    };
    name.to_owned()
}

impl Recording {
    /// Reads a file whose packets have up to `most` bytes.
    pub fn read(file: &File, most: usize) -> Result<Recording, Unusable> {
        let (file, cut) = contents(file)?;
        Recording::of(file, cut, most)
    }

    /// Of the bytes of a file, of which there should be more if it is `cut`.
    fn of(file: Vec<u8>, cut: bool, most: usize) -> Result<Recording, Unusable> {
        let mut recording = Recording::default();
        let mut first_cut = None;
        let add = |found| match recording.add(found, most) {
            Err(cut @ Unusable::Cut(number, ..)) => {
                recording.left_out.cut(number);
                first_cut.get_or_insert(cut);
                Ok(())
            }
            other => other,
        };
        let end = if file.starts_with(&pcapng::SECTION) {
            pcapng::read(&file, add)?
        } else {
            pcap::read(&file, add)?
        };
        recording.file = file;
        let others: usize = recording.left_out.others.values().sum();
        let read = recording.packets() + others + recording.left_out.cut;
        recording.left_out.ends_within = match end {
            End::Within(packet) => Some(packet),
            End::Whole => cut.then_some(read + 1),
        };
        if recording.packets() > 0 {
            return Ok(recording);
        }
        let others = recording.left_out.others.keys().next();
        Err(match (first_cut, others, recording.left_out.ends_within) {
            (Some(cut), ..) => cut,
            (None, Some(&link), _) => Unusable::NotEthernet(link),
            (None, None, Some(packet)) => Unusable::Ends(packet),
            (None, None, None) => Unusable::Empty,
        })
    }

    fn add(&mut self, found: Found, most: usize) -> Result<(), Unusable> {
        let Found { number, link, at, had, fcs } = found;
        if link != ETHERNET {
            *self.left_out.others.entry(link).or_default() += 1;
            return Ok(());
        }
        let kept = at.len();
        // Of the packet; whatever lies beyond is its check sequence, or as much of it as was kept.
        let len = kept.max(had as usize).saturating_sub(fcs);
        if kept < len {
            return Err(Unusable::Cut(number, kept, had));
        }
        if len < ETHERNET_HEADER {
            return Err(Unusable::Short(number, len));
        }
        if len > most {
            return Err(Unusable::Long(number, len, most));
        }
        self.left_out.fcs += usize::from(fcs > 0);
        self.packets.push(at.start..at.start + len);
        Ok(())
    }

    /// A packet, counted from 0.
    pub fn get(&self, index: usize) -> Option<&[u8]> {
        self.file.get(self.packets.get(index)?.clone())
    }

    /// Packets.
    pub fn packets(&self) -> usize {
        self.packets.len()
    }

    /// Bytes of the longest.
    pub fn longest(&self) -> usize {
        self.packets.iter().map(ExactSizeIterator::len).max().unwrap_or(0)
    }
}

/// All bytes of a file that begins as a capture does, and whether there should be more.
fn contents(mut file: &File) -> Result<(Vec<u8>, bool), Unusable> {
    let start = start_of(&mut file)?;
    if start.starts_with(&GZIP) {
        let mut unpacked = MultiGzDecoder::new((&start[..]).chain(file));
        return all(start_of(&mut unpacked)?, unpacked);
    }
    all(start, file)
}

fn start_of(file: &mut impl Read) -> Result<[u8; 4], Unusable> {
    let mut start = [0; 4];
    match file.read_exact(&mut start) {
        Ok(()) => Ok(start),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Err(Unusable::NoCapture),
        Err(error) => Err(error.into()),
    }
}

fn all(start: [u8; 4], rest: impl Read) -> Result<(Vec<u8>, bool), Unusable> {
    if !pcap::is_pcap(start) && start != pcapng::SECTION {
        let packed = PACKED.iter().find(|(magic, _)| start.starts_with(magic));
        return Err(packed.map_or(Unusable::NoCapture, |(_, name)| Unusable::Packed(name)));
    }
    let mut bytes = start.to_vec();
    let cut = match rest.take(MOST).read_to_end(&mut bytes) {
        Ok(_) => false,
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => true,
        Err(error) => return Err(error.into()),
    };
    if bytes.len() as u64 > MOST { Err(Unusable::Large) } else { Ok((bytes, cut)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of each format with three packets.
    fn files() -> [Vec<u8>; 2] {
        let mut pcap = Vec::new();
        let mut pcapng = Vec::new();
        let add = |file: &mut Vec<u8>, words: &[u32]| {
            file.extend(words.iter().flat_map(|word| word.to_le_bytes()));
        };
        add(&mut pcap, &[0xa1b2_c3d4, 0x0004_0002, 0, 0, 0, 1]);
        add(&mut pcapng, &[0x0a0d_0d0a, 28, 0x1a2b_3c4d, 1, u32::MAX, u32::MAX, 28]);
        add(&mut pcapng, &[1, 32, 1, 0, 13 | 1 << 16, 4, 0, 32]);
        for len in [60, 64, 1500] {
            let words = len / 4;
            add(&mut pcap, &[0, 0, len, len]);
            add(&mut pcapng, &[6, 32 + len, 0, 0, 0, len, len]);
            (0..words).for_each(|word| add(&mut pcap, &[word]));
            (0..words).for_each(|word| add(&mut pcapng, &[word]));
            add(&mut pcapng, &[32 + len]);
        }
        [pcap, pcapng]
    }

    #[test]
    fn any_bytes_are_refused_or_read() {
        let mut rng = fastrand::Rng::with_seed(4);
        let (files, mut read, mut refused) = (files(), 0, 0);
        for round in 0..8_000 {
            let mut bytes = files[round % 2].clone();
            for _ in 0..rng.usize(..4) {
                // Where the structure is, mostly.
                let most = if rng.bool() { 120 } else { bytes.len() };
                let at = rng.usize(..most);
                bytes[at] = if rng.bool() { rng.u8(..) } else { 0xff };
            }
            if rng.bool() {
                bytes.truncate(rng.usize(..bytes.len()));
            }
            match Recording::of(bytes, rng.bool(), 65535) {
                Ok(recording) => {
                    read += 1;
                    let lens = (0..recording.packets()).map(|at| recording.get(at).unwrap().len());
                    assert!(lens.clone().count() > 0);
                    assert!(lens.into_iter().all(|len| (14..=65535).contains(&len)));
                }
                Err(why) => {
                    refused += 1;
                    assert!(!why.to_string().is_empty());
                }
            }
        }
        assert!(read > 2_000 && refused > 1_000, "{read} {refused}");
    }
}
