//! What a device's peer takes besides plain packets, and what a device can do.
//!
//! What a packet needs beyond it, its sender does in software ([`offload`](crate::offload)).

use crate::buffer::{AnyPacket, Checksum, Meta, View};
use crate::buffer::{GsoKind, MAX_FRAGMENTS};
use crate::header::checksum::Place;
use crate::header::{Extensions, Layout, Pieces, Protocol, Tcp};

/// What a peer takes besides plain packets of one fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Features {
    /// Packets of more than one fragment.
    pub scatter_gather: bool,
    /// Blank checksums of TCP and UDP over IPv4.
    pub checksum_v4: bool,
    /// The same over IPv6.
    pub checksum_v6: bool,
    /// Large TCP packets over IPv4.
    pub gso_v4: bool,
    /// Large TCP packets over IPv6.
    pub gso_v6: bool,
}

crate::setters!(Features {
    with_scatter_gather = scatter_gather: bool,
    with_checksum_v4 = checksum_v4: bool,
    with_checksum_v6 = checksum_v6: bool,
    with_gso_v4 = gso_v4: bool,
    with_gso_v6 = gso_v6: bool,
});

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

    /// Without what makes no sense alone: a large packet needs several fragments, and its checksum is
    /// always blank.
    #[must_use]
    pub fn coherent(self) -> Features {
        Features {
            gso_v4: self.gso_v4 && self.scatter_gather && self.checksum_v4,
            gso_v6: self.gso_v6 && self.scatter_gather && self.checksum_v6,
            ..self
        }
    }

    /// The most fragments of a packet.
    #[inline]
    pub fn max_fragments(&self) -> usize {
        if self.scatter_gather { MAX_FRAGMENTS } else { 1 }
    }

    /// Whether large packets of a kind are taken.
    #[inline]
    pub fn takes_gso(&self, kind: GsoKind) -> bool {
        match kind {
            GsoKind::TcpV4 => self.gso_v4,
            GsoKind::TcpV6 => self.gso_v6,
        }
    }

    /// Whether a packet that begins with these bytes can go as it is, as far as offloads go.
    #[inline]
    pub fn takes(&self, meta: Meta, head: &[u8]) -> bool {
        self.takes_bytes(meta, head, None)
    }

    /// The same of a packet, however it is cut.
    #[inline]
    pub fn takes_packet<V: View>(&self, packet: &AnyPacket<V>) -> bool {
        let meta = packet.meta;
        meta.checksum != Checksum::Blank && meta.gso.is_none()
            || self.takes_bytes(meta, packet.fragments(), Some(packet.len()))
    }

    #[inline(never)] // a packet of which there is nothing to say is the usual case
    fn takes_bytes<P: Pieces + ?Sized>(&self, meta: Meta, bytes: &P, len: Option<usize>) -> bool {
        meta.checksum != Checksum::Blank && meta.gso.is_none()
            || Place::of_blank(bytes, len.unwrap_or(usize::MAX)).is_ok_and(|(layout, place)| {
                // Linux sums and cuts all there is, padding too.
                self.finds(&layout)
                    && len.is_none_or(|len| place.covered.end == len)
                    && meta.gso.is_none_or(|gso| self.cuts(gso.kind, &layout, &place))
            })
    }

    /// Whether blank checksums of segments of this packet are filled in.
    pub fn fills<V: View>(&self, packet: &AnyPacket<V>) -> bool {
        let blank = Meta { checksum: Checksum::Blank, gso: None };
        self.takes_bytes(blank, packet.fragments(), None)
    }

    /// Whether the peer finds a blank checksum, and fills it in.
    ///
    /// Linux looks for it behind untagged Ethernet, options, and these extension headers, in the
    /// first 256 bytes of an IPv6 packet. Where it finds none it drops the packet, and reports
    /// that it was sent.
    fn finds(&self, layout: &Layout) -> bool {
        const FOUND: Extensions = Extensions::HOP_BY_HOP
            .and(Extensions::DESTINATION_OPTIONS)
            .and(Extensions::ROUTING)
            .and(Extensions::FRAGMENT)
            .and(Extensions::AUTHENTICATION);
        let Some(ip) = layout.ip.filter(|_| layout.tags == 0) else { return false };
        if ip.v4 {
            return self.checksum_v4 && ip.extensions == Extensions::default();
        }
        let headers = ip.transport + size_of::<Tcp>() - layout.network;
        self.checksum_v6 && ip.extensions.within(FOUND) && headers <= 256
    }

    /// Whether the peer cuts a large packet whose checksum it finds. What is authenticated, and
    /// what has a fragment header though it is whole, Linux drops.
    fn cuts(&self, kind: GsoKind, layout: &Layout, place: &Place) -> bool {
        const KEPT: Extensions = Extensions::FRAGMENT.and(Extensions::AUTHENTICATION);
        let is_kind = layout
            .ip
            .is_some_and(|ip| ip.v4 == (kind == GsoKind::TcpV4) && !ip.extensions.has(KEPT));
        self.takes_gso(kind) && is_kind && place.protocol == Protocol::TCP
    }
}

impl Default for Features {
    /// What a peer of a vif has that says nothing: blank checksums over IPv4.
    fn default() -> Features {
        Features { checksum_v4: true, ..Features::NONE }
    }
}

/// What a device is to the layers above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// Bytes of one block: what [`NetDevice::alloc`](crate::device::NetDevice::alloc) gives, headroom
    /// included.
    pub block_size: usize,
    /// Fragments that a packet to send may have, at most [`MAX_FRAGMENTS`].
    pub max_fragments: usize,
    /// What its peer does with packets, so that nobody has to here.
    pub features: Features,
}

crate::setters!(Capabilities {
    with_max_fragments = max_fragments: usize,
    with_features = features: Features,
});

impl Capabilities {
    /// Plain packets of one block of this size.
    pub const fn plain(block_size: usize) -> Capabilities {
        Capabilities { block_size, max_fragments: 1, features: Features::NONE }
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;
    use alloc::vec::Vec;
    use core::num::NonZeroU16;

    use super::*;
    use crate::buffer::Gso;

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

    /// Ethernet, IP, and the header of TCP or UDP.
    fn frame(v6: bool, protocol: u8) -> Vec<u8> {
        let mut frame = vec![0; 12];
        if v6 {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 20, protocol, 64]);
            frame.extend([1; 32]);
        } else {
            frame.extend([0x08, 0x00, 0x45, 0, 0, 40, 0, 0, 0, 0, 64, protocol, 0, 0]);
            frame.extend([1; 8]);
        }
        // Also a length of UDP, and of TCP's header.
        frame.extend([0, 0, 0, 0, 0, 20, 1, 0, 0, 0, 0, 0, 0x50]);
        frame.extend([0; 7]);
        frame
    }

    const BLANK: Meta = Meta { checksum: Checksum::Blank, gso: None };

    #[test]
    fn what_a_packet_needs_is_asked_of_its_own_protocol() {
        let only_v4 = Features { checksum_v4: true, ..Features::NONE };
        for protocol in [6, 17] {
            let (v4, v6) = (frame(false, protocol), frame(true, protocol));
            assert!(only_v4.takes(BLANK, &v4) && !only_v4.takes(BLANK, &v6));
            assert!(Features::ALL.takes(BLANK, &v6) && Features::NONE.takes(Meta::default(), &v6));
        }
        let gso = |kind| Meta { gso: Some(Gso { size: NonZeroU16::MIN, kind }), ..BLANK };
        let no_v6 = Features { gso_v6: false, ..Features::ALL };
        let (v4, v6) = (frame(false, 6), frame(true, 6));
        assert!(no_v6.takes(gso(GsoKind::TcpV4), &v4) && !no_v6.takes(gso(GsoKind::TcpV6), &v6));
        assert!(!Features::ALL.takes(gso(GsoKind::TcpV4), &v6));
        assert!(!Features::ALL.takes(gso(GsoKind::TcpV4), &frame(false, 17)));
    }

    /// Behind a tag no Linux looks, and what has no checksum has no blank one.
    #[test]
    fn blank_is_only_what_every_peer_finds() {
        let takes = |frame: &[u8]| Features::ALL.takes(BLANK, frame);
        for (at, tag) in [(12, [0x81, 0x00, 0, 0]), (12, [0x88, 0xa8, 0, 5])] {
            for v6 in [false, true] {
                let mut tagged = frame(v6, 6);
                tagged.splice(at..at, tag);
                assert!(!takes(&tagged));
            }
        }
        let mut part = frame(false, 17);
        part[20] = 0x20;
        let mut arp = frame(false, 6);
        arp[13] = 6;
        assert!(!takes(&part) && !takes(&arp) && !takes(&frame(false, 1)));
        // Behind extension headers, if they are not too long; and cut, if they are not in the way.
        let gso = Gso { size: NonZeroU16::MIN, kind: GsoKind::TcpV6 };
        for (kind, units, is_found, is_cut) in [
            (60u8, 0u8, true, true),
            (43, 2, true, true),
            (51, 2, true, false),
            (44, 0, true, false),
            (135, 0, false, false),
            (60, 23, true, true),
            (60, 24, false, false),
        ] {
            let len =
                if kind == 51 { (usize::from(units) + 2) * 4 } else { 8 + 8 * usize::from(units) };
            let mut bytes = frame(true, kind);
            let mut extension = vec![0; len];
            (extension[0], extension[1]) = (6, units);
            bytes.splice(54..54, extension);
            bytes[18..20].copy_from_slice(&(20 + len as u16).to_be_bytes());
            assert_eq!(takes(&bytes), is_found, "{kind} {units}");
            let large = Meta { gso: Some(gso), ..BLANK };
            assert_eq!(Features::ALL.takes(large, &bytes), is_cut, "{kind} {units}");
        }
    }
}
