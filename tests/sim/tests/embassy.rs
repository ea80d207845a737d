//! embassy-net on the frontend, against netback with a stack of smoltcp's: a ping, TCP both ways, and a
//! backend that goes and comes back. The guest's future is polled only when something wakes it.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use embassy_net::icmp::PacketMetadata;
use embassy_net::icmp::ping::{PingError, PingManager, PingParams};
use embassy_net::tcp::TcpSocket;
use embassy_net::{Config, Ipv4Cidr, Stack, StackResources, StaticConfigV4};
use embassy_time::Instant;
use packet_views::features::Features;
use packet_views::phy::Device;
use xen_grant::{DomId, FramePool, GrantTable};
use xen_netfront::{netback, netfront};
use xen_sim::echo::{ADDRESS, ECHO_PORT, EchoServer};
use xen_sim::embassy::Async;
use xen_sim::{Chaos, Ctx, Domain, Host, Limits, Next, Outcome, Scheduler, Task, Vif};

const FRONT: DomId = DomId(1);
const BACK: DomId = DomId(2);

/// Bytes echoed over TCP.
const AMOUNT: usize = 100_000;

/// Pings the server so often, and says how long it took on average. (embassy-net 0.9 looks for the answer
/// again and again, rather than sleep.)
async fn ping(stack: Stack<'_>, count: u16) -> Result<embassy_time::Duration, PingError> {
    let (mut rx_meta, mut tx_meta) = ([PacketMetadata::EMPTY; 2], [PacketMetadata::EMPTY; 2]);
    let (mut rx, mut tx) = ([0; 4096], [0; 4096]);
    let mut ping = PingManager::new(stack, &mut rx_meta, &mut rx, &mut tx_meta, &mut tx);
    let payload = [7; 1000];
    let mut params = PingParams::new(ADDRESS);
    params.set_payload(&payload).set_count(count);
    params.set_timeout(embassy_time::Duration::from_millis(20));
    ping.ping(&params).await
}

/// Two futures at a time, until both are done.
async fn both(one: impl Future<Output = ()>, other: impl Future<Output = ()>) {
    let (mut one, mut other) = (pin!(one), pin!(other));
    let mut done = (false, false);
    poll_fn(|context| {
        done.0 = done.0 || one.as_mut().poll(context).is_ready();
        done.1 = done.1 || other.as_mut().poll(context).is_ready();
        if done == (true, true) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// Sends so many bytes to the echo server while it receives them again, and compares.
async fn echo(stack: Stack<'_>) {
    let (mut rx, mut tx) = (vec![0; 32 << 10], vec![0; 32 << 10]);
    let mut socket = TcpSocket::new(stack, &mut rx, &mut tx);
    socket.connect((ADDRESS, ECHO_PORT)).await.unwrap();
    let mut data = vec![0; AMOUNT];
    fastrand::Rng::with_seed(5).fill(&mut data);
    let mut back = Vec::new();
    let (mut reader, mut writer) = socket.split();
    let sending = async {
        let mut left = &data[..];
        while !left.is_empty() {
            let sent = writer.write(left).await.unwrap();
            left = &left[sent..];
        }
    };
    let receiving = async {
        let mut bytes = [0; 3000];
        while back.len() < AMOUNT {
            let len = reader.read(&mut bytes).await.unwrap();
            assert!(len > 0, "closed after {} bytes", back.len());
            back.extend_from_slice(&bytes[..len]);
        }
    };
    both(sending, receiving).await;
    assert!(back == data, "not the same bytes");
    socket.close();
    socket.flush().await.unwrap();
    assert_eq!(socket.read(&mut [0; 1]).await, Ok(0));
}

/// A guest whose stack is embassy's, and a backend; runs `app` until it is done.
struct World {
    host: Host,
    front: Domain,
    back: Domain,
    server: RefCell<Option<EchoServer>>,
    offers: netback::Config,
}

impl World {
    fn new(seed: u64, offers: Features) -> World {
        let host = Host::new(seed);
        host.set_chaos(Chaos::rough());
        let (front, back) = (host.add_domain(FRONT, 1024), host.add_domain(BACK, 8192));
        host.toolstack().add_vif(&Vif::new(FRONT, BACK, 0));
        let offers = netback::Config::default().with_features(offers);
        let world = World { host, front, back, server: RefCell::new(None), offers };
        world.start_server();
        world
    }

    fn start_server(&self) {
        let server = EchoServer::open(&self.back, FRONT, self.offers).unwrap();
        *self.server.borrow_mut() = Some(server);
    }

    /// What the server has done: bytes echoed, and counters.
    fn run(
        &self,
        features: Features,
        app: impl AsyncFnOnce(Stack<'_>),
    ) -> (u64, netback::Counters) {
        let pool = FramePool::new(&self.front, 640).unwrap();
        let table = GrantTable::new(&self.front);
        let config =
            netfront::Config::default().with_features(features).with_ring_start(u32::MAX - 50);
        let (platform, store) = (self.front.clone(), self.front.clone());
        let net = netfront::Netfront::open(platform, store, &pool, &table, 0, config).unwrap();
        let wake = net.waker().clone();
        let address = Ipv4Cidr::new([10, 0, 0, 1].into(), 24);
        let address = StaticConfigV4 { address, gateway: None, dns_servers: Default::default() };
        let mut resources = StackResources::<3>::new();
        let config = Config::ipv4_static(address);
        let (stack, mut runner) =
            embassy_net::new(Device::new(net), config, &mut resources, self.host.seed());
        assert!(!stack.is_link_up(), "nobody has seen to the device");
        let guest = Async::new(app(stack)).beside(async { runner.run().await }).watching(&wake);
        let mut scheduler = Scheduler::new(&self.host);
        scheduler.add("guest", &self.front, guest);
        scheduler.add_background("server", &self.back, |ctx: &mut Ctx| {
            self.server.borrow_mut().as_mut().map_or(Next::Wait, |server| server.run(ctx))
        });
        let outcome = scheduler.run(Limits { time: Duration::from_secs(60), ..Limits::default() });
        assert_eq!(outcome, Outcome::Done, "seed {}", self.host.seed());
        let server = self.server.borrow_mut().take().unwrap();
        let done = (server.echoed(), server.counters());
        // It lets go of the rings first.
        drop(server);
        drop(scheduler);
        drop(runner);
        table.sweep();
        assert_eq!(pool.free(), pool.size(), "frames leaked");
        drop(pool);
        assert_eq!(self.host.violations(), []);
        done
    }
}

/// Nothing waits for a timer of the stack's, such as TCP's retransmission, what should wake the task.
#[test]
fn a_ping_and_an_echo_through_embassys_stack() {
    let all = [Features::ALL, Features::NONE];
    for (seed, (ours, theirs)) in (0..).zip(all.map(|a| all.map(|b| (a, b))).into_iter().flatten())
    {
        let (echoed, counters) = World::new(seed, theirs).run(ours, async |stack| {
            stack.wait_config_up().await;
            let took = ping(stack, 3).await.unwrap();
            assert!(took.as_millis() < 20, "a ping took {took}");
            let start = Instant::now();
            echo(stack).await;
            let took = start.elapsed();
            assert!(took.as_millis() < 500, "{ours:?}, {theirs:?}: it took {took}");
        });
        assert_eq!(echoed, AMOUNT as u64);
        assert_eq!((counters.from_drops.total(), counters.faults), (0, 0));
        // Checksums are left to who takes them, large packets come where they are taken.
        let with_gso = counters.to_packets < counters.from_packets;
        assert!(with_gso || ours != Features::ALL, "{} packets", counters.to_packets);
    }
}

/// What is to be sent before the link is up leaves when it is, though nothing else happens then.
#[test]
fn who_does_not_wait_for_the_link_is_served_as_soon_as_it_is_up() {
    for seed in 0..10 {
        let (echoed, _) = World::new(seed, Features::ALL).run(Features::ALL, async |stack| {
            assert!(!stack.is_link_up());
            echo(stack).await;
            let now = Instant::now();
            assert!(now.as_millis() < 100, "seed {seed}: {now}");
        });
        assert_eq!(echoed, AMOUNT as u64);
    }
}

/// The stack sees the link go and come, and what it then sends arrives.
#[test]
fn the_stack_follows_a_backend_that_goes_and_comes_back() {
    let world = World::new(9, Features::ALL);
    let rounds = Cell::new(0);
    world.run(Features::ALL, async |stack| {
        stack.wait_config_up().await;
        for _ in 0..3 {
            // The first one is lost: a stack of smoltcp's that does not know yet where an answer is to go
            // asks, and forgets the answer.
            let _lost = ping(stack, 1).await;
            ping(stack, 1).await.unwrap();
            *world.server.borrow_mut() = None;
            world.start_server();
            stack.wait_link_down().await;
            stack.wait_link_up().await;
            rounds.set(rounds.get() + 1);
        }
        echo(stack).await;
    });
    assert_eq!(rounds.get(), 3);
}
