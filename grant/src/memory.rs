//! What this crate asks of the machine: pages, grant frames, and for backends foreign grants.

use core::ptr::NonNull;

use crate::sync::AtomicU32;

/// Bytes in a page.
pub const PAGE_SIZE: usize = 4096;

/// The bytes of one page.
#[repr(C, align(4096))]
pub struct Page(pub [u8; PAGE_SIZE]);

impl core::fmt::Debug for Page {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Page")
    }
}

/// A page as the words it is shared by. Every access to a page that somebody else may touch at
/// the same time is one whole 32-bit word.
pub type Words = [AtomicU32; PAGE_SIZE / 4];

/// A domain's number (`domid_t`, xen/xen.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DomId(pub u16);

/// A guest frame number: which page of a domain's own address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Gfn(pub u64);

/// The outcome of a grant operation (`GNTST_*`, xen/grant_table.h). 0 is success, errors are
/// negative.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GrantStatus(pub i16);

impl GrantStatus {
    /// `GNTST_okay`
    pub const OKAY: GrantStatus = GrantStatus(0);
    /// `GNTST_general_error`
    pub const GENERAL_ERROR: GrantStatus = GrantStatus(-1);
    /// `GNTST_bad_domain`
    pub const BAD_DOMAIN: GrantStatus = GrantStatus(-2);
    /// `GNTST_bad_gntref`
    pub const BAD_GNTREF: GrantStatus = GrantStatus(-3);
    /// `GNTST_bad_handle`
    pub const BAD_HANDLE: GrantStatus = GrantStatus(-4);
    /// `GNTST_no_device_space`
    pub const NO_DEVICE_SPACE: GrantStatus = GrantStatus(-7);
    /// `GNTST_permission_denied`
    pub const PERMISSION_DENIED: GrantStatus = GrantStatus(-8);
    /// `GNTST_bad_page`
    pub const BAD_PAGE: GrantStatus = GrantStatus(-9);
    /// `GNTST_bad_copy_arg`
    pub const BAD_COPY_ARG: GrantStatus = GrantStatus(-10);
    /// `GNTST_address_too_big`
    pub const ADDRESS_TOO_BIG: GrantStatus = GrantStatus(-11);
    /// `GNTST_eagain`: try again later.
    pub const EAGAIN: GrantStatus = GrantStatus(-12);
    /// `GNTST_no_space`: the table is full.
    pub const NO_SPACE: GrantStatus = GrantStatus(-13);

    /// Whether the operation was done.
    pub fn is_okay(self) -> bool {
        self == GrantStatus::OKAY
    }
}

impl core::fmt::Display for GrantStatus {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "grant status {}", self.0)
    }
}

impl core::error::Error for GrantStatus {}

/// A domain's own memory: pages to hand out, and the frames its grant table lies in.
///
/// An implementation is a cheap handle; clones stand for the same domain.
///
/// # Safety
///
/// The implementor promises
/// * of [`alloc_page`](Memory::alloc_page): the page is aligned and zeroed, nobody else reaches it,
///   its frame number is right, and all that stays so until [`free_page`](Memory::free_page);
/// * of frame numbers: until then, no other page that this program can reach has the number. A
///   kernel is one domain, and has that for nothing; a program that plays several numbers their
///   pages from different starts. So a frame that strays into another domain, into a grant or a
///   copy of its, is no page there, and the hypervisor refuses it;
/// * of [`grant_frame`](Memory::grant_frame): the words are the grant frame with that index, they
///   stay mapped as long as any clone of the handle lives, nobody in this domain reaches them by
///   another way, and no call returns them again. That is what makes a domain's
///   [`GrantTable`](crate::GrantTable) the only one.
pub unsafe trait Memory: Clone + Send + Sync + 'static {
    /// One page, or `None` when there is none left.
    fn alloc_page(&self) -> Option<(NonNull<Page>, Gfn)>;

    /// Takes a page back.
    ///
    /// # Safety
    ///
    /// Page and frame number came from one [`alloc_page`](Memory::alloc_page) of this domain,
    /// nothing points to the page any more, and no peer has access to it.
    unsafe fn free_page(&self, page: NonNull<Page>, gfn: Gfn);

    /// Maps frame `index` of the version 1 grant table, 512 entries each
    /// (`XENMAPSPACE_grant_table`). A [`GrantTable`](crate::GrantTable) asks for 0, 1, 2, ... in
    /// this order. A frame that has been given out is refused, whoever asks: only a second table
    /// does. The hypercall fails with an errno; any status that is not okay will do for both.
    fn grant_frame(&self, index: u32) -> Result<NonNull<Words>, GrantStatus>;

    /// The most grant frames that the hypervisor allows this domain (`GNTTABOP_query_size`).
    fn max_grant_frames(&self) -> u32;
}

/// One end of a grant copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyEnd {
    /// A page of our own domain.
    Own {
        /// Which page.
        gfn: Gfn,
        /// First byte within the page.
        offset: u16,
    },
    /// A page that `domain` has granted to us.
    Foreign {
        /// Who granted it.
        domain: DomId,
        /// The grant reference.
        gref: u32,
        /// First byte within the page.
        offset: u16,
    },
}

/// One operation of a batched grant copy (`gnttab_copy`, xen/grant_table.h). Neither end may
/// cross its page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyOp {
    /// Where the bytes come from.
    pub source: CopyEnd,
    /// Where they go.
    pub dest: CopyEnd,
    /// How many bytes.
    pub len: u16,
    /// Set by the hypervisor, for each operation on its own.
    pub status: GrantStatus,
}

/// A foreign page that is mapped into our address space.
#[derive(Debug)]
pub struct Mapping {
    /// The mapped page.
    pub words: NonNull<Words>,
    /// The hypervisor's name for the mapping (`grant_handle_t`), or whatever the platform needs.
    pub handle: u32,
}

/// A backend's reach into pages that others have granted to it.
///
/// # Safety
///
/// The implementor promises
/// * of [`map_grant`](ForeignMemory::map_grant): the words stay mapped until
///   [`unmap_grant`](ForeignMemory::unmap_grant), whatever the peer does;
/// * of [`grant_copy`](ForeignMemory::grant_copy): it touches no byte of our own domain but the
///   ranges named by the operations.
pub unsafe trait ForeignMemory: Memory {
    /// Maps a granted page for reading and writing (`GNTTABOP_map_grant_ref`). A grant of our own
    /// domain may be refused: mapping it would move the page away from its frame number.
    fn map_grant(&self, domain: DomId, gref: u32) -> Result<Mapping, GrantStatus>;

    /// Unmaps it (`GNTTABOP_unmap_grant_ref`). If the domain has been resumed elsewhere it is gone already, and
    /// the hypervisor does not know it: that is no error.
    ///
    /// # Safety
    ///
    /// The mapping came from [`map_grant`](ForeignMemory::map_grant) of this domain, and nothing
    /// points to its words any more.
    unsafe fn unmap_grant(&self, mapping: Mapping);

    /// Copies, all operations in one hypercall (`GNTTABOP_copy`); every operation gets its own
    /// status.
    ///
    /// # Safety
    ///
    /// For the time of the call, nobody else touches the bytes of ours that an operation writes,
    /// and nobody writes those that an operation reads.
    unsafe fn grant_copy(&self, ops: &mut [CopyOp]);
}
