//! The backend's end against frontends that write what they like.

use alloc::format;
use core::time::Duration;

use super::frontend::{KEYS, Lab, Nodes};
use super::world::{BACK_DIR, FRONT_DIR};
use crate::platform::Instant;
use crate::xenbus::{BackStep, BusState, EventChannels, Removal};

const MS: Duration = Duration::from_millis(1);

#[test]
fn features_are_there_when_init_wait_is() {
    let mut lab = Lab::with(&[("feature-sg", "1"), ("feature-rx-copy", "1")], Removal::Ours);
    assert_eq!(lab.bus.poll(lab.now), BackStep::Wait);
    assert_eq!(lab.state(), "2");
    assert_eq!(lab.own("feature-sg").as_deref(), Some("1"));
    assert_eq!(lab.own("feature-rx-copy").as_deref(), Some("1"));
}

#[test]
fn a_close_cycle_like_that_of_windows_is_answered_before_any_connection() {
    let mut lab = Lab::new();
    lab.poll();
    for _ in 0..3 {
        lab.frontend_says("5");
        lab.poll();
        assert_eq!(lab.state(), "5");
        lab.frontend_says("6");
        lab.poll();
        assert_eq!(lab.state(), "6");
        lab.xen.remove(&format!("{BACK_DIR}/feature-sg"));
        lab.frontend_says("1");
        lab.poll();
        assert_eq!((lab.state().as_str(), lab.own("feature-sg").as_deref()), ("2", Some("1")));
    }
    lab.publish(&KEYS);
    lab.poll();
    assert_eq!((lab.state().as_str(), lab.releases), ("4", 0));
}

#[test]
fn initialised_alone_starts_nothing() {
    let mut lab = Lab::new();
    lab.poll();
    lab.publish(&KEYS);
    lab.frontend_says("3");
    assert_eq!(lab.poll(), "2");
    assert!(!lab.mapped);
    lab.frontend_says("4");
    lab.poll();
    assert!(lab.mapped);
}

#[test]
fn a_frontend_that_never_waited_for_us_is_connected_too() {
    let mut lab = Lab::new();
    lab.publish(&KEYS);
    lab.poll();
    assert_eq!(lab.state(), "4");
}

#[test]
fn f11_every_way_out_of_a_connection() {
    for (frontend, expected) in [
        ("5", "5"),
        ("6", "6"),
        ("0", "6"),
        ("", "6"),
        ("x", "6"),
        ("1", "2"),
        ("2", "5"),
        ("3", "5"),
    ] {
        let mut lab = Lab::connected();
        lab.frontend_says(frontend);
        lab.poll();
        assert_eq!((lab.state().as_str(), lab.releases), (expected, 1), "frontend {frontend}");
    }
    for state in ["7", "8", "4"] {
        let mut lab = Lab::connected();
        lab.frontend_says(state);
        lab.poll();
        assert_eq!((lab.state().as_str(), lab.releases), ("4", 0), "frontend {state}");
    }
    // Vanished, or hidden from us.
    let mut lab = Lab::connected();
    lab.xen.remove("/local/domain/1");
    lab.poll();
    assert_eq!((lab.state().as_str(), lab.releases), ("6", 1));
    let mut lab = Lab::connected();
    lab.xen.forbid("/local/domain/1", true);
    lab.frontend_says("4");
    lab.poll();
    assert_eq!((lab.state().as_str(), lab.releases), ("6", 1));
}

#[test]
fn f11_any_three_states_in_a_row_are_survived() {
    for code in 0..2 * 10 * 10 * 10u32 {
        let mut lab = if code % 2 == 0 { Lab::connected() } else { Lab::new() };
        let says = [code / 2 % 10, code / 20 % 10, code / 200];
        for state in says {
            match BusState::ALL.get(state as usize) {
                Some(state) => lab.frontend_says(state.digit()),
                None => lab.xen.remove(FRONT_DIR),
            }
            let before = lab.xen.operations();
            if state != 7 {
                lab.poll();
            }
            assert!(lab.xen.operations() - before < 300, "{says:?}");
        }
        // A frontend that does as it should is connected in the end.
        for (frontend, expected) in [("5", "5"), ("6", "6"), ("1", "2")] {
            lab.frontend_says(frontend);
            lab.poll();
            if let Some(held) = lab.bus.next_deadline() {
                lab.now = held.max(lab.now);
                lab.poll();
            }
            assert_eq!(lab.state(), expected, "{says:?}, {frontend}");
        }
        lab.publish(&KEYS);
        lab.poll();
        assert_eq!((lab.state().as_str(), lab.mapped), ("4", true), "{says:?}");
    }
}

#[test]
fn b2_a_fault_is_a_flag_and_one_teardown_later() {
    let mut lab = Lab::connected();
    for _ in 0..3 {
        lab.bus.failed(lab.now, "it broke a rule");
        lab.bus.failed(lab.now, "and another");
        assert_eq!((lab.state().as_str(), lab.releases), ("4", 0));
        assert!(!lab.bus.is_connected());
    }
    lab.poll();
    assert_eq!((lab.state().as_str(), lab.releases), ("5", 1));
    assert_eq!(lab.own("error").as_deref(), Some("it broke a rule"));
    // What is found out too late is nothing new.
    lab.bus.failed(lab.now, "late");
    lab.poll();
    assert_eq!((lab.own("error").as_deref(), lab.releases), (Some("it broke a rule"), 1));
}

#[test]
fn b11_a_frontend_that_is_always_at_fault_is_put_off() {
    let mut lab = Lab::new();
    let mut connects = 0;
    for _ in 0..1000 {
        lab.poll();
        match lab.state().as_str() {
            "2" => lab.publish(&KEYS),
            "4" => {
                connects += 1;
                lab.bus.failed(lab.now, "again");
            }
            "5" => lab.frontend_says("6"),
            "6" => lab.frontend_says("1"),
            other => panic!("{other}"),
        }
        lab.now = lab.now + 10 * MS;
    }
    assert!((10..40).contains(&connects), "{connects} in ten seconds");
}

#[test]
fn a_frontend_that_does_not_close_is_not_waited_for() {
    let mut lab = Lab::connected();
    lab.bus.failed(lab.now, "for a test");
    assert_eq!(lab.poll(), "45");
    lab.now = lab.bus.next_deadline().unwrap();
    // It is taken for another kernel, and connected again.
    assert!(lab.poll().ends_with("24"));
    assert_eq!((lab.now, lab.releases, lab.mapped), (Instant(0) + 1000 * MS, 1, true));
    // One that is at fault each time waits longer each time.
    for wait in [10, 20, 40, 80, 160, 320, 500, 500] {
        let before = lab.now;
        lab.bus.failed(lab.now, "for a test");
        while !(lab.mapped && lab.state() == "4" && lab.bus.is_connected()) {
            lab.poll();
            lab.now = lab.bus.next_deadline().unwrap_or(lab.now);
        }
        assert!(lab.now.since(before) >= (wait * MS).max(1000 * MS), "{wait}");
    }
}

#[test]
fn rings_that_change_under_a_connection_end_it() {
    for (key, value) in [("tx-ring-ref", "10"), ("rx-ring-ref", "x"), ("event-channel", "4")] {
        let mut lab = Lab::connected();
        lab.publish(&[(key, value)]);
        assert!(lab.poll().ends_with('5'), "{key}");
        assert_eq!((lab.releases, lab.mapped), (1, false), "{key}");
    }
}

#[test]
fn a_frontend_that_leaves_while_its_rings_are_being_mapped() {
    for state in ["1", "5", "6"] {
        for polled in [false, true] {
            let mut lab = Lab::new();
            lab.poll();
            lab.publish(&KEYS);
            assert_eq!(lab.bus.poll(lab.now), BackStep::Connect);
            lab.frontend_says(state);
            if polled {
                assert_eq!(lab.bus.poll(lab.now), BackStep::Wait);
            }
            lab.mapped = true;
            lab.bus.connected(lab.now);
            assert_eq!(lab.bus.poll(lab.now), BackStep::Release);
            lab.mapped = false;
            lab.bus.released(lab.now);
            let expected = if state == "1" { "2" } else { state };
            lab.poll();
            assert_eq!(lab.state(), expected);
        }
    }
}

#[test]
fn a_detach_is_answered_and_the_directory_removed() {
    let requests: [Nodes<'_>; 2] = [&[("online", "0"), ("state", "5")], &[("online", "0")]];
    for request in requests {
        for connected in [true, false] {
            let mut lab = if connected { Lab::connected() } else { Lab::new() };
            lab.poll();
            for (key, value) in request {
                lab.set_own(key, value);
            }
            lab.poll();
            assert_eq!(lab.bus.poll(lab.now), BackStep::Remove);
            assert_eq!(lab.releases, u32::from(connected));
            assert_eq!(lab.xen.names("/local/domain/2/backend/vif/1"), [""; 0]);
            assert_eq!(lab.xen.watches(), 0);
        }
    }

    // The directory above goes too where it is ours, unless another vif of that client is in it.
    let mut lab = Lab::connected();
    lab.xen.own("/local/domain/2/backend/vif/1", 2);
    lab.set_own("online", "0");
    lab.poll();
    assert_eq!(lab.xen.names("/local/domain/2/backend/vif"), [""; 0]);
    let mut lab = Lab::connected();
    lab.xen.own("/local/domain/2/backend/vif/1", 2);
    lab.set_own("online", "0");
    lab.xen.set("/local/domain/2/backend/vif/1/1/state", "2");
    lab.poll();
    assert_eq!(lab.xen.names("/local/domain/2/backend/vif/1"), ["1"]);
}

/// The toolstack makes a vif anew while its backend is about to remove it.
#[test]
fn n1_a_directory_that_was_made_anew_is_not_removed() {
    let mut met = 0;
    for operations in 0.. {
        let mut lab = Lab::connected();
        lab.set_own("online", "0");
        lab.xen.set_after(operations, BACK_DIR, &[("online", "1"), ("state", "1")]);
        for _ in 0..10 {
            lab.poll();
            lab.now = lab.now + Duration::from_secs(1);
        }
        if lab.xen.is_due() {
            break;
        }
        met += 1;
        // What is there now stays there, be it in place of a directory that had been removed before.
        assert!(lab.xen.get(&format!("{BACK_DIR}/state")).is_some(), "after {operations} requests");
    }
    assert!(met >= 5, "{met} moments");
}

#[test]
fn a_directory_that_is_the_toolstacks_to_remove_is_left_to_it() {
    for forbidden in [false, true] {
        let removal = if forbidden { Removal::Ours } else { Removal::Toolstack };
        let mut lab = Lab::with(&[("feature-sg", "1")], removal);
        lab.poll();
        lab.set_own("online", "0");
        if forbidden {
            lab.xen.deny_removal(true);
        }
        lab.poll();
        assert_eq!((lab.state().as_str(), lab.bus.next_deadline()), ("6", None));
        assert_eq!(lab.bus.poll(lab.now), BackStep::Wait);
        lab.xen.remove(BACK_DIR);
        assert_eq!(lab.bus.poll(lab.now), BackStep::Remove);
    }
}

#[test]
fn a_toolstack_may_ask_to_close_and_stay() {
    let mut lab = Lab::connected();
    lab.set_own("state", "5");
    lab.poll();
    assert_eq!((lab.state().as_str(), lab.releases), ("5", 1));
    lab.frontend_says("6");
    lab.poll();
    lab.frontend_says("1");
    lab.poll();
    assert_eq!(lab.state(), "2");
}

#[test]
fn a_directory_made_anew_is_a_new_vif() {
    let mut lab = Lab::connected();
    lab.xen.remove(BACK_DIR);
    for (key, value) in [("frontend", FRONT_DIR), ("online", "1"), ("state", "1")] {
        lab.set_own(key, value);
    }
    lab.frontend_says("1");
    lab.poll();
    assert_eq!((lab.state().as_str(), lab.releases), ("2", 1));
    assert_eq!(lab.own("feature-sg").as_deref(), Some("1"));
}

#[test]
fn an_earlier_backends_connection_is_closed_first() {
    let mut lab = Lab::new();
    lab.set_own("state", "4");
    lab.publish(&KEYS);
    lab.poll();
    assert_eq!((lab.state().as_str(), lab.mapped), ("5", false));
    for (frontend, expected) in [("6", "6"), ("1", "2")] {
        lab.frontend_says(frontend);
        lab.poll();
        assert_eq!(lab.state(), expected);
    }
}

#[test]
fn f11_a_frontend_elsewhere_than_its_domain_is_not_followed() {
    for path in ["/local/domain/2/backend/vif/1/0", "/local/domain/10/x", "device/vif/0", "", "/"] {
        let mut lab = Lab::new();
        lab.set_own("frontend", path);
        lab.xen.set("/local/domain/10/x/state", "4");
        lab.publish(&KEYS);
        lab.poll();
        assert_eq!((lab.state().as_str(), lab.mapped), ("2", false), "{path}");
        // It may come late.
        lab.set_own("frontend", FRONT_DIR);
        lab.poll();
        assert_eq!((lab.state().as_str(), lab.mapped), ("4", true), "{path}");
    }
}

#[test]
fn a_connection_survives_a_store_that_fails() {
    let mut lab = Lab::connected();
    lab.xen.fail_operations(5);
    lab.frontend_says("4");
    for _ in 0..5 {
        assert_eq!(lab.bus.poll(lab.now), BackStep::Wait);
        let deadline = lab.bus.next_deadline().unwrap();
        assert!(deadline > lab.now);
        lab.now = deadline;
    }
    lab.poll();
    assert_eq!((lab.bus.is_connected(), lab.bus.next_deadline()), (true, None));
    let before = lab.xen.operations();
    lab.poll();
    assert_eq!(lab.xen.operations(), before);
}

/// Should a frontend publish anew, and say so by its state, while we read, we take what it had published
/// at one moment.
#[test]
fn p3_an_offer_is_of_one_moment() {
    let anew: Nodes<'_> = &[
        ("tx-ring-ref", "18"),
        ("rx-ring-ref", "19"),
        ("event-channel", "13"),
        ("feature-sg", "0"),
        ("request-multicast-control", "1"),
        ("state", "4"),
    ];
    let mut seen = [0; 2];
    for operations in 0..60 {
        let mut lab = Lab::new();
        lab.poll();
        lab.publish(&KEYS);
        lab.xen.set_after(operations, FRONT_DIR, anew);
        let connects = (0..20).any(|_| lab.bus.poll(lab.now) == BackStep::Connect);
        assert!(connects, "{operations}");
        let offer = lab.bus.frontend_offer().unwrap();
        let queue = offer.queues[0];
        let is_new = offer.multicast_control;
        let (rings, port) = if is_new { ((18, 19), 13) } else { ((8, 9), 3) };
        assert_eq!((queue.tx_ring, queue.rx_ring), rings, "{operations}");
        let port = crate::platform::Port::new(port).unwrap();
        assert_eq!(queue.events, EventChannels::Single(port), "{operations}");
        assert_eq!(offer.features.scatter_gather, !is_new, "{operations}");
        seen[usize::from(is_new)] += 1;
    }
    assert!(seen[0] > 10 && seen[1] > 10, "{seen:?}");
}

/// A frontend that was at fault waits longer each time, and no longer than it is told; a connection that
/// lasted ends that. Polled when it asks to be, and else only when something happens.
#[test]
fn b11_an_offer_that_is_put_off_has_a_deadline() {
    let mut lab = Lab::connected();
    let expected = [
        (0, 0),
        (0, 10),
        (0, 20),
        (999, 40),
        (0, 80),
        // A good connection.
        (1000, 0),
        (0, 10),
        (60_000, 0),
        (0, 10),
        (0, 20),
        (0, 40),
        (0, 80),
        (0, 160),
        (0, 320),
        (0, 500),
        (0, 500),
        (1000, 0),
    ];
    for (lasted, wait) in expected {
        lab.now = lab.now + lasted * MS;
        lab.bus.failed(lab.now, "for a test");
        lab.poll();
        for state in ["6", "1"] {
            lab.frontend_says(state);
            lab.poll();
        }
        let closed = lab.now;
        while lab.state() != "2" {
            lab.now = lab.bus.next_deadline().expect("it will be offered something");
            lab.poll();
        }
        assert_eq!(lab.now.since(closed), wait * MS, "after {lasted} ms");
        lab.publish(&KEYS);
        lab.poll();
        assert!(lab.bus.is_connected());
    }
}
