//! How a connection is made, watched over, and taken apart.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use xen_grant::{GrantedPage, Grantee, Quarantine, Reference};

use super::connection::{Connection, Queue, Queues, State};
use super::rx::RxQueue;
use super::target::Target;
use super::tx::TxQueue;
use super::{Netfront, Stats};
use crate::platform::{Instant, Platform};
use crate::store::Store;
use crate::wire::MAX_PACKET;
use crate::xenbus::BackendOffer;

/// Transmitted packets that stay unanswered for so long mean that the backend has gone silent.
pub(super) const STALL: Duration = Duration::from_secs(10);

/// Ethernet header with a VLAN tag, which netif does not count into the MTU.
pub(super) const LINK_HEADER: usize = 18;

/// A node to publish: its name below our directory, and its value.
type Node = (String, String);

fn node(name: &str, value: impl core::fmt::Display) -> Node {
    (String::from(name), format!("{value}"))
}

impl<P: Platform, S: Store> Netfront<P, S> {
    /// Makes rings and event channels and shows them to the backend.
    pub(super) fn connect(&mut self, now: Instant) {
        self.dismantle();
        // What other devices left in the table's quarantine may have come free.
        self.table.sweep();
        // With too much in quarantine the device stays down; the bus asks again later.
        let published = !self.quarantine.too_full()
            && self.make_queues(now).is_some_and(|nodes| {
                self.refill();
                self.bus.publish(now, &nodes).is_ok()
            });
        if !published {
            self.dismantle();
            self.bus.fail(now);
        }
    }

    /// Makes the connection; returns what is to be published of it. `None` if pages, references or
    /// event channels are short.
    fn make_queues(&mut self, now: Instant) -> Option<Vec<Node>> {
        if !self.claim_references() {
            return None;
        }
        let offer = self.bus.offer().clone();
        let features = self.config.features_to(&offer);
        let count = self.config.queues_with(&offer);
        let mut nodes = alloc::vec![node("request-rx-copy", 1), node("feature-rx-notify", 1)];
        let own = self.config.features.coherent().nodes();
        nodes.extend(own.into_iter().map(|(name, value)| node(name, value)));
        if count > 1 {
            nodes.push(node("multi-queue-num-queues", count));
        }
        // More are for backends with more queues.
        let most = self.config.references() / self.config.most_queues() as usize;
        for number in 0..count {
            // One queue keeps its nodes at the top, where frontends have always had them.
            let dir = if count > 1 { format!("queue-{number}/") } else { String::new() };
            let share = (self.references.len() / (count - number) as usize).min(most);
            let mine = self.references.split_off(self.references.len() - share);
            let queue = self.make_queue(now, &offer, mine, &dir, &mut nodes)?;
            match &mut self.connection {
                Some(connection) => connection.queues.others.push(queue),
                None => {
                    let queues = Queues { first: queue, others: Vec::new() };
                    self.connection = Some(Connection::new(queues, features, longest(&offer)));
                }
            }
        }
        Some(nodes)
    }

    /// Replaces references in quarantine, as far as the table has more, and claims anew what the
    /// device gave back while its vif was away. Whether there are enough: others may have them, or
    /// those in quarantine, so that it does without a quarter.
    fn claim_references(&mut self) -> bool {
        let wanted = self.config.references();
        while self.references.len() < wanted
            && let Ok(reference) = self.table.claim()
        {
            self.references.push(reference);
        }
        let enough = self.references.len() >= wanted - wanted / 4;
        if !enough {
            let free = self.references.len();
            if !self.wants_references {
                log::warn!("vif: {wanted} grant references are needed and {free} free: waiting");
            }
            self.references.clear();
        }
        self.wants_references = !enough;
        enough
    }

    /// Makes a queue that grants with `references`, and adds to `nodes` what is to be published.
    fn make_queue(
        &mut self,
        now: Instant,
        offer: &BackendOffer,
        mut references: Vec<Reference>,
        dir: &str,
        nodes: &mut Vec<Node>,
    ) -> Option<Queue> {
        let grantee = Grantee::new(offer.domain, offer.trusted).on_machine(self.stats.resumes);
        let mut ring_page = || {
            // If it is not used after all, dropping it ends the grant.
            let page = GrantedPage::new(self.pool.take()?, references.pop()?, &grantee);
            self.stats.grants += 1;
            Some(page)
        };
        let (tx_page, rx_page) = (ring_page()?, ring_page()?);
        let named = |name: &str, value: u32| (format!("{dir}{name}"), format!("{value}"));
        nodes.push(named("tx-ring-ref", tx_page.number()));
        nodes.push(named("rx-ring-ref", rx_page.number()));
        let tx_port = self.platform.alloc_unbound(grantee.domain()).ok()?;
        let mut rx_port = tx_port;
        if self.config.split_event_channels && offer.split_event_channels {
            let Ok(port) = self.platform.alloc_unbound(grantee.domain()) else {
                self.platform.close(tx_port);
                return None;
            };
            rx_port = port;
            nodes.push(named("event-channel-tx", tx_port.get()));
            nodes.push(named("event-channel-rx", rx_port.get()));
        } else {
            nodes.push(named("event-channel", tx_port.get()));
        }
        let config = &self.config;
        let rx_references = references.split_off(references.len() / 2);
        let target = Target::new(config.rx_floor, config.rx_ceiling);
        let start = config.ring_start;
        let tx = TxQueue::new(tx_page, start, references, grantee, config.tx_bytes);
        let features = config.features.coherent();
        let rx = RxQueue::new(rx_page, start, rx_references, grantee, target, features);
        Some(Queue::new(tx, rx, (tx_port, rx_port), now))
    }

    /// Ends the connection on our side, at once and whatever the backend does.
    pub(super) fn dismantle(&mut self) {
        let Some(connection) = self.connection.take() else { return };
        for queue in connection.queues.into_iter() {
            self.platform.close(queue.tx_port);
            if queue.rx_port != queue.tx_port {
                self.platform.close(queue.rx_port);
            }
            let tx = queue.tx.dismantle(&mut self.quarantine, &mut self.stats);
            let rx = queue.rx.dismantle(&mut self.quarantine, &mut self.stats);
            self.references.extend(tx.into_iter().chain(rx));
        }
    }

    pub(super) fn retry_quarantine(&mut self, now: Instant) {
        self.stats.revokes += self.quarantine.retry(now.since(Instant(0))) as u64;
    }

    /// Sees whether the backend has broken a rule or gone silent, and has the bus reconnect.
    pub(super) fn watch_connection(&mut self, now: Instant) {
        let Some(connection) = &mut self.connection else { return };
        match connection.state {
            State::Broken => {
                self.stats.faults += 1;
                connection.state = State::Closing;
                self.bus.fail(now);
            }
            State::Live => {
                let mut silent = None;
                connection.queues.each(|queue| silent = silent.or(stalled(queue, now)));
                let Some(silent) = silent else { return };
                log::warn!("vif: {silent} slots unanswered for 10 s, reconnecting");
                self.stats.stalls += 1;
                connection.state = State::Stalled;
                self.bus.recheck(now);
                self.bus.fail(now);
            }
            State::Waiting | State::NoCarrier | State::Stalled | State::Closing => {}
        }
    }
}

/// Slots of a queue that the backend leaves unanswered for too long.
fn stalled(queue: &mut Queue, now: Instant) -> Option<u32> {
    let (outstanding, answered) = (queue.tx.outstanding(), queue.tx.answered());
    if outstanding == 0 || queue.answered_then != answered {
        queue.answered_then = answered;
        queue.tx_moved = now;
    }
    (now.since(queue.tx_moved) >= STALL).then_some(outstanding)
}

/// The most bytes of a packet that is not to be cut.
fn longest(offer: &BackendOffer) -> usize {
    (usize::from(offer.mtu) + LINK_HEADER).min(MAX_PACKET)
}

/// Ends the sharing of a ring's page; its reference is free again unless the backend still maps it.
pub(super) fn end_ring(
    page: GrantedPage,
    references: &mut Vec<Reference>,
    quarantine: &mut Quarantine,
    stats: &mut Stats,
) {
    match page.revoke() {
        Ok((_frame, reference)) => {
            stats.revokes += 1;
            references.push(reference);
        }
        Err(still) => {
            stats.quarantined += 1;
            quarantine.admit(still);
        }
    }
}
