//! placeholder
#![cfg_attr(target_os = "none", no_std, no_main)]
xen_guest::main!(echo);
#[cfg(target_os = "none")]
fn echo(_: xen_guest::Xen) {}
