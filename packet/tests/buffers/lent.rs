//! N9: a device that is lent (`&mut N`) does everything itself. None of its methods is left to what a
//! device has that does not say how.

use std::collections::BTreeMap;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use packet_views::buffer::{AnyPacket, BufMut, HeapBlock, PacketMut};
use packet_views::device::{
    Changes, Link, NetDevice, PacketMutOf, PacketOf, Permit, SendError, SendErrorKind, Totals,
    WriteError,
};
use packet_views::features::Capabilities;
use packet_views::header::MacAddr;

/// Counts which of its methods are called; what they answer is like nothing that would be made up.
#[derive(Default)]
struct Counting {
    calls: BTreeMap<&'static str, u32>,
}

struct NoRoom;

impl Permit for NoRoom {
    type Block = HeapBlock;

    fn alloc(&mut self, _headroom: usize) -> Option<BufMut<HeapBlock>> {
        None
    }

    fn send(
        &mut self,
        _packet: PacketMut<HeapBlock>,
    ) -> Result<(), SendError<PacketMut<HeapBlock>>> {
        Err(SendError::Refused(SendErrorKind::TooLong))
    }

    fn flush(self) {}
}

impl Counting {
    fn count(&mut self, method: &'static str) {
        *self.calls.entry(method).or_default() += 1;
    }
}

impl NetDevice for Counting {
    type Block = HeapBlock;
    type Permit<'a> = NoRoom;

    fn mac(&self) -> Option<MacAddr> {
        Some(MacAddr([2, 1, 1, 1, 1, 1]))
    }

    fn mtu(&self) -> usize {
        1234
    }

    fn link(&self) -> Link {
        Link::NoCarrier
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::plain(77)
    }

    fn totals(&self) -> Totals {
        Totals::default().with_rx_packets(88)
    }

    fn take_changes(&mut self) -> Changes {
        self.count("take_changes");
        Changes::NONE.with_mtu(true)
    }

    fn alloc(&mut self, headroom: usize) -> Option<BufMut<HeapBlock>> {
        self.count("alloc");
        Some(BufMut::new(HeapBlock::new(100), headroom))
    }

    fn reserve(&mut self, _slots: usize) -> Option<NoRoom> {
        self.count("reserve");
        Some(NoRoom)
    }

    fn room(&mut self) -> usize {
        99
    }

    fn has_packet(&mut self) -> bool {
        self.count("has_packet");
        true
    }

    fn next_packet(&mut self) -> Option<PacketOf<Self>> {
        self.count("next_packet");
        None
    }

    fn service(&mut self) -> Option<Duration> {
        self.count("service");
        Some(Duration::from_millis(3))
    }

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<()> {
        self.count("poll_ready");
        Poll::Pending
    }

    fn pause_receive(&mut self, _is_paused: bool) {
        self.count("pause_receive");
    }

    fn receive(&mut self, budget: usize, _sink: impl FnMut(PacketOf<Self>)) -> usize {
        self.count("receive");
        budget + 1
    }

    fn flush(&mut self) {
        self.count("flush");
    }

    fn recycle(&mut self, _packet: PacketOf<Self>) {
        self.count("recycle");
    }

    fn max_frame(&self) -> usize {
        4321
    }

    fn send(&mut self, _packet: PacketMutOf<Self>) -> Result<(), SendError<PacketMutOf<Self>>> {
        self.count("send");
        Ok(())
    }

    fn write(
        &mut self,
        _size: usize,
        _fill: impl FnOnce(&mut [u8]) -> usize,
    ) -> Result<(), WriteError> {
        self.count("write");
        Err(WriteError::BadLength)
    }
}

/// Calls each method once, as a layer does that knows nothing of the device but that it is one.
fn use_all<N: NetDevice<Block = HeapBlock>>(mut net: N) {
    assert_eq!(net.mac(), Some(MacAddr([2, 1, 1, 1, 1, 1])));
    assert_eq!((net.mtu(), net.max_frame()), (1234, 4321));
    assert_eq!((net.capabilities().block_size, net.totals().rx_packets), (77, 88));
    assert!(net.take_changes().mtu);
    let buf = || BufMut::new(HeapBlock::new(100), 0);
    assert_eq!(net.alloc(3).unwrap().headroom(), 3);
    assert!(net.reserve(5).is_some());
    assert_eq!((net.link(), net.room()), (Link::NoCarrier, 99));
    assert!(net.has_packet() && net.next_packet().is_none());
    assert_eq!(net.service(), Some(Duration::from_millis(3)));
    assert!(net.poll_ready(&mut Context::from_waker(Waker::noop())).is_pending());
    net.pause_receive(true);
    assert_eq!(net.receive(6, |_| panic!("nothing comes")), 7);
    net.flush();
    net.recycle(AnyPacket::from(buf().freeze()));
    assert!(net.send(AnyPacket::from(buf())).is_ok());
    assert_eq!(net.write(10, |_| panic!("it is not filled")), Err(WriteError::BadLength));
}

#[test]
fn n9_a_device_that_is_lent_does_everything_itself() {
    let mut device = Counting::default();
    use_all(&mut device);
    use_all(&mut &mut device);
    let methods = [
        "alloc",
        "flush",
        "has_packet",
        "next_packet",
        "pause_receive",
        "poll_ready",
        "receive",
        "recycle",
        "reserve",
        "send",
        "service",
        "take_changes",
        "write",
    ];
    assert!(device.calls.keys().eq(&methods), "{:?}", device.calls);
    assert!(device.calls.values().all(|count| *count == 2), "{:?}", device.calls);
}
