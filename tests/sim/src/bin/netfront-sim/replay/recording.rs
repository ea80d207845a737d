//! The file that is replayed, read whole: refused unless each of its packets can be sent as it was.

use core::fmt;
use std::fs::File;
use std::io::{self, BufReader, ErrorKind, Read, Seek};
use std::path::Path;

use pcap_file::pcap::PcapReader;
use pcap_file::pcapng::{Block, PcapNgReader};
use pcap_file::{DataLink, PcapError};
use xen_netfront::header::ETHERNET_HEADER;

/// How a pcapng file begins, in either byte order.
const PCAPNG: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];

/// The packets of a capture file, in order.
#[derive(Debug, Default)]
pub struct Recording {
    bytes: Vec<u8>,
    /// Where each packet ends in there.
    ends: Vec<usize>,
}

/// Why a file can't be replayed. Packets count from 1, as Wireshark counts them.
#[derive(Debug)]
pub enum Unusable {
    /// It can't be read.
    Io(io::Error),
    /// It is neither pcap nor pcapng.
    NoCapture,
    /// What it holds is not Ethernet.
    NotEthernet(DataLink),
    /// The file ends within this packet, or says that it is impossibly long.
    Ends(usize),
    /// What describes this packet makes no sense.
    Malformed(usize, PcapError),
    /// When it was captured, not all of this packet was kept: bytes kept, and what it had.
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
            Unusable::NoCapture => f.write_str("neither a pcap nor a pcapng file"),
            Unusable::NotEthernet(link) => write!(f, "holds {link:?} packets, not Ethernet"),
            Unusable::Ends(packet) => write!(f, "truncated: it ends within packet {packet}"),
            Unusable::Malformed(packet, error) => write!(f, "packet {packet}: {error}"),
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

impl Recording {
    /// Reads a file whose packets have up to `most` bytes.
    pub fn read(path: &Path, most: usize) -> Result<Recording, Unusable> {
        let mut file = File::open(path)?;
        let mut magic = [0; 4];
        match file.read_exact(&mut magic) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                return Err(Unusable::NoCapture);
            }
            other => other?,
        }
        file.rewind()?;
        let mut recording = Recording::default();
        if magic == PCAPNG {
            recording.read_pcapng(BufReader::new(file), most)?;
        } else {
            recording.read_pcap(BufReader::new(file), most)?;
        }
        if recording.ends.is_empty() { Err(Unusable::Empty) } else { Ok(recording) }
    }

    fn read_pcap(&mut self, file: impl Read, most: usize) -> Result<(), Unusable> {
        let mut reader = PcapReader::new(file).map_err(|error| self.no_header(error))?;
        let link = reader.header().datalink;
        if link != DataLink::ETHERNET {
            return Err(Unusable::NotEthernet(link));
        }
        // Raw: a time that makes no sense matters to nobody here.
        while let Some(packet) = reader.next_raw_packet() {
            let packet = packet.map_err(|error| self.broken(error))?;
            self.add(&packet.data, packet.orig_len, most)?;
        }
        Ok(())
    }

    fn read_pcapng(&mut self, file: impl Read, most: usize) -> Result<(), Unusable> {
        let mut reader = PcapNgReader::new(file).map_err(|error| self.no_header(error))?;
        let mut links = Vec::new();
        while let Some(block) = reader.next_block() {
            let (interface, data, had) = match block.map_err(|error| self.broken(error))? {
                // Interfaces count anew in every section.
                Block::SectionHeader(_) => {
                    links.clear();
                    continue;
                }
                Block::InterfaceDescription(interface) => {
                    links.push(interface.linktype);
                    continue;
                }
                Block::EnhancedPacket(packet) => {
                    (packet.interface_id as usize, packet.data, packet.original_len)
                }
                Block::Packet(packet) => {
                    (packet.interface_id.into(), packet.data, packet.original_len)
                }
                Block::SimplePacket(packet) => (0, packet.data, packet.original_len),
                Block::NameResolution(_)
                | Block::InterfaceStatistics(_)
                | Block::SystemdJournalExport(_)
                | Block::Unknown(_) => continue,
            };
            match links.get(interface) {
                Some(&DataLink::ETHERNET) => self.add(&data, had, most)?,
                Some(&other) => return Err(Unusable::NotEthernet(other)),
                None => {
                    let error = PcapError::InvalidInterfaceId(interface as u32);
                    return Err(self.broken(error));
                }
            }
        }
        Ok(())
    }

    fn add(&mut self, data: &[u8], had: u32, most: usize) -> Result<(), Unusable> {
        let (packet, len) = (self.ends.len() + 1, data.len());
        if len < had as usize {
            return Err(Unusable::Cut(packet, len, had));
        }
        if len < ETHERNET_HEADER {
            return Err(Unusable::Short(packet, len));
        }
        if len > most {
            return Err(Unusable::Long(packet, len, most));
        }
        self.bytes.extend_from_slice(data);
        self.ends.push(self.bytes.len());
        Ok(())
    }

    fn no_header(&self, error: PcapError) -> Unusable {
        match error {
            PcapError::IoError(error) if error.kind() != ErrorKind::UnexpectedEof => {
                Unusable::Io(error)
            }
            _ => Unusable::NoCapture,
        }
    }

    fn broken(&self, error: PcapError) -> Unusable {
        let packet = self.ends.len() + 1;
        match error {
            PcapError::IoError(error) if error.kind() == ErrorKind::UnexpectedEof => {
                Unusable::Ends(packet)
            }
            PcapError::IoError(error) => Unusable::Io(error),
            other => Unusable::Malformed(packet, other),
        }
    }

    /// A packet, counted from 0.
    pub fn get(&self, index: usize) -> Option<&[u8]> {
        let end = *self.ends.get(index)?;
        let start = index.checked_sub(1).and_then(|before| self.ends.get(before)).copied();
        self.bytes.get(start.unwrap_or(0)..end)
    }

    /// Packets.
    pub fn packets(&self) -> usize {
        self.ends.len()
    }

    /// Bytes of the longest.
    pub fn longest(&self) -> usize {
        (0..self.packets()).filter_map(|index| self.get(index)).map(<[u8]>::len).max().unwrap_or(0)
    }
}
