//! What the firewall does with packets: it sends on, cut to size, what is meant for somebody, in the
//! page in which it came; drops the rest; and sends packets of its own.

use packet_views::device::NetDevice;
use packet_views::device::Permit;
use std::time::Duration;

use xen_netfront::buffer::{Buf, Packet, PacketMut};
use xen_netfront::netfront::Netfront;
use xen_sim::{Ctx, Domain, Next};

use super::Firewall;
use super::canary::{Control, Party, fill};

/// Packets taken from a vif in one go.
const BUDGET: usize = 32;

impl Firewall {
    pub fn run(&mut self, ctx: &mut Ctx<'_>) -> Next {
        for net in [&mut self.left, &mut self.right] {
            net.service();
            net.complete_tx();
        }
        self.client.service();
        let mut inbox = Vec::new();
        self.left.receive(BUDGET, |packet| inbox.push(packet));
        self.right.receive(BUDGET, |packet| inbox.push(packet));
        self.client.poll(BUDGET, |packet| inbox.push(packet.freeze()));
        for packet in inbox {
            let control = Control::parse(packet.head());
            if let Some(Control { to: Some(to), skip, keep }) = control {
                self.send(to, cut(packet, skip, keep));
            }
        }
        for _ in 0..self.rng.usize(..3) {
            self.send_own();
        }
        let again = self.left.rearm() | self.right.rearm() | self.client.rearm();
        match again {
            true => Next::Now,
            // There is always something of our own to send.
            false => Next::WaitUntil(ctx.now + Duration::from_micros(30)),
        }
    }

    fn send(&mut self, to: Party, packet: Packet) {
        let net = match to {
            Party::Left => &mut self.left,
            Party::Right => &mut self.right,
            Party::Client => {
                let _refused = self.client.deliver(packet);
                return;
            }
            Party::Firewall => return,
        };
        let came_in: Vec<u32> = match self.watches_pages {
            true => packet.fragments().iter().map(page).collect(),
            false => Vec::new(),
        };
        if let Ok(packet) = packet.try_into_mut()
            && transmit(net, packet)
        {
            let granted = self.domain.grants();
            for frame in came_in {
                let peer = net.backend().domain;
                let there = granted.iter().any(|(_, e)| e.frame == frame && e.permits(peer));
                *(if there { &mut self.forwarded.0 } else { &mut self.forwarded.1 }) += 1;
            }
        }
    }

    /// A packet in the middle of a page of secrets.
    fn send_own(&mut self) {
        let (net, to) = match self.rng.bool() {
            true => (&mut self.left, Party::Left),
            false => (&mut self.right, Party::Right),
        };
        let Some(mut buf) = net.alloc(0) else { return };
        fill(buf.append(4096).unwrap(), Party::Firewall, None);
        let len = self.rng.usize(60..=self.largest.min(4000));
        buf.pull_front(self.rng.usize(..=4096 - len)).unwrap();
        buf.truncate(len);
        fill(buf.bytes_mut(), Party::Firewall, Some(to));
        transmit(net, PacketMut::from(buf));
    }
}

/// False if there is no room, or it can't be sent.
fn transmit(net: &mut Netfront<Domain, Domain>, packet: PacketMut) -> bool {
    let permit = net.reserve(packet.fragments().len());
    permit.is_some_and(|mut permit| permit.send(packet).is_ok())
}

/// The number of the page in which a fragment lies.
fn page(fragment: &Buf) -> u32 {
    fragment.clone().into_parts().0.gfn().0 as u32
}

/// The packet without its first `skip` bytes, and with `keep` of the rest.
fn cut(packet: Packet, mut skip: usize, mut keep: usize) -> Packet {
    let mut rest = Packet::new();
    for mut fragment in packet.into_fragments() {
        let front = skip.min(fragment.len());
        fragment.advance(front).unwrap();
        skip -= front;
        fragment.truncate(keep);
        keep -= fragment.len();
        if !fragment.is_empty() {
            rest.push(fragment).unwrap();
        }
    }
    rest
}
