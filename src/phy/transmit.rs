//! The transmitting half of the adaptor.
//!
//! ```text
//!  token     buffers for a frame, room for it and for all that waits
//!    ▼
//!  consume   the stack fills ─► checksum left blank ─► Coalescer ─► permit     joined, it waits
//!                                                          │
//!  flush     at the end of a round ────────────────────────┴──────► permit ─► Netif::flush
//! ```

use core::iter;

use arrayvec::ArrayVec;
use smoltcp::phy;

use super::Stats;
use crate::buffer::{Checksum, Meta, Packet, TxBuf};
use crate::netif::{Capabilities, Linear, Netif, Permit};
use crate::offload::{Coalescer, leave_blank};
use crate::wire::MAX_SLOTS;

pub(super) struct Transmit<N: Netif> {
    netif: N,
    /// The largest frame.
    max: usize,
    /// Buffers that it needs.
    per_frame: usize,
    bufs: ArrayVec<TxBuf<N::Block>, MAX_SLOTS>,
    linear: Linear,
    /// Frames that others of their flow may join.
    coalescer: Coalescer<TxBuf<N::Block>>,
    /// What it has been told of the device.
    told: Capabilities,
    /// The device may have changed since.
    is_stale: bool,
    left_blank: u64,
    too_long: u64,
    lost: u64,
}

impl<N: Netif> Transmit<N> {
    pub(super) fn new(netif: N) -> Transmit<N> {
        let told = netif.capabilities();
        let block = told.block_size.max(1);
        let per_frame =
            netif.max_frame().div_ceil(block).clamp(1, told.max_fragments.clamp(1, MAX_SLOTS));
        let max = netif.max_frame().min(block.saturating_mul(per_frame));
        Transmit {
            netif,
            max,
            per_frame,
            bufs: ArrayVec::new(),
            linear: Linear::with_capacity(if per_frame > 1 { max } else { 0 }),
            coalescer: Coalescer::new(&told),
            told,
            is_stale: false,
            left_blank: 0,
            too_long: 0,
            lost: 0,
        }
    }

    /// A token, if the largest frame is sure to have memory and room, whatever it makes leave.
    #[inline]
    pub(super) fn token(&mut self) -> Option<TxToken<'_, N>> {
        if self.is_stale {
            self.look_anew();
        }
        while self.bufs.len() < self.per_frame {
            let buf = self.netif.alloc(0)?;
            self.bufs.try_push(buf).ok()?;
        }
        Some(TxToken {
            permit: self.netif.reserve(self.per_frame + self.coalescer.slots())?,
            max: self.max,
            bufs: &mut self.bufs,
            linear: &mut self.linear,
            coalescer: &mut self.coalescer,
            left_blank: &mut self.left_blank,
            too_long: &mut self.too_long,
        })
    }

    /// Sends what waits, and tells the peer.
    pub(super) fn flush(&mut self) {
        if self.is_stale {
            self.look_anew();
        }
        if self.coalescer.is_pending() {
            // There is room, unless somebody has sent past us; then it waits for the next time.
            if let Some(mut permit) = self.netif.reserve(self.coalescer.slots()) {
                self.coalescer.flush(|packet| permit.send(packet));
            }
        }
        self.netif.flush();
    }

    /// The device may have changed between two rounds.
    #[inline]
    pub(super) fn begin_round(&mut self) {
        self.is_stale = true;
    }

    /// Asks the device what it does now. If that is not what it did, what waits may be too much for
    /// a permit: [`Netif::send`] makes of it what the device takes.
    fn look_anew(&mut self) {
        self.is_stale = false;
        let can = self.netif.capabilities();
        if can == self.told {
            return;
        }
        self.told = can;
        self.coalescer.flush(|packet| {
            if self.netif.send(packet).is_err() {
                self.lost += 1;
            }
        });
        self.coalescer.adapt(&can);
    }

    pub(super) fn netif(&self) -> &N {
        &self.netif
    }

    pub(super) fn netif_mut(&mut self) -> &mut N {
        self.is_stale = true;
        &mut self.netif
    }

    /// The device, to receive from.
    #[inline]
    pub(super) fn below(&mut self) -> &mut N {
        &mut self.netif
    }

    /// The largest frame.
    pub(super) fn max(&self) -> usize {
        self.max
    }

    pub(super) fn count(&self, stats: &mut Stats) {
        stats.linearised_packets += self.linear.packets();
        stats.linearised_bytes += self.linear.bytes();
        stats.checksums_left += self.left_blank;
        stats.coalesced = self.coalescer.stats();
        stats.too_long += self.too_long;
        stats.lost += self.lost;
    }
}

/// Memory and room for one frame. Dropped unused, both serve the next.
pub struct TxToken<'a, N: Netif + 'a> {
    permit: N::Permit<'a>,
    max: usize,
    bufs: &'a mut ArrayVec<TxBuf<N::Block>, MAX_SLOTS>,
    linear: &'a mut Linear,
    coalescer: &'a mut Coalescer<TxBuf<N::Block>>,
    left_blank: &'a mut u64,
    too_long: &'a mut u64,
}

impl<N: Netif> phy::TxToken for TxToken<'_, N> {
    /// The closure gets zeroed bytes, so that what it leaves out is not some earlier packet's.
    #[inline]
    fn consume<R, F>(mut self, len: usize, f: F) -> R
    where
        F: FnOnce(&mut [u8]) -> R,
    {
        if len > self.max {
            *self.too_long += 1;
            return f(self.linear.blank(len));
        }
        if let Some(mut buf) = self.bufs.pop() {
            if let Some(bytes) = buf.append(len) {
                bytes.fill(0);
                let result = f(bytes);
                let meta = finish(bytes, self.left_blank);
                if self.coalescer.is_on() {
                    let permit = &mut self.permit;
                    self.coalescer.push_single(buf, meta, |packet| permit.send(packet));
                } else if meta == Meta::default() {
                    self.permit.send_single(buf);
                } else {
                    let mut packet = Packet::from(buf);
                    packet.meta = meta;
                    self.permit.send(packet);
                }
                return result;
            }
            self.bufs.push(buf);
        }
        let bytes = self.linear.blank(len);
        let result = f(bytes);
        let meta = finish(bytes, self.left_blank);
        if let Some(mut packet) = self.linear.scatter(len, iter::from_fn(|| self.bufs.pop())) {
            packet.meta = meta;
            let permit = &mut self.permit;
            self.coalescer.push(packet, |packet| permit.send(packet));
        }
        result
    }
}

/// What is known of a frame that the stack has filled.
#[inline]
fn finish(frame: &mut [u8], left_blank: &mut u64) -> Meta {
    let checksum = leave_blank(frame);
    *left_blank += u64::from(checksum == Checksum::Blank);
    Meta { checksum, gso: None }
}
