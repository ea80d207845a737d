//! TCP echo with a peer that sends until nothing moves any more, and only then begins to read: both
//! directions are full, and all of it has to come back.
//!
//! ```text
//!  Peer    data ──► sent ───► wire ──► receive buffer ┐
//!                                                  TcpEcho
//!          read ◄── received ◄─ wire ◄─ send buffer ◄─┘
//! ```

use alloc::collections::VecDeque;
use alloc::rc::Rc;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::RefCell;

use packet_views::copying::{Copying, RawIo};
use packet_views::header::MacAddr;
use packet_views::phy::Device;
use smoltcp::iface::{Config, Interface, SocketSet};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::time::Instant;
use smoltcp::wire::*;

use super::super::listener::Listener;
use super::TcpEcho;

const OWN: (EthernetAddress, Ipv4Address) =
    (EthernetAddress([2, 0, 0, 0, 0, 2]), Ipv4Address::new(10, 0, 0, 2));
const PEER: (EthernetAddress, Ipv4Address) =
    (EthernetAddress([2, 0, 0, 0, 0, 1]), Ipv4Address::new(10, 0, 0, 1));
const MSS: usize = 1460;
const MTU: usize = 1500;
/// One way, in milliseconds.
const DELAY: i64 = 2;
/// Segments that the peer sends in a millisecond.
const BURST: usize = 8;
const RETRANSMIT: i64 = 200;
/// What the peer takes without reading.
const UNREAD: usize = 60_000;

/// Frames in one direction.
type Wire = Rc<RefCell<VecDeque<Vec<u8>>>>;

/// The stack's end of two wires.
struct Io {
    incoming: Wire,
    outgoing: Wire,
}

impl RawIo for Io {
    fn recv(&mut self, target: &mut [u8]) -> Option<usize> {
        let frame = self.incoming.borrow_mut().pop_front()?;
        target.get_mut(..frame.len())?.copy_from_slice(&frame);
        Some(frame.len())
    }

    fn send(&mut self, bytes: &[u8]) -> bool {
        self.outgoing.borrow_mut().push_back(bytes.to_vec());
        true
    }
}

/// TCP of a peer that is like Linux where it counts: what is sent stays sent though the window gets
/// smaller, and acknowledgements are numbered with all that is sent.
struct Peer {
    data: Vec<u8>,
    acknowledged: usize,
    sent: usize,
    /// How far the last window reaches.
    edge: usize,
    shift: u8,
    /// The stack's first byte.
    first: TcpSeqNumber,
    received: Vec<u8>,
    read: usize,
    reads: bool,
    /// When an acknowledgement last moved something.
    moved: i64,
    retransmit_at: i64,
    random: u64,
    outgoing: Vec<Vec<u8>>,
}

impl Peer {
    fn new(seed: u64, bytes: usize) -> Peer {
        let mut peer = Peer {
            data: (0..bytes).map(|at| (at ^ at >> 8 ^ at >> 16) as u8).collect(),
            acknowledged: 0,
            sent: 0,
            edge: 0,
            shift: 0,
            first: TcpSeqNumber(0),
            received: Vec::new(),
            read: 0,
            reads: false,
            moved: 0,
            retransmit_at: i64::MAX,
            random: seed,
            outgoing: Vec::new(),
        };
        peer.send(TcpControl::Syn, 0, 0);
        peer
    }

    /// Segments of all sizes: writes of an application that asks for `TCP_NODELAY`.
    fn size(&mut self) -> usize {
        self.random = self.random.wrapping_mul(6364136223846793005).wrapping_add(1);
        1 + (self.random >> 33) as usize % MSS
    }

    fn turn(&mut self, now: i64) {
        // Nothing moves any more.
        self.reads |= now > self.moved + 2 * RETRANSMIT;
        if self.reads && self.read < self.received.len() {
            self.read = self.received.len();
            self.acknowledge();
        }
        for _ in 0..BURST {
            let limit = self.edge.min(self.data.len());
            let len = self.size().min(limit.saturating_sub(self.sent));
            if len == 0 {
                break;
            }
            self.send(TcpControl::None, self.sent, len);
            self.sent += len;
            self.retransmit_at = self.retransmit_at.min(now + RETRANSMIT);
        }
        if now >= self.retransmit_at {
            self.retransmit_at = now + RETRANSMIT;
            let len = MSS.min(self.sent - self.acknowledged);
            self.send(TcpControl::None, self.acknowledged, len);
        }
    }

    fn acknowledge(&mut self) {
        self.send(TcpControl::None, self.sent, 0);
    }

    fn take(&mut self, frame: &[u8], now: i64) {
        let frame = EthernetFrame::new_checked(frame).unwrap();
        if frame.ethertype() == EthernetProtocol::Arp {
            return self.answer_arp();
        }
        let ip = Ipv4Packet::new_checked(frame.payload()).unwrap();
        let packet = TcpPacket::new_checked(ip.payload()).unwrap();
        let (own, peer) = (OWN.1.into(), PEER.1.into());
        let segment =
            TcpRepr::parse(&packet, &own, &peer, &ChecksumCapabilities::default()).unwrap();
        if segment.control == TcpControl::Syn {
            self.first = segment.seq_number + 1;
            self.shift = segment.window_scale.unwrap();
            self.edge = usize::from(segment.window_len);
            return self.acknowledge();
        }
        let acknowledged = segment.ack_number.unwrap() - TcpSeqNumber(1);
        if acknowledged > self.acknowledged {
            self.acknowledged = acknowledged;
            self.moved = now;
            let all = acknowledged == self.sent;
            self.retransmit_at = if all { i64::MAX } else { now + RETRANSMIT };
        }
        self.edge = acknowledged + (usize::from(segment.window_len) << self.shift);
        if !segment.payload.is_empty() {
            let known = self.first + self.received.len() - segment.seq_number;
            let room = UNREAD - (self.received.len() - self.read);
            let new = segment.payload.iter().skip(known).take(room);
            self.received.extend(new);
            self.acknowledge();
        }
    }

    fn send(&mut self, control: TcpControl, from: usize, len: usize) {
        let syn = control == TcpControl::Syn;
        let segment = TcpRepr {
            src_port: 40_000,
            dst_port: 7,
            control,
            seq_number: if syn { TcpSeqNumber(0) } else { TcpSeqNumber(1) + from },
            ack_number: (!syn).then_some(self.first + self.received.len()),
            window_len: (UNREAD - (self.received.len() - self.read)) as u16,
            window_scale: syn.then_some(0),
            max_seg_size: syn.then_some(MSS as u16),
            sack_permitted: false,
            sack_ranges: [None; 3],
            timestamp: None,
            payload: &self.data[from..from + len],
        };
        let ip = Ipv4Repr {
            src_addr: PEER.1,
            dst_addr: OWN.1,
            next_header: IpProtocol::Tcp,
            payload_len: segment.buffer_len(),
            hop_limit: 64,
        };
        let payload_len = ip.buffer_len() + segment.buffer_len();
        self.outgoing.push(frame(EthernetProtocol::Ipv4, payload_len, |payload| {
            let checksums = ChecksumCapabilities::default();
            let mut packet = Ipv4Packet::new_unchecked(payload);
            ip.emit(&mut packet, &checksums);
            let mut tcp = TcpPacket::new_unchecked(packet.payload_mut());
            segment.emit(&mut tcp, &PEER.1.into(), &OWN.1.into(), &checksums);
        }));
    }

    fn answer_arp(&mut self) {
        let answer = ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Reply,
            source_hardware_addr: PEER.0,
            source_protocol_addr: PEER.1,
            target_hardware_addr: OWN.0,
            target_protocol_addr: OWN.1,
        };
        self.outgoing.push(frame(EthernetProtocol::Arp, answer.buffer_len(), |payload| {
            answer.emit(&mut ArpPacket::new_unchecked(payload));
        }));
    }
}

/// A frame to the stack, whose payload `fill` writes.
fn frame(ethertype: EthernetProtocol, len: usize, fill: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let header = EthernetRepr { src_addr: PEER.0, dst_addr: OWN.0, ethertype };
    let mut bytes = vec![0; header.buffer_len() + len];
    let mut frame = EthernetFrame::new_unchecked(&mut bytes[..]);
    header.emit(&mut frame);
    fill(frame.payload_mut());
    bytes
}

/// Bytes that have come back, in order, when it is over: all, or nothing has come for long.
fn echoed(receive: usize, transmit: usize, seed: u64) -> usize {
    let bytes = UNREAD + receive + transmit + 50_000;
    let mut peer = Peer::new(seed, bytes);
    let [incoming, outgoing] = [Wire::default(), Wire::default()];
    let io = Io { incoming: incoming.clone(), outgoing: outgoing.clone() };
    let mut device = Device::new(Copying::new(io, MacAddr(OWN.0.0), MTU));
    let mut iface = Interface::new(Config::new(OWN.0.into()), &mut device, Instant::ZERO);
    iface.update_ip_addrs(|list| list.push(IpCidr::new(OWN.1.into(), 24)).unwrap());
    let mut sockets = SocketSet::new(vec![]);
    let mut echo = Listener::<TcpEcho>::new(&mut sockets, 1, || {
        [vec![0; receive].leak(), vec![0; transmit].leak()]
    });
    let mut scratch = vec![0; 1 << 16];
    // On their way, with the time at which they arrive.
    let [mut to_stack, mut to_peer] = [VecDeque::new(), VecDeque::new()];
    for now in 0.. {
        peer.turn(now);
        to_stack.extend(peer.outgoing.drain(..).map(|frame| (now + DELAY, frame)));
        let time = Instant::from_millis(now);
        loop {
            let frame = to_stack.pop_front_if(|(at, _)| *at <= now);
            let is_last = frame.is_none();
            incoming.borrow_mut().extend(frame.map(|(_, frame)| frame));
            device.poll(&mut iface, &mut sockets, time);
            while echo.turn(&mut sockets, time, &mut &mut scratch[..]) {
                device.poll(&mut iface, &mut sockets, time);
            }
            if is_last {
                break;
            }
        }
        to_peer.extend(outgoing.borrow_mut().drain(..).map(|frame| (now + DELAY, frame)));
        while let Some((_, frame)) = to_peer.pop_front_if(|(at, _)| *at <= now) {
            peer.take(&frame, now);
        }
        if peer.read == bytes || now > peer.moved + 20_000 {
            break;
        }
    }
    assert!(peer.data.starts_with(&peer.received));
    peer.read
}

#[test]
fn what_fills_both_directions_comes_back() {
    // With windows that are scaled, four of five come to a stop.
    for seed in 0..8 {
        let [receive, transmit] = [TcpEcho::receive_buffer(512 << 10), 512 << 10];
        let all = UNREAD + receive + transmit + 50_000;
        assert_eq!(echoed(receive, transmit, seed), all, "seed {seed}");
    }
}
