//! The end of the domain, and its sleep.

use core::fmt::Display;
use core::sync::atomic::{AtomicBool, Ordering};

use spin::Mutex;
use x86_64::instructions::{hlt, interrupts};
use xen_netfront::store::{Store, StoreError, Watch};

use crate::hypercall::{self, Errno};
use crate::shutdown::{self, Request};
use crate::{Xen, clock, console, entropy, events, logger, memory, xenstore};

/// How a suspend ended ([`Xen::obey`](crate::Xen::obey)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Suspended {
    /// In a new domain, maybe on another machine. The runtime is as it was: clock, console,
    /// xenstore, its watches, the grant table. No event channel of before is open, no grant of
    /// before holds: tell every device (`Netfront::resumed`).
    Resumed,
    /// In the domain that was suspended, which was only copied (`xl save -c`), or Xen refused.
    /// Everything is as it was.
    Cancelled,
}

/// What a kernel's main may return.
pub trait Outcome {
    /// Comes back if all is well; what is not well is the end of the domain.
    fn finish(self);
}

impl Outcome for () {
    fn finish(self) {}
}

impl<E: Display> Outcome for Result<(), E> {
    fn finish(self) {
        if let Err(error) = self {
            log::error!("main has failed: {error}");
            crash();
        }
    }
}

/// The watch on the toolstack's requests, once somebody obeys them.
static WATCH: Mutex<Option<Watch>> = Mutex::new(None);
/// This domain's xenstore does not say yet what we obey.
static UNANNOUNCED: AtomicBool = AtomicBool::new(true);
/// The last look for a request failed; the watch won't fire again for it.
static LOOK_AGAIN: AtomicBool = AtomicBool::new(false);

/// A request of the toolstack's that is new.
pub fn request(xen: Xen) -> Option<Request> {
    look(xen).unwrap_or_else(|error| {
        if !LOOK_AGAIN.swap(true, Ordering::Relaxed) {
            log::warn!("{}: {error}", shutdown::NODE);
        }
        None
    })
}

fn look(xen: Xen) -> Result<Option<Request>, StoreError> {
    let mut watch = WATCH.lock();
    let watch = match &mut *watch {
        Some(watch) => watch,
        none => none.insert(xen.watch(shutdown::NODE)?),
    };
    if UNANNOUNCED.load(Ordering::Relaxed) {
        shutdown::announce(&xen)?;
        UNANNOUNCED.store(false, Ordering::Relaxed);
    }
    if !xen.fired(watch) && !LOOK_AGAIN.load(Ordering::Relaxed) {
        return Ok(None);
    }
    let request = shutdown::take(&xen)?;
    LOOK_AGAIN.store(false, Ordering::Relaxed);
    Ok(request)
}

/// Does what the toolstack asks for; only a suspend comes back.
pub fn obey(request: Request) -> Suspended {
    let reason = match request {
        Request::Suspend => return suspend(),
        Request::Reboot => xen_sys::SHUTDOWN_reboot,
        Request::PowerOff | Request::Halt => xen_sys::SHUTDOWN_poweroff,
    };
    log::info!("stopping: {request:?}");
    stop(reason)
}

/// Sleeps until the toolstack has us go on.
fn suspend() -> Suspended {
    log::info!("suspending");
    let slept = hypercall::suspend();
    // In a new domain, what is shared with Xen is not there before we have woken up: nobody may
    // ask for the time until then, nor log.
    if slept == Ok(0)
        && let Err(errno) = wake_up()
    {
        logger::emergency(format_args!("cannot resume: {errno}\n"));
        crash();
    }
    // There may be two of us now, or one who was here before.
    entropy::stir();
    match slept {
        Ok(0) => {}
        Ok(_) => {
            log::info!("suspend was cancelled");
            return Suspended::Cancelled;
        }
        Err(errno) => {
            log::error!("suspend failed: {errno}");
            return Suspended::Cancelled;
        }
    }
    UNANNOUNCED.store(true, Ordering::Relaxed);
    log::info!("resumed in domain {:?}", hypercall::own_domain());
    Suspended::Resumed
}

/// Takes hold of the new domain. Nothing of the old one's is left but memory: the frames of the
/// grant table are empty, and so are Xen's notes on vector and ports.
fn wake_up() -> Result<(), Errno> {
    memory::remap_xen_pages()?;
    clock::start()?;
    events::resume()?;
    console::init()?;
    xenstore::init()
}

/// Stops the domain in good order (`SHUTDOWN_poweroff`, xen/sched.h).
pub fn off() -> ! {
    stop(xen_sys::SHUTDOWN_poweroff)
}

/// Stops the domain as crashed (`SHUTDOWN_crash`, xen/sched.h).
pub fn crash() -> ! {
    stop(xen_sys::SHUTDOWN_crash)
}

fn stop(reason: u32) -> ! {
    interrupts::disable();
    hypercall::shutdown(reason);
    loop {
        hlt();
    }
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    static PANICKED: AtomicBool = AtomicBool::new(false);
    if PANICKED.swap(true, Ordering::Relaxed) {
        logger::last_words("panic while handling a panic\n");
    } else {
        logger::emergency(format_args!("{info}\n"));
    }
    crash()
}
