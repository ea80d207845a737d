//! `&mut N` is a device where `N` is one.

use core::task::{Context, Poll};
use core::time::Duration;

use super::{
    Changes, Link, MixedPacketOf, NetDevice, PacketMutOf, PacketOf, SendError, Totals, WriteError,
};
use crate::buffer::BufMut;
use crate::features::Capabilities;
use crate::header::MacAddr;

/// A device that its owner lends: every method is the device's own.
impl<N: NetDevice + ?Sized> NetDevice for &mut N {
    type Block = N::Block;
    type Permit<'a>
        = N::Permit<'a>
    where
        Self: 'a;

    fn mac(&self) -> Option<MacAddr> {
        (**self).mac()
    }

    fn mtu(&self) -> usize {
        (**self).mtu()
    }

    fn link(&self) -> Link {
        (**self).link()
    }

    fn capabilities(&self) -> Capabilities {
        (**self).capabilities()
    }

    fn totals(&self) -> Totals {
        (**self).totals()
    }

    fn take_changes(&mut self) -> Changes {
        (**self).take_changes()
    }

    #[inline]
    fn alloc(&mut self, headroom: usize) -> Option<BufMut<Self::Block>> {
        (**self).alloc(headroom)
    }

    #[inline]
    fn reserve(&mut self, slots: usize) -> Option<Self::Permit<'_>> {
        (**self).reserve(slots)
    }

    fn room(&mut self) -> usize {
        (**self).room()
    }

    fn pause_receive(&mut self, is_paused: bool) {
        (**self).pause_receive(is_paused);
    }

    #[inline]
    fn has_packet(&mut self) -> bool {
        (**self).has_packet()
    }

    #[inline]
    fn next_packet(&mut self) -> Option<PacketOf<Self>> {
        (**self).next_packet()
    }

    fn service(&mut self) -> Option<Duration> {
        (**self).service()
    }

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<()> {
        (**self).poll_ready(context)
    }

    #[inline]
    fn receive(&mut self, budget: usize, sink: impl FnMut(PacketOf<Self>)) -> usize {
        (**self).receive(budget, sink)
    }

    fn flush(&mut self) {
        (**self).flush();
    }

    fn recycle(&mut self, packet: PacketOf<Self>) {
        (**self).recycle(packet);
    }

    fn max_frame(&self) -> usize {
        (**self).max_frame()
    }

    #[inline]
    fn send(&mut self, packet: PacketMutOf<Self>) -> Result<(), SendError<PacketMutOf<Self>>> {
        (**self).send(packet)
    }

    #[inline]
    fn send_mixed(
        &mut self,
        packet: MixedPacketOf<Self>,
    ) -> Result<(), SendError<MixedPacketOf<Self>>> {
        (**self).send_mixed(packet)
    }

    #[inline]
    fn write(
        &mut self,
        size: usize,
        fill: impl FnOnce(&mut [u8]) -> usize,
    ) -> Result<(), WriteError> {
        (**self).write(size, fill)
    }
}
