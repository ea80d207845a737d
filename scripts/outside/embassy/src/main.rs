//! A kernel on embassy-net, which drives the device from its own task: echoes UDP port 7 at 10.0.0.2. It
//! has embassy's clock, and an executor of a few lines.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::task::Wake;
use core::pin::pin;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::task::{Context, Waker};

use embassy_net::udp::{PacketMetadata, UdpSocket};
use embassy_net::{Config, Ipv4Address, Ipv4Cidr, Stack, StackResources, StaticConfigV4};
use embassy_time_driver::{Driver, TICK_HZ, time_driver_impl};
use xen_grant::{FramePool, GrantTable};
use xen_guest::Xen;
use xen_netfront::netfront::{Config as NetConfig, Netfront};
use xen_netfront::packet::phy::Device;
use xen_netfront::platform::{Instant, Platform};

xen_guest::main!(kernel);

fn kernel(xen: Xen) -> xen_guest::Result {
    let pool = FramePool::new(&xen, NetConfig::default().least_pages() + 512)?;
    let table = GrantTable::new(&xen);
    let net = Netfront::open(xen, xen, &pool, &table, 0, NetConfig::default())?;

    let address = Ipv4Cidr::new(Ipv4Address::new(10, 0, 0, 2), 24);
    let address = StaticConfigV4 { address, gateway: None, dns_servers: Default::default() };
    let mut resources = Box::new(StackResources::<3>::new());
    let config = Config::ipv4_static(address);
    let (stack, mut runner) =
        embassy_net::new(Device::new(net), config, &mut resources, xen.random());
    let (mut network, mut server) = (pin!(runner.run()), pin!(echo(stack)));

    let woken = Arc::new(Woken::default());
    let waker = Waker::from(woken.clone());
    let mut context = Context::from_waker(&waker);
    loop {
        CLOCK.begin(xen.now());
        let _ = network.as_mut().poll(&mut context);
        let _ = server.as_mut().poll(&mut context);
        if !woken.0.swap(false, Ordering::AcqRel) {
            xen.wait(CLOCK.next());
        }
    }
}

async fn echo(stack: Stack<'_>) {
    let (mut rx_meta, mut tx_meta) = ([PacketMetadata::EMPTY; 16], [PacketMetadata::EMPTY; 16]);
    let (mut rx, mut tx, mut bytes) = ([0; 8192], [0; 8192], [0; 1472]);
    let mut socket = UdpSocket::new(stack, &mut rx_meta, &mut rx, &mut tx_meta, &mut tx);
    if let Err(error) = socket.bind(7) {
        log::error!("port 7: {error:?}");
    }
    loop {
        if let Ok((len, from)) = socket.recv_from(&mut bytes).await {
            let _ = socket.send_to(&bytes[..len], from).await; // it is UDP
        }
    }
}

/// Something has happened since the futures were polled.
#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Release);
    }
}

/// embassy's clock. All futures are polled together, so the earliest timer stands for all of them, and each
/// sets its own again.
struct Clock {
    now: AtomicU64,
    next: AtomicU64,
}

/// Nanoseconds.
const TICK: u64 = 1_000_000_000 / TICK_HZ;

time_driver_impl!(static CLOCK: Clock = Clock {
    now: AtomicU64::new(0),
    next: AtomicU64::new(u64::MAX),
});

impl Clock {
    fn begin(&self, now: Instant) {
        self.now.store(now.0 / TICK, Ordering::Relaxed);
        self.next.store(u64::MAX, Ordering::Relaxed);
    }

    fn next(&self) -> Option<Instant> {
        let next = self.next.load(Ordering::Relaxed);
        (next != u64::MAX).then(|| Instant(next.saturating_mul(TICK)))
    }
}

impl Driver for Clock {
    fn now(&self) -> u64 {
        self.now.load(Ordering::Relaxed)
    }

    fn schedule_wake(&self, at: u64, _: &Waker) {
        self.next.fetch_min(at, Ordering::Relaxed);
    }
}
