//! What a backend offers, and how much a client may take.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

use super::budget::IN_WORK;
use crate::wire::MAX_SLOTS;
use crate::xenbus::{MAX_QUEUES, Removal, feature_nodes};
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
    /// Whether to offer each queue two event channels: one for what it sends, one for the pages that it
    /// posts. A client that has two is served in any case. Each costs a port and the offer a node.
    pub split_channels: bool,
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
    with_split_channels = split_channels: bool,
    with_removal = removal: Removal,
});

/// The nodes that libxl makes for a vif in the name of the backend's domain: its directory, what is in it, and
/// `mtu` in the client's.
const LIBXL_NODES: usize = 13;

impl Default for Config {
    fn default() -> Config {
        Config {
            headroom: 128,
            queue_packets: 256,
            queue_frames: 512,
            patience: Duration::from_secs(10),
            features: Features::NONE.with_scatter_gather(true),
            max_queues: 1,
            split_channels: false,
            removal: Removal::Ours,
        }
    }
}

impl Config {
    /// The nodes that tell a client what is offered: those that differ from the protocol's defaults.
    pub(super) fn nodes(&self) -> Vec<(&'static str, String)> {
        let features = feature_nodes(&self.features.coherent()).into_iter();
        let features =
            features.filter(|(_, value)| *value != "0").chain([("feature-rx-copy", "1")]);
        let split = self.split_channels.then_some(("feature-split-event-channels", "1"));
        let mut nodes: Vec<_> =
            features.chain(split).map(|(key, value)| (key, String::from(value))).collect();
        let queues = self.max_queues.clamp(1, MAX_QUEUES);
        if queues > 1 {
            nodes.push(("multi-queue-max-queues", queues.to_string()));
        }
        nodes
    }

    /// How many clients xenstored's quotas have room for: so many nodes of our domain's, as many watches, of
    /// which others use some. libxl makes up to 13 nodes for a vif in our name, and we write what we offer; a
    /// client takes one watch, and all of them one. By default xenstored allows a domain 1000 nodes and 128
    /// watches.
    pub fn clients_within(&self, nodes: usize, watches: usize) -> usize {
        (nodes / self.nodes_per_client()).min(watches.saturating_sub(1))
    }

    /// Nodes of our domain's that a client takes: libxl's, and ours.
    pub fn nodes_per_client(&self) -> usize {
        LIBXL_NODES + self.nodes().len()
    }

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
