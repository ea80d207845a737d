//! FreeBSD: chains of mbufs, ids from 1 to 256, an event asked for when half is answered, and a close cycle of its own
//! whenever what it takes changes.

use super::raw_client::bytes;
use super::script::{
    Ahead, Buffers, CLOSED, CLOSING, CONNECTED, Frontend, INIT_WAIT, INITIALISING, Manner, Sends,
    Step, When, exact_flags,
};
use super::slots::{Cut, Ids, headers, somewhere};
use super::traffic::{blank, both_ways, noise};
use super::world::World;

pub const FREEBSD: Frontend = Frontend {
    name: "FreeBSD",
    connect: &[
        Step::Await(&[INIT_WAIT]),
        Step::Rings,
        Step::Begin,
        Step::Queues(When::Several),
        Step::Queue(&["tx-ring-ref", "rx-ring-ref", "event-channel"]),
        Step::Set("request-rx-copy", "1"),
        Step::Set("feature-rx-notify", "1"),
        Step::Set("feature-sg", "1"),
        Step::Set("feature-gso-tcpv4", "1"),
        Step::Commit,
        Step::State(CONNECTED),
        // `xn_kick_rings`: after the state, unlike Linux.
        Step::Notify,
        Step::Post,
        Step::Up,
    ],
    close: RESET,
    when_closing: &[Step::Down, Step::State(CLOSED)],
    // It keeps its grants until the device is taken from it.
    when_closed: &[Step::Down],
    recover: &[Step::State(INITIALISING)],
    manner: Manner {
        split: false,
        tx_ids: Ids::Stack { first: 1, last: 256 },
        rx_ids: Ids::Slot,
        cut,
        buffers: Buffers::Anew,
        tx_flags: exact_flags,
        later_flags: 0,
        tx_most: 256,
        batches: false,
        collects: true,
        tx_event: Ahead::Half,
        rx_event: Ahead::Next,
        rx_fill: 256,
        rx_refill: 1,
        polls: false,
        masked: false,
        tx_masked: false,
    },
    sends: Sends {
        longest: 9014,
        blank_v4: true,
        blank_v6: false,
        gso_v4: true,
        gso_v6: false,
        chains: true,
    },
    receives: 9014,
};

/// What `xn_ioctl` does for another set of features: takes the keys away, closes, and begins anew.
const RESET: &[Step] = &[
    Step::Down,
    Step::Remove("feature-gso-tcpv4"),
    Step::Remove("feature-no-csum-offload"),
    Step::State(CLOSING),
    Step::Await(&[CLOSING]),
    Step::State(CLOSED),
    Step::Await(&[CLOSED]),
    Step::Free,
    Step::State(INITIALISING),
];

/// Headers in a small mbuf, some data in the next one of the same page, which is granted a second time,
/// the rest in clusters.
pub fn cut(bytes: &[u8]) -> Vec<Cut> {
    let (head, start) = (headers(bytes), somewhere(bytes, 14) * 256);
    let mut cuts = vec![Cut::new(start + 16, head)];
    let mut left = bytes.len() - head;
    if left == 0 {
        return cuts;
    }
    let some = left.min(168);
    cuts.push(Cut { same_page: true, ..Cut::new(start + 256 + 88, some) });
    left -= some;
    let cluster = if bytes.len() > 9100 { 4096 } else { 2048 };
    while left > 0 {
        let part = left.min(cluster);
        cuts.push(Cut::new(if cluster == 2048 && cuts.len() % 2 == 1 { 2048 } else { 0 }, part));
        left -= part;
    }
    cuts
}

frontend_tests! {
    FREEBSD:
    frontend_freebsd_connects => connects,
    frontend_freebsd_carries_traffic => carries_traffic,
    frontend_freebsd_closes_and_connects_again => closes_and_connects_again,
    frontend_freebsd_is_detached => is_detached,
    frontend_freebsd_is_restored => is_restored,
    frontend_freebsd_comes_anew => comes_anew,
    frontend_freebsd_sleeps_and_wakes => sleeps_and_wakes,
    frontend_freebsd_writes_its_keys_again => writes_its_keys_again,
    frontend_freebsd_changes_features_while_connected => changes_features_while_connected,
}

/// `ifconfig xn0 -lro -rxcsum`: it closes and comes again with other features, and what it does not take any more is
/// done for it; and back.
#[test]
fn frontend_freebsd_resets_itself_for_other_features() {
    const PLAIN: Frontend = Frontend {
        connect: &[
            Step::Await(&[INIT_WAIT]),
            Step::Rings,
            Step::Begin,
            Step::Queues(When::Several),
            Step::Queue(&["tx-ring-ref", "rx-ring-ref", "event-channel"]),
            Step::Set("request-rx-copy", "1"),
            Step::Set("feature-rx-notify", "1"),
            Step::Set("feature-sg", "1"),
            Step::Set("feature-no-csum-offload", "1"),
            Step::Commit,
            Step::State(CONNECTED),
            Step::Notify,
            Step::Post,
            Step::Up,
        ],
        ..FREEBSD
    };
    let mut world = World::with(&FREEBSD);
    for (frontend, plain) in [(&PLAIN, true), (&FREEBSD, false), (&PLAIN, true)] {
        world.guest().close();
        world.settle();
        world.guest().frontend = frontend;
        world.connect(0);
        let takes = world.guest().takes();
        assert_eq!((takes.gso_v4, takes.blank_v4), (!plain, !plain));
        both_ways(&mut world, 0, 1, 3);
    }
    assert_eq!(world.host.violations(), []);
}

/// Its ids go to 256, one more than a ring's slots.
#[test]
fn frontend_freebsd_has_an_id_beyond_the_ring() {
    let mut world = World::with(&FREEBSD);
    let frames: Vec<_> = (0..256).map(|seed| noise(seed, 14)).collect();
    // Of 14 bytes: a request each.
    assert!(world.guest().send(frames).is_empty());
    assert_eq!(world.queue().ids().last(), Some(&256));
    world.settle();
    world.queue().collect();
    assert_eq!(world.queue().unanswered(), 0);
    assert_eq!(world.backend.received.len(), 256);
}

/// Two mbufs of one page are granted by a reference each.
#[test]
fn frontend_freebsd_grants_a_page_twice() {
    let mut world = World::with(&FREEBSD);
    let frame = blank(false, true, 1, 100);
    assert!(world.guest().send(vec![frame.clone()]).is_empty());
    let mut references = world.queue().references();
    references.dedup();
    assert_eq!(references.len(), 2);
    world.settle();
    assert_eq!(bytes(&world.backend.received[0].1), frame.bytes);
}
