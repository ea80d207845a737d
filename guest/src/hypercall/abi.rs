//! Structures that hypercalls take and `xen-sys` does not have, as Xen's public headers lay them
//! out for x86-64, and the numbers that go with them.

/// `DOMID_SELF` (xen/xen.h)
pub const DOMID_SELF: u16 = 0x7ff0;

/// `XENMEM_add_to_physmap` (xen/memory.h)
pub const XENMEM_ADD_TO_PHYSMAP: u64 = 7;
/// `XENMAPSPACE_shared_info` (xen/memory.h)
pub const XENMAPSPACE_SHARED_INFO: u32 = 0;
/// `XENMAPSPACE_grant_table` (xen/memory.h)
pub const XENMAPSPACE_GRANT_TABLE: u32 = 1;

/// `HVMOP_set_param` (xen/hvm/hvm_op.h)
pub const HVMOP_SET_PARAM: u64 = 0;
/// `HVMOP_get_param` (xen/hvm/hvm_op.h)
pub const HVMOP_GET_PARAM: u64 = 1;
/// `HVMOP_set_evtchn_upcall_vector` (xen/hvm/hvm_op.h)
pub const HVMOP_SET_EVTCHN_UPCALL_VECTOR: u64 = 23;
/// `HVM_PARAM_CALLBACK_IRQ` (xen/hvm/params.h)
pub const HVM_PARAM_CALLBACK_IRQ: u32 = 0;
/// `HVM_PARAM_STORE_PFN` (xen/hvm/params.h)
pub const HVM_PARAM_STORE_PFN: u32 = 1;
/// `HVM_PARAM_STORE_EVTCHN` (xen/hvm/params.h)
pub const HVM_PARAM_STORE_EVTCHN: u32 = 2;
/// `HVM_PARAM_CONSOLE_PFN` (xen/hvm/params.h)
pub const HVM_PARAM_CONSOLE_PFN: u32 = 17;
/// `HVM_PARAM_CONSOLE_EVTCHN` (xen/hvm/params.h)
pub const HVM_PARAM_CONSOLE_EVTCHN: u32 = 18;
/// `HVM_PARAM_CALLBACK_TYPE_VECTOR` (xen/hvm/params.h), in its place in the parameter's value.
pub const HVM_PARAM_CALLBACK_TYPE_VECTOR: u64 = 2 << 56;

/// `VCPUOP_set_singleshot_timer` (xen/vcpu.h)
pub const VCPUOP_SET_SINGLESHOT_TIMER: u64 = 8;

/// `GNTTABOP_map_grant_ref` (xen/grant_table.h)
pub const GNTTABOP_MAP_GRANT_REF: u64 = 0;
/// `GNTTABOP_unmap_grant_ref` (xen/grant_table.h)
pub const GNTTABOP_UNMAP_GRANT_REF: u64 = 1;
/// `GNTTABOP_copy` (xen/grant_table.h)
pub const GNTTABOP_COPY: u64 = 5;
/// `GNTTABOP_query_size` (xen/grant_table.h)
pub const GNTTABOP_QUERY_SIZE: u64 = 6;
/// `GNTTABOP_set_version` (xen/grant_table.h)
pub const GNTTABOP_SET_VERSION: u64 = 8;
/// `GNTMAP_host_map` (xen/grant_table.h)
pub const GNTMAP_HOST_MAP: u32 = 1 << 1;
/// `GNTCOPY_source_gref` (xen/grant_table.h)
pub const GNTCOPY_SOURCE_GREF: u16 = 1 << 0;
/// `GNTCOPY_dest_gref` (xen/grant_table.h)
pub const GNTCOPY_DEST_GREF: u16 = 1 << 1;

/// `struct xen_add_to_physmap` (xen/memory.h)
#[repr(C)]
#[derive(Debug)]
pub struct XenAddToPhysmap {
    /// Whose address space.
    pub domid: u16,
    /// Only for `XENMAPSPACE_gmfn_range`.
    pub size: u16,
    /// `XENMAPSPACE_*`
    pub space: u32,
    /// Index within the space.
    pub idx: u64,
    /// Where the page is to appear.
    pub gpfn: u64,
}

/// `struct xen_hvm_param` (xen/hvm/hvm_op.h)
#[repr(C)]
#[derive(Debug)]
pub struct XenHvmParam {
    /// Whose parameter.
    pub domid: u16,
    /// Alignment.
    pub pad: u16,
    /// `HVM_PARAM_*`
    pub index: u32,
    /// The value, in or out.
    pub value: u64,
}

/// `struct xen_hvm_evtchn_upcall_vector` (xen/hvm/hvm_op.h)
#[repr(C)]
#[derive(Debug)]
pub struct XenHvmEvtchnUpcallVector {
    /// Whose vector.
    pub vcpu: u32,
    /// From 16 on.
    pub vector: u8,
}

/// `struct vcpu_set_singleshot_timer` (xen/vcpu.h)
#[repr(C)]
#[derive(Debug)]
pub struct VcpuSetSingleshotTimer {
    /// Absolute system time in nanoseconds.
    pub timeout_abs_ns: u64,
    /// `VCPU_SSHOTTMR_*`
    pub flags: u32,
}

/// `struct gnttab_query_size` (xen/grant_table.h)
#[repr(C)]
#[derive(Debug)]
pub struct GnttabQuerySize {
    /// Whose table.
    pub dom: u16,
    /// Frames it has now.
    pub nr_frames: u32,
    /// Frames it may have.
    pub max_nr_frames: u32,
    /// `GNTST_*`
    pub status: i16,
}

/// `struct gnttab_set_version` (xen/grant_table.h)
#[repr(C)]
#[derive(Debug)]
pub struct GnttabSetVersion {
    /// The version to use; on return the version in use.
    pub version: u32,
}

/// `struct gnttab_map_grant_ref` (xen/grant_table.h)
#[repr(C)]
#[derive(Debug)]
pub struct GnttabMapGrantRef {
    /// Where the page is to appear: a guest physical address for a PVH guest.
    pub host_addr: u64,
    /// `GNTMAP_*`
    pub flags: u32,
    /// The grant reference.
    pub gref: u32,
    /// Who granted it.
    pub dom: u16,
    /// `GNTST_*`
    pub status: i16,
    /// Names the mapping when it is to be undone.
    pub handle: u32,
    /// Only for device mappings.
    pub dev_bus_addr: u64,
}

/// `struct gnttab_unmap_grant_ref` (xen/grant_table.h)
#[repr(C)]
#[derive(Debug)]
pub struct GnttabUnmapGrantRef {
    /// Where the page is mapped.
    pub host_addr: u64,
    /// Only for device mappings.
    pub dev_bus_addr: u64,
    /// From the map operation.
    pub handle: u32,
    /// `GNTST_*`
    pub status: i16,
}

/// `struct gnttab_copy_ptr` (xen/grant_table.h)
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct GnttabCopyPtr {
    /// A union in C: the grant reference in the low half, or the frame number.
    pub gref_or_gmfn: u64,
    /// Whose.
    pub domid: u16,
    /// First byte within the page.
    pub offset: u16,
}

/// `struct gnttab_copy` (xen/grant_table.h)
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct GnttabCopy {
    /// Where the bytes come from.
    pub source: GnttabCopyPtr,
    /// Where they go.
    pub dest: GnttabCopyPtr,
    /// How many bytes.
    pub len: u16,
    /// `GNTCOPY_*`
    pub flags: u16,
    /// `GNTST_*`
    pub status: i16,
}

const _: () = {
    use core::mem::offset_of;
    assert!(size_of::<XenAddToPhysmap>() == 24 && offset_of!(XenAddToPhysmap, gpfn) == 16);
    assert!(size_of::<XenHvmParam>() == 16 && offset_of!(XenHvmParam, value) == 8);
    assert!(size_of::<XenHvmEvtchnUpcallVector>() == 8);
    assert!(size_of::<VcpuSetSingleshotTimer>() == 16);
    assert!(size_of::<GnttabQuerySize>() == 16 && offset_of!(GnttabQuerySize, status) == 12);
    assert!(size_of::<GnttabSetVersion>() == 4);
    assert!(size_of::<GnttabMapGrantRef>() == 32 && offset_of!(GnttabMapGrantRef, handle) == 20);
    assert!(
        size_of::<GnttabUnmapGrantRef>() == 24 && offset_of!(GnttabUnmapGrantRef, status) == 20
    );
    assert!(size_of::<GnttabCopyPtr>() == 16 && offset_of!(GnttabCopyPtr, offset) == 10);
    assert!(size_of::<GnttabCopy>() == 40 && offset_of!(GnttabCopy, status) == 36);
    // From xen-sys, whose own layout tests no longer compile.
    assert!(size_of::<xen_sys::shared_info>() == 3136);
    assert!(size_of::<xen_sys::vcpu_info>() == 64);
    assert!(size_of::<xen_sys::vcpu_time_info>() == 32);
    assert!(size_of::<xen_sys::evtchn_alloc_unbound>() == 8);
    assert!(size_of::<xen_sys::evtchn_bind_interdomain>() == 12);
    assert!(size_of::<xen_sys::evtchn_bind_virq>() == 12);
    assert!(size_of::<xen_sys::evtchn_close>() == 4);
    assert!(size_of::<xen_sys::evtchn_send>() == 4);
    assert!(size_of::<xen_sys::sched_shutdown>() == 4);
};
