//! A kernel that answers ping and echoes TCP (port 7, RFC 862) on its first vif.
//!
//! Command line: `ip=ADDR/LEN gw=ADDR log=LEVEL`.
#![cfg_attr(target_os = "none", no_std, no_main)]

xen_guest::main!(echo::run);

#[cfg(target_os = "none")]
extern crate alloc;

#[cfg(target_os = "none")]
mod echo {
    use alloc::vec;

    use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
    use smoltcp::socket::tcp;
    use smoltcp::time::Instant;
    use smoltcp::wire::{EthernetAddress, IpCidr};
    use xen_grant::{FramePool, GrantTable};
    use xen_guest::{Xen, options::Options};
    use xen_netfront::netfront::{self, Link, Netfront};
    use xen_netfront::netif::Netif;
    use xen_netfront::phy::Device;
    use xen_netfront::platform::{self, Platform};

    /// Pages for packets: both rings full, and some that the stack holds.
    const PAGES: usize = 640;
    const PORT: u16 = 7;
    /// How many may talk to us at once.
    const CONNECTIONS: usize = 4;
    /// Bytes on their way, in each direction of a connection.
    const WINDOW: usize = 256 * 1024;

    pub fn run(xen: Xen) {
        let options = Options::parse(xen.command_line(), |bad| log::warn!("{bad}"));
        if let Err(error) = serve(xen, &options) {
            log::error!("{error}");
        }
    }

    fn serve(xen: Xen, options: &Options) -> Result<(), &'static str> {
        let (address, prefix) = options.ip.ok_or("no address: ip=ADDR/LEN is missing")?;
        let net = connect(xen)?;
        let mut device = Device::new(net);
        let mac = EthernetAddress(device.netif().mac().0);
        let mtu = device.netif().mtu();

        let mut config = Config::new(mac.into());
        config.random_seed = xen.random();
        let mut iface = Interface::new(config, &mut device, time(xen.now()));
        iface.update_ip_addrs(|list| {
            // The list is empty, and it has room for one.
            let _ = list.push(IpCidr::new(address.into(), prefix));
        });
        if let Some(gateway) = options.gw {
            let route = iface.routes_mut().add_default_ipv4_route(gateway);
            route.map_err(|_| "no room for a route")?;
        }
        let mut sockets = SocketSet::new(vec![]);
        let buffer = || tcp::SocketBuffer::new(vec![0; WINDOW]);
        let handles = [(); CONNECTIONS].map(|()| sockets.add(tcp::Socket::new(buffer(), buffer())));
        log::info!("{mac} mtu {mtu}: {address}/{prefix} answers ping and TCP port {PORT}");

        let mut scratch = vec![0; 16 * 1024];
        let mut link = Link::Up;
        loop {
            device.netif_mut().service();
            device.netif_mut().complete_tx();
            if core::mem::replace(&mut link, device.netif().link()) != device.netif().link() {
                log::info!("link {link:?}");
            }
            device.poll(&mut iface, &mut sockets, time(xen.now()));
            let mut busy = false;
            for handle in handles {
                busy |= echo(&mut sockets, handle, &mut scratch);
            }
            if !busy && !device.netif_mut().rearm() {
                let next = iface.poll_at(time(xen.now()), &sockets).map(moment);
                let next = next.into_iter().chain(device.netif().next_deadline()).min();
                xen.wait(next);
            }
        }
    }

    /// The first vif, connected.
    fn connect(xen: Xen) -> Result<Netfront<Xen, Xen>, &'static str> {
        let pool = FramePool::new(&xen, PAGES).map_err(|_| "not enough memory for packets")?;
        let table = GrantTable::new(&xen);
        let config = netfront::Config::default();
        let mut net = Netfront::open(xen, xen, &pool, &table, 0, config).map_err(|error| {
            log::error!("vif 0: {error}");
            "no vif"
        })?;
        loop {
            net.service();
            if net.link() == Link::Up {
                return Ok(net);
            }
            xen.wait(net.next_deadline());
        }
    }

    /// Sends back what a peer has sent. Whether that was anything.
    fn echo(sockets: &mut SocketSet<'_>, handle: SocketHandle, scratch: &mut [u8]) -> bool {
        let socket = sockets.get_mut::<tcp::Socket>(handle);
        if !socket.is_open() {
            return socket.listen(PORT).is_ok();
        }
        let room = (socket.send_capacity() - socket.send_queue()).min(scratch.len());
        let count = if socket.can_send() && socket.can_recv() {
            // Neither can fail: the socket is open both ways, and there is room.
            let count = socket.recv_slice(&mut scratch[..room]).unwrap_or(0);
            socket.send_slice(&scratch[..count]).unwrap_or(0)
        } else {
            0
        };
        // The peer has said all it had to say, and has it back.
        if count == 0 && socket.may_send() && !socket.may_recv() {
            socket.close();
            return true;
        }
        count > 0
    }

    /// The driver's clock as smoltcp's.
    fn time(now: platform::Instant) -> Instant {
        Instant::from_micros(i64::try_from(now.0 / 1000).unwrap_or(i64::MAX))
    }

    /// And back.
    fn moment(at: Instant) -> platform::Instant {
        platform::Instant(u64::try_from(at.total_micros()).unwrap_or(0).saturating_mul(1000))
    }
}
