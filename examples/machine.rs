//! The smallest machine, and a xenstore in memory: all that a frontend needs to be there, to be copied
//! by who brings it to a kernel. What is played here is said at each place; `guest/` has the real ones.
//!
//! A toolstack makes a vif, the backend, played by hand, says that it is there, and the frontend
//! publishes its rings and sends a packet.
//!
//! ```sh
//! cargo run --example machine
//! ```

use std::error::Error;
use std::ptr::NonNull;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time;

use xen_grant::{DomId, FramePool, Gfn, GrantStatus, GrantTable, Memory, Page, Words};
use xen_netfront::netfront::{Config, Netfront};
use xen_netfront::packet::device::{Link, NetDevice};
use xen_netfront::platform::{EventError, Instant, Platform, Port};
use xen_netfront::store::Store;
use xen_netfront::store::memory::{Access, MemoryStore, Perms};

/// The machine: there is one, so a handle to it is nothing.
#[derive(Clone, Copy)]
struct Machine;

/// The last page's frame number. A kernel has a page's number from its address.
static PAGES: AtomicU64 = AtomicU64::new(0);
/// Grant frames that are mapped.
static GRANT_FRAMES: AtomicU32 = AtomicU32::new(0);
/// The last port.
static PORTS: AtomicU32 = AtomicU32::new(0);
/// Events sent to the backend.
static EVENTS: AtomicU32 = AtomicU32::new(0);
static START: LazyLock<time::Instant> = LazyLock::new(time::Instant::now);

fn new_page() -> NonNull<Page> {
    NonNull::from(Box::leak(Box::new(Page([0; 4096]))))
}

// SAFETY: a page is a zeroed box that nobody else has until it is freed, with a number of its own. A
// grant frame is one too, never freed, and returned once.
unsafe impl Memory for Machine {
    fn alloc_page(&self) -> Option<(NonNull<Page>, Gfn)> {
        Some((new_page(), Gfn(PAGES.fetch_add(1, Ordering::Relaxed) + 1)))
    }

    unsafe fn free_page(&self, page: NonNull<Page>, _gfn: Gfn) {
        // SAFETY: it was leaked by `alloc_page`, and the caller says that nobody has it.
        drop(unsafe { Box::from_raw(page.as_ptr()) });
    }

    /// A kernel maps the hypervisor's frame here (`XENMEM_add_to_physmap`).
    fn grant_frame(&self, index: u32) -> Result<NonNull<Words>, GrantStatus> {
        GRANT_FRAMES
            .compare_exchange(index, index + 1, Ordering::Relaxed, Ordering::Relaxed)
            .map_err(|_| GrantStatus::GENERAL_ERROR)?; // a second table asks for it
        Ok(new_page().cast())
    }

    fn max_grant_frames(&self) -> u32 {
        4
    }
}

/// Event channels and a clock: hypercalls, in a kernel.
impl Platform for Machine {
    fn now(&self) -> Instant {
        Instant(START.elapsed().as_nanos() as u64)
    }

    fn alloc_unbound(&self, _peer: DomId) -> Result<Port, EventError> {
        Port::new(PORTS.fetch_add(1, Ordering::Relaxed) + 1).ok_or(EventError(28))
    }

    fn close(&self, _port: Port) {}

    fn notify(&self, _port: Port) {
        EVENTS.fetch_add(1, Ordering::Relaxed);
    }
}

const GUEST: u16 = 1;
const FRONT: &str = "/local/domain/1/device/vif/0";
const BACK: &str = "/local/domain/0/backend/vif/1/0";

fn main() -> Result<(), Box<dyn Error>> {
    // The toolstack, in domain 0, makes both ends' directories.
    let dom0 = MemoryStore::new(0);
    let guest = dom0.as_domain(GUEST);
    for (dir, keys) in [
        (
            FRONT,
            [("backend", BACK), ("backend-id", "0"), ("mac", "00:16:3e:00:00:01"), ("state", "1")],
        ),
        (BACK, [("frontend", FRONT), ("frontend-id", "1"), ("online", "1"), ("state", "2")]),
    ] {
        dom0.write(None, dir, b"")?;
        let owner = if dir == FRONT { GUEST } else { 0 };
        dom0.set_perms(dir, Perms::of(owner).with(GUEST - owner, Access::READ))?;
        for (key, value) in keys {
            dom0.write(None, &format!("{dir}/{key}"), value.as_bytes())?;
        }
    }

    let config = Config::default();
    let pool = FramePool::new(&Machine, config.least_pages())?;
    let table = GrantTable::new(&Machine);
    let mut net = Netfront::open(Machine, guest, &pool, &table, 0, config)?;
    let mut rounds = 0;
    while net.service() != Link::Up && rounds < 10 {
        rounds += 1;
        // The backend: once the frontend has published its rings, it maps them, and is connected.
        if dom0.read(None, &format!("{FRONT}/state"))? == b"4" {
            dom0.write(None, &format!("{BACK}/state"), b"4")?;
        }
    }
    for key in ["tx-ring-ref", "rx-ring-ref", "event-channel"] {
        let value = dom0.read(None, &format!("{FRONT}/{key}"))?;
        println!("{key} = {}", String::from_utf8_lossy(&value));
    }
    net.write(60, |frame| {
        frame[..6].fill(0xff);
        frame.len()
    })?;
    net.flush();
    let (sent, events) = (net.counters().tx_packets, EVENTS.load(Ordering::Relaxed));
    println!("the link is {:?} after {rounds} rounds; {sent} packet, {events} event", net.link());
    assert_eq!(
        (net.link(), sent, net.backend().mac),
        (Link::Up, 1, Some([0, 0x16, 0x3e, 0, 0, 1]))
    );
    assert!(events >= 1);
    Ok(())
}
