//! The transmitting half of the adaptor.
//!
//! ```text
//!  token     buffers for a frame, room for it and for all that waits
//!    ▼
//!  consume   the stack fills ─► checksum left blank ─► Coalescer ─► permit     joined, it waits
//!                                                          │
//!  flush     at the end of a round ────────────────────────┴──────► permit ─► NetDevice::flush
//! ```
//!
//! A large piece that the device takes no more goes another way: `uncut`, then [`NetDevice::send`],
//! before there is another token.

use core::iter;
use core::num::{NonZeroU16, NonZeroUsize};

use arrayvec::ArrayVec;
use smoltcp::phy::{self, PacketMeta};

use super::Counters;
use super::linear::Linear;
use crate::buffer::{AnyPacket, BufMut, Checksum, Meta, PacketMut};
use crate::buffer::{Gso, GsoKind, MAX_FRAGMENTS, MAX_PACKET};
use crate::device::{NetDevice, Permit, SendError};
use crate::features::Capabilities;
use crate::offload::{Coalescer, leave_blank};

/// As many bytes as a TCP packet's headers have at most, and more: Ethernet, IPv4, TCP with options.
const HEADERS: usize = 128;

/// Why the stack can send nothing now.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Want {
    /// The device has no room: it will have when its peer has made progress.
    Room,
    /// There is no memory: somebody has to let go of some.
    Memory,
}

/// What the stack may fill.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    /// The largest frame.
    pub(super) max: usize,
    /// Buffers that it needs.
    per_frame: usize,
    /// The largest packet of TCP over IPv4 that the stack leaves to be cut: one block.
    pub(super) large: Option<NonZeroUsize>,
}

impl Shape {
    fn new(device: &Capabilities, max_frame: usize) -> Shape {
        let block = device.block_size.max(1);
        let most = device.max_fragments.clamp(1, MAX_FRAGMENTS);
        let per_frame = max_frame.div_ceil(block).clamp(1, most);
        let max = max_frame.min(block.saturating_mul(per_frame));
        let large = NonZeroUsize::new(block.min(MAX_PACKET))
            .filter(|size| size.get() > max && takes_large(device));
        Shape { max, per_frame, large }
    }
}

pub(super) struct Transmit<N: NetDevice> {
    net: N,
    shape: Shape,
    /// Such a packet, while the device takes none: it is cut before anything else is sent.
    uncut: Option<PacketMut<N::Block>>,
    bufs: ArrayVec<BufMut<N::Block>, MAX_FRAGMENTS>,
    linear: Linear,
    /// Frames that others of their flow may join.
    coalescer: Coalescer<BufMut<N::Block>>,
    /// What it has been told of the device.
    told: Capabilities,
    /// The device may have changed since.
    is_stale: bool,
    left_blank: u64,
    too_long: u64,
    lost: u64,
}

impl<N: NetDevice> Transmit<N> {
    pub(super) fn new(net: N) -> Transmit<N> {
        let told = net.capabilities();
        let shape = Shape::new(&told, net.max_frame());
        Transmit {
            net,
            shape,
            uncut: None,
            bufs: ArrayVec::new(),
            linear: Linear::with_capacity(if shape.per_frame > 1 { shape.max } else { 0 }),
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
    pub(super) fn token(&mut self) -> Result<TxToken<'_, N>, Want> {
        if self.is_stale {
            self.look_anew();
        }
        self.cut().ok_or(Want::Room)?;
        while self.bufs.len() < self.shape.per_frame {
            let buf = self.net.alloc(0).ok_or(Want::Memory)?;
            self.bufs.try_push(buf).map_err(|_| Want::Memory)?;
        }
        // A large packet takes one more, for its GSO size.
        let gso = usize::from(self.shape.large.is_some());
        let slots = self.shape.per_frame + gso + self.coalescer.slots();
        Ok(TxToken {
            permit: self.net.reserve(slots).ok_or(Want::Room)?,
            gso: None,
            told: &self.told,
            max: self.shape.max,
            bufs: &mut self.bufs,
            linear: &mut self.linear,
            coalescer: &mut self.coalescer,
            uncut: &mut self.uncut,
            left_blank: &mut self.left_blank,
            too_long: &mut self.too_long,
            lost: &mut self.lost,
        })
    }

    /// Sends what is to be cut; `None` if there is no room for it.
    #[inline]
    fn cut(&mut self) -> Option<()> {
        if let Some(packet) = self.uncut.take()
            && let Err(SendError::Full(packet)) = self.net.send(packet)
        {
            self.uncut = Some(packet);
        }
        self.uncut.is_none().then_some(())
    }

    /// Takes a frame for which there was a token and is no room any more: it is lost, and counted.
    #[cfg(feature = "embassy")]
    #[cold]
    pub(super) fn lose<R>(&mut self, len: usize, fill: impl FnOnce(&mut [u8]) -> R) -> R {
        self.lost += 1;
        fill(self.linear.blank(len))
    }

    /// Sends what waits, and tells the peer.
    pub(super) fn flush(&mut self) {
        if self.is_stale {
            self.look_anew();
        }
        // What there is no room for waits for the next time.
        let _ = self.cut();
        if self.coalescer.is_pending() {
            // There is room, unless somebody has sent past us; then it waits for the next time.
            if let Some(mut permit) = self.net.reserve(self.coalescer.slots()) {
                self.coalescer.flush(|packet| send(&mut permit, &mut self.lost, packet));
            }
        }
        self.net.flush();
    }

    /// The device may have changed between two rounds.
    #[inline]
    pub(super) fn begin_round(&mut self) {
        self.is_stale = true;
    }

    /// Asks the device what it does now. If that is not what it did, what waits may be too much for
    /// a permit: [`NetDevice::send`] makes of it what the device takes.
    fn look_anew(&mut self) {
        self.is_stale = false;
        let can = self.net.capabilities();
        self.shape = Shape::new(&can, self.net.max_frame());
        if can == self.told {
            return;
        }
        self.told = can;
        self.coalescer.flush(|packet| {
            if self.net.send(packet).is_err() {
                self.lost += 1;
            }
        });
        self.coalescer.adapt(&can);
    }

    pub(super) fn inner(&self) -> &N {
        &self.net
    }

    pub(super) fn inner_mut(&mut self) -> &mut N {
        self.is_stale = true;
        &mut self.net
    }

    /// The device, to receive from.
    #[inline]
    pub(super) fn below(&mut self) -> &mut N {
        &mut self.net
    }

    /// What the stack may fill now.
    pub(super) fn shape(&mut self) -> Shape {
        if self.is_stale {
            self.look_anew();
        }
        self.shape
    }

    /// What the stack may fill, as of the last look.
    pub(super) fn last_shape(&self) -> Shape {
        self.shape
    }

    pub(super) fn count(&self, counters: &mut Counters) {
        counters.linearised_packets += self.linear.packets();
        counters.linearised_bytes += self.linear.bytes();
        counters.checksums_left += self.left_blank;
        counters.coalesced = self.coalescer.counters();
        counters.too_long += self.too_long;
        counters.lost += self.lost;
    }
}

/// Memory and room for one frame. Dropped unused, both serve the next.
pub struct TxToken<'a, N: NetDevice + 'a> {
    permit: N::Permit<'a>,
    /// The data of each segment, if the frame is to be cut.
    gso: Option<NonZeroU16>,
    told: &'a Capabilities,
    max: usize,
    bufs: &'a mut ArrayVec<BufMut<N::Block>, MAX_FRAGMENTS>,
    linear: &'a mut Linear,
    coalescer: &'a mut Coalescer<BufMut<N::Block>>,
    uncut: &'a mut Option<PacketMut<N::Block>>,
    left_blank: &'a mut u64,
    too_long: &'a mut u64,
    lost: &'a mut u64,
}

impl<N: NetDevice> phy::TxToken for TxToken<'_, N> {
    #[inline]
    fn set_meta(&mut self, meta: PacketMeta) {
        self.gso = meta.segmentation_offload_size;
    }

    /// The closure gets zeroed bytes, so that what it leaves out is not some earlier packet's. Of
    /// a large packet, only the headers' are: the stack copies all of the data behind them.
    #[inline]
    fn consume<R, F>(mut self, len: usize, f: F) -> R
    where
        F: FnOnce(&mut [u8]) -> R,
    {
        if len > self.max && self.gso.is_none() {
            *self.too_long += 1;
            return f(self.linear.blank(len));
        }
        if let Some(mut buf) = self.bufs.pop() {
            if let Some(bytes) = buf.append(len) {
                let stale = if self.gso.is_some() { len.min(HEADERS) } else { len };
                bytes.get_mut(..stale).unwrap_or_default().fill(0);
                let result = f(bytes);
                let meta = finish(bytes, self.gso, self.left_blank);
                if self.gso.is_some() && meta.gso.is_none() {
                    // What is to be cut is TCP, or it can't be.
                    *self.too_long += 1;
                } else if meta.gso.is_some() && !takes_large(self.told) {
                    let mut packet = AnyPacket::from(buf);
                    packet.meta = meta;
                    *self.uncut = Some(packet);
                } else if self.coalescer.is_on() {
                    let (permit, lost) = (&mut self.permit, &mut *self.lost);
                    self.coalescer.push_single(buf, meta, |packet| send(permit, lost, packet));
                } else if meta == Meta::default() {
                    send(&mut self.permit, self.lost, buf.into());
                } else {
                    let mut packet = AnyPacket::from(buf);
                    packet.meta = meta;
                    send(&mut self.permit, self.lost, packet);
                }
                return result;
            }
            self.bufs.push(buf);
        }
        let bytes = self.linear.blank(len);
        let result = f(bytes);
        let meta = finish(bytes, None, self.left_blank);
        if let Some(mut packet) = self.linear.scatter(len, iter::from_fn(|| self.bufs.pop())) {
            packet.meta = meta;
            let (permit, lost) = (&mut self.permit, &mut *self.lost);
            self.coalescer.push(packet, |packet| send(permit, lost, packet));
        }
        result
    }
}

/// What a device can't send, it counts. For what finds no room though some was reserved, we do.
#[inline]
fn send<P: Permit>(permit: &mut P, lost: &mut u64, packet: PacketMut<P::Block>) {
    if let Err(SendError::Full(_)) = permit.send(packet) {
        *lost += 1;
    }
}

/// Whether a device takes large packets of TCP over IPv4.
fn takes_large(device: &Capabilities) -> bool {
    device.features.gso_v4 && device.features.checksum_v4
}

/// What is known of a frame that the stack has filled. `size` is that of the segments it is to be
/// cut into.
#[inline]
fn finish(frame: &mut [u8], size: Option<NonZeroU16>, left_blank: &mut u64) -> Meta {
    let checksum = leave_blank(frame);
    *left_blank += u64::from(checksum == Checksum::Blank);
    let kind = GsoKind::TcpV4;
    let gso = size.filter(|_| checksum == Checksum::Blank).map(|size| Gso { size, kind });
    Meta { checksum, gso }
}

impl<'a, N: NetDevice + 'a> core::fmt::Debug for TxToken<'a, N> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("TxToken")
            .field("max_frame", &self.max)
            .field("gso", &self.gso)
            .finish_non_exhaustive()
    }
}
