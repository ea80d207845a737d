//! What is asked of every frontend, one function each; the files of the frontends name the tests.

use std::time::Duration;

use xen_netfront::platform::Instant;
use xen_sim::{Chaos, Vif};

use super::raw_client::BACK;
use super::script::{CLOSED, CONNECTED, Frontend};
use super::traffic::{both_ways, deliver, from_guest, noise, packet, send};
use super::world::{World, config};

/// Tests of a frontend, each a check of this file.
macro_rules! frontend_tests {
    ($frontend:ident: $($(#[$attribute:meta])* $test:ident => $check:ident),+ $(,)?) => {$(
        #[test]
        $(#[$attribute])*
        fn $test() {
            crate::checks::$check(&$frontend);
        }
    )+};
}

/// It connects in its own order, and packets of every kind pass both ways.
pub fn carries_traffic(frontend: &'static Frontend) {
    let mut world = World::with(frontend);
    both_ways(&mut world, 0, 1, 12);
    assert_eq!(world.host.violations(), []);
}

/// What we write while it connects, and what not: our states in order, nothing into its directory, nothing else once
/// it is connected; whether it or we come first, and whatever transactions fail meanwhile.
pub fn connects(frontend: &'static Frontend) {
    for (first, conflicts) in [(false, 0.0), (true, 0.0), (false, 0.4), (true, 0.4)] {
        let mut world = World::new(config());
        world.host.set_chaos(Chaos { conflicts, ..Chaos::default() });
        let number = world.add(frontend);
        world.host.trace_store(true);
        world.guests[number].connect();
        if first {
            while world.guests[number].turn() {}
        }
        world.pass(Duration::from_secs(1));
        world.expect_connected(number);
        let (front, back) =
            (world.guests[number].vif.front_dir(), world.guests[number].vif.back_dir());
        let ours: Vec<_> =
            world.host.store_trace().into_iter().filter(|change| change.domain == BACK).collect();
        assert!(ours.iter().all(|change| !change.path.starts_with(&front)), "{ours:?}");
        let states: Vec<_> = ours
            .iter()
            .filter(|change| change.path == format!("{back}/state"))
            .map(|change| String::from_utf8(change.value.clone().unwrap()).unwrap())
            .collect();
        let closes = states.len() > 2;
        assert!(closes || states == ["2", "4"], "{states:?}");
        // One that does not wait for us closes first, where it was faster.
        assert!(!closes || states == ["2", "6", "2", "4"], "{states:?}");
        assert_eq!(world.backend.domain.mappings(), 2);
        world.host.set_chaos(Chaos::default());
        both_ways(&mut world, number, 2, 2);
        assert_eq!(world.host.violations(), []);
    }
}

/// Leaves of its own will in the middle of traffic, gets all its pages back, and connects again with new rings.
pub fn closes_and_connects_again(frontend: &'static Frontend) {
    let mut world = World::with(frontend);
    for round in 0..3 {
        both_ways(&mut world, 0, round, 2);
        leave_in_flight(&mut world, 0, round);
        world.guest().close();
        world.pass(Duration::from_secs(2));
        assert!(world.guest().is_done(), "{} waits", frontend.name);
        world.expect_released(0);
        assert_eq!(world.guest().grants(), 0);
        world.connect(0);
    }
    both_ways(&mut world, 0, 9, 2);
    assert_eq!(world.host.violations(), []);
}

/// Packets on their way in both directions that nobody has looked at.
pub fn leave_in_flight(world: &mut World, number: usize, seed: u64) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let frames = from_guest(&mut rng, &world.guests[number], 5);
    world.guests[number].send(frames);
    for seed in 0..5 {
        let packet = packet(world, &noise(seed, 1000), &mut rng);
        let id = world.guests[number].id();
        world.backend.deliver(id, packet).unwrap();
    }
}

/// The toolstack takes its vif away in the middle of traffic: our directory is gone at once, whatever the guest does,
/// and its pages are its own; another vif of the same name is a new one. Twice: we see it first, or the guest does.
pub fn is_detached(frontend: &'static Frontend) {
    let mut world = World::with(frontend);
    for guest_first in [false, true, false] {
        both_ways(&mut world, 0, 3, 2);
        leave_in_flight(&mut world, 0, 3);
        let vif = world.guest().vif.clone();
        world.toolstack.begin_detach(&vif);
        if guest_first {
            while world.guests[0].turn() {}
        }
        world.settle();
        detach(&mut world, &vif);
        world.toolstack.add_vif(&vif);
        world.settle();
        world.connect(0);
    }
    both_ways(&mut world, 0, 4, 2);
    assert_eq!(world.host.violations(), []);
}

/// The end of a detach that has begun.
fn detach(world: &mut World, vif: &Vif) {
    assert_eq!(world.toolstack.states(vif).1, None, "our directory is there");
    assert!(world.toolstack.detached(vif));
    world.expect_released(0);
    world.toolstack.remove_vif(vif);
    world.settle();
    assert_eq!(world.guest().grants(), 0);
    assert_eq!((world.backend.domain.mappings(), world.backend.domain.open_ports().len()), (0, 0));
}

/// Saved and restored, or migrated: the domain ends in the middle of traffic, another comes with a vif of its own.
pub fn is_restored(frontend: &'static Frontend) {
    let mut world = World::with(frontend);
    for round in 0..3 {
        both_ways(&mut world, 0, round, 2);
        leave_in_flight(&mut world, 0, round);
        let old = world.guests.remove(0);
        world.host.destroy_domain(old.vif.frontend);
        world.settle();
        world.toolstack.begin_detach(&old.vif);
        world.settle();
        assert_eq!(world.toolstack.states(&old.vif).1, None, "our directory is there");
        assert_eq!(world.backend.domain.mappings(), 0);
        world.toolstack.remove_vif(&old.vif);
        world.add(frontend);
        world.connect(0);
    }
    both_ways(&mut world, 0, 9, 2);
    assert_eq!(world.host.violations_of(BACK), []);
}

/// Its kernel crashes in the middle of traffic and another boots in the same domain, who finds the vif as it was left.
pub fn comes_anew(frontend: &'static Frontend) {
    let mut world = World::with(frontend);
    for round in 0..3 {
        both_ways(&mut world, 0, round, 2);
        leave_in_flight(&mut world, 0, round);
        world.guest().reboot(frontend);
        world.pass(Duration::from_secs(3));
        world.expect_connected(0);
        assert_eq!(world.backend.domain.mappings(), 2);
        world.backend.received.clear();
    }
    both_ways(&mut world, 0, 9, 2);
    assert_eq!(world.host.violations_of(BACK), []);
}

/// Paused for a minute (or its suspend cancelled) while there is traffic for it: what it had pages for it gets, what it
/// had none for is lost and counted, and then all goes on.
pub fn sleeps_and_wakes(frontend: &'static Frontend) {
    let mut world = World::with(frontend);
    both_ways(&mut world, 0, 1, 1);
    let id = world.guest().id();
    let (posted, before) = (world.guest().queues[0].posted(), counters(&world));
    let mut rng = fastrand::Rng::with_seed(1);
    let all: Vec<_> = (0..400).map(|seed| noise(seed, 100)).collect();
    let mut refused = 0;
    for (number, frame) in all.iter().enumerate() {
        let packet = packet(&world, frame, &mut rng);
        refused += u64::from(world.backend.deliver(id, packet).is_err());
        if number % 50 == 49 {
            while world.backend.turn() {}
            // Only our side lives.
            let until = world.host.now() + Duration::from_secs(8);
            while let Some(at) = world.backend.next_deadline().filter(|at| *at < until) {
                world.host.advance_to(at.max(Instant(world.host.now().0 + 1)));
                while world.backend.turn() {}
            }
            world.host.advance_to(until);
        }
    }
    world.settle();
    let now = counters(&world);
    let lost = now.to_drops.total() - before.to_drops.total();
    assert!(refused <= lost, "each is counted");
    let got: Vec<_> = world.guest().received.drain(..).map(|packet| packet.bytes).collect();
    assert_eq!(got.len() as u64, 400 - lost);
    assert!(got.len() >= posted.min(256), "{} of {posted}", got.len());
    // The first of them, in order.
    for (got, sent) in got.iter().zip(&all).take(posted) {
        assert!(*got == sent.bytes, "a packet has changed");
    }
    world.settle();
    both_ways(&mut world, 0, 2, 2);
    assert_eq!(world.host.violations(), []);
}

fn counters(world: &World) -> xen_netfront::netback::Counters {
    *world.backend.vif(world.guests[0].id()).expect("a vif that is served").counters()
}

/// Keys that it writes again as they are, and such that mean nothing to us, change nothing.
pub fn writes_its_keys_again(frontend: &'static Frontend) {
    let mut world = World::with(frontend);
    let keys = [
        "tx-ring-ref",
        "rx-ring-ref",
        "event-channel",
        "event-channel-tx",
        "event-channel-rx",
        "request-rx-copy",
        "feature-rx-notify",
        "feature-sg",
        "feature-gso-tcpv4",
    ];
    let before = counters(&world).connects;
    for key in keys {
        if let Some(value) = world.guest().key(key) {
            world.guest().set(key, &value);
        }
    }
    for (key, value) in [("vifname", "xn7"), ("disconnect", "0"), ("speed", "10 G"), ("x", "")] {
        world.guest().set(key, value);
    }
    say_connected(&mut world, 0);
    both_ways(&mut world, 0, 2, 2);
    assert_eq!(counters(&world).connects, before);
    assert_eq!(world.host.violations(), []);
}

/// States it again, as one does who has reconfigured something.
pub fn say_connected(world: &mut World, number: usize) {
    world.guests[number].set("state", "4");
    world.pass(Duration::from_secs(2));
    world.expect_connected(number);
}

/// Keys of features that it rewrites while it is connected are for the next connection: this one goes on.
pub fn changes_features_while_connected(frontend: &'static Frontend) {
    let changes = [
        ("request-multicast-control", "1"),
        ("request-multicast-control", "0"),
        ("feature-gso-tcpv4", "0"),
        ("feature-ipv6-csum-offload", "0"),
        ("feature-no-csum-offload", "1"),
        ("feature-rx-notify", "1"),
    ];
    let mut world = World::with(frontend);
    for (key, value) in changes {
        world.guest().set(key, value);
        say_connected(&mut world, 0);
        let mut rng = fastrand::Rng::with_seed(1);
        send(&mut world, 0, &[noise(1, 100), noise(2, 1500)]);
        deliver(&mut world, 0, &[noise(3, 100), noise(4, 1500)], &mut rng);
    }
    assert_eq!(world.host.violations(), []);
}

/// Goes from a closed vif straight to connected, without a word in between.
pub fn connects_to_a_closed_backend(frontend: &'static Frontend) {
    let mut world = World::with(frontend);
    world.guest().close();
    world.settle();
    world.guest().set("state", &CLOSED.to_string());
    world.pass(Duration::from_secs(2));
    assert_eq!(world.toolstack.states(&world.guests[0].vif).1, Some(CLOSED));
    world.guest().connect();
    world.pass(Duration::from_secs(3));
    assert_eq!(world.guest().backend_state(), CONNECTED);
    world.expect_connected(0);
    both_ways(&mut world, 0, 1, 1);
}
