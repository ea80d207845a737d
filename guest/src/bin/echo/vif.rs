//! One vif: the driver, the stack on top of it, and the services in that.
//!
//! ```text
//!   services    ping  udp_echo  tcp_echo  tcp_discard  tcp_chargen  http
//!   smoltcp     interface, sockets
//!   phy         Device
//!   driver      Netfront
//! ```

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::mem;

use packet_views::device::Link;
use packet_views::device::{Changes, NetDevice};
use packet_views::phy::Device;
use smoltcp::iface::{Interface, SocketSet};
use smoltcp::phy::Device as _;
use smoltcp::time::Instant;
use xen_guest::Xen;
use xen_netfront::netfront::{self, Netfront};
use xen_netfront::platform::{self, Platform};

use super::addresses::{Addresses, address_of};
use super::http::Http;
use super::large::{self, Large};
use super::listener::{Connection, Listener};
use super::memory::Sizes;
use super::options::VifOptions;
use super::ping::Ping;
use super::status::{self, Agreed, Status};
use super::tcp_chargen::TcpChargen;
use super::tcp_discard::TcpDiscard;
use super::tcp_echo::TcpEcho;
use super::udp_echo::UdpEcho;

/// How many may use a TCP service at once.
const CONNECTIONS: usize = 4;
/// How many may talk HTTP: some don't close when they have their answer.
const BROWSERS: usize = 8;
/// Buffers of the size [`Sizes::window`], at most: echo has two for each connection, the others one.
pub const WINDOWS: u64 = 4 * CONNECTIONS as u64;
/// Bytes of a request to chargen or HTTP that may wait, and of an answer of HTTP.
const REQUEST: usize = 2 << 10;
const ANSWER: usize = 16 << 10;
/// The longest packet that a service handles in one piece.
const LARGEST_PACKET: usize = 1 << 16;

/// A vif that is served, connected or not.
pub struct Vif {
    number: u32,
    driver: netfront::Config,
    addresses: Addresses,
    device: Device<Netfront<Xen, Xen>>,
    /// On the heap: it holds the buffer that fragments are cut from.
    iface: Box<Interface>,
    sockets: SocketSet<'static>,
    link: Link,
    /// Times that one of the vif's event channels has ended a sleep.
    events: u64,
    services: Services,
}

struct Services {
    ping: Ping,
    udp_echo: UdpEcho,
    tcp_echo: Listener<TcpEcho>,
    tcp_discard: Listener<TcpDiscard>,
    tcp_chargen: Listener<TcpChargen>,
    http: Listener<Http>,
    /// Bytes that discard has forgotten.
    forgotten: u64,
    scratch: Vec<u8>,
}

impl Vif {
    /// Puts a stack on a driver that is connected.
    ///
    /// Out of line: the stack's buffer for fragments is made on ours, and nobody else should have to
    /// make room for it.
    #[cold]
    #[inline(never)]
    pub fn new(
        xen: Xen,
        number: u32,
        net: Netfront<Xen, Xen>,
        driver: netfront::Config,
        options: VifOptions,
        sizes: Sizes,
    ) -> Vif {
        let mut device = Device::new(net);
        let mut iface = Box::new(device.interface(xen.random(), xen.now()));
        let mut sockets = SocketSet::new(vec![]);
        let addresses = Addresses::new(number, options, &mut iface, &mut sockets);
        let services = Services::new(&mut sockets, sizes.window);
        let (mac, mtu) = (iface.hardware_addr(), device.inner().mtu());
        log::info!("vif {number}: {mac} mtu {mtu}, window {}", sizes.window);
        for cidr in iface.ip_addrs() {
            log::info!("vif {number}: {cidr} answers ping, UDP 7, TCP 7 9 19 80");
        }
        let (link, events) = (Link::Up, 0);
        Vif { number, driver, addresses, device, iface, sockets, link, events, services }
    }

    /// Does what there is to do now; whether there may be more.
    pub fn turn(&mut self, xen: Xen) -> bool {
        self.device.inner_mut().service();
        self.device.inner_mut().complete_tx();
        self.note_link();
        self.follow(xen);
        let now = Instant::from(xen.now());
        let Vif { device, iface, sockets, addresses, services, .. } = self;
        if device.inner().link() == Link::Up {
            addresses.announce(iface, device.inner_mut());
        }
        device.poll_ingress(iface, sockets, now);
        let readdressed = addresses.turn(iface, sockets, now);
        let moved = services.turn(iface, sockets, device.inner().mtu(), now);
        device.poll_egress(iface, sockets, now);
        self.send_fragments(now);
        moved || readdressed
    }

    /// Whether a connection waits for [`tell`](Vif::tell).
    pub fn wants_status(&self) -> bool {
        self.services.http.connections().any(Http::wants_status)
    }

    /// Answers those who have asked for the numbers.
    pub fn tell(&mut self, xen: Xen, status: &Status) {
        let now = Instant::from(xen.now());
        self.services.http.turn(&mut self.sockets, now, &mut Some(status));
    }

    /// The domain has been resumed: connects anew.
    pub fn resumed(&mut self) {
        self.device.inner_mut().resumed();
    }

    /// Before sleeping: asks the backend for an event. True if there is something to do already.
    pub fn rearm(&mut self) -> bool {
        self.device.inner_mut().rearm()
    }

    /// After sleeping: notes whether it was the backend that ended it.
    pub fn count_events(&mut self, xen: Xen) {
        let fired = self.device.inner().ports().filter(|&port| xen.port_fired(port)).count();
        self.events += fired as u64;
    }

    /// When there is something to do though nothing happens.
    pub fn deadline(&mut self, xen: Xen) -> Option<platform::Instant> {
        let Vif { device, iface, sockets, addresses, services, .. } = self;
        let stack = device.poll_at(iface, sockets, xen.now());
        let above = [stack, addresses.deadline(), services.deadline()]
            .map(|at| at.map(platform::Instant::from));
        above.into_iter().chain([device.inner().next_deadline()]).flatten().min()
    }

    /// What there is to tell.
    pub fn status(&self) -> status::Vif {
        let net = self.device.inner();
        let offer = net.backend();
        status::Vif {
            number: self.number,
            up: net.link() == Link::Up,
            mac: address_of(&self.iface),
            mtu: net.mtu(),
            addresses: self.iface.ip_addrs().to_vec(),
            trusted: offer.trusted,
            agreed: Agreed {
                transmit: net.features(),
                receive: self.driver.features.coherent(),
                queues: net.queue_count(),
                split: net.ports().count() > net.queue_count(),
            },
            counters: *net.counters(),
            events: self.events,
            quarantined: net.quarantined(),
            adaptor: self.device.counters(),
            services: self.services.status(),
        }
    }

    /// Sends what is left of a datagram in fragments, as far as there is room.
    fn send_fragments(&mut self, now: Instant) {
        let mut nobody = SocketSet::new(&mut [][..]);
        let mut sent = false;
        while large::is_cutting(&mut self.iface, now) && self.device.transmit(now).is_some() {
            self.iface.poll_egress(now, &mut self.device, &mut nobody);
            sent = true;
        }
        if sent {
            self.device.flush();
        }
    }

    /// A vif may come back with another address, MTU or features than it had.
    fn follow(&mut self, xen: Xen) {
        let Vif { device, iface, sockets, addresses, .. } = self;
        let changes = device.follow(iface, || xen.random(), xen.now());
        if changes == Changes::NONE {
            return;
        }
        addresses.follow(changes, iface, sockets, xen.now().into());
        let (mac, mtu) = (iface.hardware_addr(), device.inner().mtu());
        log::info!("vif {}: {mac} mtu {mtu}", self.number);
    }

    fn note_link(&mut self) {
        let link = self.device.inner().link();
        if mem::replace(&mut self.link, link) != link {
            log::info!("vif {}: link {link:?}", self.number);
        }
    }
}

impl Services {
    fn new(sockets: &mut SocketSet<'static>, window: usize) -> Services {
        // All large buffers in one piece: one by one they would leave gaps between them that
        // nobody can use, and that count where memory is short.
        let echo = TcpEcho::receive_buffer(window);
        let mut windows: &'static mut [u8] = vec![0; CONNECTIONS * (3 * window + echo)].leak();
        let mut large = |size| windows.split_off_mut(..size).unwrap_or_default();
        let small = |size| vec![0; size].leak();
        Services {
            ping: Ping::new(sockets),
            udp_echo: UdpEcho::new(sockets),
            tcp_echo: Listener::new(sockets, CONNECTIONS, || [large(echo), large(window)]),
            tcp_discard: Listener::new(sockets, CONNECTIONS, || [large(window), small(REQUEST)]),
            tcp_chargen: Listener::new(sockets, CONNECTIONS, || [small(REQUEST), large(window)]),
            http: Listener::new(sockets, BROWSERS, || [small(REQUEST), small(ANSWER)]),
            forgotten: 0,
            scratch: vec![0; LARGEST_PACKET],
        }
    }

    fn turn(
        &mut self,
        iface: &mut Interface,
        sockets: &mut SocketSet<'_>,
        mtu: usize,
        now: Instant,
    ) -> bool {
        let queued = self.ping.is_sending(sockets) || self.udp_echo.is_sending(sockets);
        let mut large = Large::new(iface, mtu, now, queued);
        // Each of them has its turn.
        let moved = [
            self.ping.turn(sockets, iface, &mut large, &mut self.scratch),
            self.udp_echo.turn(sockets, &mut large, &mut self.scratch),
            self.tcp_echo.turn(sockets, now, &mut &mut *self.scratch),
            self.tcp_discard.turn(sockets, now, &mut self.forgotten),
            self.tcp_chargen.turn(sockets, now, &mut ()),
            self.http.turn(sockets, now, &mut None),
        ];
        moved.contains(&true)
    }

    fn deadline(&self) -> Option<Instant> {
        let listeners = [
            self.tcp_echo.deadline(),
            self.tcp_discard.deadline(),
            self.tcp_chargen.deadline(),
            self.http.deadline(),
        ];
        listeners.into_iter().flatten().min()
    }

    fn status(&self) -> Vec<status::Service> {
        fn tcp<C: Connection>(name: &'static str, listener: &Listener<C>) -> status::Service {
            status::Service { name, connected: listener.connected(), served: listener.served() }
        }
        let datagrams = |name, served| status::Service { name, connected: 0, served };
        vec![
            datagrams("ping", self.ping.answered()),
            datagrams("udp_echo", self.udp_echo.answered()),
            tcp("tcp_echo", &self.tcp_echo),
            tcp("tcp_discard", &self.tcp_discard),
            tcp("tcp_chargen", &self.tcp_chargen),
            tcp("http", &self.http),
        ]
    }
}
