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
pub(super) enum Phase {
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
pub(super) enum Action {
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
mod tests {
    use alloc::vec::Vec;

    use super::*;
    use crate::xenbus::front::work::MAX_ACTIONS;
    use crate::xenbus::tests::fake::table_in_docs;

    const PHASES: [Phase; 6] = [
        Phase::Stale,
        Phase::Offering,
        Phase::Published,
        Phase::Live,
        Phase::Closing,
        Phase::Closed,
    ];

    /// Every view there is; the ones that the machine never gets into as well.
    fn all_views() -> impl Iterator<Item = View> {
        PHASES.into_iter().flat_map(|phase| {
            BusState::ALL.into_iter().flat_map(move |peer| {
                (0u32..1 << 8).map(move |bits| {
                    let bit = |n: u32| bits >> n & 1 == 1;
                    View {
                        phase,
                        peer,
                        rings: bit(0),
                        present: bit(1),
                        intact: bit(2),
                        online: bit(3),
                        wanted: bit(4),
                        faulted: bit(5),
                        overdue: bit(6),
                        held: bit(7),
                    }
                })
            })
        })
    }

    fn well(phase: Phase, rings: bool, peer: BusState) -> View {
        View {
            phase,
            rings,
            peer,
            present: true,
            intact: true,
            online: true,
            wanted: true,
            faulted: false,
            overdue: false,
            held: false,
        }
    }

    #[test]
    fn f11_the_table_is_what_happens() {
        let rows = [
            ("Stale", Phase::Stale, false),
            ("Offering", Phase::Offering, false),
            ("Published", Phase::Published, true),
            ("Live", Phase::Live, true),
            ("Closing", Phase::Closing, true),
            ("Closed, rings", Phase::Closed, true),
            ("Closed", Phase::Closed, false),
        ];
        for (name, phase, rings) in rows {
            let row = table_in_docs(include_str!("rules.rs"), name);
            for (peer, word) in BusState::ALL.into_iter().zip(row) {
                let action = match word {
                    "-" => Stay,
                    "1" => WriteInitialising,
                    "5" => WriteClosing,
                    "6" => WriteClosed,
                    "connect" => Connect,
                    "live" => GoLive,
                    "release" => Release,
                    other => panic!("{other} in the table"),
                };
                assert_eq!(next(well(phase, rings, peer)), action, "{name}, backend {peer}");
            }
        }
    }

    #[test]
    fn f11_no_view_leads_astray() {
        for view in all_views() {
            let action = next(view);
            let ours = view.present && view.intact;
            match action {
                Stay | Repeat => assert!(ours),
                Gone => assert!(!view.present && !view.rings),
                Adopt => assert!(view.present && !view.intact && !view.rings),
                Connect => assert!(
                    ours && view.wanted
                        && !view.held
                        && view.phase == Phase::Offering
                        && view.peer == BusState::InitWait
                ),
                GoLive => assert!(
                    ours && view.wanted
                        && !view.faulted
                        && view.phase == Phase::Published
                        && view.peer == BusState::Connected
                ),
                Release => assert!(view.rings),
                // Rings never outlive the state that tells the backend not to use them.
                WriteInitialising => assert!(
                    ours && view.wanted
                        && view.online
                        && !view.held
                        && !view.rings
                        && view.phase == Phase::Closed
                ),
                WriteClosing => assert!(ours && view.phase != Phase::Closed),
                WriteClosed => assert!(ours && view.phase != Phase::Closed),
            }
            // Staying live is what lets the device transmit.
            if view.phase == Phase::Live && action == Stay {
                assert!(ours && view.wanted && !view.faulted && view.peer == BusState::Connected);
            }
        }
    }

    /// Follows one action; `None` where it is the device's turn, or time's.
    fn after(view: View, action: Action) -> Option<Vec<View>> {
        let to = |phase| View { phase, faulted: false, overdue: false, ..view };
        match action {
            Stay | Gone | Connect | Release | Repeat => None,
            Adopt => {
                let adopted = [Phase::Stale, Phase::Offering, Phase::Closing, Phase::Closed];
                Some(adopted.map(|phase| View { intact: true, ..to(phase) }).to_vec())
            }
            GoLive => Some([View { phase: Phase::Live, ..view }].to_vec()),
            WriteInitialising => Some([to(Phase::Offering)].to_vec()),
            WriteClosing => Some([to(Phase::Closing)].to_vec()),
            WriteClosed => Some([to(Phase::Closed)].to_vec()),
        }
    }

    fn longest_chain(view: View, so_far: usize) -> usize {
        assert!(so_far <= MAX_ACTIONS, "no end in sight at {view:?}");
        match after(view, next(view)) {
            None => so_far + 1,
            Some(views) => {
                views.into_iter().map(|view| longest_chain(view, so_far + 1)).max().unwrap()
            }
        }
    }

    #[test]
    fn f11_every_chain_of_actions_ends() {
        let longest = all_views().map(|view| longest_chain(view, 0)).max().unwrap();
        assert!(longest < MAX_ACTIONS, "{longest}");
    }

    #[test]
    fn f11_rings_come_back_whatever_the_backend_says() {
        for peer in BusState::ALL {
            for (phase, wanted, faulted) in [
                (Phase::Published, false, false),
                (Phase::Published, true, true),
                (Phase::Live, false, false),
                (Phase::Live, true, true),
                (Phase::Closing, true, false),
                (Phase::Closed, true, false),
            ] {
                let mut view = View { wanted, faulted, ..well(phase, true, peer) };
                let mut waits = 0;
                while next(view) != Release {
                    match after(view, next(view)) {
                        Some(views) => view = views[0],
                        None => {
                            waits += 1;
                            view.overdue = true;
                        }
                    }
                    assert!(waits <= 2, "stuck at {view:?}");
                }
            }
        }
    }
}
