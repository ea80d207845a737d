//! A whole kernel: answers pings on its first vif, at the address that `ip=ADDR/LEN` says, and does
//! what `xl` asks for.
#![cfg_attr(target_os = "none", no_std, no_main)]

xen_guest::main!(hello);

#[cfg(target_os = "none")]
fn hello(xen: xen_guest::Xen) -> xen_guest::Result {
    use smoltcp::iface::SocketSet;
    use smoltcp::wire::IpCidr;
    use xen_grant::{FramePool, GrantTable};
    use xen_guest::Suspended;
    use xen_netfront::netfront::Netfront;
    use xen_netfront::packet::device::Link;
    use xen_netfront::{packet::phy::Device, platform::Platform};

    let ip = xen.option("ip").and_then(|ip| ip.parse::<IpCidr>().ok());
    let ip = ip.ok_or("ip=ADDR/LEN is missing")?;
    let pool = FramePool::new(&xen, 640)?; // every page that packets will ever use
    let table = GrantTable::new(&xen);
    let mut net = Netfront::open(xen, xen, &pool, &table, 0, Default::default())?;
    while net.service() == Link::Down {
        xen.wait(net.next_deadline());
    }

    let mut device = Device::new(net);
    let mut iface = device.interface(xen.random(), xen.now());
    iface.update_ip_addrs(|list| list.extend([ip]));
    let mut sockets = SocketSet::new([]); // those of a server go here
    log::info!("{} answers pings to {ip}", iface.hardware_addr());
    loop {
        if xen.shutdown_request().map(|asked| xen.obey(asked)) == Some(Suspended::Resumed) {
            device.inner_mut().resumed();
        }
        device.inner_mut().service(); // connects again, if need be
        device.follow(&mut iface, || xen.random(), xen.now()); // maybe to another network
        device.poll(&mut iface, &mut sockets, xen.now());
        if !device.inner_mut().rearm() {
            let stack = device.poll_at(&mut iface, &sockets, xen.now()).map(Into::into);
            xen.wait([stack, device.inner().next_deadline()].into_iter().flatten().min());
        }
    }
}
