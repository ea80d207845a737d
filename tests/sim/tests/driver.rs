//! The driver's frontend on this host, against a peer on raw words: the two agree on the wire, and
//! no script makes the frontend break the host's rules.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod packets;

use core::time::Duration;
use std::cell::RefCell;

use packet_views::buffer::Meta;
use packet_views::device::NetDevice;
use packet_views::features::Features;
use packets::Flow;
use xen_grant::{DomId, FramePool, GrantTable};
use xen_netfront::buffer::PacketMut;
use xen_netfront::netfront::{Config, Netfront};
use xen_netfront::xenbus::feature_nodes;
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

/// Short ones, and of each five one that is to be cut.
fn packet(nth: u32) -> (Vec<u8>, Meta) {
    let len = [60, 1514, 200, 1000, 6000][nth as usize % 5];
    let bytes: Vec<u8> = (0..len).map(|at: u32| (at ^ nth.wrapping_mul(77)) as u8).collect();
    let flow = Flow::tcp(nth.is_multiple_of(2), nth as u16);
    match len {
        6000 => (flow.blank(nth, &bytes), flow.meta(1400)),
        _ => (bytes, Meta::default()),
    }
}

impl Echo {
    /// `None` without frames.
    fn build(&mut self, nth: u32) -> Option<PacketMut> {
        let (bytes, meta) = packet(nth);
        let mut packet = PacketMut::new();
        for part in bytes.chunks(4096) {
            let mut buffer = self.net.alloc(0)?;
            buffer.append(part.len()).unwrap().copy_from_slice(part);
            packet.push(buffer).unwrap();
        }
        packet.meta = meta;
        Some(packet)
    }
}

impl Task for Echo {
    fn run(&mut self, _: &mut Ctx<'_>) -> Next {
        self.net.service();
        self.net.complete_tx();
        let received = &mut self.received;
        self.net.receive(64, |packet| {
            let mut bytes = vec![0; packet.len()];
            packet.copy_to_slice(&mut bytes).unwrap();
            received.push(bytes);
        });
        while self.sent < self.count {
            if self.net.reserve(3).is_none() {
                break;
            }
            let Some(packet) = self.build(self.sent) else { break };
            if NetDevice::send(&mut self.net, packet).is_err() {
                break;
            }
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

fn echo(host: &Host, count: u32, config: Config) -> (Domain, Domain, FramePool, Echo) {
    let (front, back) = (host.add_domain(FRONT, 1024), host.add_domain(BACK, 64));
    host.toolstack().add_vif(&Vif::new(FRONT, BACK, 0));
    let pool = FramePool::new(&front, 800).unwrap();
    let table = GrantTable::new(&front);
    let config = config.with_ring_start(u32::MAX - 100);
    let net = Netfront::open(front.clone(), front.clone(), &pool, &table, 0, config).unwrap();
    (front, back, pool, Echo { net, sent: 0, count, received: Vec::new() })
}

#[test]
fn the_frontend_and_a_raw_peer_agree() {
    for seed in 0..20 {
        let host = Host::new(seed);
        host.set_chaos(Chaos::rough());
        let (front, back, pool, mut echo) = echo(&host, 300, Config::default());
        let mut peer = HostileBackend::new(&back, FRONT, 0);
        for (key, value) in feature_nodes(&Features::ALL) {
            peer.feature(key, value);
        }
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
        let sent: Vec<Vec<u8>> = (0..300).map(|nth| packet(nth).0).collect();
        assert!(echo.received == sent, "seed {seed}");
        assert_eq!(Netfront::counters(&echo.net).tx_gso, 60, "as they are: seed {seed}");
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
        let mut rng = fastrand::Rng::with_seed(seed);
        let config =
            Config::default().with_queues(rng.u32(1..=3)).with_split_event_channels(rng.bool());
        let (front, back, pool, echo) = echo(&host, u32::MAX, config);
        let echo = RefCell::new(echo);
        let script = host.random(|rng| Script::random(rng, Side::Backend, 50));
        let text = script.to_string();
        let mut peer = HostileBackend::new(&back, FRONT, 0);
        let offered = [Features::ALL, Features::NONE, Features::default()][rng.usize(..3)];
        for (key, value) in feature_nodes(&offered) {
            peer.feature(key, value);
        }
        peer.feature("multi-queue-max-queues", &rng.u32(1..=3).to_string());
        peer.feature("feature-split-event-channels", "1");
        peer.serve_queue(rng.u32(..3));
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
