//! Exceptions and the event-channel upcall.
//!
//! No exception is ever expected: each says where it happened and ends the domain as crashed. One
//! that comes while another is being told of ends it at once. Its stub pushes the vector (and 0 where the processor pushes no error code), then all registers:
//!
//! ```text
//! rsp -> r15 r14 r13 r12 r11 r10 r9 r8 rbp rdi rsi rdx rcx rbx rax   pushed by the common part
//!        vector  error code                                          by the stub
//!        rip  cs  rflags  rsp  ss                                    by the processor
//! ```

use core::arch::global_asm;
use core::sync::atomic::{AtomicU32, Ordering};

use x86_64::registers::control::{Cr2, Cr3};

use super::idle;
use crate::{boot, events, logger, power};

/// The vector that event channels raise.
pub const UPCALL_VECTOR: u8 = 0xf3;

/// Bytes from one exception stub to the next.
const STUB: u64 = 16;

global_asm!(
    r#"
    .section .text.traps, "ax", @progbits
    .p2align 4
    .global trap_stubs
trap_stubs:
    .set vector, 0
    .rept 32
    .p2align 4
    # The processor pushes an error code for 8, 10 to 14, 17, 21, 29 and 30.
    .if (({WITH_ERROR_CODE} >> vector) & 1) == 0
    push 0
    .endif
    push vector
    jmp trap_common
    .set vector, vector + 1
    .endr

trap_common:
    cld
    push rax
    push rbx
    push rcx
    push rdx
    push rsi
    push rdi
    push rbp
    push r8
    push r9
    push r10
    push r11
    push r12
    push r13
    push r14
    push r15
    mov rdi, rsp
    and rsp, -16
    call {exception}
    ud2

    .p2align 4
    .global upcall_entry
upcall_entry:
    cld
    push rax
    push rcx
    push rdx
    push rsi
    push rdi
    push r8
    push r9
    push r10
    push r11
    push rbp
    mov rbp, rsp
    # Behind ten registers: rip.
    lea rdi, [rsp + 80]
    and rsp, -16
    call {upcall}
    mov rsp, rbp
    pop rbp
    pop r11
    pop r10
    pop r9
    pop r8
    pop rdi
    pop rsi
    pop rdx
    pop rcx
    pop rax
    iretq

    # What nobody has raised: nothing is to be done, and nobody to be told.
    .p2align 4
    .global spurious_entry
spurious_entry:
    iretq
"#,
    WITH_ERROR_CODE = const 0x6022_7d00u32,
    exception = sym exception,
    upcall = sym upcall,
);

unsafe extern "C" {
    static trap_stubs: u8;
    /// Where the upcall vector enters.
    pub safe fn upcall_entry();
    /// Where spurious interrupts enter.
    pub safe fn spurious_entry();
}

/// Gives each exception's entry point.
pub fn entry_points() -> impl Fn(u8) -> u64 {
    let first = (&raw const trap_stubs).addr() as u64;
    move |vector| first + u64::from(vector) * STUB
}

/// The state at an exception, as the stubs leave it on the stack.
#[repr(C)]
struct Frame {
    r15: u64,
    r14: u64,
    r13: u64,
    r12: u64,
    r11: u64,
    r10: u64,
    r9: u64,
    r8: u64,
    rbp: u64,
    rdi: u64,
    rsi: u64,
    rdx: u64,
    rcx: u64,
    rbx: u64,
    rax: u64,
    vector: u64,
    error_code: u64,
    rip: u64,
    cs: u64,
    rflags: u64,
    rsp: u64,
    ss: u64,
}

const _: () = assert!(size_of::<Frame>() == 22 * 8);

/// The exception that comes with an address in cr2.
const PAGE_FAULT: u64 = 14;

const NAMES: [&str; 20] = [
    "divide error",
    "debug",
    "non-maskable interrupt",
    "breakpoint",
    "overflow",
    "bound range",
    "invalid opcode",
    "no floating point",
    "double fault",
    "",
    "invalid task state",
    "segment not present",
    "stack segment",
    "general protection",
    "page fault",
    "",
    "x87 floating point",
    "alignment",
    "machine check",
    "SIMD floating point",
];

/// How many exceptions there have been.
static EXCEPTIONS: AtomicU32 = AtomicU32::new(0);

extern "C" fn exception(frame: &Frame) -> ! {
    // A second one has begun the stack anew, over what the first was doing.
    match EXCEPTIONS.fetch_add(1, Ordering::Relaxed) {
        0 => {}
        1 => {
            logger::last_words("exception while handling an exception\n");
            power::crash();
        }
        _ => power::crash(),
    }
    // Whoever held the log may have been interrupted: go around it.
    logger::emergency(format_args!(
        "exception {} ({}) at rip {:#x}, error code {:#x}, cr2 {:#x}, cr3 {:#x}\n\
         rax {:016x} rbx {:016x} rcx {:016x} rdx {:016x}\n\
         rsi {:016x} rdi {:016x} rbp {:016x} rsp {:016x}\n\
         r8  {:016x} r9  {:016x} r10 {:016x} r11 {:016x}\n\
         r12 {:016x} r13 {:016x} r14 {:016x} r15 {:016x}\n\
         rflags {:08x} cs {:x} ss {:x}\n",
        frame.vector,
        NAMES.get(frame.vector as usize).unwrap_or(&"reserved"),
        frame.rip,
        frame.error_code,
        Cr2::read_raw(),
        Cr3::read_raw().0.start_address(),
        frame.rax,
        frame.rbx,
        frame.rcx,
        frame.rdx,
        frame.rsi,
        frame.rdi,
        frame.rbp,
        frame.rsp,
        frame.r8,
        frame.r9,
        frame.r10,
        frame.r11,
        frame.r12,
        frame.r13,
        frame.r14,
        frame.r15,
        frame.rflags,
        frame.cs,
        frame.ss,
    ));
    if frame.vector == PAGE_FAULT && boot::guard().contains(&Cr2::read_raw()) {
        logger::emergency(format_args!("stack overflow: the guard page was touched\n"));
    }
    power::crash()
}

extern "C" fn upcall(rip: &mut u64) {
    events::upcall();
    *rip = idle::resume_at(*rip);
}
