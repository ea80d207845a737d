//! The loop that both ends go through, and what both keep.
//!
//! ```text
//!            an event, or a deadline          until there is nothing to do but wait
//!   poll ──────────────────────────► look ──► next ──► carry out ─┬─► Rest
//!            otherwise                         ▲            │     └─► the device's turn
//!           ──────────────────────────────────►┘◄───────────┘
//! ```
//!
//! `next` is the pure table of either end, in its `rules.rs`; looking and carrying out are in its
//! `work.rs`. A store that fails is left alone for a while, and a connection does not suffer.

use core::time::Duration;

use super::attention::Attention;
use super::backoff::Backoff;
use super::directories::Directories;
use super::state::BusState;
use crate::platform::Instant;
use xen_store::{Store, StoreError, Transaction};

/// After so many requests to xenstore a poll begins nothing more, and the next goes on.
pub(super) const SLICE: u32 = 32;

/// More decisions than any one state of xenstore leads to (a test walks all of them).
pub(super) const MAX_ACTIONS: usize = 20;

/// A connection that lasted this long was a good one.
const GOOD: Duration = Duration::from_secs(1);

/// How long between tries to connect: the first at once, then 10 ms, ... 500 ms. A peer that
/// behaves again has us back within a second, however long it did not.
const RECONNECT: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(500));

/// What both ends keep.
pub(super) struct Bus<S: Store, Phase, Step> {
    pub(super) dirs: Directories<S>,
    pub(super) phase: Phase,
    /// What the device has been told to do and has not said that it did.
    pub(super) standing: Option<Step>,
    /// The `state` that we left in our directory; `None` if nothing there is ours.
    pub(super) written: Option<BusState>,

    // What xenstore said when we last looked.
    /// Our `state`; `None`: our directory is gone.
    pub(super) mine: Option<BusState>,
    pub(super) peer: BusState,
    pub(super) online: bool,

    pub(super) attention: Attention,
    /// When this phase will have lasted too long.
    pub(super) patience: Option<Instant>,
    /// How much longer it may last each time that it has.
    pub(super) remind: Backoff,
    /// No new connection before that.
    pub(super) held_until: Instant,
    pub(super) connected_since: Option<Instant>,
    pub(super) reconnect: Backoff,
    pub(super) deadline: Option<Instant>,
    /// What the device was told when there was last nothing to do but wait: until the deadline, which each
    /// call from the device brings forward, or an event, there is nothing else to tell.
    resting: Option<Step>,
    /// After so many requests a poll begins nothing more.
    pub(super) slice: u32,
    /// There is more to do, at the next poll.
    unfinished: bool,
    /// xenstored had no room for what we have to write or watch.
    pub(super) over_quota: bool,
}

impl<S: Store, Phase, Step: Copy> Bus<S, Phase, Step> {
    pub(super) fn new(dirs: Directories<S>, phase: Phase, remind: Backoff) -> Self {
        Bus {
            dirs,
            phase,
            standing: None,
            written: None,
            mine: None,
            peer: BusState::Unknown,
            online: true,
            attention: Attention::new(),
            patience: None,
            remind,
            held_until: Instant(0),
            connected_since: None,
            reconnect: Backoff::after_one_try(RECONNECT.0, RECONNECT.1),
            deadline: Some(Instant(0)),
            resting: None,
            slice: SLICE,
            unfinished: false,
            over_quota: false,
        }
    }

    /// Whether our `state` is what we left there.
    pub(super) fn is_intact(&self) -> bool {
        self.mine.is_some() && self.mine == self.written
    }

    pub(super) fn is_overdue(&self, now: Instant) -> bool {
        self.patience.is_some_and(|patience| patience <= now)
    }

    /// Something has changed that no watch of ours tells.
    pub(super) fn ask(&mut self) {
        self.attention.ask();
        if self.over_quota {
            // There may be something to do that needs no room, as when it is the vif that goes.
            self.attention.rest_no_more();
        }
        self.resting = None;
    }

    /// What is to be done may have changed, though nothing in xenstore has.
    pub(super) fn stir(&mut self) {
        self.resting = None;
    }

    /// What the device is to be told if nothing has happened since the last poll.
    #[inline]
    pub(super) fn still_resting(&mut self, now: Instant) -> Option<Step> {
        let step = self.resting.filter(|_| self.deadline.is_none_or(|at| at > now))?;
        if self.dirs.take_events() {
            self.ask();
            return None;
        }
        Some(step)
    }

    /// Moves our `state` on, and does `more` in the same transaction. Looks again if it was not
    /// `from` any more.
    pub(super) fn change_state(
        &mut self,
        from: BusState,
        to: BusState,
        more: impl FnMut(&Directories<S>, Transaction) -> Result<(), StoreError>,
    ) -> Result<bool, StoreError> {
        let ours = self.dirs.change_state(from, to, more)?;
        if ours {
            (self.written, self.mine) = (Some(to), Some(to));
        } else {
            self.attention.ask();
        }
        Ok(ours)
    }

    /// A connection has ended: one that lasted does not count against the next.
    pub(super) fn connection_ended(&mut self, now: Instant) {
        if self.connected_since.take().is_some_and(|since| now.since(since) >= GOOD) {
            self.reconnect.reset();
        }
    }

    /// Puts the next connection off.
    pub(super) fn hold(&mut self, now: Instant) {
        self.held_until = now + self.reconnect.delay();
    }
}

/// Who is next.
pub(super) enum Turn<Step> {
    /// Nobody, until there is an event or a deadline has passed.
    Rest(Step),
    /// The device.
    Device(Step),
    /// The device, and it is told so again until it has done what it is told.
    Insist(Step),
}

/// One end of a vif, as the loop drives it.
pub(super) trait End {
    type Store: Store;
    type Phase;
    type Action;
    type Step: Copy;

    fn bus(&mut self) -> &mut Bus<Self::Store, Self::Phase, Self::Step>;

    /// What the rules say.
    fn next(&self, now: Instant) -> Self::Action;

    /// Reads what a decision needs: all of it, or nothing has changed.
    fn look(&mut self) -> Result<(), StoreError>;

    /// Does what the rules say; `None`: ask them again.
    fn carry_out(
        &mut self,
        action: Self::Action,
        now: Instant,
    ) -> Result<Option<Turn<Self::Step>>, StoreError>;

    /// What of it can be done without xenstore.
    fn without_store(&self, action: Self::Action) -> Turn<Self::Step>;

    /// Whether all that it waits for is that the hold ends.
    fn awaits_hold(&self) -> bool;

    fn poll_end(&mut self, now: Instant) -> Self::Step {
        if let Some(step) = self.bus().standing {
            return step;
        }
        if let Some(step) = self.bus().still_resting(now) {
            return step;
        }
        let turn = self.advance(now);
        let (step, deadline, resting) = match turn {
            Turn::Rest(step) => (step, self.waits_until(now), Some(step)),
            Turn::Device(step) => (step, None, None),
            Turn::Insist(step) => {
                self.bus().standing = Some(step);
                (step, None, None)
            }
        };
        let bus = self.bus();
        (bus.deadline, bus.resting) = (deadline, resting);
        step
    }

    fn advance(&mut self, now: Instant) -> Turn<Self::Step> {
        if !self.bus().attention.rests(now) {
            match self.look_and_act(now) {
                Ok(turn) => {
                    let bus = self.bus();
                    bus.attention.served();
                    bus.over_quota = false;
                    if bus.is_overdue(now) {
                        // Whatever we wait for, look again some time.
                        bus.patience = Some(now + bus.remind.delay());
                    }
                    return turn;
                }
                Err(error) => {
                    let bus = self.bus();
                    let delay = bus.attention.failed(now, error);
                    log::debug!("{}: {error}; trying again in {delay:?}", bus.dirs.dir());
                    bus.over_quota = error == StoreError::Quota;
                }
            }
        }
        self.without_store(self.next(now))
    }

    fn look_and_act(&mut self, now: Instant) -> Result<Turn<Self::Step>, StoreError> {
        let bus = self.bus();
        let begun = bus.dirs.requests();
        bus.unfinished = false;
        if bus.dirs.take_events() || bus.is_overdue(now) {
            bus.attention.ask();
        }
        for _ in 0..MAX_ACTIONS {
            if self.bus().attention.is_asked() {
                self.look()?;
                self.bus().attention.looked();
            }
            let action = self.next(now);
            let bus = self.bus();
            if bus.dirs.requests().wrapping_sub(begun) >= bus.slice {
                bus.unfinished = true;
                break;
            }
            if let Some(turn) = self.carry_out(action, now)? {
                return Ok(turn);
            }
        }
        Ok(self.without_store(self.next(now)))
    }

    /// When to look again, if nothing happens before.
    fn waits_until(&mut self, now: Instant) -> Option<Instant> {
        let awaits_hold = self.awaits_hold();
        let bus = self.bus();
        if let Some(look) = bus.attention.deadline(now) {
            return Some(look);
        }
        if bus.unfinished {
            return Some(now);
        }
        let hold = (awaits_hold && bus.held_until > now).then_some(bus.held_until);
        bus.patience.into_iter().chain(hold).min()
    }
}
