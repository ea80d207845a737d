//! Two smoltcp stacks on copying devices: what a transfer costs in allocations.

use packet_views::copying::Copying;
use packet_views::device::NetDevice;
use packet_views::features::Features;
use packet_views::header::MacAddr;
use packet_views::phy::Device;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::socket::tcp;
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, IpAddress, IpCidr};

use crate::allocations::allocations;
use crate::pipe::{Pipe, pipe};

struct Stack {
    device: Device<Copying<Pipe>>,
    iface: Interface,
    sockets: SocketSet<'static>,
    tcp: Vec<SocketHandle>,
}

impl Stack {
    fn new(end: Pipe, number: u8, connections: u16) -> Stack {
        let mut device = Device::new(Copying::new(end, MacAddr([2, 0, 0, 0, 0, number]), 1500));
        let config = Config::new(EthernetAddress(device.inner().mac().unwrap().0).into());
        let mut iface = Interface::new(config, &mut device, Instant::ZERO);
        let own = IpCidr::new(IpAddress::v4(10, 0, 0, number), 24);
        iface.update_ip_addrs(|addresses| addresses.push(own).unwrap());
        let mut sockets = SocketSet::new(vec![]);
        let buffer = || tcp::SocketBuffer::new(vec![0; 60_000]);
        let tcp = (0..connections).map(|_| sockets.add(tcp::Socket::new(buffer(), buffer())));
        let tcp = tcp.collect();
        Stack { device, iface, sockets, tcp }
    }
}

/// Bytes that one sends to the other in a turn.
fn turn(one: &mut Stack, two: &mut Stack, millis: i64) -> usize {
    let mut heard = 0;
    for (&from, &to) in one.tcp.iter().zip(&two.tcp) {
        let socket = one.sockets.get_mut::<tcp::Socket<'_>>(from);
        if socket.can_send() {
            socket.send(|room| (room.len(), ())).unwrap();
        }
        let socket = two.sockets.get_mut::<tcp::Socket<'_>>(to);
        if socket.can_recv() {
            heard += socket.recv(|data| (data.len(), data.len())).unwrap();
        }
    }
    for stack in [one, two] {
        stack.device.poll(&mut stack.iface, &mut stack.sockets, Instant::from_millis(millis));
    }
    heard
}

/// With large packets or without, cut in software or not, one connection or several in turn.
#[test]
fn r9_a_transfer_allocates_nothing() {
    for (features, connections) in [(Features::NONE, 1), (Features::ALL, 1), (Features::ALL, 6)] {
        let (near, far) = pipe(features, 300);
        let (mut one, mut two) =
            (Stack::new(near, 1, connections), Stack::new(far, 2, connections));
        for at in 0..connections {
            let (from, to) = (one.tcp[usize::from(at)], two.tcp[usize::from(at)]);
            two.sockets.get_mut::<tcp::Socket<'_>>(to).listen(1000 + at).unwrap();
            let socket = one.sockets.get_mut::<tcp::Socket<'_>>(from);
            let server = (IpAddress::v4(10, 0, 0, 2), 1000 + at);
            socket.connect(one.iface.context(), server, 2000 + at).unwrap();
        }
        for millis in 0..200 {
            turn(&mut one, &mut two, millis);
        }
        let mut heard = 0;
        let count = allocations(|| {
            heard = (200..1000).map(|millis| turn(&mut one, &mut two, millis)).sum();
        });
        assert_eq!(count, 0);
        assert!(heard > usize::from(connections) * 4_000_000, "{heard}");
        let coalesced = one.device.counters().coalesced;
        assert_eq!(coalesced.coalesced > 100, features == Features::ALL, "{coalesced:?}");
        assert_eq!(one.device.inner().totals().tx_dropped, 0);
    }
}
