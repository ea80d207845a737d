//! The frontend's end against a backend like Linux's, and against ones that are like nothing.

use alloc::format;
use alloc::vec::Vec;
use core::time::Duration;

use super::netback::{Lab, Netback};
use super::world::{BACK_DIR, FRONT_DIR, Front};
use crate::platform::Instant;
use crate::xenbus::{BackendOffer, BusState, FrontStep};
use xen_store::StoreError;

const MS: Duration = Duration::from_millis(1);

#[test]
fn transmits_only_once_netback_is_connected_however_long_its_script_takes() {
    let mut lab = Lab::new();
    lab.netback.hotplugged = false;
    for _ in 0..300 {
        lab.netback.step(&lab.world.xen);
        assert_ne!(lab.step(), FrontStep::Live);
        lab.wait(100 * MS);
    }
    assert_eq!((lab.world.front.connects, lab.world.front.ring), (1, Some(1)));
    lab.netback.hotplugged = true;
    assert_eq!(lab.connect(), Duration::ZERO);
    assert_eq!(lab.world.front.connects, 1);
}

#[test]
fn no_node_of_an_earlier_connection_survives() {
    let mut lab = Lab::new();
    let stale = [
        "tx-ring-ref",
        "rx-ring-ref",
        "ctrl-ring-ref",
        "event-channel",
        "event-channel-tx",
        "event-channel-rx",
        "event-channel-ctrl",
        "multi-queue-num-queues",
        "queue-0/tx-ring-ref",
        "queue-1/event-channel-rx",
        "feature-gso-tcpv4",
        "feature-never-heard-of",
        "request-multicast-control",
        "xdp-headroom",
    ];
    for key in stale {
        lab.world.xen.set(&format!("{FRONT_DIR}/{key}"), "77");
    }
    lab.connect();
    let names = lab.world.xen.names(FRONT_DIR);
    let toolstacks = ["backend", "backend-id", "mac", "state"];
    let ours = ["event-channel", "request-rx-copy", "rx-ring-ref", "tx-ring-ref"];
    let mut expected: Vec<_> = toolstacks.into_iter().chain(ours).collect();
    expected.sort_unstable();
    assert_eq!(names, expected);
    assert_eq!(lab.world.xen.get(&format!("{FRONT_DIR}/tx-ring-ref")).as_deref(), Some("1"));
}

#[test]
fn an_earlier_connection_is_closed_first_whatever_both_ends_were_at() {
    for front in [BusState::Initialised, BusState::Connected, BusState::Reconfiguring] {
        for back in [BusState::InitWait, BusState::Connected, BusState::Closing, BusState::Closed] {
            let mut lab = Lab::new();
            lab.world.xen.set(&format!("{FRONT_DIR}/state"), front.digit());
            lab.netback.state = back;
            lab.netback.show(&lab.world.xen);
            let states = lab.states(40, true);
            // What the backend is past already is written in one go.
            let cycle = match back {
                BusState::Closed => "14",
                BusState::Closing => "614",
                _ => "5614",
            };
            assert_eq!(states, format!("{}{cycle}", front.digit()), "backend {back}");
            assert!(lab.connect() <= Duration::from_secs(1));
        }
    }
    // One that had closed in good order needs no more than a new beginning.
    for (front, expected) in [("6", "614"), ("5", "514"), ("1", "14"), ("", "4"), ("x", "x4")] {
        let mut lab = Lab::new();
        lab.world.xen.set(&format!("{FRONT_DIR}/state"), front);
        if matches!(front, "5" | "6") {
            lab.netback.state = BusState::Closed;
            lab.netback.show(&lab.world.xen);
        }
        assert_eq!(lab.states(40, true), expected);
        assert_eq!(lab.connect(), Duration::ZERO);
    }
}

#[test]
fn keys_may_come_late_and_in_any_order() {
    let keys = [("backend", BACK_DIR), ("backend-id", "2")];
    for order in [[0, 1], [1, 0]] {
        let mut lab = Lab::new();
        for (key, _) in keys {
            lab.world.xen.remove(&format!("{FRONT_DIR}/{key}"));
        }
        lab.world.xen.remove(BACK_DIR);
        for key in order {
            for _ in 0..10 {
                lab.wait(100 * MS);
                assert_eq!(lab.step(), FrontStep::Wait);
            }
            let (key, value) = keys[key];
            lab.world.xen.set(&format!("{FRONT_DIR}/{key}"), value);
        }
        assert_eq!(lab.step(), FrontStep::Wait);
        lab.netback = Netback::start(&lab.world.xen, BACK_DIR);
        assert_eq!(lab.connect(), Duration::ZERO);
    }
}

#[test]
fn f11_a_backend_elsewhere_than_its_domain_is_not_followed() {
    for backend in
        ["/local/domain/1/device/vif/0", "/local/domain/20/x", "", "/", "backend/vif/1/0"]
    {
        let mut lab = Lab::new();
        lab.world.xen.set(&format!("{FRONT_DIR}/backend"), backend);
        lab.world.xen.set("/local/domain/20/x/state", "2");
        for _ in 0..10 {
            lab.wait(100 * MS);
            assert_eq!(lab.step(), FrontStep::Wait, "{backend}");
        }
    }
}

#[test]
fn p3_garbage_in_what_a_backend_offers_reads_as_the_default() {
    let keys = [
        "feature-rx-copy",
        "feature-rx-notify",
        "feature-sg",
        "feature-gso-tcpv4",
        "feature-gso-tcpv6",
        "feature-no-csum-offload",
        "feature-ipv6-csum-offload",
        "feature-multicast-control",
        "feature-dynamic-multicast-control",
        "feature-split-event-channels",
        "feature-ctrl-ring",
        "multi-queue-max-queues",
        "carrier",
        "online",
    ];
    let garbage: [&[u8]; 6] =
        [b"", b"yes", b"-1", b"\xff\xff", b"18446744073709551616", &[b'1'; 100_000]];
    for value in garbage {
        let mut lab = Lab::new();
        for key in keys {
            lab.world.xen.set_bytes(&format!("{BACK_DIR}/{key}"), value);
        }
        for key in ["mac", "mtu", "trusted"] {
            lab.world.xen.set_bytes(&format!("{FRONT_DIR}/{key}"), value);
        }
        lab.connect();
        let domain = xen_grant::DomId(2);
        assert_eq!(*lab.world.front.bus.offer(), BackendOffer { domain, ..Default::default() });
    }

    let mut lab = Lab::new();
    for key in keys {
        lab.world.xen.set(&format!("{BACK_DIR}/{key}"), "4294967295");
    }
    for (key, value) in [("mtu", "65521"), ("trusted", "0")] {
        lab.world.xen.set(&format!("{FRONT_DIR}/{key}"), value);
    }
    lab.connect();
    let offer = lab.world.front.bus.offer();
    assert_eq!((offer.max_queues, offer.mtu, offer.trusted), (8, 65521, false));
    let features = offer.features;
    assert!(features.scatter_gather && features.gso_v4 && !features.checksum_v4);
    assert!(offer.split_event_channels);

    for (mtu, read) in [("67", 1500), ("68", 68), ("65522", 1500), ("9000", 9000)] {
        let mut lab = Lab::new();
        lab.world.xen.set(&format!("{FRONT_DIR}/mtu"), mtu);
        lab.connect();
        assert_eq!(lab.world.front.bus.offer().mtu, read);
    }
}

#[test]
fn the_carrier_is_followed_while_connected() {
    let mut lab = Lab::connected();
    for carrier in [false, true, false] {
        lab.world.xen.set(&format!("{BACK_DIR}/carrier"), if carrier { "1" } else { "0" });
        assert_eq!(lab.step(), FrontStep::Live);
        assert_eq!(lab.world.front.bus.offer().carrier, carrier);
    }
}

#[test]
fn f11_any_three_states_in_a_row_are_survived() {
    // What a backend says, polled between or not, and that it may be offline or vanish.
    for code in 0..10 * 10 * 10 * 4u32 {
        let mut lab = Lab::connected();
        let (offline, unpolled) = (code & 1 == 1, code & 2 == 2);
        if offline {
            lab.world.xen.set(&format!("{BACK_DIR}/online"), "0");
        }
        let says = [code / 4 % 10, code / 40 % 10, code / 400];
        for state in says {
            match BusState::ALL.get(state as usize) {
                Some(state) => lab.backend_says(state.digit()),
                None => lab.world.xen.remove(BACK_DIR),
            }
            if !unpolled {
                let before = lab.world.xen.operations();
                for _ in 0..3 {
                    let live = lab.step() == FrontStep::Live;
                    assert!(!live || lab.world.state_of(BACK_DIR) == "4", "{says:?}");
                }
                assert!(lab.world.xen.operations() - before < 200, "{says:?}");
            }
        }
        // Whatever it is at now: a netback that starts over has us back within a second.
        lab.world.xen.remove(BACK_DIR);
        let _ = lab.step();
        lab.world.repair();
        lab.netback = Netback::start(&lab.world.xen, BACK_DIR);
        let took = lab.connect();
        assert!(took < Duration::from_secs(1), "{says:?} {took:?}");
    }
}

#[test]
fn f11_a_backend_that_closes_nothing_keeps_us_half_a_second_at_most() {
    for state in ["3", "4", "7", "8"] {
        let mut lab = Lab::connected();
        lab.world.front.bus.fail(lab.world.now);
        lab.backend_says(state);
        let mut released = None;
        for _ in 0..100 {
            if lab.step() == FrontStep::Release {
                released.get_or_insert(lab.world.now);
            }
            lab.wait(10 * MS);
        }
        let released = released.unwrap().since(Instant(0));
        assert!(released >= 400 * MS && released <= 600 * MS, "{released:?}");

        // From then on it is reminded, and not often.
        let before = lab.world.xen.operations();
        for _ in 0..6000 {
            assert_eq!(lab.step(), FrontStep::Wait);
            lab.wait(10 * MS);
        }
        let operations = lab.world.xen.operations() - before;
        assert!(operations > 10 && operations < 300, "{operations} in a minute");
        assert_eq!(lab.world.state_of(FRONT_DIR), "6");
    }
}

#[test]
fn an_offline_backend_is_left_alone_until_it_is_online() {
    let mut lab = Lab::connected();
    lab.world.detach();
    lab.netback.state = BusState::Closing;
    assert_eq!(lab.states(40, true), "46");
    assert_eq!(
        (lab.world.front.ring, lab.world.front.bus.backend_state()),
        (None, BusState::Closed)
    );
    for _ in 0..100 {
        lab.wait(100 * MS);
        assert_eq!(lab.states(3, true), "6");
    }
    lab.world.xen.set(&format!("{BACK_DIR}/online"), "1");
    assert_eq!(lab.connect(), Duration::ZERO);
}

#[test]
fn a_moved_backend_is_found_and_the_old_one_is_not_watched() {
    for resumed in [false, true] {
        let mut lab = Lab::connected();
        let watches = lab.world.xen.watches();
        // As after a migration: another driver domain, and the toolstack made our directory anew.
        let dir = "/local/domain/3/backend/vif/1/0";
        lab.netback = Netback::start(&lab.world.xen, dir);
        lab.world.xen.set(&format!("{FRONT_DIR}/backend-id"), "3");
        lab.world.xen.set(&format!("{FRONT_DIR}/backend"), dir);
        if resumed {
            lab.world.xen.set(&format!("{FRONT_DIR}/state"), "1");
            lab.world.front.bus.resumed(lab.world.now);
        }
        assert_eq!(lab.step(), FrontStep::Release);
        assert!(lab.connect() < Duration::from_secs(1));
        assert_eq!(lab.world.front.bus.offer().domain, xen_grant::DomId(3));
        assert_eq!(lab.world.xen.watches(), watches);
        let _ = lab.states(4, false);
        let before = lab.world.xen.operations();
        lab.backend_says("6");
        assert_eq!((lab.step(), lab.world.xen.operations()), (FrontStep::Live, before));
    }
}

#[test]
fn a_connection_survives_a_store_that_fails() {
    let mut lab = Lab::connected();
    let _ = lab.states(4, false);
    lab.world.front.bus.recheck(lab.world.now);
    lab.world.xen.fail_operations(5);
    let mut longest = Duration::ZERO;
    for _ in 0..5 {
        assert_eq!(lab.step(), FrontStep::Live);
        let deadline = lab.world.front.bus.next_deadline().unwrap();
        assert!(deadline > lab.world.now);
        longest = longest.max(deadline.since(lab.world.now));
        // Until then it is not asked.
        let before = lab.world.xen.operations();
        assert_eq!((lab.step(), lab.world.xen.operations()), (FrontStep::Live, before));
        lab.world.now = deadline;
    }
    assert!(longest >= 16 * MS, "{longest:?}");
    assert_eq!(lab.step(), FrontStep::Live);
    assert_eq!(lab.world.front.bus.next_deadline(), None);
}

#[test]
fn publishing_fails_whole_and_is_tried_again_later() {
    let mut lab = Lab::new();
    let bus = &mut lab.world.front.bus;
    assert_eq!(bus.poll(lab.world.now), FrontStep::Connect);
    let nodes = lab.world.xen.names(FRONT_DIR);
    lab.world.xen.refuse_commits(100);
    assert_eq!(bus.publish(lab.world.now, &[("tx-ring-ref", "1")]), Err(StoreError::Again));
    lab.world.xen.refuse_commits(0);
    assert_eq!(lab.world.xen.names(FRONT_DIR), nodes);
    bus.fail(lab.world.now);
    assert_eq!(bus.poll(lab.world.now), FrontStep::Wait);
    let deadline = bus.next_deadline().unwrap();
    assert!(deadline > lab.world.now && deadline.since(lab.world.now) <= 500 * MS);
    lab.world.now = deadline;
    assert_eq!(lab.world.front.bus.poll(deadline), FrontStep::Connect);

    // A device that never manages is not asked in a loop either.
    let mut asked = 0;
    for _ in 0..1000 {
        if lab.world.front.bus.poll(lab.world.now) == FrontStep::Connect {
            asked += 1;
            lab.world.front.bus.fail(lab.world.now);
        }
        lab.wait(10 * MS);
    }
    assert!((10..50).contains(&asked), "{asked} in ten seconds");
}

#[test]
fn publishing_into_a_directory_that_has_gone_brings_no_ghost() {
    let mut lab = Lab::new();
    assert_eq!(lab.world.front.bus.poll(lab.world.now), FrontStep::Connect);
    lab.world.xen.remove(FRONT_DIR);
    assert!(lab.world.front.bus.publish(lab.world.now, &[("tx-ring-ref", "1")]).is_err());
    assert_eq!(lab.step(), FrontStep::Gone);

    let mut lab = Lab::connected();
    lab.world.xen.remove(FRONT_DIR);
    assert_eq!((lab.step(), lab.step()), (FrontStep::Release, FrontStep::Gone));
    lab.world.front.bus.close(lab.world.now);
    assert_eq!(lab.step(), FrontStep::Gone);
    assert!(lab.world.front.bus.is_closed());
    assert_eq!(lab.world.xen.get(FRONT_DIR), None);
}

#[test]
fn a_release_stands_until_it_is_done() {
    let mut lab = Lab::connected();
    lab.backend_says("6");
    let bus = &mut lab.world.front.bus;
    for state in ["6", "4", "2", "6"] {
        lab.world.xen.set(&format!("{BACK_DIR}/state"), state);
        assert_eq!(bus.poll(lab.world.now), FrontStep::Release);
    }
    bus.released(lab.world.now);
    lab.world.front.ring = None;
    lab.netback.state = BusState::Closed;
    assert_eq!(lab.connect(), Duration::ZERO);
}

#[test]
fn a_frontend_dropped_and_opened_again_starts_clean() {
    let mut lab = Lab::connected();
    for _ in 0..5 {
        lab.world.front = Front::open(&lab.world.xen);
        assert!(lab.connect() <= Duration::from_secs(1));
    }
    assert_eq!(lab.world.xen.watches(), 3);
}

/// Polled when it asks to be and never besides, the device is told to try again as soon as it may.
#[test]
fn f11_a_try_that_is_put_off_has_a_deadline() {
    // Rings that can't be made.
    let mut lab = Lab::new();
    let (mut waits, mut last) = (Vec::new(), lab.world.now);
    while waits.len() < 10 {
        if lab.world.front.bus.poll(lab.world.now) == FrontStep::Connect {
            waits.push(lab.world.now.since(last));
            last = lab.world.now;
            lab.world.front.bus.fail(last);
        }
        lab.world.now = lab.world.front.bus.next_deadline().unwrap();
    }
    assert_eq!(waits, [0, 0, 10, 20, 40, 80, 160, 320, 500, 500].map(|wait| wait * MS));

    // Connections that the device finds fault with, until one has lasted.
    let mut lab = Lab::connected();
    let expected = [
        (0, 0),
        (0, 10),
        (999, 20),
        (0, 40),
        (1000, 0),
        (0, 10),
        (0, 20),
        (0, 40),
        (0, 80),
        (0, 160),
        (0, 320),
        (0, 500),
        (60_000, 0),
    ];
    for (lasted, wait) in expected {
        lab.wait(lasted * MS);
        lab.world.front.bus.fail(lab.world.now);
        assert_eq!(lab.connect(), wait * MS, "after {lasted} ms");
    }

    // Nobody waits who is not to connect.
    lab.world.front.bus.fail(lab.world.now);
    lab.world.front.bus.close(lab.world.now);
    let _ = lab.states(40, true);
    assert!(lab.world.front.bus.is_closed());
    assert_eq!(lab.world.front.bus.next_deadline(), None);
}

#[test]
fn an_event_that_ends_a_rest_is_seen_by_the_next_poll() {
    let mut lab = Lab::new();
    lab.connect();
    while lab.step() != FrontStep::Live || !lab.world.front.bus.is_resting(lab.world.now) {
        lab.wait(MS);
    }
    let before = lab.world.xen.operations();
    assert!(lab.world.front.bus.is_resting(lab.world.now));
    assert_eq!(lab.step(), FrontStep::Live);
    assert_eq!(lab.world.xen.operations(), before, "nothing is asked while nothing happens");
    lab.world.xen.set(&format!("{BACK_DIR}/state"), BusState::Closing.digit());
    // Whoever asks takes the watch's event with it: the poll has to know all the same.
    assert!(!lab.world.front.bus.is_resting(lab.world.now));
    assert!(!lab.world.front.bus.is_resting(lab.world.now));
    assert_ne!(lab.step(), FrontStep::Live);
}
