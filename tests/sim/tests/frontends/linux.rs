//! Linux: everything in one transaction once the backend waits, rings told of before it is connected, an event
//! for each packet that wants one, both families of GSO.

use super::raw_client::bytes;
use super::script::{
    Ahead, Buffers, CLOSED, CLOSING, CONNECTED, Frontend, GONE, INIT_WAIT, INITIALISING, Manner,
    Sends, Step, When, exact_flags,
};
use super::slots::{Cut, Ids, contiguous, headers, somewhere};
use super::traffic::{blank, both_ways, deliver, large, noise};
use super::world::{World, config};

pub const LINUX: Frontend = Frontend {
    name: "Linux",
    connect: &[
        Step::State(INITIALISING),
        Step::Await(&[INIT_WAIT]),
        Step::Rings,
        Step::Begin,
        Step::Queues(When::Offered),
        Step::Queue(&["tx-ring-ref", "rx-ring-ref", "event-channel"]),
        Step::Set("request-rx-copy", "1"),
        Step::Set("feature-rx-notify", "1"),
        Step::Set("feature-sg", "1"),
        Step::Set("feature-gso-tcpv4", "1"),
        Step::Set("feature-gso-tcpv6", "1"),
        Step::Set("feature-ipv6-csum-offload", "1"),
        Step::Commit,
        // `xennet_connect` kicks the backend, which has not bound the channels yet.
        Step::Notify,
        Step::Post,
        Step::State(CONNECTED),
        Step::Up,
    ],
    // `xennet_bus_close`
    close: &[
        Step::Down,
        Step::State(CLOSING),
        Step::Await(&[CLOSING, CLOSED, GONE]),
        Step::State(CLOSED),
        Step::Await(&[CLOSED, GONE]),
        Step::Free,
    ],
    when_closing: &[Step::Down, Step::State(CLOSED), Step::Await(&[CLOSED, GONE]), Step::Free],
    when_closed: &[Step::Down, Step::State(CLOSED), Step::Free],
    // `xenbus_reset_frontend`: a kernel that was started by another, or after it crashed.
    recover: &[Step::Cycle {
        until: INIT_WAIT,
        answers: &[(CONNECTED, CLOSING), (CLOSING, CLOSED), (CLOSED, INITIALISING)],
    }],
    manner: Manner {
        split: true,
        tx_ids: Ids::Stack { first: 0, last: 255 },
        rx_ids: Ids::Slot,
        cut,
        buffers: Buffers::Anew,
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
        masked: false,
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

/// The linear part, which may cross a page but has 14 bytes before it does, then fragments of compound
/// pages. What would take more than 18 requests is linearised first.
pub fn cut(bytes: &[u8]) -> Vec<Cut> {
    let head = if bytes.len() <= 256 { bytes.len() } else { headers(bytes) };
    let mut cuts = contiguous(somewhere(bytes, 4096 - 14), head);
    cuts.extend(contiguous(somewhere(&bytes[head / 2..], 4096), bytes.len() - head));
    if cuts.len() > 18 { contiguous(2, bytes.len()) } else { cuts }
}

frontend_tests! {
    LINUX:
    frontend_linux_connects => connects,
    frontend_linux_carries_traffic => carries_traffic,
    frontend_linux_closes_and_connects_again => closes_and_connects_again,
    frontend_linux_is_detached => is_detached,
    frontend_linux_is_restored => is_restored,
    frontend_linux_comes_anew => comes_anew,
    frontend_linux_sleeps_and_wakes => sleeps_and_wakes,
    frontend_linux_writes_its_keys_again => writes_its_keys_again,
    frontend_linux_changes_features_while_connected => changes_features_while_connected,
}

/// Two queues: keys in directories of their own, and none at the top; then one queue again, with the old
/// directories still there.
#[test]
fn frontend_linux_uses_two_queues() {
    let mut world = World::new(config());
    world.add(&LINUX);
    for queues in [2, 4, 1] {
        world.guest().most_queues = queues;
        world.connect(0);
        assert_eq!(world.backend.domain.mappings(), 2 * queues as usize);
        both_ways(&mut world, 0, 1, 3);
        if queues > 1 {
            assert_eq!(world.guest().key("tx-ring-ref"), None);
        }
        world.guest().close();
        world.settle();
        world.expect_released(0);
    }
    assert_eq!(world.host.violations(), []);
}

/// Its carrier is on before it says that it is connected, so it sends before anybody listens. Nothing wakes us for
/// those packets.
#[test]
fn frontend_linux_sends_before_we_are_connected() {
    let mut world = World::new(config());
    world.add(&LINUX);
    while world.backend.turn() {}
    world.guest().connect();
    while world.guests[0].turn() {}
    assert!(world.guest().is_done() && world.guest().backend_state() == INIT_WAIT);
    let sent = [noise(1, 60), noise(2, 9000), blank(false, true, 3, 700)];
    assert!(world.guest().send(sent.to_vec()).is_empty());
    world.settle();
    let got: Vec<_> = world.backend.received.drain(..).map(|(_, packet)| bytes(&packet)).collect();
    assert_eq!(got, sent.map(|frame| frame.bytes));
}

/// Short of memory it has 19 pages posted, the fewest that it shows (`NET_RX_SLOTS_MIN`): the largest packet fits.
#[test]
fn frontend_linux_makes_do_with_19_pages() {
    const POOR: Frontend = Frontend { manner: Manner { rx_fill: 19, ..LINUX.manner }, ..LINUX };
    let mut world = World::with(&POOR);
    let mut rng = fastrand::Rng::with_seed(1);
    for seed in 0..20 {
        assert_eq!(world.queue().posted(), 19);
        let frames = [large(seed % 2 == 0, seed, 65_000, 1400), noise(seed, 200)];
        deliver(&mut world, 0, &frames, &mut rng);
    }
    assert_eq!(world.host.violations(), []);
}

/// `ethtool -K`: it sends without sums, without GSO, in one piece, as it likes, and no key tells.
#[test]
fn frontend_linux_toggles_offloads() {
    let mut world = World::with(&LINUX);
    let all = world.guest().may_send;
    for (chains, sums, cuts) in
        [(true, true, false), (true, false, false), (false, true, false), (false, false, false)]
    {
        let may = &mut world.guest().may_send;
        (may.chains, may.blank_v4, may.blank_v6) = (chains, sums, sums);
        (may.gso_v4, may.gso_v6) = (cuts, cuts);
        both_ways(&mut world, 0, 1, 2);
        world.guest().may_send = all;
        both_ways(&mut world, 0, 2, 2);
    }
}

/// A change of XDP's headroom goes through Reconfiguring. It is not offered, and a frontend that says so
/// nevertheless keeps its rings.
#[test]
fn frontend_linux_reconfigures() {
    let mut world = World::with(&LINUX);
    assert_eq!(world.guest().offered("feature-xdp-headroom"), None);
    let id = world.guest().id();
    for state in ["7", "4"] {
        world.guest().set("xdp-headroom", "0");
        world.guest().set("state", state);
        world.settle();
        both_ways(&mut world, 0, 3, 1);
    }
    assert_eq!(world.backend.vif(id).unwrap().counters().connects, 1);
}

/// Its module is unloaded while nobody has opened the interface, and while the backend has gone.
#[test]
fn frontend_linux_is_unloaded_after_the_backend() {
    let mut world = World::with(&LINUX);
    let vif = world.guest().vif.clone();
    world.toolstack.begin_detach(&vif);
    while world.backend.turn() {}
    world.guest().close();
    world.settle();
    assert!(world.guest().is_done());
    assert_eq!(world.guest().grants(), 0);
}
