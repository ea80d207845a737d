//! What a backend does next: a function of what it knows, and nothing else.
//!
//! Our phases, and the `state` each leaves in our directory. The device has the frontend's rings
//! mapped from the moment it says so (still in `InitWait`) until it has let go of them; only then
//! are 5 or 6 written, so a frontend that reads them gets its pages back at once:
//!
//! ```text
//!         ┌──────────────────────────────────────────────────── frontend Initialising ─┐
//!         ▼                                                                            │
//!  Fresh ──► InitWait(2) ──Connect──► mapped ──► Connected(4) ──► Closing(5) ──► Closed(6) ──► Remove
//!  Stale ───────────────────────────────────────────────────────►                offline
//! ```
//!
//! What to do, by our phase and the frontend's state, while the vif is online and nobody found a
//! fault:
//!
//! ```text
//!                Unknown  Initi.  InitWait Initi'd  Connec.  Closing  Closed   Reconf.  Reconf'd
//!                0        1       2        3        4        5        6        7        8
//!  Fresh         2        2       2        2        2        2        2        2        2
//!  Stale         5        5       5        5        5        5        5        5        5
//!  InitWait      -        -       -        -        connect  5        6        -        -
//!  (mapped)      release  release release  release  4        release  release  release  release
//!  Connected     release  release release  release  -        release  release  -        -
//!  (unmapped)    6        5       5        5        5        5        6        5        5
//!  Closing       6        6       -        -        -        -        6        -        -
//!  Closed        -        2       -        -        2        5        -        -        -
//! ```
//!
//! A number: write that state (2: with our features). `-`: stay. This is what Linux's netback does
//! (`frontend_changed`, `set_backend_state`), `Initialised` included: a network frontend that has
//! published its rings says `Connected`, and 3 alone starts nothing. It answers the close cycle
//! with which Windows begins (5, 6, 1) by 5, 6 and, features written anew, 2. A frontend that says
//! `Connected` to a backend that is closed is another kernel in the domain of one that has died without a
//! word: it is offered a connection, and taken at its word.
//!
//! And where not all is well:
//!
//! * Our directory is gone, or our `state` is not what we left there (the toolstack wrote 5 to
//!   detach the vif, or made the directory anew): release, then start from what is there.
//! * `online` is 0: release, 6, and remove the directory. The frontend need not agree.
//! * The device found a fault, or the frontend's nodes make no sense: release, and 5.
//! * A frontend that does not close is not waited for.
//! * A device that can't connect for want of something tries again, later each time.
//! * There is no room for another client: the vif is left as it is, and answered when it is detached.
//! * We shut down: release, 5, 6, and nothing more, so that the frontends wait for another backend.
//!
//! Before 2 is written what the toolstack says of the vif is read, and before a frontend's rings are
//! mapped, or kept, what it has published: a part at a time, each a step of its own.
//!
//! A `state` of 3, 4, 7 or 8 that we did not write is left from an earlier backend, `Stale`: its
//! frontend is sent through the close cycle, as nothing of the old rings is known here.

use crate::xenbus::BusState;

/// How far our end is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::xenbus) enum Phase {
    /// Nothing is offered yet.
    Fresh,
    /// `state` tells of a connection that is not ours.
    Stale,
    /// `InitWait`: features are written.
    InitWait,
    /// `Connected`.
    Connected,
    /// `Closing`.
    Closing,
    /// `Closed`.
    Closed,
}

/// All that a decision depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct View {
    pub(super) phase: Phase,
    /// The device uses the frontend's rings (in `InitWait`, `Connected`).
    pub(super) mapped: bool,
    /// The frontend's state.
    pub(super) peer: BusState,
    /// Our directory is there.
    pub(super) present: bool,
    /// Our `state` is what we left there.
    pub(super) intact: bool,
    /// `online` is not 0.
    pub(super) online: bool,
    /// The device found the frontend at fault.
    pub(super) faulted: bool,
    /// What the frontend asks for.
    pub(super) offer: Offer,
    /// What the toolstack says of the vif has been read.
    pub(super) informed: bool,
    /// This phase has lasted too long.
    pub(super) overdue: bool,
    /// Too early for the next try.
    pub(super) held: bool,
    /// Removing the directory is up to us.
    pub(super) removes: bool,
    /// We shut down.
    pub(super) leaving: bool,
    /// There is no room for another client.
    pub(super) refused: bool,
}

/// What a frontend asks for, as of the last look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Offer {
    /// Not all of it has been read.
    Unread,
    /// It makes sense; if mapped: and is what we connected to.
    Sound,
    /// It makes no sense, or is not what we connected to.
    Unsound,
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
    /// Read what the toolstack says.
    Inform,
    /// Write what we offer, and 2.
    Offer,
    /// Read on in what the frontend asks for.
    Read,
    /// Have the device map the frontend's rings.
    Connect,
    /// Have the device end all use of the frontend's rings.
    Release,
    /// Write 4.
    WriteConnected,
    /// Write 5.
    WriteClosing,
    /// Write 6.
    WriteClosed,
    /// Remove our directory.
    Remove,
}

use Action::{
    Adopt, Connect, Gone, Inform, Read, Release, Remove, Stay, WriteClosed, WriteClosing,
    WriteConnected,
};

/// What to do next.
pub(super) fn next(view: View) -> Action {
    if !view.present || !view.intact {
        return match (view.mapped, view.present) {
            (true, _) => Release,
            (false, true) => Adopt,
            (false, false) => Gone,
        };
    }
    if view.mapped && (!view.online || view.faulted) {
        return Release;
    }
    if !view.online {
        return match view.phase {
            Phase::Closed if view.removes => Remove,
            Phase::Closed => Stay,
            Phase::Fresh | Phase::Stale | Phase::InitWait | Phase::Connected | Phase::Closing => {
                WriteClosed
            }
        };
    }
    if view.refused && !view.mapped {
        return Stay;
    }
    if view.leaving {
        return leaving(view);
    }
    match view.phase {
        Phase::InitWait if view.mapped => mapped(view),
        Phase::Connected if view.mapped => connected(view),
        // Too late: the frontend left while its rings were being mapped.
        Phase::Fresh | Phase::Stale | Phase::Closing | Phase::Closed if view.mapped => Release,
        Phase::Fresh => offer(view),
        Phase::Stale => WriteClosing,
        Phase::InitWait => init_wait(view),
        Phase::Connected => leave(view.peer),
        Phase::Closing => closing(view),
        Phase::Closed => closed(view),
    }
}

fn init_wait(view: View) -> Action {
    if view.faulted {
        return leave(view.peer);
    }
    match view.peer {
        BusState::Unknown
        | BusState::Initialising
        | BusState::InitWait
        | BusState::Initialised
        | BusState::Reconfiguring
        | BusState::Reconfigured => Stay,
        BusState::Connected => match view.offer {
            Offer::Unread => Read,
            Offer::Sound if view.held => Stay,
            Offer::Sound => Connect,
            Offer::Unsound => WriteClosing,
        },
        BusState::Closing => WriteClosing,
        BusState::Closed => WriteClosed,
    }
}

fn mapped(view: View) -> Action {
    match view.peer {
        BusState::Connected => match view.offer {
            Offer::Unread => Read,
            Offer::Sound => WriteConnected,
            Offer::Unsound => Release,
        },
        BusState::Unknown
        | BusState::Initialising
        | BusState::InitWait
        | BusState::Initialised
        | BusState::Closing
        | BusState::Closed
        | BusState::Reconfiguring
        | BusState::Reconfigured => Release,
    }
}

fn connected(view: View) -> Action {
    match view.peer {
        BusState::Connected => match view.offer {
            Offer::Unread => Read,
            Offer::Sound => Stay,
            Offer::Unsound => Release,
        },
        // Rings stay as they are during a reconfiguration.
        BusState::Reconfiguring | BusState::Reconfigured => Stay,
        BusState::Unknown
        | BusState::Initialising
        | BusState::InitWait
        | BusState::Initialised
        | BusState::Closing
        | BusState::Closed => Release,
    }
}

/// What we offer is for the vif that the toolstack has described.
fn offer(view: View) -> Action {
    if view.informed { Action::Offer } else { Inform }
}

/// We close, as far as the frontend goes along, and stay closed.
fn leaving(view: View) -> Action {
    match view.phase {
        _ if view.mapped => Release,
        Phase::Fresh | Phase::Stale | Phase::InitWait | Phase::Connected => leave(view.peer),
        Phase::Closing => closing(view),
        Phase::Closed => Stay,
    }
}

fn closing(view: View) -> Action {
    match view.peer {
        BusState::Unknown | BusState::Initialising | BusState::Closed => WriteClosed,
        // It has seen that we are closing, or will; 6 is its to say first, but it does not keep us here.
        BusState::Closing if view.leaving && view.overdue => WriteClosed,
        BusState::Closing => Stay,
        BusState::InitWait
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

fn closed(view: View) -> Action {
    match view.peer {
        // Connected: another kernel has begun there, and asks nobody.
        BusState::Initialising | BusState::Connected if view.held => Stay,
        BusState::Initialising | BusState::Connected => offer(view),
        BusState::Closing => WriteClosing,
        BusState::Unknown
        | BusState::InitWait
        | BusState::Initialised
        | BusState::Closed
        | BusState::Reconfiguring
        | BusState::Reconfigured => Stay,
    }
}

/// The first step out of a connection.
fn leave(peer: BusState) -> Action {
    match peer {
        BusState::Unknown | BusState::Closed => WriteClosed,
        BusState::Initialising
        | BusState::InitWait
        | BusState::Initialised
        | BusState::Connected
        | BusState::Closing
        | BusState::Reconfiguring
        | BusState::Reconfigured => WriteClosing,
    }
}

#[cfg(test)]
mod tests;
