//! Every hypercall that the runtime makes, through `xen-sys`, into a simulated hypercall page.
//!
//! An executable page of our own takes the place of the runtime's stubs. Its stubs come to
//! `simulated_entry`, which shows a test the number and the registers that Xen would see:
//!
//! ```text
//!  runtime's call ──► xen-sys: registers, call HYPERCALL_PAGE + 32 n
//!                        │
//!  simulated page        ▼   push n;  mov rax, simulated_entry;  jmp rax
//!                     simulated_entry: saves all registers ──► simulated_xen ──► the test's Xen
//! ```
//!
//! Numbers and offsets here are those of Xen's public headers, written out, not the runtime's own.
#![allow(missing_docs)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
// xen-sys does not tell the compiler that a hypercall writes below the stack pointer, where optimised
// code for a host, unlike the guest's, may keep things.
#![cfg(debug_assertions)]

use std::arch::global_asm;
use std::cell::{Cell, RefCell};
use std::panic::{self, AssertUnwindSafe};
use std::ptr;
use std::rc::Rc;
use std::sync::Once;

use xen_grant::{DomId, GrantStatus};
use xen_guest::hypercall::{self, Errno};

global_asm!(
    r#"
    .text
simulated_entry:
    push r8
    push r10
    push rdx
    push rsi
    push rdi
    push rbx
    push rbp
    push rcx
    push r9
    push r11
    lea rdi, [rsp + 40]
    mov rbp, rsp
    sub rsp, 512
    and rsp, -16
    fxsave64 [rsp]
    call {simulated_xen}
    fxrstor64 [rsp]
    mov rsp, rbp
    pop r11
    pop r9
    pop rcx
    pop rbp
    pop rbx
    pop rdi
    pop rsi
    pop rdx
    pop r10
    pop r8
    lea rsp, [rsp + 8]
    ret
"#,
    simulated_xen = sym simulated_xen,
);

unsafe extern "C" {
    static HYPERCALL_PAGE: u8;
    static simulated_entry: u8;
}

const STUBS: usize = 128;
const STUB: usize = 32;

/// What Xen sees of a hypercall, as `simulated_entry` leaves it on the stack.
#[repr(C)]
struct Call {
    /// rdi, rsi, rdx, r10, r8
    arguments: [u64; 5],
    /// Of the stub.
    number: u64,
}

/// What a test takes Xen to be.
type Xen = Box<dyn FnMut(u64, [u64; 5]) -> i64>;

thread_local! {
    static XEN: RefCell<Option<Xen>> = const { RefCell::new(None) };
    /// What it has panicked with: no panic may pass through the runtime's code.
    static PANIC: Cell<Option<Box<dyn std::any::Any + Send>>> = const { Cell::new(None) };
}

extern "C" fn simulated_xen(call: &mut Call) -> i64 {
    let answer = XEN.with_borrow_mut(|xen| {
        let xen = xen.as_mut()?;
        let answer = panic::catch_unwind(AssertUnwindSafe(|| xen(call.number, call.arguments)));
        answer.map_err(|panic| PANIC.set(Some(panic))).ok()
    });
    // As a debug build of Xen does: nobody may count on them.
    call.arguments = [0xdead_beef_dead_beef; 5];
    answer.unwrap_or(i64::MIN)
}

/// Puts the simulated stubs where the runtime's own are.
fn take_the_pages_place() {
    let page = (&raw const HYPERCALL_PAGE).cast_mut();
    let mut stubs = [0xccu8; STUBS * STUB];
    for (number, stub) in (0u32..).zip(stubs.chunks_exact_mut(STUB)) {
        let entry = (&raw const simulated_entry).expose_provenance() as u64;
        stub[0] = 0x68;
        stub[1..5].copy_from_slice(&number.to_le_bytes());
        stub[5..7].copy_from_slice(&[0x48, 0xb8]);
        stub[7..15].copy_from_slice(&entry.to_le_bytes());
        stub[15..17].copy_from_slice(&[0xff, 0xe0]);
    }
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
    let rights = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: the page holds the stubs alone, and nobody is in one of them yet.
    let mapped = unsafe { libc::mmap(page.cast(), stubs.len(), rights, flags, -1, 0) };
    assert_eq!(mapped, page.cast());
    // SAFETY: it has just been mapped for writing.
    unsafe { ptr::copy_nonoverlapping(stubs.as_ptr(), page, stubs.len()) };
    let rights = libc::PROT_READ | libc::PROT_EXEC;
    // SAFETY: nothing but code is there, and nobody writes to it.
    assert_eq!(unsafe { libc::mprotect(page.cast(), stubs.len(), rights) }, 0);
}

/// Runs `calls` on a Xen that answers with `xen`; how many hypercalls there were.
fn on<T>(
    mut xen: impl FnMut(u64, [u64; 5]) -> i64 + 'static,
    calls: impl FnOnce() -> T,
) -> (T, usize) {
    static ONCE: Once = Once::new();
    ONCE.call_once(take_the_pages_place);
    let count = Rc::new(Cell::new(0));
    let counted = count.clone();
    let counting = move |number, arguments| {
        counted.set(counted.get() + 1);
        xen(number, arguments)
    };
    XEN.set(Some(Box::new(counting)));
    let outcome = calls();
    XEN.set(None);
    if let Some(panic) = PANIC.take() {
        panic::resume_unwind(panic);
    }
    (outcome, count.get())
}

/// A field of the structure at `address`.
fn field<T: Copy>(address: u64, offset: usize) -> T {
    let at = ptr::with_exposed_provenance::<u8>(address as usize + offset).cast::<T>();
    // SAFETY: the caller's structure is there during the call, and the field is initialised.
    unsafe { at.read_unaligned() }
}

fn fill<T>(address: u64, offset: usize, value: T) {
    let at = ptr::with_exposed_provenance_mut::<u8>(address as usize + offset).cast::<T>();
    // SAFETY: as above, and the caller has lent it for writing.
    unsafe { at.write_unaligned(value) };
}

const DOMID_SELF: u16 = 0x7ff0;
const MEMORY_OP: u64 = 12;
const GRANT_TABLE_OP: u64 = 20;
const VCPU_OP: u64 = 24;
const SCHED_OP: u64 = 29;
const EVENT_CHANNEL_OP: u64 = 32;
const HVM_OP: u64 = 34;

/// Calls succeed with what Xen answers, and each error of Xen's is handed on as it is.
fn check<T: PartialEq + std::fmt::Debug>(
    call: impl Fn() -> Result<T, Errno>,
    xen: impl FnMut(u64, [u64; 5]) + Clone + 'static,
    expected: T,
) {
    for (answer, outcome) in
        [(0, Ok(expected)), (-1, Err(Errno(1))), (-22, Err(Errno(22))), (-38, Err(Errno(38)))]
    {
        let mut xen = xen.clone();
        let look = move |number, arguments| {
            xen(number, arguments);
            answer
        };
        assert_eq!(on(look, &call), (outcome, 1));
    }
}

#[test]
fn stopping_and_yielding() {
    let shutdown = |reason: u32| {
        move |number, [command, argument, ..]: [u64; 5]| {
            assert_eq!((number, command), (SCHED_OP, 2));
            assert_eq!(field::<u32>(argument, 0), reason);
            -1
        }
    };
    for reason in [0, 1, 3] {
        assert_eq!(on(shutdown(reason), || hypercall::shutdown(reason)), ((), 1));
    }
    for (answer, outcome) in [(0, Ok(0)), (1, Ok(1)), (-11, Err(Errno(11)))] {
        let look = shutdown(2);
        let xen = move |number, arguments| {
            look(number, arguments);
            answer
        };
        assert_eq!(on(xen, hypercall::suspend), (outcome, 1));
    }
    let xen = |number, [command, ..]: [u64; 5]| {
        assert_eq!((number, command), (SCHED_OP, 0));
        0
    };
    assert_eq!(on(xen, hypercall::sched_yield), ((), 1));
}

#[test]
fn parameters_and_vectors() {
    let get = |number, [command, argument, ..]: [u64; 5]| {
        assert_eq!((number, command), (HVM_OP, 1));
        assert_eq!((field(argument, 0), field(argument, 4)), (DOMID_SELF, 18u32));
        fill(argument, 8, 0xfedc_ba98_7654_3210u64);
    };
    check(|| hypercall::get_param(18), get, 0xfedc_ba98_7654_3210);

    let set = |value: u64| {
        move |number, [command, argument, ..]: [u64; 5]| {
            assert_eq!((number, command), (HVM_OP, 0));
            assert_eq!((field(argument, 0), field(argument, 4)), (DOMID_SELF, 0u32));
            assert_eq!(field::<u64>(argument, 8), value);
        }
    };
    // SAFETY: the Xen that is told interrupts nobody.
    check(|| unsafe { hypercall::set_callback_vector(0xf3) }, set(0x0200_0000_0000_00f3), ());
    check(hypercall::set_callback_nowhere, set(1), ());

    let vector = |number, [command, argument, ..]: [u64; 5]| {
        assert_eq!((number, command), (HVM_OP, 23));
        assert_eq!((field(argument, 0), field(argument, 4)), (5u32, 0xf3u8));
    };
    // SAFETY: as above.
    check(|| unsafe { hypercall::set_vcpu_upcall_vector(5, 0xf3) }, vector, ());
}

#[test]
fn places_for_pages() {
    let xen = |number, [command, argument, ..]: [u64; 5]| {
        assert_eq!((number, command), (MEMORY_OP, 7));
        assert_eq!((field(argument, 0), field(argument, 2)), (DOMID_SELF, 0u16));
        assert_eq!(field::<u32>(argument, 4), 1);
        assert_eq!((field(argument, 8), field(argument, 16)), (77u64, 0x12_3456_789au64));
    };
    // SAFETY: the Xen that is told moves no page.
    check(|| unsafe { hypercall::add_to_physmap(1, 77, 0x12_3456_789a) }, xen, ());
}

#[test]
fn event_channels() {
    let alloc = |number, [command, argument, ..]: [u64; 5]| {
        assert_eq!((number, command), (EVENT_CHANNEL_OP, 6));
        assert_eq!((field(argument, 0), field(argument, 2)), (DOMID_SELF, 0x1234u16));
        fill(argument, 4, 4095u32);
    };
    check(|| hypercall::evtchn_alloc_unbound(DomId(0x1234)), alloc, 4095);

    let bind = |number, [command, argument, ..]: [u64; 5]| {
        assert_eq!((number, command), (EVENT_CHANNEL_OP, 0));
        assert_eq!((field(argument, 0), field(argument, 4)), (0x1234u16, 0x89ab_cdefu32));
        fill(argument, 8, 17u32);
    };
    check(|| hypercall::evtchn_bind_interdomain(DomId(0x1234), 0x89ab_cdef), bind, 17);

    let virq = |number, [command, argument, ..]: [u64; 5]| {
        assert_eq!((number, command), (EVENT_CHANNEL_OP, 1));
        assert_eq!((field(argument, 0), field(argument, 4)), (9u32, 0u32));
        fill(argument, 8, 18u32);
    };
    check(|| hypercall::evtchn_bind_virq(9), virq, 18);

    let with_port = |command: u64| {
        move |number, [is, argument, ..]: [u64; 5]| {
            assert_eq!((number, is), (EVENT_CHANNEL_OP, command));
            assert_eq!(field::<u32>(argument, 0), 0x89ab_cdef);
        }
    };
    check(|| hypercall::evtchn_close(0x89ab_cdef), with_port(3), ());
    check(|| hypercall::evtchn_send(0x89ab_cdef), with_port(4), ());
}

#[test]
fn the_timer() {
    let xen = |number, [command, vcpu, argument, ..]: [u64; 5]| {
        assert_eq!((number, command, vcpu), (VCPU_OP, 8, 0));
        assert_eq!((field(argument, 0), field(argument, 8)), (0x0123_4567_89ab_cdefu64, 0u32));
    };
    check(|| hypercall::set_singleshot_timer(0x0123_4567_89ab_cdef), xen, ());
}

#[test]
fn batches_for_the_grant_table() {
    for (answer, outcome) in [(0, Ok(())), (-38, Err(GrantStatus::GENERAL_ERROR))] {
        let xen = move |number, [command, argument, count, ..]: [u64; 5]| {
            assert_eq!((number, command, count), (GRANT_TABLE_OP, 5, 3));
            for index in 0..3 {
                assert_eq!(field::<u64>(argument, 8 * index), 100 + index as u64);
                fill(argument, 8 * index, index as u64);
            }
            answer
        };
        let mut operations = [100u64, 101, 102];
        // SAFETY: the Xen that is told takes any three words.
        let call = || unsafe { hypercall::grant_table_op(5, &mut operations) };
        assert_eq!(on(xen, call), (outcome, 1));
        assert_eq!(operations, [0, 1, 2]);
    }
}
