//! The device as embassy-net's driver.
//!
//! ```text
//!   embassy-net's task     receive ─► transmit ─► link_state        in each round
//!                             │           │            │
//!   here                      │           │            └─► NetDevice::service, due again at ...
//!                             └─ none ────┴─ no room ────► NetDevice::poll_ready
//!                                                               │
//!   the device's Wake  ◄────────────────────────────────────────┘   wakes the task
//! ```

use core::task::Context;
use core::time::Duration;

use embassy_net_driver::{self as driver, Capabilities, Checksum, HardwareAddress, LinkState};
use embassy_time_driver::{TICK_HZ, now, schedule_wake};
use smoltcp::phy::TxToken as _;
use smoltcp::time::Instant;

use super::transmit::Transmit;
use super::{Device, RxToken};
use crate::device::{Link, NetDevice};

impl<N: NetDevice> Device<N> {
    /// Has the task woken when there is something to do: at once if there is already.
    fn wait(&mut self, context: &mut Context<'_>) {
        self.rx.before_waiting(&mut self.tx);
        if self.tx.below().poll_ready(context).is_ready() {
            context.waker().wake_by_ref();
        }
    }
}

impl<N: NetDevice> driver::Driver for Device<N> {
    type RxToken<'a>
        = RxToken<'a, N>
    where
        Self: 'a;
    type TxToken<'a>
        = FlushingTxToken<'a, N>
    where
        Self: 'a;

    fn receive(
        &mut self,
        context: &mut Context<'_>,
    ) -> Option<(RxToken<'_, N>, FlushingTxToken<'_, N>)> {
        if !self.rx.fetch(&mut self.tx, &self.own, clock()) {
            self.wait(context);
            return None;
        }
        if let Err(want) = self.tx.token().map(drop) {
            self.rx.hold(want);
            self.wait(context);
            return None;
        }
        Some((self.rx.token(), FlushingTxToken { tx: &mut self.tx }))
    }

    fn transmit(&mut self, context: &mut Context<'_>) -> Option<FlushingTxToken<'_, N>> {
        if self.tx.token().is_err() {
            self.wait(context);
            return None;
        }
        Some(FlushingTxToken { tx: &mut self.tx })
    }

    /// The stack asks in each round, so this is where the device is seen to.
    fn link_state(&mut self, context: &mut Context<'_>) -> LinkState {
        let before = self.inner().link();
        if let Some(within) = self.inner_mut().service() {
            schedule_wake(now().saturating_add(ticks(within)), context.waker());
        }
        let link = self.inner().link();
        if link != before {
            // What the stack could not send before, it can now.
            context.waker().wake_by_ref();
        }
        if link == Link::Up { LinkState::Up } else { LinkState::Down }
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::default();
        capabilities.max_transmission_unit = self.tx.last_shape().max;
        // Verified and left blank here.
        capabilities.checksum.tcp = Checksum::None;
        capabilities.checksum.udp = Checksum::None;
        capabilities
    }

    fn hardware_address(&self) -> HardwareAddress {
        // Of a device that does not know its address yet, nothing is sent.
        HardwareAddress::Ethernet(self.inner().mac().unwrap_or_default().0)
    }
}

impl<N: NetDevice> driver::RxToken for RxToken<'_, N> {
    fn consume<R, F>(self, f: F) -> R
    where
        F: FnOnce(&mut [u8]) -> R,
    {
        self.consume_mut(f)
    }
}

/// Room for one frame, which is shown to the device's peer as soon as it is filled.
pub struct FlushingTxToken<'a, N: NetDevice> {
    tx: &'a mut Transmit<N>,
}

impl<N: NetDevice> driver::TxToken for FlushingTxToken<'_, N> {
    fn consume<R, F>(self, len: usize, f: F) -> R
    where
        F: FnOnce(&mut [u8]) -> R,
    {
        let result = if let Ok(token) = self.tx.token() {
            token.consume(len, f)
        } else {
            // Only if the device changes its mind: there was one when this was made.
            self.tx.lose(len, f)
        };
        self.tx.flush();
        result
    }
}

impl<N: NetDevice> core::fmt::Debug for FlushingTxToken<'_, N> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "FlushingTxToken({} bytes at most)", self.tx.last_shape().max)
    }
}

/// embassy's clock as smoltcp's.
#[inline] // a program without a stack of embassy's has no clock of its own to link
fn clock() -> Instant {
    let micros = u128::from(now()) * 1_000_000 / u128::from(TICK_HZ);
    Instant::from_micros(i64::try_from(micros).unwrap_or(i64::MAX))
}

/// A time in ticks of embassy's clock, no shorter.
#[inline]
fn ticks(time: Duration) -> u64 {
    let ticks = (time.as_nanos().saturating_mul(u128::from(TICK_HZ))).div_ceil(1_000_000_000);
    u64::try_from(ticks).unwrap_or(u64::MAX)
}
