//! What a backend offers, and what the toolstack says about the vif.

use core::time::Duration;

use xen_grant::DomId;

use crate::xenbus::features::read_features;
use crate::xenbus::identity::Identity;
use packet_views::features::Features;
use xen_store::nodes::Reader;
use xen_store::values::parse_u32;
use xen_store::{Store, StoreError};

/// `DOMID_INVALID` (xen/xen.h).
const NOBODY: DomId = DomId(0x7ff4);

/// How much a frontend may send, as libxl writes it: so many bytes in each of such times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rate {
    /// Bytes, at least one.
    pub bytes: u32,
    /// In what time.
    pub every: Duration,
}

impl Rate {
    /// `BYTES,MICROSECONDS`. `None` for what makes no sense, and for no limit.
    pub fn parse(value: &[u8]) -> Option<Rate> {
        let comma = value.iter().position(|byte| *byte == b',')?;
        let (bytes, micros) = value.split_at_checked(comma)?;
        let (bytes, micros) = (parse_u32(bytes)?, parse_u32(micros.get(1..)?)?);
        let every = Duration::from_micros(micros.into());
        (bytes > 0 && micros > 0).then_some(Rate { bytes, every })
    }

    /// How long it takes to save up for a packet of `bytes` bytes.
    pub fn time_for(&self, bytes: usize) -> Duration {
        let times = bytes.div_ceil(self.bytes as usize);
        self.every.saturating_mul(u32::try_from(times).unwrap_or(u32::MAX))
    }
}

/// What a backend offers (xen/io/netif.h), with the protocol's default for whatever is missing or
/// makes no sense. Settled when the bus says [`Connect`](super::FrontStep::Connect);
/// only `carrier` changes after that.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BackendOffer {
    /// The backend's domain, to grant pages to. `DOMID_INVALID` before the first `Connect`.
    pub domain: DomId,
    /// `mac`: our address. `None` where the toolstack gave none.
    pub mac: Option<[u8; 6]>,
    /// `mtu`: octets above Ethernet. 1500 by default; a hint.
    pub mtu: u16,
    /// `trusted`: false ("0") if the backend must see no byte that is not meant for it.
    pub trusted: bool,
    /// `carrier`: false ("0") while the cable is out, so to speak.
    pub carrier: bool,
    /// `feature-rx-copy`: it copies received packets into our pages. Every living backend does.
    pub rx_copy: bool,
    /// `feature-rx-notify`: it wants an event for receive requests.
    pub rx_notify: bool,
    /// What it takes besides plain packets of one slot.
    pub features: Features,
    /// `feature-multicast-control`: it filters multicast on request.
    pub multicast_control: bool,
    /// `feature-dynamic-multicast-control`: the request may come at any time.
    pub dynamic_multicast_control: bool,
    /// `feature-split-event-channels`: transmit and receive may have a channel each.
    pub split_event_channels: bool,
    /// `feature-ctrl-ring`: it has a control ring.
    pub ctrl_ring: bool,
    /// `rate`: how much the toolstack lets us send. `None` where it does not say.
    pub rate: Option<Rate>,
    /// `multi-queue-max-queues`: at least 1, at most [`MAX_QUEUES`](crate::xenbus::MAX_QUEUES).
    pub max_queues: u32,
}

impl Default for BackendOffer {
    fn default() -> Self {
        let Identity { mac, mtu } = Identity::default();
        BackendOffer {
            domain: NOBODY,
            mac,
            mtu,
            trusted: true,
            carrier: true,
            rx_copy: false,
            rx_notify: false,
            features: Features::default(),
            multicast_control: false,
            dynamic_multicast_control: false,
            split_event_channels: false,
            ctrl_ring: false,
            rate: None,
            max_queues: 1,
        }
    }
}

impl BackendOffer {
    /// Reads it from our directory (what the toolstack says) and the backend's.
    pub(super) fn read<S: Store>(
        domain: DomId,
        own: Reader<'_, S>,
        peer: Reader<'_, S>,
    ) -> Result<BackendOffer, StoreError> {
        let Identity { mac, mtu } = Identity::read(&own)?;
        Ok(BackendOffer {
            domain,
            mac,
            mtu,
            trusted: own.flag("trusted", true)?,
            carrier: peer.flag("carrier", true)?,
            rx_copy: peer.flag("feature-rx-copy", false)?,
            rx_notify: peer.flag("feature-rx-notify", false)?,
            features: read_features(&peer)?,
            multicast_control: peer.flag("feature-multicast-control", false)?,
            dynamic_multicast_control: peer.flag("feature-dynamic-multicast-control", false)?,
            split_event_channels: peer.flag("feature-split-event-channels", false)?,
            ctrl_ring: peer.flag("feature-ctrl-ring", false)?,
            rate: peer.bytes("rate")?.as_deref().and_then(Rate::parse),
            max_queues: peer
                .u32("multi-queue-max-queues")?
                .unwrap_or(1)
                .clamp(1, crate::xenbus::MAX_QUEUES),
        })
    }
}

/// The nodes of an earlier connection: what a frontend writes about rings, events and wishes.
///
/// They are removed before the next connection's are written. A stale `event-channel-tx` beside a
/// new `event-channel` would make netback bind a dead port.
pub(super) fn is_connection_key(name: &str) -> bool {
    let exact = [
        "tx-ring-ref",
        "rx-ring-ref",
        "ctrl-ring-ref",
        "event-channel",
        "event-channel-tx",
        "event-channel-rx",
        "event-channel-ctrl",
        "multi-queue-num-queues",
        "xdp-headroom",
    ];
    let families = ["queue-", "feature-", "request-"];
    exact.contains(&name) || families.iter().any(|family| name.starts_with(family))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates() {
        let rate = Rate::parse(b"51,50000").unwrap();
        assert_eq!(rate, Rate { bytes: 51, every: Duration::from_millis(50) });
        assert_eq!(rate.time_for(102), Duration::from_millis(100));
        assert_eq!(rate.time_for(103), Duration::from_millis(150));
        assert_eq!(
            [0, 1, 51].map(|bytes| rate.time_for(bytes)),
            [0, 50, 50].map(Duration::from_millis)
        );
        assert_eq!(Rate::parse(b"4294967295, 1\0").unwrap().bytes, u32::MAX);
        // The slowest that can be written, and what nobody has.
        let slowest = Rate::parse(b"1,4294967295\n").unwrap();
        assert_eq!(slowest.time_for(2), Duration::from_micros(2 * u64::from(u32::MAX)));
        assert!(slowest.time_for(usize::MAX) >= slowest.time_for(u32::MAX as usize));
        for none in
            ["", ",", "1", "1,", ",1", "0,50000", "51,0", "51,50000,1", "x,1", "4294967296,1"]
        {
            assert_eq!(Rate::parse(none.as_bytes()), None, "{none}");
        }
    }
}
