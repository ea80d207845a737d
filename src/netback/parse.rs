//! Reads one packet's requests off a client's transmit ring and checks them. Pure: slots go in, a
//! packet or what is wrong with it comes out, and every word of it is hostile.
//!
//! ```text
//!  request 0          extra ...         request 1          request 2
//! +-----------------+-----------------+-----------------+-----------------+
//! | EXTRA|MORE_DATA | kind, MORE?     | MORE_DATA       | 0               |
//! | size of it all  |                 | its own size    | its own size    |
//! +-----------------+-----------------+-----------------+-----------------+
//! ```
//!
//! The first slot's own size is what the later ones leave over (xen/io/netif.h, "request size").
//! What is wrong with the packet drops it, what no frontend does by mistake shuts the vif; the
//! line between the two is the one that Linux draws (`xenvif_count_requests`,
//! `xenvif_get_extras`), with two exceptions that are ours: the limits count all data slots, so a
//! packet is fatal from 20 slots on rather than 22, and the first slot may be as short as it
//! likes, because headers are linearised anyway.

use alloc::vec::Vec;

use arrayvec::ArrayVec;
use xen_grant::PAGE_SIZE;

use super::counters::FromClientDrop;
use super::fault::Fault;
use crate::wire::{Extra, MAX_SLOTS, TxRequest, TxSlot, tx_flags};
use packet_views::buffer::{Checksum, Meta};
use packet_views::features::Features;
use packet_views::header::ETHERNET_HEADER;

/// From so many data slots on, a packet shuts the vif.
const FATAL_SLOTS: usize = 20;
/// An Ethernet header.
const SHORTEST: u16 = ETHERNET_HEADER as u16;

/// How a slot that has been taken off the ring must be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// A request with this id: with the packet's status.
    Request(u16),
    /// An extra: with a NULL response.
    Null,
}

/// Bytes of a packet in one of the client's pages, all of them within the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) gref: u32,
    pub(super) offset: u16,
    /// May be 0.
    pub(super) size: u16,
}

/// A packet as its requests describe it.
pub(super) struct Chain {
    /// Their sizes add up to `total`.
    pub(super) extents: ArrayVec<Extent, MAX_SLOTS>,
    pub(super) total: u16,
    pub(super) meta: Meta,
}

impl Chain {
    pub(super) fn new() -> Chain {
        Chain {
            extents: ArrayVec::new_const(),
            total: 0,
            meta: Meta { checksum: Checksum::Unknown, gso: None },
        }
    }
}

/// Why there is no packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bad {
    /// It is dropped, and its slots are answered with an error.
    Packet(FromClientDrop),
    /// The vif is shut.
    Peer(Fault),
}

fn within_page(offset: u16, size: u16) -> Result<(), Fault> {
    if usize::from(offset) + usize::from(size) > PAGE_SIZE {
        return Err(Fault::CrossesPage { offset, size });
    }
    Ok(())
}

/// Takes the next packet's slots from `next`, notes in `answers` how each is to be answered, and
/// leaves the packet in `chain` if it is one. `None` if there was no slot at all.
///
/// `next` ends where the client's published requests end; a frontend publishes packets whole.
#[inline]
pub(super) fn read(
    mut next: impl FnMut() -> Option<TxSlot>,
    offered: Features,
    answers: &mut Vec<Answer>,
    chain: &mut Chain,
) -> Option<Result<(), Bad>> {
    let first = next()?.request();
    answers.push(Answer::Request(first.id));
    chain.extents.clear();
    chain.total = first.size;
    // `data_validated` alone is a client's word for its own checksum: let somebody verify it.
    let blank = first.flags & tx_flags::CSUM_BLANK != 0;
    let checksum = if blank { Checksum::Blank } else { Checksum::Unknown };
    chain.meta = Meta { checksum, gso: None };

    let rest = if first.flags & (tx_flags::EXTRA_INFO | tx_flags::MORE_DATA) == 0 {
        let extent = Extent { gref: first.gref, offset: first.offset, size: first.size };
        chain.extents.push(extent);
        Ok(first.size)
    } else {
        read_long(&first, &mut next, offered, answers, chain)
    };
    Some(match rest.and_then(|own| within_page(first.offset, own).map_err(Bad::Peer)) {
        Ok(()) if first.size < SHORTEST => Err(Bad::Packet(FromClientDrop::Runt)),
        checked => checked,
    })
}

/// The rest of a packet of several slots. Returns the first slot's own size.
fn read_long(
    first: &TxRequest,
    next: &mut impl FnMut() -> Option<TxSlot>,
    offered: Features,
    answers: &mut Vec<Answer>,
    chain: &mut Chain,
) -> Result<u16, Bad> {
    let fatal = Bad::Peer;
    let mut dropped = None;
    if first.flags & tx_flags::EXTRA_INFO != 0 {
        dropped = read_extras(next, answers, &mut chain.meta).map_err(fatal)?;
        // A request for a multicast address is a dummy and carries no packet (xen/io/netif.h); if
        // there are more slots nevertheless they belong to it, and not to the next packet.
        if chain.meta.gso.is_some_and(|gso| !offered.takes_gso(gso.kind)) {
            dropped = dropped.or(Some(FromClientDrop::Gso));
        }
    }

    chain.extents.push(Extent { gref: first.gref, offset: first.offset, size: 0 });
    let mut own = first.size;
    let mut data_slots = 1;
    let mut more = first.flags & tx_flags::MORE_DATA != 0;
    if more && !offered.scatter_gather {
        dropped = dropped.or(Some(FromClientDrop::ScatterGather));
    }
    while more {
        let request = next().ok_or(fatal(Fault::CutShort))?.request();
        answers.push(Answer::Request(request.id));
        data_slots += 1;
        if data_slots >= FATAL_SLOTS {
            return Err(fatal(Fault::TooManySlots));
        }
        within_page(request.offset, request.size).map_err(fatal)?;
        match own.checked_sub(request.size) {
            Some(left) => own = left,
            None => dropped = dropped.or(Some(FromClientDrop::Sizes)),
        }
        let extent = Extent { gref: request.gref, offset: request.offset, size: request.size };
        if chain.extents.try_push(extent).is_err() {
            dropped = dropped.or(Some(FromClientDrop::TooManySlots));
        }
        more = request.flags & tx_flags::MORE_DATA != 0;
    }
    if let Some(why) = dropped {
        return Err(Bad::Packet(why));
    }
    if let Some(first) = chain.extents.first_mut() {
        first.size = own;
    }
    Ok(own)
}

/// The extras behind the first slot. As many as there are slots; of a kind given twice the last
/// one counts.
fn read_extras(
    next: &mut impl FnMut() -> Option<TxSlot>,
    answers: &mut Vec<Answer>,
    meta: &mut Meta,
) -> Result<Option<FromClientDrop>, Fault> {
    let mut dropped = None;
    loop {
        let extra = next().ok_or(Fault::CutShort)?.extra();
        answers.push(Answer::Null);
        match extra.kind {
            Extra::GSO => meta.gso = Some(extra.gso().ok_or(Fault::BadGso)?),
            Extra::MCAST_ADD | Extra::MCAST_DEL => dropped = Some(FromClientDrop::Multicast),
            // A hash that we did not ask for: a hint, and not taken.
            Extra::HASH => {}
            unknown => return Err(Fault::UnknownExtra(unknown)),
        }
        if extra.flags & Extra::MORE == 0 {
            return Ok(dropped);
        }
    }
}

#[cfg(test)]
mod tests;
