//! Hostile clients, and sinks that call the collection that polls.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use xen_grant::FramePool;
use xen_netfront::buffer::{BufMut, Packet, PacketMut};
use xen_netfront::netback::{Budget, Clients, Config};
use xen_netfront::platform::Platform;
use xen_netfront::store::intercept::{Intercepted, Request};
use xen_netfront::store::{Store, StoreError};
use xen_sim::{Host, Quota, Vif};

use super::raw_client::{BACK, Client, Features};
use super::{World, guest};

const MS: Duration = Duration::from_millis(1);

fn packet(world: &World) -> Packet {
    let mut buf = BufMut::new(world.pool.take().unwrap(), 0);
    buf.append(60).unwrap().fill(7);
    PacketMut::from(buf).freeze()
}

/// Events to the collection, and then a turn with this sink.
fn turn_with(
    world: &mut World,
    mut sink: impl FnMut(&mut Clients<xen_sim::Domain, xen_sim::Domain>),
) {
    for port in world.back.take_pending() {
        world.clients.event(port);
    }
    world.clients.turn(64, |clients, _, _| sink(clients));
}

#[test]
fn a_sink_that_shuts_down_shuts_the_client_down_that_it_is_called_for() {
    let mut world = World::new(Config::default());
    let (vif, mut client) = world.add_client(0);
    let (other, _other) = world.add_client(1);
    client.send(&[(0, 0, 100)]);
    turn_with(&mut world, |clients| clients.close());
    world.run(5000 * MS);
    assert_eq!(world.toolstack.states(&other).1, Some(6));
    assert_eq!(world.toolstack.states(&vif).1, Some(6));
    assert!(world.clients.is_closed());
}

#[test]
fn a_sink_that_sets_the_carrier_tells_the_client_that_it_is_called_for() {
    let mut world = World::new(Config::default());
    let (vif, mut client) = world.add_client(0);
    client.send(&[(0, 0, 100)]);
    turn_with(&mut world, |clients| clients.set_carrier(false));
    world.run(100 * MS);
    let carrier = world.toolstack.store().get(&format!("{}/carrier", vif.back_dir()));
    assert_eq!(carrier.as_deref(), Some("0"));
}

/// What xenstore tells while a client is being polled is not lost.
#[test]
fn n1_a_detach_during_a_poll_is_seen() {
    let mut world = World::new(Config::default());
    let (vif, mut client) = world.add_client(0);
    client.send(&[(0, 0, 100)]);
    let toolstack = world.toolstack.clone();
    turn_with(&mut world, |clients| {
        toolstack.begin_detach(&vif);
        clients.service();
    });
    world.run(1000 * MS);
    assert!(world.toolstack.detached(&vif));
}

#[test]
fn a_sink_that_rearms_loses_no_event() {
    let mut world = World::new(Config::default());
    let (_, mut client) = world.add_client(0);
    client.send(&[(0, 0, 100)]);
    turn_with(&mut world, |clients| {
        let _again = clients.rearm();
    });
    world.run(100 * MS);
    client.answers();
    client.send(&[(0, 0, 100)]);
    world.run(100 * MS);
    assert_eq!(world.received.len(), 1, "the second one");
}

/// The uplink is full with the first packet: those of other clients stay where they are.
#[test]
fn n4_a_sink_that_pauses_gets_no_other_clients_packets() {
    let mut world = World::new(Config::default());
    let mut guests: Vec<_> = (0..5).map(|number| world.add_client(number)).collect();
    guests.iter_mut().for_each(|(_, client)| drop(client.send(&[(0, 0, 100)])));
    let mut got = 0;
    turn_with(&mut world, |clients| {
        got += 1;
        clients.pause_receive(true);
    });
    assert_eq!(got, 1, "packets after the first, of clients that had not had their turn");
    world.clients.pause_receive(false);
    world.run(MS);
    assert_eq!(world.received.len(), 4);
}

/// Events that are passed on between a turn and `rearm` count, paused or not.
#[test]
fn n4_a_page_that_is_posted_while_paused_is_used() {
    let mut world = World::new(Config::default());
    let (vif, mut client) = world.add_client(0);
    world.clients.pause_receive(true);
    world.clients.deliver(world.id(&vif).unwrap(), packet(&world)).unwrap();
    world.run(MS);
    // The loop of somebody who passes events on after his turn.
    world.clients.turn(64, |_, _, _| {});
    client.post(1);
    for port in world.back.take_pending() {
        world.clients.event(port);
    }
    let mut rounds = 0;
    while world.clients.rearm() {
        world.clients.turn(64, |_, _, _| {});
        rounds += 1;
        assert!(rounds < 10, "for ever");
    }
    assert_eq!(client.receive().len(), 1);
}

/// A deadline that comes between a turn and `rearm` is not lost.
#[test]
fn n5_a_stall_while_paused_is_acted_on() {
    let config = Config::default();
    let mut world = World::new(config);
    let (vif, _client) = world.add_client(0);
    world.clients.pause_receive(true);
    world.clients.deliver(world.id(&vif).unwrap(), packet(&world)).unwrap();
    world.run(MS);
    assert!(world.clients.next_deadline().is_some());
    world.host.advance(config.patience * 2);
    // Now is the time: whoever asks has to be told so.
    let due = |world: &mut World| {
        let now = world.back.now();
        world.clients.next_deadline().is_some_and(|at| at <= now)
    };
    assert!(due(&mut world));
    assert!(due(&mut world), "asked once more");
    world.run(MS);
    assert_eq!(world.pool.free(), world.pool.size(), "the packet is dropped");
}

/// A broken rule while xenstore's allowance is used up: nothing to do until it is not.
#[test]
fn b2_a_fault_does_not_keep_the_loop_turning() {
    let mut world = World::new(Config::default());
    let (_, client) = world.add_client(0);
    let others: Vec<_> = (1..=40).map(|number| world.add(number)).collect();
    for round in 0..600_u32 {
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
    }
    client.tx_page.words()[0].store(4000, Ordering::Relaxed);
    client.domain.notify(client.ports[0]);
    let mut rounds = 0;
    while world.turn() {
        rounds += 1;
        assert!(rounds < 200, "the loop turns while nothing can be done, and no time passes");
    }
}

/// A client that closes and never has closed does not keep us from shutting down.
#[test]
fn a_client_that_stays_closing_does_not_hold_up_a_shutdown() {
    for state in [1, 2, 3, 5, 7, 8, 0] {
        let mut world = World::new(Config::default());
        let (vif, client) = world.add_client(0);
        world.clients.close();
        world.run(MS);
        client.set_state(state);
        world.run(10_000 * MS);
        assert!(world.clients.is_closed(), "{state}: {:?}", world.toolstack.states(&vif));
    }
}

/// A vif that there is no room for is detached as fast as any.
#[test]
fn n1_a_vif_that_quota_has_no_room_for_is_detached_within_a_second() {
    let host = Host::new(1);
    host.set_store_quota(Quota { watches: 4, ..Quota::default() });
    let mut world = World::on(host, Config::default());
    let vifs: Vec<_> = (0..6).map(|number| world.add(number)).collect();
    world.run(7_000 * MS);
    let refused: Vec<_> =
        vifs.iter().filter(|vif| world.toolstack.states(vif).1 != Some(2)).collect();
    assert!(!refused.is_empty());
    for vif in refused {
        world.toolstack.begin_detach(vif);
        world.run(1000 * MS);
        assert!(world.toolstack.detached(vif), "{:?}", world.toolstack.states(vif));
    }
}

/// The same with nodes.
#[test]
fn n1_a_vif_whose_nodes_have_no_room_is_detached_within_a_second() {
    let host = Host::new(1);
    host.set_store_quota(Quota { nodes: 60, ..Quota::default() });
    let mut world = World::on(host, Config::default());
    let vifs: Vec<_> = (0..6).map(|number| world.add(number)).collect();
    world.run(7_000 * MS);
    let refused: Vec<_> =
        vifs.iter().filter(|vif| world.toolstack.states(vif).1 != Some(2)).collect();
    assert!(!refused.is_empty());
    for vif in refused {
        world.toolstack.begin_detach(vif);
        world.run(1000 * MS);
        assert!(world.toolstack.detached(vif), "{:?}", world.toolstack.states(vif));
    }
}

/// A request that fails once is made again.
#[test]
fn n6_an_mtu_that_could_not_be_written_once_is_written() {
    let host = Host::new(1);
    let back = host.add_domain(BACK, 10_000);
    let pool = FramePool::new(&back, 2048).unwrap();
    let budget = Budget::dividing(pool.size(), 8).unwrap();
    let failures = Arc::new(AtomicU32::new(1));
    let by = move |request: Request<'_>| match request {
        Request::Write(path)
            if path.ends_with("/mtu")
                && failures
                    .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
                    .is_ok() =>
        {
            Err(StoreError::Again)
        }
        _ => Ok(()),
    };
    let store = Intercepted { store: back.clone(), by };
    let mut clients =
        Clients::open(back.clone(), store, &pool, &budget, Config::default()).unwrap();
    host.add_domain(guest(0), 400);
    let vif = Vif::new(guest(0), BACK, 0).back_key("mtu", "1400");
    host.toolstack().add_vif(&vif);
    for _ in 0..200 {
        clients.turn(64, |_, _, _| {});
        let _again = clients.rearm();
        host.advance(10 * MS);
    }
    assert_eq!(host.toolstack().states(&vif).1, Some(2));
    let own = host.domain(guest(0)).unwrap();
    assert_eq!(own.read(None, &format!("{}/mtu", vif.front_dir())).unwrap(), b"1400");
}

/// With as many hostile neighbours as the collection is meant for.
#[test]
fn n1_a_detach_beside_sixty_three_that_write_all_the_time() {
    let host = Host::new(1);
    host.set_store_quota(Quota { nodes: 2500, ..Quota::default() });
    let mut world = World::on(host, Config::default());
    let (vif, _client) = world.add_client(0);
    let others: Vec<_> = (1..=63).map(|number| world.add(number)).collect();
    let flap = |world: &mut World| {
        for other in &others {
            let next = match world.toolstack.states(other).1 {
                Some(2) => "5",
                Some(5) => "6",
                Some(6) => "1",
                _ => "5",
            };
            let domain = world.host.domain(other.frontend).unwrap();
            domain.store().set(&format!("{}/state", other.front_dir()), next);
        }
        world.turn();
        world.host.advance(MS);
    };
    for _ in 0..3000 {
        flap(&mut world);
    }
    let begun = world.host.now();
    world.toolstack.begin_detach(&vif);
    while !world.toolstack.detached(&vif) {
        flap(&mut world);
        assert!(world.host.now().since(begun) < 3000 * MS, "three seconds");
    }
    let took = world.host.now().since(begun);
    assert!(took < 1000 * MS, "{took:?}");
}

/// A frontend, its directory and its domain gone in the middle of everything: frames and nodes come back.
#[test]
fn b11_vifs_made_and_removed_by_the_hundred_leave_nothing() {
    let mut world = World::new(Config::default());
    for round in 0..100_u32 {
        let number = (round % 7) as u16;
        let vif = world.add(number);
        for _ in 0..round % 11 {
            world.turn();
        }
        let mut client = Client::new(&world.host, &vif, 0);
        client.publish(&Features::default());
        for _ in 0..round % 5 {
            world.turn();
        }
        if round % 3 == 0 {
            world.host.destroy_domain(vif.frontend);
        }
        if round % 2 == 0 {
            world.toolstack.remove_vif(&vif);
        } else {
            world.toolstack.begin_detach(&vif);
        }
        world.run(1500 * MS);
        world.toolstack.remove_vif(&vif);
        world.run(MS);
        assert_eq!((world.clients.len(), world.back.mappings()), (0, 0), "round {round}");
        assert!(world.back.open_ports().is_empty(), "round {round}");
        if round % 3 != 0 {
            drop(client);
            world.host.destroy_domain(vif.frontend);
        }
    }
}

/// A vif beyond what the budget is for is not served, but nobody else answers its toolstack.
#[test]
fn n1_a_vif_that_was_refused_is_detached_within_a_second() {
    let host = Host::new(1);
    let back = host.add_domain(BACK, 10_000);
    let pool = FramePool::new(&back, 2048).unwrap();
    let budget = Budget::new(pool.size(), 2, 18, 100).unwrap();
    let config = Config::default();
    let mut clients = Clients::open(back.clone(), back.clone(), &pool, &budget, config).unwrap();
    let vifs: Vec<_> = (0..3).map(|number| Vif::new(guest(number), BACK, 0)).collect();
    let mut run = |rounds: u32| {
        for _ in 0..rounds {
            clients.turn(64, |_, _, _| {});
            let _again = clients.rearm();
            host.advance(10 * MS);
        }
    };
    for vif in &vifs {
        host.add_domain(vif.frontend, 400);
        host.toolstack().add_vif(vif);
        run(10);
    }
    assert_eq!(host.toolstack().states(&vifs[2]).1, Some(1), "refused");
    host.toolstack().begin_detach(&vifs[2]);
    run(100);
    assert!(host.toolstack().detached(&vifs[2]), "{:?}", host.toolstack().states(&vifs[2]));
}

/// We shut down, or are moved, at every moment of a connection.
#[test]
fn n8_a_shutdown_or_a_move_at_any_moment_of_a_connection() {
    for turns in 0..25 {
        for is_moved in [false, true] {
            let mut world = World::new(Config::default());
            let vif = world.add(0);
            world.run(10 * MS);
            let mut client = Client::new(&world.host, &vif, 0);
            client.publish(&Features::default());
            for _ in 0..turns {
                world.turn();
            }
            if is_moved {
                world.back.migrate();
                world.clients.resumed();
                world.run(2000 * MS);
                // As a frontend does that sees its backend close.
                if world.toolstack.states(&vif).1 == Some(5) {
                    client.set_state(6);
                    world.run(100 * MS);
                    client.set_state(1);
                    world.run(1000 * MS);
                    client.reset_rings();
                    client.publish(&Features::default());
                    world.run(1000 * MS);
                }
            } else {
                world.clients.close();
                world.run(3000 * MS);
                assert!(world.clients.is_closed(), "{turns}");
                assert_eq!((world.back.mappings(), world.back.open_ports()), (0, vec![]));
                continue;
            }
            let states = world.toolstack.states(&vif);
            assert!(world.is_connected(&vif), "{turns}: {states:?}");
        }
    }
}

/// Whatever happens to clients that packets wait for, the shared part is whole again afterwards.
#[test]
fn b7_what_a_client_had_drawn_is_free_when_it_goes() {
    for end in 0..6 {
        let host = Host::new(1);
        host.add_domain(guest(0), 900);
        let back = host.add_domain(BACK, 10_000);
        let pool = FramePool::new(&back, 4096).unwrap();
        let budget = Budget::new(pool.size(), 4, 18, 1000).unwrap();
        let config = Config::default().with_max_queues(2).with_queue_packets(800);
        let mut clients =
            Clients::open(back.clone(), back.clone(), &pool, &budget, config).unwrap();
        let vif = Vif::new(guest(0), BACK, 0);
        host.toolstack().add_vif(&vif);
        let run = |clients: &mut Clients<_, _>, time: Duration| {
            let until = host.now() + time;
            while host.now() < until {
                clients.turn(64, |_, _, _| {});
                let _again = clients.rearm();
                host.advance(MS);
            }
        };
        run(&mut clients, 10 * MS);
        let mut queues = [Client::new(&host, &vif, 0), Client::new(&host, &vif, 0)];
        Client::publish_all(&mut queues, &Features::default());
        run(&mut clients, 10 * MS);
        let id = clients.find((guest(0), 0)).unwrap();
        assert_eq!(clients.vif(id).unwrap().queues(), 2);
        let mut taken = 0;
        for number in 0..1200_usize {
            let mut buf = BufMut::new(pool.take().unwrap(), 0);
            let bytes = buf.append(60).unwrap();
            bytes.fill(0);
            // IPv4, UDP, and a flow of its own.
            bytes[12..15].copy_from_slice(&[8, 0, 0x45]);
            bytes[16..18].copy_from_slice(&46_u16.to_be_bytes());
            bytes[23] = 17;
            bytes[34..36].copy_from_slice(&(number as u16).to_be_bytes());
            taken += usize::from(clients.deliver(id, PacketMut::from(buf).freeze()).is_ok());
        }
        assert!((300..600).contains(&taken), "{taken}");
        assert!(budget.free() < 700);
        match end {
            0 => queues[0].set_state(5),
            1 => {
                queues[1].tx_page.words()[0].store(4000, Ordering::Relaxed);
                queues[1].domain.notify(queues[1].ports[0]);
            }
            2 => host.toolstack().begin_detach(&vif),
            3 => clients.resumed(),
            4 => host.toolstack().remove_vif(&vif),
            _ => clients.close(),
        }
        run(&mut clients, 20 * MS);
        assert_eq!((budget.free(), pool.free()), (1000, pool.size()), "{end}");
    }
}
