//! What a frontend has published: its rings, its event channels, and what it can take.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::platform::Port;
use crate::xenbus::features::read_features;
use packet_views::features::Features;
use xen_store::nodes::{Reader, join};
use xen_store::values::parse_u32;
use xen_store::{Store, StoreError};

/// The most queues that either end deals with, whatever the other one says.
pub const MAX_QUEUES: u32 = 8;

/// The event channels of a queue: ports of the frontend's, to bind to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EventChannels {
    /// `event-channel`: one for both rings.
    Single(Port),
    /// `event-channel-tx` and `event-channel-rx`.
    Split {
        /// The transmit ring's.
        tx: Port,
        /// The receive ring's.
        rx: Port,
    },
}

/// A queue: a pair of rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueOffer {
    /// `tx-ring-ref`: the grant reference of the transmit ring's page.
    pub tx_ring: u32,
    /// `rx-ring-ref`: the grant reference of the receive ring's page.
    pub rx_ring: u32,
    /// The event channels.
    pub events: EventChannels,
}

/// What a frontend has published (xen/io/netif.h), with the protocol's default for whatever else
/// is missing or makes no sense.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FrontendOffer {
    /// `multi-queue-num-queues` of them, at least one.
    pub queues: Vec<QueueOffer>,
    /// `request-rx-copy`: received packets are to be copied into its pages.
    pub rx_copy: bool,
    /// `feature-rx-notify`: it sends an event when it has posted receive requests.
    pub rx_notify: bool,
    /// What it takes besides plain packets of one slot.
    pub features: Features,
    /// `request-multicast-control`: it wants multicast filtered.
    pub multicast_control: bool,
}

/// Why a frontend's nodes can't be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OfferError {
    /// `multi-queue-num-queues` is 0, no number, or more than we offered.
    Queues,
    /// A `tx-ring-ref` or `rx-ring-ref` is missing or no number.
    Rings,
    /// An event channel is missing or no port.
    EventChannels,
}

impl core::fmt::Display for OfferError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            OfferError::Queues => "multi-queue-num-queues is not a number of queues that we offer",
            OfferError::Rings => "tx-ring-ref or rx-ring-ref is missing or not a number",
            OfferError::EventChannels => "the event channels are missing or not ports",
        })
    }
}

impl core::error::Error for OfferError {}

/// How far the reading of what a frontend has published is.
#[derive(Debug, Default)]
pub(super) enum Reading {
    /// Nothing has been read.
    #[default]
    Unread,
    /// All but the nodes of further queues; there are so many queues.
    Queues(FrontendOffer, u32),
    /// All of it.
    Read(FrontendOffer),
    /// It makes no sense.
    Bad(OfferError),
}

impl Reading {
    /// Reads on: first what is said of all queues, then a queue at a time, with at most nine requests. At
    /// most `max_queues` queues are accepted. Of a frontend that is `known` only the queues are read.
    pub(super) fn step<S: Store>(
        &mut self,
        peer: Reader<'_, S>,
        max_queues: u32,
        known: Option<&FrontendOffer>,
    ) -> Result<(), StoreError> {
        match self {
            Reading::Unread => *self = begin(peer, max_queues, known)?,
            Reading::Queues(offer, count) => {
                // One queue keeps its nodes at the top, where frontends have always had them.
                let dir = if *count == 1 {
                    String::from(peer.dir)
                } else {
                    join(peer.dir, &format!("queue-{}", offer.queues.len()))
                };
                match read_queue(Reader { dir: &dir, ..peer })? {
                    Ok(queue) => offer.queues.push(queue),
                    Err(bad) => *self = Reading::Bad(bad),
                }
            }
            Reading::Read(_) | Reading::Bad(_) => {}
        }
        *self = match core::mem::take(self) {
            Reading::Queues(offer, count) if offer.queues.len() as u64 >= count.into() => {
                Reading::Read(offer)
            }
            more => more,
        };
        Ok(())
    }
}

fn begin<S: Store>(
    peer: Reader<'_, S>,
    max_queues: u32,
    known: Option<&FrontendOffer>,
) -> Result<Reading, StoreError> {
    let count = peer.bytes("multi-queue-num-queues")?;
    let count = count.as_deref().map_or(Some(1), parse_u32);
    let Some(count) = count.filter(|count| (1..=max_queues).contains(count)) else {
        return Ok(Reading::Bad(OfferError::Queues));
    };
    if let Some(known) = known {
        let offer = FrontendOffer { queues: Vec::new(), ..known.clone() };
        return Ok(Reading::Queues(offer, count));
    }
    let offer = FrontendOffer {
        queues: Vec::new(),
        rx_copy: peer.flag("request-rx-copy", false)?,
        rx_notify: peer.flag("feature-rx-notify", false)?,
        features: read_features(&peer)?,
        multicast_control: peer.flag("request-multicast-control", false)?,
    };
    Ok(Reading::Queues(offer, count))
}

fn read_queue<S: Store>(
    queue: Reader<'_, S>,
) -> Result<Result<QueueOffer, OfferError>, StoreError> {
    let (Some(tx_ring), Some(rx_ring)) = (queue.u32("tx-ring-ref")?, queue.u32("rx-ring-ref")?)
    else {
        return Ok(Err(OfferError::Rings));
    };
    let port = |key| Ok::<_, StoreError>(queue.u32(key)?.and_then(Port::new));
    let events = match (port("event-channel-tx")?, port("event-channel-rx")?) {
        (Some(tx), Some(rx)) => Some(EventChannels::Split { tx, rx }),
        (None, _) | (_, None) => port("event-channel")?.map(EventChannels::Single),
    };
    Ok(events
        .map(|events| QueueOffer { tx_ring, rx_ring, events })
        .ok_or(OfferError::EventChannels))
}
