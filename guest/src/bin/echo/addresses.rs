//! A vif's own addresses and its ways out: those that the command line says, and what is leased.
//!
//! ```text
//!  command line ──────────────┐
//!                             ├─► interface ─► announced, once a connection or lease
//!  server ─► socket ─► Lease ─┘
//! ```

use core::net::IpAddr;

use packet_views::announce::announce;
use packet_views::device::{Changes, NetDevice, WriteError};
use smoltcp::iface::{Interface, SocketSet};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpAddress, IpCidr, Ipv6Address};

use super::dhcp::{Dhcp, Lease};
use super::options::VifOptions;

/// How long a server has to say that what another connection's has leased is ours here, too: four times
/// it is asked.
const TIME_TO_ANSWER: Duration = Duration::from_secs(35);

/// They, and whether the neighbours know of them.
pub struct Addresses {
    /// The vif's number.
    vif: u32,
    options: VifOptions,
    dhcp: Option<Dhcp>,
    unannounced: bool,
}

impl Addresses {
    /// Gives the interface those that are known already; for the one that is not there is a socket.
    pub fn new(
        vif: u32,
        options: VifOptions,
        iface: &mut Interface,
        sockets: &mut SocketSet<'static>,
    ) -> Addresses {
        let dhcp = options.dhcp.then(|| Dhcp::new(sockets));
        if dhcp.is_some() {
            log::info!("vif {vif}: asks for an IPv4 address by DHCP");
        }
        let addresses = Addresses { vif, options, dhcp, unannounced: true };
        addresses.configure(iface);
        addresses
    }

    /// The device has changed. Behind another connection there may be another network, and the clock may
    /// have stood still meanwhile: what is leased is asked for anew. It stays for as long as that usually
    /// takes, with all connections to it, but for the one who has another hardware address now.
    pub fn follow(
        &mut self,
        changes: Changes,
        iface: &mut Interface,
        sockets: &mut SocketSet<'static>,
        now: Instant,
    ) {
        self.unannounced |= changes.connection;
        self.turn(iface, sockets, now);
        if let Some(dhcp) = &mut self.dhcp
            && (changes.connection || changes.mac)
        {
            dhcp.restart(sockets, if changes.mac { now } else { now + TIME_TO_ANSWER });
            self.turn(iface, sockets, now);
        }
        self.configure(iface);
    }

    /// Sees what a server has said, and how long ago; whether the interface has other addresses now.
    pub fn turn(
        &mut self,
        iface: &mut Interface,
        sockets: &mut SocketSet<'static>,
        now: Instant,
    ) -> bool {
        let Some(dhcp) = &mut self.dhcp else { return false };
        let is_other = dhcp.turn(sockets, now);
        if is_other {
            let vif = self.vif;
            match dhcp.lease() {
                Some(lease) => log::info!("vif {vif}: {lease}"),
                None => log::info!("vif {vif}: the leased address is given up"),
            }
            self.unannounced |= dhcp.lease().is_some();
            self.configure(iface);
        }
        is_other
    }

    /// When to call [`turn`](Addresses::turn) though the stack has nothing to do.
    pub fn deadline(&self) -> Option<Instant> {
        self.dhcp.as_ref()?.deadline()
    }

    /// Tells the neighbours where they are, if they don't know: the backend may be another, or the
    /// address.
    pub fn announce<N: NetDevice>(&mut self, iface: &Interface, net: &mut N) {
        if self.unannounced {
            let own = iface.ip_addrs().iter().map(|cidr| cidr.address().into());
            let done = announce(net, own);
            self.unannounced = matches!(done, Err(WriteError::Full | WriteError::NoMemory));
        }
    }

    /// What is leased now.
    pub fn lease(&self) -> Option<Lease> {
        self.dhcp.as_ref()?.lease()
    }

    /// Gives the interface its addresses and gateways. With any IPv6 address comes a link-local one
    /// (RFC 4291, appendix A), for neighbours expect that.
    fn configure(&self, iface: &mut Interface) {
        let mac = address_of(iface);
        let lease = self.lease();
        let own = &self.options.addresses;
        let has_v6 = own.iter().any(|cidr| matches!(cidr, IpCidr::Ipv6(_)));
        let link_local = has_v6.then(|| IpCidr::new(IpAddress::Ipv6(link_local(mac)), 64));
        let leased = lease.map(|lease| IpCidr::Ipv4(lease.address));
        iface.update_ip_addrs(|list| {
            list.clear();
            for cidr in own.iter().copied().chain(leased).chain(link_local) {
                // The options have made sure of room for theirs.
                let _ = list.push(cidr);
            }
        });
        let routes = iface.routes_mut();
        routes.remove_default_ipv4_route();
        let router = lease.and_then(|lease| lease.router).map(IpAddress::Ipv4);
        for gateway in self.options.gateways.iter().copied().chain(router) {
            // There is room for one of each kind, and one of each kind replaces the one before.
            let _ = match gateway {
                IpAddress::Ipv4(gateway) => routes.add_default_ipv4_route(gateway),
                IpAddress::Ipv6(gateway) => routes.add_default_ipv6_route(gateway),
            };
        }
    }
}

/// Whether an address can be a machine's.
pub fn is_one_machine(address: IpAddr) -> bool {
    let is_group = match address {
        IpAddr::V4(address) => address.is_multicast() || address.is_broadcast(),
        IpAddr::V6(address) => address.is_multicast(),
    };
    !is_group && !address.is_unspecified()
}

/// All devices here are Ethernet.
pub fn address_of(iface: &Interface) -> EthernetAddress {
    let HardwareAddress::Ethernet(mac) = iface.hardware_addr();
    mac
}

fn link_local(mac: EthernetAddress) -> Ipv6Address {
    let [a, b, c, d, e, f] = mac.0;
    let tail = [a ^ 2, b, c, 0xff, 0xfe, d, e, f];
    Ipv6Address::from_bits(0xfe80 << 112 | u128::from(u64::from_be_bytes(tail)))
}

#[cfg(test)]
mod tests;
