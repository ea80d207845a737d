//! A Windows guest and its stub domain: two vifs with one address. The stub domain's serves the emulated card until the
//! guest's own drivers take over; then it only stays there.

use std::time::Duration;

use xen_grant::DomId;
use xen_netfront::platform::Platform;
use xen_sim::Vif;

use super::linux::LINUX;
use super::minios::MINIOS;
use super::raw_client::BACK;
use super::script::{Frontend, INIT_WAIT};
use super::traffic::{both_ways, deliver, noise};
use super::windows::WINDOWS;
use super::world::{World, config};

const MAC: [u8; 6] = [0x00, 0x16, 0x3e, 1, 2, 3];
const IP: &str = "10.137.0.9";

fn vif(id: u16, kind: &str) -> Vif {
    let vif = Vif::new(DomId(id), BACK, 0).mac(MAC);
    vif.back_key("ip", IP).back_key("type", kind).back_key("script", "vif-route-qubes")
}

/// The guest is 7, its stub domain 8.
fn twins(stub: &'static Frontend) -> World {
    let mut world = World::new(config());
    for (id, frontend, kind) in [(7, &WINDOWS, "vif_ioemu"), (8, stub, "vif")] {
        world.host.add_domain(DomId(id), 8192);
        world.attach(frontend, vif(id, kind));
    }
    world.settle();
    world
}

/// The stub domain's is connected while the guest boots, and the guest's waits for as long as that takes; then the
/// guest's takes over, and the other one falls silent with all its pages full.
#[test]
fn frontend_windows_takes_over_from_its_stub_domain() {
    for stub in [&MINIOS, &LINUX] {
        let mut world = twins(stub);
        world.connect(1);
        both_ways(&mut world, 1, 1, 2);
        // Booting.
        world.pass(Duration::from_secs(60));
        assert_eq!(world.guests[0].backend_state(), INIT_WAIT);
        both_ways(&mut world, 1, 2, 2);
        world.connect(0);
        both_ways(&mut world, 0, 3, 2);
        for number in [0, 1] {
            let vif = world.backend.vif(world.guests[number].id()).unwrap();
            assert_eq!(vif.client_mac(), Some(MAC));
        }
        // The emulated card is unplugged: nobody reads there any more. Packets for the address go to both.
        world.guests[1].hang();
        let mut rng = fastrand::Rng::with_seed(1);
        for round in 0..40 {
            let (silent, now) = (world.guests[1].id(), world.backend.domain.now());
            for seed in 0..10 {
                let frame = noise(round * 10 + seed, 300);
                let packet = super::traffic::packet(&world, &frame, &mut rng);
                // Refused once it is full for too long.
                let _ = world.backend.deliver(silent, packet);
                deliver(&mut world, 0, &[frame], &mut rng);
            }
            assert!(world.host.now() == now);
            world.pass(Duration::from_secs(1));
        }
        both_ways(&mut world, 0, 4, 2);
        let silent = world.backend.vif(world.guests[1].id()).unwrap();
        assert!(silent.is_connected() && silent.queued() == 0, "what it can't take is given up");
        assert_eq!(world.host.violations(), []);
    }
}

/// Only one of them is ever used: a guest without drivers, and one that never used the emulated card. Both go away
/// together, the guest first or the stub domain first.
#[test]
fn frontend_windows_and_its_stub_domain_go_together() {
    for used in [0, 1] {
        for first in [0, 1] {
            let mut world = twins(&MINIOS);
            world.connect(used);
            both_ways(&mut world, used, 1, 2);
            world.pass(Duration::from_secs(30));
            for number in [first, 1 - first] {
                let vif = world.guests[number].vif.clone();
                world.host.destroy_domain(vif.frontend);
                world.settle();
                world.toolstack.begin_detach(&vif);
                world.settle();
                assert_eq!(world.toolstack.states(&vif).1, None);
                world.toolstack.remove_vif(&vif);
            }
            world.settle();
            let domain = &world.backend.domain;
            assert_eq!((domain.mappings(), domain.open_ports().len()), (0, 0));
        }
    }
}
