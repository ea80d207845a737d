//! mini-os, in stub domains and small systems: rings and pages first, keys and state in one transaction without a look
//! at the backend, packets copied into one page each.

use super::linux::LINUX;
use super::script::{
    Ahead, Buffers, CLOSED, CLOSING, CONNECTED, Frontend, INIT_WAIT, INITIALISING, Manner, Sends,
    Step, no_flags,
};
use super::slots::{Cut, Ids};
use super::traffic::{both_ways, deliver, noise};
use super::world::World;

pub const MINIOS: Frontend = Frontend {
    name: "mini-os",
    connect: &[
        Step::Rings,
        Step::Post,
        Step::Begin,
        Step::Queue(&["tx-ring-ref", "rx-ring-ref", "event-channel"]),
        Step::Set("request-rx-copy", "1"),
        Step::State(CONNECTED),
        Step::Commit,
        Step::Await(&[CONNECTED]),
        Step::Up,
    ],
    // `shutdown_netfront`
    close: &[
        Step::Down,
        Step::State(CLOSING),
        Step::Await(&[CLOSING, CLOSED]),
        Step::State(CLOSED),
        Step::Await(&[CLOSED]),
        Step::State(INITIALISING),
        Step::Await(&[INIT_WAIT]),
        Step::Remove("tx-ring-ref"),
        Step::Remove("rx-ring-ref"),
        Step::Remove("event-channel"),
        Step::Remove("request-rx-copy"),
        Step::Free,
    ],
    when_closing: &[],
    when_closed: &[],
    recover: &[],
    manner: Manner {
        split: false,
        tx_ids: Ids::Stack { first: 255, last: 0 },
        rx_ids: Ids::Slot,
        cut: |bytes| vec![Cut::new(0, bytes.len())],
        buffers: Buffers::Anew,
        tx_flags: no_flags,
        later_flags: 0,
        tx_most: 256,
        batches: false,
        collects: true,
        tx_event: Ahead::Half,
        rx_event: Ahead::Next,
        rx_fill: 256,
        rx_refill: 1,
        polls: false,
        masked: true,
        tx_masked: false,
    },
    sends: Sends {
        longest: 1514,
        blank_v4: false,
        blank_v6: false,
        gso_v4: false,
        gso_v6: false,
        chains: false,
    },
    receives: 4096,
};

frontend_tests! {
    MINIOS:
    frontend_minios_connects => connects,
    frontend_minios_carries_traffic => carries_traffic,
    frontend_minios_closes_and_connects_again => closes_and_connects_again,
    frontend_minios_is_detached => is_detached,
    frontend_minios_is_restored => is_restored,
    frontend_minios_comes_anew => comes_anew,
    frontend_minios_sleeps_and_wakes => sleeps_and_wakes,
    frontend_minios_writes_its_keys_again => writes_its_keys_again,
    frontend_minios_changes_features_while_connected => changes_features_while_connected,
}

/// A full page, in one slot.
#[test]
fn frontend_minios_gets_a_page() {
    let mut world = World::with(&MINIOS);
    let mut rng = fastrand::Rng::with_seed(1);
    for seed in 0..20 {
        deliver(&mut world, 0, &[noise(seed, 4096)], &mut rng);
    }
}

/// A boot loader on mini-os closes in all forms, takes its keys away, and Linux comes after it.
#[test]
fn frontend_minios_boots_linux() {
    let mut world = World::with(&MINIOS);
    both_ways(&mut world, 0, 1, 2);
    world.guest().close();
    world.settle();
    assert!(world.guest().is_done());
    world.guest().reboot(&LINUX);
    world.settle();
    world.expect_connected(0);
    both_ways(&mut world, 0, 2, 2);
    assert_eq!(world.host.violations(), []);
}
