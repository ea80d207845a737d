//! The client's domain: netfront, a TCP/IP stack, and small servers for the machine's own tools.
//!
//! | Tool | Served by |
//! |---|---|
//! | `ping`, `ping -6` | the stack; IPv4 in fragments too |
//! | `curl` | HTTP on port 80: [`http`](super::http) |
//! | `iperf` | port 5001 takes everything; port 9 (discard) does the same |
//! | `nc` | port 7 echoes |

use std::sync::Arc;
use std::sync::atomic::Ordering;

use packet_views::device::Link;
use packet_views::device::NetDevice;
use packet_views::phy::Device;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::socket::tcp;
use smoltcp::wire::{EthernetAddress, IpAddress, IpCidr};
use xen_grant::FramePool;
use xen_netfront::platform::{Instant, Platform};
use xen_netfront::wire::MAX_SLOTS;
use xen_sim::{Ctx, Domain, Next, Task};

use super::http::{Exchange, Log};
use super::{CLIENT_V4, CLIENT_V6, Flags, LINUX_V4, LINUX_V6};
use crate::alloc::{Charge, Owner};
use crate::capture::{Captured, Pcap};
use crate::client::{Front, wait};
use crate::measure::Agreed;

/// Bytes that each socket buffers each way.
const BUFFER: usize = 1 << 20;
/// Silence after which a connection is given up.
const GIVE_UP: smoltcp::time::Duration = smoltcp::time::Duration::from_secs(30);
/// The sockets: port and service.
const SOCKETS: [(u16, Kind); 10] = [
    (80, Kind::Http),
    (80, Kind::Http),
    (80, Kind::Http),
    (80, Kind::Http),
    (7, Kind::Echo),
    (9, Kind::Discard),
    (9, Kind::Discard),
    (5001, Kind::Discard),
    (5001, Kind::Discard),
    (5001, Kind::Discard),
];

#[derive(Clone, Copy)]
enum Kind {
    Http,
    Echo,
    Discard,
}

/// What the servers have done.
#[derive(Default)]
pub struct Served {
    /// By HTTP.
    pub http: Log,
    /// Bytes echoed.
    pub echoed: u64,
    /// Bytes thrown away.
    pub discarded: u64,
}

/// The client's domain.
pub struct Server {
    domain: Domain,
    pool: FramePool,
    /// The device until it is up: the stack wants to know what it can do.
    waiting: Option<Front>,
    stack: Option<Stack>,
    pcap: Option<Pcap>,
    seed: u64,
    served: Served,
    seen: Option<Seen>,
    flags: Arc<Flags>,
    leaving: bool,
}

/// What a connection is like, which nobody knows once it is over.
#[derive(Clone, Copy)]
pub struct Seen {
    connects: u64,
    /// What was agreed on.
    pub agreed: Agreed,
    /// The MTU.
    pub mtu: usize,
}

struct Stack {
    device: Device<Captured<Front>>,
    iface: Interface,
    sockets: SocketSet<'static>,
    services: Vec<Service>,
}

struct Service {
    socket: SocketHandle,
    port: u16,
    kind: Kind,
    exchange: Exchange,
}

impl Server {
    /// The client in its domain, on a device that is not up yet.
    pub fn new(
        domain: &Domain,
        pool: &FramePool,
        net: Front,
        pcap: Option<Pcap>,
        seed: u64,
        flags: Arc<Flags>,
    ) -> Server {
        Server {
            domain: domain.clone(),
            pool: pool.clone(),
            waiting: Some(net),
            stack: None,
            pcap,
            seed,
            served: Served::default(),
            seen: None,
            flags,
            leaving: false,
        }
    }

    /// The pool.
    pub fn pool(&self) -> &FramePool {
        &self.pool
    }

    /// The device, and what the adaptor above it has done, once it has been up.
    pub fn device(&self) -> Option<&Device<Captured<Front>>> {
        self.stack.as_ref().map(|stack| &stack.device)
    }

    /// What the servers have done.
    pub fn served(&self) -> &Served {
        &self.served
    }

    /// What the last connection was like, if there was one.
    pub fn seen(&self) -> Option<Seen> {
        self.seen
    }

    fn start(&mut self, mut net: Front) {
        net.service();
        if net.link() == Link::Down {
            self.waiting = Some(net);
            return;
        }
        let mac = EthernetAddress(net.mac().unwrap_or_default().0);
        let mut device = Device::new(Captured::new(net, self.pcap.clone()));
        let mut config = Config::new(mac.into());
        config.random_seed = self.seed;
        let now = self.domain.now();
        let mut iface = Interface::new(config, &mut device, now.into());
        iface.update_ip_addrs(|addresses| {
            // A new interface has room for both.
            let _ = addresses.push(IpCidr::new(IpAddress::Ipv4(CLIENT_V4), 24));
            let _ = addresses.push(IpCidr::new(IpAddress::Ipv6(CLIENT_V6), 64));
        });
        // As far as Linux forwards, others can talk to it too; there is room for both.
        let _ = iface.routes_mut().add_default_ipv4_route(LINUX_V4);
        let _ = iface.routes_mut().add_default_ipv6_route(LINUX_V6);
        let mut sockets = SocketSet::new(Vec::with_capacity(SOCKETS.len()));
        let services = SOCKETS.map(|(port, kind)| {
            let buffer = || tcp::SocketBuffer::new(vec![0; BUFFER]);
            let mut socket = tcp::Socket::new(buffer(), buffer());
            socket.set_timeout(Some(GIVE_UP));
            socket.set_keep_alive(Some(GIVE_UP / 4));
            let socket = sockets.add(socket);
            Service { socket, port, kind, exchange: Exchange::default() }
        });
        self.stack = Some(Stack { device, iface, sockets, services: services.into() });
    }
}

impl Task for Server {
    fn run(&mut self, ctx: &mut Ctx<'_>) -> Next {
        let _ours = Charge::to(Owner::Front);
        if let Some(net) = self.waiting.take() {
            self.start(net);
        }
        let leave = self.flags.leave.load(Ordering::Acquire);
        let Some(stack) = &mut self.stack else {
            let deadline = self.waiting.as_ref().and_then(Front::next_deadline);
            return if leave { Next::Done } else { wait(deadline) };
        };
        let net = stack.device.inner_mut().below_mut();
        if leave && !self.leaving {
            self.leaving = true;
            net.disconnect();
        }
        net.service();
        if self.leaving {
            return if net.closed() { Next::Done } else { wait(net.next_deadline()) };
        }
        let connects = Front::counters(net).connects;
        if net.link() == Link::Up && self.seen.is_none_or(|seen| seen.connects != connects) {
            let mtu = net.mtu();
            self.seen = Agreed::of(net).map(|agreed| Seen { connects, agreed, mtu });
            self.flags.up.store(true, Ordering::Release);
        }
        net.complete_tx();
        stack.run(&mut self.served, ctx.now)
    }
}

impl Stack {
    /// Once round the loop.
    fn run(&mut self, served: &mut Served, now: Instant) -> Next {
        self.device.poll_ingress(&mut self.iface, &mut self.sockets, now);
        for service in &mut self.services {
            service.serve(self.sockets.get_mut(service.socket), served, now);
        }
        self.device.poll_egress(&mut self.iface, &mut self.sockets, now);
        let net = self.device.inner_mut().below_mut();
        if net.rearm() {
            return Next::Now;
        }
        let at = self.iface.poll_at(now.into(), &self.sockets).map(Instant::from);
        // Fragments of an IPv4 packet leave one in each round.
        if at.is_some_and(|at| at <= now) && net.room() > MAX_SLOTS {
            return Next::Now;
        }
        // If it has something to send right now the device is full; its event comes.
        let at = at.filter(|&at| at > now);
        wait([net.next_deadline(), at].into_iter().flatten().min())
    }
}

impl Service {
    fn serve(&mut self, socket: &mut tcp::Socket<'_>, served: &mut Served, now: Instant) {
        if socket.state() == tcp::State::TimeWait {
            // The next client need not wait for it: no port is ever reused on this side.
            socket.abort();
        }
        if !socket.is_open() {
            self.exchange = Exchange::default();
            // Closed, and the port is not 0.
            let _ = socket.listen(self.port);
        }
        match self.kind {
            Kind::Http => self.exchange.pump(socket, &mut served.http, now),
            Kind::Echo => served.echoed += echo(socket),
            Kind::Discard => {
                while let Ok(len @ 1..) = socket.recv(|bytes| (bytes.len(), bytes.len())) {
                    served.discarded += len as u64;
                }
            }
        }
        let all_sent = socket.send_queue() == 0 && socket.recv_queue() == 0;
        if socket.state() == tcp::State::CloseWait && all_sent {
            socket.close();
        }
    }
}

/// Sends back what has come, as far as there is room; returns how many bytes that was.
fn echo(socket: &mut tcp::Socket<'_>) -> u64 {
    let mut piece = [0; 4096];
    let mut count = 0;
    loop {
        let room = piece.len().min(socket.send_capacity() - socket.send_queue());
        match socket.recv_slice(&mut piece[..room]) {
            Ok(len @ 1..) => count += socket.send_slice(&piece[..len]).unwrap_or(0) as u64,
            Ok(_) | Err(_) => return count,
        }
    }
}
