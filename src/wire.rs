//! What travels on a vif's rings, word for word as in xen/io/netif.h.
//!
//! ```text
//!              word 0              word 1                word 2
//! TxRequest    gref                offset | flags << 16  id | size << 16
//! TxResponse   id | status << 16
//! RxRequest    id                  gref
//! RxResponse   id | offset << 16   flags | status << 16
//! Extra        type | flags << 8 | data[0..2] << 16      data[2..6]       (either ring)
//! ```
//!
//! A packet takes one slot a fragment, up to 18; the flag `more_data` chains them. In a transmit
//! chain the first request's size is that of the whole packet, later ones give their own; in a
//! receive chain every response gives its own. An extra goes right after the first slot, in a
//! slot of its own.

pub mod control;
mod extra;
#[cfg(test)]
mod tests;

use packet_views::buffer::{self, MAX_FRAGMENTS};
use xen_ring::{Protocol, Wire};

pub use extra::{Extra, Hash, Multicast};

/// Flags of a transmit request (`NETTXF_*`).
pub mod tx_flags {
    /// The checksum field holds the pseudo-header sum; the rest is to be filled in.
    pub const CSUM_BLANK: u16 = 1;
    /// The data is known to be good.
    pub const DATA_VALIDATED: u16 = 2;
    /// The packet goes on in the next slot.
    pub const MORE_DATA: u16 = 4;
    /// An extra follows in the next slot.
    pub const EXTRA_INFO: u16 = 8;
}

/// Flags of a receive response (`NETRXF_*`). The first two are swapped against transmit.
pub mod rx_flags {
    /// The data is known to be good.
    pub const DATA_VALIDATED: u16 = 1;
    /// The checksum field holds the pseudo-header sum; the rest is to be filled in.
    pub const CSUM_BLANK: u16 = 2;
    /// The packet goes on in the next slot.
    pub const MORE_DATA: u16 = 4;
    /// An extra follows in the next slot.
    pub const EXTRA_INFO: u16 = 8;
    /// A GSO size as an extra packet before the packet; obsolete, and never asked for.
    pub const GSO_PREFIX: u16 = 16;
}

/// `XEN_NETIF_NR_SLOTS_MIN`: slots that every peer takes for one packet, extras not counted.
pub const MAX_SLOTS: usize = 18;

/// `XEN_NETIF_MAX_TX_SIZE`: the largest packet that a transmit request can name.
pub const MAX_PACKET: usize = 0xffff;

const _: () = assert!(MAX_SLOTS == MAX_FRAGMENTS && MAX_PACKET == buffer::MAX_PACKET);

/// The outcome of a transmit request (`NETIF_RSP_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Sent.
    Okay,
    /// Not sent; the request was bad.
    Error,
    /// Not sent, for want of room.
    Dropped,
    /// The answer to an extra's slot; nothing else in the response means anything.
    Null,
}

impl Status {
    /// The status that a number means; numbers that netif.h does not know count as errors.
    #[inline]
    pub fn from_number(number: i16) -> Status {
        match number {
            0 => Status::Okay,
            1 => Status::Null,
            -2 => Status::Dropped,
            _ => Status::Error,
        }
    }

    /// The number in netif.h.
    #[inline]
    pub fn number(self) -> i16 {
        match self {
            Status::Okay => 0,
            Status::Error => -1,
            Status::Dropped => -2,
            Status::Null => 1,
        }
    }
}

#[inline]
fn pair(low: u16, high: u16) -> u32 {
    u32::from(low) | u32::from(high) << 16
}

#[inline]
fn low(word: u32) -> u16 {
    word as u16
}

#[inline]
fn high(word: u32) -> u16 {
    (word >> 16) as u16
}

/// `netif_tx_request`: bytes for the backend to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TxRequest {
    /// Grant reference of the page.
    pub gref: u32,
    /// First byte within the page.
    pub offset: u16,
    /// [`tx_flags`].
    pub flags: u16,
    /// Comes back in the response.
    pub id: u16,
    /// Bytes: of the whole packet in its first request, else of this slot.
    pub size: u16,
}

impl Wire for TxRequest {
    type Words = [u32; 3];

    #[inline]
    fn to_words(self) -> [u32; 3] {
        [self.gref, pair(self.offset, self.flags), pair(self.id, self.size)]
    }

    #[inline]
    fn from_words([gref, w1, w2]: [u32; 3]) -> TxRequest {
        TxRequest { gref, offset: low(w1), flags: high(w1), id: low(w2), size: high(w2) }
    }
}

/// `netif_tx_response`: a transmit request is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TxResponse {
    /// The request's id, unless the status is [`Status::Null`].
    pub id: u16,
    /// See [`Status`].
    pub status: i16,
}

impl Wire for TxResponse {
    type Words = [u32; 1];

    #[inline]
    fn to_words(self) -> [u32; 1] {
        [pair(self.id, self.status as u16)]
    }

    #[inline]
    fn from_words([word]: [u32; 1]) -> TxResponse {
        TxResponse { id: low(word), status: high(word) as i16 }
    }
}

/// `netif_rx_request`: a page for the backend to fill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RxRequest {
    /// Comes back in the response, in the same slot.
    pub id: u16,
    /// Grant reference of the page.
    pub gref: u32,
}

impl Wire for RxRequest {
    type Words = [u32; 2];

    #[inline]
    fn to_words(self) -> [u32; 2] {
        [u32::from(self.id), self.gref]
    }

    #[inline]
    fn from_words([word, gref]: [u32; 2]) -> RxRequest {
        RxRequest { id: low(word), gref }
    }
}

/// `netif_rx_response`: a page has been filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RxResponse {
    /// The request's id.
    pub id: u16,
    /// First byte within the page.
    pub offset: u16,
    /// [`rx_flags`].
    pub flags: u16,
    /// Bytes, or an error if negative.
    pub status: i16,
}

impl Wire for RxResponse {
    type Words = [u32; 2];

    #[inline]
    fn to_words(self) -> [u32; 2] {
        [pair(self.id, self.offset), pair(self.flags, self.status as u16)]
    }

    #[inline]
    fn from_words([w0, w1]: [u32; 2]) -> RxResponse {
        RxResponse { id: low(w0), offset: high(w0), flags: low(w1), status: high(w1) as i16 }
    }
}

/// A slot of the transmit ring: a request, or an extra with a zeroed third word. Which of the two
/// it is, the slot before it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TxSlot(pub [u32; 3]);

impl TxSlot {
    /// The slot as a request.
    #[inline]
    pub fn request(self) -> TxRequest {
        TxRequest::from_words(self.0)
    }

    /// The slot as an extra.
    #[inline]
    pub fn extra(self) -> Extra {
        let [w0, w1, _] = self.0;
        Extra::from_words([w0, w1])
    }
}

impl From<TxRequest> for TxSlot {
    #[inline]
    fn from(request: TxRequest) -> TxSlot {
        TxSlot(request.to_words())
    }
}

impl From<Extra> for TxSlot {
    #[inline]
    fn from(extra: Extra) -> TxSlot {
        let [w0, w1] = extra.to_words();
        TxSlot([w0, w1, 0])
    }
}

impl Wire for TxSlot {
    type Words = [u32; 3];

    #[inline]
    fn to_words(self) -> [u32; 3] {
        self.0
    }

    #[inline]
    fn from_words(words: [u32; 3]) -> TxSlot {
        TxSlot(words)
    }
}

/// A slot of the receive ring as the backend fills it: a response, or an extra.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RxSlot(pub [u32; 2]);

impl RxSlot {
    /// The slot as a response.
    #[inline]
    pub fn response(self) -> RxResponse {
        RxResponse::from_words(self.0)
    }

    /// The slot as an extra.
    #[inline]
    pub fn extra(self) -> Extra {
        Extra::from_words(self.0)
    }
}

impl From<RxResponse> for RxSlot {
    #[inline]
    fn from(response: RxResponse) -> RxSlot {
        RxSlot(response.to_words())
    }
}

impl From<Extra> for RxSlot {
    #[inline]
    fn from(extra: Extra) -> RxSlot {
        RxSlot(extra.to_words())
    }
}

impl Wire for RxSlot {
    type Words = [u32; 2];

    #[inline]
    fn to_words(self) -> [u32; 2] {
        self.0
    }

    #[inline]
    fn from_words(words: [u32; 2]) -> RxSlot {
        RxSlot(words)
    }
}

/// The transmit ring: 256 slots of 12 bytes.
#[derive(Debug)]
pub enum TxRing {}

impl Protocol for TxRing {
    type Request = TxSlot;
    type Response = TxResponse;
}

/// The receive ring: 256 slots of 8 bytes.
#[derive(Debug)]
pub enum RxRing {}

impl Protocol for RxRing {
    type Request = RxRequest;
    type Response = RxSlot;
}

/// Slots of either ring.
pub const RING_SIZE: usize = 256;

const _: () = assert!(TxRing::SIZE as usize == RING_SIZE && RxRing::SIZE as usize == RING_SIZE);
