//! A machine with one vif, the backend at one end of it, and packets to give that.

use xen_grant::{DomId, FramePool, PAGE_SIZE};
use xen_netfront::buffer::{Buf, Packet, PacketMut};
use xen_netfront::netback::{Config, Netback};
use xen_sim::{Domain, Host, Toolstack, Vif};

use super::{BACK, Back, CLIENT, Client, Features, bytes};

/// A machine with one vif, and our end of it.
pub struct Bench {
    pub host: Host,
    pub toolstack: Toolstack,
    pub vif: Vif,
    pub back: Domain,
    pub pool: FramePool,
    pub netback: Back,
}

impl Bench {
    pub fn new(config: Config, frames: usize) -> Bench {
        Bench::on(&Host::new(1), CLIENT, config, frames)
    }

    pub fn on(host: &Host, client: DomId, config: Config, frames: usize) -> Bench {
        let back = host.add_domain(BACK, 4096);
        host.add_domain(client, 4096);
        let pool = FramePool::new(&back, frames).unwrap();
        let vif = Vif::new(client, BACK, 0);
        let toolstack = host.toolstack();
        toolstack.add_vif(&vif);
        let netback = Netback::open(back.clone(), back.clone(), &pool, client, 0, config).unwrap();
        Bench { host: host.clone(), toolstack, vif, back, pool, netback }
    }

    /// A connected client that takes everything.
    pub fn with_client(config: Config, frames: usize) -> (Bench, Client) {
        let mut bench = Bench::new(config, frames);
        let mut client = Client::new(&bench.host, &bench.vif, 0);
        client.connect(&mut bench.netback, &Features::default());
        (bench, client)
    }

    /// Everything the client has sent.
    pub fn poll(&mut self) -> Vec<Vec<u8>> {
        self.poll_packets().iter().map(bytes).collect()
    }

    pub fn poll_packets(&mut self) -> Vec<PacketMut> {
        let mut packets = Vec::new();
        self.netback.poll(10_000, |packet| packets.push(packet));
        packets
    }

    /// A packet of ours, cut at these places.
    pub fn packet(&self, bytes: &[u8], cuts: &[usize]) -> Packet {
        let mut packet = Packet::new();
        let mut start = 0;
        for &end in cuts.iter().chain([&bytes.len()]) {
            let part = &bytes[start..end];
            let offset = (PAGE_SIZE - part.len()) / 2;
            let mut frame = self.pool.take().expect("the pool is large enough");
            frame.range_mut(offset..offset + part.len()).unwrap().copy_from_slice(part);
            packet.push(Buf::new(frame.share(), offset..offset + part.len()).unwrap()).unwrap();
            start = end;
        }
        packet
    }

    /// A packet of ours in as few pages as it takes.
    pub fn plain(&self, bytes: &[u8]) -> Packet {
        let cuts: Vec<usize> =
            (1..bytes.len().div_ceil(PAGE_SIZE)).map(|n| n * PAGE_SIZE).collect();
        self.packet(bytes, &cuts)
    }
}
