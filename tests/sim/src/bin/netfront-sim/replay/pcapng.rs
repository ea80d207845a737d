//! pcapng files: sections of blocks, of which those with packets are read, and what describes their
//! interfaces. See <https://www.ietf.org/archive/id/draft-ietf-opsawg-pcapng-02.html>.
//!
//! ```text
//!   type  length  body ...  length again     every block; the body of those that matter:
//!   section       byte order, version
//!   interface     link type, snaplen, options
//!   enhanced      interface, time, bytes kept, bytes there were, the bytes kept, options
//!   simple        bytes there were, the bytes kept
//! ```
//!
//! Blocks and options of other types are passed over, a list of options may end with its block.

use super::recording::{End, Found, Unusable};
use super::words::Words;

/// How a section begins, in either byte order.
pub const SECTION: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];
const BYTE_ORDER: u32 = 0x1a2b_3c4d;

const INTERFACE: u32 = 1;
/// Of older files: like an enhanced one, but interface and drops share a word.
const PACKET: u32 = 2;
const SIMPLE: u32 = 3;
const ENHANCED: u32 = 6;

/// Bytes of the shortest section header.
const SECTION_BLOCK: usize = 28;
/// Type and both lengths.
const LEAST: u32 = 12;
/// No block is longer: a larger number is damage.
const LONGEST: u32 = 16 << 20;

/// The option of an interface that tells the length of the frame check sequence.
const IF_FCSLEN: u16 = 13;
/// The option of a packet that tells it in bits 5 to 8, among others.
const FLAGS: u16 = 2;

struct Interface {
    link: u16,
    snaplen: u32,
    fcs: usize,
}

/// Hands every packet of the file to `add`.
pub fn read(
    bytes: &[u8],
    mut add: impl FnMut(Found) -> Result<(), Unusable>,
) -> Result<End, Unusable> {
    if bytes.len() < SECTION_BLOCK {
        return Err(Unusable::NoCapture);
    }
    let mut file = Words { bytes, big: false };
    let mut interfaces = Vec::new();
    let (mut at, mut number) = (0, 1);
    while at < bytes.len() {
        let is_section = bytes[at..].starts_with(&SECTION);
        if is_section {
            let Some(order) = file.u32(at + 8) else { return Ok(End::Within(number)) };
            file.big ^= order == BYTE_ORDER.swap_bytes();
            if file.u32(at + 8) != Some(BYTE_ORDER) {
                return Err(Unusable::Damaged(number, "a section of no byte order".to_owned()));
            }
        }
        let head = || Some((file.u32(at)?, file.u32(at + 4)?));
        let Some((kind, len)) = head() else { return Ok(End::Within(number)) };
        if !(LEAST..=LONGEST).contains(&len) {
            return Err(Unusable::Damaged(number, format!("a block of {len} bytes")));
        }
        // Its length is to be a multiple of four, but some forget to count the padding.
        let (end, next) = (at + len as usize, at + len.next_multiple_of(4) as usize);
        if end > bytes.len() {
            return Ok(End::Within(number));
        }
        let block = Block { file: Words { bytes: &bytes[..end - 4], ..file }, at };
        let broken = || Unusable::Damaged(number, format!("a block of type {kind} is too short"));
        if is_section {
            interfaces.clear();
            let (major, minor) = block.version().ok_or_else(broken)?;
            if major != 1 {
                return Err(Unusable::Version(major, minor));
            }
        } else if kind == INTERFACE {
            interfaces.push(block.interface().ok_or_else(broken)?);
        } else if matches!(kind, PACKET | SIMPLE | ENHANCED) {
            let index = block.interface_of_packet(kind).ok_or_else(broken)?;
            let interface = interfaces.get(index).ok_or_else(|| {
                Unusable::Damaged(number, format!("interface {index} is not described"))
            })?;
            let found = block.packet(kind, interface, number).ok_or_else(broken)?;
            add(found)?;
            number += 1;
        }
        at = next;
    }
    Ok(End::Whole)
}

/// A block, up to its second length.
struct Block<'a> {
    file: Words<'a>,
    at: usize,
}

impl Block<'_> {
    fn version(&self) -> Option<(u16, u16)> {
        Some((self.file.u16(self.at + 12)?, self.file.u16(self.at + 14)?))
    }

    fn interface(&self) -> Option<Interface> {
        let (link, snaplen) = (self.file.u16(self.at + 8)?, self.file.u32(self.at + 12)?);
        let fcs = self.option(self.at + 16, IF_FCSLEN);
        let fcs = fcs.and_then(|at| self.file.bytes.get(at)).copied().unwrap_or(0);
        // In bits, says the standard; its example, and others after it, count bytes.
        let fcs = usize::from(if fcs < 8 { fcs } else { fcs / 8 });
        Some(Interface { link, snaplen, fcs })
    }

    fn interface_of_packet(&self, kind: u32) -> Option<usize> {
        match kind {
            SIMPLE => Some(0),
            PACKET => self.file.u16(self.at + 8).map(usize::from),
            _ => self.file.u32(self.at + 8).map(|index| index as usize),
        }
    }

    fn packet(&self, kind: u32, interface: &Interface, number: usize) -> Option<Found> {
        let end = self.file.bytes.len();
        if kind == SIMPLE {
            let (had, start) = (self.file.u32(self.at + 8)?, self.at + 12);
            // What is kept is not told: all there is room for, without the padding.
            let most = if interface.snaplen == 0 { u32::MAX } else { interface.snaplen };
            let kept = (had.min(most) as usize).min(end - start);
            let at = start..start + kept;
            return Some(Found { number, link: interface.link, at, had, fcs: interface.fcs });
        }
        let (kept, had) = (self.file.u32(self.at + 20)?, self.file.u32(self.at + 24)?);
        let start = self.at + 28;
        let stop = start + kept as usize;
        if stop > end {
            return None;
        }
        let flags = self.option(start + kept.next_multiple_of(4) as usize, FLAGS);
        let fcs = match flags.and_then(|at| self.file.u32(at)).map(|flags| flags >> 5 & 15) {
            Some(0) | None => interface.fcs,
            Some(bytes) => bytes as usize,
        };
        Some(Found { number, link: interface.link, at: start..stop, had, fcs })
    }

    /// Where the value of an option is, in the list that begins there.
    fn option(&self, mut at: usize, wanted: u16) -> Option<usize> {
        loop {
            let (code, len) = (self.file.u16(at)?, self.file.u16(at + 2)?);
            match code {
                0 => return None,
                _ if code == wanted => return Some(at + 4),
                _ => at += 4 + usize::from(len).next_multiple_of(4),
            }
        }
    }
}
