//! What a stack on the device is spared, with pages of a ring: tags, probes, fragments.

use packet_views::phy::Device;
use smoltcp::iface::{Interface, SocketSet};
use smoltcp::wire::{IpAddress, IpCidr};
use xen_netfront::platform::Platform;

use super::*;

struct Stack {
    bench: Bench,
    device: Device<Front>,
    iface: Interface,
}

impl Stack {
    fn new() -> Stack {
        let mut bench = Bench::new();
        bench.connect();
        let spare = Bench::new();
        let mut device = Device::new(std::mem::replace(&mut bench.front, spare.front));
        let mut iface = device.interface(1, bench.domain.now());
        let cidr = IpCidr::new(IpAddress::v4(10, 0, 0, 1), 24);
        iface.update_ip_addrs(|list| list.push(cidr).unwrap());
        Stack { bench, device, iface }
    }

    /// What is sent when these slots have come as a packet.
    fn sent(&mut self, slots: &[&[u8]]) -> Vec<Vec<u8>> {
        self.bench.deliver(slots);
        self.device.inner_mut().service();
        let now = self.bench.domain.now();
        self.device.poll(&mut self.iface, &mut SocketSet::new(vec![]), now);
        let requests = self.bench.tx_requests();
        let sent = requests
            .iter()
            .map(|request| self.bench.sent_bytes(request, request.size.into()))
            .collect();
        requests.iter().for_each(|request| self.bench.answer_tx(request.id, 0));
        self.device.inner_mut().complete_tx();
        self.device.inner_mut().rearm();
        self.bench.host.advance(Duration::from_millis(1));
        sent
    }
}

/// Who has 10.0.0.1? asked by 10.0.0.2, or by nobody.
fn arp(is_probe: bool) -> Vec<u8> {
    let sender = [2, 0, 0, 0, 0, 2];
    let mut frame = [&[0xff; 6][..], &sender, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &sender].concat();
    frame.extend(if is_probe { [0; 4] } else { [10, 0, 0, 2] });
    frame.extend([0; 6]);
    frame.extend([10, 0, 0, 1]);
    frame.resize(60, 0);
    frame
}

/// Far more of them than there are pages: each page goes home, tag or not, answered here or above.
#[test]
fn tagged_frames_and_probes_are_answered_and_no_page_is_lost() {
    let mut stack = Stack::new();
    for round in 0..2000 {
        let mut frame = arp(round % 2 == 0);
        if round % 3 != 0 {
            frame.splice(12..12, [0x81, 0, 0xe0, 0]);
        }
        let sent = match round % 5 {
            0 => stack.sent(&[&frame[..13], &frame[13..]]),
            _ => stack.sent(&[&frame]),
        };
        assert_eq!(sent.len(), 1, "{round}");
        let (reply, to) = (&sent[0][20..22], &sent[0][32..42]);
        assert_eq!(reply, [0, 2]);
        assert_eq!(
            to,
            [&frame[6..12], if round % 2 == 0 { &[0; 4] } else { &[10, 0, 0, 2] }].concat()
        );
    }
    assert_eq!(stack.device.counters().probes_answered, 1000);
    // Only what came in two slots was copied.
    assert_eq!(stack.device.counters().linearised_packets, 400);
}

/// Fragments that nobody completes hold no pages.
#[test]
fn fragments_hold_no_pages() {
    let mut stack = Stack::new();
    let mut frame = stack.device.inner().mac().unwrap().0.to_vec();
    frame.extend([2, 0, 0, 0, 0, 2, 8, 0]);
    frame.extend([0x45, 0, 0, 36, 0, 0, 0x20, 0, 64, 17, 0, 0, 10, 0, 0, 2, 10, 0, 0, 1]);
    frame.resize(50, 7);
    for id in 0..2000_u16 {
        frame[18..20].copy_from_slice(&id.to_be_bytes());
        frame[24..26].fill(0);
        let words = frame[14..34].chunks(2);
        let sum: u32 = words.map(|word| u32::from(word[0]) << 8 | u32::from(word[1])).sum();
        let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
        assert!(stack.sent(&[&frame]).is_empty());
    }
    let counters = stack.device.counters();
    assert_eq!((counters.reassembled, counters.fragments_dropped), (0, 2000 - 4));
    assert_eq!(stack.sent(&[&arp(true)]).len(), 1);
}

/// A backend that says that its cable is out, and sends two packets all the same, does not keep us awake.
#[test]
fn n4_packets_without_a_carrier_let_the_guest_sleep() {
    let mut stack = Stack::new();
    let carrier = format!("{}/carrier", stack.bench.vif.back_dir());
    stack.bench.toolstack.store().set(&carrier, "0");
    for _ in 0..5 {
        stack.device.inner_mut().service();
        stack.bench.host.advance(Duration::from_millis(300));
    }
    assert_eq!(stack.device.inner().link(), Link::NoCarrier);
    for _ in 0..2 {
        stack.bench.deliver(&[&arp(false)]);
    }
    let mut awake = 0;
    for _ in 0..1000 {
        stack.device.inner_mut().service();
        let now = stack.bench.domain.now();
        stack.device.poll(&mut stack.iface, &mut SocketSet::new(vec![]), now);
        awake += u32::from(stack.device.inner_mut().rearm());
        stack.bench.host.advance(Duration::from_millis(10));
    }
    assert!(awake < 10, "awake {awake} times of 1000, held: {}", stack.device.is_held());
}

/// With a limit of bytes in flight, what waits to be joined is sent, or waits, or is counted.
#[test]
fn n4_what_waits_is_not_lost_to_a_limit_of_bytes() {
    use super::packets::Flow;
    use packet_views::features::Features;
    use smoltcp::phy::{Device as _, TxToken as _};
    use xen_netfront::xenbus::feature_nodes;
    let config = Config::default().with_tx_bytes(Some(1000));
    let mut bench = Bench::with(config, &[], &feature_nodes(&Features::ALL));
    let spare = Bench::new();
    let mut device = Device::new(std::mem::replace(&mut bench.front, spare.front));
    let now = bench.domain.now().into();
    for port in 1..=4 {
        let mut frame = Flow::tcp(false, port).packet(0, &pattern(1, 1400));
        // As the stack leaves it: no PSH, the checksum to us.
        frame[14 + 20 + 13] = 0x10;
        frame[14 + 20 + 16..][..2].fill(0);
        let token = device.transmit(now).unwrap();
        token.consume(frame.len(), |bytes| bytes.copy_from_slice(&frame));
    }
    device.flush();
    let mut sent = 0;
    for _ in 0..20 {
        let requests = bench.tx_requests();
        sent += requests.len();
        requests.iter().for_each(|request| bench.answer_tx(request.id, 0));
        device.inner_mut().complete_tx();
        device.flush();
    }
    let (drops, lost) = (device.inner().counters().tx_drops.total(), device.counters().lost);
    assert_eq!(sent as u64 + drops + lost, 4, "sent {sent}, drops {drops}, lost {lost}");
}
