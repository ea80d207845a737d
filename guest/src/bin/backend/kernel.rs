//! The kernel's main: serves clients and forwards, and sleeps when there is nothing to do.

use core::time::Duration;

use xen_grant::FramePool;
use xen_guest::shutdown::Request;
use xen_guest::{Suspended, Xen};
use xen_netfront::buffer::{Packet, PacketMut};
use xen_netfront::netback::{self, Budget, ClientId};
use xen_netfront::netfront;
use xen_netfront::platform::{Instant, Platform};

use super::memory::Sizes;
use super::news::{self, Clients, News};
use super::options::Options;
use super::switch::{Switch, Way};
use super::uplink::Uplink;

/// Stations behind a client, which may be a bridge itself, and behind the uplink.
const STATIONS_OF_CLIENT: usize = 64;
const STATIONS_OF_UPLINK: usize = 1024;
/// Work that a turn of a client is, in packets of one slot.
const BUDGET: usize = 64;
/// How long clients have to let go of us before we stop.
const FAREWELL: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Port {
    Uplink,
    Client(ClientId),
}

/// The kernel's main.
pub fn run(xen: Xen) -> xen_guest::Result {
    let options = Options::parse(xen.command_line(), |bad| log::warn!("{bad}"));
    let ours = netfront::Config::default().with_features(options.uplink_features);
    let theirs =
        netback::Config::default().with_features(options.features).with_max_queues(options.queues);
    let sizes = Sizes::of(xen.free_memory(), options.uplink.map(|_| &ours), &theirs)
        .ok_or("not enough memory for a client")?;
    log::info!("room for {} clients, which share {} pages", sizes.clients, sizes.pages);

    let mut switch = Switch::new();
    let mut uplink = None;
    if let Some(number) = options.uplink {
        let pool = FramePool::new(&xen, sizes.uplink)?;
        uplink = Some(Uplink::open(xen, &pool, number, ours)?);
        switch.add(Port::Uplink, STATIONS_OF_UPLINK);
    }
    let budget = Budget::dividing(sizes.pages, sizes.clients)?;
    let clients = Clients::open(xen, xen, &FramePool::new(&xen, sizes.pages)?, &budget, theirs)?;
    Kernel { xen, clients, uplink, switch, news: News::default() }.serve()
}

struct Kernel {
    xen: Xen,
    clients: Clients,
    uplink: Option<Uplink>,
    switch: Switch<Port>,
    news: News,
}

impl Kernel {
    fn serve(mut self) -> ! {
        loop {
            self.obey();
            if !self.turn() && !self.rearm() {
                let deadline = self.next_deadline();
                self.xen.wait(deadline);
            }
        }
    }

    /// A turn for everybody; whether anything moved.
    fn turn(&mut self) -> bool {
        let began = self.xen.now();
        let mut moved = self.forward_from_uplink(began);
        moved |= self.forward_from_clients(began);
        self.clients.flush();
        if let Some(uplink) = &mut self.uplink {
            uplink.flush();
        }
        let switch = &mut self.switch;
        self.news.follow(&mut self.clients, began, self.xen, |client| {
            switch.remove(Port::Client(client))
        });
        moved
    }

    fn forward_from_uplink(&mut self, now: Instant) -> bool {
        let Kernel { clients, uplink, switch, news, .. } = self;
        let Some(uplink) = uplink else { return false };
        uplink.service();
        uplink.receive(|packet| match switch.way(Port::Uplink, packet.head(), now) {
            Way::To(Port::Client(client)) => deliver(clients, client, packet),
            Way::ToAll => to_all(clients, news, None, &packet),
            Way::To(Port::Uplink) | Way::Nowhere(_) => {}
        })
    }

    fn forward_from_clients(&mut self, now: Instant) -> bool {
        let Kernel { clients, uplink, switch, news, .. } = self;
        // What could not leave waits where it is, and its sender with it.
        let is_full = uplink.as_mut().is_some_and(|uplink| !uplink.has_room());
        clients.pause_receive(is_full);
        clients.turn(BUDGET, |clients, from, packet: PacketMut| {
            switch.add(Port::Client(from), STATIONS_OF_CLIENT);
            match (switch.way(Port::Client(from), packet.head(), now), &mut *uplink) {
                (Way::To(Port::Client(client)), _) => deliver(clients, client, packet.freeze()),
                (Way::To(Port::Uplink), Some(uplink)) => {
                    uplink.send(packet);
                    if !uplink.has_room() {
                        clients.pause_receive(true);
                    }
                }
                (Way::ToAll, uplink) => {
                    let packet = packet.freeze();
                    if let Some(uplink) = uplink {
                        uplink.send_copy(&packet);
                    }
                    to_all(clients, news, Some(from), &packet);
                }
                (Way::To(Port::Uplink), None) | (Way::Nowhere(_), _) => {}
            }
        }) > 0
    }

    fn rearm(&mut self) -> bool {
        // Every one is to be armed, whatever the first says.
        let uplink = self.uplink.as_mut().is_some_and(Uplink::rearm);
        self.clients.rearm() | uplink
    }

    fn next_deadline(&mut self) -> Option<Instant> {
        let uplink = self.uplink.as_ref().and_then(Uplink::next_deadline);
        uplink.into_iter().chain(self.clients.next_deadline()).min()
    }

    /// Does what the toolstack asks for, and reports when anybody types something at the console.
    fn obey(&mut self) {
        if self.xen.console_read(&mut [0; 64]) > 0 {
            self.report();
        }
        let Some(asked) = self.xen.shutdown_request() else { return };
        if asked != Request::Suspend {
            self.leave();
        }
        if self.xen.obey(asked) == Suspended::Resumed {
            self.clients.resumed();
            if let Some(uplink) = &mut self.uplink {
                uplink.resumed();
            }
        }
    }

    /// Before the domain stops: its clients are to know that nobody serves them now.
    fn leave(&mut self) {
        self.report();
        self.clients.close();
        let end = self.xen.now() + FAREWELL;
        while !self.clients.is_closed() && self.xen.now() < end {
            if !self.turn() && !self.rearm() {
                let deadline = self.next_deadline().map_or(end, |at| at.min(end));
                self.xen.wait(Some(deadline));
            }
        }
    }

    fn report(&self) {
        log::info!("{} stations are known", self.switch.stations());
        if let Some(uplink) = &self.uplink {
            uplink.report();
        }
        news::report_all(&self.clients);
    }
}

fn deliver(clients: &mut Clients, to: ClientId, packet: Packet) {
    // It counts what it drops, and what it gives back, which is dropped here.
    let _ = clients.deliver(to, packet);
}

fn to_all(clients: &mut Clients, news: &News, but: Option<ClientId>, packet: &Packet) {
    for client in news.connected.iter().filter(|client| Some(**client) != but) {
        deliver(clients, *client, packet.clone());
    }
}
