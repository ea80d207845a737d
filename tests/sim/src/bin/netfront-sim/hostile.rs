//! `--hostile`: the backend turns on the client every so often.
//!
//! ```text
//!   Calm ──more was transferred──► Attacking ──script done──► Waiting ──both streams go on──► Calm
//!                                  (beside the honest         (pages are kept a while,
//!                                   backend, or without it)   then let go)
//! ```
//!
//! An outage lasts from the moment when the client's device finds its connection broken until it
//! is connected again; time without an honest backend does not count. The stall is longer: TCP
//! waits for a second or more before it sends again what was lost.

use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use fastrand::Rng;
use xen_grant::DomId;
use xen_netfront::platform::Instant;
use xen_sim::hostile::{After, HostileBackend, Script, Step};
use xen_sim::{Ctx, Domain, Next, Task};

use crate::attacks::{How, KINDS, Kind};
use crate::backend::Backend;
use crate::client::Board;
use crate::lock;

/// How often the director looks whether it is time for an attack, or for its next step.
const LOOK: Duration = Duration::from_micros(20);
/// How often it looks whether both streams have gone on, which may take seconds.
const LOOK_AGAIN: Duration = Duration::from_micros(500);
/// An attack takes no longer than this.
const REIGN: Duration = Duration::from_millis(300);
/// How long pages stay mapped after an attack.
const HOLD: Duration = Duration::from_millis(5);
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
    /// The longest outage, and the kind of attack before it.
    pub longest_outage: (Duration, &'static str),
    /// The longest time from an attack until both streams had gone on.
    pub longest_stall: Duration,
}

impl Record {
    /// Both records as one.
    pub fn add(&mut self, other: &Record) {
        for (&kind, count) in &other.kinds {
            *self.kinds.entry(kind).or_default() += count;
        }
        self.reconnected += other.reconnected;
        if other.longest_outage.0 > self.longest_outage.0 {
            self.longest_outage = other.longest_outage;
        }
        self.longest_stall = self.longest_stall.max(other.longest_stall);
    }

    /// Attacks made.
    pub fn attacks(&self) -> u64 {
        self.kinds.values().sum()
    }
}

/// Who decides when the backend turns, and how. A task in the backend's domain.
pub struct Director<'a> {
    backend: &'a Mutex<Backend>,
    board: Board,
    uploaded: Arc<AtomicU64>,
    /// What is to be transferred each way, if that is known.
    bytes: Option<u64>,
    /// The domains run on threads.
    threads: bool,
    rng: Rng,
    /// Bytes both ways between attacks, about.
    every: u64,
    /// Kinds that have not had their turn.
    deck: Vec<Kind>,
    /// The kind of the last attack.
    last: &'static str,
    beside: HostileBackend,
    instead: HostileBackend,
    phase: Phase,
    /// There will be no more attacks.
    retired: bool,
    record: Record,
}

#[derive(Clone, Copy)]
enum Phase {
    /// Nothing happens until so many bytes are transferred.
    Calm { until: u64 },
    /// A script is being played.
    Attacking(Attack),
    /// It is over since then; so much had been transferred.
    Waiting { attack: Attack, ended: Instant, at: (u64, u64) },
}

#[derive(Clone, Copy)]
struct Attack {
    kind: Kind,
    started: Instant,
    /// Connections there had been.
    connects: u64,
}

impl<'a> Director<'a> {
    /// A director in the backend's domain. `bytes` are what is to be transferred each way.
    pub fn new(
        domain: &Domain,
        client: DomId,
        backend: &'a Mutex<Backend>,
        board: Board,
        bytes: Option<u64>,
        threads: bool,
        seed: u64,
    ) -> Director<'a> {
        let every = (bytes.unwrap_or(u64::MAX) / 40).clamp(16 << 10, 4 << 20);
        Director {
            backend,
            board,
            uploaded: lock(backend).uploaded(),
            bytes,
            threads,
            rng: Rng::with_seed(seed),
            every,
            deck: Vec::new(),
            last: "",
            beside: HostileBackend::parasite(domain, client, 0),
            instead: HostileBackend::new(domain, client, 0),
            phase: Phase::Calm { until: every },
            retired: false,
            record: Record::default(),
        }
    }

    /// No more attacks, but what has begun comes to its end.
    pub fn retire(&mut self) {
        self.retired = true;
    }

    /// What happened so far.
    pub fn record(&self) -> Record {
        let mut record = self.record.clone();
        match self.phase {
            // The last attack, whose end the run did not wait for.
            Phase::Attacking(attack) | Phase::Waiting { attack, .. } => {
                record.reconnected += u64::from(self.board.look().connects != attack.connects);
            }
            Phase::Calm { .. } => {}
        }
        record
    }

    fn transferred(&self) -> (u64, u64) {
        (self.uploaded.load(Ordering::Relaxed), self.board.look().downloaded)
    }

    fn peer(&mut self, how: How) -> &mut HostileBackend {
        match how {
            How::Beside | How::Over => &mut self.beside,
            How::Instead => &mut self.instead,
        }
    }

    fn begin(&mut self, now: Instant) -> Phase {
        if self.deck.is_empty() {
            self.deck.extend(KINDS);
            self.rng.shuffle(&mut self.deck);
        }
        let Some(kind) = self.deck.pop() else { return Phase::Calm { until: u64::MAX } };
        self.last = kind.name;
        *self.record.kinds.entry(kind.name).or_default() += 1;
        // A test sees to it that all scripts can be read.
        let script = kind.script(&mut self.rng).unwrap_or_default();
        let how = kind.how(self.threads);
        if how != How::Beside {
            lock(self.backend).kill();
        }
        self.peer(how).play(script, After::Honest);
        Phase::Attacking(Attack { kind, started: now, connects: self.board.look().connects })
    }

    /// The script is over: the rings are let go, and an honest backend is there again.
    fn end(&mut self, attack: Attack, ctx: &mut Ctx<'_>) -> Phase {
        match attack.kind.how(self.threads) {
            How::Beside => self.play_out(How::Beside, vec![Step::Drop {}], ctx),
            how @ (How::Over | How::Instead) => {
                self.play_out(how, vec![Step::Drop {}, Step::Unmap {}], ctx);
                self.board.look().excused_until = ctx.now;
                // Without a backend the run comes to no end, and says so.
                let _ = lock(self.backend).restart();
            }
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
        if self.beside.kept() > 0 && ctx.now.since(ended) >= HOLD {
            self.play_out(How::Beside, vec![Step::Unmap {}, Step::Drop {}], ctx);
        }
        let now_at = self.transferred();
        let moved = |before: u64, now: u64| now >= before + BREATH || Some(now) == self.bytes;
        let goes_on = moved(at.0, now_at.0) && moved(at.1, now_at.1);
        if !goes_on || self.board.look().up_since.is_none() || self.beside.kept() > 0 {
            return Phase::Waiting { attack, ended, at };
        }
        if self.board.look().connects != attack.connects {
            self.record.reconnected += 1;
        }
        self.record.longest_stall = self.record.longest_stall.max(ctx.now.since(ended));
        let pause = self.every / 2 + self.rng.u64(..self.every);
        Phase::Calm { until: now_at.0 + now_at.1 + pause }
    }
}

impl Task for Director<'_> {
    fn run(&mut self, ctx: &mut Ctx<'_>) -> Next {
        let outage = core::mem::take(&mut self.board.look().outage);
        if outage > self.record.longest_outage.0 {
            self.record.longest_outage = (outage, self.last);
        }
        let mut next = Next::Sleep(LOOK);
        self.phase = match self.phase {
            Phase::Calm { until } => {
                let (up, down) = self.transferred();
                let due = up + down >= until && self.board.look().up_since.is_some();
                let due = due && !self.retired;
                if due { self.begin(ctx.now) } else { Phase::Calm { until } }
            }
            Phase::Attacking(attack) => {
                let peer = self.peer(attack.kind.how(self.threads));
                if !peer.ended() {
                    next = match peer.run(ctx) {
                        Next::Wait => Next::Sleep(LOOK),
                        other => other,
                    };
                }
                if peer.ended() || ctx.now.since(attack.started) >= REIGN {
                    next = Next::Sleep(LOOK);
                    self.end(attack, ctx)
                } else {
                    Phase::Attacking(attack)
                }
            }
            Phase::Waiting { attack, ended, at } => {
                next = Next::Sleep(LOOK_AGAIN);
                self.wait(attack, ended, at, ctx)
            }
        };
        let is_over = !matches!(self.phase, Phase::Attacking(_)) && self.beside.kept() == 0;
        if self.retired && is_over { Next::Done } else { next }
    }
}
