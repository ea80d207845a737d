//! Who does work, and how much: nobody without an event.

use std::time::Duration;

use xen_netfront::buffer::{BufMut, PacketMut};
use xen_netfront::netback::Config;
use xen_sim::Counts;

use super::World;
use super::raw_client::{Client, Features};

const MS: Duration = Duration::from_millis(1);

#[test]
fn idle_clients_cost_nothing() {
    let mut world = World::new(Config::default());
    let mut guests: Vec<_> = (0..20).map(|number| world.add_client(number)).collect();
    world.run(100 * MS);
    assert_eq!(world.clients.next_deadline(), None);
    let before = world.back.counts();
    for _ in 0..1000 {
        assert!(!world.turn());
    }
    assert_eq!(world.back.counts() - before, Counts::default());

    // One sends, and nobody else is looked at.
    let (_, client) = &mut guests[7];
    client.send(&[(0, 0, 100)]);
    world.run(MS);
    let counts = world.back.counts() - before;
    assert_eq!((counts.copies, counts.store_calls, world.received.len()), (1, 0, 1));
}

/// A client that answers each state of ours at once, for ten seconds: what it costs is what one client may
/// have asked, however many others there are, and nothing is listed for it.
#[test]
fn n3_one_clients_reconnects_cost_what_one_client_may() {
    let mut world = World::new(Config::default());
    let vifs: Vec<_> = (0..40).map(|number| world.add(number)).collect();
    world.run(1000 * MS);
    let bad = world.host.domain(vifs[0].frontend).unwrap();
    let state = format!("{}/state", vifs[0].front_dir());
    let before = world.back.counts().store_calls;
    for _ in 0..100_000 {
        let next = match world.toolstack.states(&vifs[0]).1 {
            Some(2) => "5",
            Some(5) => "6",
            Some(6) => "1",
            _ => "5",
        };
        bad.store().set(&state, next);
        world.turn();
        world.host.advance(Duration::from_micros(100));
    }
    let asked = world.back.counts().store_calls - before;
    assert!((4_000..=5_600).contains(&asked), "{asked} requests in ten seconds");
}

/// While forty others connect, packets go through in the turn in which they come.
#[test]
fn n3_xenstore_never_holds_up_packets() {
    let mut world = World::new(Config::default());
    world.echoes = true;
    let (_, mut client) = world.add_client(0);
    client.post(200);
    let others: Vec<_> = (1..=40).map(|number| world.add(number)).collect();
    let mut peers = Vec::new();
    for turn in 0..400 {
        if turn == 100 {
            peers.extend(others.iter().map(|vif| Client::new(&world.host, vif, 0)));
            peers.iter_mut().for_each(|peer| peer.publish(&Features::default()));
        }
        let (before, sent) = (world.received.len(), turn < 200);
        if sent {
            client.send(&[(0, 0, 100)]);
        }
        // It asserts that no more than 44 requests are made.
        world.turn();
        assert_eq!(world.received.len(), before + usize::from(sent), "turn {turn}");
        assert_eq!(client.receive().len(), usize::from(sent), "turn {turn}");
        client.answers();
        world.host.advance(100 * Duration::from_micros(1));
    }
    world.run(1000 * MS);
    assert!(others.iter().all(|vif| world.is_connected(vif)));
}

#[test]
fn n4_clients_whose_packets_nobody_takes_wake_nobody_and_lose_nothing() {
    let mut world = World::new(Config::default());
    let (first, mut one) = world.add_client(0);
    let (_, mut other) = world.add_client(1);
    world.clients.pause_receive(true);
    for _ in 0..20 {
        one.send(&[(0, 0, 100)]);
        other.send(&[(1, 0, 100)]);
        world.run(MS);
    }
    assert!(!world.turn());
    assert_eq!((world.received.len(), world.clients.next_deadline()), (0, None));
    // The other way goes on.
    let mut packet = BufMut::new(world.pool.take().unwrap(), 0);
    packet.append(60).unwrap().fill(7);
    let id = world.id(&first).unwrap();
    world.clients.deliver(id, PacketMut::from(packet).freeze()).unwrap();
    world.run(MS);
    one.post(1);
    one.show_posted();
    world.run(MS);
    assert_eq!(one.receive().len(), 1);

    world.clients.pause_receive(false);
    world.run(MS);
    assert_eq!(world.received.len(), 40);
}

/// The domain moves to another host: what it had of its clients is gone, and they connect anew.
#[test]
fn n8_a_backend_that_is_resumed_elsewhere_serves_its_clients_anew() {
    let mut world = World::new(Config::default());
    let mut guests: Vec<_> = (0..3).map(|number| world.add_client(number)).collect();
    guests[0].1.send(&[(0, 0, 100)]);
    world.back.migrate();
    world.clients.resumed();
    world.run(MS);
    assert_eq!((world.received.len(), world.back.mappings()), (0, 0));
    for (vif, client) in &mut guests {
        assert_eq!(world.toolstack.states(vif).1, Some(5));
        client.set_state(6);
        world.run(MS);
        client.set_state(1);
        world.run(MS);
        client.reset_rings();
        client.publish(&Features::default());
        world.run(10 * MS);
        assert!(world.is_connected(vif));
        client.send(&[(0, 0, 100)]);
    }
    world.run(MS);
    assert_eq!(world.received.len(), 3);
}
