//! Vifs come, go, and come back.

use std::time::Duration;

use xen_netfront::netback::{ClientChange, Config};
use xen_netfront::platform::Platform;
use xen_netfront::store::Store;
use xen_sim::Vif;

use super::raw_client::{Client, Features};
use super::{World, guest};

const MS: Duration = Duration::from_millis(1);

#[test]
fn clients_come_and_go_and_their_packets_with_them() {
    let mut world = World::new(Config::default());
    world.echoes = true;
    let mut guests: Vec<_> = (0..3).map(|number| world.add_client(number)).collect();
    for (number, (_, client)) in guests.iter_mut().enumerate() {
        client.post(20);
        for _ in 0..=number {
            client.send(&[(number, 0, 100)]);
        }
    }
    world.run(MS);
    for (number, (vif, client)) in guests.iter_mut().enumerate() {
        let count = number + 1;
        let from = world.received.iter().filter(|(id, _)| id.0 == vif.frontend).count();
        assert_eq!((from, client.receive().len(), client.answers().len()), (count, count, count));
    }
    // One is taken away, and the others do not notice.
    let id = world.id(&guests[1].0).unwrap();
    world.toolstack.begin_detach(&guests[1].0);
    world.run(MS);
    assert!(world.toolstack.detached(&guests[1].0));
    assert_eq!((world.clients.len(), world.clients.vif(id).is_none()), (2, true));
    let mut changes = Vec::new();
    while let Some((client, change)) = world.clients.next_change() {
        changes.push((client == id, change));
    }
    let came = |is_it| [(is_it, ClientChange::Appeared), (is_it, ClientChange::Connected)];
    assert_eq!(changes[..6], [came(false), came(true), came(false)].concat());
    assert_eq!(changes[6], (true, ClientChange::Disconnected));
    match &changes[7..] {
        [(true, ClientChange::Gone { vif, counters })] => {
            assert_eq!(*vif, (guest(1), 0));
            assert_eq!((counters.from_packets, counters.to_packets), (2, 2));
        }
        other => panic!("{other:?}"),
    }
    guests[0].1.send(&[(0, 0, 100)]);
    world.run(MS);
    assert_eq!(guests[0].1.receive().len(), 1);
}

/// A vif is forced away and made again, at every moment between two turns.
#[test]
fn n1_a_vif_that_leaves_and_returns_has_one_owner() {
    for turns in 0..30 {
        let mut world = World::new(Config::default());
        let vif = world.add(0);
        for _ in 0..turns {
            world.turn();
        }
        let before = world.id(&vif);
        world.toolstack.remove_vif(&vif);
        world.toolstack.add_vif(&vif);
        world.run(MS);
        assert_eq!(world.clients.len(), 1, "after {turns} turns");
        assert_eq!(world.toolstack.states(&vif), (Some(1), Some(2)), "after {turns} turns");
        let mut client = Client::new(&world.host, &vif, 0);
        client.publish(&Features::default());
        world.run(MS);
        assert!(world.is_connected(&vif), "after {turns} turns, {before:?}");
        assert_eq!(world.back.mappings(), 2);
    }
}

/// The same, while its client has used up its allowance.
#[test]
fn n1_a_client_that_rests_has_one_owner_too() {
    let mut world = World::new(Config::default());
    let vif = world.add(0);
    let store = world.host.domain(guest(0)).unwrap();
    let state = format!("{}/state", vif.front_dir());
    for round in 0..2000 {
        store.store().set(&state, if round % 2 == 0 { "5" } else { "1" });
        world.turn();
        world.host.advance(Duration::from_micros(10));
    }
    let asked = world.back.counts().store_calls;
    assert!((300..1000).contains(&asked), "{asked}: it rests");
    world.toolstack.remove_vif(&vif);
    world.turn();
    world.toolstack.add_vif(&vif);
    world.run(1000 * MS);
    assert_eq!(world.clients.len(), 1);
    let mut client = Client::new(&world.host, &vif, 0);
    client.publish(&Features::default());
    world.run(100 * MS);
    assert!(world.is_connected(&vif));
    assert_eq!(world.back.mappings(), 2);
}

/// From `state` 5 to the directory gone, beside clients that write all the time.
#[test]
fn n1_a_detach_takes_less_than_a_second_whatever_the_others_do() {
    for hostile in [0, 1, 10, 40] {
        let mut world = World::new(Config::default());
        let (vif, _client) = world.add_client(0);
        let others: Vec<_> = (1..=hostile).map(|number| world.add(number)).collect();
        let flap = |world: &mut World, round: u32| {
            for other in &others {
                let next = match world.toolstack.states(other).1 {
                    Some(2) => "5",
                    Some(5) => "6",
                    _ if round.is_multiple_of(3) => "5",
                    _ => "1",
                };
                let domain = world.host.domain(other.frontend).unwrap();
                domain.store().set(&format!("{}/state", other.front_dir()), next);
            }
            world.turn();
            world.host.advance(MS);
        };
        for round in 0..500 {
            flap(&mut world, round);
        }
        let begun = world.host.now();
        world.toolstack.begin_detach(&vif);
        let mut round = 0;
        while !world.toolstack.detached(&vif) {
            flap(&mut world, round);
            round += 1;
            assert!(world.host.now().since(begun) < 1000 * MS, "{hostile} others");
        }
        assert!(world.host.toolstack().store().get(&format!("{}/state", vif.back_dir())).is_none());
    }
}

#[test]
fn a_backend_that_shuts_down_leaves_every_client_closed() {
    let mut world = World::new(Config::default());
    let guests: Vec<_> = (0..5).map(|number| world.add_client(number)).collect();
    // One goes along, the others do not.
    world.clients.close();
    assert!(!world.clients.is_closed());
    world.run(10 * MS);
    guests[0].1.set_state(6);
    world.run(2000 * MS);
    assert!(world.clients.is_closed());
    assert_eq!((world.back.mappings(), world.back.open_ports()), (0, vec![]));
    for (vif, _) in &guests {
        assert_eq!(world.toolstack.states(vif).1, Some(6));
    }
    // Nobody new is served, and nobody connects again.
    let late = world.add(9);
    guests[0].1.set_state(1);
    world.run(1000 * MS);
    assert_eq!(world.toolstack.states(&late).1, Some(1));
    assert_eq!(world.toolstack.states(&guests[0].0).1, Some(6));
}

#[test]
fn clients_are_told_of_a_carrier_that_was_set_before_they_came() {
    let mut world = World::new(Config::default());
    let (first, _client) = world.add_client(0);
    let carrier = |world: &World, vif: &Vif| {
        world.toolstack.store().get(&format!("{}/carrier", vif.back_dir()))
    };
    assert_eq!(carrier(&world, &first), None);
    world.clients.set_carrier(false);
    let second = world.add(1);
    world.run(MS);
    let both = [carrier(&world, &first), carrier(&world, &second)];
    assert_eq!(both, [Some("0".into()), Some("0".into())]);
}

/// What the toolstack says is there for whoever serves, and the client's own MTU is written.
#[test]
fn what_the_toolstack_says_is_readable_and_the_mtu_is_passed_on() {
    let mut world = World::new(Config::default());
    world.host.add_domain(guest(0), 400);
    let vif = Vif::new(guest(0), super::BACK, 0)
        .back_key("mtu", "1400")
        .back_key("ip", "10.0.0.2")
        .back_key("rate", "10000,50000");
    world.toolstack.add_vif(&vif);
    world.run(MS);
    let seen = world.clients.vif(world.id(&vif).unwrap()).unwrap();
    assert_eq!((seen.spec().ip.as_deref(), seen.mtu()), (Some("10.0.0.2"), 1400));
    assert_eq!(seen.spec().script.as_deref(), Some("/etc/xen/scripts/vif-bridge"));
    assert_eq!(seen.spec().rate.map(|rate| rate.bytes), Some(10_000));
    let own = world.host.domain(guest(0)).unwrap();
    assert_eq!(own.read(None, &format!("{}/mtu", vif.front_dir())).unwrap(), b"1400");
}

/// A watch event's places may be lost in many: all is looked at, a part at a time.
#[test]
fn more_vifs_at_once_than_a_watch_remembers_are_all_served() {
    let mut world = World::new(Config::default());
    let quota = xen_sim::Quota { nodes: 20_000, watches: 1000, ..Default::default() };
    world.host.set_store_quota(quota);
    world.host.add_domain(guest(0), 400);
    let vifs: Vec<_> = (0..300).map(|index| Vif::new(guest(0), super::BACK, index)).collect();
    vifs.iter().for_each(|vif| world.toolstack.add_vif(vif));
    world.run(20_000 * MS);
    let served = vifs.iter().filter(|vif| world.toolstack.states(vif).1 == Some(2)).count();
    assert_eq!((served, world.clients.len()), (256, 256));
    assert!(world.clients.refused() >= 44);
    // When some go others have room.
    for vif in &vifs[..50] {
        world.toolstack.begin_detach(vif);
    }
    world.run(5_000 * MS);
    for vif in &vifs[256..] {
        world.toolstack.hotplug(vif);
    }
    world.run(5_000 * MS);
    assert_eq!(world.clients.len(), 250);
    assert!(world.back.now().0 > 0);
}
