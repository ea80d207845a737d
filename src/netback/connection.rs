//! One connection of a client: its two ring pages mapped, its event channels bound.

use xen_grant::{DomId, ForeignPage, GrantStatus};
use xen_ring::Notify;

use super::Config;
use super::fault::Fault;
use super::from_client::FromClient;
use super::stats::Stats;
use super::to_client::{Takes, ToClient};
use crate::platform::{BackendPlatform, EventError, Port};
use crate::store::{Store, StoreError};
use crate::xenbus::{EventChannels, FrontendOffer, Reader};

/// The smallest MTU of IPv4.
const SMALLEST_MTU: u16 = 68;

/// What a client has published to be connected by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Published {
    pub(super) tx_ring: u32,
    pub(super) rx_ring: u32,
    pub(super) tx_event: Port,
    /// The same as the other one unless the client splits them.
    pub(super) rx_event: Port,
    pub(super) takes: Takes,
}

impl Published {
    pub(super) fn read(offer: &FrontendOffer) -> Result<Published, ConnectError> {
        // We offer one queue, so there is one.
        let queue = offer.queues.first().ok_or(ConnectError::Incomplete)?;
        if !offer.rx_copy {
            return Err(ConnectError::NoCopy);
        }
        let (tx_event, rx_event) = match queue.events {
            EventChannels::Single(port) => (port, port),
            EventChannels::Split { tx, rx } => (tx, rx),
        };
        Ok(Published {
            tx_ring: queue.tx_ring,
            rx_ring: queue.rx_ring,
            tx_event,
            rx_event,
            takes: Takes { notify: offer.rx_notify, features: offer.features },
        })
    }
}

/// What the toolstack says of the client, in our own directory where no client writes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Identity {
    pub(super) mac: Option<[u8; 6]>,
    pub(super) mtu: u16,
}

impl Default for Identity {
    fn default() -> Identity {
        Identity { mac: None, mtu: 1500 }
    }
}

impl Identity {
    pub(super) fn read<S: Store>(&mut self, own: &Reader<'_, S>) -> Result<(), ConnectError> {
        self.mac = own.mac("mac")?;
        let mtu = own.u32("mtu")?.and_then(|mtu| u16::try_from(mtu).ok());
        self.mtu = mtu.filter(|mtu| *mtu >= SMALLEST_MTU).unwrap_or(1500);
        Ok(())
    }
}

/// Why a client could not be connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ConnectError {
    Incomplete,
    NoCopy,
    Store(StoreError),
    Map(GrantStatus),
    Bind(EventError),
    Fault(Fault),
}

impl From<StoreError> for ConnectError {
    fn from(error: StoreError) -> ConnectError {
        ConnectError::Store(error)
    }
}

impl From<GrantStatus> for ConnectError {
    fn from(status: GrantStatus) -> ConnectError {
        ConnectError::Map(status)
    }
}

impl From<EventError> for ConnectError {
    fn from(error: EventError) -> ConnectError {
        ConnectError::Bind(error)
    }
}

impl From<Fault> for ConnectError {
    fn from(fault: Fault) -> ConnectError {
        ConnectError::Fault(fault)
    }
}

impl core::fmt::Display for ConnectError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            ConnectError::Incomplete => f.write_str("rings or event channels are missing"),
            ConnectError::NoCopy => f.write_str("request-rx-copy is missing"),
            ConnectError::Store(error) => error.fmt(f),
            ConnectError::Map(status) => write!(f, "a ring page can't be mapped: {status}"),
            ConnectError::Bind(error) => write!(f, "an event channel can't be bound: {error}"),
            ConnectError::Fault(fault) => fault.fmt(f),
        }
    }
}

/// Bound event channels, closed when dropped.
struct Channels<P: BackendPlatform> {
    platform: P,
    tx: Port,
    rx: Port,
}

impl<P: BackendPlatform> Channels<P> {
    fn bind(platform: &P, client: DomId, to: &Published) -> Result<Channels<P>, EventError> {
        let tx = platform.bind_interdomain(client, to.tx_event)?;
        let mut channels = Channels { platform: platform.clone(), tx, rx: tx };
        if to.rx_event != to.tx_event {
            channels.rx = platform.bind_interdomain(client, to.rx_event)?;
        }
        Ok(channels)
    }
}

impl<P: BackendPlatform> Drop for Channels<P> {
    fn drop(&mut self) {
        self.platform.close(self.tx);
        if self.rx != self.tx {
            self.platform.close(self.rx);
        }
    }
}

/// Dropped, it unmaps both pages and closes the channels.
pub(super) struct Connection<P: BackendPlatform> {
    pub(super) from: FromClient<P>,
    pub(super) to: ToClient<P>,
    channels: Channels<P>,
    /// The client is to hear of something on that ring.
    pub(super) tell_tx: Notify,
    pub(super) tell_rx: Notify,
}

impl<P: BackendPlatform> Connection<P> {
    pub(super) fn open(
        platform: &P,
        client: DomId,
        published: &Published,
        config: &Config,
        stats: &mut Stats,
    ) -> Result<Connection<P>, ConnectError> {
        let tx = ForeignPage::map(platform, client, published.tx_ring)?;
        stats.maps += 1;
        let rx = ForeignPage::map(platform, client, published.rx_ring)?;
        stats.maps += 1;
        let gso = config.features.coherent().gso_v4;
        Ok(Connection {
            from: FromClient::new(tx, client, gso, config.headroom)?,
            to: ToClient::new(rx, client, published.takes, config)?,
            channels: Channels::bind(platform, client, published)?,
            tell_tx: Notify::Suppressed,
            tell_rx: Notify::Suppressed,
        })
    }

    /// Our ends of the client's event channels: for its transmit ring, and for its receive ring.
    pub(super) fn ports(&self) -> (Port, Port) {
        (self.channels.tx, self.channels.rx)
    }

    /// Sends the events that are due, at most one a channel.
    #[inline]
    pub(super) fn tell(&mut self, stats: &mut Stats) {
        let Channels { platform, tx, rx } = &self.channels;
        let mut due = (self.tell_tx == Notify::Needed, self.tell_rx == Notify::Needed);
        self.tell_tx = Notify::Suppressed;
        self.tell_rx = Notify::Suppressed;
        if rx == tx {
            due = (due.0 || due.1, false);
        }
        for (due, port) in [(due.0, *tx), (due.1, *rx)] {
            if due {
                stats.events_sent += 1;
                platform.notify(port);
            }
        }
    }
}
