//! From the first instruction to the kernel's own `main`.

pub mod start_info;

#[cfg(target_os = "none")]
mod entry;
#[cfg(target_os = "none")]
mod image;
#[cfg(target_os = "none")]
mod start;

#[cfg(target_os = "none")]
pub(crate) use image::*;
#[cfg(target_os = "none")]
pub(crate) use start::{command_line, start};
