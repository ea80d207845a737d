//! One connection to the backend: how it is made, watched over, and taken apart.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use xen_grant::{GrantedPage, Grantee, Quarantine, Reference};

use super::rx::RxQueue;
use super::tx::TxQueue;
use super::{Fault, Netfront, QUOTA, STALL, Stats};
use crate::platform::{Instant, Platform, Port};
use crate::store::Store;

/// The rings of one connection, and how they fare.
pub(super) struct Queue {
    pub(super) tx: TxQueue,
    pub(super) rx: RxQueue,
    pub(super) port: Port,
    state: State,
    /// The last moment at which transmit was idle or moved.
    pub(super) tx_moved: Instant,
    completed_then: u64,
}

/// In the order in which things go wrong.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd)]
enum State {
    /// Published; the backend is not there yet.
    Waiting,
    /// Both ends are connected.
    Live,
    /// The backend is silent. Nothing more is sent, but what comes is received until xenbus has
    /// closed the connection.
    Stalled,
    /// The backend broke a rule, and `service` does not know yet.
    Broken,
    /// As before, and xenbus is closing the connection.
    Closing,
}

impl Queue {
    /// The backend has connected. False if that is no news.
    pub(super) fn go_live(&mut self, now: Instant) -> bool {
        let news = self.state == State::Waiting;
        if news {
            self.state = State::Live;
            self.tx_moved = now;
        }
        news
    }

    /// Whether packets may be sent.
    #[inline]
    pub(super) fn takes_packets(&self) -> bool {
        self.state == State::Live
    }

    /// Whether the rings must be left alone.
    #[inline]
    pub(super) fn is_broken(&self) -> bool {
        self.state >= State::Broken
    }

    /// Whether `service` has something to learn.
    pub(super) fn has_news(&self) -> bool {
        self.state == State::Broken
    }

    /// The backend broke a rule.
    #[cold]
    #[inline(never)]
    pub(super) fn break_down(&mut self, fault: Fault) {
        if !self.is_broken() {
            log::warn!("vif: the backend broke a rule: {fault}");
            self.state = State::Broken;
        }
    }
}

impl<P: Platform, S: Store> Netfront<P, S> {
    /// Makes rings and event channel and shows them to the backend.
    pub(super) fn connect(&mut self, now: Instant) {
        self.dismantle();
        // With too much in quarantine the device stays down; the bus asks again later.
        let published = !self.quarantine.too_full()
            && self.make_queue(now).is_some_and(|(queue, keys)| {
                self.queue = Some(queue);
                self.refill();
                self.bus.publish(now, &keys).is_ok()
            });
        if !published {
            self.dismantle();
            self.bus.fail(now);
        }
    }

    /// `None` if pages, references or event channels are short.
    fn make_queue(&mut self, now: Instant) -> Option<(Queue, [(&'static str, String); 7])> {
        // References in quarantine are replaced, as far as the table has more.
        while self.references.len() < QUOTA
            && let Ok(reference) = self.table.claim()
        {
            self.references.push(reference);
        }
        let offer = self.bus.offer();
        let grantee = Grantee::new(offer.domain, offer.trusted);
        let tx_page = self.ring_page(&grantee)?;
        let rx_page = self.ring_page(&grantee)?;
        let port = self.platform.alloc_unbound(grantee.domain()).ok()?;
        let on = |feature: bool| String::from(if feature { "1" } else { "0" });
        let keys = [
            ("tx-ring-ref", format!("{}", tx_page.number())),
            ("rx-ring-ref", format!("{}", rx_page.number())),
            ("event-channel", format!("{}", port.get())),
            ("request-rx-copy", on(true)),
            ("feature-rx-notify", on(true)),
            ("feature-sg", on(self.config.features.scatter_gather)),
            // Absent would mean that we take packets with blank checksums.
            ("feature-no-csum-offload", on(true)),
        ];
        let rx_references = self.references.split_off(self.references.len() / 2);
        let tx_references = core::mem::take(&mut self.references);
        let start = self.config.ring_start;
        let queue = Queue {
            tx: TxQueue::new(tx_page, start, tx_references, grantee),
            rx: RxQueue::new(rx_page, start, rx_references, grantee),
            port,
            state: State::Waiting,
            tx_moved: now,
            completed_then: self.stats.tx_completed,
        };
        Some((queue, keys))
    }

    /// A ring's page. If it is not used after all, dropping it ends the grant.
    fn ring_page(&mut self, grantee: &Grantee) -> Option<GrantedPage> {
        let frame = self.pool.take()?;
        let page = GrantedPage::new(frame, self.references.pop()?, grantee);
        self.stats.grants += 1;
        Some(page)
    }

    /// Ends the connection on our side, at once and whatever the backend does.
    pub(super) fn dismantle(&mut self) {
        if let Some(queue) = self.queue.take() {
            self.platform.close(queue.port);
            let tx = queue.tx.dismantle(&mut self.quarantine, &mut self.stats);
            let rx = queue.rx.dismantle(&mut self.quarantine, &mut self.stats);
            self.references.extend(tx.into_iter().chain(rx));
        }
    }

    pub(super) fn retry_quarantine(&mut self, now: Instant) {
        self.stats.revokes += self.quarantine.retry(now.since(Instant(0))) as u64;
    }

    /// Sees whether the backend has broken a rule or gone silent, and has the bus reconnect.
    pub(super) fn watch_queue(&mut self, now: Instant) {
        let Some(queue) = &mut self.queue else { return };
        match queue.state {
            State::Broken => {
                self.stats.faults += 1;
                queue.state = State::Closing;
                self.bus.fail(now);
            }
            State::Live => {
                let outstanding = queue.tx.outstanding();
                if outstanding == 0 || queue.completed_then != self.stats.tx_completed {
                    queue.completed_then = self.stats.tx_completed;
                    queue.tx_moved = now;
                } else if now.since(queue.tx_moved) >= STALL {
                    log::warn!("vif: {outstanding} slots unanswered for 10 s, reconnecting");
                    self.stats.stalls += 1;
                    queue.state = State::Stalled;
                    self.bus.recheck(now);
                    self.bus.fail(now);
                }
            }
            State::Waiting | State::Stalled | State::Closing => {}
        }
    }
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
