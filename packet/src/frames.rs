//! A device of plain Ethernet frames, for a kernel that keeps a `Box<dyn FrameDevice>`.
//!
//! A [`NetDevice`] is chosen at compile time and its packets come as they are: in several fragments,
//! larger than the MTU, their checksum left blank. Who only knows frames, and one type for all network
//! cards, has it behind a [`Frames`]:
//!
//! ```text
//!   send_frame(&[u8])  ──copy──► blocks ──► reserve, send
//!
//!   recv_frame(&mut [u8]) ◄─copy──┬─ a frame                    a blank checksum is filled in
//!                                 ├─ Segments, one at a time ◄─ a large packet
//!                                 └─ dropped and counted        longer than the MTU, or not to be cut
//! ```
//!
//! That is a copy each way, and in steady traffic no allocation but a block for the headers of each
//! segment that is cut. Nothing is lost without a word: a frame that finds no room stays with the caller,
//! one that finds no room in the caller's slice stays here, and what can be handed to nobody is counted
//! ([`Drops`]).
//!
//! ```
//! # use std::collections::VecDeque;
//! use packet_views::copying::{Copying, RawIo};
//! use packet_views::frames::{FrameDevice, Frames};
//! use packet_views::header::MacAddr;
//!
//! # #[derive(Default)]
//! # struct Loopback(VecDeque<Vec<u8>>);
//! #
//! # impl RawIo for Loopback {
//! #     fn recv(&mut self, target: &mut [u8]) -> Option<usize> {
//! #         let frame = self.0.pop_front()?;
//! #         target.get_mut(..frame.len())?.copy_from_slice(&frame);
//! #         Some(frame.len())
//! #     }
//! #
//! #     fn send(&mut self, bytes: &[u8]) -> bool {
//! #         self.0.push_back(bytes.to_vec());
//! #         true
//! #     }
//! # }
//! let net = Copying::new(Loopback::default(), MacAddr([2, 0, 0, 0, 0, 1]), 1500);
//! let mut cards: Vec<Box<dyn FrameDevice>> = vec![Box::new(Frames::new(net))];
//! for card in &mut cards {
//!     card.send_frame(&[7; 60])?;
//!     card.flush();
//!     let mut frame = vec![0; card.max_frame()];
//!     let len = card.recv_frame(&mut frame)?;
//!     assert_eq!(len, Some(60));
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use core::fmt;
use core::iter;
use core::task::{Context, Poll, Waker};
use core::time::Duration;

use crate::buffer::{AnyPacket, Block, Buf, Checksum};
use crate::device::{Link, NetDevice, PacketOf, Permit, Totals, WriteError};
use crate::features::Capabilities;
use crate::header::checksum::{ChecksumError, settle_blank};
use crate::header::{ETHERNET_HEADER, LINK_HEADER, MacAddr, longest_frame};
use crate::offload::{Segments, Sums};

/// Packets in a row that [`FrameDevice::recv_frame`] passes over because they are dropped.
const MOST_PASSED_OVER: usize = 64;

/// A network device that sends and receives plain Ethernet frames, as an object.
///
/// A frame starts at its Ethernet header, has no frame check sequence, and is within the MTU: at most
/// [`max_frame`](FrameDevice::max_frame) bytes. No call blocks, but for
/// [`service`](FrameDevice::service), which may ask a store of settings; none may be made in an interrupt.
pub trait FrameDevice {
    /// Its hardware address, once it is known: always while frames can be sent.
    fn mac(&self) -> Option<MacAddr>;

    /// The largest IP packet, in bytes. It may change while the link is down.
    fn mtu(&self) -> usize;

    /// Whether frames can be sent and received now.
    fn link(&self) -> Link;

    /// Bytes of the longest frame, one with an 802.1Q tag, which does not count into the MTU.
    fn max_frame(&self) -> usize {
        self.mtu().saturating_add(LINK_HEADER)
    }

    /// What it can do: plain frames in one piece, no longer than
    /// [`max_frame`](FrameDevice::max_frame). Checksums are verified, and made, above it.
    fn capabilities(&self) -> Capabilities {
        Capabilities::plain(self.max_frame())
    }

    /// What it has done.
    fn totals(&self) -> Totals;

    /// Frames of the largest size that there is room for now. There may be more once earlier ones are
    /// seen to be done, which [`send_frame`](FrameDevice::send_frame) looks at.
    fn room(&mut self) -> usize;

    /// Whether a frame has come. It may turn out to be one that is dropped.
    fn has_frame(&mut self) -> bool;

    /// Sends a frame, which is copied. After an error it has not been sent:
    /// [`Full`](WriteError::Full) and [`NoMemory`](WriteError::NoMemory) say that it can be, later.
    fn send_frame(&mut self, frame: &[u8]) -> Result<(), WriteError>;

    /// Copies the next frame into `target`; returns its length, or `None` if there is none now. After an
    /// error the frame is still there.
    fn recv_frame(&mut self, target: &mut [u8]) -> Result<Option<usize>, RecvError>;

    /// Tells the peer of what has been sent: after the last frame of a burst.
    fn flush(&mut self);

    /// Sees to what the device needs besides frames: see [`NetDevice::service`].
    fn service(&mut self) -> Option<Duration>;

    /// Asks for an event at the next frame, and when there is room again; true if there is something to do
    /// already. For who sleeps without a task, until any device's event.
    fn rearm(&mut self) -> bool {
        self.poll_ready(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    /// Whether there is something to do. If not, the task is woken when there is: see
    /// [`NetDevice::poll_ready`].
    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<()>;
}

/// Why [`FrameDevice::recv_frame`] has handed up nothing. The frame waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RecvError {
    /// The frame has so many bytes, more than the slice.
    TooShort(usize),
    /// There is no free block for the headers of a segment.
    NoMemory,
}

impl fmt::Display for RecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RecvError::TooShort(len) => write!(f, "the frame has {len} bytes, more than the slice"),
            RecvError::NoMemory => f.write_str("no free block for a segment's headers"),
        }
    }
}

impl core::error::Error for RecvError {}

/// Packets that a [`Frames`] received and could hand up to nobody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Drops {
    /// Longer than the MTU allows and not to be cut, or to be cut into segments that are.
    pub too_long: u64,
    /// With a blank checksum that can't be filled in.
    pub checksum: u64,
    /// To be cut, and can't be; or segments of it.
    pub gso: u64,
}

impl Drops {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.too_long + self.checksum + self.gso
    }
}

/// A [`NetDevice`] as a [`FrameDevice`]. `N` may be a `&mut` to a device that the caller keeps.
pub struct Frames<N: NetDevice> {
    net: N,
    /// Received, and plain but for a blank checksum: handed up next.
    next: Option<PacketOf<N>>,
    /// What is left of a large packet.
    segments: Option<Segments<Buf<<N::Block as Block>::Shared>>>,
    drops: Drops,
}

impl<N: NetDevice> Frames<N> {
    /// The device's frames. Allocates nothing.
    pub fn new(net: N) -> Frames<N> {
        Frames { net, next: None, segments: None, drops: Drops::default() }
    }

    /// The device below.
    pub fn inner(&self) -> &N {
        &self.net
    }

    /// The device below, to drive it.
    pub fn inner_mut(&mut self) -> &mut N {
        &mut self.net
    }

    /// What has been dropped here. What the device has dropped, [`NetDevice::totals`] says;
    /// [`FrameDevice::totals`] adds both up.
    pub fn drops(&self) -> Drops {
        self.drops
    }

    /// Fetches the next frame, unless there is one; whether there is.
    fn fetch(&mut self) -> Result<bool, RecvError> {
        for _ in 0..MOST_PASSED_OVER {
            if self.next.is_some() {
                return Ok(true);
            }
            match self.segments.take() {
                Some(segments) => self.cut(segments)?,
                None => match self.net.next_packet() {
                    Some(packet) => self.look_at(packet),
                    None => return Ok(false),
                },
            }
        }
        Ok(self.next.is_some())
    }

    /// Makes of a packet that has just come what is handed up.
    fn look_at(&mut self, packet: PacketOf<N>) {
        let longest = longest_frame(self.net.mtu(), packet.head());
        if packet.meta.gso.is_some() {
            match Segments::plan(&packet) {
                Ok(plan) if plan.longest > longest => self.drops.too_long += 1,
                Ok(_) => match Segments::new(packet, Sums::Fill) {
                    Ok(segments) => return self.segments = Some(segments),
                    Err((_, packet)) => {
                        self.drops.gso += 1;
                        return self.net.recycle(packet);
                    }
                },
                Err(_) => self.drops.gso += 1,
            }
        } else if packet.len() > longest {
            self.drops.too_long += 1;
        } else {
            return self.next = Some(packet);
        }
        self.net.recycle(packet);
    }

    /// Makes the next segment.
    fn cut(
        &mut self,
        mut segments: Segments<Buf<<N::Block as Block>::Shared>>,
    ) -> Result<(), RecvError> {
        if segments.remaining() == 0 {
            return Ok(());
        }
        // After an error the other segments would be lost, so the only one there can be comes first.
        let Some(head) = self.net.alloc(0) else {
            self.segments = Some(segments);
            return Err(RecvError::NoMemory);
        };
        let mut head = Some(head);
        match segments.cut(|| head.take()) {
            Some(Ok(segment)) => {
                self.next = Some(segment);
                self.segments = Some(segments);
            }
            // The headers don't fit the device's blocks.
            Some(Err(_)) => self.drops.gso += segments.remaining() as u64,
            None => {}
        }
        Ok(())
    }

    /// Blocks that a frame of this length takes.
    fn blocks(&self, len: usize) -> usize {
        len.div_ceil(self.net.capabilities().block_size.max(1))
    }
}

impl<N: NetDevice> FrameDevice for Frames<N> {
    fn mac(&self) -> Option<MacAddr> {
        self.net.mac()
    }

    fn mtu(&self) -> usize {
        self.net.mtu()
    }

    fn link(&self) -> Link {
        self.net.link()
    }

    /// What the device has done, and what was dropped here: that had been received, and is counted as that
    /// too, a large packet as one.
    fn totals(&self) -> Totals {
        let totals = self.net.totals();
        Totals { rx_dropped: totals.rx_dropped + self.drops.total(), ..totals }
    }

    fn room(&mut self) -> usize {
        self.net.room() / self.blocks(self.max_frame()).max(1)
    }

    fn has_frame(&mut self) -> bool {
        self.next.is_some()
            || self.segments.as_ref().is_some_and(|segments| segments.remaining() > 0)
            || self.net.has_packet()
    }

    fn send_frame(&mut self, frame: &[u8]) -> Result<(), WriteError> {
        if frame.len() < ETHERNET_HEADER {
            return Err(WriteError::BadLength);
        }
        let slots = self.blocks(frame.len());
        if frame.len() > longest_frame(self.net.mtu(), frame)
            || slots > self.net.capabilities().max_fragments
        {
            return Err(WriteError::TooLong);
        }
        // Before memory is taken in vain.
        let room = self.net.reserve(slots).map(drop);
        room.ok_or(WriteError::Full)?;
        let bufs = iter::from_fn(|| self.net.alloc(0));
        let packet = AnyPacket::from_slice(frame, bufs).ok_or(WriteError::NoMemory)?;
        let mut permit = self.net.reserve(slots).ok_or(WriteError::Full)?;
        Ok(permit.send(packet)?)
    }

    fn recv_frame(&mut self, target: &mut [u8]) -> Result<Option<usize>, RecvError> {
        for _ in 0..MOST_PASSED_OVER {
            let (true, Some(packet)) = (self.fetch()?, &self.next) else { return Ok(None) };
            let len = packet.len();
            let frame = target.get_mut(..len).ok_or(RecvError::TooShort(len))?;
            packet.copy_to_slice(frame);
            let settled = settle(frame, packet.meta.checksum);
            if let Some(packet) = self.next.take() {
                self.net.recycle(packet);
            }
            match settled {
                Ok(()) => return Ok(Some(len)),
                Err(_) => self.drops.checksum += 1,
            }
        }
        Ok(None)
    }

    fn flush(&mut self) {
        self.net.flush();
    }

    fn service(&mut self) -> Option<Duration> {
        self.net.service()
    }

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let is_ready = self.net.poll_ready(context).is_ready();
        if is_ready || self.has_frame() { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl<N: NetDevice> fmt::Debug for Frames<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frames").field("drops", &self.drops).finish_non_exhaustive()
    }
}

/// Fills in a frame's checksum, if it is blank.
fn settle(frame: &mut [u8], checksum: Checksum) -> Result<(), ChecksumError> {
    if checksum != Checksum::Blank {
        return Ok(());
    }
    let mut packet = AnyPacket::from(frame);
    packet.meta.checksum = checksum;
    settle_blank(&mut packet)
}
