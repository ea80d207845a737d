//! MirageOS: frames in halves of pages that stay granted, so that one reference is in flight twice; receive ids that
//! count through all of 16 bits; nothing sent or posted before the backend is connected; closed without closing.

use super::raw_client::bytes;
use super::script::{
    Ahead, Buffers, CLOSED, CONNECTED, Frontend, GONE, Manner, Sends, Step, no_flags,
};
use super::slots::contiguous;
use super::slots::{Cut, Ids};
use super::traffic::{both_ways, deliver, noise};
use super::world::World;

pub const MIRAGE: Frontend = Frontend {
    name: "MirageOS",
    connect: &[
        Step::Rings,
        Step::Begin,
        Step::Queue(&["tx-ring-ref", "rx-ring-ref", "event-channel"]),
        Step::Set("feature-sg", "1"),
        Step::Set("feature-gso-tcpv4", "1"),
        Step::Set("request-rx-copy", "1"),
        Step::Set("feature-rx-flip", "0"),
        Step::Set("feature-rx-notify", "1"),
        Step::Set("feature-smart-poll", "0"),
        Step::Commit,
        Step::State(CONNECTED),
        Step::Await(&[CONNECTED]),
        // `listen`
        Step::Up,
        Step::Post,
    ],
    close: &[Step::Down, Step::State(CLOSED), Step::Await(&[CLOSED, GONE]), Step::Free],
    when_closing: &[],
    when_closed: &[],
    recover: &[],
    manner: Manner {
        split: false,
        tx_ids: Ids::Buffer,
        rx_ids: Ids::Counting(65_000),
        cut,
        buffers: Buffers::Halves,
        tx_flags: no_flags,
        later_flags: 0,
        tx_most: 256,
        batches: false,
        collects: false,
        tx_event: Ahead::Next,
        rx_event: Ahead::Next,
        rx_fill: 256,
        rx_refill: 1,
        polls: false,
        masked: false,
        tx_masked: false,
    },
    sends: Sends {
        longest: 9014,
        blank_v4: false,
        blank_v6: false,
        gso_v4: false,
        gso_v6: false,
        chains: true,
    },
    receives: 9014,
};

fn cut(bytes: &[u8]) -> Vec<Cut> {
    bytes.chunks(2048).map(|part| Cut::new(0, part.len())).collect()
}

frontend_tests! {
    MIRAGE:
    frontend_mirage_connects => connects,
    frontend_mirage_carries_traffic => carries_traffic,
    frontend_mirage_is_detached => is_detached,
    frontend_mirage_is_restored => is_restored,
    frontend_mirage_comes_anew => comes_anew,
    frontend_mirage_sleeps_and_wakes => sleeps_and_wakes,
    frontend_mirage_writes_its_keys_again => writes_its_keys_again,
    frontend_mirage_changes_features_while_connected => changes_features_while_connected,
    frontend_mirage_connects_to_a_closed_backend => connects_to_a_closed_backend,
}

/// Two frames in the halves of one page: one reference is in flight twice, and answered twice.
#[test]
fn frontend_mirage_has_a_reference_in_flight_twice() {
    let mut world = World::with(&MIRAGE);
    for seed in 0..100 {
        let frames = [noise(seed, 2048), noise(seed + 1, 1000)];
        assert!(world.guest().send(frames.to_vec()).is_empty());
        let references = world.queue().references();
        assert_eq!((references.len(), references[0]), (2, references[1]));
        world.settle();
        let got = world.backend.received.drain(..).map(|(_, packet)| bytes(&packet));
        assert!(got.eq(frames.map(|frame| frame.bytes)));
    }
    assert_eq!(world.queue().unanswered(), 0);
}

/// Older versions put headers and payload into requests of their own, at whatever offset they had.
#[test]
fn frontend_mirage_sends_headers_apart() {
    const APART: Frontend = Frontend {
        manner: Manner {
            buffers: Buffers::Anew,
            tx_ids: Ids::Counting(0),
            cut: apart,
            ..MIRAGE.manner
        },
        ..MIRAGE
    };
    fn apart(bytes: &[u8]) -> Vec<Cut> {
        let rest = bytes.len() - 34;
        let mut cuts = vec![Cut::new(2, 14), Cut::new(1001, 20)];
        cuts.extend(contiguous(4095 - bytes.len() % 9, rest));
        cuts
    }
    let mut world = World::with(&APART);
    both_ways(&mut world, 0, 1, 6);
}

/// Its receive ids pass 65535.
#[test]
fn frontend_mirage_wraps_its_ids() {
    let mut world = World::with(&MIRAGE);
    let mut rng = fastrand::Rng::with_seed(1);
    for round in 0..10 {
        let frames: Vec<_> = (0..100).map(|seed| noise(round * 100 + seed, 400)).collect();
        deliver(&mut world, 0, &frames, &mut rng);
    }
}

/// It goes from Connected straight to Closed, and that is the last of it.
#[test]
fn frontend_mirage_closes_without_closing() {
    let mut world = World::with(&MIRAGE);
    world.guest().close();
    world.settle();
    assert!(world.guest().is_done());
    world.expect_released(0);
    let vif = world.guest().vif.clone();
    assert_eq!(world.toolstack.states(&vif), (Some(6), Some(6)));
    world.guests.clear();
    world.host.destroy_domain(vif.frontend);
    world.toolstack.begin_detach(&vif);
    world.settle();
    assert_eq!(world.toolstack.states(&vif).1, None);
}
