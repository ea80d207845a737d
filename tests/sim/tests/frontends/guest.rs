//! A domain with a frontend: carries its script out, a step at a time, and looks at its rings when an
//! event says so.

use xen_grant::DomId;
use xen_netfront::platform::Platform;
use xen_netfront::store::{Store, StoreError, Transaction};
use xen_sim::{Domain, Host, StoreClient, Vif};

use super::queue::{Frame, Queue};
use super::raw_client::{BACK, Received};
use super::script::{CLOSED, CLOSING, Frontend, GONE, INIT_WAIT, Step, When};
use super::slots::Cut;

/// What a frontend has published that it takes, and the protocol's default for the rest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Takes {
    pub chains: bool,
    pub blank_v4: bool,
    pub blank_v6: bool,
    pub gso_v4: bool,
    pub gso_v6: bool,
}

pub struct Guest {
    pub frontend: &'static Frontend,
    pub vif: Vif,
    pub domain: Domain,
    /// What is left of the script, the next step at the end.
    todo: Vec<&'static Step>,
    /// An open transaction, and its steps, for it may have to be done again.
    transaction: Option<(Transaction, Vec<&'static Step>)>,
    /// The state that a cycle has answered.
    answered: Option<u32>,
    /// How many queues it would like.
    pub most_queues: u32,
    pub queues: Vec<Queue>,
    /// Rings of a kernel that is no more.
    buried: Vec<Queue>,
    pub up: bool,
    hangs: bool,
    /// The backend's state that was last reacted to.
    seen: u32,
    pub received: Vec<Received>,
    /// What it found the backend to take when it made its rings.
    pub may_send: Takes,
    turn: usize,
}

impl Guest {
    pub fn new(host: &Host, frontend: &'static Frontend, vif: Vif) -> Guest {
        Guest {
            frontend,
            domain: host.domain(vif.frontend).unwrap(),
            vif,
            todo: Vec::new(),
            transaction: None,
            answered: None,
            most_queues: 1,
            queues: Vec::new(),
            buried: Vec::new(),
            up: false,
            hangs: false,
            seen: INIT_WAIT,
            received: Vec::new(),
            may_send: Takes::default(),
            turn: 0,
        }
    }

    /// Whose vif, and which.
    pub fn id(&self) -> (DomId, u32) {
        (self.vif.frontend, self.vif.index)
    }

    // -- xenstore ---------------------------------------------------------------------------------

    fn store(&self) -> StoreClient {
        self.domain.store()
    }

    pub fn key(&self, key: &str) -> Option<String> {
        self.store().get(&format!("{}/{key}", self.vif.front_dir()))
    }

    pub fn set(&self, key: &str, value: &str) {
        let within = self.transaction.as_ref().map(|open| open.0);
        let path = format!("{}/{key}", self.vif.front_dir());
        self.store().write(within, &path, value.as_bytes()).unwrap();
    }

    pub fn remove(&self, key: &str) {
        let within = self.transaction.as_ref().map(|open| open.0);
        let removed = self.store().remove(within, &format!("{}/{key}", self.vif.front_dir()));
        assert!(matches!(removed, Ok(()) | Err(StoreError::NotFound)), "{removed:?}");
    }

    pub fn offered(&self, key: &str) -> Option<String> {
        self.store().get(&format!("{}/{key}", self.vif.back_dir()))
    }

    fn is_offered(&self, key: &str) -> bool {
        self.offered(key).as_deref() == Some("1")
    }

    pub fn backend_state(&self) -> u32 {
        self.offered("state").and_then(|state| state.parse().ok()).unwrap_or(GONE)
    }

    pub fn takes(&self) -> Takes {
        let set = |key: &str| self.key(key).as_deref() == Some("1");
        let chains = set("feature-sg");
        let (blank_v4, blank_v6) =
            (!set("feature-no-csum-offload"), set("feature-ipv6-csum-offload"));
        Takes {
            chains,
            blank_v4,
            blank_v6,
            gso_v4: set("feature-gso-tcpv4") && chains && blank_v4,
            gso_v6: set("feature-gso-tcpv6") && chains && blank_v6,
        }
    }

    /// What it may send: what it can, as far as the backend takes it. Blank sums over IPv4 are taken
    /// unless a backend says that they are not, and Linux sends them even then.
    fn find_what_to_send(&self) -> Takes {
        let sends = self.frontend.sends;
        Takes {
            chains: sends.chains && self.is_offered("feature-sg"),
            blank_v4: sends.blank_v4,
            blank_v6: sends.blank_v6 && self.is_offered("feature-ipv6-csum-offload"),
            gso_v4: sends.gso_v4 && self.is_offered("feature-gso-tcpv4"),
            gso_v6: sends.gso_v6 && self.is_offered("feature-gso-tcpv6"),
        }
    }

    // -- the script -------------------------------------------------------------------------------

    /// Begins a script; what was left of another is forgotten.
    pub fn start(&mut self, script: &'static [Step]) {
        self.todo.clear();
        self.answered = None;
        self.push(script);
    }

    pub fn connect(&mut self) {
        self.start(self.frontend.connect);
    }

    pub fn close(&mut self) {
        self.start(self.frontend.close);
    }

    /// The kernel is gone without a word, and another has booted in its place, maybe of another kind.
    /// Nobody has ended the old one's grants or closed its channels.
    pub fn reboot(&mut self, frontend: &'static Frontend) {
        self.buried.append(&mut self.queues);
        self.up = false;
        self.frontend = frontend;
        self.received.clear();
        self.start(frontend.connect);
        self.push(frontend.recover);
    }

    /// Does nothing from now on.
    pub fn hang(&mut self) {
        self.todo.clear();
        self.hangs = true;
    }

    fn push(&mut self, script: &'static [Step]) {
        self.todo.extend(script.iter().rev());
    }

    /// Whether it has nothing to wait for.
    pub fn is_done(&self) -> bool {
        self.todo.is_empty()
    }

    /// Goes on as far as the backend lets it; whether anything moved.
    pub fn turn(&mut self) -> bool {
        if self.hangs || !self.domain.is_alive() {
            return false;
        }
        let mut moved = false;
        while let Some(step) = self.todo.pop() {
            if !self.perform(step) {
                self.todo.push(step);
                break;
            }
            moved = true;
        }
        if self.todo.is_empty() {
            moved |= self.react();
        }
        moved | self.look_at_rings()
    }

    fn react(&mut self) -> bool {
        let state = self.backend_state();
        if std::mem::replace(&mut self.seen, state) == state {
            return false;
        }
        match state {
            CLOSING => self.push(self.frontend.when_closing),
            CLOSED => self.push(self.frontend.when_closed),
            GONE => self.push(&[Step::Free]),
            _ => {}
        }
        true
    }

    /// Does one step; false if it has to wait.
    fn perform(&mut self, step: &'static Step) -> bool {
        if let (Some((_, steps)), true) = (&mut self.transaction, !matches!(step, Step::Commit)) {
            steps.push(step);
        }
        match *step {
            Step::Await(states) => return states.contains(&self.backend_state()),
            Step::Unless(states, steps) => {
                if !states.contains(&self.backend_state()) {
                    self.push(steps);
                }
            }
            Step::Cycle { until, answers } => return self.cycle(until, answers),
            Step::Rings => {
                self.may_send = self.find_what_to_send();
                let offered = self.offered("multi-queue-max-queues").and_then(|it| it.parse().ok());
                let count = self.most_queues.min(offered.unwrap_or(1));
                let manner = self.frontend.manner;
                let split = manner.split && self.is_offered("feature-split-event-channels");
                self.queues = (0..count).map(|_| Queue::new(&self.domain, manner, split)).collect();
            }
            Step::Post => self.queues.iter_mut().for_each(Queue::refill),
            Step::Notify => {
                for port in self.queues.iter().flat_map(|queue| &queue.ports) {
                    self.domain.notify(*port);
                }
            }
            Step::Begin => self.transaction = Some((self.store().begin().unwrap(), Vec::new())),
            Step::Commit => self.commit(),
            Step::Queue(keys) => self.write_queues(keys),
            Step::Queues(when) => {
                let wanted = match when {
                    When::Always => true,
                    When::Offered => self.offered("multi-queue-max-queues").is_some(),
                    When::Several => self.queues.len() > 1,
                };
                if wanted {
                    self.set("multi-queue-num-queues", &self.queues.len().to_string());
                }
            }
            Step::Set(key, value) => self.set(key, value),
            Step::SetIfOffered(key) => {
                if self.is_offered(key) {
                    self.set(key, "1");
                }
            }
            Step::Remove(key) => self.remove(key),
            Step::State(state) => self.set("state", &state.to_string()),
            Step::Up => {
                (self.up, self.seen) = (true, self.backend_state());
                self.queues.iter().for_each(Queue::unmask);
            }
            Step::Down => {
                self.up = false;
                self.queues.iter().for_each(Queue::mask);
            }
            Step::Free => {
                self.up = false;
                self.queues.drain(..).for_each(Queue::free);
            }
        }
        true
    }

    fn cycle(&mut self, until: u32, answers: &[(u32, u32)]) -> bool {
        let state = self.backend_state();
        if state == until || state == GONE && until == CLOSED {
            self.answered = None;
            return true;
        }
        let answer = answers.iter().find(|(seen, _)| *seen == state);
        if let Some((_, answer)) = answer.filter(|_| self.answered != Some(state)) {
            self.answered = Some(state);
            self.set("state", &answer.to_string());
        }
        false
    }

    fn commit(&mut self) {
        let Some((transaction, steps)) = self.transaction.take() else { return };
        match self.store().commit(transaction) {
            Ok(()) => {}
            Err(StoreError::Again) => {
                // Once more, from its beginning.
                self.todo.push(&Step::Commit);
                self.todo.extend(steps.into_iter().rev());
                self.todo.push(&Step::Begin);
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn write_queues(&self, keys: &[&str]) {
        for (number, queue) in self.queues.iter().enumerate() {
            let several = self.queues.len() > 1;
            let below = if several { format!("queue-{number}/") } else { String::new() };
            let set =
                |key: &str, value: u32| self.set(&format!("{below}{key}"), &value.to_string());
            let (tx, rx) = (queue.ports[0].get(), queue.ports[queue.ports.len() - 1].get());
            let split = queue.ports.len() > 1;
            for key in keys {
                match (*key, split) {
                    ("tx-ring-ref", _) => set(key, queue.tx_ref()),
                    ("rx-ring-ref", _) => set(key, queue.rx_ref()),
                    ("event-channel", true) => {
                        set("event-channel-tx", tx);
                        set("event-channel-rx", rx);
                    }
                    ("event-channel" | "event-channel-rx", false) => set("event-channel", rx),
                    ("event-channel-rx", true) => set(key, rx),
                    ("event-channel-tx", true) => set(key, tx),
                    ("event-channel-tx", false) => {}
                    (other, _) => panic!("no key of a queue: {other}"),
                }
            }
        }
    }

    // -- rings ------------------------------------------------------------------------------------

    fn look_at_rings(&mut self) -> bool {
        let pending = self.domain.take_pending();
        if !self.up {
            return false;
        }
        let mut moved = false;
        for queue in &mut self.queues {
            if self.frontend.manner.polls || queue.ports.iter().any(|port| pending.contains(port)) {
                moved |= queue.collect();
                let packets = queue.receive();
                moved |= !packets.is_empty();
                self.received.extend(packets);
            }
        }
        moved
    }

    /// Sends these packets, on its queues in turn; those that find no room come back.
    pub fn send(&mut self, frames: Vec<Frame>) -> Vec<Frame> {
        let mut left = Vec::new();
        for frame in frames {
            let number = self.turn % self.queues.len();
            let queue = &mut self.queues[number];
            if self.frontend.manner.collects && !queue.has_room(&frame) {
                queue.collect();
            }
            // What waits for room is not overtaken.
            if !left.is_empty() || !queue.has_room(&frame) {
                left.push(frame);
            } else if self.may_send.chains {
                self.turn += 1;
                queue.push(&frame);
            } else {
                self.turn += 1;
                queue.push_cut(&frame, &[Cut::new(0, frame.bytes.len())]);
            }
        }
        for queue in &mut self.queues {
            queue.show();
        }
        left
    }

    /// Statuses of what was sent since the last time.
    pub fn statuses(&mut self) -> Vec<i16> {
        self.queues.iter_mut().flat_map(|queue| std::mem::take(&mut queue.statuses)).collect()
    }

    /// Its domain's grants to the backend.
    pub fn grants(&self) -> usize {
        self.domain.grants().iter().filter(|(_, entry)| entry.permits(BACK)).count()
    }
}
