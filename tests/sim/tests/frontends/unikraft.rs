//! Unikraft: pages posted one by one before anybody knows of the ring, all keys and the state in one transaction,
//! no word of scatter-gather, checksums or notifications, references that stay open and are pointed elsewhere.

use std::time::Duration;

use xen_netfront::netback::DeliverErrorKind;

use super::script::{
    Ahead, Buffers, CLOSED, CLOSING, CONNECTED, Frontend, INIT_WAIT, INITIALISING, Manner, Sends,
    Step, When, exact_flags,
};
use super::slots::{Cut, Ids};
use super::traffic::{both_ways, deliver, large, noise, packet};
use super::world::World;

pub const UNIKRAFT: Frontend = Frontend {
    name: "Unikraft",
    connect: &[
        Step::Rings,
        Step::Post,
        Step::Begin,
        Step::Queues(When::Always),
        Step::Queue(&["tx-ring-ref", "rx-ring-ref", "event-channel"]),
        Step::Set("request-rx-copy", "1"),
        Step::State(CONNECTED),
        Step::Commit,
        Step::Await(&[CONNECTED]),
        Step::Up,
    ],
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
        Step::Remove("event-channel-tx"),
        Step::Remove("event-channel-rx"),
        Step::Free,
    ],
    when_closing: &[],
    when_closed: &[],
    recover: &[],
    manner: Manner {
        split: true,
        tx_ids: Ids::Stack { first: 255, last: 0 },
        rx_ids: Ids::Slot,
        cut: |bytes| vec![Cut::new(64, bytes.len())],
        buffers: Buffers::Repointed,
        tx_flags: exact_flags,
        later_flags: 0,
        tx_most: 256,
        batches: false,
        collects: true,
        tx_event: Ahead::Next,
        rx_event: Ahead::Next,
        rx_fill: 256,
        rx_refill: 1,
        polls: false,
        masked: true,
        tx_masked: true,
    },
    sends: Sends {
        longest: 1514,
        blank_v4: true,
        blank_v6: false,
        gso_v4: false,
        gso_v6: false,
        chains: false,
    },
    receives: 1514,
};

frontend_tests! {
    UNIKRAFT:
    frontend_unikraft_connects => connects,
    frontend_unikraft_carries_traffic => carries_traffic,
    frontend_unikraft_closes_and_connects_again => closes_and_connects_again,
    frontend_unikraft_is_detached => is_detached,
    frontend_unikraft_is_restored => is_restored,
    frontend_unikraft_comes_anew => comes_anew,
    frontend_unikraft_sleeps_and_wakes => sleeps_and_wakes,
    frontend_unikraft_writes_its_keys_again => writes_its_keys_again,
    frontend_unikraft_changes_features_while_connected => changes_features_while_connected,
}

/// It does not promise to tell of pages that it posts, so nobody waits for it longer than 30 ms.
#[test]
fn frontend_unikraft_is_not_waited_for() {
    let mut world = World::with(&UNIKRAFT);
    let id = world.guest().id();
    let mut rng = fastrand::Rng::with_seed(1);
    let mut give = |world: &mut World, count: u64| {
        for seed in 0..count {
            let packet = packet(world, &noise(seed, 300), &mut rng);
            world.backend.deliver(id, packet).unwrap();
            while world.backend.turn() {}
        }
    };
    give(&mut world, 266);
    assert_eq!(world.backend.vif(id).unwrap().queued(), 10);
    let at = world.backend.next_deadline().unwrap();
    assert_eq!(at.since(world.host.now()), Duration::from_millis(30));
    world.host.advance_to(at);
    while world.backend.turn() {}
    assert_eq!(world.backend.vif(id).unwrap().queued(), 0);
    world.settle();
    assert_eq!(world.guest().received.drain(..).count(), 256);
    both_ways(&mut world, 0, 1, 2);
}

/// It takes one packet a page, and no more of a packet: what does not fit is not sent.
#[test]
fn frontend_unikraft_gets_no_chains() {
    let mut world = World::with(&UNIKRAFT);
    let mut rng = fastrand::Rng::with_seed(1);
    for v6 in [false, true] {
        deliver(&mut world, 0, &[large(v6, 1, 60_000, 1400)], &mut rng);
    }
    let (id, packet) = (world.guest().id(), packet(&world, &noise(1, 4097), &mut rng));
    let refused = world.backend.deliver(id, packet).unwrap_err();
    assert_eq!(refused.why(), Some(DeliverErrorKind::BadLength));
}

/// A reference that is answered stays open, and points at another page with the next packet.
#[test]
fn frontend_unikraft_keeps_its_references_open() {
    let mut world = World::with(&UNIKRAFT);
    both_ways(&mut world, 0, 1, 4);
    // Both rings, the pages posted, and as many references as were ever in flight.
    let open = world.guest().grants();
    both_ways(&mut world, 0, 2, 4);
    assert_eq!(world.guest().grants(), open);
    assert!(open > 2 + 256, "{open}");
    world.guest().close();
    world.settle();
    assert_eq!(world.guest().grants(), 0);
}
