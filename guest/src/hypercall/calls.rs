//! The calls themselves.

use xen_grant::{DomId, GrantStatus};

use super::abi::*;
use super::{Errno, check};

/// A call of the usual shape: a command and the structure it reads and fills.
///
/// # Safety
///
/// `argument` is what `op` and `command` take, and what the command does with the machine is
/// sound.
unsafe fn call<T>(op: u32, command: u64, argument: &mut T) -> Result<u64, Errno> {
    let address = (&raw mut *argument).expose_provenance() as u64;
    // SAFETY: the caller's promise; Xen reads and writes nothing but `argument`.
    check(unsafe { xen_sys::hypercall_2(op, command, address) })
}

/// `SCHEDOP_shutdown` with `SHUTDOWN_suspend` (xen/sched.h). Comes back with 0 in a new domain, with
/// 1 in this one: the suspend was cancelled. (Xen's "start info" argument is for PV guests.)
pub fn suspend() -> Result<u64, Errno> {
    let mut argument = xen_sys::sched_shutdown { reason: xen_sys::SHUTDOWN_suspend };
    let op = xen_sys::__HYPERVISOR_sched_op;
    // SAFETY: SCHEDOP_shutdown takes a sched_shutdown; a resumed domain goes on here.
    unsafe { call(op, xen_sys::SCHEDOP_shutdown.into(), &mut argument) }
}

/// `SCHEDOP_shutdown` (xen/sched.h) for good. Comes back only if Xen refuses.
pub fn shutdown(reason: u32) {
    let mut argument = xen_sys::sched_shutdown { reason };
    let op = xen_sys::__HYPERVISOR_sched_op;
    // SAFETY: SCHEDOP_shutdown takes a sched_shutdown; stopping the domain is always sound.
    let _ = unsafe { call(op, xen_sys::SCHEDOP_shutdown.into(), &mut argument) };
}

/// `SCHEDOP_yield` (xen/sched.h): lets others run.
pub fn sched_yield() {
    let op = xen_sys::__HYPERVISOR_sched_op;
    // SAFETY: SCHEDOP_yield looks at no argument.
    unsafe { xen_sys::hypercall_2(op, xen_sys::SCHEDOP_yield.into(), 0) };
}

/// `HVMOP_get_param` (xen/hvm/hvm_op.h)
pub fn get_param(index: u32) -> Result<u64, Errno> {
    let mut argument = XenHvmParam { domid: DOMID_SELF, pad: 0, index, value: 0 };
    let op = xen_sys::__HYPERVISOR_hvm_op;
    // SAFETY: HVMOP_get_param takes a xen_hvm_param and fills its value.
    unsafe { call(op, HVMOP_GET_PARAM, &mut argument) }?;
    Ok(argument.value)
}

/// `HVMOP_set_param` with `HVM_PARAM_CALLBACK_IRQ`: event channels raise this vector.
///
/// # Safety
///
/// The interrupt table has a handler for `vector`.
pub unsafe fn set_callback_vector(vector: u8) -> Result<(), Errno> {
    // SAFETY: the caller's promise.
    unsafe { set_callback(HVM_PARAM_CALLBACK_TYPE_VECTOR | u64::from(vector)) }
}

/// `HVMOP_set_param` with `HVM_PARAM_CALLBACK_IRQ`: event channels raise line 1 of an interrupt
/// controller, which a PVH guest does not have, so nothing comes of it. For vCPUs that have vectors
/// of their own: with no callback at all, Xen's toolstack takes the domain for one that knows
/// nothing of Xen, and does not tell it that a suspend was cancelled.
///
/// It does not replace a vector that was set before: Xen then goes on raising that, beside the
/// vCPU's.
pub fn set_callback_nowhere() -> Result<(), Errno> {
    // SAFETY: no interrupt comes of it.
    unsafe { set_callback(1) }
}

/// # Safety
///
/// What `value` says Xen may raise has a handler.
unsafe fn set_callback(value: u64) -> Result<(), Errno> {
    let index = HVM_PARAM_CALLBACK_IRQ;
    let mut argument = XenHvmParam { domid: DOMID_SELF, pad: 0, index, value };
    let op = xen_sys::__HYPERVISOR_hvm_op;
    // SAFETY: HVMOP_set_param takes a xen_hvm_param; the caller vouches for the handler.
    unsafe { call(op, HVMOP_SET_PARAM, &mut argument) }.map(drop)
}

/// `HVMOP_set_evtchn_upcall_vector` (xen/hvm/hvm_op.h): event channels bound to `vcpu` raise this
/// vector of its local APIC. That cannot be taken back.
///
/// # Safety
///
/// The interrupt table has a handler for `vector`, which tells the local APIC when it is done.
pub unsafe fn set_vcpu_upcall_vector(vcpu: u32, vector: u8) -> Result<(), Errno> {
    let mut argument = XenHvmEvtchnUpcallVector { vcpu, vector };
    let op = xen_sys::__HYPERVISOR_hvm_op;
    // SAFETY: the command takes a xen_hvm_evtchn_upcall_vector; the caller vouches for the handler.
    unsafe { call(op, HVMOP_SET_EVTCHN_UPCALL_VECTOR, &mut argument) }.map(drop)
}

/// `XENMEM_add_to_physmap` (xen/memory.h): makes page `idx` of `space` appear at frame `gpfn`.
///
/// # Safety
///
/// Frame `gpfn` belongs to nobody: the page that was there is gone after the call.
pub unsafe fn add_to_physmap(space: u32, idx: u64, gpfn: u64) -> Result<(), Errno> {
    let mut argument = XenAddToPhysmap { domid: DOMID_SELF, size: 0, space, idx, gpfn };
    let op = xen_sys::__HYPERVISOR_memory_op;
    // SAFETY: XENMEM_add_to_physmap takes a xen_add_to_physmap; the caller vouches for `gpfn`.
    unsafe { call(op, XENMEM_ADD_TO_PHYSMAP, &mut argument) }.map(drop)
}

/// `EVTCHNOP_alloc_unbound` (xen/event_channel.h)
pub fn evtchn_alloc_unbound(peer: DomId) -> Result<u32, Errno> {
    let mut argument =
        xen_sys::evtchn_alloc_unbound { dom: DOMID_SELF, remote_dom: peer.0, port: 0 };
    // SAFETY: EVTCHNOP_alloc_unbound takes an evtchn_alloc_unbound and fills its port.
    unsafe { event_channel_op(xen_sys::EVTCHNOP_alloc_unbound, &mut argument) }?;
    Ok(argument.port)
}

/// `EVTCHNOP_bind_interdomain` (xen/event_channel.h)
pub fn evtchn_bind_interdomain(peer: DomId, remote_port: u32) -> Result<u32, Errno> {
    let mut argument =
        xen_sys::evtchn_bind_interdomain { remote_dom: peer.0, remote_port, local_port: 0 };
    // SAFETY: EVTCHNOP_bind_interdomain takes an evtchn_bind_interdomain and fills its local_port.
    unsafe { event_channel_op(xen_sys::EVTCHNOP_bind_interdomain, &mut argument) }?;
    Ok(argument.local_port)
}

/// `EVTCHNOP_bind_virq` (xen/event_channel.h), for vCPU 0.
pub fn evtchn_bind_virq(virq: u32) -> Result<u32, Errno> {
    let mut argument = xen_sys::evtchn_bind_virq { virq, vcpu: 0, port: 0 };
    // SAFETY: EVTCHNOP_bind_virq takes an evtchn_bind_virq and fills its port.
    unsafe { event_channel_op(xen_sys::EVTCHNOP_bind_virq, &mut argument) }?;
    Ok(argument.port)
}

/// `EVTCHNOP_close` (xen/event_channel.h)
pub fn evtchn_close(port: u32) -> Result<(), Errno> {
    let mut argument = xen_sys::evtchn_close { port };
    // SAFETY: EVTCHNOP_close takes an evtchn_close.
    unsafe { event_channel_op(xen_sys::EVTCHNOP_close, &mut argument) }
}

/// `EVTCHNOP_send` (xen/event_channel.h)
pub fn evtchn_send(port: u32) -> Result<(), Errno> {
    let mut argument = xen_sys::evtchn_send { port };
    // SAFETY: EVTCHNOP_send takes an evtchn_send.
    unsafe { event_channel_op(xen_sys::EVTCHNOP_send, &mut argument) }
}

/// # Safety
///
/// As [`call`].
unsafe fn event_channel_op<T>(command: u32, argument: &mut T) -> Result<(), Errno> {
    let op = xen_sys::__HYPERVISOR_event_channel_op;
    // SAFETY: the caller's promise.
    unsafe { call(op, command.into(), argument) }.map(drop)
}

/// `VCPUOP_set_singleshot_timer` (xen/vcpu.h): `VIRQ_TIMER` on vCPU 0 when Xen's system time has
/// reached this. A time that has passed fires at once.
pub fn set_singleshot_timer(timeout_abs_ns: u64) -> Result<(), Errno> {
    let mut argument = VcpuSetSingleshotTimer { timeout_abs_ns, flags: 0 };
    let address = (&raw mut argument).expose_provenance() as u64;
    let op = xen_sys::__HYPERVISOR_vcpu_op;
    // SAFETY: the command takes a vcpu_set_singleshot_timer, which outlives the call.
    check(unsafe { xen_sys::hypercall_3(op, VCPUOP_SET_SINGLESHOT_TIMER, 0, address) }).map(drop)
}

/// A batch of grant-table operations, each with its own status. The error is the whole call's.
///
/// # Safety
///
/// `operations` are what `command` takes, and what they do with memory is sound.
pub unsafe fn grant_table_op<T>(command: u64, operations: &mut [T]) -> Result<(), GrantStatus> {
    let address = operations.as_mut_ptr().expose_provenance() as u64;
    let count = operations.len() as u64;
    let op = xen_sys::__HYPERVISOR_grant_table_op;
    // SAFETY: the caller's promise; Xen reads and writes nothing else than the operations.
    match unsafe { xen_sys::hypercall_3(op, command, address, count) } {
        0 => Ok(()),
        _ => Err(GrantStatus::GENERAL_ERROR),
    }
}
