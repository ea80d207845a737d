//! Why a TAP device can't be used, in words that say what to do.

use core::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// The longest name of an interface (IFNAMSIZ, without the zero).
const MAX_NAME: usize = 15;

// linux/if_tun.h
const IFF_TUN: u32 = 1;
const IFF_MULTI_QUEUE: u32 = 0x100;
/// linux/if.h
const IFF_UP: u32 = 1;

// asm-generic/errno-base.h, asm-generic/errno.h
const EPERM: i32 = 1;
const ENOENT: i32 = 2;
const ENXIO: i32 = 6;
const EACCES: i32 = 13;
const EBUSY: i32 = 16;
const ENODEV: i32 = 19;
const EBADFD: i32 = 77;

/// Why a device can't be used.
#[derive(Debug)]
pub enum Unusable {
    /// No interface can be called that, because of this.
    Name(&'static str),
    /// There is an interface of this name, but it is not a TAP device.
    NotTap,
    /// It is a TUN device, which has no Ethernet.
    IsTun,
    /// It was made for programs that open it several times.
    MultiQueue,
    /// Somebody else has opened it.
    Busy,
    /// The device exists, and this user may not use it.
    NotOurs,
    /// This user may not make one.
    NoRights,
    /// The kernel has none.
    NoTun,
    /// Something else.
    Other(io::Error),
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Unusable::Name(why) => return write!(f, "no name of an interface: {why}"),
            Unusable::Other(error) => return error.fmt(f),
            Unusable::NotTap => {
                "an interface of this name exists, but it is no TAP device; a name that is free \
                 makes one"
            }
            Unusable::IsTun => "this is a TUN device; a TAP device is needed (mode tap)",
            Unusable::MultiQueue => {
                "this device has several queues; one made without multi_queue is needed"
            }
            Unusable::Busy => "another program uses this device",
            Unusable::NotOurs => {
                "no right to use this device: run as root, or have root make it for this user \
                 (ip tuntap add NAME mode tap user USER)"
            }
            Unusable::NoRights => {
                "no right to make a TAP device: run as root (or with CAP_NET_ADMIN), or have root \
                 make it for this user (ip tuntap add NAME mode tap user USER)"
            }
            Unusable::NoTun => {
                "there is no /dev/net/tun: the kernel lacks its driver tun (modprobe tun)"
            }
        })
    }
}

impl Unusable {
    /// Why a device could not be opened, or made unless it `exists`.
    pub fn of(error: io::Error, exists: bool) -> Unusable {
        match error.raw_os_error() {
            Some(EPERM | EACCES) if exists => Unusable::NotOurs,
            Some(EPERM | EACCES) => Unusable::NoRights,
            Some(EBUSY) => Unusable::Busy,
            Some(ENOENT | ENXIO | ENODEV) => Unusable::NoTun,
            _ => Unusable::Other(error),
        }
    }
}

/// Whether there is a device of this name, which can be used as far as one can tell.
pub fn check(name: &str) -> Result<bool, Unusable> {
    let forbidden = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | '%' | ':');
    if name.is_empty() {
        return Err(Unusable::Name("it is empty"));
    }
    if name.len() > MAX_NAME {
        return Err(Unusable::Name("it has more than 15 bytes"));
    }
    if name.contains(forbidden) || matches!(name, "." | "..") {
        return Err(Unusable::Name("it must not have a space, / % or :, nor be . or .."));
    }
    if !interface(name).exists() {
        return Ok(false);
    }
    match number(&interface(name).join("tun_flags")) {
        None => Err(Unusable::NotTap),
        Some(flags) if flags & IFF_TUN != 0 => Err(Unusable::IsTun),
        Some(flags) if flags & IFF_MULTI_QUEUE != 0 => Err(Unusable::MultiQueue),
        Some(_) => Ok(true),
    }
}

/// Whether the interface is up.
pub fn is_up(name: &str) -> bool {
    number(&interface(name).join("flags")).is_some_and(|flags| flags & IFF_UP != 0)
}

/// Whether an error says that the device has been deleted.
pub fn is_gone(error: &io::Error) -> bool {
    error.raw_os_error() == Some(EBADFD)
}

fn interface(name: &str) -> PathBuf {
    Path::new("/sys/class/net").join(name)
}

/// What a file of sysfs says, in hexadecimal.
fn number(file: &Path) -> Option<u32> {
    let text = std::fs::read_to_string(file).ok()?;
    u32::from_str_radix(text.trim().trim_start_matches("0x"), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_no_interface_has_are_told() {
        for bad in ["", "a/b", "a b", "tap%d", "a:1", ".", "..", "a\tb", "sixteen-letters-"] {
            assert!(matches!(check(bad), Err(Unusable::Name(_))), "{bad:?}");
        }
        assert!(matches!(check("fifteen-letters"), Ok(false)));
    }

    #[test]
    fn errors_name_their_cause() {
        let said =
            |code, exists| Unusable::of(io::Error::from_raw_os_error(code), exists).to_string();
        assert!(said(EPERM, false).contains("no right to make"));
        assert!(said(EPERM, true).contains("no right to use"));
        assert!(said(EBUSY, true).contains("another program"));
        assert!(said(ENOENT, false).contains("modprobe tun"));
        assert!(said(12, false).contains("os error 12"));
    }
}
