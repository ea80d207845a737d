//! iPXE: a close cycle before it connects, keys one by one, 18 pages posted, 16 requests at most, no interrupts and no
//! wish for events; and it takes its keys away when it hands over to the kernel that it loaded.

use super::checks::leave_in_flight;
use super::linux::LINUX;
use super::traffic::{both_ways, deliver, noise, packet};
use super::windows::WINDOWS;
use super::world::World;
use xen_netfront::wire::tx_flags;

use super::script::{
    Ahead, Buffers, CLOSED, CONNECTED, Frontend, INIT_WAIT, INITIALISING, Manner, Sends, Step, Sum,
};
use super::slots::{Cut, Ids, contiguous, somewhere};

pub const IPXE: Frontend = Frontend {
    name: "iPXE",
    connect: &[
        // `netfront_reset`
        Step::Unless(&[INIT_WAIT], &[Step::State(CLOSED), Step::Await(&[CLOSED])]),
        Step::State(INITIALISING),
        Step::Await(&[INIT_WAIT]),
        Step::Rings,
        Step::Queue(&["tx-ring-ref"]),
        Step::Queue(&["rx-ring-ref"]),
        Step::Queue(&["event-channel"]),
        Step::Set("request-rx-copy", "1"),
        Step::Set("feature-sg", "1"),
        Step::Set("feature-no-csum-offload", "1"),
        Step::Set("feature-rx-notify", "1"),
        Step::State(CONNECTED),
        Step::Await(&[CONNECTED]),
        Step::Post,
        Step::Up,
    ],
    close: &[
        Step::Unless(&[INIT_WAIT], &[Step::State(CLOSED), Step::Await(&[CLOSED])]),
        Step::State(INITIALISING),
        Step::Await(&[INIT_WAIT]),
        Step::Remove("feature-rx-notify"),
        Step::Remove("feature-no-csum-offload"),
        Step::Remove("feature-sg"),
        Step::Remove("request-rx-copy"),
        Step::Remove("event-channel"),
        Step::Remove("rx-ring-ref"),
        Step::Remove("tx-ring-ref"),
        Step::Free,
    ],
    // It looks at the backend's state only when it opens or closes.
    when_closing: &[],
    when_closed: &[],
    recover: &[],
    manner: Manner {
        split: false,
        tx_ids: Ids::Queue(16),
        rx_ids: Ids::Queue(32),
        cut,
        buffers: Buffers::Anew,
        tx_flags: validated,
        later_flags: tx_flags::DATA_VALIDATED,
        tx_most: 16,
        batches: false,
        collects: false,
        tx_event: Ahead::Never,
        rx_event: Ahead::Never,
        rx_fill: 18,
        rx_refill: 1,
        polls: true,
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

fn validated(_: Sum) -> u16 {
    tx_flags::DATA_VALIDATED
}

fn cut(bytes: &[u8]) -> Vec<Cut> {
    contiguous(somewhere(bytes, 4096), bytes.len())
}

frontend_tests! {
    IPXE:
    frontend_ipxe_connects => connects,
    frontend_ipxe_carries_traffic => carries_traffic,
    frontend_ipxe_closes_and_connects_again => closes_and_connects_again,
    frontend_ipxe_is_detached => is_detached,
    frontend_ipxe_is_restored => is_restored,
    frontend_ipxe_comes_anew => comes_anew,
    frontend_ipxe_sleeps_and_wakes => sleeps_and_wakes,
    frontend_ipxe_writes_its_keys_again => writes_its_keys_again,
    frontend_ipxe_changes_features_while_connected => changes_features_while_connected,
}

/// It boots whatever it has loaded, which finds a vif that waits, and no key but those of the toolstack.
#[test]
fn frontend_ipxe_hands_over() {
    for next in crate::ALL {
        let mut world = World::with(&IPXE);
        both_ways(&mut world, 0, 1, 2);
        world.guest().close();
        world.settle();
        assert!(world.guest().is_done() && world.guest().backend_state() == INIT_WAIT);
        for key in ["tx-ring-ref", "event-channel", "feature-sg", "request-rx-copy"] {
            assert_eq!(world.guest().key(key), None);
        }
        world.guest().reboot(next);
        world.settle();
        world.expect_connected(0);
        both_ways(&mut world, 0, 2, 2);
        assert_eq!(world.host.violations(), []);
    }
}

/// It leaves without a word, and a kernel that looks at what it finds takes over.
#[test]
fn frontend_ipxe_leaves_without_a_word() {
    for next in [&LINUX, &WINDOWS, &IPXE] {
        let mut world = World::with(&IPXE);
        leave_in_flight(&mut world, 0, 1);
        world.guest().reboot(next);
        world.settle();
        world.expect_connected(0);
        world.backend.received.clear();
        both_ways(&mut world, 0, 2, 2);
        assert_eq!(world.host.violations(), []);
    }
}

/// 18 pages: enough for the largest packet, and for many small ones a few at a time.
#[test]
fn frontend_ipxe_receives_with_18_pages() {
    let mut world = World::with(&IPXE);
    let mut rng = fastrand::Rng::with_seed(1);
    assert_eq!(world.queue().posted(), 18);
    for seed in 0..10 {
        deliver(&mut world, 0, &[noise(seed, 65_535)], &mut rng);
        let id = world.guest().id();
        for seed in 0..100 {
            let packet = packet(&world, &noise(seed, 300), &mut rng);
            world.backend.deliver(id, packet).unwrap();
        }
        world.settle();
        let got = world.guest().received.drain(..).map(|packet| packet.bytes);
        assert!(got.eq((0..100).map(|seed| noise(seed, 300).bytes)));
        assert_eq!(world.queue().posted(), 18);
    }
}

/// It never asks for an event but for the one that every ring begins with.
#[test]
fn frontend_ipxe_is_sent_no_events() {
    let mut world = World::with(&IPXE);
    both_ways(&mut world, 0, 1, 6);
    let id = world.guest().id();
    assert!(world.backend.vif(id).unwrap().counters().events_sent <= 2);
}
