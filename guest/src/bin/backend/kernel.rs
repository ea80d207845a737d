//! The kernel's main: serves clients and forwards, and sleeps when there is nothing to do.

use xen_grant::FramePool;
use xen_guest::{Suspended, Xen};
use xen_netfront::netback;
use xen_netfront::netfront;
use xen_netfront::platform::Platform;
use xen_netfront::xenbus::VifId;

use super::clients::Clients;
use super::memory::Sizes;
use super::options::Options;
use super::switch::{Switch, Way};
use super::uplink::Uplink;

/// Stations behind a client, which may be a bridge itself, and behind the uplink.
const STATIONS_OF_CLIENT: usize = 64;
const STATIONS_OF_UPLINK: usize = 1024;
/// Pages that may wait for a client.
const QUEUE_FRAMES: usize = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Port {
    Uplink,
    Client(VifId),
}

/// The kernel's main.
pub fn run(xen: Xen) -> xen_guest::Result {
    let options = Options::parse(xen.command_line(), |bad| log::warn!("{bad}"));
    let ours = netfront::Config::default().with_features(options.uplink_features);
    let theirs = netback::Config::default()
        .with_features(options.features)
        .with_max_queues(options.queues)
        .with_queue_frames(QUEUE_FRAMES);
    let sizes = Sizes::of(xen.free_memory(), options.uplink.map(|_| &ours), &theirs)
        .ok_or("not enough memory for a client")?;
    log::info!("room for {} clients, each with {} pages", sizes.clients, sizes.client);

    let mut switch = Switch::new();
    let mut uplink = None;
    if let Some(number) = options.uplink {
        let pool = FramePool::new(&xen, sizes.uplink)?;
        uplink = Some(Uplink::open(xen, &pool, number, ours)?);
        switch.add(Port::Uplink, STATIONS_OF_UPLINK);
    }
    let clients = Clients::open(xen, theirs, sizes.client, sizes.clients)?;
    Kernel { xen, clients, uplink, switch }.serve()
}

struct Kernel {
    xen: Xen,
    clients: Clients,
    uplink: Option<Uplink>,
    switch: Switch<Port>,
}

impl Kernel {
    fn serve(mut self) -> xen_guest::Result {
        loop {
            self.obey();
            self.service();
            if !self.forward() && !self.rearm() {
                self.xen.wait(self.next_deadline());
            }
        }
    }

    fn service(&mut self) {
        let news = self.clients.service();
        for vif in news.gone {
            self.switch.remove(Port::Client(vif));
        }
        for vif in news.come {
            self.switch.add(Port::Client(vif), STATIONS_OF_CLIENT);
        }
        if let Some(uplink) = &mut self.uplink {
            uplink.service();
        }
    }

    /// A turn for everybody; whether anything moved.
    fn forward(&mut self) -> bool {
        let Kernel { xen, clients, uplink, switch } = self;
        let now = xen.now();
        let mut busy = false;
        if let Some(uplink) = uplink {
            busy |= uplink.receive(|packet| match switch.way(Port::Uplink, packet.head(), now) {
                Way::To(Port::Client(vif)) => clients.deliver(vif, packet),
                Way::ToAll => clients.deliver_all(None, &packet),
                Way::To(Port::Uplink) | Way::Nowhere(_) => {}
            });
        }
        // Both closures have the uplink, one at a time.
        let uplink = core::cell::RefCell::new(uplink.as_mut());
        let room = || uplink.borrow_mut().as_mut().map_or(usize::MAX, |uplink| uplink.room());
        busy |= clients.turn(room, |others, from, packet| {
            let mut uplink = uplink.borrow_mut();
            match (switch.way(Port::Client(from), packet.head(), now), &mut *uplink) {
                (Way::To(Port::Client(vif)), _) => others.deliver(vif, packet.freeze()),
                (Way::To(Port::Uplink), Some(uplink)) => uplink.send(packet),
                (Way::ToAll, uplink) => {
                    let packet = packet.freeze();
                    if let Some(uplink) = uplink {
                        uplink.send_copy(&packet);
                    }
                    others.deliver_all(Some(from), &packet);
                }
                (Way::To(Port::Uplink), None) | (Way::Nowhere(_), _) => {}
            }
        });
        clients.flush();
        if let Some(uplink) = uplink.into_inner() {
            uplink.flush();
        }
        busy
    }

    fn rearm(&mut self) -> bool {
        // Every one is to be armed, whatever the first says.
        let uplink = self.uplink.as_mut().is_some_and(Uplink::rearm);
        self.clients.rearm() | uplink
    }

    fn next_deadline(&self) -> Option<xen_netfront::platform::Instant> {
        let uplink = self.uplink.as_ref().and_then(Uplink::next_deadline);
        uplink.into_iter().chain(self.clients.next_deadline()).min()
    }

    /// Does what the toolstack asks for, and reports what anybody at the console asks for.
    fn obey(&mut self) {
        if self.xen.console_read(&mut [0; 64]) > 0 {
            self.report();
        }
        let Some(asked) = self.xen.shutdown_request() else { return };
        self.report();
        if self.xen.obey(asked) == Suspended::Resumed
            && let Some(uplink) = &mut self.uplink
        {
            uplink.resumed();
        }
    }

    fn report(&self) {
        log::info!("{} stations are known", self.switch.stations());
        if let Some(uplink) = &self.uplink {
            uplink.report();
        }
        self.clients.report();
    }
}
