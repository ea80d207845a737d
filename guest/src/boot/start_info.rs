//! What the domain builder tells the guest (`hvm_start_info`, xen/arch-x86/hvm/start_info.h):
//! the command line and the memory map. Everything is copied out and checked here, once, before
//! its memory is given away.
//!
//! ```text
//!  0 magic u32     4 version u32    8 flags u32     12 nr_modules u32
//! 16 modlist u64  24 cmdline u64   32 rsdp u64
//! 40 memmap u64   48 memmap_entries u32            52 reserved u32        (version 1 and later)
//! ```

use arrayvec::ArrayVec;

/// `XEN_HVM_START_MAGIC_VALUE`: "xEn3" with the top bit of the "E" set.
const MAGIC: u32 = 0x336e_c578;
/// `XEN_HVM_MEMMAP_TYPE_RAM`
const RAM: u32 = 1;
/// `sizeof(struct hvm_start_info)`
const SIZE: usize = 56;
/// `sizeof(struct hvm_memmap_table_entry)`
const ENTRY: usize = 24;
/// The most memory map entries we look at.
pub const MAX_REGIONS: usize = 64;
/// The longest command line we keep, in bytes.
pub const MAX_COMMAND_LINE: usize = 1024;

/// A range of physical addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// First byte.
    pub start: u64,
    /// One past the last byte.
    pub end: u64,
    /// Whether it is memory for us to use.
    pub ram: bool,
}

/// Why the start info cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BadStartInfo {
    /// It lies where we cannot read.
    Unreachable,
    /// The magic number is another one.
    Magic(u32),
    /// Version 0 has no memory map.
    Version(u32),
    /// The memory map is missing, unreachable, longer than [`MAX_REGIONS`], or wraps around.
    MemoryMap,
}

impl core::fmt::Display for BadStartInfo {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            BadStartInfo::Unreachable => f.write_str("the start info lies where we can't read"),
            BadStartInfo::Magic(number) => {
                write!(f, "the start info has magic number {number:#x}")
            }
            BadStartInfo::Version(version) => {
                write!(f, "start info of version {version} has no memory map")
            }
            BadStartInfo::MemoryMap => f.write_str("the memory map can't be used"),
        }
    }
}

impl core::error::Error for BadStartInfo {}

/// The start info, copied.
#[derive(Debug)]
pub struct StartInfo {
    /// The memory map, in the builder's order.
    pub regions: ArrayVec<Region, MAX_REGIONS>,
    /// The command line, without its terminating zero; cut at [`MAX_COMMAND_LINE`].
    pub command_line: ArrayVec<u8, MAX_COMMAND_LINE>,
}

/// Reads the start info at `address`. `fetch` gives the bytes at a physical address, as many as
/// asked for, or `None` where they cannot be read.
pub fn read<'a>(
    address: u64,
    fetch: impl Fn(u64, usize) -> Option<&'a [u8]>,
) -> Result<StartInfo, BadStartInfo> {
    let head = fetch(address, SIZE).ok_or(BadStartInfo::Unreachable)?;
    let (magic, version) = (u32_at(head, 0), u32_at(head, 4));
    if magic != MAGIC {
        return Err(BadStartInfo::Magic(magic));
    }
    if version < 1 {
        return Err(BadStartInfo::Version(version));
    }
    let count = u32_at(head, 48) as usize;
    if count == 0 || count > MAX_REGIONS {
        return Err(BadStartInfo::MemoryMap);
    }
    let table = fetch(u64_at(head, 40), count * ENTRY).ok_or(BadStartInfo::MemoryMap)?;
    let mut regions = ArrayVec::new();
    for entry in table.chunks_exact(ENTRY) {
        let start = u64_at(entry, 0);
        let end = start.checked_add(u64_at(entry, 8)).ok_or(BadStartInfo::MemoryMap)?;
        let ram = u32_at(entry, 16) == RAM;
        regions.push(Region { start, end, ram });
    }
    Ok(StartInfo { regions, command_line: command_line(u64_at(head, 24), fetch) })
}

fn command_line<'a>(
    address: u64,
    fetch: impl Fn(u64, usize) -> Option<&'a [u8]>,
) -> ArrayVec<u8, MAX_COMMAND_LINE> {
    let mut line = ArrayVec::new();
    if address == 0 {
        return line;
    }
    while !line.is_full() {
        let next = address.checked_add(line.len() as u64).and_then(|at| fetch(at, 1));
        match next {
            Some(&[byte]) if byte != 0 => line.push(byte),
            _ => break,
        }
    }
    line
}

fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    bytes
        .get(offset..)
        .and_then(|rest| rest.first_chunk())
        .map_or(0, |word| u32::from_le_bytes(*word))
}

fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    bytes
        .get(offset..)
        .and_then(|rest| rest.first_chunk())
        .map_or(0, |word| u64::from_le_bytes(*word))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A start info at 0x100, its command line at 0x200, its memory map at 0x300.
    fn memory(version: u32, entries: &[(u64, u64, u32)], line: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 0x1000];
        let mut put = |at: usize, data: &[u8]| bytes[at..at + data.len()].copy_from_slice(data);
        put(0x100, &MAGIC.to_le_bytes());
        put(0x104, &version.to_le_bytes());
        put(0x118, &0x200u64.to_le_bytes());
        put(0x128, &0x300u64.to_le_bytes());
        put(0x130, &(entries.len() as u32).to_le_bytes());
        put(0x200, line);
        for (i, (addr, size, kind)) in entries.iter().enumerate() {
            put(0x300 + i * 24, &addr.to_le_bytes());
            put(0x308 + i * 24, &size.to_le_bytes());
            put(0x310 + i * 24, &kind.to_le_bytes());
        }
        bytes
    }

    fn read_from(bytes: &[u8]) -> Result<StartInfo, BadStartInfo> {
        read(0x100, |at, len| bytes.get(at as usize..)?.get(..len))
    }

    #[test]
    fn a_good_start_info_is_copied() {
        let bytes = memory(1, &[(0, 0x200_0000, 1), (0xfeff_8000, 0x8000, 2)], b"ip=1 log=info\0x");
        let info = read_from(&bytes).unwrap();
        assert_eq!(info.regions[0], Region { start: 0, end: 0x200_0000, ram: true });
        assert_eq!(info.regions[1], Region { start: 0xfeff_8000, end: 0xff00_0000, ram: false });
        assert_eq!(&info.command_line[..], b"ip=1 log=info");
    }

    #[test]
    fn a_bad_start_info_is_refused() {
        let good = memory(1, &[(0, 4096, 1)], b"\0");
        let mut bad = good.clone();
        bad[0x100] = 0;
        assert_eq!(read_from(&bad).unwrap_err(), BadStartInfo::Magic(MAGIC & !0xff));
        assert_eq!(
            read_from(&memory(0, &[(0, 4096, 1)], b"")).unwrap_err(),
            BadStartInfo::Version(0)
        );
        assert_eq!(read_from(&memory(1, &[], b"")).unwrap_err(), BadStartInfo::MemoryMap);
        let wrapping = memory(1, &[(u64::MAX, 2, 1)], b"");
        assert_eq!(read_from(&wrapping).unwrap_err(), BadStartInfo::MemoryMap);
        let mut far = good.clone();
        far[0x12f] = 0xff;
        assert_eq!(read_from(&far).unwrap_err(), BadStartInfo::MemoryMap);
        assert_eq!(read_from(&good[..0x120]).unwrap_err(), BadStartInfo::Unreachable);
    }

    #[test]
    fn a_command_line_without_end_is_cut() {
        let bytes = memory(1, &[(0, 4096, 1)], &[b'a'; 0x100]);
        assert!(read_from(&bytes).unwrap().command_line.len() <= MAX_COMMAND_LINE);
        let mut unending = memory(1, &[(0, 4096, 1)], b"");
        unending.truncate(0x800);
        unending[0x400..].fill(b'b');
        unending[0x118..0x120].copy_from_slice(&0x400u64.to_le_bytes());
        assert_eq!(read_from(&unending).unwrap().command_line.len(), 0x400);
    }
}
