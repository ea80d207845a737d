//! The first instructions: from the 32-bit entry that PVH defines into 64-bit Rust.
//!
//! Xen starts the guest in 32-bit protected mode without paging, interrupts off, `ebx` holding the
//! physical address of the `hvm_start_info` (docs/misc/pvh.pandoc; the entry point is named by
//! `XEN_ELFNOTE_PHYS32_ENTRY`, xen/elfnote.h). The tables below map the first GiB to itself, all
//! of it writable and executable; they serve until [`crate::memory::paging`] has built tables
//! with rights, before anything from outside has been read but the start info.
//!
//! ```text
//! boot_pml4[0] -> boot_pdpt[0] -> boot_pd[0..512], 2 MiB each
//! ```

use core::arch::global_asm;

/// How much memory the boot page tables reach.
pub const BOOT_MAPPED: u64 = 1 << 30;

global_asm!(
    r#"
    .section .note.Xen, "a", @note
    .p2align 2
    .long 4                     # namesz
    .long 8                     # descsz
    .long {PHYS32_ENTRY}        # type
    .asciz "Xen"
    .quad pvh_start32

    .section .data.pvh, "aw", @progbits
    .p2align 12
boot_pml4:
    .quad boot_pdpt + 3         # present, writable
    .fill 511, 8, 0
boot_pdpt:
    .quad boot_pd + 3
    .fill 511, 8, 0
boot_pd:
    .set address, 0
    .rept 512
    .quad address + 0x83        # present, writable, 2 MiB
    .set address, address + 0x200000
    .endr
boot_gdt:
    .quad 0
    .quad 0x00af9b000000ffff    # 08: 64-bit code
    .quad 0x00cf93000000ffff    # 10: data
boot_gdt_pointer:
    .word boot_gdt_pointer - boot_gdt - 1
    .quad boot_gdt

    .section .text.pvh, "ax", @progbits
    .code32
    .global pvh_start32
pvh_start32:
    cli
    cld
    mov esp, offset __stack_end
    mov eax, cr4
    or eax, 0x20                # PAE
    mov cr4, eax
    mov eax, offset boot_pml4
    mov cr3, eax
    mov ecx, 0xc0000080         # EFER
    rdmsr
    or eax, 0x900               # long mode, no-execute
    wrmsr
    mov eax, cr0
    or eax, 0x80010000          # paging, write protection for the kernel too
    mov cr0, eax
    lgdt [boot_gdt_pointer]
    push 0x08
    mov eax, offset pvh_start64
    push eax
    retf

    .code64
pvh_start64:
    mov eax, 0x10
    mov ds, eax
    mov es, eax
    mov ss, eax
    xor eax, eax
    mov fs, eax
    mov gs, eax
    mov esp, offset __stack_end
    xor ebp, ebp
    mov edi, ebx
    call {start}
    ud2
"#,
    PHYS32_ENTRY = const xen_sys::XEN_ELFNOTE_PHYS32_ENTRY,
    start = sym super::start,
);
