//! The driver's frontend on this host, against a peer on raw words: the two agree on the wire, and
//! no script makes the frontend break the host's rules.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use core::time::Duration;
use std::cell::RefCell;

use xen_grant::{DomId, FramePool, GrantTable};
use xen_netfront::buffer::Packet;
use xen_netfront::netfront::{Config, Netfront};
use xen_sim::hostile::{After, HostileBackend, Script, Side};
use xen_sim::{Chaos, Ctx, Domain, Host, Limits, Next, Outcome, Scheduler, Task, Vif};

const FRONT: DomId = DomId(1);
const BACK: DomId = DomId(2);

/// A frontend that sends `count` packets and waits for as many.
struct Echo {
    net: Netfront<Domain, Domain>,
    sent: u32,
    count: u32,
    received: Vec<Vec<u8>>,
}

fn packet(nth: u32) -> Vec<u8> {
    let len = [60, 1514, 200, 1000][nth as usize % 4];
    (0..len).map(|at: u32| (at ^ nth.wrapping_mul(77)) as u8).collect()
}

impl Task for Echo {
    fn run(&mut self, _: &mut Ctx<'_>) -> Next {
        self.net.service();
        self.net.complete_tx();
        let received = &mut self.received;
        self.net.poll_rx(64, |packet| {
            let mut bytes = vec![0; packet.len()];
            packet.copy_to_slice(&mut bytes).unwrap();
            received.push(bytes);
        });
        while self.sent < self.count {
            let Some(mut buffer) = self.net.buffer(0) else { break };
            let bytes = packet(self.sent);
            buffer.append(bytes.len()).unwrap().copy_from_slice(&bytes);
            let Some(mut permit) = self.net.reserve(1) else { break };
            permit.send(Packet::from(buffer));
            self.sent += 1;
        }
        if self.received.len() == self.count as usize {
            return Next::Done;
        }
        match (self.net.rearm(), self.net.next_deadline()) {
            (true, _) => Next::Now,
            (false, Some(deadline)) => Next::WaitUntil(deadline),
            (false, None) => Next::Wait,
        }
    }
}

fn echo(host: &Host, count: u32) -> (Domain, Domain, FramePool, Echo) {
    let (front, back) = (host.add_domain(FRONT, 1024), host.add_domain(BACK, 64));
    host.toolstack().add_vif(&Vif::new(FRONT, BACK, 0));
    let pool = FramePool::new(&front, 800).unwrap();
    let table = GrantTable::new(&front);
    let config = Config { ring_start: u32::MAX - 100, ..Config::default() };
    let net = Netfront::open(front.clone(), front.clone(), &pool, &table, 0, config).unwrap();
    (front, back, pool, Echo { net, sent: 0, count, received: Vec::new() })
}

#[test]
fn the_frontend_and_a_raw_peer_agree() {
    for seed in 0..20 {
        let host = Host::new(seed);
        host.set_chaos(Chaos::rough());
        let (front, back, pool, mut echo) = echo(&host, 300);
        let mut peer = HostileBackend::new(&back, FRONT, 0);
        let mut scheduler = Scheduler::new(&host);
        scheduler.add("front", &front, |ctx: &mut Ctx| echo.run(ctx));
        scheduler.add_background("back", &back, |ctx: &mut Ctx| {
            let next = peer.run(ctx);
            let packets = peer.take_received();
            packets.iter().for_each(|packet| peer.inject(packet));
            if packets.is_empty() { next } else { Next::Now }
        });
        let limits = Limits { patience: Duration::from_secs(5), ..Limits::default() };
        let outcome = scheduler.run(limits);
        drop(scheduler);
        let got = echo.received.len();
        assert_eq!(outcome, Outcome::Done, "seed {seed}: {got} of 300 came back");
        assert!(echo.received == (0..300).map(packet).collect::<Vec<_>>(), "seed {seed}");
        drop(peer); // lets go of the rings
        drop(echo);
        assert_eq!(pool.free(), pool.size(), "seed {seed}");
        drop(pool);
        assert_eq!(host.violations(), [], "seed {seed}");
    }
}

#[test]
fn no_script_makes_the_frontend_break_a_rule() {
    for seed in 0..if cfg!(miri) { 1 } else { 200 } {
        let host = Host::new(seed);
        host.set_chaos(Chaos::rough());
        let (front, back, pool, echo) = echo(&host, u32::MAX);
        let echo = RefCell::new(echo);
        let script = host.random(|rng| Script::random(rng, Side::Backend, 50));
        let text = script.to_string();
        let mut peer = HostileBackend::new(&back, FRONT, 0);
        peer.play(script, After::Honest);
        let mut scheduler = Scheduler::new(&host);
        scheduler.add_background("front", &front, |ctx: &mut Ctx| echo.borrow_mut().run(ctx));
        scheduler.add("back", &back, |ctx: &mut Ctx| {
            let next = peer.run(ctx);
            if peer.ended() { Next::Done } else { next }
        });
        let limits = Limits { steps: 200_000, ..Limits::default() };
        let outcome = scheduler.run(limits);
        drop(scheduler);
        assert_eq!(outcome, Outcome::Done, "seed {seed}:\n{text}");
        drop(peer);
        drop(echo);
        drop(pool);
        assert_eq!(host.violations_of(FRONT), [], "seed {seed}:\n{text}");
    }
}
