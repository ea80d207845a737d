//! What a domain asked of the hypervisor, counted.

use core::ops::Sub;
use std::sync::atomic::{AtomicU64, Ordering};

/// A counter that several threads may raise.
#[derive(Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// A domain's counters at one moment. Subtract two for what happened between.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Counts {
            $($(#[$doc])* pub $name: u64,)*
        }

        #[derive(Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: Counter,)*
        }

        impl Counters {
            pub(crate) fn get(&self) -> Counts {
                Counts { $($name: self.$name.get(),)* }
            }
        }

        impl Sub for Counts {
            type Output = Counts;

            fn sub(self, earlier: Counts) -> Counts {
                Counts { $($name: self.$name.wrapping_sub(earlier.$name),)* }
            }
        }
    };
}

counters! {
    /// Grants mapped (attempts, one hypercall each).
    maps,
    /// Mappings ended (one hypercall each).
    unmaps,
    /// Copy operations, each with a status of its own.
    copies,
    /// Copy operations that failed.
    copy_errors,
    /// Copy hypercalls, each a batch.
    copy_calls,
    /// Bytes copied.
    copy_bytes,
    /// Event-channel sends.
    notifies,
    /// Event-channel sends on a port that is not open.
    bad_notifies,
    /// All other hypercalls: event-channel set-up and grant frames.
    other_calls,
    /// Xenstore requests.
    store_calls,
    /// Events that became pending here.
    events,
    /// Upcalls: times that pending ports were taken, with at least one there.
    upcalls,
}

impl Counts {
    /// All hypercalls but event-channel sends.
    pub fn hypercalls(&self) -> u64 {
        self.maps + self.unmaps + self.copy_calls + self.other_calls
    }
}
