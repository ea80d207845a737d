//! Our frontend and our backend against each other, through every kind of trouble.

use alloc::format;
use alloc::vec;
use core::time::Duration;

use super::fake::Random;
use super::world::{BACK_DIR, FRONT_DIR, Front, World};
use crate::xenbus::FrontStep;

#[test]
fn a_vif_connects_at_once() {
    let mut world = World::new();
    world.attach();
    world.connect();
    let offer = world.front.bus.offer();
    assert!(offer.rx_copy && offer.features.scatter_gather && !offer.features.gso_v4);
    assert_eq!((offer.domain.0, offer.max_queues, offer.mtu), (2, 2, 1500));
    assert_eq!(offer.mac, Some([0, 0x16, 0x3e, 0, 0, 1]));
    assert!(world.back.unwrap().mapped.unwrap().rx_copy);
}

#[test]
fn nothing_happens_while_connected() {
    let mut world = World::new();
    world.attach();
    world.connect();
    for _ in 0..4 {
        world.poll_back();
        let _ = world.poll_front();
    }
    let before = world.xen.operations();
    assert_eq!(world.next_deadline(), None);
    for _ in 0..1000 {
        world.now = world.now + Duration::from_secs(60);
        world.poll_back();
        assert_eq!(world.poll_front(), FrontStep::Live);
    }
    assert_eq!(world.xen.operations(), before);
}

#[test]
fn f11_rings_come_back_unmapped_from_an_orderly_close() {
    let mut world = World::new();
    world.attach();
    for _ in 0..3 {
        world.connect();
        world.front.bus.close(world.now);
        let mut released = false;
        for _ in 0..20 {
            world.poll_back();
            if world.poll_front() == FrontStep::Release {
                assert_eq!(world.back.as_ref().unwrap().ring(), None);
                released = true;
            }
        }
        assert!(released && world.front.bus.is_closed());
        assert_eq!(world.state_of(FRONT_DIR), "6");
        assert_eq!(world.state_of(BACK_DIR), "6");
        assert_eq!(world.next_deadline(), None);
        world.front.bus.reopen(world.now);
    }
}

#[test]
fn f11_a_fault_on_either_side_reconnects_within_a_second_however_often() {
    for fault_of_front in [true, false] {
        let mut world = World::new();
        world.attach();
        let mut longest = Duration::ZERO;
        for round in 0..200 {
            let took = world.run_until(1000, World::connected).unwrap();
            assert!(round > 1 || took == Duration::ZERO, "not at once: {took:?}");
            longest = longest.max(took);
            if fault_of_front {
                world.front.bus.fail(world.now);
            } else {
                world.back.as_mut().unwrap().bus.failed(world.now, "for a test");
            }
            let _ = world.run_until(100, |world| world.front.last == FrontStep::Release);
        }
        // Held back, but by less than a second.
        assert!(longest > Duration::from_millis(100), "{longest:?}");
        assert!(longest < Duration::from_secs(1), "{longest:?}");

        // A connection that lasts is a new beginning.
        world.run_until(1000, World::connected).unwrap();
        world.now = world.now + Duration::from_secs(2);
        world.front.bus.fail(world.now);
        world.run_until(1000, |world| world.front.last == FrontStep::Release).unwrap();
        if fault_of_front {
            assert_eq!(world.run_until(1000, World::connected), Some(Duration::ZERO));
        }
    }
}

#[test]
fn f11_either_side_may_restart_at_any_moment() {
    for stop_after in 0..12 {
        for front in [true, false] {
            let mut world = World::new();
            world.attach();
            for step in 0..stop_after {
                if step % 2 == 0 {
                    world.poll_back();
                } else {
                    let _ = world.poll_front();
                }
            }
            if front {
                world.front = Front::open(&world.xen);
            } else {
                world.restart_back();
            }
            let took = world.run_until(200, World::connected);
            assert!(
                took.is_some_and(|took| took <= Duration::from_millis(500)),
                "restarted after {stop_after} ({front}), {took:?}: {}",
                world.picture()
            );
        }
    }
}

#[test]
fn a_detached_vif_leaves_nothing_and_can_be_attached_again() {
    let mut world = World::new();
    for _ in 0..3 {
        world.attach();
        world.connect();
        world.detach();
        let took = world.run_until(100, |world| world.back.is_none());
        assert_eq!(took, Some(Duration::ZERO));
        assert_eq!(world.xen.names("/local/domain/2/backend/vif/1"), vec!["x"; 0]);
        world.xen.remove(FRONT_DIR);
        let took = world.run_until(100, |world| world.front.last == FrontStep::Gone);
        assert_eq!(took, Some(Duration::ZERO));
        assert_eq!(world.xen.get(FRONT_DIR), None, "a ghost");
    }
}

#[test]
fn a_vif_without_a_frontend_directory_is_gone_until_it_comes() {
    let mut world = World::new();
    assert_eq!(world.poll_front(), FrontStep::Gone);
    assert_eq!(world.front.bus.next_deadline(), None);
    world.attach();
    world.connect();
}

#[test]
fn f11_a_directory_that_goes_at_any_moment_does_not_come_back_as_a_ghost() {
    for dir in [FRONT_DIR, BACK_DIR] {
        // Far enough to connect, to close, and to close for ever.
        for operations in 0..150 {
            let mut world = World::new();
            world.attach();
            world.xen.remove_after(operations, dir);
            let _ = world.run_until(20, World::connected);
            world.front.bus.fail(world.now);
            let _ = world.run_until(20, World::connected);
            world.front.bus.close(world.now);
            let _ = world.run_until(20, |world| world.front.bus.is_closed());
            assert_eq!(world.xen.get(dir), None, "gone after {operations} operations");
        }
    }
}

/// One thing that goes wrong.
fn disturb(world: &mut World, random: &mut Random) {
    let dir = *random.pick(&[FRONT_DIR, BACK_DIR]);
    match random.below(18) {
        0 => world.front.bus.close(world.now),
        1 => world.front.bus.reopen(world.now),
        2 => world.front.bus.fail(world.now),
        3 => world.front.bus.resumed(world.now),
        4 => world.front = Front::open(&world.xen),
        5 => world.restart_back(),
        6 => {
            if let Some(back) = &mut world.back {
                back.bus.failed(world.now, "for a test");
            }
        }
        7 => world.detach(),
        8 => world.xen.remove(dir),
        9 => world.attach(),
        10..=12 => {
            // Somebody toggles a state, backwards and forwards.
            let state = *random.pick(&["0", "1", "2", "3", "4", "5", "6", "7", "8", "", "x"]);
            world.xen.set(&format!("{dir}/state"), state);
        }
        13 | 14 => {
            let names = world.xen.names(dir);
            if !names.is_empty() {
                world.xen.remove(&format!("{dir}/{}", random.pick(&names)));
            }
        }
        15 => {
            let names = world.xen.names(dir);
            if !names.is_empty() {
                let garbage: [&[u8]; 7] = [
                    b"",
                    b"0",
                    b"99999999999",
                    b"-1",
                    b"\xff\xfe\x00",
                    b"/local/domain/0",
                    &[b'1'; 5000],
                ];
                let (name, garbage) = (random.pick(&names), random.pick(&garbage));
                world.xen.set_bytes(&format!("{dir}/{name}"), garbage);
            }
        }
        16 => {
            let forbidden = random.below(2) == 0;
            world.xen.forbid(dir, forbidden);
        }
        _ => {
            let one_in = (random.below(2) == 0).then_some(8);
            world.xen.fail_one_in(one_in, random.below(1000));
        }
    }
}

fn one_seed(seed: u64) -> Duration {
    let mut random = Random::new(seed);
    let mut world = World::new();
    if random.below(4) != 0 {
        world.attach();
    }
    let trouble = random.below(8);
    for _ in 0..random.below(400) {
        match random.below(12) {
            0 if trouble != 0 => disturb(&mut world, &mut random),
            0 | 1 => {
                let millis = *random.pick(&[1, 10, 300, 2000]);
                world.now = world.now + Duration::from_millis(random.below(millis));
            }
            2..=6 => world.poll_back(),
            _ => {
                let _ = world.poll_front();
            }
        }
    }

    // The trouble is over; what the toolstack answers for is in order again.
    world.xen.forbid(FRONT_DIR, false);
    world.xen.forbid(BACK_DIR, false);
    world.xen.fail_one_in(None, 0);
    if world.xen.get(BACK_DIR).is_none() || world.xen.get(FRONT_DIR).is_none() {
        world.xen.remove(BACK_DIR);
        world.xen.remove(FRONT_DIR);
        world.attach();
    }
    let _ = world.run_until(4, |_| false);
    if world.xen.get(BACK_DIR).is_none() {
        // A detach was under way.
        world.attach();
    }
    world.repair();
    world.front.bus.reopen(world.now);
    let took = world.run_until(400, World::connected);
    let took = took.unwrap_or_else(|| panic!("seed {seed}: {}", world.picture()));

    // And it stays so, with nothing left to do.
    world.now = world.now + Duration::from_secs(1);
    for _ in 0..8 {
        world.poll_back();
        let _ = world.poll_front();
    }
    assert!(world.connected(), "seed {seed}: {}", world.picture());
    assert_eq!(world.front.bus.next_deadline(), None, "seed {seed}");
    assert_eq!(world.back.as_ref().unwrap().bus.next_deadline(), None, "seed {seed}");
    assert_eq!(world.xen.watches(), 5, "seed {seed}: two an end, and the clients'");
    assert_eq!(world.xen.open_transactions(), 0);
    took
}

#[test]
fn f11_both_ends_connect_once_the_trouble_is_over() {
    let longest = (0..2000).map(one_seed).max().unwrap();
    assert!(longest < Duration::from_secs(2), "{longest:?}");
}
