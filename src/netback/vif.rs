//! A vif, whoever drives it: its end of xenbus, its connection, its counters.

use alloc::string::ToString;
use alloc::vec::Vec;
use packet_views::Wake;
use xen_grant::{DomId, FramePool};

use super::budget::Account;
use super::config::Config;
use super::connection::Connection;
use super::counters::Counters;
use super::error::{DeliverError, DeliverErrorKind};
use super::fault::Fault;
use super::obstacle::Obstacle;
use super::pace::Allowance;
use super::scratch::Scratch;
use super::to_client::Refusal;
use super::{from_client, to_client};
use crate::buffer::{Packet, PacketMut};
use crate::platform::{BackendPlatform, Channel, Instant, Port, Rings};
use crate::xenbus::{BackBus, BackStep, DEFAULT_MTU, FrontendOffer, VifId, VifSpec};
use xen_store::{Store, StoreError, Watch};

/// More steps than the bus ever asks for at once. Should there be more, they are done the next time.
const MAX_STEPS: usize = 4;

/// One vif that a backend serves: what is known of it, and its counters.
///
/// A [`Netback`](super::Netback) is one. Dropped, it unmaps what it has of
/// the client's, and takes its watches away.
pub struct Vif<P: BackendPlatform, S: Store> {
    platform: P,
    bus: BackBus<S>,
    allowance: Allowance,
    /// Requests that the allowance knows of.
    paid: u32,
    pool: FramePool,
    client: DomId,
    number: u32,
    /// Who waits for its events.
    wake: Wake,
    config: Config,
    connection: Option<Connection<P>>,
    /// Its frames that wait for the client.
    account: Account,
    /// Nobody takes the client's packets.
    is_paused: bool,
    counters: Counters,
    /// A broken rule that `service` has to act on.
    fault: Option<Fault>,
    gone: bool,
    /// It has been said that xenstored's quota has no room.
    tells_of_quota: bool,
    /// How often it could not be connected for want of something.
    tries: u32,
}

impl<P: BackendPlatform, S: Store> Vif<P, S> {
    /// Opens our end of vif number `number` of the domain `client`.
    pub(super) fn open(
        platform: P,
        store: S,
        pool: &FramePool,
        (client, number): VifId,
        (config, account): (Config, Account),
    ) -> Result<Vif<P, S>, StoreError> {
        let nodes = config.nodes();
        let nodes: Vec<_> = nodes.iter().map(|(key, value)| (*key, &**value)).collect();
        let bus = BackBus::open(store, client, number, &nodes, config.removal)?;
        Ok(Vif::on(bus, platform, pool, (client, number), (config, account)))
    }

    /// The same, told of what changes by who has `watch`. It asks little of xenstore at a time.
    pub(super) fn part_of(
        platform: P,
        store: S,
        watch: &Watch,
        pool: &FramePool,
        (client, number): VifId,
        (config, account): (Config, Account),
        slice: u32,
    ) -> Vif<P, S> {
        let nodes = config.nodes();
        let nodes: Vec<_> = nodes.iter().map(|(key, value)| (*key, &**value)).collect();
        let bus = BackBus::part_of(store, watch, client, number, &nodes, config.removal, slice);
        Vif::on(bus, platform, pool, (client, number), (config, account))
    }

    fn on(
        bus: BackBus<S>,
        platform: P,
        pool: &FramePool,
        (client, number): VifId,
        (config, account): (Config, Account),
    ) -> Vif<P, S> {
        Vif {
            platform,
            bus,
            allowance: Allowance::of_client(),
            paid: 0,
            pool: pool.clone(),
            client,
            number,
            wake: Wake::new(),
            config,
            connection: None,
            account,
            is_paused: false,
            counters: Counters::default(),
            fault: None,
            gone: false,
            tells_of_quota: false,
            tries: 0,
        }
    }

    /// Sees to xenbus and to timers: connects, disconnects, acts on a broken rule. Returns how many
    /// requests to xenstore it made: `slice` of them, and what belongs to the last thing begun. If there is
    /// more to do, [`next_deadline`](Vif::next_deadline) is now.
    pub(super) fn service(&mut self, scratch: &mut Scratch, slice: u32) -> u32 {
        let now = self.platform.now();
        if let Some(fault) = self.fault {
            self.counters.faults += 1;
            log::warn!("domain {}: protocol violation, disconnecting: {fault}", self.client.0);
            self.disconnect();
            self.bus.failed(now, "protocol violation by the frontend");
        }
        if self.allowance.rests_until(now).is_some() {
            return 0;
        }
        for _ in 0..MAX_STEPS {
            match self.bus.poll(now) {
                BackStep::Wait => break,
                BackStep::Connect => self.connect(scratch, now),
                BackStep::Release => {
                    self.disconnect();
                    self.bus.released(now);
                }
                BackStep::Remove => {
                    self.disconnect();
                    self.gone = true;
                    break;
                }
            }
            if self.bus.requests().wrapping_sub(self.paid) >= slice {
                break;
            }
        }
        let requests = self.bus.requests().wrapping_sub(self.paid);
        self.paid = self.bus.requests();
        self.allowance.spend(requests, now);
        if self.tells_of_quota != self.bus.lacks_quota().is_some() {
            self.tell_of_quota();
        }
        requests
    }

    /// Says that xenstored's quota has no room for this vif, or has again.
    #[cold]
    fn tell_of_quota(&mut self) {
        let (client, number) = (self.client.0, self.number);
        match self.bus.lacks_quota() {
            Some(nodes) => log::warn!(
                "domain {client}, vif {number}: not served: {nodes} nodes and a watch are more than \
                 xenstored's quota has left"
            ),
            None => log::info!("domain {client}, vif {number}: xenstored's quota has room for it"),
        }
        self.tells_of_quota = self.bus.lacks_quota().is_some();
    }

    /// Something has changed in one of the vif's directories.
    pub(super) fn ask(&mut self) {
        self.bus.ask();
    }

    /// Whether its client has ever been offered a connection.
    pub(super) fn was_offered(&self) -> bool {
        self.bus.was_offered()
    }

    /// Whether there is no room for this client; it has an account otherwise.
    pub(super) fn set_refused(&mut self, account: Option<Account>) {
        self.bus.set_refused(account.is_none());
        if let Some(account) = account {
            self.set_account(account);
        }
    }

    /// Whether `service` has to act on a broken rule.
    pub(super) fn is_at_fault(&self) -> bool {
        self.fault.is_some()
    }

    /// We shut down: the client is disconnected in good order.
    pub(super) fn close(&mut self) {
        self.bus.close(self.platform.now());
    }

    /// Whether the vif is shut, after `close`, or gone.
    pub fn is_closed(&self) -> bool {
        self.gone || self.bus.is_closed()
    }

    /// The domain has been resumed elsewhere: channels and mappings are gone, and all is looked at anew.
    pub(super) fn resumed(&mut self) {
        self.disconnect();
        self.bus.resumed(self.platform.now());
    }

    /// When [`service`](super::Netback::service) or [`flush`](super::Netback::flush) has something to do though
    /// nothing happens.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.bus_deadline().into_iter().chain(self.packet_deadline()).min()
    }

    /// When a packet has waited too long, or the client may send again.
    pub(super) fn packet_deadline(&self) -> Option<Instant> {
        let connection = self.connection.as_ref()?;
        connection.deadline(self.account.has_drawn(), self.is_paused)
    }

    /// When xenbus is to be seen to.
    pub(super) fn bus_deadline(&self) -> Option<Instant> {
        let rest = self.allowance.rests_until(self.platform.now());
        let bus = self.bus.next_deadline().map(|at| rest.map_or(at, |rest| rest.max(at)));
        bus.or(rest)
    }

    /// Whether a client is connected, and has broken no rule.
    pub fn is_connected(&self) -> bool {
        self.connection.is_some() && self.fault.is_none()
    }

    /// Whether the vif has been removed: it never connects again, and can be dropped.
    pub fn is_gone(&self) -> bool {
        self.gone
    }

    /// The event channels on which the client wakes us, while it is connected, each once: of every
    /// queue one for what it sends and one for pages that it posts, or one for both.
    pub fn ports(&self) -> impl Iterator<Item = Port> + '_ {
        self.connection.iter().flat_map(Connection::ports)
    }

    /// Queues of the connected client, 0 without one.
    pub fn queues(&self) -> usize {
        self.connection.as_ref().map_or(0, Connection::queues)
    }

    /// The domain that we serve, and the number of its vif.
    pub fn id(&self) -> VifId {
        (self.client, self.number)
    }

    /// What the client published to be connected by, while it is connected.
    pub fn frontend(&self) -> Option<&FrontendOffer> {
        self.bus.frontend_offer()
    }

    /// What the toolstack says of the vif, as of the last connection.
    pub fn spec(&self) -> &VifSpec {
        self.bus.spec()
    }

    /// The address that the toolstack gave the client. `None` if it gave none, or nobody was
    /// connected yet.
    pub fn client_mac(&self) -> Option<[u8; 6]> {
        self.spec().mac
    }

    /// The client's MTU, as far as the toolstack says: octets above Ethernet, 1500 by default. Where it says
    /// so, a longer packet for the client is refused, unless it is a large one.
    pub fn mtu(&self) -> usize {
        usize::from(self.spec().mtu.unwrap_or(DEFAULT_MTU))
    }

    /// Counters.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Packets that wait for the client.
    pub fn queued(&self) -> usize {
        self.connection.as_ref().map_or(0, Connection::queued)
    }

    // -- from the client --------------------------------------------------------------------

    /// Hands up to `budget` packets of the client's to `sink`; returns how many it handed up.
    ///
    /// The budget is in packets of one slot and up to 1514 bytes. Others count for the work that
    /// they make, dropped ones included, and what goes beyond the budget comes off the next.
    /// Packets come with [`Config::headroom`], densely packed, headers in one piece. Queues take
    /// turns within the budget.
    #[inline]
    pub(super) fn poll(
        &mut self,
        scratch: &mut from_client::Scratch,
        budget: usize,
        sink: impl FnMut(PacketMut),
    ) -> usize {
        let Some(connection) = self.connection.as_mut().filter(|_| self.fault.is_none()) else {
            return 0;
        };
        let means = (&self.pool, scratch);
        match connection.poll(&self.platform, means, budget, &mut self.counters, sink) {
            Ok(packets) => packets,
            Err(fault) => {
                self.fault = Some(fault);
                0
            }
        }
    }

    // -- to the client ----------------------------------------------------------------------

    /// Queues a packet for the client; gives it back if there is no room now, and refuses one that can't be
    /// delivered: that is dropped and counted.
    ///
    /// What the client does not take is done here: a blank checksum is filled in, in place if
    /// nobody else reads the packet, and a large packet is cut into segments that share its data. There is
    /// room for all of them or it is given back; of one that not even an empty queue has room for the
    /// first segments wait, and the others count as dropped.
    #[inline]
    #[expect(clippy::result_large_err, reason = "the packet comes back, not an error")]
    pub(super) fn deliver(&mut self, mut packet: Packet) -> Result<(), DeliverError> {
        let Some(connection) = self.connection.as_mut().filter(|_| self.fault.is_none()) else {
            return Err(self.counters.undelivered(DeliverErrorKind::NotConnected).into());
        };
        let (account, counters) = (&mut self.account, &mut self.counters);
        match connection.deliver(&mut packet, &self.pool, account, counters) {
            Ok(()) => Ok(()),
            Err(Refusal::Full) => {
                self.counters.to_given_back += 1;
                Err(DeliverError::Full(packet))
            }
            Err(Refusal::Gone(why)) => Err(self.counters.undelivered(why).into()),
        }
    }

    /// The same for a packet that nobody takes back: without room it is dropped and counted.
    pub(super) fn deliver_or_drop(&mut self, packet: Packet) {
        if let Err(DeliverError::Full(_)) = self.deliver(packet) {
            self.counters.to_given_back -= 1;
            self.counters.undelivered(DeliverErrorKind::QueueFull);
        }
    }

    /// Copies as many queued packets to the client as it has posted pages for, and tells it of
    /// everything since the last time: one event at most on each of its channels.
    #[inline]
    pub(super) fn flush(&mut self, scratch: &mut to_client::Scratch) {
        let Some(connection) = self.connection.as_mut().filter(|_| self.fault.is_none()) else {
            return;
        };
        let means = (scratch, &mut self.account);
        if let Err(fault) = connection.flush(&self.platform, means, &mut self.counters) {
            self.fault = Some(fault);
        }
    }

    /// Flushes, and asks the client for an event when it sends something, and when it posts pages
    /// that a packet waits for. True if there is something to do already: then go round again
    /// instead of waiting, for that event may never come. If not, the platform hears that events
    /// are [handled](crate::platform::Platform::handled).
    #[inline]
    pub(super) fn rearm(&mut self, scratch: &mut to_client::Scratch) -> bool {
        self.flush(scratch);
        if self.fault.is_some() {
            return true;
        }
        let Some(connection) = &mut self.connection else { return false };
        match connection.arm(&self.platform, self.is_paused) {
            Ok(false) => {
                connection.handled(&self.platform);
                false
            }
            Ok(true) => true,
            Err(fault) => {
                self.fault = Some(fault);
                true
            }
        }
    }

    /// Nobody takes the client's packets until this is called again: until then they are no reason to go
    /// round again, and a client that goes on sending wakes nobody. Those that are there stay there.
    pub(super) fn pause_receive(&mut self, is_paused: bool) {
        self.is_paused = is_paused;
    }

    /// Who waits for it. The platform wakes it with each event
    /// ([`Platform::opened`](crate::platform::Platform::opened)); a kernel may wake it for a xenstore
    /// watch too.
    pub fn waker(&self) -> &Wake {
        &self.wake
    }

    /// Tells the client whether there is a network behind us (`carrier`): as long as nobody has
    /// called this, it takes it that there is. [`service`](super::Netback::service) writes it.
    pub(super) fn set_carrier(&mut self, up: bool) {
        self.bus.set_carrier(up);
    }

    // -- connection -------------------------------------------------------------------------

    fn connect(&mut self, scratch: &mut Scratch, now: Instant) {
        self.disconnect();
        let opened = match self.bus.frontend_offer() {
            Some(offer) => {
                let channel = Channel {
                    peer: self.client,
                    vif: self.number,
                    queue: 0,
                    rings: Rings::Both,
                    wake: self.wake.clone(),
                };
                let (platform, counters) = (&self.platform, &mut self.counters);
                let terms = (offer, self.bus.spec());
                scratch.reserve().map_err(Obstacle::from).and_then(|()| {
                    Connection::open(platform, &channel, terms, &self.config, counters)
                })
            }
            None => Err(Obstacle::Incomplete),
        };
        match opened {
            Ok(connection) => {
                self.connection = Some(connection);
                self.tries = 0;
                self.counters.connects += 1;
                self.bus.connected(now);
            }
            Err(obstacle) if obstacle.passes(self.tries) => {
                let level = if self.tries > 0 { log::Level::Debug } else { log::Level::Warn };
                let (client, vif) = (self.client.0, self.number);
                log::log!(level, "domain {client}, vif {vif}: not connected yet: {obstacle}");
                self.tries = self.tries.saturating_add(1);
                self.bus.postpone(now);
            }
            Err(obstacle) => {
                if let Obstacle::Fault(_) = obstacle {
                    self.counters.faults += 1;
                }
                self.tries = 0;
                self.bus.failed(now, &obstacle.to_string());
            }
        }
    }

    /// What waits for the client is charged to this account from now on.
    pub(super) fn set_account(&mut self, mut account: Account) {
        account.take_over(&self.account);
        self.account = account;
    }

    /// Ends the connection, whatever the client does.
    fn disconnect(&mut self) {
        self.fault = None;
        if let Some(connection) = self.connection.take() {
            self.counters.to_drops.disconnected += connection.queued() as u64;
            drop(connection);
            self.account.clear();
        }
    }
}

impl<P: BackendPlatform, S: Store> core::fmt::Debug for Vif<P, S> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Vif")
            .field("client", &self.client)
            .field("vif", &self.number)
            .field("is_connected", &self.is_connected())
            .field("is_gone", &self.gone)
            .field("queues", &self.queues())
            .field("queued", &self.queued())
            .field("fault", &self.fault)
            .finish_non_exhaustive()
    }
}
