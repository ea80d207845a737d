//! The stack's interface, and how it follows the device.
//!
//! A smoltcp interface asks its device once, when it is made, what it can do: the MTU that sizes its
//! segments and fragments above all. A vif comes back from a migration, or from a toolstack's hands,
//! with another MTU, another address, other offloads. So the interface is made anew then; sockets and
//! what the owner has configured stay.

use smoltcp::iface::{Config, Interface};
use smoltcp::time::Instant;
use smoltcp::wire::EthernetAddress;

use super::Device;
use crate::device::{Changes, NetDevice};

impl<N: NetDevice> Device<N> {
    /// An interface for this device, without IP addresses. `seed` begins its random numbers: chance, and
    /// another one each time, or ports and sequence numbers can be guessed.
    pub fn interface(&mut self, seed: u64, now: impl Into<Instant>) -> Interface {
        // Of a device that does not know its address yet, nothing is sent.
        let mac = EthernetAddress(self.inner().mac().unwrap_or_default().0);
        let mut config = Config::new(mac.into());
        config.random_seed = seed;
        self.shown = self.tx.shape();
        Interface::new(config, self, now.into())
    }

    /// Has the interface follow what has changed below, and says what that is: call it in each round,
    /// after the device has been seen to. It costs next to nothing while nothing has changed.
    ///
    /// Where MTU, address or offloads are others than the interface knows, it is made anew, with the
    /// `seed` for [`interface`](Device::interface). Its IP addresses and routes stay, and so does every
    /// socket. What it has learnt of neighbours, and what is left to send of a datagram in fragments,
    /// are forgotten; multicast groups have to be joined again. Addresses that are made of the hardware
    /// address (link-local ones) are the caller's to change.
    pub fn follow(
        &mut self,
        iface: &mut Interface,
        seed: impl FnOnce() -> u64,
        now: impl Into<Instant>,
    ) -> Changes {
        let changes = self.tx.below().take_changes();
        if changes != Changes::NONE {
            self.tx.begin_round();
            self.rx.forget_answer();
            let mac = EthernetAddress(self.inner().mac().unwrap_or_default().0);
            if self.tx.shape() != self.shown || iface.hardware_addr() != mac.into() {
                let made = self.interface(seed(), now);
                let mut old = core::mem::replace(iface, made);
                iface.update_ip_addrs(|to| old.update_ip_addrs(|from| core::mem::swap(from, to)));
                let from = old.routes_mut();
                iface.routes_mut().update(|to| from.update(|from| core::mem::swap(from, to)));
                iface.set_any_ip(old.any_ip());
            }
        }
        changes
    }
}
