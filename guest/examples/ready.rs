//! A kernel that awaits its vif, with no runtime but ten lines: answers pings at the address that
//! `ip=ADDR/LEN` says. Told to power off, it says how often its device has woken it.
#![cfg_attr(target_os = "none", no_std, no_main)]

xen_guest::main!(kernel::run);

#[cfg(target_os = "none")]
mod kernel {
    extern crate alloc;

    use alloc::sync::Arc;
    use alloc::task::Wake;
    use core::pin::pin;
    use core::sync::atomic::{AtomicU64, Ordering};
    use core::task::{Context, Poll, Waker};

    use smoltcp::iface::SocketSet;
    use smoltcp::wire::IpCidr;
    use xen_grant::{FramePool, GrantTable};
    use xen_guest::shutdown::Request;
    use xen_guest::{Suspended, Xen};
    use xen_netfront::netfront::Netfront;
    use xen_netfront::packet::device::{Link, NetDevice};
    use xen_netfront::packet::phy::Device;
    use xen_netfront::platform::{Instant, Platform};

    /// How often a task was woken.
    #[derive(Default)]
    struct Woken(AtomicU64);

    impl Wake for Woken {
        fn wake(self: Arc<Woken>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Runs a future to its end: `Some`. Or until a sleep has ended that woke nobody: what has come is
    /// the time, or an event that no task waits for, such as the toolstack's.
    fn block_on<F: Future>(
        xen: Xen,
        woken: &Arc<Woken>,
        until: Option<Instant>,
        future: F,
    ) -> Option<F::Output> {
        let waker = Waker::from(woken.clone());
        let mut future = pin!(future);
        loop {
            let before = woken.0.load(Ordering::Relaxed);
            if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
                return Some(output);
            }
            xen.wait(until);
            if woken.0.load(Ordering::Relaxed) == before {
                return None;
            }
        }
    }

    pub fn run(xen: Xen) -> xen_guest::Result {
        let ip = xen.option("ip").and_then(|ip| ip.parse::<IpCidr>().ok());
        let ip = ip.ok_or("ip=ADDR/LEN is missing")?;
        let pool = FramePool::new(&xen, 640)?;
        let table = GrantTable::new(&xen);
        let mut net = Netfront::open(xen, xen, &pool, &table, 0, Default::default())?;
        while net.service() == Link::Down {
            xen.wait(net.next_deadline());
        }

        let woken = Arc::new(Woken::default());
        let mut device = Device::new(net);
        let mut iface = device.interface(xen.random(), xen.now());
        iface.update_ip_addrs(|list| list.extend([ip]));
        let mut sockets = SocketSet::new([]);
        loop {
            if let Some(request) = xen.shutdown_request() {
                if request == Request::PowerOff {
                    log::info!("woken {} times", woken.0.load(Ordering::Relaxed));
                }
                if xen.obey(request) == Suspended::Resumed {
                    device.inner_mut().resumed();
                }
            }
            device.inner_mut().service();
            device.follow(&mut iface, || xen.random(), xen.now());
            device.poll(&mut iface, &mut sockets, xen.now());
            let stack = device.poll_at(&mut iface, &sockets, xen.now()).map(Into::into);
            let until = [stack, device.inner().next_deadline()].into_iter().flatten().min();
            block_on(xen, &woken, until, device.inner_mut().ready());
        }
    }
}
