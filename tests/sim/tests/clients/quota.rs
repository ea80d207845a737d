//! How many clients xenstored's quotas have room for, and what becomes of the others.

use std::time::Duration;

use packet_views::features::Features;
use xen_netfront::netback::Config;
use xen_sim::{Host, Quota, Vif};

use super::World;
use super::raw_client::{self, Client};

const MS: Duration = Duration::from_millis(1);

/// As a switch or a firewall has it: it takes everything.
fn config() -> Config {
    Config::default().with_features(Features::ALL)
}

fn served(world: &World, vifs: &[Vif]) -> usize {
    vifs.iter().filter(|vif| world.toolstack.states(vif).1 == Some(2)).count()
}

/// xenstored allows a domain 1000 nodes: 18 for each client, and those that the domain has besides.
#[test]
fn n2_as_many_clients_as_the_default_quota_has_room_for() {
    let mut world = World::new(config());
    let own = world.back.store().owned_nodes();
    let expected = config().clients_within(1000 - own, 128);
    assert_eq!((config().nodes_per_client(), expected), (18, 54));
    let mut vifs: Vec<_> = (0..expected as u16).map(|number| world.add(number)).collect();
    world.run(10_000 * MS);
    assert_eq!(served(&world, &vifs), expected);
    // Those that are too many take nothing from those that are served, and wait.
    vifs.extend((expected as u16..64).map(|number| world.add(number)));
    world.run(10_000 * MS);
    let count = served(&world, &vifs);
    assert!((expected..64).contains(&count), "{count}");
    assert_eq!(world.clients.len(), 64);
    // Each of those that are served can connect, and be at fault: that takes no node more.
    let mut connected = 0;
    let some = vifs.iter().filter(|vif| world.toolstack.states(vif).1 == Some(2)).take(20);
    for vif in some.cloned().collect::<Vec<_>>().iter() {
        let mut client = Client::new(&world.host, vif, 0);
        client.publish(&raw_client::Features::default());
        world.run(10 * MS);
        connected += usize::from(world.is_connected(vif));
        client.set_state(6);
    }
    assert_eq!(connected, 20);
    world.run(10 * MS);

    // As soon as some go, others are served.
    for vif in &vifs[..20] {
        world.toolstack.begin_detach(vif);
    }
    world.run(6_000 * MS);
    assert!(vifs[..20].iter().all(|vif| world.toolstack.detached(vif)));
    assert_eq!(served(&world, &vifs), 44, "all that are there");
}

/// With the quota raised: 64 of them, all at once, and as many watches as it takes.
#[test]
fn n2_sixty_four_clients_with_the_quota_raised() {
    let host = Host::new(1);
    host.set_store_quota(Quota { nodes: 2500, ..Quota::default() });
    let mut world = World::on(host, config());
    let before = (world.back.store().owned_nodes(), world.back.store().watches());
    let vifs: Vec<_> = (0..64).map(|number| world.add(number)).collect();
    let begun = world.host.now();
    world.run(3_000 * MS);
    assert_eq!(served(&world, &vifs), 64, "three seconds after {begun:?}");
    let mut guests: Vec<_> = vifs.iter().map(|vif| Client::new(&world.host, vif, 0)).collect();
    guests.iter_mut().for_each(|client| client.publish(&raw_client::Features::default()));
    world.run(3_000 * MS);
    assert!(vifs.iter().all(|vif| world.is_connected(vif)));
    let (nodes, watches) = (world.back.store().owned_nodes(), world.back.store().watches());
    assert_eq!(watches - before.1, 64, "one each, and the collection's");
    let each = (nodes - before.0).div_ceil(64);
    assert!(each <= config().nodes_per_client(), "{each} nodes a client");
    for (number, client) in guests.iter_mut().enumerate() {
        client.send(&[(number % 32, 0, 100)]);
    }
    world.run(MS);
    assert_eq!(world.received.len(), 64);
    for vif in &vifs {
        world.toolstack.begin_detach(vif);
    }
    world.run(3_000 * MS);
    assert!(vifs.iter().all(|vif| world.toolstack.detached(vif)));
    vifs.iter().for_each(|vif| world.toolstack.remove_vif(vif));
    assert_eq!((world.back.store().owned_nodes(), world.back.store().watches()), before);
}

/// Watches run out before nodes do: those that have one are served.
#[test]
fn n2_watches_run_out_for_one_client_at_a_time() {
    let host = Host::new(1);
    host.set_store_quota(Quota { watches: 10, ..Quota::default() });
    let mut world = World::on(host, config());
    let vifs: Vec<_> = (0..16).map(|number| world.add(number)).collect();
    world.run(20_000 * MS);
    assert_eq!(served(&world, &vifs), 9, "one watch is the collection's");
    assert_eq!(config().clients_within(10_000, 10), 9);
    world.toolstack.begin_detach(&vifs[0]);
    world.run(6_000 * MS);
    assert_eq!(served(&world, &vifs), 9, "another one in its place");
}

/// The budget is for so many, and those that are too many wait for one to go.
#[test]
fn n2_a_vif_beyond_the_budget_is_served_when_another_goes() {
    let mut world = World::with_budget(config(), 3);
    let vifs: Vec<_> = (0..5).map(|number| world.add(number)).collect();
    world.run(100 * MS);
    assert_eq!((served(&world, &vifs), world.clients.refused()), (3, 2));
    let mut client = Client::new(&world.host, &vifs[0], 0);
    client.publish(&raw_client::Features::default());
    world.run(100 * MS);
    assert!(world.is_connected(&vifs[0]));
    for gone in 0..2 {
        world.toolstack.begin_detach(&vifs[gone]);
        world.run(100 * MS);
        assert!(world.toolstack.detached(&vifs[gone]));
        assert_eq!(served(&world, &vifs), 3, "another one in its place");
    }
    // One that is refused holds up no shutdown.
    let late = world.add(9);
    world.run(100 * MS);
    assert_eq!(world.toolstack.states(&late).1, Some(1));
    world.clients.close();
    world.run(3000 * MS);
    assert!(world.clients.is_closed());
}
