//! Who waits for a device, told by whoever sees its events.

use alloc::sync::Arc;
use core::fmt;
use core::task::Waker;

use atomic_waker::AtomicWaker;

/// A task that waits, and may be woken from anywhere: an interrupt handler too, for there is no lock and
/// no allocation in it. Clones are the same one.
#[derive(Clone, Default)]
pub struct Wake(Arc<AtomicWaker>);

impl Wake {
    /// Nobody waits yet. Allocates.
    pub fn new() -> Wake {
        Wake::default()
    }

    /// This task waits from now on, in the place of any other.
    ///
    /// Whoever waits registers first and looks for something to do then; else what happens in between
    /// is missed.
    pub fn register(&self, waker: &Waker) {
        self.0.register(waker);
    }

    /// Wakes the task that waits, if one does.
    pub fn wake(&self) {
        self.0.wake();
    }
}

impl fmt::Debug for Wake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wake")
    }
}
