//! The backend's domain: netback, and the machine's network behind it. Packets cross with what is
//! known of them: checksum state and GSO size.
//!
//! ```text
//!   client ═══ Netback ── this ── TAP device ── Linux
//!                          ▲
//!                  waits ──┘ a thread that wakes the domain when the device has something
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use tun_rs::{InterruptEvent, SyncDevice};
use xen_sim::{Ctx, Domain, Next, Task};

use super::Flags;
use super::device::{Read, Tap};
use crate::alloc::{Charge, Owner};
use crate::client::wait;
use xen_sim::served::{Back, QUEUE};

/// Packets each way before the other way gets its turn.
const BATCH: usize = 64;

/// Set, it wakes a domain as soon as the device has something to read.
pub struct Alarm {
    set: Arc<AtomicBool>,
    /// Gone when there is nothing more to wait for.
    orders: Option<SyncSender<()>>,
}

/// What waits for the device when the alarm is set: for a thread of its own.
pub struct Waiter {
    set: Arc<AtomicBool>,
    orders: Receiver<()>,
    device: Arc<SyncDevice>,
    domain: Domain,
}

impl Alarm {
    /// An alarm that wakes `domain`, and what has to run for it.
    pub fn new(device: Arc<SyncDevice>, domain: &Domain) -> (Alarm, Waiter) {
        let set = Arc::<AtomicBool>::default();
        let (send, orders) = sync_channel(1);
        let waiter = Waiter { set: set.clone(), orders, device, domain: domain.clone() };
        (Alarm { set, orders: Some(send) }, waiter)
    }

    fn is_set(&self) -> bool {
        self.set.load(Ordering::Acquire)
    }

    fn set(&self) {
        self.set.store(true, Ordering::Release);
        if let Some(orders) = &self.orders {
            // There is room for one, and never more than one; at the end nobody takes it.
            let _ = orders.try_send(());
        }
    }
}

impl Waiter {
    /// Runs until the alarm has been hung up. `end` has it look: it may be waiting for the device.
    pub fn run(self, end: &InterruptEvent) {
        while self.orders.recv().is_ok() {
            // Whatever is wrong with the device, who reads it next is told.
            let _ = self.device.wait_readable_intr(end);
            self.set.store(false, Ordering::Release);
            self.domain.wake();
            if end.is_trigger() {
                break;
            }
        }
    }
}

/// The uplink of a vif.
pub struct Uplink {
    vif: Back,
    tap: Tap,
    alarm: Alarm,
    flags: Arc<Flags>,
}

impl Uplink {
    /// Between a vif and a device; `alarm` tells when the device has something.
    pub fn new(vif: Back, tap: Tap, alarm: Alarm, flags: Arc<Flags>) -> Uplink {
        Uplink { vif, tap, alarm, flags }
    }

    /// The vif.
    pub fn vif(&self) -> &Back {
        &self.vif
    }

    /// The device.
    pub fn tap(&self) -> &Tap {
        &self.tap
    }

    /// Nobody waits for the device any more. Without a client nobody sets the alarm, so who waits
    /// for that has to be told too.
    pub fn hang_up(&mut self) {
        self.alarm.orders = None;
    }

    /// Moves what Linux has sent into the client's queue. True if there may be more.
    fn take_from_linux(&mut self) -> bool {
        if self.alarm.is_set() || self.tap.error().is_some() {
            return false;
        }
        for _ in 0..BATCH {
            if self.vif.queued() >= QUEUE {
                self.vif.flush();
                if self.vif.queued() >= QUEUE {
                    // The client's event, when it has posted pages, comes first.
                    return false;
                }
            }
            let vif = &mut self.vif;
            // Refused means dropped, and counted there.
            let read = self.tap.read(|packet| _ = vif.deliver(packet));
            match read {
                Read::Packet => {}
                Read::Empty => {
                    self.alarm.set();
                    return false;
                }
                // Frames come home with the client's progress.
                Read::NoFrame => return false,
                Read::Broken => return false,
            }
        }
        true
    }
}

impl Task for Uplink {
    fn run(&mut self, _: &mut Ctx<'_>) -> Next {
        let _ours = Charge::to(Owner::Back);
        self.vif.service();
        let tap = &mut self.tap;
        self.vif.poll(BATCH, |packet| tap.write(&packet));
        // Without a client it stays with Linux, whose queue is bounded.
        let more = self.vif.is_connected() && self.take_from_linux();
        if self.tap.error().is_some() {
            self.flags.broken.store(true, Ordering::Release);
        }
        if self.vif.rearm() || more { Next::Now } else { wait(self.vif.next_deadline()) }
    }
}
