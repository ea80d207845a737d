//! A guest whose stack is embassy-net: it pings its backend, then sends text over TCP to a server that
//! sends it back.
//!
//! The stack's runner drives the device as well, and sleeps until its events wake it. What a kernel adds
//! is in `main`: the device's `Wake` is woken when xenstore's watch fires.
//!
//! ```sh
//! cargo run --example embassy
//! ```

use std::error::Error;

use embassy_net::icmp::PacketMetadata;
use embassy_net::icmp::ping::{PingManager, PingParams};
use embassy_net::tcp::TcpSocket;
use embassy_net::{Config, Ipv4Cidr, Stack, StackResources, StaticConfigV4};
use xen_grant::{DomId, FramePool, GrantTable};
use xen_netfront::netfront::Netfront;
use xen_netfront::packet::features::Features;
use xen_netfront::packet::phy::Device;
use xen_netfront::{netback, netfront};
use xen_sim::echo::{ADDRESS, ECHO_PORT, EchoServer};
use xen_sim::embassy::Async;
use xen_sim::{Host, Limits, Outcome, Scheduler, Vif};

const GUEST: DomId = DomId(1);
const BACKEND: DomId = DomId(2);

/// What runs on the stack.
async fn app(stack: Stack<'_>) -> Result<(), String> {
    stack.wait_config_up().await;
    let (mut rx_meta, mut tx_meta) = ([PacketMetadata::EMPTY; 1], [PacketMetadata::EMPTY; 1]);
    let (mut rx, mut tx) = ([0; 256], [0; 256]);
    let mut ping = PingManager::new(stack, &mut rx_meta, &mut rx, &mut tx_meta, &mut tx);
    let took = ping.ping(&PingParams::new(ADDRESS)).await.map_err(|why| format!("{why:?}"))?;
    println!("{ADDRESS} answers pings in {} us", took.as_micros());

    let (mut rx, mut tx) = ([0; 4096], [0; 4096]);
    let mut socket = TcpSocket::new(stack, &mut rx, &mut tx);
    socket.connect((ADDRESS, ECHO_PORT)).await.map_err(|why| format!("{why:?}"))?;
    let mut total = 0;
    for nth in 0..100 {
        let line = format!("{nth}: one page out, one page in\n").repeat(40);
        let (mut left, mut back) = (line.as_bytes(), Vec::new());
        while !left.is_empty() {
            let sent = socket.write(left).await.map_err(|why| format!("{why:?}"))?;
            left = left.get(sent..).unwrap_or_default();
        }
        while back.len() < line.len() {
            let mut bytes = [0; 1024];
            let len = socket.read(&mut bytes).await.map_err(|why| format!("{why:?}"))?;
            if len == 0 {
                return Err("the server has closed the connection".into());
            }
            back.extend_from_slice(bytes.get(..len).unwrap_or_default());
        }
        assert_eq!(back, line.as_bytes());
        total += back.len();
    }
    println!("{total} bytes came back over TCP");
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let host = Host::new(4);
    let (guest, backend) = (host.add_domain(GUEST, 1024), host.add_domain(BACKEND, 8192));
    host.toolstack().add_vif(&Vif::new(GUEST, BACKEND, 0));

    let (pool, table) = (FramePool::new(&guest, 640)?, GrantTable::new(&guest));
    let config = netfront::Config::default();
    let net = Netfront::open(guest.clone(), guest.clone(), &pool, &table, 0, config)?;
    let wake = net.waker().clone();
    let mut resources = StackResources::<3>::new();
    let address = StaticConfigV4 {
        address: Ipv4Cidr::new([10, 0, 0, 1].into(), 24),
        gateway: None,
        dns_servers: Default::default(),
    };
    let (stack, mut runner) = embassy_net::new(
        Device::new(net),
        Config::ipv4_static(address),
        &mut resources,
        host.random(|chance| chance.u64(..)),
    );

    let mut result = None;
    let main = async { result = Some(app(stack).await) };
    let offer = netback::Config::default().with_features(Features::ALL);
    let mut scheduler = Scheduler::new(&host);
    let tasks = Async::new(main).beside(async { runner.run().await }).watching(&wake);
    scheduler.add("guest", &guest, tasks);
    scheduler.add_background("server", &backend, EchoServer::open(&backend, GUEST, offer)?);
    let outcome = scheduler.run(Limits { steps: 100_000_000, ..Limits::default() });
    drop(scheduler);
    assert_eq!((outcome, host.violations()), (Outcome::Done, vec![]));
    result.ok_or("the app did not end")??;
    Ok(())
}
