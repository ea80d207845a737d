//! What is told of clients: who comes, connects and goes, and what has crossed their vifs.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use packet_views::header::MacAddr;
use xen_guest::Xen;
use xen_netfront::netback::{self, ClientChange, ClientId, Counters};
use xen_netfront::platform::{Instant, Platform};
use xen_netfront::xenbus::VifId;

pub type Clients = netback::Clients<Xen, Xen>;

/// Clients that were told of, and those that packets go to.
#[derive(Default)]
pub struct News {
    known: BTreeMap<ClientId, Known>,
    pub connected: Vec<ClientId>,
}

struct Known {
    vif: VifId,
    /// When it was disconnected last.
    left: Option<Instant>,
}

impl News {
    /// Takes note of what a turn that began at `began` has changed, and tells it; `lost` hears of clients
    /// that are not connected any more.
    pub fn follow(
        &mut self,
        clients: &mut Clients,
        began: Instant,
        xen: Xen,
        mut lost: impl FnMut(ClientId),
    ) {
        while let Some((client, change)) = clients.next_change() {
            match change {
                ClientChange::Appeared => {
                    let Some(vif) = clients.vif_id(client) else { continue };
                    log::info!("{}: to be served", name(vif));
                    self.known.insert(client, Known { vif, left: None });
                }
                ClientChange::Connected => {
                    self.connected.push(client);
                    let Some(vif) = clients.vif(client) else { continue };
                    let mac = MacAddr(vif.client_mac().unwrap_or_default());
                    let (mtu, queues) = (vif.mtu(), vif.queues());
                    log::info!("{}: connected, {mac}, mtu {mtu}, queues {queues}", name(vif.id()));
                }
                ClientChange::Disconnected => {
                    self.connected.retain(|other| *other != client);
                    lost(client);
                    if let Some(known) = self.known.get_mut(&client) {
                        known.left = Some(began);
                        log::info!("{}: disconnected", name(known.vif));
                    }
                }
                ClientChange::Gone { vif, counters } => {
                    self.connected.retain(|other| *other != client);
                    lost(client);
                    let left = self.known.remove(&client).and_then(|known| known.left);
                    let since = xen.now().since(left.unwrap_or(began)).as_millis();
                    log::info!("{}: gone, {since} ms after it was disconnected", name(vif));
                    report(vif, &counters);
                }
                _ => {}
            }
        }
    }
}

/// What has crossed the clients' vifs, for people.
pub fn report_all(clients: &Clients) {
    clients.iter().for_each(|(_, vif)| report(vif.id(), vif.counters()));
}

fn report(vif: VifId, counters: &Counters) {
    let name = name(vif);
    log::info!(
        "{name}: from it {} packets, {} bytes, {} dropped; to it {} packets, {} bytes, {} dropped; connected \
         {} times, {} faults",
        counters.from_packets,
        counters.from_bytes,
        counters.from_drops.total(),
        counters.to_packets,
        counters.to_bytes,
        counters.to_drops.total(),
        counters.connects,
        counters.faults
    );
    if counters.from_drops.total() + counters.to_drops.total() > 0 {
        log::info!("{name}: {:?}, {:?}", counters.from_drops, counters.to_drops);
    }
}

fn name((domain, vif): VifId) -> impl core::fmt::Display {
    alloc::format!("domain {} vif {vif}", domain.0)
}
