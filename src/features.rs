//! What one end of a vif takes from the other.
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

use crate::buffer::{Checksum, Meta};
use crate::store::{Store, StoreError};
use crate::wire::{GsoKind, MAX_SLOTS};
use crate::xenbus::Reader;

/// What one end of a vif takes besides plain packets of one slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// `feature-sg`: packets of more than one slot.
    pub scatter_gather: bool,
    /// Blank checksums of TCP and UDP over IPv4: not `feature-no-csum-offload`.
    pub checksum_v4: bool,
    /// `feature-ipv6-csum-offload`: the same over IPv6.
    pub checksum_v6: bool,
    /// `feature-gso-tcpv4`: large TCP packets over IPv4.
    pub gso_v4: bool,
    /// `feature-gso-tcpv6`: large TCP packets over IPv6.
    pub gso_v6: bool,
}

impl Features {
    /// Everything.
    pub const ALL: Features = Features {
        scatter_gather: true,
        checksum_v4: true,
        checksum_v6: true,
        gso_v4: true,
        gso_v6: true,
    };

    /// Nothing.
    pub const NONE: Features = Features {
        scatter_gather: false,
        checksum_v4: false,
        checksum_v6: false,
        gso_v4: false,
        gso_v6: false,
    };

    /// What both have.
    #[must_use]
    pub fn and(self, other: Features) -> Features {
        Features {
            scatter_gather: self.scatter_gather && other.scatter_gather,
            checksum_v4: self.checksum_v4 && other.checksum_v4,
            checksum_v6: self.checksum_v6 && other.checksum_v6,
            gso_v4: self.gso_v4 && other.gso_v4,
            gso_v6: self.gso_v6 && other.gso_v6,
        }
    }

    /// Without what makes no sense alone: a large packet needs several slots, and its checksum is
    /// always blank.
    #[must_use]
    pub fn coherent(self) -> Features {
        Features {
            gso_v4: self.gso_v4 && self.scatter_gather && self.checksum_v4,
            gso_v6: self.gso_v6 && self.scatter_gather && self.checksum_v6,
            ..self
        }
    }

    /// The nodes that say so, each with its value.
    pub fn nodes(&self) -> [(&'static str, &'static str); 5] {
        let on = |feature| if feature { "1" } else { "0" };
        [
            ("feature-sg", on(self.scatter_gather)),
            // The one that is on where the node is missing.
            ("feature-no-csum-offload", on(!self.checksum_v4)),
            ("feature-ipv6-csum-offload", on(self.checksum_v6)),
            ("feature-gso-tcpv4", on(self.gso_v4)),
            ("feature-gso-tcpv6", on(self.gso_v6)),
        ]
    }

    /// Reads a peer's nodes, with the protocol's default for what is missing or makes no sense.
    pub fn read<S: Store>(peer: &Reader<'_, S>) -> Result<Features, StoreError> {
        Ok(Features {
            scatter_gather: peer.flag("feature-sg", false)?,
            checksum_v4: !peer.flag("feature-no-csum-offload", false)?,
            checksum_v6: peer.flag("feature-ipv6-csum-offload", false)?,
            gso_v4: peer.flag("feature-gso-tcpv4", false)?,
            gso_v6: peer.flag("feature-gso-tcpv6", false)?,
        })
    }

    /// The most fragments of a packet.
    #[inline]
    pub fn max_fragments(&self) -> usize {
        if self.scatter_gather { MAX_SLOTS } else { 1 }
    }

    /// Whether large packets of a kind are taken.
    #[inline]
    pub fn takes_gso(&self, kind: GsoKind) -> bool {
        match kind {
            GsoKind::TcpV4 => self.gso_v4,
            GsoKind::TcpV6 => self.gso_v6,
        }
    }

    /// Whether a packet that begins with these bytes may have a blank checksum.
    #[inline]
    pub fn takes_blank(&self, head: &[u8]) -> bool {
        match head.get(12..14) {
            Some([0x08, 0x00]) => self.checksum_v4,
            Some([0x86, 0xdd]) => self.checksum_v6,
            // A VLAN tag or something stranger: only for a peer that takes both.
            Some(_) | None => self.checksum_v4 && self.checksum_v6,
        }
    }

    /// Whether a packet that begins with these bytes can go as it is, as far as offloads go.
    #[inline]
    pub fn takes(&self, meta: Meta, head: &[u8]) -> bool {
        meta.gso.is_none_or(|gso| self.takes_gso(gso.kind))
            && (meta.checksum != Checksum::Blank || self.takes_blank(head))
    }
}

impl Default for Features {
    /// What a peer has that says nothing: blank checksums over IPv4.
    fn default() -> Features {
        Features { checksum_v4: true, ..Features::NONE }
    }
}

#[cfg(test)]
mod tests {
    use core::num::NonZeroU16;

    use super::*;
    use crate::wire::Gso;

    #[test]
    fn large_packets_need_slots_and_blank_checksums() {
        assert_eq!(Features::ALL.coherent(), Features::ALL);
        let no_sg = Features { scatter_gather: false, ..Features::ALL }.coherent();
        assert_eq!((no_sg.gso_v4, no_sg.gso_v6), (false, false));
        let no_v4 = Features { checksum_v4: false, ..Features::ALL }.coherent();
        assert_eq!((no_v4.gso_v4, no_v4.gso_v6), (false, true));
        let no_v6 = Features { checksum_v6: false, ..Features::ALL }.coherent();
        assert_eq!((no_v6.gso_v4, no_v6.gso_v6), (true, false));
    }

    #[test]
    fn what_a_packet_needs_is_asked_of_its_own_protocol() {
        let v4 = [&[0; 12][..], &[0x08, 0x00]].concat();
        let v6 = [&[0; 12][..], &[0x86, 0xdd]].concat();
        let vlan = [&[0; 12][..], &[0x81, 0x00]].concat();
        let blank = Meta { checksum: Checksum::Blank, gso: None };
        let only_v4 = Features { checksum_v4: true, ..Features::NONE };
        assert!(only_v4.takes(blank, &v4));
        assert!(!only_v4.takes(blank, &v6) && !only_v4.takes(blank, &vlan));
        assert!(Features::ALL.takes(blank, &vlan) && Features::NONE.takes(Meta::default(), &v6));
        let gso = |kind| Meta { gso: Some(Gso { size: NonZeroU16::MIN, kind }), ..blank };
        let no_v6 = Features { gso_v6: false, ..Features::ALL };
        assert!(no_v6.takes(gso(GsoKind::TcpV4), &v4) && !no_v6.takes(gso(GsoKind::TcpV6), &v6));
    }
}
