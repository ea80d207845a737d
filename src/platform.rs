//! What the driver asks of the machine below it.
//!
//! Pages and grants are [`xen_grant::Memory`] and [`xen_grant::ForeignMemory`], the unsafe half.
//! This is the safe half: event channels and a clock. A platform is a cheap handle with `&self`
//! methods, so several domains can live in one process (the simulated host does exactly that).

mod spurious;

use core::num::NonZeroU32;
use core::ops::{Add, Sub};
use core::time::Duration;

use packet_views::Wake;
use xen_grant::{DomId, ForeignMemory, Memory};

pub use spurious::Spurious;

/// Time since some fixed moment, in nanoseconds. It never goes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(pub u64);

impl Instant {
    /// The time from `earlier` to `self`; zero if `earlier` is the later one.
    pub fn since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;

    fn add(self, rhs: Duration) -> Instant {
        let nanos = u64::try_from(rhs.as_nanos()).unwrap_or(u64::MAX);
        Instant(self.0.saturating_add(nanos))
    }
}

impl Sub for Instant {
    type Output = Duration;

    fn sub(self, rhs: Instant) -> Duration {
        self.since(rhs)
    }
}

/// A port of an event channel of our own domain (`evtchn_port_t`, xen/event_channel.h). Port 0 is
/// never valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port(pub NonZeroU32);

impl Port {
    /// The port with this number; `None` for 0.
    pub fn new(number: u32) -> Option<Port> {
        NonZeroU32::new(number).map(Port)
    }

    /// The number, as it is written to xenstore.
    pub fn get(self) -> u32 {
        self.0.get()
    }
}

/// An event-channel operation that the hypervisor refused, with its errno (positive, xen/errno.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventError(pub i32);

impl core::fmt::Display for EventError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "the hypervisor refused an event-channel operation: errno {}", self.0)
    }
}

impl core::error::Error for EventError {}

/// Which rings a peer's events are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rings {
    /// Both of a queue.
    Both,
    /// Its transmit ring, which carries packets from the frontend to the backend.
    Transmit,
    /// Its receive ring.
    Receive,
}

/// What an event channel is for.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Channel {
    /// The domain at the other end.
    pub peer: DomId,
    /// The number of the vif: the frontend's own.
    pub vif: u32,
    /// The number of the queue, from 0.
    pub queue: u32,
    /// What the peer's events are about.
    pub rings: Rings,
    /// Who waits for them. It may be woken from an interrupt handler.
    pub wake: Wake,
}

/// A frontend's machine: memory and grants, event channels, a clock.
///
/// How an event reaches the driver is left to the platform: it polls, takes interrupts, or wakes
/// an async task, and then calls the device's `poll` and `rearm`.
///
/// The driver calls it from the task that drives the device, never in an interrupt and with no lock of
/// its own held. [`now`](Platform::now), [`notify`](Platform::notify) and
/// [`handled`](Platform::handled) are on the packet path: they should neither allocate nor block. The
/// others are called when a device connects or disconnects, and may.
pub trait Platform: Memory {
    /// The time now.
    fn now(&self) -> Instant;

    /// Allocates an event channel that `peer` may bind to (`EVTCHNOP_alloc_unbound`), unmasked.
    fn alloc_unbound(&self, peer: DomId) -> Result<Port, EventError>;

    /// A port has been opened, and this is what it is for. The peer has not been told of it yet. With
    /// each connection there are others; [`close`](Platform::close) ends what is said here.
    ///
    /// A platform whose tasks wait keeps `channel.wake` by the port and wakes it with each event on
    /// it. One that polls, or runs its driver after each interrupt, has nothing to do.
    fn opened(&self, port: Port, channel: Channel) {
        let _ = (port, channel);
    }

    /// Closes an event channel (`EVTCHNOP_close`). Closing a port that is not open does nothing.
    fn close(&self, port: Port);

    /// Sends an event to the other end (`EVTCHNOP_send`). An error (the peer is gone) is ignored:
    /// xenbus will tell.
    fn notify(&self, port: Port);

    /// The driver has seen to everything that events on `port` announced, and waits for the next
    /// one. `progress` is false if there was nothing since it last said so.
    ///
    /// A platform that takes interrupts unmasks the port only now, and later if the peer keeps
    /// sending events for nothing ([`Spurious`]). One that polls has nothing to do.
    fn handled(&self, port: Port, progress: bool) {
        let _ = (port, progress);
    }
}

/// A backend's machine: what a frontend needs, plus mapping and copying a client's grants.
pub trait BackendPlatform: Platform + ForeignMemory {
    /// Binds to a port that `peer` has allocated for us (`EVTCHNOP_bind_interdomain`), unmasked.
    fn bind_interdomain(&self, peer: DomId, remote: Port) -> Result<Port, EventError>;
}

/// The driver's clock as smoltcp's, which counts microseconds.
#[cfg(feature = "smoltcp")]
impl From<Instant> for smoltcp::time::Instant {
    fn from(at: Instant) -> smoltcp::time::Instant {
        smoltcp::time::Instant::from_micros(i64::try_from(at.0 / 1000).unwrap_or(i64::MAX))
    }
}

/// smoltcp's clock as the driver's. A time before its beginning is its beginning.
#[cfg(feature = "smoltcp")]
impl From<smoltcp::time::Instant> for Instant {
    fn from(at: smoltcp::time::Instant) -> Instant {
        Instant(u64::try_from(at.total_micros()).unwrap_or(0).saturating_mul(1000))
    }
}

#[cfg(all(test, feature = "smoltcp"))]
mod tests {
    use smoltcp::time;

    use super::Instant;

    #[test]
    fn smoltcps_clock_counts_microseconds() {
        assert_eq!(time::Instant::from(Instant(5_000_999)), time::Instant::from_micros(5000));
        assert_eq!(Instant::from(time::Instant::from_micros(5000)), Instant(5_000_000));
        assert_eq!(Instant::from(time::Instant::from_micros(-1)), Instant(0));
        assert_eq!(Instant::from(time::Instant::from_micros(i64::MAX)).0, u64::MAX);
    }
}
