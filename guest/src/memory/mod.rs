//! Memory: what is free, how it is mapped, where Xen puts its own pages.
//!
//! Virtual addresses are physical addresses; so a page's frame number is its address shifted.
//!
//! ```text
//! 0                 one page, unmapped                      nothing lives at address 0
//! 4 KiB             memory                                  read, write
//! 1 MiB             the image, see boot/guest.ld            each part its own rights
//!                   one bit for each page of memory
//! up to the end     memory: page tables, heap, pages for `Memory`, lowest first
//! first hole        the window: shared_info, grant frames, foreign pages      (4 MiB)
//! 0xfeff8000        xenstore and console pages, mapped when they are asked for
//! ```
//!
//! Nothing is both writable and executable, and only the image's code is executable.

pub mod layout;
pub mod pages;

#[cfg(target_os = "none")]
mod heap;
#[cfg(target_os = "none")]
mod paging;
#[cfg(target_os = "none")]
mod ram;
#[cfg(target_os = "none")]
mod window;

#[cfg(target_os = "none")]
pub(crate) use paging::{init as init_paging, map_special};
#[cfg(target_os = "none")]
pub(crate) use ram::*;
#[cfg(target_os = "none")]
pub(crate) use window::*;
