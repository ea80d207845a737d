//! N4: progress never needs what the waiting party itself holds. A burst, a quiet link, a layer above
//! that keeps its packets, another device on the same pool: none of them ends sending or receiving.

use packet_views::device::NetDevice;
use packet_views::phy::Device;
use smoltcp::iface::{Config as Interfaces, Interface, SocketSet};
use smoltcp::wire::{EthernetAddress, IpAddress, IpCidr};
use xen_netfront::platform::Platform;

use super::*;
use xen_netfront::xenbus::feature_nodes;

/// Who has 10.0.0.1?
fn arp_request() -> Vec<u8> {
    let sender = [2, 0, 0, 0, 0, 2];
    let mut frame = [&[0xff; 6][..], &sender, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &sender].concat();
    frame.extend([10, 0, 0, 2]);
    frame.extend([0; 6]);
    frame.extend([10, 0, 0, 1]);
    frame.resize(60, 0);
    frame
}

/// How many of `burst` requests a queue are answered, that come before anything has been sent. The
/// backend is honest all along.
fn answered(frames: usize, queues: u32, burst: usize) -> usize {
    let vif = Vif::new(FRONT, BACK, 0).back_key("feature-sg", "1").back_key("feature-rx-copy", "1");
    let vif = vif.back_key("multi-queue-max-queues", "8");
    let mut bench = Bench::on(Host::new(1), vif, Config::default().with_queues(queues), frames);
    bench.connect();
    let spare = Bench::new();
    let mut device = Device::new(std::mem::replace(&mut bench.front, spare.front));
    let mac = EthernetAddress([0, 0x16, 0x3e, 0, 0, 0]);
    let mut iface =
        Interface::new(Interfaces::new(mac.into()), &mut device, bench.domain.now().into());
    iface.update_ip_addrs(|list| list.push(IpCidr::new(IpAddress::v4(10, 0, 0, 1), 24)).unwrap());
    let mut sockets = SocketSet::new(vec![]);
    for queue in 0..queues as usize {
        bench.queue = queue;
        for _ in 0..burst {
            bench.deliver(&[&arp_request()]);
        }
    }
    let mut answered = 0;
    for _ in 0..200 {
        device.inner_mut().service();
        device.poll(&mut iface, &mut sockets, bench.domain.now());
        device.inner_mut().rearm();
        for queue in 0..queues as usize {
            bench.queue = queue;
            for request in bench.tx_requests() {
                answered += 1;
                bench.answer_tx(request.id, 0);
            }
        }
        bench.host.advance_to(bench.host.now() + Duration::from_millis(10));
    }
    answered
}

#[test]
fn n4_a_burst_before_anything_was_sent_is_answered_whole() {
    for (frames, queues) in [(131, 1), (132, 1), (200, 1), (640, 4), (640, 8), (1024, 8)] {
        assert_eq!(answered(frames, queues, 64), 64 * queues as usize, "{frames}, {queues}");
    }
}

/// Without a stack: what comes is dropped at once, in bursts of all pages posted. Then it is quiet.
#[test]
fn n4_after_bursts_there_are_pages_to_send_with() {
    for frames in [130, 140, 200, 258, 300] {
        let vif = Vif::new(FRONT, BACK, 0).back_key("feature-rx-copy", "1");
        let mut bench = Bench::on(Host::new(1), vif, Config::default(), frames);
        bench.connect();
        for _ in 0..20 {
            for _ in 0..bench.rings().rx.refresh().unwrap() {
                bench.deliver(&[&pattern(1, 60)]);
            }
            bench.received();
            bench.front.rearm();
        }
        bench.pass(SECOND * 60);
        for n in 0..64 {
            assert_eq!(
                NetDevice::write(&mut bench.front, 60, |bytes| bytes.len()),
                Ok(()),
                "{n}, {frames}"
            );
        }
        bench.front.flush();
        bench.assert_sound();
        bench.assert_no_leak();
    }
}

/// A pool that can't hold what the configuration asks for is no pool for the device.
#[test]
fn n4_a_pool_too_small_is_refused_with_what_it_takes() {
    let host = Host::new(1);
    let domain = host.add_domain(FRONT, 400);
    let table = xen_grant::GrantTable::new(&domain);
    for (config, least) in [
        (Config::default(), 2 + 64 + 64),
        (Config::default().with_queues(8), 8 * (2 + 64) + 64),
        (Config::default().with_rx_floor(0).with_rx_ceiling(0), 2 + 20 + 64),
        (raw_backend::full_ring(), 2 + 256 + 64),
    ] {
        assert_eq!(config.least_pages(), least);
        let open = |frames: usize| {
            let pool = xen_grant::FramePool::new(&domain, frames).unwrap();
            let (platform, store) = (domain.clone(), domain.clone());
            xen_netfront::netfront::Netfront::open(platform, store, &pool, &table, 0, config)
                .map(|_| ())
        };
        if least < 390 {
            assert_eq!(open(least), Ok(()));
        }
        let few = least.min(390) - 1;
        let error = open(few).unwrap_err();
        let words =
            format!("{least} pages of the frame pool are needed, and {few} are nobody else's");
        assert_eq!(error.to_string(), words);
    }
}

/// Two devices on one pool: whatever one of them and its backend do, the other one goes on.
#[test]
fn n4_a_device_that_takes_all_it_gets_leaves_another_its_share() {
    let host = Host::new(1);
    let vif = Vif::new(FRONT, BACK, 0).back_key("feature-sg", "1").back_key("feature-rx-copy", "1");
    let config = Config::default();
    let frames = 2 * config.least_pages() + 10;
    let mut bench = Bench::on(host.clone(), vif, config, frames);
    let mut greedy = bench.beside(1, DomId(3), config);
    for bench in [&mut bench, &mut greedy] {
        bench.connect();
    }
    for round in 0..20 {
        // The greedy one is sent as much as it posts, and sends what it can to a backend that answers
        // nothing any more.
        for _ in 0..greedy.rings().rx.refresh().unwrap() {
            greedy.deliver(&[&pattern(1, 60)]);
        }
        // The other one is just as busy; its packets are dropped before it looks for pages.
        for _ in 0..bench.rings().rx.refresh().unwrap() {
            bench.deliver(&[&pattern(2, 60)]);
        }
        let (mut ours, mut theirs) = (0, 0);
        bench.front.receive(1000, |_| ours += 1);
        greedy.front.receive(1000, |_| theirs += 1);
        while greedy.send(&[&pattern(1, 60)]) {}
        greedy.front.service();
        bench.front.service();
        assert!(ours >= 56, "{ours} packets in round {round}");
        for n in 0..64 {
            assert!(bench.send(&[&pattern(1, 60)]), "{n} sent in round {round}");
        }
        for request in bench.tx_requests() {
            bench.answer_tx(request.id, 0);
        }
        bench.front.complete_tx();
    }
    bench.assert_sound();
}

/// What a queue never has room for is refused, not waited for.
#[test]
fn n4_a_packet_that_no_queue_will_ever_hold_is_refused() {
    use packet_views::device::SendError;
    use packet_views::features::Features;
    let sg = Features::NONE.with_scatter_gather(true);
    let mut bench = Bench::with(Config::default(), &[], &feature_nodes(&sg));
    let mut held = Vec::new();
    for _ in 0..60 {
        assert!(bench.send(&[&pattern(1, 60)]));
        for request in bench.tx_requests() {
            held.push(bench.back.map_page(FRONT, request.gref, false).unwrap());
            bench.answer_tx(request.id, 0);
        }
        bench.front.complete_tx();
    }
    assert_eq!(bench.front.room(), 196);
    let flow = super::packets::Flow::tcp(false, 1);
    let bytes = flow.blank(0, &pattern(1, 60_000));
    let cuts: Vec<usize> = (4096..bytes.len()).step_by(4096).collect();
    let packet = bench.packet(&bytes, &cuts, flow.meta(300));
    assert!(matches!(NetDevice::send(&mut bench.front, packet), Err(SendError::Refused(_))));
    let packet = bench.packet(&bytes, &cuts, flow.meta(1448));
    assert!(NetDevice::send(&mut bench.front, packet).is_ok());
    bench.front.flush();
    assert!(bench.sent().len() >= 42);
}

/// Packets that are passed on are as much in flight as our own, and leave our own what was promised.
#[test]
fn n4_what_is_passed_on_leaves_frames_to_send_with() {
    let mut bench = Bench::new();
    let mut kept = Vec::new();
    for n in 0..180 {
        bench.deliver(&[&pattern(n, 60)]);
        bench.front.receive(10, |packet| kept.push(packet));
    }
    for packet in kept {
        let Ok(packet) = packet.try_into_mut() else { panic!("it is ours alone") };
        assert!(NetDevice::send(&mut bench.front, packet).is_ok());
    }
    bench.front.flush();
    for n in 0..64 {
        assert!(bench.send(&[&pattern(1, 60)]), "{n} of 64 of our own");
    }
    bench.assert_sound();
}

/// What a device has drawn is there for others again when its connection ends.
#[test]
fn n4_what_was_drawn_goes_back_when_the_connection_ends() {
    let vif = Vif::new(FRONT, BACK, 0).back_key("feature-sg", "1").back_key("feature-rx-copy", "1");
    let config = Config::default();
    let mut bench = Bench::on(Host::new(1), vif, config, config.least_pages() + 300);
    let before = bench.pool.unreserved();
    assert_eq!(before, 300);
    for end in 0..4 {
        bench.connect();
        for _ in 0..5 {
            for _ in 0..bench.rings().rx.refresh().unwrap() {
                bench.deliver(&[&pattern(1, 60)]);
            }
            bench.received();
        }
        assert!(bench.pool.unreserved() <= 300 - 192, "it has drawn for a burst");
        bench.queues.clear();
        match end {
            0 => bench.front.resumed(),
            1 => {
                bench.set_state(6);
                bench.pass(SECOND);
            }
            2 => {
                bench.front.disconnect();
                bench.pass(SECOND * 2);
                bench.front.reconnect();
            }
            _ => {
                bench.toolstack.remove_vif(&bench.vif);
                bench.pass(SECOND);
            }
        }
        assert_eq!(bench.pool.unreserved(), before, "end {end}");
    }
    bench.assert_no_leak();
}

/// A packet that waits for a page to be answered with does not keep the one that it came in.
#[test]
fn n4_a_packet_that_is_held_keeps_no_page() {
    use smoltcp::phy::Device as _;
    let vif = Vif::new(FRONT, BACK, 0).back_key("feature-rx-copy", "1");
    let config = Config::default();
    let mut bench = Bench::on(Host::new(1), vif, config, config.least_pages() + 10);
    bench.connect();
    bench.deliver(&[&arp_request()]);
    let spare = Bench::new();
    let mut device = Device::new(std::mem::replace(&mut bench.front, spare.front));
    let hogged: Vec<_> = std::iter::from_fn(|| device.inner_mut().alloc(0)).collect();
    assert_eq!(bench.pool.free(), 0);
    let now = bench.domain.now().into();
    assert!(device.receive(now).is_none() && device.is_held());
    assert_eq!(device.counters().held_without_memory, 1);
    assert_eq!(bench.pool.free(), 1, "its page is home");
    // That one is enough to answer it.
    assert!(device.receive(now).is_some());
    drop(hogged);
}
