//! The descriptor tables: one code segment, one task state with stacks of their own for the
//! exceptions that may come from a broken stack, and the interrupt table.

use spin::Once;
use x86_64::VirtAddr;
use x86_64::instructions::tables::load_tss;
use x86_64::registers::segmentation::{CS, DS, ES, SS, Segment};
use x86_64::structures::gdt::{Descriptor, GlobalDescriptorTable, SegmentSelector};
use x86_64::structures::idt::InterruptDescriptorTable;
use x86_64::structures::tss::TaskStateSegment;

use crate::boot::trap_stack_top;

use super::pic;
use super::traps::{UPCALL_VECTOR, entry_points, spurious_entry, upcall_entry};

/// Which entry of the interrupt stack table is the exceptions' stack: they cannot trust the one in
/// use.
const TRAP_IST: u16 = 0;

struct Segments {
    table: GlobalDescriptorTable,
    code: SegmentSelector,
    data: SegmentSelector,
    task: SegmentSelector,
}

/// Loads the tables, and sees to it that no interrupt reads as an exception.
pub fn init() {
    static TASK: Once<TaskStateSegment> = Once::new();
    static SEGMENTS: Once<Segments> = Once::new();
    static VECTORS: Once<InterruptDescriptorTable> = Once::new();

    let task = TASK.call_once(|| {
        let mut task = TaskStateSegment::new();
        task.interrupt_stack_table[usize::from(TRAP_IST)] = VirtAddr::new(trap_stack_top());
        task
    });
    let segments = SEGMENTS.call_once(|| {
        let mut table = GlobalDescriptorTable::new();
        let code = table.append(Descriptor::kernel_code_segment());
        let data = table.append(Descriptor::kernel_data_segment());
        let task = table.append(Descriptor::tss_segment(task));
        Segments { table, code, data, task }
    });
    segments.table.load();
    // SAFETY: the selector is of the 64-bit code segment in the table just loaded.
    unsafe { CS::set_reg(segments.code) };
    // SAFETY: a data segment of that table.
    unsafe { SS::set_reg(segments.data) };
    // SAFETY: as above.
    unsafe { DS::set_reg(segments.data) };
    // SAFETY: as above.
    unsafe { ES::set_reg(segments.data) };
    // SAFETY: the task state of that table, which lives for ever.
    unsafe { load_tss(segments.task) };
    VECTORS.call_once(vectors).load();
    pic::silence();
}

/// Makes `$table.$name` enter at `$address`.
macro_rules! set {
    ($table:ident . $name:ident, $address:expr) => {{
        // SAFETY: the stub at this address is made for this vector.
        let options = unsafe { $table.$name.set_handler_addr(VirtAddr::new($address)) };
        // SAFETY: that stack is used for nothing else, and no handler on it returns.
        unsafe { options.set_stack_index(TRAP_IST) };
    }};
}

fn vectors() -> InterruptDescriptorTable {
    let mut table = InterruptDescriptorTable::new();
    let entry = entry_points();
    set!(table.divide_error, entry(0));
    set!(table.debug, entry(1));
    set!(table.non_maskable_interrupt, entry(2));
    set!(table.breakpoint, entry(3));
    set!(table.overflow, entry(4));
    set!(table.bound_range_exceeded, entry(5));
    set!(table.invalid_opcode, entry(6));
    set!(table.device_not_available, entry(7));
    set!(table.double_fault, entry(8));
    set!(table.invalid_tss, entry(10));
    set!(table.segment_not_present, entry(11));
    set!(table.stack_segment_fault, entry(12));
    set!(table.general_protection_fault, entry(13));
    set!(table.page_fault, entry(14));
    set!(table.x87_floating_point, entry(16));
    set!(table.alignment_check, entry(17));
    set!(table.machine_check, entry(18));
    set!(table.simd_floating_point, entry(19));
    let upcall = VirtAddr::new(upcall_entry as *const () as u64);
    // SAFETY: the stub saves and restores what it uses and returns by iretq.
    unsafe { table[UPCALL_VECTOR].set_handler_addr(upcall) };
    let spurious = VirtAddr::new(spurious_entry as *const () as u64);
    for vector in pic::VECTORS {
        // SAFETY: the stub returns by iretq and uses nothing.
        unsafe { table[vector].set_handler_addr(spurious) };
    }
    table
}
