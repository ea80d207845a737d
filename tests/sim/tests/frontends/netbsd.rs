//! NetBSD: rings before anything else, the event channel as the last key, receive ids from the top down, pages
//! posted again only when four fifths are gone, blank checksums not called validated.

use std::time::Duration;

use super::traffic::{blank, deliver, noise, send};
use super::world::World;
use xen_netfront::wire::tx_flags;

use super::script::{
    Ahead, Buffers, CLOSED, CLOSING, CONNECTED, Frontend, GONE, INIT_WAIT, INITIALISING, Manner,
    Sends, Step, Sum,
};
use super::slots::{Cut, Ids, somewhere};

pub const NETBSD: Frontend = Frontend {
    name: "NetBSD",
    connect: &[
        Step::Await(&[INIT_WAIT]),
        Step::Rings,
        Step::Begin,
        Step::Set("vifname", "xennet0"),
        Step::Queue(&["tx-ring-ref", "rx-ring-ref"]),
        Step::Set("request-rx-copy", "1"),
        Step::Set("feature-rx-notify", "1"),
        Step::Set("feature-ipv6-csum-offload", "1"),
        Step::Set("feature-sg", "1"),
        Step::Queue(&["event-channel"]),
        Step::Commit,
        Step::Post,
        Step::State(CONNECTED),
        // `xennet_init`, with the first `ifconfig up`
        Step::Up,
        Step::Notify,
    ],
    // `xennet_xenbus_detach` at shutdown says this and no more; what the backend does then makes the rest.
    close: &[
        Step::Down,
        Step::State(CLOSING),
        Step::Await(&[CLOSING]),
        Step::State(CLOSED),
        Step::Await(&[CLOSED, GONE]),
        Step::Free,
        Step::State(INITIALISING),
    ],
    when_closing: &[Step::State(CLOSED)],
    // Detached, and it waits until nobody uses its rings.
    when_closed: &[Step::Down, Step::Free],
    recover: &[Step::State(INITIALISING)],
    manner: Manner {
        split: false,
        tx_ids: Ids::Stack { first: 255, last: 0 },
        rx_ids: Ids::Stack { first: 255, last: 0 },
        cut,
        buffers: Buffers::Anew,
        tx_flags: flags,
        later_flags: 0,
        tx_most: 256,
        batches: true,
        collects: true,
        tx_event: Ahead::Half,
        rx_event: Ahead::Next,
        rx_fill: 256,
        rx_refill: 204,
        polls: false,
        masked: true,
        tx_masked: false,
    },
    sends: Sends {
        longest: 9018,
        blank_v4: true,
        blank_v6: true,
        gso_v4: false,
        gso_v6: false,
        chains: true,
    },
    receives: 9014,
};

fn flags(sum: Sum) -> u16 {
    match sum {
        Sum::Blank => tx_flags::CSUM_BLANK,
        Sum::There => tx_flags::DATA_VALIDATED,
    }
}

/// Short ones are put into one cluster, others lie in clusters of half a page.
fn cut(bytes: &[u8]) -> Vec<Cut> {
    if bytes.len() < 2048 {
        return vec![Cut::new(somewhere(bytes, 4096 - bytes.len()), bytes.len())];
    }
    let parts = bytes.chunks(2048).enumerate();
    parts.map(|(number, part)| Cut::new((number + bytes.len()) % 2 * 2048, part.len())).collect()
}

frontend_tests! {
    NETBSD:
    frontend_netbsd_connects => connects,
    frontend_netbsd_carries_traffic => carries_traffic,
    frontend_netbsd_closes_and_connects_again => closes_and_connects_again,
    frontend_netbsd_is_detached => is_detached,
    frontend_netbsd_is_restored => is_restored,
    frontend_netbsd_comes_anew => comes_anew,
    frontend_netbsd_sleeps_and_wakes => sleeps_and_wakes,
    frontend_netbsd_writes_its_keys_again => writes_its_keys_again,
    frontend_netbsd_changes_features_while_connected => changes_features_while_connected,
}

/// It posts nothing until 204 of its pages are used; there are always enough left for its largest packet.
#[test]
fn frontend_netbsd_posts_after_four_fifths() {
    let mut world = World::with(&NETBSD);
    let mut rng = fastrand::Rng::with_seed(1);
    for round in 0..5 {
        let used = 256 - world.queue().posted();
        let frames: Vec<_> = (used as u64..203).map(|seed| noise(seed, 100)).collect();
        deliver(&mut world, 0, &frames, &mut rng);
        assert_eq!(world.queue().posted(), 53);
        // Three pages: it posts when it has taken the first of them.
        deliver(&mut world, 0, &[noise(round, 9000)], &mut rng);
        assert!(world.queue().posted() > 200, "{}", world.queue().posted());
    }
    assert_eq!(world.host.violations(), []);
}

/// A blank sum is blank, though the request does not say that it is validated, too.
#[test]
fn frontend_netbsd_says_blank_and_not_validated() {
    let mut world = World::with(&NETBSD);
    assert_eq!(flags(Sum::Blank), tx_flags::CSUM_BLANK);
    for v6 in [false, true] {
        send(&mut world, 0, &[blank(v6, true, 1, 1000), blank(v6, false, 2, 20), noise(3, 60)]);
    }
}

/// At shutdown it says Closing, and then there is nobody any more.
#[test]
fn frontend_netbsd_halts() {
    let mut world = World::with(&NETBSD);
    world.guest().set("state", "5");
    world.settle();
    assert_eq!(world.backend.domain.mappings(), 0);
    let vif = world.guest().vif.clone();
    world.guests.clear();
    world.host.destroy_domain(vif.frontend);
    world.pass(Duration::from_secs(5));
    world.toolstack.begin_detach(&vif);
    world.settle();
    assert_eq!(world.toolstack.states(&vif).1, None);
}
