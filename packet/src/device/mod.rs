//! A network device, as the layers above see it.
//!
//! The familiar shape: `mac`, `mtu`, `write`, `receive`, `counters`. The lowest layer allocates and
//! the upper layer fills, so nothing is copied in between and nobody hands around an offset:
//!
//! ```text
//!          upper layer                          device
//!  write   fill(&mut [u8]) ◄── zeroed bytes ──  alloc, reserve
//!          returns how many ──────────────────► permit.send, flush later
//!
//!  send    AnyPacket<BufMut>  ────────────────────► reserve(slots) ► permit.send
//!          (its own headers pushed in front)
//!
//!  receive sink(AnyPacket<Buf>) ◄──────────────  at most `budget`, then returns
//! ```
//!
//! Which memory a packet lives in is the associated type [`NetDevice::Block`], chosen at compile time:
//! pages that can be granted for Xen, the heap for devices that copy anyway
//! ([`Copying`](crate::copying::Copying)). A layer written for any `N: NetDevice` runs on both.
//!
//! ```
//! use packet_views::buffer::View;
//! use packet_views::device::NetDevice;
//!
//! /// Sends every packet back where it came from: the same bytes, in the same place.
//! fn reflect<N: NetDevice>(net: &mut N, other: &mut N) {
//!     net.receive(64, |packet| {
//!         let Ok(mut packet) = packet.try_into_mut() else { return };
//!         if let Some((to, from)) = packet.fragments_mut().first_mut().and_then(|head| {
//!             let (to, rest) = head.bytes_mut().split_first_chunk_mut::<6>()?;
//!             Some((to, rest.first_chunk_mut::<6>()?))
//!         }) {
//!             core::mem::swap(to, from);
//!             let _ = other.send(packet); // full: drop it
//!         }
//!     });
//!     other.flush();
//! }
//! ```

mod error;
mod lent;
mod permit;

use alloc::vec::Vec;
use core::future::poll_fn;
use core::task::{Context, Poll};
use core::time::Duration;

use crate::buffer::{AnyPacket, Block, BufMut, MixedPacket, Packet, PacketMut};
use crate::features::Capabilities;
use crate::header::{ETHERNET_HEADER, MacAddr};

pub use error::{SendError, SendErrorKind, WriteError};
pub use permit::{Permit, Token};

/// Received packets in a row that [`NetDevice::next_packet`] passes over because they are dropped: as
/// many as the largest ring holds.
const MOST_PASSED_OVER: usize = 256;

/// A packet that device `N` has received.
pub type PacketOf<N> = Packet<<<N as NetDevice>::Block as Block>::Shared>;

/// A packet that device `N` can send.
pub type PacketMutOf<N> = PacketMut<<N as NetDevice>::Block>;

/// A packet that device `N` can send, whose payload others may read too.
pub type MixedPacketOf<N> = MixedPacket<<N as NetDevice>::Block>;

/// A network device.
///
/// No call blocks, but for [`service`](NetDevice::service), which may wait for a store of settings. In
/// steady traffic none allocates but a [`write`](NetDevice::write) of more than a block, and a device that
/// does in software what its peer does not. None may be made in an interrupt: there,
/// [wake](crate::Wake::wake) the task that has the device.
pub trait NetDevice {
    /// The memory that its packets live in.
    type Block: Block;

    /// Room, reserved.
    type Permit<'a>: Permit<Block = Self::Block>
    where
        Self: 'a;

    /// Its hardware address, once it is known: always while packets can be sent.
    fn mac(&self) -> Option<MacAddr>;

    /// The largest IP packet, in bytes: without the Ethernet header.
    fn mtu(&self) -> usize;

    /// Whether packets can be sent and received now. Most devices always can.
    fn link(&self) -> Link {
        Link::Up
    }

    /// What it can do.
    fn capabilities(&self) -> Capabilities;

    /// What it has done.
    fn totals(&self) -> Totals;

    /// What has changed below since this was last asked. A device whose peer never changes has nothing
    /// to tell.
    fn take_changes(&mut self) -> Changes {
        Changes::NONE
    }

    /// An empty buffer with `headroom` bytes reserved in front; `None` if memory is short.
    ///
    /// Its block may hold bytes of an earlier use. What is pushed or appended must be overwritten
    /// completely, for all of it is sent; [`header::push`](crate::header::push) and
    /// [`write`](NetDevice::write) see to that.
    fn alloc(&mut self, headroom: usize) -> Option<BufMut<Self::Block>>;

    /// Reserves room for packets of up to `slots` slots together (see [`slots`]), whichever way they go,
    /// after making room if earlier packets are done; `None` if there is none now or the device is not
    /// connected.
    fn reserve(&mut self, slots: usize) -> Option<Self::Permit<'_>>;

    /// Slots that have room now, whatever is sent, 0 while nothing can be:
    /// [`reserve`](NetDevice::reserve) gives at least so many.
    fn room(&mut self) -> usize;

    /// Whether a packet has come: a look, no more. It may turn out to be one that is dropped.
    fn has_packet(&mut self) -> bool;

    /// The next received packet, for those who pull; `None` if there is none now.
    ///
    /// It is what [`receive`](NetDevice::receive) does with a budget of one, whose costs for each call
    /// a burst shares. Of packets that have to be dropped it passes over a bounded number.
    #[inline]
    fn next_packet(&mut self) -> Option<PacketOf<Self>> {
        let mut next = None;
        for _ in 0..MOST_PASSED_OVER {
            let looked = self.receive(1, |packet| next = Some(packet));
            if next.is_some() || looked == 0 {
                break;
            }
        }
        next
    }

    /// Sees to what the device needs besides packets: connecting, timers, a peer that is silent. Called
    /// each time round or when its task is woken, for it costs next to nothing when nothing has happened;
    /// never in an interrupt. Returns after how long, at the latest, to call it again though nothing
    /// happens; `None` if only an event makes it necessary.
    ///
    /// Most devices need nothing. It may change what the device says of itself:
    /// [`take_changes`](NetDevice::take_changes) tells.
    fn service(&mut self) -> Option<Duration> {
        None
    }

    /// Whether there is something to do: a packet has come, there is room again. If not, the task is
    /// woken when there is; that of an earlier call is forgotten.
    ///
    /// A device that has nobody to tell it always says that there is: whoever waits for it polls.
    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let _ = context;
        Poll::Ready(())
    }

    /// Waits until there is something to do. It needs no runtime, and dropping it loses nothing. Time
    /// limits are the caller's.
    fn ready(&mut self) -> impl Future<Output = ()>
    where
        Self: Sized,
    {
        poll_fn(|context| self.poll_ready(context))
    }

    /// The layer above takes no packets until it says so again, for nothing can be sent: until then
    /// packets are no reason to call the device [ready](NetDevice::poll_ready), and a peer that goes on
    /// sending wakes nobody. Those that are there stay there.
    fn pause_receive(&mut self, is_paused: bool) {
        let _ = is_paused;
    }

    /// Hands up to `budget` received packets to `sink`, oldest first, each of them its own; returns
    /// how many it has looked at, those included that it had to drop. It may be called as often as one likes: with nothing there it is cheap.
    ///
    /// A packet starts at its Ethernet header. One that `sink` drops is gone.
    fn receive(&mut self, budget: usize, sink: impl FnMut(PacketOf<Self>)) -> usize;

    /// Tells the peer of what has been sent. Packets may stay where they are until then, so that
    /// one event serves a batch: call it after the last.
    fn flush(&mut self);

    /// Takes back a received packet nobody needs any more. The same as dropping it, except that a
    /// device whose memory does not find home by itself reuses it.
    fn recycle(&mut self, packet: PacketOf<Self>) {
        drop(packet);
    }

    /// The largest frame: [`mtu`](NetDevice::mtu) and an Ethernet header.
    fn max_frame(&self) -> usize {
        self.mtu().saturating_add(ETHERNET_HEADER)
    }

    /// Sends a packet whose fragments come from [`alloc`](NetDevice::alloc) or were received, Ethernet
    /// header first, cut anywhere; gives it back if there is no room now, and refuses one that it
    /// can't send.
    ///
    /// What the peer does not do is done here, in software: a blank checksum filled in, a large
    /// packet cut into segments.
    #[inline]
    fn send(&mut self, packet: PacketMutOf<Self>) -> Result<(), SendError<PacketMutOf<Self>>> {
        match self.reserve(slots(&packet)) {
            Some(mut permit) => permit.send(packet),
            None => Err(SendError::Full(packet)),
        }
    }

    /// Sends a packet whose payload others may read too, as [`send`](NetDevice::send) does. A device that
    /// can't show its peer what is shared, or has to change it, copies that into blocks of its own.
    fn send_mixed(
        &mut self,
        packet: MixedPacketOf<Self>,
    ) -> Result<(), SendError<MixedPacketOf<Self>>> {
        let (packet, _copied) = packet.into_own(|| self.alloc(0)).map_err(SendError::Full)?;
        self.send(packet).map_err(SendError::map_into)
    }

    /// As [`reserve`](NetDevice::reserve); the peer is shown what was sent when the token is dropped.
    fn token(&mut self, slots: usize) -> Option<Token<Self::Permit<'_>>> {
        self.reserve(slots).map(Token::new)
    }

    /// Sends a frame of at most `size` bytes, which `fill` writes in place. `size` is at most
    /// [`max_frame`](NetDevice::max_frame).
    ///
    /// `fill` gets exactly `size` bytes, all zero, starting at the Ethernet header, and returns how
    /// many of them, from the first on, are the frame; with 0 nothing is sent. It is called only
    /// when sending is sure to succeed. No byte of an earlier packet can leave this way: the frame
    /// consists of zeros and of what `fill` has written.
    ///
    /// A frame that no single block holds is filled in memory that is allocated for the call, then
    /// copied into blocks. Where such frames are many, [`send`](NetDevice::send) them in fragments.
    #[inline]
    fn write(
        &mut self,
        size: usize,
        fill: impl FnOnce(&mut [u8]) -> usize,
    ) -> Result<(), WriteError> {
        if size > self.max_frame() {
            return Err(WriteError::TooLong);
        }
        let mut buf = self.alloc(0).ok_or(WriteError::NoMemory)?;
        let Some(bytes) = buf.append(size) else {
            return write_large(self, buf, size, fill);
        };
        let mut permit = self.reserve(1).ok_or(WriteError::Full)?;
        bytes.fill(0);
        let filled = fill(bytes);
        if is_frame(filled, size)? {
            buf.truncate(filled);
            permit.send_single(buf)?;
        }
        Ok(())
    }
}

/// Slots a packet takes in a device's queue: one a fragment, one more with GSO.
#[inline]
pub fn slots<V>(packet: &AnyPacket<V>) -> usize {
    packet.fragments().len() + usize::from(packet.meta.gso.is_some())
}

/// Whether packets can be sent and received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Link {
    /// Not connected, not any more, or not yet.
    #[default]
    Down,
    /// Both ends are connected, but the other says that there is nobody behind it (`carrier`):
    /// nothing can be sent.
    NoCarrier,
    /// Both ends are connected.
    Up,
}

/// What belongs to a connection, and changed with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Changes {
    /// Packets can be sent, and could not before. The peer, or the switch behind it, may be another:
    /// [announce](crate::announce::announce) what addresses there are.
    pub connection: bool,
    /// [`NetDevice::mac`].
    pub mac: bool,
    /// [`NetDevice::mtu`].
    pub mtu: bool,
    /// [`NetDevice::capabilities`].
    pub capabilities: bool,
}

crate::setters!(Changes {
    with_connection = connection: bool,
    with_mac = mac: bool,
    with_mtu = mtu: bool,
    with_capabilities = capabilities: bool,
});

impl Changes {
    /// Nothing.
    pub const NONE: Changes =
        Changes { connection: false, mac: false, mtu: false, capabilities: false };

    /// What either says.
    #[must_use]
    pub fn and(self, other: Changes) -> Changes {
        Changes {
            connection: self.connection || other.connection,
            mac: self.mac || other.mac,
            mtu: self.mtu || other.mtu,
            capabilities: self.capabilities || other.capabilities,
        }
    }
}

/// What a device has done since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Totals {
    /// Packets handed up.
    pub rx_packets: u64,
    /// Their bytes, Ethernet headers included.
    pub rx_bytes: u64,
    /// Packets received that were not handed up.
    pub rx_dropped: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Their bytes, Ethernet headers included.
    pub tx_bytes: u64,
    /// Packets that were to be sent and were not.
    pub tx_dropped: u64,
    /// Times that payload was copied by the device.
    pub copies: u64,
    /// Bytes copied so.
    pub copied_bytes: u64,
    /// Packets put together from, or taken apart into, several blocks for somebody who wants one
    /// slice.
    pub linearised_packets: u64,
    /// Their bytes.
    pub linearised_bytes: u64,
}

crate::setters!(Totals {
    with_rx_packets = rx_packets: u64,
    with_rx_bytes = rx_bytes: u64,
    with_rx_dropped = rx_dropped: u64,
    with_tx_packets = tx_packets: u64,
    with_tx_bytes = tx_bytes: u64,
    with_tx_dropped = tx_dropped: u64,
    with_copies = copies: u64,
    with_copied_bytes = copied_bytes: u64,
    with_linearised_packets = linearised_packets: u64,
    with_linearised_bytes = linearised_bytes: u64,
});

/// Whether `fill` left a frame to send.
fn is_frame(filled: usize, size: usize) -> Result<bool, WriteError> {
    match filled {
        0 => Ok(false),
        _ if (ETHERNET_HEADER..=size).contains(&filled) => Ok(true),
        _ => Err(WriteError::BadLength),
    }
}

/// [`NetDevice::write`] for a frame that needs several blocks; `first` is one of them.
#[cold]
fn write_large<N: NetDevice + ?Sized>(
    net: &mut N,
    first: BufMut<N::Block>,
    size: usize,
    fill: impl FnOnce(&mut [u8]) -> usize,
) -> Result<(), WriteError> {
    let max = net.capabilities().max_fragments;
    let mut room = first.tailroom();
    let mut bufs = AnyPacket::from(first);
    while room < size {
        let buf = net.alloc(0).ok_or(WriteError::NoMemory)?;
        if buf.tailroom() == 0 || bufs.fragments().len() >= max {
            return Err(WriteError::TooLong);
        }
        room += buf.tailroom();
        bufs.push(buf).map_err(|_| WriteError::TooLong)?;
    }
    let mut permit = net.reserve(bufs.fragments().len()).ok_or(WriteError::Full)?;
    let mut frame = Vec::new();
    frame.try_reserve_exact(size).map_err(|_| WriteError::NoMemory)?;
    frame.resize(size, 0);
    let filled = fill(&mut frame);
    if is_frame(filled, size)? {
        let frame = frame.get(..filled).ok_or(WriteError::BadLength)?;
        let packet = AnyPacket::from_slice(frame, bufs.into_fragments());
        permit.send(packet.ok_or(WriteError::TooLong)?)?;
    }
    Ok(())
}
