//! The stubs that `xen-sys` calls: 128 of them, 32 bytes each, under the name `HYPERCALL_PAGE`.
//!
//! Xen would write such a page for us, into memory that is then both writable and executable.
//! Ours is ordinary code of the image. Each stub loads its number and issues `vmcall` on Intel,
//! `vmmcall` on AMD and Hygon: the other one is an undefined instruction there.
//!
//! ```text
//! stub n:  b8 n        mov eax, n
//!          80 3d ...   cmp byte ptr [HYPERCALL_BY_VMMCALL], 0
//!          75 04       jne 1f
//!          0f 01 c1    vmcall
//!          c3          ret
//!       1: 0f 01 d9    vmmcall
//!          c3          ret           22 of 32 bytes
//! ```

use core::arch::global_asm;
use core::arch::x86_64::__cpuid;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use xen_grant::DomId;

/// Whether this processor wants `vmmcall`. The stubs read it.
#[unsafe(no_mangle)]
static HYPERCALL_BY_VMMCALL: AtomicBool = AtomicBool::new(false);

/// The first of Xen's CPUID leaves.
static LEAVES: AtomicU32 = AtomicU32::new(0);

global_asm!(
    r#"
    .section .text.hypercall_page, "ax", @progbits
    .p2align 12
    .global HYPERCALL_PAGE
HYPERCALL_PAGE:
    .set number, 0
    .rept 128
    .p2align 5
    mov eax, number
    cmp byte ptr [rip + HYPERCALL_BY_VMMCALL], 0
    jne 1f
    vmcall
    ret
1:  vmmcall
    ret
    .set number, number + 1
    .endr
    .p2align 12
"#
);

/// Whether Xen is below us: its CPUID leaves start at a multiple of 0x100 from 0x4000_0000 on and
/// are signed "XenVMMXenVMM" (xen/arch-x86/cpuid.h). Chooses the stubs' instruction.
pub fn detect() -> bool {
    let cpu = __cpuid(0);
    let vendor = [cpu.ebx, cpu.edx, cpu.ecx];
    let by_vmmcall = [words(b"AuthenticAMD"), words(b"HygonGenuine")].contains(&vendor);
    HYPERCALL_BY_VMMCALL.store(by_vmmcall, Ordering::Relaxed);
    let first = (0x4000_0000..0x4001_0000).step_by(0x100).find(|&leaf| {
        let answer = __cpuid(leaf);
        [answer.ebx, answer.ecx, answer.edx] == words(b"XenVMMXenVMM")
    });
    LEAVES.store(first.unwrap_or(0), Ordering::Relaxed);
    first.is_some()
}

/// Our own number (leaf 4, `XEN_HVM_CPUID_DOMID_PRESENT`, xen/arch-x86/cpuid.h), if Xen says it.
/// It is another one after a restore.
pub fn own_domain() -> Option<DomId> {
    const DOMID_PRESENT: u32 = 1 << 4;
    let leaves = LEAVES.load(Ordering::Relaxed);
    let last = __cpuid(leaves).eax;
    let features = (leaves != 0 && last >= leaves + 4).then(|| __cpuid(leaves + 4))?;
    let domain = (features.eax & DOMID_PRESENT != 0).then_some(features.ecx)?;
    u16::try_from(domain).ok().map(DomId)
}

/// Twelve letters as CPUID gives them.
fn words(letters: &[u8; 12]) -> [u32; 3] {
    let mut words = [0; 3];
    for (word, bytes) in words.iter_mut().zip(letters.as_chunks().0) {
        *word = u32::from_le_bytes(*bytes);
    }
    words
}
