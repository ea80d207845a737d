//! No step makes more than a bounded number of round trips to xenstore, whatever the peer does (N3).

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::frontend;
use super::netback;
use super::world::{BACK_DIR, FRONT_DIR};
use crate::xenbus::directories::TRIES;
use crate::xenbus::front::MAX_STALE;
use crate::xenbus::{BackStep, BusState, FrontStep, MAX_QUEUES, Removal};
use xen_store::StoreError;

/// The most requests that one poll makes, or one publication: what a slice has left, and the longest step; a
/// frontend publishes all its queues at once.
pub const MAX_POLL: u64 = 60;
pub const MAX_PUBLICATION: u64 = 140;

/// What a frontend publishes for as many queues as there may be. One channel each takes longest to
/// read, two take longest to write.
fn published(channels: &[&str]) -> Vec<(String, &'static str)> {
    let queues = (0..MAX_QUEUES).flat_map(|queue| {
        let keys = ["tx-ring-ref", "rx-ring-ref"].iter().chain(channels);
        keys.map(move |key| (format!("queue-{queue}/{key}"), "7"))
    });
    let mut keys: Vec<_> = queues.collect();
    keys.push((String::from("multi-queue-num-queues"), "8"));
    keys.extend((0..9).map(|number| (format!("feature-{number}"), "1")));
    keys
}

/// What a backend with every feature offers.
const OFFER: [(&str, &str); 9] = [
    ("feature-sg", "1"),
    ("feature-no-csum-offload", "0"),
    ("feature-ipv6-csum-offload", "1"),
    ("feature-gso-tcpv4", "1"),
    ("feature-gso-tcpv6", "1"),
    ("feature-rx-copy", "1"),
    ("feature-rx-flip", "0"),
    ("feature-split-event-channels", "1"),
    ("multi-queue-max-queues", "8"),
];

/// A backend in each of its states, before a frontend in each of its own, moved to another
/// directory, every transaction tried as
/// often as it ever is.
#[test]
fn n3_a_poll_of_the_backend_makes_a_bounded_number_of_requests() {
    let mut most = 0;
    for then in BusState::ALL {
        for own in ["", "0", "1", "2", "3", "4", "5", "6"] {
            for online in ["1", "0"] {
                let mut lab = frontend::Lab::with(&OFFER, Removal::Ours);
                lab.poll();
                let elsewhere = "/local/domain/1/elsewhere";
                for (key, value) in published(&["event-channel"]) {
                    lab.xen.set(&format!("{FRONT_DIR}/{key}"), value);
                    lab.xen.set(&format!("{elsewhere}/{key}"), value);
                }
                if online == "1" {
                    lab.frontend_says("4");
                    lab.poll();
                    assert!(lab.bus.is_connected());
                    lab.mapped = false;
                }
                lab.xen.set(&format!("{elsewhere}/state"), then.digit());
                lab.set_own("frontend", elsewhere);
                lab.set_own("online", online);
                lab.bus.set_carrier(false);
                lab.bus.failed(lab.now, "it is at fault");
                if !own.is_empty() {
                    lab.set_own("state", own);
                }
                lab.xen.refuse_first_commits(TRIES - 1);
                for _ in 0..8 {
                    let before = lab.xen.operations();
                    let step = lab.bus.poll(lab.now);
                    most = most.max(lab.xen.operations() - before);
                    match step {
                        BackStep::Connect => lab.bus.connected(lab.now),
                        BackStep::Release => lab.bus.released(lab.now),
                        BackStep::Wait | BackStep::Remove => {}
                    }
                }
            }
        }
    }
    assert!((40..=MAX_POLL).contains(&most), "{most}");
}

/// A frontend that finds each state of its own and of the backend, and every transaction in vain at
/// first; its polls, and publishing eight queues after an earlier connection of as many.
#[test]
fn n3_a_poll_and_a_publication_of_the_frontend_make_a_bounded_number_of_requests() {
    let keys = published(&["event-channel-tx", "event-channel-rx"]);
    let (mut polls, mut publications) = (0, 0);
    for own in BusState::ALL {
        for backend in BusState::ALL {
            let mut lab = netback::Lab::new();
            for (key, value) in &keys {
                lab.world.xen.set(&format!("{FRONT_DIR}/{key}"), value);
            }
            lab.world.xen.set(&format!("{FRONT_DIR}/state"), own.digit());
            lab.world.xen.set(&format!("{BACK_DIR}/state"), backend.digit());
            lab.world.xen.refuse_first_commits(TRIES - 1);
            for _ in 0..8 {
                let before = lab.world.xen.operations();
                let step = lab.world.front.bus.poll(lab.world.now);
                let after = lab.world.xen.operations();
                polls = polls.max(after - before);
                if step == FrontStep::Connect {
                    lab.world.front.bus.publish(lab.world.now, &keys).unwrap();
                    publications = publications.max(lab.world.xen.operations() - after);
                }
                lab.backend_says("6");
            }
        }
    }
    assert!((30..=MAX_POLL).contains(&polls), "{polls}");
    assert!((90..=MAX_PUBLICATION).contains(&publications), "{publications}");
}

/// However much somebody has left in the directory, it goes a part at a time.
#[test]
fn n3_what_earlier_connections_left_is_removed_a_part_at_a_time() {
    let mut lab = netback::Lab::new();
    for number in 0..3 * MAX_STALE {
        lab.world.xen.set(&format!("{FRONT_DIR}/queue-{number}/tx-ring-ref"), "7");
    }
    let mut tries = 0;
    loop {
        while lab.world.front.bus.poll(lab.world.now) != FrontStep::Connect {
            lab.world.now = lab.world.front.bus.next_deadline().unwrap();
        }
        tries += 1;
        let before = lab.world.xen.operations();
        let outcome = lab.world.front.bus.publish(lab.world.now, &[("tx-ring-ref", "1")]);
        assert!(lab.world.xen.operations() - before <= MAX_PUBLICATION);
        match outcome {
            Ok(()) => break,
            Err(error) => assert_eq!((error, tries < 3), (StoreError::Again, true)),
        }
    }
    assert_eq!(tries, 3);
    assert!(!lab.world.xen.names(FRONT_DIR).iter().any(|name| name.starts_with("queue-")));
}
