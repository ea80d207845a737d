//! Windows (xenvif): goes by the backend's state alone, through a close cycle if it finds it connected; receive
//! keys first; headers copied into a request of their own, the payload where it lies.

use std::time::Duration;

use xen_netfront::wire::control::{HashAlgorithm, HashType};
use xen_netfront::wire::{Extra, Hash, Multicast, Status};

use super::raw_client::bytes;
use super::script::{
    Ahead, Buffers, CLOSED, CLOSING, CONNECTED, Frontend, INIT_WAIT, INITIALISING, Manner, Sends,
    Step, When, exact_flags,
};
use super::slots::{Cut, Ids, contiguous, headers, somewhere};
use super::traffic::{blank, large, noise};
use super::world::{World, config};

pub const WINDOWS: Frontend = Frontend {
    name: "Windows",
    connect: &[
        // `FrontendPrepare`
        Step::Cycle {
            until: INIT_WAIT,
            answers: &[(CLOSED, INITIALISING), (CONNECTED, CLOSING), (CLOSING, CLOSED)],
        },
        // `FrontendConnect`
        Step::Rings,
        Step::Begin,
        Step::Set("request-rx-copy", "1"),
        Step::Set("feature-sg", "1"),
        Step::Set("feature-rx-notify", "1"),
        Step::Remove("feature-gso-tcpv4-prefix"),
        Step::Set("feature-gso-tcpv4", "1"),
        Step::Remove("feature-gso-tcpv6-prefix"),
        Step::Set("feature-gso-tcpv6", "1"),
        Step::Set("feature-no-csum-offload", "0"),
        Step::Set("feature-ipv6-csum-offload", "1"),
        Step::Queue(&["rx-ring-ref", "event-channel-rx"]),
        Step::Queue(&["tx-ring-ref", "event-channel-tx"]),
        Step::Queues(When::Always),
        Step::Commit,
        Step::Cycle { until: CONNECTED, answers: &[(INIT_WAIT, CONNECTED), (CLOSING, CLOSED)] },
        // `ReceiverEnable`
        Step::Post,
        Step::Up,
    ],
    close: CLOSE,
    // Told by `online`, it asks to be ejected, and closes.
    when_closing: CLOSE,
    when_closed: &[Step::Down, Step::Free],
    recover: &[],
    manner: Manner {
        split: true,
        // `XENVIF_TRANSMITTER_MAXIMUM_FRAGMENT_ID`
        tx_ids: Ids::Stack { first: 0x3ff, last: 0 },
        rx_ids: Ids::Slot,
        cut,
        buffers: Buffers::Anew,
        tx_flags: exact_flags,
        later_flags: 0,
        tx_most: 256,
        batches: true,
        collects: false,
        tx_event: Ahead::Next,
        rx_event: Ahead::Next,
        rx_fill: 256,
        rx_refill: 1,
        polls: false,
        masked: true,
        tx_masked: false,
    },
    sends: Sends {
        longest: 9014,
        blank_v4: true,
        blank_v6: true,
        gso_v4: true,
        gso_v6: true,
        chains: true,
    },
    receives: 9014,
};

/// `FrontendClose`: also from a backend that only waits.
const CLOSE: &[Step] = &[
    Step::Down,
    Step::Cycle {
        until: CLOSED,
        answers: &[(CONNECTED, CLOSING), (INIT_WAIT, CLOSING), (CLOSING, CLOSED)],
    },
    Step::Free,
];

/// Headers, then the payload; what takes too many requests is copied into whole pages.
pub fn cut(bytes: &[u8]) -> Vec<Cut> {
    let head = headers(bytes);
    let payload = |at| contiguous(at, bytes.len() - head);
    let mut cuts = vec![Cut::new(0, head)];
    let granted = payload(somewhere(bytes, 4096));
    cuts.extend(if granted.len() > 17 { payload(0) } else { granted });
    cuts
}

frontend_tests! {
    WINDOWS:
    frontend_windows_connects => connects,
    frontend_windows_carries_traffic => carries_traffic,
    frontend_windows_closes_and_connects_again => closes_and_connects_again,
    frontend_windows_is_detached => is_detached,
    frontend_windows_is_restored => is_restored,
    frontend_windows_comes_anew => comes_anew,
    frontend_windows_sleeps_and_wakes => sleeps_and_wakes,
    frontend_windows_writes_its_keys_again => writes_its_keys_again,
    frontend_windows_changes_features_while_connected => changes_features_while_connected,
}

/// It asks for multicast addresses by requests without data. That is not offered; they are answered, and what follows
/// them is a packet.
#[test]
fn frontend_windows_asks_for_multicast_in_vain() {
    let mut world = World::with(&WINDOWS);
    let frame = noise(1, 1400);
    for address in 0..40 {
        let group = [1, 0, 0x5e, 0, 0, address];
        let wish = if address < 20 { Multicast::Add(group) } else { Multicast::Del(group) };
        world.queue().push_dummy(Extra::from_multicast(wish));
        world.queue().push(&frame);
    }
    world.queue().show();
    world.settle();
    assert_eq!(world.queue().unanswered(), 0);
    let statuses = world.guest().statuses();
    assert_eq!(statuses.iter().filter(|status| **status == Status::Error.number()).count(), 40);
    assert_eq!(world.backend.received.len(), 40);
    assert!(world.backend.received.iter().all(|(_, packet)| bytes(packet) == frame.bytes));
    let id = world.guest().id();
    assert_eq!(world.backend.vif(id).unwrap().counters().from_drops.multicast, 40);
}

/// GSO and a hash in one packet's extras, in the order in which it writes them; and a hash alone.
#[test]
fn frontend_windows_sends_a_hash_beside_gso() {
    let mut world = World::with(&WINDOWS);
    let hash = Extra::from_hash(Hash {
        kind: HashType::Ipv4Tcp,
        algorithm: HashAlgorithm::Toeplitz,
        value: 0x0102_0304,
    });
    for seed in 0..20 {
        let frame = large(seed % 2 == 0, seed, 20_000, 1400);
        let mut gso = Extra::from_gso(frame.meta.gso.unwrap());
        gso.flags |= Extra::MORE;
        world.queue().push_with(&frame, &cut(&frame.bytes), &[gso, hash]);
        let plain = blank(false, true, seed, 300);
        world.queue().push_with(&plain, &cut(&plain.bytes), &[hash]);
        world.queue().show();
        world.settle();
        assert_eq!(world.queue().unanswered(), 0);
        let got: Vec<_> = world.backend.received.drain(..).map(|(_, packet)| packet).collect();
        assert!(bytes(&got[0]) == frame.bytes && bytes(&got[1]) == plain.bytes);
        assert_eq!((got[0].meta, got[1].meta), (frame.meta, plain.meta));
    }
}

/// It waits for us on a processor that does nothing else: every step of every cycle is answered at once, and no
/// timer is needed for any.
#[test]
fn frontend_windows_is_never_kept_waiting() {
    let mut world = World::new(config());
    world.add(&WINDOWS);
    for _ in 0..3 {
        // Nobody may make us ask xenstore as often as he likes.
        world.pass(Duration::from_secs(1));
        let before = world.host.now();
        world.connect(0);
        world.guest().reboot(&WINDOWS);
        world.settle();
        world.expect_connected(0);
        world.guest().close();
        world.settle();
        assert!(world.guest().is_done());
        // Prepared, and closed without having connected.
        world.guest().start(&WINDOWS.connect[..1]);
        world.settle();
        assert!(world.guest().is_done() && world.guest().backend_state() == INIT_WAIT);
        world.guest().close();
        world.settle();
        assert!(world.guest().is_done() && world.guest().backend_state() == CLOSED);
        assert_eq!(world.host.now(), before);
    }
    assert_eq!(world.host.violations(), []);
}

/// Ejected: it sees `online` before the toolstack has said that we are to close, and closes by itself.
#[test]
fn frontend_windows_is_ejected() {
    let mut world = World::with(&WINDOWS);
    let vif = world.guest().vif.clone();
    world.toolstack.store().set(&format!("{}/online", vif.back_dir()), "0");
    world.guest().close();
    world.settle();
    assert!(world.guest().is_done());
    assert_eq!(world.toolstack.states(&vif).1, None);
    world.toolstack.begin_detach(&vif);
    assert!(world.toolstack.detached(&vif));
    assert_eq!(world.guest().grants(), 0);
}
