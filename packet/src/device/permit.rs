//! Room in a device, and what is sent into it.

#[cfg(doc)]
use super::NetDevice;
use super::{SendError, SendErrorKind};
use crate::buffer::{Block, BufMut, PacketMut};

/// Room in a device, held until it is dropped: what was reserved is sure, and more is sent as long as
/// there is room. So it serves one packet as well as a burst.
///
/// The peer learns of what was sent by [`flush`](Permit::flush), here or the device's own, or when a
/// [`Token`] is dropped.
///
/// ```
/// # use packet_views::device::{NetDevice, Permit};
/// # fn example<N: NetDevice>(net: &mut N, frames: &[&[u8]]) -> Option<()> {
/// let mut burst = net.reserve(0)?; // nothing is sure, so each has to be looked at
/// for frame in frames {
///     let mut buf = burst.alloc(0)?;
///     buf.append(frame.len())?.copy_from_slice(frame);
///     burst.send_single(buf).ok()?; // full: it comes back, try again later
/// }
/// burst.flush();
/// # Some(())
/// # }
/// ```
#[must_use = "dropped, the room is free again"]
pub trait Permit {
    /// The device's memory.
    type Block: Block;

    /// As [`NetDevice::alloc`].
    fn alloc(&mut self, headroom: usize) -> Option<BufMut<Self::Block>>;

    /// Sends a packet; gives it back if there is no room for it beyond what was reserved and has been
    /// used, and refuses one that the device can't send: that is gone and counted.
    ///
    /// What takes more slots than the packet has is not done here: a packet that the peer does not take
    /// whole is cut by [`NetDevice::send`].
    fn send(
        &mut self,
        packet: PacketMut<Self::Block>,
    ) -> Result<(), SendError<PacketMut<Self::Block>>>;

    /// As [`NetDevice::flush`], and this was the end.
    fn flush(self);

    /// Sends a packet of one fragment.
    #[inline]
    fn send_single(
        &mut self,
        buf: BufMut<Self::Block>,
    ) -> Result<(), SendError<BufMut<Self::Block>>> {
        self.send(buf.into()).map_err(|error| match error {
            SendError::Full(packet) => match packet.into_single() {
                Ok(buf) => SendError::Full(buf),
                Err(_) => SendError::Refused(SendErrorKind::TooManyFragments),
            },
            SendError::Refused(why) => SendError::Refused(why),
        })
    }
}

/// A [`Permit`] that shows the peer what was sent when it is dropped: for stacks that never say that they
/// are done.
#[must_use = "dropped, the room is free again"]
pub struct Token<P: Permit>(Option<P>);

impl<P: Permit> Token<P> {
    pub(super) fn new(permit: P) -> Token<P> {
        Token(Some(permit))
    }

    /// As [`Permit::alloc`].
    pub fn alloc(&mut self, headroom: usize) -> Option<BufMut<P::Block>> {
        self.0.as_mut()?.alloc(headroom)
    }

    /// As [`Permit::send`].
    pub fn send(
        &mut self,
        packet: PacketMut<P::Block>,
    ) -> Result<(), SendError<PacketMut<P::Block>>> {
        match &mut self.0 {
            Some(permit) => permit.send(packet),
            None => Err(SendError::Full(packet)),
        }
    }
}

impl<P: Permit> core::fmt::Debug for Token<P> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Token")
    }
}

impl<P: Permit> Drop for Token<P> {
    fn drop(&mut self) {
        if let Some(permit) = self.0.take() {
            permit.flush();
        }
    }
}
