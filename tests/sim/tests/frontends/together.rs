//! All nine at once on one host, behind one backend that forwards between them; and what it is to the others when one
//! of them is gone, is silent, or breaks the rules.

use std::time::Duration;

use xen_netfront::buffer::Packet;
use xen_netfront::platform::Platform;

use super::ALL;
use super::raw_client::{BACK, bytes};
use super::traffic::{both_ways, noise};
use super::world::{World, config};

fn all() -> World {
    let mut world = World::new(config());
    for frontend in ALL {
        world.add(frontend);
    }
    world.guests.iter_mut().for_each(|guest| guest.connect());
    world.settle();
    (0..ALL.len()).for_each(|number| world.expect_connected(number));
    world
}

/// Each sends a packet to each of the others, through us, without a copy of ours: the bytes arrive. Those of `gone`
/// take no part.
fn forward(world: &mut World, seed: u64, gone: Option<usize>) {
    let here: Vec<usize> = (0..ALL.len()).filter(|number| Some(*number) != gone).collect();
    for &from in &here {
        let frame = noise(seed * 100 + from as u64, 1514);
        assert!(world.guests[from].send(vec![frame.clone()]).is_empty());
        world.settle();
        let id = world.guests[from].id();
        let received = std::mem::take(&mut world.backend.received);
        let mine: Vec<_> = received.into_iter().filter(|(sender, _)| *sender == id).collect();
        assert_eq!(mine.len(), 1, "{}", ALL[from].name);
        for (_, packet) in mine {
            assert!(bytes(&packet) == frame.bytes);
            let packet: Packet = packet.freeze();
            for &to in here.iter().filter(|to| **to != from) {
                let id = world.guests[to].id();
                world.backend.deliver(id, packet.clone()).unwrap();
            }
        }
        world.settle();
        for &to in here.iter().filter(|to| **to != from) {
            let got: Vec<_> = world.guests[to].received.drain(..).map(|got| got.bytes).collect();
            let (from, to) = (ALL[from].name, ALL[to].name);
            assert!(got == [frame.bytes.clone()], "{from} to {to}: {} packets", got.len());
        }
        for queue in world.guests.iter_mut().flat_map(|guest| &mut guest.queues) {
            queue.collect();
        }
    }
}

/// Every one of them has its traffic, while all are connected, and they have it with one another.
#[test]
fn frontend_all_nine_are_served_at_once() {
    let mut world = all();
    assert_eq!(world.backend.domain.mappings(), 2 * ALL.len());
    for round in 0..3 {
        forward(&mut world, round, None);
        for number in 0..ALL.len() {
            both_ways(&mut world, number, round, 2);
        }
    }
    for guest in &world.guests {
        let counters = world.backend.vif(guest.id()).unwrap().counters();
        assert_eq!((counters.connects, counters.faults), (1, 0), "{}", guest.frontend.name);
        assert_eq!(counters.from_drops.total() + counters.to_drops.total(), 0);
    }
    assert_eq!(world.host.violations(), []);
}

/// What one of them does to be gone.
#[derive(Clone, Copy, Debug)]
enum Misdeed {
    /// Its domain ends.
    Dies,
    /// Its ring's index jumps.
    Overruns,
    /// It looks at nothing any more.
    Hangs,
    /// It goes through close and connect without end.
    Flaps,
    /// It says that it is closing, and does nothing about it.
    NeverCloses,
}

/// In the middle of its traffic, with packets on their way in both directions.
fn misbehave(world: &mut World, number: usize, misdeed: Misdeed) {
    super::checks::leave_in_flight(world, number, 1);
    let vif = world.guests[number].vif.clone();
    match misdeed {
        Misdeed::Dies => world.host.destroy_domain(vif.frontend),
        Misdeed::Overruns => {
            let guest = &world.guests[number];
            guest.queues[0].overrun();
            guest.queues[0].ports.iter().for_each(|port| guest.domain.notify(*port));
        }
        Misdeed::Hangs => {}
        Misdeed::Flaps => {
            for state in ["5", "6", "1", "4", "5", "1", "6"].iter().cycle().take(300) {
                world.guests[number].set("state", state);
                world.backend.turn();
            }
        }
        Misdeed::NeverCloses => world.guests[number].set("state", "5"),
    }
    // From here on it does nothing.
    world.guests[number].hang();
}

fn one_misbehaves(misdeed: Misdeed) {
    for (victim, frontend) in ALL.iter().enumerate() {
        let mut world = all();
        forward(&mut world, 1, None);
        misbehave(&mut world, victim, misdeed);
        for round in 0..2 {
            world.backend.received.clear();
            forward(&mut world, 2 + round, Some(victim));
            let neighbour = (victim + 1 + round as usize) % ALL.len();
            both_ways(&mut world, neighbour, round, 1);
            world.pass(Duration::from_secs(6));
        }
        for (number, guest) in world.guests.iter().enumerate().filter(|(it, _)| *it != victim) {
            let counters = world.backend.vif(guest.id()).unwrap().counters();
            let name = ALL[number].name;
            assert_eq!((counters.connects, counters.faults, counters.stalls), (1, 0, 0), "{name}");
            assert_eq!(counters.from_drops.total() + counters.to_drops.total(), 0, "{name}");
        }
        // It is detached as any other, and nothing of it stays.
        let vif = world.guests[victim].vif.clone();
        world.toolstack.begin_detach(&vif);
        world.pass(Duration::from_secs(1));
        assert_eq!(world.toolstack.states(&vif).1, None, "{misdeed:?}, {}", frontend.name);
        assert_eq!(world.backend.domain.mappings(), 2 * (ALL.len() - 1));
        forward(&mut world, 9, Some(victim));
        assert_eq!(world.host.violations_of(BACK), []);
    }
}

#[test]
fn frontend_all_others_go_on_when_one_dies() {
    one_misbehaves(Misdeed::Dies);
}

#[test]
fn frontend_all_others_go_on_when_one_breaks_a_ring() {
    one_misbehaves(Misdeed::Overruns);
}

#[test]
fn frontend_all_others_go_on_when_one_hangs() {
    one_misbehaves(Misdeed::Hangs);
}

#[test]
fn frontend_all_others_go_on_when_one_flaps() {
    one_misbehaves(Misdeed::Flaps);
}

#[test]
fn frontend_all_others_go_on_when_one_never_closes() {
    one_misbehaves(Misdeed::NeverCloses);
}
