//! What one end of a vif takes from the other, as nodes.
//!
//! ```text
//!     frontend                                       backend
//!  takes: F ──── feature-* nodes ──────────────►  sends within F
//!  sends within B ◄────────────── feature-* nodes ──── takes: B
//! ```
//!
//! Each end publishes what it *takes*, under the same names (xen/io/netif.h); the two directions
//! have nothing to do with each other. What a packet needs beyond them, its sender does in
//! software.

use packet_views::features::Features;
use xen_store::nodes::Reader;
use xen_store::{Store, StoreError};

/// The nodes that say what an end of a vif takes, each with its value.
pub fn feature_nodes(features: &Features) -> [(&'static str, &'static str); 5] {
    let on = |feature| if feature { "1" } else { "0" };
    [
        ("feature-sg", on(features.scatter_gather)),
        // The one that is on where the node is missing.
        ("feature-no-csum-offload", on(!features.checksum_v4)),
        ("feature-ipv6-csum-offload", on(features.checksum_v6)),
        ("feature-gso-tcpv4", on(features.gso_v4)),
        ("feature-gso-tcpv6", on(features.gso_v6)),
    ]
}

/// What a peer's nodes say, with the protocol's default for what is missing or makes no sense.
pub(super) fn read_features<S: Store>(peer: &Reader<'_, S>) -> Result<Features, StoreError> {
    Ok(Features::NONE
        .with_scatter_gather(peer.flag("feature-sg", false)?)
        .with_checksum_v4(!peer.flag("feature-no-csum-offload", false)?)
        .with_checksum_v6(peer.flag("feature-ipv6-csum-offload", false)?)
        .with_gso_v4(peer.flag("feature-gso-tcpv4", false)?)
        .with_gso_v6(peer.flag("feature-gso-tcpv6", false)?))
}
