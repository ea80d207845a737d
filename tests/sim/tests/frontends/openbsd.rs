//! OpenBSD: no look at anybody's state, keys one by one and 4 at once, no pages until `ifconfig up`, and one id
//! for all requests of an mbuf that crosses a page.

use std::time::Duration;

use xen_netfront::netback::DeliverErrorKind;

use super::raw_client::bytes;
use super::script::{Ahead, Buffers, CONNECTED, Frontend, Manner, Sends, Step, no_flags};
use super::slots::{Cut, Ids, contiguous, headers, somewhere};
use super::traffic::{both_ways, deliver, large, noise, packet};
use super::world::{World, config};

pub const OPENBSD: Frontend = Frontend {
    name: "OpenBSD",
    connect: &[
        Step::Rings,
        Step::Queue(&["rx-ring-ref"]),
        Step::Set("request-rx-copy", "1"),
        Step::Set("feature-rx-notify", "1"),
        Step::Queue(&["tx-ring-ref"]),
        Step::SetIfOffered("feature-sg"),
        Step::Set("feature-no-csum-offload", "1"),
        Step::Queue(&["event-channel"]),
        Step::State(CONNECTED),
        // `xnf_init`
        Step::Post,
        Step::Up,
    ],
    // All that it ever does is to mask its interrupt.
    close: &[Step::Down],
    when_closing: &[],
    when_closed: &[],
    recover: &[],
    manner: Manner {
        split: false,
        tx_ids: Ids::Counting(0),
        rx_ids: Ids::Slot,
        cut,
        buffers: Buffers::Anew,
        tx_flags: no_flags,
        later_flags: 0,
        tx_most: 256,
        batches: true,
        collects: false,
        tx_event: Ahead::Half,
        rx_event: Ahead::Next,
        rx_fill: 256,
        rx_refill: 1,
        polls: false,
        masked: true,
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

/// Two mbufs, either of which may cross pages: requests of one mbuf have one id.
pub fn cut(bytes: &[u8]) -> Vec<Cut> {
    let head = headers(bytes);
    let mbuf = |at, len| {
        let number = |(number, cut)| Cut { same_id: number > 0, ..cut };
        contiguous(at, len).into_iter().enumerate().map(number)
    };
    let first = mbuf(somewhere(bytes, 4096), head);
    first.chain(mbuf(somewhere(&bytes[1..], 4096), bytes.len() - head)).collect()
}

frontend_tests! {
    OPENBSD:
    frontend_openbsd_connects => connects,
    frontend_openbsd_carries_traffic => carries_traffic,
    frontend_openbsd_is_detached => is_detached,
    frontend_openbsd_is_restored => is_restored,
    frontend_openbsd_comes_anew => comes_anew,
    frontend_openbsd_sleeps_and_wakes => sleeps_and_wakes,
    frontend_openbsd_writes_its_keys_again => writes_its_keys_again,
    frontend_openbsd_changes_features_while_connected => changes_features_while_connected,
    frontend_openbsd_connects_to_a_closed_backend => connects_to_a_closed_backend,
}

const BEFORE_UP: &[Step] = &[
    Step::Rings,
    Step::Queue(&["rx-ring-ref"]),
    Step::Set("request-rx-copy", "1"),
    Step::Set("feature-rx-notify", "1"),
    Step::Queue(&["tx-ring-ref"]),
    Step::SetIfOffered("feature-sg"),
    Step::Set("feature-no-csum-offload", "1"),
    Step::Queue(&["event-channel"]),
    Step::State(CONNECTED),
];

/// Connected with an empty ring, until somebody says `ifconfig up`: soon, or after what waited has been given up.
#[test]
fn frontend_openbsd_posts_nothing_until_it_is_up() {
    for (seconds, kept) in [(5, 10), (25, 0)] {
        let mut world = World::new(config());
        world.add(&OPENBSD);
        world.settle();
        world.guest().start(BEFORE_UP);
        world.settle();
        let id = world.guest().id();
        assert!(world.backend.is_connected(id));
        let mut rng = fastrand::Rng::with_seed(1);
        for seed in 0..10 {
            let packet = packet(&world, &noise(seed, 500), &mut rng);
            world.backend.deliver(id, packet).unwrap();
        }
        world.pass(Duration::from_secs(seconds));
        world.guest().start(&[Step::Post, Step::Up]);
        world.settle();
        let got: Vec<_> = world.guest().received.drain(..).map(|packet| packet.bytes).collect();
        let first: Vec<_> = (0..kept).map(|seed| noise(seed, 500).bytes).collect();
        assert_eq!(got, first);
        both_ways(&mut world, 0, 2, 2);
        assert_eq!(world.host.violations(), []);
    }
}

/// `ifconfig down`, and up again a while later: its ring stays, and what it had posted is filled meanwhile.
#[test]
fn frontend_openbsd_goes_down_and_up() {
    let mut world = World::with(&OPENBSD);
    let id = world.guest().id();
    let mut rng = fastrand::Rng::with_seed(1);
    for seconds in [1, 30, 1] {
        world.guest().close();
        world.settle();
        for seed in 0..100 {
            let packet = packet(&world, &noise(seed, 500), &mut rng);
            world.backend.deliver(id, packet).unwrap();
        }
        world.pass(Duration::from_secs(seconds));
        assert!(world.guest().received.is_empty());
        world.guest().start(&[Step::Post, Step::Up]);
        world.settle();
        assert_eq!(world.guest().received.len(), 100);
        both_ways(&mut world, 0, 2, 1);
    }
    assert_eq!(world.host.violations(), []);
}

/// An mbuf that crosses a page takes two requests with one id; each is answered.
#[test]
fn frontend_openbsd_has_one_id_for_two_requests() {
    let mut world = World::with(&OPENBSD);
    let frame = noise(1, 3000);
    let crossing: Vec<_> = contiguous(4096 - 1000, 3000)
        .into_iter()
        .enumerate()
        .map(|(number, cut)| Cut { same_id: number > 0, ..cut })
        .collect();
    for _ in 0..200 {
        world.queue().push_cut(&frame, &crossing);
        world.queue().show();
        assert_eq!((world.queue().ids().len(), world.queue().unanswered()), (1, 2));
        world.settle();
        world.queue().collect();
        assert_eq!(world.queue().unanswered(), 0);
        let (_, packet) = world.backend.received.pop().unwrap();
        assert!(bytes(&packet) == frame.bytes);
    }
}

/// It looks at our features when it starts. Before we have written any it takes no chains, then, and sends none.
#[test]
fn frontend_openbsd_that_comes_first_has_no_chains() {
    let mut world = World::new(config());
    world.add(&OPENBSD);
    world.guest().connect();
    while world.guests[0].turn() {}
    world.settle();
    world.expect_connected(0);
    assert!(!world.guest().takes().chains && !world.guest().may_send.chains);
    both_ways(&mut world, 0, 1, 6);
    let mut rng = fastrand::Rng::with_seed(1);
    deliver(&mut world, 0, &[noise(1, 4096), large(false, 2, 30_000, 1448)], &mut rng);
    let (id, packet) = (world.guest().id(), packet(&world, &noise(1, 4097), &mut rng));
    let refused = world.backend.deliver(id, packet).unwrap_err();
    assert_eq!(refused.why(), Some(DeliverErrorKind::BadLength));
}
