//! The vifs that this domain serves.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use packet_views::header::MacAddr;
use xen_grant::FramePool;
use xen_guest::Xen;
use xen_netfront::buffer::{Packet, PacketMut};
use xen_netfront::netback::{Config, Netback};
use xen_netfront::platform::{Instant, Platform};
use xen_netfront::store::StoreError;
use xen_netfront::xenbus::{self, VifId};

/// Work that a client's turn is at most, in packets of one slot.
const BUDGET: usize = 64;

pub struct Clients {
    xen: Xen,
    appear: xenbus::Clients<Xen>,
    vifs: Vifs,
    config: Config,
    pages: usize,
    most: usize,
    /// Whether nobody was polled lest the uplink be overrun.
    held_up: bool,
}

/// By number, each absent while it has its turn.
pub struct Vifs(BTreeMap<VifId, Option<Box<Client>>>);

struct Client {
    back: Netback<Xen, Xen>,
    connected: bool,
    /// When it was disconnected last.
    left: Option<Instant>,
}

/// Who has come and gone.
#[derive(Default)]
pub struct News {
    pub come: Vec<VifId>,
    pub gone: Vec<VifId>,
}

impl Clients {
    pub fn open(xen: Xen, config: Config, pages: usize, most: usize) -> Result<Clients, StoreError> {
        let appear = xenbus::Clients::open(xen)?;
        let vifs = Vifs(BTreeMap::new());
        Ok(Clients { xen, appear, vifs, config, pages, most, held_up: false })
    }

    /// Xenbus and timers.
    pub fn service(&mut self) -> News {
        let mut news = News::default();
        for vif in self.appear.poll(self.xen.now()).appeared {
            if self.vifs.0.contains_key(&vif) {
                continue;
            }
            match self.admit(vif) {
                Ok(back) => {
                    log::info!("domain {} vif {}: to be served", vif.0.0, vif.1);
                    self.vifs.0.insert(vif, Some(Box::new(Client { back, connected: false, left: None })));
                    news.come.push(vif);
                }
                Err(why) => log::warn!("domain {} vif {}: not served: {why}", vif.0.0, vif.1),
            }
        }
        for client in self.vifs.0.values_mut().flatten() {
            client.service(self.xen.now());
        }
        let gone = self.vifs.0.iter().filter(|(_, client)| {
            client.as_ref().is_none_or(|client| client.back.is_gone())
        });
        news.gone.extend(gone.map(|(vif, _)| *vif));
        for vif in &news.gone {
            if let Some(Some(client)) = self.vifs.0.remove(vif) {
                let took = client.left.map_or(0, |left| self.xen.now().since(left).as_millis());
                log::info!(
                    "domain {} vif {}: gone, {took} ms after it was disconnected", vif.0.0, vif.1
                );
                client.report();
            }
            self.appear.forget(*vif);
        }
        news
    }

    fn admit(&self, vif: VifId) -> Result<Netback<Xen, Xen>, &'static str> {
        if self.vifs.0.len() >= self.most {
            return Err("there are as many clients as fit the memory");
        }
        let pool = FramePool::new(&self.xen, self.pages).map_err(|_| "no memory for its pool")?;
        Netback::open(self.xen, self.xen, &pool, vif.0, vif.1, self.config).map_err(|error| {
            log::warn!("domain {} vif {}: {error}", vif.0.0, vif.1);
            "xenstore refuses"
        })
    }

    /// Hands what clients send to `sink`, to which `room` says for how much work there is room; whether
    /// there was any.
    pub fn turn(
        &mut self,
        mut room: impl FnMut() -> usize,
        mut sink: impl FnMut(&mut Vifs, VifId, PacketMut),
    ) -> bool {
        let mut busy = false;
        self.held_up = false;
        let numbers: Vec<VifId> = self.vifs.0.keys().copied().collect();
        for vif in numbers {
            let budget = room().min(BUDGET);
            if budget == 0 {
                self.held_up = true;
                break;
            }
            let Some(mut client) = self.vifs.0.get_mut(&vif).and_then(Option::take) else { continue };
            busy |= client.back.poll(budget, |packet| sink(&mut self.vifs, vif, packet)) > 0;
            self.vifs.0.insert(vif, Some(client));
        }
        busy
    }

    pub fn deliver(&mut self, to: VifId, packet: Packet) {
        self.vifs.deliver(to, packet);
    }

    pub fn deliver_all(&mut self, but: Option<VifId>, packet: &Packet) {
        self.vifs.deliver_all(but, packet);
    }

    pub fn flush(&mut self) {
        self.vifs.0.values_mut().flatten().for_each(|client| client.back.flush());
    }

    /// Before sleeping: asks for events. True if there is something to do already.
    pub fn rearm(&mut self) -> bool {
        if self.held_up {
            // The uplink's event is the next.
            return false;
        }
        let mut busy = false;
        for client in self.vifs.0.values_mut().flatten() {
            busy |= client.back.rearm();
        }
        busy
    }

    pub fn next_deadline(&self) -> Option<Instant> {
        let vifs = self.vifs.0.values().flatten().map(|client| client.back.next_deadline());
        vifs.chain([self.appear.next_deadline()]).flatten().min()
    }

    /// What has crossed them, for people.
    pub fn report(&self) {
        self.vifs.0.values().flatten().for_each(|client| client.report());
    }
}

impl Vifs {
    /// To one client, unless it is the one whose turn it is.
    pub fn deliver(&mut self, to: VifId, packet: Packet) {
        if let Some(Some(client)) = self.0.get_mut(&to) {
            // It counts what it does not deliver.
            let _ = client.back.deliver(packet);
        }
    }

    /// To all but one.
    pub fn deliver_all(&mut self, but: Option<VifId>, packet: &Packet) {
        for (vif, client) in &mut self.0 {
            if Some(*vif) != but && let Some(client) = client {
                let _ = client.back.deliver(packet.clone());
            }
        }
    }
}

impl Client {
    fn service(&mut self, now: Instant) {
        self.back.service();
        let connected = self.back.is_connected();
        if core::mem::replace(&mut self.connected, connected) == connected {
            return;
        }
        let (domain, vif) = self.back.id();
        if connected {
            let mac = MacAddr(self.back.client_mac().unwrap_or_default());
            let (mtu, queues) = (self.back.mtu(), self.back.queues());
            log::info!("domain {} vif {vif}: connected, {mac}, mtu {mtu}, queues {queues}", domain.0);
        } else {
            self.left = Some(now);
            log::info!("domain {} vif {vif}: disconnected", domain.0);
        }
    }

    fn report(&self) {
        let ((domain, vif), counters) = (self.back.id(), self.back.counters());
        log::info!(
            "domain {} vif {vif}: from it {} packets, {} bytes, {} dropped; to it {} packets, {} bytes, {} \
             dropped; connected {} times, {} faults",
            domain.0, counters.from_packets, counters.from_bytes, counters.from_drops.total(),
            counters.to_packets, counters.to_bytes, counters.to_drops.total(), counters.connects,
            counters.faults
        );
        if counters.from_drops.total() + counters.to_drops.total() > 0 {
            log::info!("domain {} vif {vif}: {:?}, {:?}", domain.0, counters.from_drops, counters.to_drops);
        }
    }
}
