//! Nothing is left behind: watches are few, and they go when their owner goes.

use xen_grant::DomId;

use super::fake::FakeXen;
use super::world::{FEATURES, FRONT_DIR, Front, World};
use crate::platform::Instant;
use crate::xenbus::{BackBus, BackStep, FrontBus, FrontStep, Listing, Removal};

const CYCLES: usize = 10_000;

#[test]
fn p2_no_watch_is_left_by_what_is_opened_and_dropped() {
    let xen = FakeXen::new();
    let (front, back) = (xen.domain(1), xen.domain(2));
    for _ in 0..CYCLES {
        let clients = Listing::open(back.clone()).unwrap();
        let features = &FEATURES;
        let bus = BackBus::open(back.clone(), DomId(1), 0, features, Removal::Ours).unwrap();
        let mut both = (FrontBus::open(front.clone(), 0).unwrap(), bus);
        let _ = (both.0.poll(Instant(0)), both.1.poll(Instant(0)));
        assert!(xen.watches() <= 3);
        drop((both, clients));
        assert_eq!(xen.watches(), 0);
    }
}

#[test]
fn p2_f11_no_watch_is_left_by_vifs_that_connect_and_go() {
    let mut world = World::new();
    for cycle in 0..CYCLES {
        world.attach();
        world.run_until(100, World::connected).unwrap();
        assert_eq!(world.xen.watches(), 5, "the clients', and two an end");
        match cycle % 4 {
            // Taken away by the toolstack.
            0 => {
                world.detach();
                world.run_until(100, |world| world.back.is_none()).unwrap();
                world.xen.remove(FRONT_DIR);
                world.run_until(100, |world| world.front.last == FrontStep::Gone).unwrap();
                assert_eq!(world.xen.watches(), 2, "the clients', and our directory's");
            }
            // Either end starts over.
            1 => world.front = Front::open(&world.xen),
            2 => world.restart_back(),
            // Closed, and opened again.
            _ => {
                world.front.bus.close(world.now);
                world.run_until(100, |world| world.front.bus.is_closed()).unwrap();
                world.front.bus.reopen(world.now);
            }
        }
    }
    assert_eq!(world.xen.open_transactions(), 0);
}

#[test]
fn a_removed_vif_watches_nothing_while_it_is_still_held() {
    let xen = FakeXen::new();
    let features = &FEATURES;
    let mut bus = BackBus::open(xen.domain(2), DomId(1), 0, features, Removal::Ours).unwrap();
    for _ in 0..3 {
        assert_eq!(bus.poll(Instant(0)), BackStep::Remove);
        assert_eq!((xen.watches(), bus.next_deadline()), (0, None));
    }
}
