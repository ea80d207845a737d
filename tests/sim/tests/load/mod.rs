//! A frontend under load and the backend that answers it, turn by turn, with everything counted.
#![allow(dead_code)]

use packet_views::device::NetDevice;
use packet_views::device::Permit;
use std::cell::RefMut;
use std::time::Duration;

use packet_views::buffer::Meta;
use packet_views::features::Features;
use xen_netfront::buffer::{Packet, PacketMut};
use xen_netfront::netback;
use xen_netfront::netfront;
use xen_netfront::platform::Port;
use xen_sim::{Counts, Domain};

use crate::allocations::allocations;
use crate::pair::{Back, Front, Pair, Plan, RECOVERY};

/// Packets offered a round.
pub const OFFERED: usize = 64;

/// One end's events: an upcall with nothing consumed on that channel since the one before, by
/// upcall or poll, is spurious.
#[derive(Clone, Copy, Debug, Default)]
pub struct Events {
    consumed: u64,
    pub upcalls: u64,
    pub spurious: u64,
    /// Times that the end said it would wait: so often it may be woken.
    pub waits: u64,
    pub turns: u64,
}

impl Events {
    fn turn(&mut self, upcall: bool, consumed: u64, again: bool) {
        self.turns += 1;
        self.waits += u64::from(!again);
        self.consumed += consumed;
        if upcall {
            self.upcalls += 1;
            self.spurious += u64::from(self.consumed == 0);
            self.consumed = 0;
        }
    }
}

/// Everything that is counted, at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Snapshot {
    pub front: netfront::Counters,
    pub back: netback::Counters,
    pub front_calls: Counts,
    pub back_calls: Counts,
    pub front_events: Events,
    pub back_events: Events,
    /// Heap allocations within calls of the driver.
    pub front_allocations: usize,
    pub back_allocations: usize,
    /// Grants of the frontend that are there.
    pub granted: u64,
}

/// A pair under load.
pub struct Load<'a> {
    pair: &'a Pair,
    front: RefMut<'a, Front>,
    back: RefMut<'a, Back>,
    domains: (Domain, Domain),
    /// Fragments of each packet, and bytes of each fragment.
    pub fragments: usize,
    pub size: usize,
    /// Instead: these bytes, in fragments of a page, of which this is known.
    pub large: Option<(Vec<u8>, Meta)>,
    /// What arrives at the backend goes back.
    pub echoes: bool,
    ports: Vec<Port>,
    echo: Vec<Packet>,
    events: (Events, Events),
    allocations: (usize, usize),
    /// Whether an end has said that it does not wait.
    again: (bool, bool),
}

impl<'a> Load<'a> {
    /// Of a pair that is up.
    pub fn new(pair: &'a Pair) -> Load<'a> {
        pair.run_until("the link comes up", RECOVERY, Pair::is_up);
        Load {
            domains: (pair.front_domain(), pair.back_domain()),
            front: pair.front.borrow_mut(),
            back: pair.back.borrow_mut(),
            pair,
            fragments: 1,
            size: 60,
            large: None,
            echoes: true,
            ports: Vec::with_capacity(16),
            echo: Vec::with_capacity(1024),
            events: Default::default(),
            allocations: (0, 0),
            again: (true, true),
        }
    }

    /// A pair of its own.
    pub fn pair() -> Pair {
        let back = netback::Config::default().with_features(Features::ALL);
        Pair::new(Plan {
            back,
            front_frames: 900,
            back_frames: 1024,
            mtu: 65521,
            ..Plan::default()
        })
    }

    fn upcall(&mut self, front: bool) -> bool {
        self.ports.clear();
        let domain = if front { &self.domains.0 } else { &self.domains.1 };
        domain.drain_pending(&mut self.ports);
        !self.ports.is_empty()
    }

    /// The frontend takes what has come, and offers packets; says how many it got rid of.
    pub fn front_turn(&mut self, offered: usize) -> usize {
        let upcall = self.upcall(true);
        let net = self.front.net.as_mut().unwrap();
        let (fragments, size, large) = (self.fragments, self.size, self.large.as_ref());
        let slots = match large {
            Some((bytes, meta)) => bytes.len().div_ceil(4096) + usize::from(meta.gso.is_some()),
            None => fragments,
        };
        let (mut sent, mut again) = (0, false);
        let before = *net.counters();
        self.allocations.0 += allocations(|| {
            net.service();
            net.complete_tx();
            net.receive(OFFERED, drop);
            while sent < offered && net.reserve(slots).is_some() {
                let mut packet = PacketMut::new();
                if let Some((bytes, meta)) = large {
                    packet.meta = *meta;
                    for part in bytes.chunks(4096) {
                        let mut buf = net.alloc(0).unwrap();
                        buf.append(part.len()).unwrap().copy_from_slice(part);
                        packet.push(buf).unwrap();
                    }
                } else {
                    for _ in 0..fragments {
                        let mut buf = net.alloc(0).unwrap();
                        buf.append(size).unwrap().fill(sent as u8);
                        packet.push(buf).unwrap();
                    }
                }
                let mut permit = net.reserve(slots).unwrap();
                if large.is_some() {
                    permit.send(packet).unwrap();
                } else {
                    match packet.into_single() {
                        Ok(only) => permit.send_single(only).unwrap(),
                        Err(packet) => permit.send(packet).unwrap(),
                    }
                }
                sent += 1;
            }
            again = net.rearm();
        });
        let after = net.counters();
        let consumed = after.tx_completed + after.rx_slots - before.tx_completed - before.rx_slots;
        self.events.0.turn(upcall, consumed, again);
        self.again.0 = again;
        sent
    }

    /// The backend takes what has come, and sends it back.
    pub fn back_turn(&mut self) {
        let upcall = self.upcall(false);
        let (echo, echoes) = (&mut self.echo, self.echoes);
        let mut again = false;
        let before = *self.back.served().unwrap().counters();
        let clients = self.back.clients.as_mut().unwrap();
        self.allocations.1 += allocations(|| {
            let mut client = None;
            clients.turn(OFFERED, |_, from, packet| {
                client = Some(from);
                if echoes {
                    echo.push(packet.freeze());
                }
            });
            for packet in echo.drain(..) {
                clients.deliver(client.unwrap(), packet).unwrap();
            }
            again = clients.rearm();
        });
        let after = self.back.served().unwrap().counters();
        let consumed = after.from_slots + after.to_slots - before.from_slots - before.to_slots;
        self.events.1.turn(upcall, consumed, again);
        self.again.1 = again;
    }

    /// Whether the backend would run now: it has work, or an event has come.
    pub fn back_runs(&self) -> bool {
        let port = self.back.served().unwrap().ports().next().unwrap();
        self.again.1 || self.domains.1.is_pending(port)
    }

    /// So much virtual time.
    pub fn pass(&self, time: Duration) {
        self.pair.host.advance(time);
    }

    /// Both ends take turns until nothing is under way.
    pub fn drain(&mut self) {
        for _ in 0..20 {
            self.pass(Duration::from_millis(1));
            self.front_turn(0);
            self.back_turn();
        }
        let (net, served) = (self.front.net.as_ref().unwrap(), self.back.served().unwrap());
        assert_eq!(net.counters().tx_slots, net.counters().tx_completed);
        assert_eq!(served.queued(), 0);
        assert_eq!(served.counters().to_packets, net.counters().rx_packets);
    }

    pub fn snapshot(&self) -> Snapshot {
        let net = self.front.net.as_ref().unwrap();
        Snapshot {
            front: *net.counters(),
            back: *self.back.served().unwrap().counters(),
            front_calls: self.domains.0.counts(),
            back_calls: self.domains.1.counts(),
            front_events: self.events.0,
            back_events: self.events.1,
            front_allocations: self.allocations.0,
            back_allocations: self.allocations.1,
            granted: self.domains.0.grants().len() as u64,
        }
    }
}
