//! `--hostile`: the backend turns on the client every so often.
//!
//! ```text
//!   Calm ──more was transferred──► Attacking ──script done──► Waiting ──both streams go on──► Calm
//!                                  (beside the honest         (pages are kept a while,
//!                                   backend, or instead)       then let go)
//! ```
//!
//! An attack that the client answers with a reconnect is an outage: from the attack's first step
//! until the link is up for good. One that leaves the connection alone must be harmless.

use core::cell::{Cell, RefCell};
use core::time::Duration;
use std::collections::BTreeMap;
use std::rc::Rc;

use fastrand::Rng;
use xen_grant::DomId;
use xen_netfront::platform::Instant;
use xen_sim::hostile::{After, HostileBackend, Script, Step};
use xen_sim::{Ctx, Domain, Next, Task};

use crate::attacks::{How, KINDS, Kind};
use crate::backend::Backend;
use crate::client::Board;

/// How often the director looks.
const LOOK: Duration = Duration::from_micros(20);
/// An attack takes no longer than this.
const REIGN: Duration = Duration::from_millis(300);
/// How long pages stay mapped after an attack.
const HOLD: Duration = Duration::from_millis(50);
/// Both streams move by so much between an attack and the next.
const BREATH: u64 = 64 << 10;
/// The device has to be back within this.
pub const LIMIT: Duration = Duration::from_secs(1);

/// What attacks there were, and what came of them.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// Attacks made, by kind.
    pub kinds: BTreeMap<&'static str, u64>,
    /// Those after which the device reconnected.
    pub reconnected: u64,
    /// The longest time that an attack cut the client off for, and its kind.
    pub longest_outage: (Duration, &'static str),
    /// The longest time until both streams had gone on: TCP backs off when nothing comes back.
    pub longest_stall: Duration,
}

impl Record {
    /// Attacks made.
    pub fn attacks(&self) -> u64 {
        self.kinds.values().sum()
    }

    fn outage(&mut self, time: Duration, kind: &'static str) {
        self.longest_outage = self.longest_outage.max((time, kind));
    }
}

/// Who decides when the backend turns, and how. A task in the backend's domain.
pub struct Director<'a> {
    backend: &'a RefCell<Backend>,
    board: Rc<Board>,
    uploaded: Rc<Cell<u64>>,
    /// What is to be transferred each way, if that is known.
    bytes: Option<u64>,
    rng: Rng,
    /// Bytes both ways between attacks, about.
    every: u64,
    /// Kinds that have not had their turn.
    deck: Vec<Kind>,
    beside: HostileBackend,
    instead: HostileBackend,
    phase: Phase,
    record: Record,
}

enum Phase {
    Calm { until: u64, down: Option<Instant>, after: &'static str },
    Attacking(Attack),
    Waiting { attack: Attack, ended: Instant, at: (u64, u64) },
}

#[derive(Clone, Copy)]
struct Attack {
    kind: Kind,
    started: Instant,
    connects: u64,
}

impl<'a> Director<'a> {
    /// A director in the backend's domain. `bytes` are what is to be transferred each way.
    pub fn new(
        domain: &Domain,
        client: DomId,
        backend: &'a RefCell<Backend>,
        board: Rc<Board>,
        bytes: Option<u64>,
        seed: u64,
    ) -> Director<'a> {
        let every = (bytes.unwrap_or(u64::MAX) / 10).clamp(32 << 10, 16 << 20);
        Director {
            backend,
            board,
            uploaded: backend.borrow().uploaded(),
            bytes,
            rng: Rng::with_seed(seed),
            every,
            deck: Vec::new(),
            beside: HostileBackend::parasite(domain, client, 0),
            instead: HostileBackend::new(domain, client, 0),
            phase: Phase::Calm { until: every, down: None, after: "" },
            record: Record::default(),
        }
    }

    /// What happened so far.
    pub fn record(&self) -> &Record {
        &self.record
    }

    fn transferred(&self) -> (u64, u64) {
        (self.uploaded.get(), self.board.downloaded.get())
    }

    fn peer(&mut self, how: How) -> &mut HostileBackend {
        match how {
            How::Beside => &mut self.beside,
            How::Instead => &mut self.instead,
        }
    }

    /// Nothing happens until enough has been transferred on a connection that holds.
    fn calm(
        &mut self,
        until: u64,
        down: Option<Instant>,
        after: &'static str,
        now: Instant,
    ) -> Phase {
        match (self.board.up_since.get(), down) {
            // An attack whose effect comes late.
            (None, since) => Phase::Calm { until, down: since.or(Some(now)), after },
            (Some(up), Some(since)) => {
                self.record.outage(up.since(since), after);
                Phase::Calm { until, down: None, after }
            }
            (Some(_), None) => {
                let (up, down) = self.transferred();
                if up + down >= until {
                    self.begin(now)
                } else {
                    Phase::Calm { until, down: None, after }
                }
            }
        }
    }

    fn begin(&mut self, now: Instant) -> Phase {
        if self.deck.is_empty() {
            self.deck.extend(KINDS);
            self.rng.shuffle(&mut self.deck);
        }
        let Some(kind) = self.deck.pop() else {
            return Phase::Calm { until: u64::MAX, down: None, after: "" };
        };
        *self.record.kinds.entry(kind.name).or_default() += 1;
        // A test sees to it that all scripts can be read.
        let script = kind.script(&mut self.rng).unwrap_or_default();
        if kind.how == How::Instead {
            self.backend.borrow_mut().kill();
        }
        self.peer(kind.how).play(script, After::Honest);
        Phase::Attacking(Attack { kind, started: now, connects: self.board.connects.get() })
    }

    /// The script is over: the rings are let go, and an honest backend is there again.
    fn end(&mut self, attack: Attack, ctx: &mut Ctx<'_>) -> Phase {
        let mut last = vec![Step::Drop {}];
        if attack.kind.how == How::Instead {
            last.push(Step::Unmap {});
        }
        self.play_out(attack.kind.how, last, ctx);
        if attack.kind.how == How::Instead && self.backend.borrow_mut().restart().is_err() {
            // Without a backend the run comes to no end, and says so.
        }
        Phase::Waiting { attack, ended: ctx.now, at: self.transferred() }
    }

    fn play_out(&mut self, how: How, steps: Vec<Step>, ctx: &mut Ctx<'_>) {
        let peer = self.peer(how);
        peer.play(Script(steps), After::Honest);
        while !peer.ended() {
            let _ = peer.run(ctx);
        }
    }

    /// Both streams have to go on, on a connection that is up.
    fn wait(&mut self, attack: Attack, ended: Instant, at: (u64, u64), ctx: &mut Ctx<'_>) -> Phase {
        let waiting = Phase::Waiting { attack, ended, at };
        if self.beside.kept() > 0 {
            if ctx.now.since(ended) >= HOLD {
                self.play_out(How::Beside, vec![Step::Unmap {}, Step::Drop {}], ctx);
            }
            return waiting;
        }
        let now_at = self.transferred();
        let moved = |before: u64, now: u64| now >= before + BREATH || Some(now) == self.bytes;
        let (true, true, Some(up)) =
            (moved(at.0, now_at.0), moved(at.1, now_at.1), self.board.up_since.get())
        else {
            return waiting;
        };
        if self.board.connects.get() != attack.connects {
            self.record.reconnected += 1;
            let since = match attack.kind.how {
                How::Beside => attack.started,
                How::Instead => ended,
            };
            self.record.outage(up.since(since), attack.kind.name);
        }
        let stall = ctx.now.since(ended);
        self.record.longest_stall = self.record.longest_stall.max(stall);
        let pause = self.every / 2 + self.rng.u64(..self.every);
        Phase::Calm { until: now_at.0 + now_at.1 + pause, down: None, after: attack.kind.name }
    }
}

impl Task for Director<'_> {
    fn run(&mut self, ctx: &mut Ctx<'_>) -> Next {
        let phase =
            core::mem::replace(&mut self.phase, Phase::Calm { until: 0, down: None, after: "" });
        let mut next = Next::Sleep(LOOK);
        self.phase = match phase {
            Phase::Calm { until, down, after } => self.calm(until, down, after, ctx.now),
            Phase::Attacking(attack) => {
                let peer = self.peer(attack.kind.how);
                if !peer.ended() {
                    next = peer.run(ctx);
                }
                if peer.ended() || ctx.now.since(attack.started) >= REIGN {
                    self.end(attack, ctx)
                } else {
                    if matches!(next, Next::Wait) {
                        next = Next::Sleep(LOOK);
                    }
                    Phase::Attacking(attack)
                }
            }
            Phase::Waiting { attack, ended, at } => self.wait(attack, ended, at, ctx),
        };
        if matches!(self.phase, Phase::Attacking(_)) { next } else { Next::Sleep(LOOK) }
    }
}
