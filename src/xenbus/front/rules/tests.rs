//! The rules over every state of both ends, and everything else that they depend on.

use alloc::vec::Vec;

use super::*;
use crate::xenbus::bus::MAX_ACTIONS;
use crate::xenbus::tests::fake::table_in_docs;

const PHASES: [Phase; 6] =
    [Phase::Stale, Phase::Offering, Phase::Published, Phase::Live, Phase::Closing, Phase::Closed];

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
        let row = table_in_docs(include_str!("../rules.rs"), name);
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
        Some(views) => views.into_iter().map(|view| longest_chain(view, so_far + 1)).max().unwrap(),
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
