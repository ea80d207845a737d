//! How a connection is made, watched over, and taken apart.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use xen_grant::{GrantedPage, Grantee};

use super::connection::{Connection, State};
use super::patience::Patience;
use super::queues::{Queue, Queues};
use super::rx::RxQueue;
use super::target::Target;
use super::tx::TxQueue;
use super::{Netfront, Obstacle};
use crate::platform::{Channel, EventError, Instant, Platform, Port, Rings};
use crate::wire::MAX_PACKET;
use crate::xenbus::BackendOffer;
use crate::xenbus::feature_nodes;
use packet_views::header::LINK_HEADER;
use xen_store::{Store, StoreError};

/// A node to publish: its name below our directory, and its value.
type Node = (String, String);

fn node(name: &str, value: impl core::fmt::Display) -> Node {
    (String::from(name), format!("{value}"))
}

impl<P: Platform, S: Store> Netfront<P, S> {
    /// Makes rings and event channels and shows them to the backend. If something is wanting, the bus
    /// asks again later.
    pub(super) fn connect(&mut self, now: Instant) {
        self.dismantle();
        // What other devices left in the table's quarantine may have come free.
        self.table.sweep();
        let published = self.make_queues(now).and_then(|nodes| {
            self.refill();
            self.bus.publish(now, &nodes).map_err(Obstacle::Store)
        });
        match published {
            Ok(()) => {
                self.patience.begin(self.bus.offer().rate);
                self.obstacle = None;
            }
            Err(obstacle) => {
                self.dismantle();
                self.bus.fail(now);
                self.note_obstacle(obstacle);
            }
        }
    }

    /// Says once what is wanting, however often it is tried again.
    fn note_obstacle(&mut self, obstacle: Obstacle) {
        let kind = core::mem::discriminant(&obstacle);
        let is_known = self.obstacle.is_some_and(|known| core::mem::discriminant(&known) == kind);
        // A store that is busy says nothing about the vif.
        if !is_known && obstacle != Obstacle::Store(StoreError::Again) {
            log::warn!("vif: can't connect: {obstacle}");
        }
        self.obstacle = Some(obstacle);
    }

    /// Makes the connection; returns what is to be published of it. If something is wanting, the caller
    /// takes down what there is.
    fn make_queues(&mut self, now: Instant) -> Result<Vec<Node>, Obstacle> {
        if self.bus.offer().mac.is_none() {
            return Err(Obstacle::NoMac);
        }
        if self.quarantine.too_full() {
            return Err(Obstacle::Quarantine { pages: self.quarantine.len() });
        }
        self.claim_references()?;
        let offer = self.bus.offer().clone();
        let features = self.config.features_to(&offer);
        let count = self.config.queues_with(&offer);
        let mut nodes = alloc::vec![node("request-rx-copy", 1), node("feature-rx-notify", 1)];
        let own = feature_nodes(&self.config.features.coherent());
        nodes.extend(own.into_iter().map(|(name, value)| node(name, value)));
        if count > 1 {
            nodes.push(node("multi-queue-num-queues", count));
        }
        // Pages in quarantine are the backend's for now, and this device's trouble.
        let mut missing = self.budget.make_up_for(self.quarantine.len());
        // More are for backends with more queues.
        let most = self.config.references() / self.config.most_queues() as usize;
        for number in 0..count {
            // One queue keeps its nodes at the top, where frontends have always had them.
            let dir = if count > 1 { format!("queue-{number}/") } else { String::new() };
            let share = (self.references.len() / (count - number) as usize).min(most);
            let kept = missing.div_ceil(count - number);
            missing -= kept;
            let queue = self.make_queue(now, &offer, (share, kept), (number, &dir), &mut nodes)?;
            match &mut self.connection {
                Some(connection) => connection.queues.others.push(queue),
                None => {
                    let queues = Queues::of(queue);
                    self.connection = Some(Connection::new(queues, features, longest(&offer)));
                }
            }
        }
        if let Some(connection) = &mut self.connection {
            connection.queues.share_out(&mut self.budget);
            if connection.queues.is_crippled() {
                return Err(Obstacle::NoPages);
            }
        }
        Ok(nodes)
    }

    /// Replaces references in quarantine, as far as the table has more, and claims anew what the
    /// device gave back while its vif was away. Others may have them, or those in quarantine, so that it
    /// does without a quarter.
    fn claim_references(&mut self) -> Result<(), Obstacle> {
        let wanted = self.config.references();
        while self.references.len() < wanted
            && let Ok(reference) = self.table.claim()
        {
            self.references.push(reference);
        }
        if self.references.len() >= wanted - wanted / 4 {
            return Ok(());
        }
        let free = self.references.len();
        self.references.clear();
        Err(Obstacle::NoReferences { wanted, free })
    }

    /// Makes a queue that grants with `share` of the references, `kept` pages of whose share are in
    /// quarantine, and adds to `nodes` what is to be published.
    fn make_queue(
        &mut self,
        now: Instant,
        offer: &BackendOffer,
        (share, kept): (usize, u32),
        (number, dir): (u32, &str),
        nodes: &mut Vec<Node>,
    ) -> Result<Queue, Obstacle> {
        let grantee = Grantee::new(offer.domain, offer.trusted).on_machine(self.table.machine());
        let frame = || self.budget.pool().take().ok_or(Obstacle::NoPages);
        let (tx_frame, rx_frame) = (frame()?, frame()?);
        let free = self.references.len();
        let mut references = self.references.split_off(free - share.min(free));
        let (Some(tx_reference), Some(rx_reference)) = (references.pop(), references.pop()) else {
            return Err(Obstacle::NoReferences { wanted: 2, free });
        };
        let split = self.config.split_event_channels && offer.split_event_channels;
        let channel = Channel {
            peer: grantee.domain(),
            vif: self.vif,
            queue: number,
            rings: Rings::Both,
            wake: self.wake.clone(),
        };
        // Nothing fails behind it: the ports are the queue's.
        let (tx_port, rx_port) = match open_ports(&self.platform, channel, split) {
            Ok(ports) => ports,
            Err(error) => {
                // The device keeps what it has claimed.
                self.references.extend(references.into_iter().chain([tx_reference, rx_reference]));
                return Err(Obstacle::NoEventChannel(error));
            }
        };
        let tx_page = GrantedPage::new(tx_frame, tx_reference, &grantee);
        let rx_page = GrantedPage::new(rx_frame, rx_reference, &grantee);
        self.counters.grants += 2;
        let mut publish = |name: &str, value: u32| {
            nodes.push((format!("{dir}{name}"), format!("{value}")));
        };
        publish("tx-ring-ref", tx_page.number());
        publish("rx-ring-ref", rx_page.number());
        if split {
            publish("event-channel-tx", tx_port.get());
            publish("event-channel-rx", rx_port.get());
        } else {
            publish("event-channel", tx_port.get());
        }
        let config = &self.config;
        let rx_references = references.split_off(references.len() / 2);
        let target = Target::new(config.rx_floor, config.rx_ceiling);
        let start = config.ring_start;
        let tx = TxQueue::new(tx_page, start, references, grantee, config.tx_bytes);
        let features = config.features.coherent();
        let rx = RxQueue::new(rx_page, start, rx_references, grantee, target, features, kept);
        Ok(Queue::new(tx, rx, (tx_port, rx_port), now))
    }

    /// Ends the connection on our side, at once and whatever the backend does.
    pub(super) fn dismantle(&mut self) {
        self.budget.settle();
        let Some(connection) = self.connection.take() else { return };
        for queue in connection.queues.into_iter() {
            self.platform.close(queue.tx_port);
            if queue.rx_port != queue.tx_port {
                self.platform.close(queue.rx_port);
            }
            // What sending kept at hand lies on top of the pool then, and is at hand the next time.
            let rx = queue.rx.dismantle(&mut self.quarantine, &mut self.counters);
            let tx = queue.tx.dismantle(&mut self.quarantine, &mut self.counters);
            self.references.extend(tx.into_iter().chain(rx));
        }
    }

    pub(super) fn retry_quarantine(&mut self, now: Instant) {
        let ended = self.quarantine.retry(now.since(Instant(0)));
        self.counters.revokes += ended as u64;
        let Some(connection) = &mut self.connection else { return };
        for _ in 0..ended {
            // It came free with the page.
            let Some(reference) = self.references.pop().or_else(|| self.table.claim().ok()) else {
                break;
            };
            if !connection.queues.restore(reference) {
                self.budget.came_home();
            }
        }
    }

    /// Sees whether the backend has broken a rule or gone silent, and has the bus reconnect.
    pub(super) fn check_connection(&mut self, now: Instant) {
        let Some(connection) = &mut self.connection else { return };
        match connection.state {
            State::Broken => {
                self.counters.faults += 1;
                connection.state = State::Closing;
                self.bus.fail(now);
            }
            State::Live | State::NoCarrier if connection.queues.is_crippled() => {
                log::warn!(
                    "vif: the backend still maps {} pages of requests it has answered, reconnecting",
                    self.quarantine.len()
                );
                self.counters.crippled += 1;
                connection.state = State::Closing;
                self.bus.fail(now);
            }
            State::Live => {
                let mut silent = None;
                let patience = &mut self.patience;
                connection.queues.each(|queue| silent = silent.or(stalled(queue, now, patience)));
                let Some(silent) = silent else { return };
                let limit = patience.limit();
                log::warn!(
                    "vif: {silent} transmit requests, none answered for {limit:?}: reconnecting"
                );
                patience.run_out();
                self.counters.stalls += 1;
                connection.state = State::Stalled;
                self.bus.recheck(now);
                self.bus.fail(now);
            }
            State::Waiting | State::NoCarrier | State::Stalled | State::Closing => {}
        }
    }
}

/// An event channel for each ring, or one for both.
fn open_ports<P: Platform>(
    platform: &P,
    channel: Channel,
    split: bool,
) -> Result<(Port, Port), EventError> {
    let tx = platform.alloc_unbound(channel.peer)?;
    if !split {
        platform.opened(tx, channel);
        return Ok((tx, tx));
    }
    let rx = platform.alloc_unbound(channel.peer).inspect_err(|_| platform.close(tx))?;
    platform.opened(tx, Channel { rings: Rings::Transmit, ..channel.clone() });
    platform.opened(rx, Channel { rings: Rings::Receive, ..channel });
    Ok((tx, rx))
}

/// Slots of a queue that the backend leaves unanswered for too long.
fn stalled(queue: &mut Queue, now: Instant, patience: &mut Patience) -> Option<u32> {
    let (outstanding, answered) = (queue.tx.outstanding(), queue.tx.answered());
    let waited = now.since(queue.tx_moved);
    let moved = queue.answered_then != answered;
    if outstanding > 0 && !moved && !queue.is_fresh() {
        return (waited >= patience.limit()).then_some(outstanding);
    }
    // After more than that nobody looked, and the backend may have answered at once.
    if moved && waited <= patience.limit() {
        patience.answered(waited);
    }
    (queue.answered_then, queue.asked_then) = (answered, queue.tx.asked());
    queue.tx_moved = now;
    None
}

/// The most bytes of a packet that is not to be cut. (A tag is allowed for, whether there is one or not:
/// nobody looks for it on the packet path.)
fn longest(offer: &BackendOffer) -> usize {
    (usize::from(offer.mtu) + LINK_HEADER).min(MAX_PACKET)
}
