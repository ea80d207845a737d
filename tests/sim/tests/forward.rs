//! A packet goes from one frontend to another in the page in which it came.
#![allow(missing_docs)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod firewall;

use std::time::Duration;

use fastrand::Rng;
use firewall::{Network, Party, packet};

#[test]
fn r10_packets_are_forwarded_in_the_pages_they_came_in() {
    let network = Network::new(10, true);
    network.firewall.borrow_mut().watches_pages = true;
    let mut rng = Rng::with_seed(10);
    network.run(Duration::from_millis(20), |network| {
        if network.left.borrow().queued() < 10 {
            network.left.borrow_mut().inject(&packet(&mut rng, Party::Left, 9000));
        }
        network.right.borrow_mut().take_received();
    });
    let firewall = network.firewall.borrow();
    let (in_place, elsewhere) = firewall.forwarded;
    assert!(in_place > 100, "{in_place} fragments were forwarded");
    assert_eq!(elsewhere, 0, "fragments were copied");
    for net in [&firewall.left, &firewall.right] {
        assert_eq!(net.counters().copied_bytes, 0);
    }
    drop(firewall);
    network.tear_down();
}
