//! One queue of a client: a pair of rings, and the event channels that go with them.

use xen_grant::ForeignPage;
use xen_ring::Notify;

use super::budget::Account;
use super::config::Config;
use super::counters::Counters;
use super::fault::Fault;
use super::from_client::FromClient;
use super::obstacle::Obstacle;
use super::to_client::{Scratch, Takes, ToClient};
use super::waiting::Bounds;
use crate::platform::{BackendPlatform, Channel, EventError, Port, Rings};
use crate::xenbus::{EventChannels, QueueOffer};

/// Bound event channels, closed when dropped.
struct Channels<P: BackendPlatform> {
    platform: P,
    tx: Port,
    /// The same as the other one unless the client splits them.
    rx: Port,
}

impl<P: BackendPlatform> Channels<P> {
    fn bind(platform: &P, channel: Channel, to: EventChannels) -> Result<Channels<P>, EventError> {
        let (tx, rx) = match to {
            EventChannels::Single(port) => (port, None),
            EventChannels::Split { tx, rx } => (tx, (rx != tx).then_some(rx)),
        };
        let tx = platform.bind_interdomain(channel.peer, tx)?;
        let mut channels = Channels { platform: platform.clone(), tx, rx: tx };
        let Some(rx) = rx else {
            platform.opened(tx, channel);
            return Ok(channels);
        };
        channels.rx = platform.bind_interdomain(channel.peer, rx)?;
        platform.opened(tx, Channel { rings: Rings::Transmit, ..channel.clone() });
        platform.opened(channels.rx, Channel { rings: Rings::Receive, ..channel });
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
pub(super) struct Queue<P: BackendPlatform> {
    pub(super) from: FromClient<P>,
    pub(super) to: ToClient<P>,
    channels: Channels<P>,
    /// The client is to hear of something on that ring.
    pub(super) tell_tx: Notify,
    tell_rx: Notify,
    /// Something was taken off its transmit ring since this was last said.
    pub(super) progress: bool,
}

impl<P: BackendPlatform> Queue<P> {
    pub(super) fn open(
        platform: &P,
        channel: Channel,
        offer: &QueueOffer,
        (takes, bounds): (Takes, Bounds),
        config: &Config,
        counters: &mut Counters,
    ) -> Result<Queue<P>, Obstacle> {
        let client = channel.peer;
        let tx = ForeignPage::map(platform, client, offer.tx_ring)?;
        counters.maps += 1;
        let rx = ForeignPage::map(platform, client, offer.rx_ring)?;
        counters.maps += 1;
        Ok(Queue {
            from: FromClient::new(tx, client, config.features.coherent(), config.headroom)?,
            to: ToClient::new(rx, client, takes, bounds, config.patience)?,
            channels: Channels::bind(platform, channel, offer.events)?,
            tell_tx: Notify::Suppressed,
            tell_rx: Notify::Suppressed,
            progress: false,
        })
    }

    /// Our ends of the client's event channels, each once.
    pub(super) fn ports(&self) -> impl Iterator<Item = Port> + use<P> {
        let Channels { tx, rx, .. } = self.channels;
        core::iter::once(tx).chain((rx != tx).then_some(rx))
    }

    /// Gives the client as much as it has posted pages for, and sends the events that are due, at
    /// most one a channel.
    #[inline]
    pub(super) fn flush(
        &mut self,
        platform: &P,
        means: (&mut Scratch, &mut Account),
        counters: &mut Counters,
    ) -> Result<(), Fault> {
        if self.to.flush(platform, means, counters)? == Notify::Needed {
            self.tell_rx = Notify::Needed;
        }
        if self.tell_tx == Notify::Needed || self.tell_rx == Notify::Needed {
            self.tell(counters);
        }
        Ok(())
    }

    fn tell(&mut self, counters: &mut Counters) {
        let Channels { platform, tx, rx } = &self.channels;
        let mut due = (self.tell_tx == Notify::Needed, self.tell_rx == Notify::Needed);
        self.tell_tx = Notify::Suppressed;
        self.tell_rx = Notify::Suppressed;
        if rx == tx {
            due = (due.0 || due.1, false);
        }
        for (due, port) in [(due.0, *tx), (due.1, *rx)] {
            if due {
                counters.events_sent += 1;
                platform.notify(port);
            }
        }
    }

    /// Asks for events at what the client does next; true if it has done something already. Nobody asks
    /// for packets while nobody takes any.
    #[inline]
    pub(super) fn arm(&mut self, takes_packets: bool) -> Result<bool, Fault> {
        Ok((takes_packets && self.from.arm()?) | self.to.arm()?)
    }

    /// Tells the platform that there is nothing left to do until the next event.
    #[inline]
    pub(super) fn handled(&mut self, platform: &P) {
        let tx = core::mem::take(&mut self.progress);
        let rx = core::mem::take(&mut self.to.progress);
        if self.channels.rx == self.channels.tx {
            platform.handled(self.channels.tx, tx || rx);
        } else {
            platform.handled(self.channels.tx, tx);
            platform.handled(self.channels.rx, rx);
        }
    }
}
