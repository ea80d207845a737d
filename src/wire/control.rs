//! The control ring and what it is about: hashes that steer packets to queues, and staging grants.
//!
//! Known, not used: no driver here offers `feature-ctrl-ring`, and none makes such a ring. What it
//! carries is decoded all the same, with every length and index checked, so that using it is a
//! decision about features and not about bytes.
//!
//! ```text
//!               word 0             word 1              word 2      word 3
//! CtrlRequest   id | type << 16    data[0]             data[1]     data[2]
//! CtrlResponse  id | type << 16    status              data
//! Gref          ref                flags | status << 16                   512 on a page
//! ```
//!
//! Responses may come in another order than their requests. Sizes that netif.h leaves to the
//! backend are those of Linux's netback.

use xen_ring::{Protocol, Wire};

use super::{high, low, pair};

/// The control ring: 128 slots of 16 bytes.
#[derive(Debug)]
pub enum CtrlRing {}

impl Protocol for CtrlRing {
    type Request = CtrlRequest;
    type Response = CtrlResponse;
}

const _: () = assert!(CtrlRing::SIZE == 128);

/// The longest key, in bytes.
pub const MAX_HASH_KEY: u32 = 40;

/// The most entries of the table that maps hashes to queues, a `u32` each.
pub const MAX_HASH_MAPPING: u32 = 128;

/// What is hashed; the number of a bit among the hash flags (`_XEN_NETIF_CTRL_HASH_TYPE_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashType {
    /// Both addresses.
    Ipv4 = 0,
    /// Both addresses and ports.
    Ipv4Tcp = 1,
    /// Both addresses.
    Ipv6 = 2,
    /// Both addresses and ports.
    Ipv6Tcp = 3,
}

impl HashType {
    /// The flags of all types.
    pub const ALL: u32 = 0xf;

    /// The type that a number means.
    pub fn from_number(number: u8) -> Option<HashType> {
        use HashType::*;
        [Ipv4, Ipv4Tcp, Ipv6, Ipv6Tcp].into_iter().find(|kind| *kind as u8 == number)
    }

    /// `XEN_NETIF_CTRL_HASH_TYPE_*`
    pub fn flag(self) -> u32 {
        1 << self as u8
    }
}

/// How it is hashed (`XEN_NETIF_CTRL_HASH_ALGORITHM_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashAlgorithm {
    /// Not at all: the backend steers as it likes.
    None = 0,
    /// With a key.
    Toeplitz = 1,
}

impl HashAlgorithm {
    /// The algorithm that a number means.
    pub fn from_number(number: u32) -> Option<HashAlgorithm> {
        match number {
            0 => Some(HashAlgorithm::None),
            1 => Some(HashAlgorithm::Toeplitz),
            _ => None,
        }
    }
}

/// `xen_netif_ctrl_request`, as received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CtrlRequest {
    /// Comes back in the response.
    pub id: u16,
    /// `XEN_NETIF_CTRL_TYPE_*`, the constants here.
    pub kind: u16,
    /// What the type makes of them.
    pub data: [u32; 3],
}

/// A control request that makes sense. A page that it names is one granted to the backend, and
/// what is in it begins at its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ctrl {
    /// Which [`HashType`]s are there?
    GetHashFlags,
    /// Hash these.
    SetHashFlags(u32),
    /// Use this key; without bytes it clears the one before.
    SetHashKey {
        /// The page with the key.
        gref: u32,
        /// Its bytes, at most [`MAX_HASH_KEY`].
        len: u32,
    },
    /// How many entries may the table have?
    GetHashMappingSize,
    /// Make it so long, at most [`MAX_HASH_MAPPING`], and fill it with zeros.
    SetHashMappingSize(u32),
    /// Replace a part of the table. The part is within a table of the largest size; whether it is
    /// within the one that was made, and its entries are queues, the receiver checks.
    SetHashMapping {
        /// The page with the entries.
        gref: u32,
        /// Entries.
        len: u32,
        /// The first one's place in the table.
        offset: u32,
    },
    /// Hash like this.
    SetHashAlgorithm(HashAlgorithm),
    /// How many staging grants does a queue take?
    GetGrefMappingSize {
        /// Which queue.
        queue: u32,
    },
    /// Map these staging grants, all or none.
    AddGrefMapping(GrefList),
    /// Unmap them, and say in each entry whether that was done.
    DelGrefMapping(GrefList),
}

/// A list of [`Gref`]s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GrefList {
    /// Which queue they are for.
    pub queue: u32,
    /// The page with the list.
    pub gref: u32,
    /// Entries, at most [`Gref::PER_PAGE`].
    pub len: u32,
}

/// Why a control request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CtrlError {
    /// A type that netif.h does not know, or `XEN_NETIF_CTRL_TYPE_INVALID`.
    UnknownType(u16),
    /// A flag, an algorithm, a queue or a size that there is not.
    Invalid,
    /// A key or a table that is too large.
    TooLarge,
}

impl CtrlError {
    /// What to answer.
    pub fn status(self) -> CtrlStatus {
        match self {
            CtrlError::UnknownType(_) => CtrlStatus::NotSupported,
            CtrlError::Invalid => CtrlStatus::InvalidParameter,
            CtrlError::TooLarge => CtrlStatus::BufferOverflow,
        }
    }
}

impl core::fmt::Display for CtrlError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            CtrlError::UnknownType(kind) => write!(f, "a control request of unknown type {kind}"),
            CtrlError::Invalid => {
                f.write_str("a control request with a parameter that is not valid")
            }
            CtrlError::TooLarge => f.write_str("a control request with a key or table too large"),
        }
    }
}

impl core::error::Error for CtrlError {}

impl CtrlRequest {
    /// `XEN_NETIF_CTRL_TYPE_INVALID`
    pub const INVALID: u16 = 0;
    /// `XEN_NETIF_CTRL_TYPE_GET_HASH_FLAGS`
    pub const GET_HASH_FLAGS: u16 = 1;
    /// `XEN_NETIF_CTRL_TYPE_SET_HASH_FLAGS`
    pub const SET_HASH_FLAGS: u16 = 2;
    /// `XEN_NETIF_CTRL_TYPE_SET_HASH_KEY`
    pub const SET_HASH_KEY: u16 = 3;
    /// `XEN_NETIF_CTRL_TYPE_GET_HASH_MAPPING_SIZE`
    pub const GET_HASH_MAPPING_SIZE: u16 = 4;
    /// `XEN_NETIF_CTRL_TYPE_SET_HASH_MAPPING_SIZE`
    pub const SET_HASH_MAPPING_SIZE: u16 = 5;
    /// `XEN_NETIF_CTRL_TYPE_SET_HASH_MAPPING`
    pub const SET_HASH_MAPPING: u16 = 6;
    /// `XEN_NETIF_CTRL_TYPE_SET_HASH_ALGORITHM`
    pub const SET_HASH_ALGORITHM: u16 = 7;
    /// `XEN_NETIF_CTRL_TYPE_GET_GREF_MAPPING_SIZE`
    pub const GET_GREF_MAPPING_SIZE: u16 = 8;
    /// `XEN_NETIF_CTRL_TYPE_ADD_GREF_MAPPING`
    pub const ADD_GREF_MAPPING: u16 = 9;
    /// `XEN_NETIF_CTRL_TYPE_DEL_GREF_MAPPING`
    pub const DEL_GREF_MAPPING: u16 = 10;

    /// The request that says this.
    pub fn new(id: u16, ctrl: Ctrl) -> CtrlRequest {
        let (kind, data) = match ctrl {
            Ctrl::GetHashFlags => (Self::GET_HASH_FLAGS, [0; 3]),
            Ctrl::SetHashFlags(flags) => (Self::SET_HASH_FLAGS, [flags, 0, 0]),
            Ctrl::SetHashKey { gref, len } => (Self::SET_HASH_KEY, [gref, len, 0]),
            Ctrl::GetHashMappingSize => (Self::GET_HASH_MAPPING_SIZE, [0; 3]),
            Ctrl::SetHashMappingSize(len) => (Self::SET_HASH_MAPPING_SIZE, [len, 0, 0]),
            Ctrl::SetHashMapping { gref, len, offset } => {
                (Self::SET_HASH_MAPPING, [gref, len, offset])
            }
            Ctrl::SetHashAlgorithm(how) => (Self::SET_HASH_ALGORITHM, [how as u32, 0, 0]),
            Ctrl::GetGrefMappingSize { queue } => (Self::GET_GREF_MAPPING_SIZE, [queue, 0, 0]),
            Ctrl::AddGrefMapping(list) => (Self::ADD_GREF_MAPPING, list.data()),
            Ctrl::DelGrefMapping(list) => (Self::DEL_GREF_MAPPING, list.data()),
        };
        CtrlRequest { id, kind, data }
    }

    /// What the request says, from a frontend with so many queues. Words that its type does not
    /// use are not looked at.
    pub fn parse(self, queues: u32) -> Result<Ctrl, CtrlError> {
        let [first, second, third] = self.data;
        let list = || GrefList { queue: first, gref: second, len: third }.checked(queues);
        Ok(match self.kind {
            Self::GET_HASH_FLAGS => Ctrl::GetHashFlags,
            Self::SET_HASH_FLAGS if first & !HashType::ALL == 0 => Ctrl::SetHashFlags(first),
            Self::SET_HASH_KEY if second > MAX_HASH_KEY => return Err(CtrlError::TooLarge),
            Self::SET_HASH_KEY => Ctrl::SetHashKey { gref: first, len: second },
            Self::GET_HASH_MAPPING_SIZE => Ctrl::GetHashMappingSize,
            Self::SET_HASH_MAPPING_SIZE if first <= MAX_HASH_MAPPING => {
                Ctrl::SetHashMappingSize(first)
            }
            Self::SET_HASH_MAPPING => match second.checked_add(third) {
                Some(end) if end <= MAX_HASH_MAPPING => {
                    Ctrl::SetHashMapping { gref: first, len: second, offset: third }
                }
                Some(_) | None => return Err(CtrlError::TooLarge),
            },
            Self::SET_HASH_ALGORITHM => {
                Ctrl::SetHashAlgorithm(HashAlgorithm::from_number(first).ok_or(CtrlError::Invalid)?)
            }
            Self::GET_GREF_MAPPING_SIZE if first < queues => {
                Ctrl::GetGrefMappingSize { queue: first }
            }
            Self::ADD_GREF_MAPPING => Ctrl::AddGrefMapping(list()?),
            Self::DEL_GREF_MAPPING => Ctrl::DelGrefMapping(list()?),
            Self::SET_HASH_FLAGS | Self::SET_HASH_MAPPING_SIZE | Self::GET_GREF_MAPPING_SIZE => {
                return Err(CtrlError::Invalid);
            }
            unknown => return Err(CtrlError::UnknownType(unknown)),
        })
    }

    /// The response to this request.
    pub fn answer(self, status: CtrlStatus, data: u32) -> CtrlResponse {
        CtrlResponse { id: self.id, kind: self.kind, status: status as u32, data }
    }
}

impl GrefList {
    fn data(self) -> [u32; 3] {
        [self.queue, self.gref, self.len]
    }

    fn checked(self, queues: u32) -> Result<GrefList, CtrlError> {
        let fits = self.queue < queues && self.len <= Gref::PER_PAGE;
        fits.then_some(self).ok_or(CtrlError::Invalid)
    }
}

impl Wire for CtrlRequest {
    type Words = [u32; 4];

    fn to_words(self) -> [u32; 4] {
        let [first, second, third] = self.data;
        [pair(self.id, self.kind), first, second, third]
    }

    fn from_words([word, data @ ..]: [u32; 4]) -> CtrlRequest {
        CtrlRequest { id: low(word), kind: high(word), data }
    }
}

/// The outcome of a control request (`XEN_NETIF_CTRL_STATUS_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CtrlStatus {
    /// Done.
    Success = 0,
    /// The backend has no such thing.
    NotSupported = 1,
    /// A parameter is not valid.
    InvalidParameter = 2,
    /// Larger than the backend can hold.
    BufferOverflow = 3,
}

/// `xen_netif_ctrl_response`, as received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CtrlResponse {
    /// The request's.
    pub id: u16,
    /// The request's.
    pub kind: u16,
    /// See [`CtrlStatus`].
    pub status: u32,
    /// What the type makes of it.
    pub data: u32,
}

impl CtrlResponse {
    /// The outcome; `None` if the number is none of netif.h's.
    pub fn status(self) -> Option<CtrlStatus> {
        use CtrlStatus::*;
        let all = [Success, NotSupported, InvalidParameter, BufferOverflow];
        all.into_iter().find(|status| *status as u32 == self.status)
    }
}

impl Wire for CtrlResponse {
    type Words = [u32; 3];

    fn to_words(self) -> [u32; 3] {
        [pair(self.id, self.kind), self.status, self.data]
    }

    fn from_words([word, status, data]: [u32; 3]) -> CtrlResponse {
        CtrlResponse { id: low(word), kind: high(word), status, data }
    }
}

/// `xen_netif_gref`: a page that the backend maps once and both sides use again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gref {
    /// Grant reference of the page.
    pub gref: u32,
    /// [`Gref::READONLY`].
    pub flags: u16,
    /// A [`CtrlStatus`], which the backend writes when it unmaps the page.
    pub status: u16,
}

impl Gref {
    /// `XEN_NETIF_CTRLF_GREF_readonly`
    pub const READONLY: u16 = 1;
    /// The most in a list, which is a page.
    pub const PER_PAGE: u32 = 512;

    /// Whether the page is to be mapped for reading only.
    pub fn read_only(self) -> Result<bool, CtrlError> {
        match self.flags {
            0 => Ok(false),
            Self::READONLY => Ok(true),
            _ => Err(CtrlError::Invalid),
        }
    }
}

impl Wire for Gref {
    type Words = [u32; 2];

    fn to_words(self) -> [u32; 2] {
        [self.gref, pair(self.flags, self.status)]
    }

    fn from_words([gref, word]: [u32; 2]) -> Gref {
        Gref { gref, flags: low(word), status: high(word) }
    }
}
