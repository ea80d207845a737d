//! Suspend and resume: the domain is saved, copied or moved meanwhile.

use crate::hypercall::{self, Errno};
use crate::{clock, console, entropy, events, logger, memory, power, xenstore};

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

/// Sleeps until the toolstack has us go on.
pub fn suspend() -> Suspended {
    log::info!("suspending");
    let slept = hypercall::suspend();
    // In a new domain, what is shared with Xen is not there before we have woken up: nobody may
    // ask for the time until then, nor log.
    if slept == Ok(0)
        && let Err(errno) = wake_up()
    {
        logger::emergency(format_args!("cannot resume: {errno}\n"));
        power::crash();
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
