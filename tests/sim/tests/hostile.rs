//! The hostile peers: they can behave, and they do what their scripts say.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use core::time::Duration;
use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, Ordering};

use xen_grant::DomId;
use xen_sim::hostile::{After, Header, HostileBackend, HostileClient, Ring, Script, Side};
use xen_sim::memory::GTF_READING;
use xen_sim::{
    Chaos, Ctx, Domain, Host, Limits, Next, Outcome, Scheduler, Task, Vif, run_on_thread,
};

const FRONT: DomId = DomId(1);
const BACK: DomId = DomId(2);

struct World {
    host: Host,
    front: Domain,
    back: Domain,
    vif: Vif,
    client: RefCell<HostileClient>,
    backend: RefCell<HostileBackend>,
}

impl World {
    fn new(seed: u64) -> World {
        let host = Host::new(seed);
        let (front, back) = (host.add_domain(FRONT, 256), host.add_domain(BACK, 64));
        let vif = Vif::new(FRONT, BACK, 0);
        host.toolstack().add_vif(&vif);
        let client = RefCell::new(HostileClient::new(&front, BACK, 0));
        let backend = RefCell::new(HostileBackend::new(&back, FRONT, 0));
        World { host, front, back, vif, client, backend }
    }

    /// Runs both until `done`.
    fn run(&self, limits: Limits, mut done: impl FnMut(&World) -> bool) -> Outcome {
        let mut scheduler = Scheduler::new(&self.host);
        scheduler.add_background("client", &self.front, |ctx: &mut Ctx| {
            self.client.borrow_mut().run(ctx)
        });
        scheduler.add_background("backend", &self.back, |ctx: &mut Ctx| {
            self.backend.borrow_mut().run(ctx)
        });
        let third = self.host.add_domain(DomId(0), 1);
        scheduler.add("judge", &third, |_: &mut Ctx| {
            if done(self) { Next::Done } else { Next::Sleep(Duration::from_millis(5)) }
        });
        scheduler.run(limits)
    }

    fn run_connected(&self) {
        let both = |w: &World| w.client.borrow().connected() && w.backend.borrow().connected();
        assert_eq!(self.run(soon(), both), Outcome::Done, "{}", self.host.dump_store());
    }

    fn backend_plays(&self, script: &str) {
        self.backend.borrow_mut().play(script.parse().unwrap(), After::Silent);
        let ended = |w: &World| w.backend.borrow().ended();
        assert_eq!(self.run(soon(), ended), Outcome::Done);
    }

    fn client_plays(&self, script: &str) {
        self.client.borrow_mut().play(script.parse().unwrap(), After::Silent);
        let ended = |w: &World| w.client.borrow().ended();
        assert_eq!(self.run(soon(), ended), Outcome::Done);
    }
}

fn soon() -> Limits {
    Limits { time: Duration::from_secs(5), ..Limits::default() }
}

fn packet(nth: u32, len: usize) -> Vec<u8> {
    (0..len).map(|at| (at as u32 ^ nth.wrapping_mul(77)) as u8).collect()
}

#[test]
fn two_that_behave_exchange_packets() {
    for seed in 0..if cfg!(miri) { 1 } else { 20 } {
        let world = World::new(seed);
        world.host.set_chaos(Chaos::rough());
        // The indices wrap on the way.
        world.client.borrow_mut().ring_start(0_u32.wrapping_sub(50 * seed as u32));
        let sent: Vec<_> =
            (0..200).map(|n| packet(n, [60, 1514, 4096, 5000, 65535][n as usize % 5])).collect();
        for one in &sent {
            world.client.borrow_mut().send(one);
            world.backend.borrow_mut().inject(one);
        }
        let (at_back, at_front) = (RefCell::new(Vec::new()), RefCell::new(Vec::new()));
        let outcome = world.run(soon(), |w| {
            at_back.borrow_mut().extend(w.backend.borrow_mut().take_received());
            at_front.borrow_mut().extend(w.client.borrow_mut().take_received());
            at_back.borrow().len() == 200 && at_front.borrow().len() == 200
        });
        assert_eq!(outcome, Outcome::Done, "seed {seed}");
        assert!(*at_back.borrow() == sent && *at_front.borrow() == sent, "seed {seed}");
        assert_eq!(world.host.violations(), []);
        assert_eq!(world.client.borrow().responses().1, 0);
    }
}

#[test]
fn both_follow_each_other_through_a_reconnect_and_a_detach() {
    let world = World::new(1);
    world.run_connected();
    let mapped = world.back.mappings();
    world.backend_plays("state 5; state 6; connect");
    world.backend.borrow_mut().play(Script::default(), After::Honest);
    world.run_connected();
    assert_eq!(world.back.mappings(), mapped, "the old rings are not mapped any more");
    let toolstack = world.host.toolstack();
    assert_eq!(toolstack.states(&world.vif), (Some(4), Some(4)));
    let mut detach = toolstack.detach_vif(world.vif.clone());
    let outcome = world.run(soon(), |w| detach.poll(w.host.now()));
    assert_eq!(outcome, Outcome::Done);
    assert!(!detach.forced, "{}", world.host.dump_store());
    assert_eq!(world.back.mappings(), 0);
    assert_eq!(world.host.violations(), []);
}

#[test]
fn a_backend_writes_what_its_script_says() {
    let world = World::new(2);
    world.run_connected();
    world.backend_plays("slot rx 255 1 2 9; index tx rsp_prod page+300; index rx rsp_event =77");
    let word = |ring, word| world.backend.borrow_mut().peek(ring, word).unwrap();
    assert_eq!(word(Ring::Tx, Header::RspProd), 300);
    assert_eq!(word(Ring::Rx, Header::RspEvent), 77);
    let sent = world.back.counts().notifies;
    world.backend_plays(
        "index tx rsp_prod own-1; notify; storm 9; key \"junk\" \"\\xff\"; silence 3",
    );
    assert_eq!(word(Ring::Tx, Header::RspProd), u32::MAX);
    assert_eq!(world.back.counts().notifies - sent, 10);
    assert_eq!(world.host.dump_store().matches("vif/1/0/junk = \"\\xff\"\n").count(), 1);
    let before = world.host.now();
    world.backend_plays("silence 30; state 9; unkey \"junk\"");
    assert!(world.host.now().since(before) >= Duration::from_millis(30));
    assert_eq!(world.host.toolstack().states(&world.vif).1, Some(9));
    assert!(!world.host.dump_store().contains("junk"));
}

#[test]
fn a_backend_forges_responses() {
    let world = World::new(3);
    world.run_connected();
    world.client.borrow_mut().play(Script::default(), After::Silent);
    world.backend_plays(
        "rx-response next 4000 4 200; rx-extra 9 1 5 6; rx-response 999 1 2 -1; push rx",
    );
    // Slots as raw words, seen by a second mapping of the same ring.
    let gref: u32 = world.front.store().get("device/vif/0/rx-ring-ref").unwrap().parse().unwrap();
    let ring = world.back.map_page(FRONT, gref, false).unwrap();
    assert_eq!(ring.load(2), 3);
    assert_eq!([ring.load(16), ring.load(17)], [4000 << 16, 200 << 16 | 4]);
    assert_eq!([ring.load(18), ring.load(19)], [5 << 16 | 0x0109, 6]);
    assert_eq!([ring.load(20), ring.load(21)], [1 << 16 | 999, 0xffff << 16 | 2]);
}

#[test]
fn a_backend_keeps_pages_and_sees_all_of_them() {
    let world = World::new(4);
    world.backend.borrow_mut().dump_requests(true);
    world.client.borrow_mut().send(b"a packet with something to find");
    let arrived = |w: &World| !w.backend.borrow_mut().take_received().is_empty();
    assert_eq!(world.run(soon(), arrived), Outcome::Done);
    let dumps = world.backend.borrow_mut().take_page_dumps();
    let sent = dumps.iter().find(|dump| dump.ring == Ring::Tx).unwrap();
    assert_eq!((sent.offset, sent.size), (0, 31));
    assert!(sent.bytes.starts_with(b"a packet with"));
    assert!(dumps.iter().filter(|dump| dump.ring == Ring::Rx).count() >= 64);

    world.backend_plays("keep rx; map page4; map ring-tx; map ended; map readonly; dump");
    assert_eq!(world.backend.borrow().kept(), 4);
    let all = world.backend.borrow_mut().take_dumps();
    assert_eq!(all.len(), 103, "rings, transmit and receive pages, and one more");
    let busy = world.front.grants().iter().filter(|(_, e)| e.flags & GTF_READING != 0).count();
    assert_eq!(busy, 5);
    world.backend_plays("drop; unmap");
    assert_eq!((world.backend.borrow().kept(), world.back.mappings()), (0, 0));
}

#[test]
fn a_parasite_shares_the_rings_of_an_honest_backend() {
    let world = World::new(5);
    world.run_connected();
    let mut parasite = HostileBackend::parasite(&world.back, FRONT, 0);
    parasite.play("index tx rsp_prod own+1000; notify".parse().unwrap(), After::Silent);
    let mut scheduler = Scheduler::new(&world.host);
    scheduler.add("parasite", &world.back, |ctx: &mut Ctx| {
        if parasite.ended() { Next::Done } else { parasite.run(ctx) }
    });
    assert_eq!(scheduler.run(soon()), Outcome::Done);
    drop(scheduler);
    assert!(parasite.connected());
    assert_eq!(world.backend.borrow_mut().peek(Ring::Tx, Header::RspProd), Some(1000));
    assert!(world.front.upcall_pending());
    assert_eq!(world.host.toolstack().states(&world.vif), (Some(4), Some(4)));
}

#[test]
fn a_client_forges_requests() {
    let world = World::new(6);
    world.run_connected();
    world.backend.borrow_mut().play(Script::default(), After::Silent);
    world.client_plays(
        "tx-request =4711 4000 12 65535 200; tx-extra 1 1 2 3; tx-chain noframe 2 1000 500; push tx; push rx",
    );
    let gref: u32 = world.front.store().get("device/vif/0/tx-ring-ref").unwrap().parse().unwrap();
    let ring = world.back.map_page(FRONT, gref, false).unwrap();
    let slot = |n: usize| [0, 1, 2].map(|word| ring.load(16 + 3 * n + word));
    assert_eq!(ring.load(0), 4);
    assert_eq!(slot(0), [4711, 12 << 16 | 4000, 200 << 16 | 65535]);
    assert_eq!(slot(1), [2 << 16 | 0x0101, 3, 0]);
    let [noframe, flags, sizes] = slot(2);
    assert_eq!((flags, sizes), (4 << 16, 1000 << 16));
    assert_eq!(slot(3), [noframe, 0, 500 << 16 | 1]);
    let refused = world.back.map_page(FRONT, noframe, false).err();
    assert_eq!(refused, Some(xen_grant::GrantStatus::BAD_PAGE));
    world.client_plays("entry noframe 1 2 0; revoke 0; vanish");
    assert!(world.host.toolstack().states(&world.vif).0.is_none());
}

#[test]
fn bad_grants_of_a_client_are_bad_in_their_own_way() {
    use xen_grant::GrantStatus;
    for (kind, write, status) in [
        ("page0", true, None),
        ("readonly", false, None),
        ("readonly", true, Some(GrantStatus::GENERAL_ERROR)),
        ("ended", false, Some(GrantStatus::GENERAL_ERROR)),
        ("other", false, Some(GrantStatus::GENERAL_ERROR)),
        ("noframe", false, Some(GrantStatus::BAD_PAGE)),
        ("=100000", false, Some(GrantStatus::BAD_GNTREF)),
        ("ring-tx", true, None),
    ] {
        let world = World::new(0);
        world.run_connected();
        world.backend.borrow_mut().play(Script::default(), After::Silent);
        world.client_plays(&format!("tx-request {kind} 0 0 0 60"));
        let gref: u32 =
            world.front.store().get("device/vif/0/tx-ring-ref").unwrap().parse().unwrap();
        let asked = world.back.map_page(FRONT, gref, false).unwrap().load(16);
        assert_eq!(world.back.map_page(FRONT, asked, write).err(), status, "{kind}");
    }
}

/// Any script against any script: neither panics, the host stays sound, and it replays.
#[test]
fn random_scripts_run_and_replay() {
    let run = |seed| {
        let world = World::new(seed);
        world.host.set_chaos(Chaos::rough());
        world.host.trace_store(true);
        let (one, two) = world.host.random(|rng| {
            (Script::random(rng, Side::Backend, 60), Script::random(rng, Side::Client, 60))
        });
        world.backend.borrow_mut().play(one, After::Honest);
        world.client.borrow_mut().play(two, After::Honest);
        let both = |w: &World| w.backend.borrow().ended() && w.client.borrow().ended();
        assert_eq!(world.run(Limits::default(), both), Outcome::Done, "seed {seed}");
        let (done, skipped) = world.backend.borrow().steps();
        assert_eq!(done + skipped, 60);
        assert!(world.host.violations_of(BACK).is_empty(), "seed {seed}");
        let counts = (world.front.counts(), world.back.counts());
        (world.host.now(), world.host.store_trace(), counts, done)
    };
    let mut done = 0;
    for seed in 0..if cfg!(miri) { 1 } else { 100 } {
        let first = run(seed);
        done += first.3;
        assert!(first == run(seed), "seed {seed} does not replay");
    }
    assert!(done > 20, "{done} steps were done");
}

/// The same peers in real time, on threads.
#[test]
fn two_that_behave_exchange_packets_on_threads() {
    let host = Host::threaded(0);
    let (front, back) = (host.add_domain(FRONT, 256), host.add_domain(BACK, 64));
    host.toolstack().add_vif(&Vif::new(FRONT, BACK, 0));
    let count = if cfg!(miri) { 3 } else { 500 };
    let stop = AtomicBool::new(false);
    let (arrived, returned) = std::thread::scope(|scope| {
        let server = scope.spawn(|| {
            let mut backend = HostileBackend::new(&back, FRONT, 0);
            let mut arrived = Vec::new();
            run_on_thread(
                &back,
                &mut |ctx: &mut Ctx| {
                    let next = backend.run(ctx);
                    for packet in backend.take_received() {
                        backend.inject(&packet);
                        arrived.push(packet);
                    }
                    if backend.queued() > 0 { Next::Now } else { next }
                },
                &stop,
            );
            arrived
        });
        let mut client = HostileClient::new(&front, BACK, 0);
        (0..count).for_each(|nth| client.send(&packet(nth, 100 + nth as usize * 9)));
        let mut returned = Vec::new();
        let patience = host.now() + Duration::from_secs(60);
        run_on_thread(
            &front,
            &mut |ctx: &mut Ctx| {
                let next = client.run(ctx);
                returned.extend(client.take_received());
                if returned.len() == count as usize || ctx.now > patience {
                    Next::Done
                } else {
                    next
                }
            },
            &AtomicBool::new(false),
        );
        stop.store(true, Ordering::Relaxed);
        (server.join().unwrap(), returned)
    });
    let sent: Vec<_> = (0..count).map(|nth| packet(nth, 100 + nth as usize * 9)).collect();
    assert!(arrived == sent && returned == sent, "{} {}", arrived.len(), returned.len());
    assert_eq!(host.violations(), []);
}
