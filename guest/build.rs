//! Hands the linker script to everyone who links a kernel with this crate.
//!
//! The script lands in a directory that every dependent crate searches, so a kernel of one's own
//! needs one line in its own `build.rs`: `println!("cargo::rustc-link-arg-bins=-Txen-guest.ld")`
//! (and `--no-pie`, as below).

use std::path::Path;
use std::{env, fs, io};

/// Bytes of the stack. Large values are made there and moved by copying: a network stack with a buffer
/// for 64 KB of fragments is there twice on its way to the heap, unless all is optimised as one, and
/// unoptimised more often than that.
const STACK: u32 = 256 << 10;
const UNOPTIMISED_STACK: u32 = 1 << 20;

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=src/boot/guest.ld");
    if env::var_os("CARGO_CFG_TARGET_OS").is_none_or(|os| os != "none") {
        return Ok(());
    }
    let out = env::var_os("OUT_DIR").ok_or_else(|| io::Error::other("OUT_DIR is not set"))?;
    let optimised = env::var_os("OPT_LEVEL").is_none_or(|level| level != "0");
    let stack = if optimised { STACK } else { UNOPTIMISED_STACK };
    let script = fs::read_to_string("src/boot/guest.ld")?;
    let script = format!("__stack_size = {stack};\n{script}");
    fs::write(Path::new(&out).join("xen-guest.ld"), script)?;
    println!("cargo::rustc-link-search={}", Path::new(&out).display());
    for kind in ["bins", "examples"] {
        println!("cargo::rustc-link-arg-{kind}=-Txen-guest.ld");
        // The image runs where it is linked; there is nobody to relocate it.
        println!("cargo::rustc-link-arg-{kind}=--no-pie");
    }
    Ok(())
}
