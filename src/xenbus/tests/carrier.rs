//! The backend tells whether there is a network behind it.

use core::time::Duration;

use super::fake::Random;
use super::frontend::{KEYS, Lab};
use super::world::BACK_DIR;
use crate::platform::Instant;

fn carrier(lab: &Lab) -> Option<bool> {
    lab.own("carrier").map(|value| match &*value {
        "0" => false,
        "1" => true,
        other => panic!("carrier says {other:?}"),
    })
}

#[test]
fn the_carrier_is_written_once_it_is_known_and_when_it_changes() {
    let mut lab = Lab::connected();
    assert_eq!(carrier(&lab), None, "nobody has said anything yet");
    for up in [false, true, false] {
        lab.bus.set_carrier(up);
        assert_eq!(lab.bus.next_deadline(), Some(Instant(0)), "it will not wait");
        lab.poll();
        assert_eq!(carrier(&lab), Some(up));
        assert_eq!((lab.state().as_str(), lab.releases), ("4", 0));
        // The same again is no work at all.
        let before = lab.xen.operations();
        lab.bus.set_carrier(up);
        assert_eq!(lab.bus.next_deadline(), None);
        lab.poll();
        assert_eq!(lab.xen.operations(), before);
    }
}

#[test]
fn a_frontend_that_connects_finds_the_carrier_there() {
    let mut lab = Lab::new();
    lab.bus.set_carrier(false);
    assert_eq!(carrier(&lab), None, "the directory is not ours yet");
    lab.poll();
    assert_eq!((lab.state().as_str(), carrier(&lab)), ("2", Some(false)));
    lab.publish(&KEYS);
    lab.poll();
    // What changes while nobody is connected is there for the next one.
    lab.frontend_says("6");
    lab.poll();
    lab.bus.set_carrier(true);
    lab.poll();
    assert_eq!((lab.state().as_str(), carrier(&lab)), ("6", Some(false)));
    lab.now = lab.now + Duration::from_secs(1);
    lab.frontend_says("1");
    lab.poll();
    assert_eq!((lab.state().as_str(), carrier(&lab)), ("2", Some(true)));
}

#[test]
fn the_carrier_brings_no_directory_back_and_is_written_into_a_new_one() {
    let mut lab = Lab::connected();
    lab.xen.remove(BACK_DIR);
    lab.bus.set_carrier(false);
    lab.poll();
    assert_eq!(lab.own("carrier"), None);
    assert_eq!(lab.xen.names(BACK_DIR), [""; 0]);

    let mut lab = Lab::connected();
    lab.bus.set_carrier(false);
    lab.poll();
    // Made anew by the toolstack, under our feet.
    lab.xen.remove(&alloc::format!("{BACK_DIR}/carrier"));
    lab.set_own("state", "1");
    assert_eq!((lab.poll().as_str(), carrier(&lab)), ("124", Some(false)));
}

#[test]
fn a_store_that_fails_gets_the_carrier_later() {
    for seed in 0..200 {
        let mut random = Random::new(seed);
        let mut lab = Lab::connected();
        lab.xen.fail_one_in(Some(10), seed);
        let mut up = true;
        for _ in 0..20 {
            up = random.below(2) == 0;
            lab.bus.set_carrier(up);
            lab.poll();
        }
        for _ in 0..100 {
            let Some(at) = lab.bus.next_deadline() else { break };
            lab.now = lab.now.max(at);
            lab.poll();
        }
        lab.xen.fail_one_in(None, 0);
        assert_eq!((carrier(&lab), lab.bus.next_deadline()), (Some(up), None), "seed {seed}");
        assert_eq!(lab.xen.open_transactions(), 0);
    }
}
