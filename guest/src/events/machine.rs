//! Event channels on the machine.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use packet_views::Wake;
use spin::{Mutex, Once};
use xen_grant::{DomId, Words};
use xen_netfront::platform::{Instant, Port};

use super::bits::Bits;
use super::patience::Channels;
use super::wakes::Wakes;
use crate::hypercall::{self, Errno, abi};
use crate::{clock, cpu, memory};

static BITS: Bits = Bits::new();
static PAGE: Once<&'static Words> = Once::new();
/// No lock is taken while this one is held but the heap's, and the upcall takes none at all.
static CHANNELS: Mutex<Channels> = Mutex::new(Channels::new());
/// Likewise.
static WAKES: Mutex<Wakes> = Mutex::new(Wakes::new());
/// Xenstore's port, 0 before there is one.
static STORE: AtomicU32 = AtomicU32::new(0);
/// The port of `VIRQ_TIMER`, 0 before there is one.
static TIMER: AtomicU32 = AtomicU32::new(0);
/// What the timer is set to, in Xen's system time; 0 if it is not set.
static TIMER_SET: AtomicU64 = AtomicU64::new(0);

/// Whether upcalls come through the vCPU's own APIC.
static BY_APIC: AtomicBool = AtomicBool::new(false);

/// The page shared with Xen, once it is mapped.
pub fn shared_info_page() -> Option<&'static Words> {
    PAGE.get().copied()
}

/// Maps the shared page, tells Xen our vector, binds the timer. Upcalls come through the vCPU's own
/// APIC if that is wanted and can be; [`by_apic`] says whether they do.
pub fn init(by_apic: bool) -> Result<(), Errno> {
    BY_APIC.store(by_apic, Ordering::Relaxed);
    let words = memory::map_xen_page(abi::XENMAPSPACE_SHARED_INFO, 0)?;
    // SAFETY: the page stays mapped, and its words are only reached as atomics.
    let page: &'static Words = unsafe { words.as_ref() };
    PAGE.call_once(|| page);
    start(page)
}

/// The domain has been resumed and the shared page is in its place again: no port of before is
/// open any more.
pub fn resume() -> Result<(), Errno> {
    let Some(page) = PAGE.get() else { return Ok(()) };
    BITS.forget();
    CHANNELS.lock().clear();
    WAKES.lock().clear();
    TIMER_SET.store(0, Ordering::Relaxed);
    start(page)
}

fn start(page: &Words) -> Result<(), Errno> {
    BITS.init(page);
    raise_vector()?;
    let timer = hypercall::evtchn_bind_virq(xen_sys::VIRQ_TIMER)?;
    BITS.open(page, timer);
    TIMER.store(timer, Ordering::Relaxed);
    Ok(())
}

/// Has event channels raise our vector, past the local APIC or at vCPU 0's own. Never both: what is
/// pending would come twice.
fn raise_vector() -> Result<(), Errno> {
    if by_apic() {
        let enabled = cpu::apic::enable();
        // SAFETY: the interrupt table has the upcall at this vector, and it tells the APIC.
        if enabled && unsafe { hypercall::set_vcpu_upcall_vector(0, cpu::UPCALL_VECTOR) }.is_ok() {
            return hypercall::set_callback_nowhere();
        }
        BY_APIC.store(false, Ordering::Relaxed);
    }
    // SAFETY: the interrupt table has the upcall at this vector.
    unsafe { hypercall::set_callback_vector(cpu::UPCALL_VECTOR) }
}

/// Whether upcalls come through the vCPU's own APIC.
pub fn by_apic() -> bool {
    BY_APIC.load(Ordering::Relaxed)
}

/// Runs on the vector that events raise.
pub fn upcall() {
    if let Some(page) = PAGE.get() {
        BITS.collect(page);
    }
    // What fires from here on is another interrupt.
    if by_apic() {
        cpu::apic::end_of_interrupt();
    }
}

/// A new channel of the kernel's, for `peer` to bind to.
pub fn alloc_unbound(peer: DomId) -> Result<Port, Errno> {
    opened_for_kernel(hypercall::evtchn_alloc_unbound(peer)?)
}

/// The other end of a channel that `peer` has allocated for us, for the kernel.
pub fn bind_interdomain(peer: DomId, remote: Port) -> Result<Port, Errno> {
    opened_for_kernel(hypercall::evtchn_bind_interdomain(peer, remote.get())?)
}

fn opened_for_kernel(port: u32) -> Result<Port, Errno> {
    CHANNELS.lock().open(port);
    opened(port)
}

/// Unmasks a channel that Xen has opened for us.
pub fn opened(port: u32) -> Result<Port, Errno> {
    const EINVAL: Errno = Errno(22);
    if let Some(page) = PAGE.get() {
        BITS.open(page, port);
    }
    Port::new(port).ok_or(EINVAL)
}

/// Closes a channel of the kernel's.
pub fn close(port: Port) {
    let Some(page) = PAGE.get() else { return };
    WAKES.lock().remove(port.get());
    if CHANNELS.lock().close(port.get()) {
        BITS.mask(page, port.get());
        // What can fail is that it was not open.
        let _ = hypercall::evtchn_close(port.get());
    }
}

/// Events on `port` wake `wake`, as soon as a [`wait`] finds them.
pub fn wakes(port: Port, wake: Wake) {
    WAKES.lock().insert(port.get(), wake);
}

/// `port` is xenstore's.
pub fn store_opened(port: Port) {
    STORE.store(port.get(), Ordering::Relaxed);
}

/// Fires a channel.
pub fn notify(port: Port) {
    let _ = hypercall::evtchn_send(port.get());
}

/// Whether `port` is among those that ended the last [`wait`] and has not been handled yet.
pub fn fired(port: Port) -> bool {
    BITS.is_served(port.get())
}

/// What events on `port` announced has been handled: it may fire again, at once or, if there was
/// never anything to do, a little later.
pub fn handled(port: Port, progress: bool) {
    let Some(page) = PAGE.get() else { return };
    let port = port.get();
    let fired = BITS.take_served(port);
    if CHANNELS.lock().handled(port, fired, progress, clock::now()) {
        BITS.unmask(page, port);
    }
}

/// Sleeps until an event channel fires or `until` has come; at once if one has fired since the
/// last call returned. The ports that ended the last call may fire again from now on.
pub fn wait(until: Option<Instant>) {
    let Some(page) = PAGE.get() else { return };
    BITS.finish(page);
    loop {
        BITS.collect(page);
        take_timer(page);
        let late = unmask_late(page);
        let remembered = BITS.is_remembered();
        let fired = BITS.serve();
        if fired {
            wake_tasks(remembered || BITS.is_served(STORE.load(Ordering::Relaxed)));
        }
        if fired || until.is_some_and(|until| clock::now() >= until) {
            return;
        }
        if let Some(next) = until.into_iter().chain(late).min() {
            set_timer(clock::to_system_time(next));
        }
        cpu::idle::sleep();
    }
}

/// Wakes who waits for a port that has fired; everybody if xenstore has news, for any device's state may
/// have changed. No lock is held while a task is woken: what it runs may close a port.
fn wake_tasks(everybody: bool) {
    let mut next = 0;
    loop {
        let woken = WAKES.lock().next(&mut next, |port| everybody || BITS.is_served(port));
        let Some(wake) = woken else { return };
        wake.wake();
    }
}

/// Unmasks the ports that have been masked long enough; when the next one's time will come.
fn unmask_late(page: &Words) -> Option<Instant> {
    let mut channels = CHANNELS.lock();
    if !channels.any_masked() {
        return None;
    }
    channels.due(clock::now(), |port| BITS.unmask(page, port))
}

/// Sets the timer, unless it fires by this time anyway. One that is left over from an earlier wait
/// ends no later one: whoever it wakes looks at the clock, sets it again and sleeps again. Most
/// waits end before their time, and the time of the next is later: so most need no hypercall.
fn set_timer(system_time: u64) {
    let set = TIMER_SET.load(Ordering::Relaxed);
    if set != 0 && set <= system_time {
        return;
    }
    match hypercall::set_singleshot_timer(system_time) {
        Ok(()) => TIMER_SET.store(system_time, Ordering::Relaxed),
        Err(errno) => log::error!("cannot set the timer: {errno}"),
    }
}

/// Sees to it that a timer that has fired can fire again.
fn take_timer(page: &Words) {
    let timer = TIMER.load(Ordering::Relaxed);
    if BITS.take(timer) {
        TIMER_SET.store(0, Ordering::Relaxed);
        BITS.unmask(page, timer);
    }
}

/// Sleeps until `port` fires or `until` has come, for somebody who waits for nothing else. Other
/// events are kept.
pub fn wait_for(port: Port, until: Instant) {
    let Some(page) = PAGE.get() else { return };
    BITS.unmask(page, port.get());
    loop {
        BITS.collect(page);
        take_timer(page);
        if BITS.take(port.get()) {
            BITS.unmask(page, port.get());
            return;
        }
        if clock::now() >= until {
            return;
        }
        set_timer(clock::to_system_time(until));
        cpu::idle::sleep();
    }
}

/// Has the next [`wait`] end at once: an event has been taken, and what it stands for has not all
/// been seen to.
pub fn remember() {
    BITS.remember();
}
