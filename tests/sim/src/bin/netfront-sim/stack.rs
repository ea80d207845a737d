//! The smoltcp stack of a domain: one interface, two TCP sockets, on any device.

use core::time::Duration;

use packet_views::device::NetDevice;
use packet_views::phy::Device;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::socket::tcp;
use smoltcp::wire::{EthernetAddress, IpAddress, IpCidr, Ipv4Address};
use xen_netfront::platform::{Instant, Platform};
use xen_sim::Domain;

/// Where the backend takes an upload (the discard port, though it looks at every byte).
pub const UPLOAD_PORT: u16 = 9;
/// Where the backend gives a download (the character generator's port).
pub const DOWNLOAD_PORT: u16 = 19;

/// Virtual time that the stack takes for a packet, in the order of what real ones take. It runs in
/// no virtual time otherwise.
const PER_PACKET: Duration = Duration::from_micros(1);

/// Bytes that each socket buffers each way.
const BUFFER: usize = 256 << 10;

/// How long a peer may be silent before a connection is given up.
const GIVE_UP: smoltcp::time::Duration = smoltcp::time::Duration::from_secs(20);

/// The network between a client and its backend.
#[derive(Clone, Copy, Debug)]
pub struct Network {
    /// The client's address.
    pub client: Ipv4Address,
    /// The backend's.
    pub server: Ipv4Address,
    /// What the client's port and sequence numbers come from.
    pub seed: u64,
}

impl Network {
    /// Client number `index`, from 0 on, has a network of its own.
    pub fn new(index: u8, seed: u64) -> Network {
        let [client, server] = [1, 2].map(|host| Ipv4Address::new(10, 0, index, host));
        Network { client, server, seed }
    }
}

/// A device and the stack on top of it.
pub struct Stack<N: NetDevice> {
    /// The device: of any kind.
    pub device: Device<N>,
    /// The interface.
    pub iface: Interface,
    sockets: SocketSet<'static>,
    upload: SocketHandle,
    download: SocketHandle,
    domain: Domain,
    /// Packets that have been paid for in virtual time.
    packets: u64,
}

impl<N: NetDevice> Stack<N> {
    /// A stack in this domain with these addresses; the same seed gives the same port and
    /// sequence numbers. The device is up.
    pub fn new(domain: &Domain, net: N, mac: [u8; 6], ip: Ipv4Address, seed: u64) -> Stack<N> {
        let now = domain.now().into();
        let mut device = Device::new(net);
        let mut config = Config::new(EthernetAddress(mac).into());
        config.random_seed = seed;
        let mut iface = Interface::new(config, &mut device, now);
        iface.update_ip_addrs(|addresses| {
            // A new interface has room for it.
            let _ = addresses.push(IpCidr::new(IpAddress::Ipv4(ip), 24));
        });
        let mut sockets = SocketSet::new(Vec::with_capacity(2));
        let buffer = || tcp::SocketBuffer::new(vec![0; BUFFER]);
        let mut socket = || {
            let mut socket = tcp::Socket::new(buffer(), buffer());
            socket.set_timeout(Some(GIVE_UP));
            socket.set_keep_alive(Some(GIVE_UP / 4));
            sockets.add(socket)
        };
        let (upload, download) = (socket(), socket());
        Stack { device, iface, sockets, upload, download, domain: domain.clone(), packets: 0 }
    }

    /// The largest IP packet.
    pub fn mtu(&self) -> usize {
        self.device.inner().mtu()
    }

    /// The upload's socket.
    pub fn upload(&mut self) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(self.upload)
    }

    /// The download's socket.
    pub fn download(&mut self) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(self.download)
    }

    /// Connects both sockets to the server.
    pub fn connect(&mut self, server: Ipv4Address) -> Result<(), tcp::ConnectError> {
        for (socket, port) in [(self.upload, UPLOAD_PORT), (self.download, DOWNLOAD_PORT)] {
            let socket = self.sockets.get_mut::<tcp::Socket<'_>>(socket);
            socket.connect(self.iface.context(), (server, port), 49152 + port)?;
        }
        Ok(())
    }

    /// Waits for a client on both sockets.
    pub fn listen(&mut self) -> Result<(), tcp::ListenError> {
        self.upload().listen(UPLOAD_PORT)?;
        self.download().listen(DOWNLOAD_PORT)
    }

    /// Has the stack handle what has come.
    pub fn receive(&mut self, now: Instant) {
        self.device.poll_ingress(&mut self.iface, &mut self.sockets, now);
    }

    /// Has the stack send what there is to send, and tells the peer of all of it.
    pub fn send(&mut self, now: Instant) {
        self.device.poll_egress(&mut self.iface, &mut self.sockets, now);
        let counters = self.device.inner().totals();
        let packets = counters.rx_packets + counters.tx_packets;
        let new = u32::try_from(packets - self.packets).unwrap_or(u32::MAX);
        self.domain.charge(PER_PACKET * new);
        self.packets = packets;
    }

    /// When the stack wants to be polled though nothing has come. `None` if it only waits, maybe
    /// for room to transmit.
    pub fn next_deadline(&mut self, now: Instant) -> Option<Instant> {
        let at = Instant::from(self.iface.poll_at(now.into(), &self.sockets)?);
        // It has something to send right now, and has just been asked: the device was full.
        (at > now).then_some(at)
    }
}
