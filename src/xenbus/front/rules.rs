//! What a frontend does next: a function of what it knows, and nothing else.
//!
//! Our phases, and the `state` each leaves in our directory. Rings exist from `Published` until
//! the device has let go of them:
//!
//! ```text
//!            ┌───────────────────────────────────────────────┐ once the backend is Closed
//!            ▼                                               │ and online
//!  ──► Offering(1) ──Connect──► Published(4) ──► Live(4) ──► Closing(5) ──► Closed(6)
//!  Stale ────────────────────────────────────────────────────►
//! ```
//!
//! What to do, by our phase and the backend's state, while all is well otherwise (we want a
//! connection, the backend is online, nothing has waited too long):
//!
//! ```text
//!                Unknown  Initi.  InitWait Initi'd  Connec.  Closing  Closed   Reconf.  Reconf'd
//!                0        1       2        3        4        5        6        7        8
//!  Stale         5        5       5        5        5        5        5        5        5
//!  Offering      -        -       connect  5        5        6        -        5        5
//!  Published     6        5       -        -        live     6        6        5        5
//!  Live          6        5       5        5        -        6        6        5        5
//!  Closing       6        -       -        -        -        6        6        -        -
//!  Closed, rings release  release release  -        -        -        release  -        -
//!  Closed        -        -       -        -        -        -        1        -        -
//! ```
//!
//! A number: write that state. `-`: stay. And where not all is well:
//!
//! * Our directory is gone, or our `state` is not what we left there (resumed elsewhere, made
//!   anew by the toolstack): release the rings, then start from what is there.
//! * The device found a fault, or no connection is wanted: leave, as if the backend had.
//! * A phase has lasted too long: where leaving, go on without the backend; where waiting, write
//!   our state again, which makes the backend look once more.
//!
//! An earlier connection of our own (another kernel in this domain, iPXE before us) shows as a
//! `state` of 3, 4, 7 or 8 that we did not write, `Stale`, and goes through the whole cycle: 5, 6, 1.
//! That is what Linux does in `xenbus_reset_frontend`, and iPXE in `netfront_reset`.
//!
//! Rings are released only when the backend is closed, not when it starts closing: by then it
//! has unmapped our pages, and taking them back succeeds at once. A backend that does not get
//! there loses them anyway, a little later.

use crate::xenbus::BusState;

/// How far our end is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::xenbus) enum Phase {
    /// `state` tells of a connection that is not ours.
    Stale,
    /// `Initialising`: ready for a connection.
    Offering,
    /// `Connected`: rings are published; the backend has not answered.
    Published,
    /// `Connected`, and the backend too.
    Live,
    /// `Closing`.
    Closing,
    /// `Closed`.
    Closed,
}

/// All that a decision depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct View {
    pub(super) phase: Phase,
    /// The device has rings (in `Published`, `Live`, `Closing`, `Closed`).
    pub(super) rings: bool,
    /// The backend's state.
    pub(super) peer: BusState,
    /// Our directory is there.
    pub(super) present: bool,
    /// Our `state` is what we left there, and the backend is still the same one.
    pub(super) intact: bool,
    /// The backend's `online` is not 0.
    pub(super) online: bool,
    /// We want to be connected.
    pub(super) wanted: bool,
    /// The device found a fault in this connection.
    pub(super) faulted: bool,
    /// This phase has lasted too long.
    pub(super) overdue: bool,
    /// Too early for the next try.
    pub(super) held: bool,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::xenbus) enum Action {
    /// Nothing, until something changes.
    Stay,
    /// Our directory is gone; so are we.
    Gone,
    /// Start from the `state` that is there.
    Adopt,
    /// Have the device make its rings and publish them.
    Connect,
    /// The backend has connected.
    GoLive,
    /// Have the device end all use of its rings.
    Release,
    /// Write 1.
    WriteInitialising,
    /// Write 5.
    WriteClosing,
    /// Write 6.
    WriteClosed,
    /// Write our state again, for the backend to look once more.
    Repeat,
}

use Action::{
    Adopt, Connect, GoLive, Gone, Release, Repeat, Stay, WriteClosed, WriteClosing,
    WriteInitialising,
};

/// What to do next.
pub(super) fn next(view: View) -> Action {
    if !view.present || !view.intact {
        return match (view.rings, view.present) {
            (true, _) => Release,
            (false, true) => Adopt,
            (false, false) => Gone,
        };
    }
    match view.phase {
        Phase::Stale => WriteClosing,
        Phase::Offering => offering(view),
        Phase::Published => published(view),
        Phase::Live => live(view),
        Phase::Closing => closing(view),
        Phase::Closed if view.rings => closed_with_rings(view),
        Phase::Closed => closed(view),
    }
}

fn offering(view: View) -> Action {
    if !view.wanted {
        return leave(view.peer);
    }
    match view.peer {
        BusState::Unknown | BusState::Initialising => Stay,
        BusState::InitWait if view.held => Stay,
        BusState::InitWait => Connect,
        BusState::Closed => repeat_if(view.overdue),
        BusState::Initialised
        | BusState::Connected
        | BusState::Closing
        | BusState::Reconfiguring
        | BusState::Reconfigured => leave(view.peer),
    }
}

fn published(view: View) -> Action {
    if view.faulted || !view.wanted {
        return leave(view.peer);
    }
    match view.peer {
        // It may take its time: netback waits for its hotplug script.
        BusState::InitWait | BusState::Initialised => repeat_if(view.overdue),
        BusState::Connected => GoLive,
        BusState::Unknown
        | BusState::Initialising
        | BusState::Closing
        | BusState::Closed
        | BusState::Reconfiguring
        | BusState::Reconfigured => leave(view.peer),
    }
}

fn live(view: View) -> Action {
    if view.faulted || !view.wanted {
        return leave(view.peer);
    }
    match view.peer {
        BusState::Connected => Stay,
        BusState::Unknown
        | BusState::Initialising
        | BusState::InitWait
        | BusState::Initialised
        | BusState::Closing
        | BusState::Closed
        | BusState::Reconfiguring
        | BusState::Reconfigured => leave(view.peer),
    }
}

fn closing(view: View) -> Action {
    match view.peer {
        BusState::Unknown | BusState::Closing | BusState::Closed => WriteClosed,
        BusState::Initialising
        | BusState::InitWait
        | BusState::Initialised
        | BusState::Connected
        | BusState::Reconfiguring
        | BusState::Reconfigured => {
            if view.overdue {
                WriteClosed
            } else {
                Stay
            }
        }
    }
}

fn closed_with_rings(view: View) -> Action {
    match view.peer {
        BusState::Unknown | BusState::Initialising | BusState::InitWait | BusState::Closed => {
            Release
        }
        BusState::Initialised
        | BusState::Connected
        | BusState::Closing
        | BusState::Reconfiguring
        | BusState::Reconfigured => {
            if view.overdue {
                Release
            } else {
                Stay
            }
        }
    }
}

fn closed(view: View) -> Action {
    if !view.wanted {
        return Stay;
    }
    let reopen = |when: bool| if when && !view.held { WriteInitialising } else { Stay };
    match view.peer {
        BusState::Unknown => Stay,
        BusState::Closed => reopen(view.online),
        // A backend that has just started will notice that we are closed, close too, and wait
        // for us to come back. Going on before it has done so would mix two connections.
        BusState::Initialising | BusState::InitWait => reopen(view.online && view.overdue),
        BusState::Initialised
        | BusState::Connected
        | BusState::Closing
        | BusState::Reconfiguring
        | BusState::Reconfigured => repeat_if(view.overdue),
    }
}

/// The first step out of a connection: 5 while the backend may still close, 6 if it does already.
fn leave(peer: BusState) -> Action {
    match peer {
        BusState::Unknown | BusState::Closing | BusState::Closed => WriteClosed,
        BusState::Initialising
        | BusState::InitWait
        | BusState::Initialised
        | BusState::Connected
        | BusState::Reconfiguring
        | BusState::Reconfigured => WriteClosing,
    }
}

fn repeat_if(overdue: bool) -> Action {
    if overdue { Repeat } else { Stay }
}

#[cfg(test)]
mod tests;
