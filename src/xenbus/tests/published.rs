//! What a frontend publishes, read by our backend.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::frontend::{KEYS, Lab, Nodes};
use super::world::FRONT_DIR;
use crate::platform::Port;
use crate::xenbus::{EventChannels, MAX_QUEUES, QueueOffer, Removal};

#[test]
fn p3_what_a_frontend_publishes_is_read_with_care() {
    let queue = |tx_ring, rx_ring, events| QueueOffer { tx_ring, rx_ring, events };
    let single = |port| EventChannels::Single(Port::new(port).unwrap());
    let split = EventChannels::Split { tx: Port::new(5).unwrap(), rx: Port::new(6).unwrap() };
    let long = "1".repeat(100_000);
    let one = queue(8, 9, single(3));
    let good: [(Nodes<'_>, Vec<QueueOffer>); 6] = [
        (&[], [one].to_vec()),
        (&[("multi-queue-num-queues", "1")], [one].to_vec()),
        (&[("event-channel-tx", "5"), ("event-channel-rx", "6")], [queue(8, 9, split)].to_vec()),
        (&[("event-channel-tx", "5"), ("event-channel-rx", "x")], [one].to_vec()),
        (&[("feature-gso-tcpv4", &long), ("request-rx-copy", "\u{fffd}")], [one].to_vec()),
        (
            &[
                ("multi-queue-num-queues", "2"),
                ("queue-0/tx-ring-ref", "0"),
                ("queue-0/rx-ring-ref", "4294967295"),
                ("queue-0/event-channel", "1"),
                ("queue-1/tx-ring-ref", "22"),
                ("queue-1/rx-ring-ref", "23"),
                ("queue-1/event-channel-tx", "5"),
                ("queue-1/event-channel-rx", "6"),
            ],
            [queue(0, u32::MAX, single(1)), queue(22, 23, split)].to_vec(),
        ),
    ];
    for (keys, queues) in good {
        let mut lab = Lab::with(&[("multi-queue-max-queues", "2")], Removal::Ours);
        lab.publish(&KEYS);
        lab.publish(keys);
        lab.poll();
        assert_eq!(lab.bus.frontend_offer().map(|offer| &offer.queues), Some(&queues), "{keys:?}");
        let offer = lab.bus.frontend_offer().unwrap();
        assert!(
            offer.features.scatter_gather && !offer.features.gso_v4 && !offer.multicast_control
        );
    }

    let bad: [Nodes<'_>; 12] = [
        &[("tx-ring-ref", "")],
        &[("tx-ring-ref", "4294967296")],
        &[("rx-ring-ref", "-1")],
        &[("rx-ring-ref", &long)],
        &[("event-channel", "0")],
        &[("event-channel", "x")],
        &[("multi-queue-num-queues", "0")],
        &[("multi-queue-num-queues", "3")],
        &[("multi-queue-num-queues", "4294967295")],
        &[("multi-queue-num-queues", "")],
        &[("multi-queue-num-queues", "two")],
        &[("multi-queue-num-queues", "2"), ("queue-0/tx-ring-ref", "1")],
    ];
    for keys in bad {
        let mut lab = Lab::with(&[("multi-queue-max-queues", "2")], Removal::Ours);
        lab.publish(&KEYS);
        lab.publish(keys);
        lab.poll();
        assert_eq!((lab.state().as_str(), lab.mapped), ("5", false), "{keys:?}");
        assert!(lab.own("error").is_some());
        // It may do better next time.
        for (key, _) in keys {
            lab.xen.remove(&format!("{FRONT_DIR}/{key}"));
        }
        lab.frontend_says("1");
        lab.poll();
        assert_eq!((lab.state().as_str(), lab.own("error")), ("2", None), "{keys:?}");
        lab.publish(&KEYS);
        lab.poll();
        assert_eq!(lab.state(), "4", "{keys:?}");
    }
    for key in ["tx-ring-ref", "rx-ring-ref", "event-channel"] {
        let mut lab = Lab::new();
        lab.publish(&KEYS);
        lab.xen.remove(&format!("{FRONT_DIR}/{key}"));
        lab.poll();
        assert_eq!(lab.state(), "5", "without {key}");
    }
}

#[test]
fn b11_no_frontend_has_more_queues_than_we_bear() {
    let mut lab = Lab::with(&[("multi-queue-max-queues", "4000000000")], Removal::Ours);
    let keys: Vec<(String, &str)> = (0..=MAX_QUEUES)
        .flat_map(|queue| KEYS.map(move |(key, value)| (format!("queue-{queue}/{key}"), value)))
        .collect();
    for (key, value) in &keys {
        lab.xen.set(&format!("{FRONT_DIR}/{key}"), value);
    }
    lab.publish(&[("multi-queue-num-queues", &format!("{}", MAX_QUEUES + 1))]);
    lab.poll();
    assert_eq!(lab.state(), "5");
    lab.frontend_says("1");
    lab.poll();
    lab.publish(&[("multi-queue-num-queues", &format!("{MAX_QUEUES}"))]);
    lab.poll();
    assert_eq!(lab.bus.frontend_offer().unwrap().queues.len(), MAX_QUEUES as usize);
}
