//! What a backend offers, and how much a client may take.

use core::time::Duration;

use super::budget::IN_WORK;
use crate::wire::MAX_SLOTS;
use crate::xenbus::{MAX_QUEUES, Removal};
use packet_views::features::Features;

/// What a backend offers, and how much a client may take.
///
/// By default it offers little: packets of several pages, and neither checksums nor GSO. Whatever is
/// offered, a client may do, and it is the layers above that have to cope: with packets of 64 KB, which a
/// bridge on the other side may not take, and with checksums that are not filled in yet. A forwarder to
/// other vifs copes with all of it, because either end does in software what its peer does not take: it
/// sets `features` to [`Features::ALL`]. (A [frontend](crate::netfront::Config) takes everything by default,
/// because what it asks for is for itself.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// Bytes left free in front of each packet from the client, at most 2048: room for a header
    /// that somebody pushes.
    pub headroom: usize,
    /// The most packets that wait for the client, shared out among its queues; each may have one
    /// in any case.
    pub queue_packets: usize,
    /// The most frames that packets waiting for the client hold, a page each however short they
    /// are, shared out among its queues. A frame that two fragments share counts twice. Each queue
    /// may have 18 in any case, or the largest packet would never fit.
    pub queue_frames: usize,
    /// How long the next packet of a queue may wait for the client to post another page. Then what it
    /// has no pages for is dropped, and refused until it posts one.
    pub patience: Duration,
    /// What to take from the client. What to give it, it says itself.
    ///
    /// Frontends that predate `feature-no-csum-offload` (Linux's) send blank checksums over IPv4 in
    /// any case, so whoever takes packets from here copes with
    /// [`Checksum::Blank`](packet_views::buffer::Checksum::Blank).
    pub features: Features,
    /// The most queues that a client may have, at most [`MAX_QUEUES`](crate::xenbus::MAX_QUEUES).
    pub max_queues: u32,
    /// Who removes the vif's directory in the end.
    pub removal: Removal,
}

packet_views::setters!(Config {
    with_headroom = headroom: usize,
    with_queue_packets = queue_packets: usize,
    with_queue_frames = queue_frames: usize,
    with_patience = patience: Duration,
    with_features = features: Features,
    with_max_queues = max_queues: u32,
    with_removal = removal: Removal,
});

impl Default for Config {
    fn default() -> Config {
        Config {
            headroom: 128,
            queue_packets: 256,
            queue_frames: 512,
            patience: Duration::from_secs(10),
            features: Features::NONE.with_scatter_gather(true),
            max_queues: 1,
            removal: Removal::Ours,
        }
    }
}

impl Config {
    /// How large a pool a client needs for itself ([`Netback::open`](super::Netback::open)): with as many
    /// pages, none of its packets is dropped for want of one, and none that is prepared for it. These are
    /// the pages of a hypercall's copies, those that may wait for the client, and those of one packet that
    /// is being cut or filled in: 786 by default.
    ///
    /// Packets of the client's that the layers above keep, or another vif does, come on top: up to that
    /// one's [`queue_frames`](Config::queue_frames), or what a frontend has in flight, a ring of 256 a
    /// queue.
    pub fn least_pages(&self) -> usize {
        IN_WORK + self.frames()
    }

    /// Frames that may wait for the client.
    pub(super) fn frames(&self) -> usize {
        let queues = self.max_queues.clamp(1, MAX_QUEUES) as usize;
        self.queue_frames.max(queues * MAX_SLOTS)
    }
}
