//! Who may touch which page.
#![no_std]
extern crate alloc;

mod memory;
mod sync;

pub use memory::*;
