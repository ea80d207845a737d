//! What both hostile peers share: the script, the directory, the event channel.

use core::time::Duration;
use std::collections::VecDeque;

use xen_grant::DomId;
use xen_netfront::platform::{Instant, Platform, Port};
use xen_netfront::store::Store;

use crate::{Domain, GrantedPage, Next, StoreClient};

use super::raw::RawRing;
use super::script::{Script, Step};
use super::token::Ring;

/// What a peer does when its script has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// Behave from then on.
    Honest,
    /// Do nothing at all.
    Silent,
    /// Begin the script again.
    Repeat,
}

/// How long a step waits for a connection before it is skipped.
const CONNECT_PATIENCE: Duration = Duration::from_millis(200);

/// What is to be done now.
pub(super) enum Turn {
    /// A step of the script.
    Step(Step),
    /// A round as an honest peer.
    Honest,
    /// Nothing, until then.
    Quiet(Option<Instant>),
}

pub(super) struct Peer {
    pub(super) domain: Domain,
    pub(super) store: StoreClient,
    pub(super) victim: DomId,
    /// Our directory and the victim's, absolute.
    pub(super) ours: String,
    pub(super) theirs: String,
    pub(super) port: Option<Port>,
    /// The victim's port, for events without a channel.
    pub(super) victim_port: Option<Port>,
    /// Whether we follow the victim's state.
    pub(super) following: bool,
    /// Whether xenstore may say something new.
    pub(super) news: bool,
    pub(super) tx: Option<RawRing>,
    pub(super) rx: Option<RawRing>,
    pub(super) pages: Vec<GrantedPage>,
    steps: VecDeque<Step>,
    script: Script,
    after: After,
    quiet_until: Option<Instant>,
    honest_rounds: u8,
    waiting_since: Option<Instant>,
    pub(super) done: u64,
    pub(super) skipped: u64,
}

impl Peer {
    pub(super) fn new(domain: &Domain, victim: DomId, ours: String, theirs: String) -> Peer {
        Peer {
            domain: domain.clone(),
            store: domain.store(),
            victim,
            ours,
            theirs,
            port: None,
            victim_port: None,
            following: true,
            news: true,
            tx: None,
            rx: None,
            pages: Vec::new(),
            steps: VecDeque::new(),
            script: Script::default(),
            after: After::Honest,
            quiet_until: None,
            honest_rounds: 0,
            waiting_since: None,
            done: 0,
            skipped: 0,
        }
    }

    pub(super) fn play(&mut self, script: Script, after: After) {
        self.steps = script.0.iter().cloned().collect();
        self.script = script;
        self.after = after;
        self.quiet_until = None;
        self.honest_rounds = 0;
    }

    /// What to do at this moment. Steps wait for a connection for a while.
    pub(super) fn turn(&mut self, now: Instant, connected: bool) -> Turn {
        if let Some(until) = self.quiet_until {
            if now < until {
                return Turn::Quiet(Some(until));
            }
            self.quiet_until = None;
        }
        if self.honest_rounds > 0 {
            self.honest_rounds -= 1;
            return Turn::Honest;
        }
        if self.steps.is_empty() {
            match self.after {
                After::Honest => {
                    self.news |= !self.following;
                    self.following = true;
                    return Turn::Honest;
                }
                After::Silent => return Turn::Quiet(None),
                After::Repeat => self.steps = self.script.0.iter().cloned().collect(),
            }
        }
        if !connected && self.steps.front().is_some_and(needs_connection) {
            let since = *self.waiting_since.get_or_insert(now);
            if self.following && now.since(since) < CONNECT_PATIENCE {
                return Turn::Quiet(Some(now + Duration::from_millis(1)));
            }
            self.skipped += 1;
            self.steps.pop_front();
            return Turn::Quiet(Some(now));
        }
        self.waiting_since = None;
        match self.steps.pop_front() {
            Some(step) => Turn::Step(step),
            None => Turn::Quiet(None),
        }
    }

    /// Whether the script wants nothing to happen now, not even an answer to xenstore.
    pub(super) fn silent(&self, now: Instant) -> Option<Next> {
        if let Some(until) = self.quiet_until.filter(|&until| now < until) {
            return Some(Next::Sleep(until.since(now)));
        }
        (self.ended() && self.after == After::Silent).then_some(Next::Wait)
    }

    pub(super) fn ended(&self) -> bool {
        self.steps.is_empty() && self.honest_rounds == 0
    }

    pub(super) fn ring(&mut self, ring: Ring) -> Option<&mut RawRing> {
        match ring {
            Ring::Tx => self.tx.as_mut(),
            Ring::Rx => self.rx.as_mut(),
        }
    }

    pub(super) fn notify(&self) {
        match (self.port, self.victim_port) {
            (Some(port), _) => self.domain.notify(port),
            (None, Some(port)) => self.domain.host.raise(self.victim, port.get(), None),
            (None, None) => {}
        }
    }

    pub(super) fn close_port(&mut self) {
        if let Some(port) = self.port.take() {
            self.domain.close(port);
        }
    }

    /// Reads a number from a directory.
    pub(super) fn number(&self, dir: &str, key: &str) -> Option<u32> {
        self.store.get(&format!("{dir}/{key}"))?.trim().parse().ok()
    }

    /// Writes a key of ours; whether it is taken is not our concern.
    pub(super) fn write(&self, key: &str, value: &[u8]) {
        let _ = self.store.write(None, &format!("{}/{key}", self.ours), value);
    }

    pub(super) fn set_state(&self, state: u32) {
        if self.number(&self.ours, "state") != Some(state) {
            self.write("state", state.to_string().as_bytes());
        }
    }

    /// Does a step that either side can do; false if it is not one.
    pub(super) fn step(&mut self, step: &Step, now: Instant) -> bool {
        match step {
            Step::Index { ring, word, value } => {
                if let Some(ring) = self.ring(*ring) {
                    ring.apply(*word, *value);
                }
            }
            Step::Slot { ring, slot, a, b, c } => {
                if let Some(ring) = self.ring(*ring) {
                    ring.set_slot((*slot).into(), [*a, *b, *c]);
                }
            }
            Step::Fill { ring, seed } => {
                if let Some(ring) = self.ring(*ring) {
                    ring.fill(*seed);
                }
            }
            Step::Notify {} => self.notify(),
            Step::Storm { count } => (0..*count).for_each(|_| self.notify()),
            Step::Key { path, value } => self.write(&path.0, &value.0),
            Step::Unkey { path } => {
                let _ = self.store.remove(None, &format!("{}/{}", self.ours, path.0));
            }
            Step::State { state } => {
                self.following = false;
                self.write("state", state.to_string().as_bytes());
            }
            Step::Vanish {} => {
                let _ = self.store.remove(None, &self.ours);
            }
            Step::ClosePort {} => self.close_port(),
            Step::Silence { millis } => {
                self.quiet_until = Some(now + Duration::from_millis(millis.0.into()));
            }
            Step::Honest { rounds } => self.honest_rounds = *rounds,
            Step::Dump {} => {
                let seen = self.domain.dump_granted(self.victim);
                self.pages.extend(seen);
            }
            Step::Push { .. } | Step::Drop {} | Step::Connect {} => return false,
            Step::Map { .. }
            | Step::Keep { .. }
            | Step::Unmap {}
            | Step::Respond { .. }
            | Step::TxResponse { .. }
            | Step::RxResponse { .. }
            | Step::RxGso { .. }
            | Step::RxExtra { .. } => return false,
            Step::TxRequest { .. }
            | Step::TxChain { .. }
            | Step::TxGso { .. }
            | Step::TxExtra { .. }
            | Step::RxRequest { .. }
            | Step::Revoke { .. }
            | Step::Entry { .. } => return false,
        }
        true
    }
}

/// Whether a step makes sense only on a live connection.
fn needs_connection(step: &Step) -> bool {
    match step {
        Step::Index { .. } | Step::Slot { .. } | Step::Fill { .. } | Step::Push { .. } => true,
        Step::Notify {} | Step::Storm { .. } | Step::ClosePort {} | Step::Honest { .. } => true,
        Step::Map { .. } | Step::Keep { .. } | Step::Respond { .. } => true,
        Step::TxResponse { .. } | Step::RxResponse { .. } | Step::RxExtra { .. } => true,
        Step::TxRequest { .. } | Step::TxChain { .. } | Step::TxExtra { .. } => true,
        Step::RxRequest { .. } | Step::RxGso { .. } | Step::TxGso { .. } => true,
        Step::Key { .. } | Step::Unkey { .. } | Step::State { .. } | Step::Vanish {} => false,
        Step::Drop {} | Step::Connect {} | Step::Silence { .. } | Step::Dump {} => false,
        Step::Unmap {} | Step::Revoke { .. } | Step::Entry { .. } => false,
    }
}
