//! F7: no byte reaches a peer but those that are meant for it. Peers look at every page that they
//! are granted, all of it.
#![allow(missing_docs)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod firewall;

use packet_views::device::NetDevice;
use packet_views::device::Permit;
use std::time::Duration;

use fastrand::Rng;
use firewall::{Network, Party, canaries, leak, packet};
use xen_sim::hostile::Ring;

const TIME: Duration = Duration::from_millis(if cfg!(debug_assertions) { 30 } else { 60 });
const BACKENDS: [Party; 2] = [Party::Left, Party::Right];

/// Each peer has something to send, always.
fn feed(network: &Network, rng: &mut Rng, largest: usize) {
    let few = |queued: usize| queued < 20;
    if few(network.left.borrow().queued()) {
        network.left.borrow_mut().inject(&packet(rng, Party::Left, largest));
    }
    if few(network.right.borrow().queued()) {
        network.right.borrow_mut().inject(&packet(rng, Party::Right, largest));
    }
    if few(network.client.borrow().queued()) {
        network.client.borrow_mut().send(&packet(rng, Party::Client, largest));
    }
}

/// What one party has seen.
#[derive(Default, Debug)]
struct Seen {
    pages: u64,
    own: u64,
    foreign: u64,
}

impl Seen {
    fn look(&mut self, bytes: &[u8], viewer: Party) {
        self.pages += 1;
        let mut sightings = canaries(bytes);
        if let Some(first) = sightings.next() {
            match first.is_foreign(viewer) {
                true => self.foreign += 1,
                false => self.own += 1,
            }
        }
        if let Some(sighting) = leak(bytes, viewer) {
            panic!("{viewer:?} sees what is not for it: {sighting:?}");
        }
    }
}

#[test]
fn f7_r15_no_peer_sees_a_byte_that_is_not_meant_for_it() {
    for (seed, largest) in [(1, 1500), (2, 4096), (3, 20_000)] {
        let network = Network::new(seed, true);
        let mut rng = Rng::with_seed(seed);
        let mut seen = [Seen::default(), Seen::default(), Seen::default()];
        let mut turns = 0;
        network.run(TIME, |network| {
            turns += 1;
            feed(network, &mut rng, largest);
            for (viewer, seen) in BACKENDS.into_iter().zip(&mut seen) {
                for dump in network.dumps(viewer) {
                    seen.look(&dump.bytes[..], viewer);
                }
                if turns % 64 == 0 {
                    for page in network.visible(viewer) {
                        seen.look(&page.bytes[..], viewer);
                    }
                }
            }
            for received in network.client.borrow_mut().take_received() {
                seen[2].look(&received, Party::Client);
            }
            // Of the client's backend nothing is granted at all.
            assert!(network.visible(Party::Client).is_empty());
        });
        // There was something to see, and something to hide.
        for (party, seen) in ["left", "right", "client"].iter().zip(&seen) {
            assert!(seen.pages > 100 && seen.foreign > 20, "{party}: {seen:?}");
        }
        let firewall = network.firewall.borrow();
        for net in [&firewall.left, &firewall.right] {
            let counters = net.counters();
            assert!(counters.clears > 50 && counters.rx_packets > 50, "{counters:?}");
            assert_eq!((counters.faults, counters.stalls), (0, 0));
        }
        drop(firewall);
        network.tear_down();
    }
}

#[test]
fn f7_an_untrusted_backend_sees_nothing_outside_of_the_announced_range() {
    let network = Network::new(4, false);
    let mut rng = Rng::with_seed(4);
    let (mut sent, mut posted) = (0, 0);
    network.run(TIME, |network| {
        // One slot each, so that a request's size is its slot's.
        feed(network, &mut rng, 3500);
        for viewer in BACKENDS {
            for dump in network.dumps(viewer) {
                let range = match dump.ring {
                    Ring::Tx => usize::from(dump.offset)..usize::from(dump.offset + dump.size),
                    Ring::Rx => 0..0,
                };
                *(if dump.ring == Ring::Tx { &mut sent } else { &mut posted }) += 1;
                let outside = [&dump.bytes[..range.start], &dump.bytes[range.end..]].concat();
                assert!(outside.iter().all(|&byte| byte == 0), "{viewer:?} around {range:?}");
                assert_eq!(leak(&dump.bytes[..], viewer), None);
            }
        }
        network.client.borrow_mut().take_received();
    });
    assert!(sent > 200 && posted > 700, "{sent} sent, {posted} posted");
    network.tear_down();
}

/// The ranges of a packet of several slots are each slot's own.
#[test]
fn f7_each_slot_of_an_untrusted_backends_packet_is_clean_around_its_own_bytes() {
    use packet_views::device::Link;
    use xen_netfront::buffer::PacketMut;
    let network = Network::new(5, false);
    let mut rng = Rng::with_seed(5);
    let up = |network: &Network| network.firewall.borrow().left.link() == Link::Up;
    // Some traffic first, for bytes to be left over.
    network.run(TIME / 2, |network| feed(network, &mut rng, 4096));
    network.run(Duration::from_millis(5), |_| ());
    assert!(up(&network));
    drop(network.dumps(Party::Left));
    let slots = [(7, 100), (0, 200), (3000, 300)];
    for _ in 0..20 {
        let mut firewall = network.firewall.borrow_mut();
        firewall.left.complete_tx();
        let mut packet = PacketMut::new();
        for (room, len) in slots {
            let mut buf = firewall.left.alloc(room).unwrap();
            buf.append(len).unwrap().fill(0xee);
            packet.push(buf).unwrap();
        }
        firewall.left.reserve(3).unwrap().send(packet).unwrap();
        drop(firewall);
        network.run(Duration::from_micros(500), |_| ());
    }
    let dumps = network.dumps(Party::Left);
    let ours: Vec<_> = dumps.iter().filter(|dump| dump.bytes.contains(&0xee)).collect();
    assert_eq!(ours.len(), 60);
    for (dump, (room, len)) in ours.iter().zip(slots.into_iter().cycle()) {
        let expected: Vec<u8> =
            (0..4096).map(|at| if (room..room + len).contains(&at) { 0xee } else { 0 }).collect();
        assert!(dump.bytes[..] == expected[..], "around {len} bytes at {room}");
    }
    network.tear_down();
}
