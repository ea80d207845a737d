//! A forwarder between two vifs: what the backend on one side sends goes out on the other, in the page in
//! which it came. No byte is copied.
//!
//! ```sh
//! cargo run --example forwarder
//! ```

use std::error::Error;

use xen_grant::{DomId, FramePool, GrantTable};
use xen_netfront::netfront::{Config, Netfront};
use xen_netfront::packet::device::{Link, NetDevice, PacketMutOf};
use xen_sim::hostile::HostileBackend;
use xen_sim::{Ctx, Domain, Host, Limits, Next, Outcome, Scheduler, Task, Vif};

const FORWARDER: DomId = DomId(1);
const LEFT: DomId = DomId(2);
const RIGHT: DomId = DomId(3);

/// Frames that each side sends to the other.
const COUNT: usize = 1000;

/// Sends to one device what has come from another. Packets that find no room wait in `waiting`, which is
/// all the queue there is: as long as it is full, nothing more is received.
fn forward<N: NetDevice>(from: &mut N, to: &mut N, waiting: &mut Vec<PacketMutOf<N>>) {
    loop {
        if waiting.is_empty() {
            from.receive(64, |packet| {
                // Nobody else has the packet, so it can be written, and sent.
                waiting.extend(packet.try_into_mut());
            });
            if waiting.is_empty() {
                break;
            }
            waiting.reverse();
        }
        while let Some(packet) = waiting.pop() {
            if let Err(error) = to.send(packet) {
                // Full; or it can't be sent, and has been counted.
                waiting.extend(error.into_packet());
                to.flush();
                return;
            }
        }
    }
    to.flush();
}

/// Frame number `nth` of those that a side sends.
fn frame(side: DomId, nth: usize) -> Vec<u8> {
    let mut frame = vec![side.0 as u8; 60 + nth * 3 % 1450];
    frame[20..28].copy_from_slice(&(nth as u64).to_be_bytes());
    frame
}

/// A peer beyond the forwarder: sends frames, and takes the other side's.
fn peer(domain: &Domain, index: u32, other: DomId) -> impl Task {
    let side = domain.id();
    // A backend on bare rings, which breaks no rule unless it is told to.
    let mut backend = HostileBackend::new(domain, FORWARDER, index);
    (0..COUNT).for_each(|nth| backend.inject(&frame(side, nth)));
    let mut taken = 0;
    move |ctx: &mut Ctx<'_>| {
        let next = backend.run(ctx);
        for packet in backend.take_received() {
            assert!(
                packet == frame(other, taken),
                "{side:?} got another frame than number {taken}"
            );
            taken += 1;
        }
        if taken == COUNT { Next::Done } else { next }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let host = Host::new(5);
    let domain = host.add_domain(FORWARDER, 2048);
    let [left, right] = [LEFT, RIGHT].map(|id| host.add_domain(id, 256));
    for (index, backend) in [(0, LEFT), (1, RIGHT)] {
        host.toolstack().add_vif(&Vif::new(FORWARDER, backend, index));
    }
    // Both devices take their pages from one pool, or a page could not go from one to the other.
    let (pool, table) = (FramePool::new(&domain, 1200)?, GrantTable::new(&domain));
    let open = |index| {
        Netfront::open(domain.clone(), domain.clone(), &pool, &table, index, Config::default())
    };
    let (mut a, mut b) = (open(0)?, open(1)?);

    let (mut to_b, mut to_a) = (Vec::new(), Vec::new());
    let mut scheduler = Scheduler::new(&host);
    scheduler.add_background("forwarder", &domain, |_: &mut Ctx<'_>| {
        a.service();
        b.service();
        if a.link() == Link::Up && b.link() == Link::Up {
            forward(&mut a, &mut b, &mut to_b);
            forward(&mut b, &mut a, &mut to_a);
        }
        match (a.rearm() | b.rearm(), a.next_deadline().into_iter().chain(b.next_deadline()).min())
        {
            (true, _) => Next::Now,
            (false, Some(at)) => Next::WaitUntil(at),
            (false, None) => Next::Wait,
        }
    });
    scheduler.add("left", &left, peer(&left, 0, RIGHT));
    scheduler.add("right", &right, peer(&right, 1, LEFT));
    let outcome = scheduler.run(Limits::default());
    drop(scheduler);
    assert_eq!((outcome, host.violations()), (Outcome::Done, vec![]));
    for (side, net) in [("left", &a), ("right", &b)] {
        let counters = net.counters();
        println!(
            "{side}: {} frames in, {} out, {} bytes copied",
            counters.rx_packets, counters.tx_packets, counters.copied_bytes
        );
        assert_eq!((counters.rx_packets, counters.copied_bytes), (COUNT as u64, 0));
        assert_eq!(counters.tx_packets, COUNT as u64);
    }
    Ok(())
}
