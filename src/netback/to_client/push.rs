//! What waits for the client: a packet is queued as it is, made as the client takes it first, cut, or comes
//! back.

use xen_grant::{FramePool, PAGE_SIZE};

use super::ToClient;
use crate::buffer::Packet;
use crate::netback::budget::Account;
use crate::netback::counters::Counters;
use crate::netback::error::DeliverErrorKind;
use crate::netback::software::{self, Segmented};
use crate::netback::waiting::Shape;
use crate::platform::BackendPlatform;
use crate::wire::{MAX_PACKET, rx_flags};
use packet_views::buffer::{Checksum, Meta};
use packet_views::header::ETHERNET_HEADER;

/// Why a packet is not queued.
pub(in crate::netback) enum Refusal {
    /// There is no room now: it is as it was.
    Full,
    /// It is dropped.
    Gone(DeliverErrorKind),
}

impl From<DeliverErrorKind> for Refusal {
    #[inline]
    fn from(why: DeliverErrorKind) -> Refusal {
        Refusal::Gone(why)
    }
}

impl<P: BackendPlatform> ToClient<P> {
    /// Queues a packet. It is taken out of `packet`, but where there is no room for it now.
    #[inline]
    pub(in crate::netback) fn queue(
        &mut self,
        packet: &mut Packet,
        pool: &FramePool,
        account: &mut Account,
        counters: &mut Counters,
    ) -> Result<(), Refusal> {
        let meta = packet.meta;
        let is_plain = meta.gso.is_none() && meta.checksum != Checksum::Blank;
        if is_plain || self.takes_whole(packet) {
            self.push(packet, account)
        } else {
            self.push_in_software(packet, pool, account, counters)
        }
    }

    /// Whether the client takes a packet, large or blank, as it is.
    #[inline(never)]
    fn takes_whole(&self, packet: &Packet) -> bool {
        let large = packet.meta.gso.is_some();
        (!large || packet.meta.checksum == Checksum::Blank && packet.len() <= MAX_PACKET)
            && self.takes.features.takes_packet(packet)
    }

    /// A packet that needs what the client does not take.
    #[cold]
    fn push_in_software(
        &mut self,
        packet: &mut Packet,
        pool: &FramePool,
        account: &mut Account,
        counters: &mut Counters,
    ) -> Result<(), Refusal> {
        let takes = self.takes.features;
        let is_cut =
            packet.meta.gso.is_some() && (packet.len() > MAX_PACKET || !takes.takes_packet(packet));
        if is_cut {
            return self.push_cut(packet, pool, account, counters);
        }
        // No work for nothing.
        self.look_for_room(packet.fragments().len().max(1), 1, account)?;
        let packet = core::mem::take(packet);
        let mut ready = if packet.meta.gso.is_none() {
            software::fill(packet, pool, counters)?
        } else {
            software::blank(packet, pool, counters)?
        };
        self.push_ready(&mut ready, account)
    }

    /// A packet that has been made as the client takes it.
    #[inline(never)]
    fn push_ready(&mut self, packet: &mut Packet, account: &mut Account) -> Result<(), Refusal> {
        self.push(packet, account)
    }

    /// A packet that is cut into segments: all of them, or it is as it was. Of one that not even an empty
    /// queue has room for the first segments wait, and the others are dropped.
    fn push_cut(
        &mut self,
        packet: &mut Packet,
        pool: &FramePool,
        account: &mut Account,
        counters: &mut Counters,
    ) -> Result<(), Refusal> {
        let Segmented { segments, fragments } = software::segmented(packet)?;
        match self.look_for_room(fragments, 1, account) {
            Err(gone @ Refusal::Gone(_)) => return Err(gone),
            Ok(()) if self.backlog.has_room(segments, fragments) => {}
            // Something goes out first, and then there is more room.
            Ok(()) | Err(Refusal::Full) if !self.backlog.is_empty() => return Err(Refusal::Full),
            Ok(()) | Err(Refusal::Full) => {}
        }
        let takes = self.takes.features;
        software::cut(core::mem::take(packet), takes, pool, counters, |mut segment| {
            self.push_ready(&mut segment, account).map_err(|refusal| match refusal {
                Refusal::Full => DeliverErrorKind::QueueFull,
                Refusal::Gone(why) => why,
            })
        })?;
        Ok(())
    }

    /// Looks whether so many fragments may wait, and charges them.
    #[inline]
    fn charge(
        &mut self,
        fragments: usize,
        slots: usize,
        account: &mut Account,
    ) -> Result<(), Refusal> {
        if self.wanted > 0 && slots > self.available() {
            return Err(DeliverErrorKind::Stalled.into());
        }
        if !self.backlog.has_room(1, fragments) {
            return Err(Refusal::Full);
        }
        self.backlog.grow(fragments - 1)?;
        if account.charge(fragments, self.is_quiet) { Ok(()) } else { Err(Refusal::Full) }
    }

    /// The same, and charges nothing.
    fn look_for_room(
        &mut self,
        fragments: usize,
        slots: usize,
        account: &mut Account,
    ) -> Result<(), Refusal> {
        self.charge(fragments, slots, account)?;
        account.give_back(fragments);
        Ok(())
    }

    /// Queues a packet that the client takes as it is.
    #[inline(always)] // the usual packet has no call
    fn push(&mut self, packet: &mut Packet, account: &mut Account) -> Result<(), Refusal> {
        let meta = packet.meta;
        let [only] = packet.fragments() else { return self.push_several(packet, account) };
        let len = only.len();
        if len < ETHERNET_HEADER || (len > self.takes.longest && meta.gso.is_none()) {
            return Err(DeliverErrorKind::BadLength.into());
        }
        // A fragment lies in a page.
        let slots = 1 + usize::from(meta.gso.is_some());
        self.charge(1, slots, account)?;
        if let Some(only) = packet.take_only() {
            self.backlog.push(only, shape(0, len, slots, meta));
        }
        Ok(())
    }

    #[inline(never)]
    fn push_several(&mut self, packet: &mut Packet, account: &mut Account) -> Result<(), Refusal> {
        let meta = packet.meta;
        let (mut len, mut fragments) = (0, 0);
        for fragment in packet.fragments() {
            len += fragment.len();
            fragments += usize::from(!fragment.is_empty());
        }
        let mut longest = if self.takes.features.scatter_gather { MAX_PACKET } else { PAGE_SIZE };
        if meta.gso.is_none() {
            longest = longest.min(self.takes.longest);
        }
        if len < ETHERNET_HEADER || len > longest {
            return Err(DeliverErrorKind::BadLength.into());
        }
        let slots = len.div_ceil(PAGE_SIZE) + usize::from(meta.gso.is_some());
        self.charge(fragments, slots, account)?;
        let mut filled = packet.take_fragments().filter(|fragment| !fragment.is_empty());
        if let Some(first) = filled.next() {
            filled.for_each(|other| self.backlog.push_other(other));
            self.backlog.push(first, shape(fragments - 1, len, slots, meta));
        }
        Ok(())
    }
}

#[inline]
fn shape(others: usize, len: usize, slots: usize, meta: Meta) -> Shape {
    let flags = match meta.checksum {
        Checksum::Unknown => 0,
        Checksum::Complete => rx_flags::DATA_VALIDATED,
        Checksum::Blank => rx_flags::CSUM_BLANK | rx_flags::DATA_VALIDATED,
    };
    // At most 18 fragments, 17 slots, 65535 bytes: all fit.
    Shape { gso: meta.gso, len: len as u16, flags, others: others as u8, slots: slots as u8 }
}
