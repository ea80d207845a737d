//! The backend's end where something fails for a while, changes, or ends on our side.

use alloc::format;
use core::time::Duration;

use super::frontend::{KEYS, Lab};
use super::world::{BACK_DIR, FRONT_DIR};
use crate::xenbus::BackStep;

const MS: Duration = Duration::from_millis(1);

/// What passes is tried again, and the frontend need do nothing.
#[test]
fn n6_what_a_device_lacks_for_a_while_sends_no_frontend_away() {
    let mut lab = Lab::new();
    lab.poll();
    lab.publish(&KEYS);
    let mut tries = 0;
    let begun = lab.now;
    while lab.now.since(begun) < 10_000 * MS {
        if lab.bus.poll(lab.now) == BackStep::Connect {
            tries += 1;
            lab.bus.postpone(lab.now);
        }
        assert_eq!((lab.state().as_str(), lab.own("error")), ("2", None));
        lab.now = lab.bus.next_deadline().expect("it tries again").max(lab.now);
    }
    assert!((20..40).contains(&tries), "{tries} in ten seconds");
    lab.poll();
    assert!(lab.bus.is_connected());
}

/// A feature that changes while it is connected counts the next time (Linux's netback reads none of them
/// then either).
#[test]
fn n6_a_feature_that_changes_under_a_connection_does_not_end_it() {
    for key in ["feature-sg", "feature-rx-notify", "request-multicast-control", "feature-new"] {
        for value in ["0", "1", "x"] {
            let mut lab = Lab::connected();
            lab.publish(&[(key, value)]);
            lab.poll();
            // Somebody touches our own directory.
            lab.set_own("hotplug-status", "connected");
            lab.poll();
            assert!(lab.bus.is_connected() && lab.mapped, "{key} {value}");
        }
    }
}

#[test]
fn n6_a_store_that_fails_anywhere_is_asked_again() {
    for failing in 0..80 {
        let mut lab = Lab::new();
        lab.publish(&KEYS);
        for _ in 0..failing {
            if lab.xen.operations() >= failing {
                break;
            }
            let _ = lab.bus.poll(lab.now);
        }
        lab.xen.fail_operations(3);
        for _ in 0..40 {
            lab.poll();
            lab.now = lab.now + 10 * MS;
        }
        assert!(lab.bus.is_connected(), "{failing}");
        assert_eq!(lab.own("error"), None, "{failing}");
    }
}

/// A client that writes its own nodes all the time is detached like any other.
#[test]
fn n6_no_client_hides_its_own_detach() {
    let mut lab = Lab::connected();
    for (key, value) in [("online", "0"), ("state", "5")] {
        lab.set_own(key, value);
    }
    for round in 0..100 {
        lab.frontend_says("4");
        lab.xen.set(&format!("{FRONT_DIR}/request-rx-copy"), &format!("{round}"));
        lab.xen.set_after(1, FRONT_DIR, &[("state", "4"), ("tx-ring-ref", "9")]);
        match lab.bus.poll(lab.now) {
            BackStep::Release => {
                lab.mapped = false;
                lab.bus.released(lab.now);
            }
            BackStep::Remove => {
                assert!(round < 4, "{round}");
                assert_eq!(lab.own("state"), None);
                return;
            }
            BackStep::Wait | BackStep::Connect => {}
        }
    }
    panic!("{}", lab.state());
}

#[test]
fn what_the_toolstack_says_is_known_when_the_frontend_connects_and_read_anew() {
    let mut lab = Lab::new();
    lab.set_own("mtu", "9000");
    lab.set_own("ip", "10.0.0.2");
    // What an earlier backend has offered, and we do not.
    lab.set_own("feature-gso-tcpv4", "1");
    lab.set_own("multi-queue-max-queues", "4");
    lab.poll();
    assert_eq!((lab.bus.spec().mtu, lab.bus.spec().ip.as_deref()), (Some(9000), Some("10.0.0.2")));
    assert_eq!((lab.own("feature-gso-tcpv4"), lab.own("multi-queue-max-queues")), (None, None));
    lab.publish(&KEYS);
    lab.poll();
    lab.set_own("mtu", "1400");
    lab.poll();
    assert_eq!(lab.bus.spec().mtu, Some(9000));
    for state in ["6", "1"] {
        lab.frontend_says(state);
        lab.poll();
    }
    assert_eq!(lab.bus.spec().mtu, Some(1400));
}

#[test]
fn a_backend_that_shuts_down_leaves_its_frontend_closed() {
    for state in ["", "1", "4", "5", "6"] {
        let mut lab = Lab::connected();
        if !state.is_empty() {
            lab.frontend_says(state);
        }
        lab.bus.close(lab.now);
        lab.poll();
        if lab.state() == "5" {
            lab.frontend_says("6");
            lab.poll();
        }
        assert!(lab.bus.is_closed(), "{state}: {}", lab.state());
        lab.frontend_says("1");
        lab.poll();
        assert_eq!((lab.state().as_str(), lab.mapped, lab.releases), ("6", false, 1), "{state}");
    }
}

/// Resumed in another domain, or on another machine, with what xenstore says there.
#[test]
fn a_backend_that_is_resumed_maps_nothing_and_connects_anew() {
    let mut lab = Lab::connected();
    lab.mapped = false;
    lab.bus.resumed(lab.now);
    assert!(!lab.bus.is_connected());
    lab.poll();
    assert_eq!((lab.state().as_str(), lab.releases), ("5", 0));
    for state in ["6", "1"] {
        lab.frontend_says(state);
        lab.poll();
    }
    lab.publish(&KEYS);
    lab.poll();
    assert!(lab.bus.is_connected());

    let mut lab = Lab::connected();
    lab.mapped = false;
    lab.xen.remove(BACK_DIR);
    lab.bus.resumed(lab.now);
    assert_eq!(lab.bus.poll(lab.now), BackStep::Remove);
}
