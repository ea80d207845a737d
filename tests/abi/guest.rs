//! The guest runtime's structures and numbers, compared with what a C compiler makes of Xen's
//! public headers. See `tests/abi.rs`; this is a test of the package xen-guest.
#![allow(missing_docs)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "headers.rs"]
mod headers;

use std::mem::offset_of;

use headers::headers;
use xen_guest::hypercall::abi::*;
use xen_sys::{
    evtchn_alloc_unbound, evtchn_bind_interdomain, evtchn_bind_virq, evtchn_close, evtchn_send,
    sched_shutdown, shared_info, vcpu_info, vcpu_time_info,
};

/// `(name in C, our number)`
macro_rules! numbers {
    ($($name:literal = $ours:expr),* $(,)?) => {
        [$(($name, i128::from($ours))),*]
    };
}

/// Size of a structure and offsets of its fields. The C field has the same name, unless given.
macro_rules! layout {
    ($c:expr, $name:literal, $ours:ty { $($field:ident $(= $theirs:literal)?),* $(,)? }) => {
        $c.compare([
            (concat!("sizeof(", $name, ")"), size_of::<$ours>() as i64),
            $((
                layout!(@name $name, $field $(, $theirs)?),
                offset_of!($ours, $field) as i64,
            )),*
        ]);
    };
    (@name $name:literal, $field:ident) => { concat!($name, ".", stringify!($field)) };
    (@name $name:literal, $field:ident, $theirs:literal) => { concat!($name, ".", $theirs) };
}

#[test]
fn abi_guest_numbers() {
    let Some(c) = headers() else { return };
    c.compare(numbers![
        "DOMID_SELF" = DOMID_SELF,
        "__HYPERVISOR_memory_op" = xen_sys::__HYPERVISOR_memory_op,
        "__HYPERVISOR_grant_table_op" = xen_sys::__HYPERVISOR_grant_table_op,
        "__HYPERVISOR_vcpu_op" = xen_sys::__HYPERVISOR_vcpu_op,
        "__HYPERVISOR_sched_op" = xen_sys::__HYPERVISOR_sched_op,
        "__HYPERVISOR_event_channel_op" = xen_sys::__HYPERVISOR_event_channel_op,
        "__HYPERVISOR_hvm_op" = xen_sys::__HYPERVISOR_hvm_op,
        "XENMEM_add_to_physmap" = XENMEM_ADD_TO_PHYSMAP,
        "XENMAPSPACE_shared_info" = XENMAPSPACE_SHARED_INFO,
        "XENMAPSPACE_grant_table" = XENMAPSPACE_GRANT_TABLE,
        "HVMOP_set_param" = HVMOP_SET_PARAM,
        "HVMOP_get_param" = HVMOP_GET_PARAM,
        "HVMOP_set_evtchn_upcall_vector" = HVMOP_SET_EVTCHN_UPCALL_VECTOR,
        "HVM_PARAM_CALLBACK_IRQ" = HVM_PARAM_CALLBACK_IRQ,
        "HVM_PARAM_STORE_PFN" = HVM_PARAM_STORE_PFN,
        "HVM_PARAM_STORE_EVTCHN" = HVM_PARAM_STORE_EVTCHN,
        "HVM_PARAM_CONSOLE_PFN" = HVM_PARAM_CONSOLE_PFN,
        "HVM_PARAM_CONSOLE_EVTCHN" = HVM_PARAM_CONSOLE_EVTCHN,
        "callback_by_vector" = HVM_PARAM_CALLBACK_TYPE_VECTOR,
        "VCPUOP_set_singleshot_timer" = VCPUOP_SET_SINGLESHOT_TIMER,
        "VIRQ_TIMER" = xen_sys::VIRQ_TIMER,
        "EVTCHNOP_alloc_unbound" = xen_sys::EVTCHNOP_alloc_unbound,
        "EVTCHNOP_bind_interdomain" = xen_sys::EVTCHNOP_bind_interdomain,
        "EVTCHNOP_bind_virq" = xen_sys::EVTCHNOP_bind_virq,
        "EVTCHNOP_close" = xen_sys::EVTCHNOP_close,
        "EVTCHNOP_send" = xen_sys::EVTCHNOP_send,
        "SCHEDOP_yield" = xen_sys::SCHEDOP_yield,
        "SCHEDOP_shutdown" = xen_sys::SCHEDOP_shutdown,
        "SHUTDOWN_poweroff" = xen_sys::SHUTDOWN_poweroff,
        "SHUTDOWN_crash" = xen_sys::SHUTDOWN_crash,
        "GNTTABOP_map_grant_ref" = GNTTABOP_MAP_GRANT_REF,
        "GNTTABOP_unmap_grant_ref" = GNTTABOP_UNMAP_GRANT_REF,
        "GNTTABOP_copy" = GNTTABOP_COPY,
        "GNTTABOP_query_size" = GNTTABOP_QUERY_SIZE,
        "GNTTABOP_set_version" = GNTTABOP_SET_VERSION,
        "GNTMAP_host_map" = GNTMAP_HOST_MAP,
        "GNTCOPY_source_gref" = GNTCOPY_SOURCE_GREF,
        "GNTCOPY_dest_gref" = GNTCOPY_DEST_GREF,
        "XEN_ELFNOTE_PHYS32_ENTRY" = xen_sys::XEN_ELFNOTE_PHYS32_ENTRY,
    ]);
}

/// What `hypercall::abi` defines.
#[test]
fn abi_guest_structures() {
    let Some(c) = headers() else { return };
    layout!(c, "xen_add_to_physmap", XenAddToPhysmap { domid, size, space, idx, gpfn });
    layout!(c, "xen_hvm_param", XenHvmParam { domid, index, value });
    layout!(c, "xen_hvm_evtchn_upcall_vector", XenHvmEvtchnUpcallVector { vcpu, vector });
    layout!(c, "vcpu_set_singleshot_timer", VcpuSetSingleshotTimer { timeout_abs_ns, flags });
    layout!(c, "gnttab_query_size", GnttabQuerySize { dom, nr_frames, max_nr_frames, status });
    layout!(c, "gnttab_set_version", GnttabSetVersion {});
    layout!(
        c,
        "gnttab_map_grant_ref",
        GnttabMapGrantRef { host_addr, flags, gref = "ref", dom, status, handle, dev_bus_addr }
    );
    layout!(
        c,
        "gnttab_unmap_grant_ref",
        GnttabUnmapGrantRef { host_addr, dev_bus_addr, handle, status }
    );
    layout!(c, "gnttab_copy", GnttabCopy { source, dest, len, flags, status });
    c.compare([
        ("sizeof(gnttab_copy_ptr)", size_of::<GnttabCopyPtr>() as i64),
        ("gnttab_copy.source.u", offset_of!(GnttabCopyPtr, gref_or_gmfn) as i64),
        ("gnttab_copy.source.domid", offset_of!(GnttabCopyPtr, domid) as i64),
        ("gnttab_copy.source.offset", offset_of!(GnttabCopyPtr, offset) as i64),
    ]);
}

/// What comes from the crate xen-sys.
#[test]
fn abi_guest_structures_of_xen_sys() {
    let Some(c) = headers() else { return };
    layout!(c, "shared_info", shared_info { vcpu_info, evtchn_pending, evtchn_mask });
    layout!(c, "vcpu_info", vcpu_info { evtchn_upcall_pending, evtchn_pending_sel, time });
    layout!(
        c,
        "vcpu_time_info",
        vcpu_time_info { version, tsc_timestamp, system_time, tsc_to_system_mul, tsc_shift }
    );
    layout!(c, "evtchn_alloc_unbound", evtchn_alloc_unbound { dom, remote_dom, port });
    layout!(
        c,
        "evtchn_bind_interdomain",
        evtchn_bind_interdomain { remote_dom, remote_port, local_port }
    );
    layout!(c, "evtchn_bind_virq", evtchn_bind_virq { virq, vcpu, port });
    layout!(c, "evtchn_close", evtchn_close {});
    layout!(c, "evtchn_send", evtchn_send {});
    layout!(c, "sched_shutdown", sched_shutdown {});
}
