//! The backend of a vif with a stack behind it: it answers pings, and sends back what TCP brings it.

use core::time::Duration;

use packet_views::phy::Device;
use smoltcp::iface::{Interface, SocketHandle, SocketSet};
use smoltcp::socket::tcp;
use smoltcp::wire::{IpAddress, IpCidr, Ipv4Address};
use xen_grant::{DomId, FramePool, PoolError};
use xen_netfront::netback::{Config, Netback};
use xen_netfront::platform::{Instant, Platform};
use xen_netfront::store::StoreError;

use crate::Domain;
use crate::sched::{Ctx, Next, Task};
use crate::served::{QUEUE, Served};

/// Where TCP is echoed (RFC 862).
pub const ECHO_PORT: u16 = 7;

/// The server's address, in a network of 24 bits.
pub const ADDRESS: Ipv4Address = Ipv4Address::new(10, 0, 0, 2);

const MAC: [u8; 6] = [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff];

/// Pages: a full queue of the largest packets each way, and some.
const POOL_PAGES: usize = 2 * QUEUE * 18;

/// Bytes that the socket buffers each way.
const BUFFER: usize = 64 << 10;

/// Why there is no server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OpenError {
    /// The domain has no pages for it.
    Pool(PoolError),
    /// Xenstore would not let it watch the vif.
    Store(StoreError),
}

impl core::fmt::Display for OpenError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            OpenError::Pool(error) => error.fmt(f),
            OpenError::Store(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for OpenError {}

/// What serves vif 0 of one client: a task of the backend's domain.
pub struct EchoServer {
    device: Device<Served>,
    iface: Interface,
    sockets: SocketSet<'static>,
    tcp: SocketHandle,
    echoed: u64,
}

impl EchoServer {
    /// A server in `domain`, which has some 5000 pages.
    pub fn open(domain: &Domain, client: DomId, config: Config) -> Result<EchoServer, OpenError> {
        let pool = FramePool::new(domain, POOL_PAGES).map_err(OpenError::Pool)?;
        let vif = Netback::open(domain.clone(), domain.store(), &pool, client, 0, config)
            .map_err(OpenError::Store)?;
        let mut device = Device::new(Served::new(vif, &pool, MAC, 1500));
        let mut iface = device.interface(domain.host().seed(), domain.now());
        iface.update_ip_addrs(|addresses| {
            // A new interface has room for it.
            let _ = addresses.push(IpCidr::new(IpAddress::Ipv4(ADDRESS), 24));
        });
        let buffer = || tcp::SocketBuffer::new(vec![0; BUFFER]);
        let mut sockets = SocketSet::new(Vec::new());
        let tcp = sockets.add(tcp::Socket::new(buffer(), buffer()));
        Ok(EchoServer { device, iface, sockets, tcp, echoed: 0 })
    }

    /// Bytes sent back so far.
    pub fn echoed(&self) -> u64 {
        self.echoed
    }

    /// What the backend has done.
    pub fn counters(&self) -> xen_netfront::netback::Counters {
        self.device.inner().counters()
    }

    /// Sends back what has come; ends the connection when the client does.
    fn echo(&mut self) {
        let socket = self.sockets.get_mut::<tcp::Socket<'_>>(self.tcp);
        if !socket.is_open() {
            // The port is free.
            let _ = socket.listen(ECHO_PORT);
        }
        while socket.can_recv() && socket.can_send() {
            let room = socket.send_capacity() - socket.send_queue();
            let taken = socket.recv(|bytes| {
                let now = bytes.len().min(room);
                (now, bytes[..now].to_vec())
            });
            // It is as much as there is room for.
            let sent = taken.ok().and_then(|bytes| socket.send_slice(&bytes).ok());
            self.echoed += sent.unwrap_or(0) as u64;
        }
        if socket.state() == tcp::State::CloseWait && !socket.can_recv() {
            socket.close();
        }
    }
}

impl Task for EchoServer {
    fn run(&mut self, ctx: &mut Ctx<'_>) -> Next {
        if let Some(vif) = &mut self.device.inner_mut().vif {
            vif.service();
        }
        self.device.poll_ingress(&mut self.iface, &mut self.sockets, ctx.now);
        self.echo();
        self.device.poll_egress(&mut self.iface, &mut self.sockets, ctx.now);
        if self.device.inner_mut().rearm() {
            return Next::Now;
        }
        let vif = self.device.inner().vif.as_ref().and_then(|vif| vif.next_deadline());
        let stack = self.device.poll_at(&mut self.iface, &self.sockets, ctx.now).map(Instant::from);
        // No sooner than time goes on.
        let stack = stack.map(|at| at.max(ctx.now + Duration::from_micros(1)));
        match vif.into_iter().chain(stack).min() {
            Some(at) => Next::WaitUntil(at),
            None => Next::Wait,
        }
    }
}

impl std::fmt::Debug for EchoServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EchoServer")
            .field("device", &self.device)
            .field("echoed", &self.echoed)
            .finish_non_exhaustive()
    }
}
