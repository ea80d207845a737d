//! The machine as the driver sees it: the traits of `xen-grant` and `xen-netfront`, on real Xen.

use alloc::string::String;
use alloc::vec::Vec;
use core::ptr::NonNull;

use arrayvec::ArrayVec;
use xen_grant::{
    CopyEnd, CopyOp, DomId, ForeignMemory, Gfn, GrantStatus, Mapping, Memory, Page, Words,
};
use xen_netfront::platform::{BackendPlatform, Channel, EventError, Instant, Platform, Port};
use xen_store::{Changes, Store, StoreError, Transaction, Watch};

use crate::hypercall::abi::{
    self, DOMID_SELF, GnttabCopy, GnttabCopyPtr, GnttabMapGrantRef, GnttabQuerySize,
    GnttabSetVersion, GnttabUnmapGrantRef,
};
use crate::hypercall::{self, Errno};
use crate::shutdown::{self, Request};
use crate::suspend::Suspended;
use crate::{boot, clock, console, entropy, events, memory, power, xenstore};

/// The domain we are. There is one, and every copy of this handle stands for it.
#[derive(Clone, Copy, Debug)]
pub struct Xen(());

impl Xen {
    /// For the runtime, once everything is set up.
    pub(crate) fn new() -> Xen {
        Xen(())
    }

    /// Our own number, if Xen says it. It is another one after a restore.
    pub fn domain(self) -> Option<DomId> {
        hypercall::own_domain()
    }

    /// The kernel command line.
    pub fn command_line(self) -> &'static str {
        boot::command_line()
    }

    /// The value of a word `NAME=VALUE` of the command line; the first one counts.
    pub fn option(self, name: &str) -> Option<&'static str> {
        let mut words = self.command_line().split_ascii_whitespace();
        words.find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
    }

    /// Sleeps until an event channel fires or `until` has come; comes back at once if one has
    /// fired since the last call returned.
    ///
    /// The ports that end a call stay masked until the next one: do the work they stand for, then
    /// call again.
    pub fn wait(self, until: Option<Instant>) {
        events::wait(until);
    }

    /// Whether `port` was among those that ended the last [`wait`](Xen::wait), and the driver has
    /// not said yet that it has handled the event.
    pub fn port_fired(self, port: Port) -> bool {
        events::fired(port)
    }

    /// Takes what has been typed at the console (`xl console`), as much as fits, and does not wait
    /// for more; how many bytes that was. From the first call on, typing ends a
    /// [`wait`](Xen::wait).
    pub fn console_read(self, buffer: &mut [u8]) -> usize {
        console::read(buffer)
    }

    /// Memory that is neither used nor part of the heap, in bytes.
    pub fn free_memory(self) -> u64 {
        memory::free_bytes()
    }

    /// A number that others cannot guess, if the processor has RDRAND (the log says if not).
    pub fn random(self) -> u64 {
        let mut bytes = [0; 8];
        self.fill_random(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// Bytes that others cannot guess, as [`random`](Xen::random).
    pub fn fill_random(self, bytes: &mut [u8]) {
        entropy::fill(bytes);
    }

    /// What the toolstack asks for, once: `xl shutdown`, `xl reboot`, `xl save`, `xl migrate`. To
    /// be asked each time round the main loop, which [`wait`](Xen::wait) wakes for it.
    ///
    /// The first call tells the toolstack that this domain obeys. From then on it counts on us:
    /// hand each request to [`obey`](Xen::obey), at once or when all is in order.
    pub fn shutdown_request(self) -> Option<Request> {
        shutdown::request(self)
    }

    /// Does what the toolstack asks for. This returns only from [`Request::Suspend`], when the
    /// toolstack has saved, copied or moved the domain; if the outcome is [`Suspended::Resumed`],
    /// tell every device.
    ///
    /// Pages of other domains that are mapped are not in the domain that wakes up.
    pub fn obey(self, request: Request) -> Suspended {
        shutdown::obey(request)
    }

    /// Ends the domain in good order.
    pub fn power_off(self) -> ! {
        power::off()
    }
}

// SAFETY: pages come zeroed out of the map of free pages, which gives each to one taker; virtual
// addresses are physical ones. A grant frame is put into the window, to which nothing else points,
// once, and stays there.
unsafe impl Memory for Xen {
    fn alloc_page(&self) -> Option<(NonNull<Page>, Gfn)> {
        memory::take_page()
    }

    unsafe fn free_page(&self, page: NonNull<Page>, _gfn: Gfn) {
        // SAFETY: the caller's promise.
        unsafe { memory::give_page(page) };
    }

    fn grant_frame(&self, index: u32) -> Result<NonNull<Words>, GrantStatus> {
        if index == 0 {
            use_version_1()?;
        }
        memory::map_xen_page(abi::XENMAPSPACE_GRANT_TABLE, index.into())
            .inspect_err(|errno| log::error!("grant frame {index} cannot be mapped: {errno}"))
            .map_err(|_| GrantStatus::NO_SPACE)
    }

    fn max_grant_frames(&self) -> u32 {
        let query = GnttabQuerySize { dom: DOMID_SELF, nr_frames: 0, max_nr_frames: 0, status: 0 };
        let mut query = [query];
        // SAFETY: GNTTABOP_query_size takes a gnttab_query_size and fills it.
        let done = unsafe { hypercall::grant_table_op(abi::GNTTABOP_QUERY_SIZE, &mut query) };
        let [query] = query;
        if done.is_ok() && query.status == 0 { query.max_nr_frames } else { 0 }
    }
}

/// `GNTTABOP_set_version`: the entries of version 2 look different. Xen refuses if it is told to
/// forget entries in use, which is how a table of that version would tell.
fn use_version_1() -> Result<(), GrantStatus> {
    let mut wanted = [GnttabSetVersion { version: 1 }];
    // SAFETY: GNTTABOP_set_version takes a gnttab_set_version; no entries are in use but Xen's own.
    unsafe { hypercall::grant_table_op(abi::GNTTABOP_SET_VERSION, &mut wanted) }
}

// SAFETY: a mapped page lies in the window, in a place that is given back only after it has been
// unmapped, and Xen keeps the peer from taking it away. A copy touches what its operations say.
unsafe impl ForeignMemory for Xen {
    /// Refuses grants of our own: a page has only one place in a domain, so Xen would take it
    /// away from where it is.
    fn map_grant(&self, domain: DomId, gref: u32) -> Result<Mapping, GrantStatus> {
        if domain.0 == DOMID_SELF || Some(domain) == self.domain() {
            return Err(GrantStatus::BAD_DOMAIN);
        }
        let place = memory::take_place().ok_or(GrantStatus::NO_SPACE)?;
        let words = memory::place_words(place);
        let mut map = [GnttabMapGrantRef {
            host_addr: words.addr().get() as u64,
            flags: abi::GNTMAP_HOST_MAP,
            gref,
            dom: domain.0,
            status: GrantStatus::GENERAL_ERROR.0,
            handle: 0,
            dev_bus_addr: 0,
        }];
        // SAFETY: GNTTABOP_map_grant_ref takes a gnttab_map_grant_ref; the place is free.
        let done = unsafe { hypercall::grant_table_op(abi::GNTTABOP_MAP_GRANT_REF, &mut map) };
        let [map] = map;
        let status = done.map_or_else(|error| error, |()| GrantStatus(map.status));
        if status.is_okay() {
            return Ok(Mapping { words, handle: map.handle });
        }
        // SAFETY: just taken, and Xen has put nothing there.
        unsafe { memory::give_place(place) };
        Err(status)
    }

    unsafe fn unmap_grant(&self, mapping: Mapping) {
        let mut unmap = [GnttabUnmapGrantRef {
            host_addr: mapping.words.addr().get() as u64,
            dev_bus_addr: 0,
            handle: mapping.handle,
            status: GrantStatus::GENERAL_ERROR.0,
        }];
        // SAFETY: GNTTABOP_unmap_grant_ref takes a gnttab_unmap_grant_ref; nobody uses the page.
        let done = unsafe { hypercall::grant_table_op(abi::GNTTABOP_UNMAP_GRANT_REF, &mut unmap) };
        let [unmap] = unmap;
        let status = GrantStatus(unmap.status);
        // A handle of before a migration: nothing is mapped by it any more.
        if done.is_ok() && (status.is_okay() || status == GrantStatus::BAD_HANDLE) {
            // SAFETY: it came from `map_grant`, and Xen has taken the page away.
            unsafe { memory::give_place(memory::words_place(mapping.words)) };
        } else {
            log::error!("a foreign page cannot be unmapped: {status}");
        }
    }

    unsafe fn grant_copy(&self, ops: &mut [CopyOp]) {
        for batch in ops.chunks_mut(MAX_COPIES) {
            let mut copies: ArrayVec<GnttabCopy, MAX_COPIES> =
                batch.iter().map(to_gnttab_copy).collect();
            // SAFETY: GNTTABOP_copy takes gnttab_copys; the caller vouches for the bytes.
            let done = unsafe { hypercall::grant_table_op(abi::GNTTABOP_COPY, &mut copies) };
            for (op, copy) in batch.iter_mut().zip(&copies) {
                op.status = done.map_or_else(|error| error, |()| GrantStatus(copy.status));
            }
        }
    }
}

/// The most copies in one hypercall.
const MAX_COPIES: usize = 256;

fn to_gnttab_copy(op: &CopyOp) -> GnttabCopy {
    let end = |end: CopyEnd| match end {
        CopyEnd::Own { gfn, offset } => {
            GnttabCopyPtr { gref_or_gmfn: gfn.0, domid: DOMID_SELF, offset }
        }
        CopyEnd::Foreign { domain, gref, offset } => {
            GnttabCopyPtr { gref_or_gmfn: gref.into(), domid: domain.0, offset }
        }
    };
    let flag = |end, flag| if matches!(end, CopyEnd::Foreign { .. }) { flag } else { 0 };
    GnttabCopy {
        source: end(op.source),
        dest: end(op.dest),
        len: op.len,
        flags: flag(op.source, abi::GNTCOPY_SOURCE_GREF) | flag(op.dest, abi::GNTCOPY_DEST_GREF),
        status: GrantStatus::GENERAL_ERROR.0,
    }
}

impl Platform for Xen {
    fn now(&self) -> Instant {
        clock::now()
    }

    fn alloc_unbound(&self, peer: DomId) -> Result<Port, EventError> {
        events::alloc_unbound(peer).map_err(event_error)
    }

    /// Whoever waits is woken when [`Xen::wait`] finds the event: never in an interrupt.
    fn opened(&self, port: Port, channel: Channel) {
        events::wakes(port, channel.wake);
    }

    fn close(&self, port: Port) {
        events::close(port);
    }

    fn notify(&self, port: Port) {
        events::notify(port);
    }

    fn handled(&self, port: Port, progress: bool) {
        events::handled(port, progress);
    }
}

impl BackendPlatform for Xen {
    fn bind_interdomain(&self, peer: DomId, remote: Port) -> Result<Port, EventError> {
        events::bind_interdomain(peer, remote).map_err(event_error)
    }
}

fn event_error(errno: Errno) -> EventError {
    EventError(errno.0)
}

impl Store for Xen {
    fn read(&self, within: Option<Transaction>, path: &str) -> Result<Vec<u8>, StoreError> {
        xenstore::with(|client| client.read(within, path))
    }

    fn write(
        &self,
        within: Option<Transaction>,
        path: &str,
        value: &[u8],
    ) -> Result<(), StoreError> {
        xenstore::with(|client| client.write(within, path, value))
    }

    fn list(&self, within: Option<Transaction>, path: &str) -> Result<Vec<String>, StoreError> {
        xenstore::with(|client| client.list(within, path))
    }

    fn remove(&self, within: Option<Transaction>, path: &str) -> Result<(), StoreError> {
        xenstore::with(|client| client.remove(within, path))
    }

    fn begin(&self) -> Result<Transaction, StoreError> {
        xenstore::with(|client| client.begin())
    }

    fn commit(&self, transaction: Transaction) -> Result<(), StoreError> {
        xenstore::with(|client| client.commit(transaction))
    }

    fn abort(&self, transaction: Transaction) {
        let _ = xenstore::with(|client| {
            client.abort(transaction);
            Ok(())
        });
    }

    fn watch(&self, path: &str) -> Result<Watch, StoreError> {
        xenstore::with(|client| client.watch(path))
    }

    fn watch_below(&self, path: &str, depth: usize) -> Result<Watch, StoreError> {
        xenstore::with(|client| client.watch_below(path, depth))
    }

    fn watch_also(&self, watch: &Watch, path: &str, place: &str) -> Result<Watch, StoreError> {
        xenstore::with(|client| client.watch_also(watch, path, place))
    }

    fn unwatch(&self, watch: Watch) {
        let _ = xenstore::with(|client| {
            client.unwatch(watch);
            Ok(())
        });
    }

    fn fired(&self, watch: &Watch) -> bool {
        xenstore::with(|client| Ok(client.fired(watch))).unwrap_or(false)
    }

    fn changes(&self, watch: &Watch) -> Changes {
        xenstore::with(|client| Ok(client.changes(watch))).unwrap_or_default()
    }
}
