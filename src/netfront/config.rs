//! What the frontend asks for, and what it tells the backend of it.

use crate::wire::RING_SIZE;
use crate::xenbus::{BackendOffer, MAX_QUEUES};
use packet_views::features::Features;

/// Grants of a queue: both rings full, and the two ring pages.
const GRANTS: usize = 2 * RING_SIZE + 2;

/// What the frontend asks for. The backend may have less to offer. A number out of its range is taken
/// as the nearest that is in it.
///
/// By default that is everything, for it costs nothing where the backend has less: what it does not
/// take is done in software. Who reads packets without `phy` or
/// [`offload`](packet_views::offload), and wants them plain, sets `features` to [`Features::NONE`]. The
/// default has one queue, for one loop drives all of them, and lets receive rings grow to all that they
/// hold while much arrives.
///
/// How large a pool has to be, for any number of devices on it, is a sum:
///
/// ```
/// use xen_netfront::netfront::Config;
///
/// let configs = [Config::default(), Config::default().with_queues(4)];
/// // Packets that the layers above keep: received and not dropped, or not sent yet.
/// let held = 64;
/// let promised: usize = configs.iter().map(Config::least_pages).sum();
/// assert_eq!((configs[0].least_pages(), configs[1].least_pages()), (130, 328));
/// let least = promised + held;
/// // With as much for bursts as the receive rings grow to, nothing is ever short.
/// let bursts: usize = configs.iter().map(|config| 256 * config.queues as usize).sum();
/// let enough = least + bursts;
/// # assert_eq!((least, enough), (522, 1802));
/// ```
///
/// With less than `promised` a device is [refused](super::OpenError); between that and enough all of them
/// work, and share what nobody was promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// What to take from the backend, and what to give it if it takes as much.
    ///
    /// With checksums, received packets may come with a blank one
    /// ([`Checksum::Blank`](packet_views::buffer::Checksum::Blank)); with GSO, up to [`MAX_FRAME`](packet_views::buffer::MAX_FRAME) bytes
    /// ([`Meta::gso`](packet_views::buffer::Meta)). `phy` knows what to do with either.
    pub features: Features,
    /// Queues: pairs of rings that a backend can serve side by side, at most
    /// [`MAX_QUEUES`](crate::xenbus::MAX_QUEUES). What one takes of grants and pages, each takes.
    pub queues: u32,
    /// An event channel for each ring, rather than one for both. It pays where two CPUs take them:
    /// a driver that is run by one loop gets more events that way, and nothing for it.
    pub split_event_channels: bool,
    /// Pages posted for receiving, on each queue, while little arrives: at least 20.
    pub rx_floor: u16,
    /// The most pages posted, on each queue, while much arrives: 20 to 256.
    pub rx_ceiling: u16,
    /// The most bytes in flight to the backend, on each queue, before
    /// [`reserve`](packet_views::device::NetDevice::reserve) says that there is no room. With `None` the ring is the limit.
    /// One packet always goes.
    pub tx_bytes: Option<u32>,
    /// Where the ring indices start. They wrap, so tests start shortly before that.
    pub ring_start: u32,
}

packet_views::setters!(Config {
    with_features = features: Features,
    with_queues = queues: u32,
    with_split_event_channels = split_event_channels: bool,
    with_rx_floor = rx_floor: u16,
    with_rx_ceiling = rx_ceiling: u16,
    with_tx_bytes = tx_bytes: Option<u32>,
    with_ring_start = ring_start: u32,
});

impl Default for Config {
    fn default() -> Config {
        Config {
            features: Features::ALL,
            queues: 1,
            split_event_channels: false,
            rx_floor: 64,
            rx_ceiling: RING_SIZE as u16,
            tx_bytes: None,
            ring_start: 0,
        }
    }
}

impl Config {
    /// The pages of the pool that a device with this configuration is promised: two for each queue's
    /// rings, its [`rx_floor`](Config::rx_floor), and 64 to send with. What the layers above hold, of
    /// received packets or of such as are not sent yet, comes on top.
    pub fn least_pages(&self) -> usize {
        super::budget::least_pages(self)
    }

    /// Queues that we ever have.
    pub(super) fn most_queues(&self) -> u32 {
        self.queues.clamp(1, MAX_QUEUES)
    }

    /// Grant references that the device claims: as many grants as it ever has at once.
    pub fn references(&self) -> usize {
        self.most_queues() as usize * GRANTS
    }

    /// What packets to this backend may use.
    pub(super) fn features_to(&self, offer: &BackendOffer) -> Features {
        self.features.and(offer.features).coherent()
    }

    /// Queues that we have with this backend.
    pub(super) fn queues_with(&self, offer: &BackendOffer) -> u32 {
        self.most_queues().min(offer.max_queues)
    }
}
