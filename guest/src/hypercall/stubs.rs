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
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use xen_grant::DomId;

use crate::cpu::cpuid;

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
    let cpu = cpuid(0);
    let vendor = [cpu.ebx, cpu.edx, cpu.ecx];
    let by_vmmcall = [words(b"AuthenticAMD"), words(b"HygonGenuine")].contains(&vendor);
    HYPERCALL_BY_VMMCALL.store(by_vmmcall, Ordering::Relaxed);
    let first = (0x4000_0000..0x4001_0000).step_by(0x100).find(|&leaf| {
        let answer = cpuid(leaf);
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
    let last = cpuid(leaves).eax;
    let features = (leaves != 0 && last >= leaves + 4).then(|| cpuid(leaves + 4))?;
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

#[cfg(test)]
mod tests {
    use super::*;

    unsafe extern "C" {
        static HYPERCALL_PAGE: [[u8; 32]; 128];
    }

    #[test]
    fn p5_each_stub_is_its_number_and_both_instructions() {
        // SAFETY: the stubs are constant bytes of the image, 128 times 32 of them.
        let stubs = unsafe { &HYPERCALL_PAGE };
        for (number, stub) in (0u32..).zip(stubs) {
            assert_eq!(stub[..1], [0xb8], "mov eax");
            assert_eq!(stub[1..5], number.to_le_bytes());
            assert_eq!(stub[5..7], [0x80, 0x3d], "cmp byte ptr [rip + ...]");
            assert_eq!(stub[11..14], [0x00, 0x75, 0x04], "0; jne over four bytes");
            assert_eq!(stub[14..18], [0x0f, 0x01, 0xc1, 0xc3], "vmcall, ret");
            assert_eq!(stub[18..22], [0x0f, 0x01, 0xd9, 0xc3], "vmmcall, ret");
        }
    }

    #[test]
    fn p5_the_stubs_are_code_and_nothing_else() {
        let start = (&raw const HYPERCALL_PAGE).addr();
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let rights = maps.lines().find_map(|line| {
            let (range, rest) = line.split_once(' ')?;
            let (from, to) = range.split_once('-')?;
            let bounds = [from, to].map(|number| usize::from_str_radix(number, 16).unwrap());
            (bounds[0]..bounds[1]).contains(&start).then_some(&rest[..4])
        });
        assert_eq!(rights, Some("r-xp"));
        assert!(start.is_multiple_of(4096));
    }

    #[test]
    fn this_host_is_no_xen_guest_or_says_which() {
        assert_eq!(detect(), LEAVES.load(Ordering::Relaxed) != 0);
        assert!(detect() || own_domain().is_none());
    }
}
