//! The rules over every state of both ends, and everything else that they depend on.

use alloc::vec::Vec;

use super::*;
use crate::xenbus::bus::MAX_ACTIONS;
use crate::xenbus::tests::fake::table_in_docs;

const PHASES: [Phase; 6] =
    [Phase::Fresh, Phase::Stale, Phase::InitWait, Phase::Connected, Phase::Closing, Phase::Closed];

/// Every view there is; the ones that the machine never gets into as well.
fn all_views() -> impl Iterator<Item = View> {
    PHASES.into_iter().flat_map(|phase| {
        BusState::ALL.into_iter().flat_map(move |peer| {
            (0u32..3 << 11).map(move |bits| {
                let bit = |n: u32| bits >> n & 1 == 1;
                View {
                    phase,
                    peer,
                    mapped: bit(0),
                    present: bit(1),
                    intact: bit(2),
                    online: bit(3),
                    faulted: bit(4),
                    overdue: bit(5),
                    held: bit(6),
                    removes: bit(7),
                    informed: bit(8),
                    leaving: bit(9),
                    refused: bit(10),
                    offer: [Offer::Unread, Offer::Sound, Offer::Unsound][bits as usize >> 11],
                }
            })
        })
    })
}

fn well(phase: Phase, mapped: bool, peer: BusState) -> View {
    View {
        phase,
        mapped,
        peer,
        present: true,
        intact: true,
        online: true,
        faulted: false,
        offer: Offer::Sound,
        informed: true,
        overdue: false,
        held: false,
        removes: true,
        leaving: false,
        refused: false,
    }
}

#[test]
fn f11_the_table_is_what_happens() {
    let rows = [
        ("Fresh", Phase::Fresh, false),
        ("Stale", Phase::Stale, false),
        ("InitWait", Phase::InitWait, false),
        ("(mapped)", Phase::InitWait, true),
        ("Connected", Phase::Connected, true),
        ("(unmapped)", Phase::Connected, false),
        ("Closing", Phase::Closing, false),
        ("Closed", Phase::Closed, false),
    ];
    for (name, phase, mapped) in rows {
        let row = table_in_docs(include_str!("../rules.rs"), name);
        for (peer, word) in BusState::ALL.into_iter().zip(row) {
            let action = match word {
                "-" => Stay,
                "2" => Action::Offer,
                "4" => WriteConnected,
                "5" => WriteClosing,
                "6" => WriteClosed,
                "connect" => Connect,
                "release" => Release,
                other => panic!("{other} in the table"),
            };
            assert_eq!(next(well(phase, mapped, peer)), action, "{name}, frontend {peer}");
        }
    }
}

#[test]
fn f11_no_view_leads_astray() {
    for view in all_views() {
        let ours = view.present && view.intact;
        match next(view) {
            Stay => assert!(ours),
            Gone => assert!(!view.present && !view.mapped),
            Adopt => assert!(view.present && !view.intact && !view.mapped),
            Inform => assert!(ours && view.online && !view.mapped && !view.informed),
            Action::Offer => {
                assert!(ours && view.online && !view.mapped && view.informed && !view.leaving);
            }
            Read => assert!(
                ours && view.online
                    && !view.faulted
                    && !view.leaving
                    && view.offer == Offer::Unread
                    && view.peer == BusState::Connected
            ),
            Connect => assert!(
                ours && view.online
                    && !view.faulted
                    && view.offer == Offer::Sound
                    && !view.mapped
                    && !view.leaving
                    && !view.held
                    && view.phase == Phase::InitWait
                    && view.peer == BusState::Connected
            ),
            WriteConnected => assert!(
                ours && view.online
                    && !view.faulted
                    && view.offer == Offer::Sound
                    && view.mapped
                    && !view.leaving
                    && view.peer == BusState::Connected
            ),
            Release => assert!(view.mapped),
            // The frontend takes these for "nothing of yours is mapped".
            WriteClosing => assert!(ours && !view.mapped && view.online),
            WriteClosed => assert!(ours && !view.mapped && view.phase != Phase::Closed),
            Remove => assert!(
                ours && !view.online && !view.mapped && view.removes && view.phase == Phase::Closed
            ),
        }
        if view.mapped && (view.faulted || !view.online || !ours || view.leaving) {
            assert_eq!(next(view), Release, "{view:?}");
        }
    }
}

/// Follows one action; `None` where it is the device's turn, or time's.
fn after(view: View, action: Action) -> Option<Vec<View>> {
    let to = |phase| View { phase, faulted: false, overdue: false, ..view };
    match action {
        Stay | Gone | Connect | Release | Remove => None,
        Adopt => {
            let adopted = [Phase::Fresh, Phase::Stale, Phase::Closing, Phase::Closed];
            Some(adopted.map(|phase| View { intact: true, ..to(phase) }).to_vec())
        }
        Inform => Some([View { informed: true, ..view }].to_vec()),
        // As if one step were all.
        Read => {
            let read = [Offer::Sound, Offer::Unsound].map(|offer| View { offer, ..view });
            Some(read.to_vec())
        }
        Action::Offer => Some([View { informed: false, ..to(Phase::InitWait) }].to_vec()),
        WriteConnected => Some([to(Phase::Connected)].to_vec()),
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
fn a_vif_that_is_taken_offline_ends_whatever_the_frontend_says() {
    for view in all_views().filter(|view| view.present && view.intact && view.removes) {
        let mut view = View { online: false, ..view };
        for _ in 0..3 {
            match next(view) {
                Release => view.mapped = false,
                action => match after(view, action) {
                    Some(views) => view = views[0],
                    None => break,
                },
            }
        }
        assert_eq!(next(view), Remove, "{view:?}");
    }
}

#[test]
fn a_backend_that_shuts_down_closes_whatever_the_frontend_says_and_stays_closed() {
    for view in all_views().filter(|view| view.present && view.intact && view.online) {
        let mut view = View { leaving: true, refused: false, ..view };
        for _ in 0..4 {
            match next(view) {
                Release => view.mapped = false,
                // Its time is up.
                Stay => view.overdue = true,
                action => view = after(view, action).unwrap()[0],
            }
        }
        assert!(view.phase == Phase::Closed, "{view:?}");
        assert_eq!((next(view), view.mapped), (Stay, false), "{view:?}");
    }
}

#[test]
fn n2_a_vif_that_is_refused_is_only_answered_when_it_goes() {
    for view in
        all_views().filter(|view| view.refused && !view.mapped && view.present && view.intact)
    {
        let action = next(view);
        assert!(action == Stay || !view.online, "{view:?}: {action:?}");
    }
}
