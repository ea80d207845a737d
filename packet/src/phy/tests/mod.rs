//! The adaptor over a device whose every answer a test decides.

mod fragments;
mod frames;
mod mixture;
mod probes;
mod receive;
mod sockets;
mod tags;
mod transmit;

use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;

use smoltcp::iface::{Config, SocketHandle};
use smoltcp::phy::{Device as _, RxToken as _, TxToken as _};
use smoltcp::wire::{EthernetAddress, IpAddress, IpCidr};

use super::*;
use crate::buffer::{AnyPacket, Block, Checksum, HeapBlock, Packet, SharedHeapBlock, View};
use crate::buffer::{BufMut, PacketMut};
use crate::device::{Changes, PacketOf, Permit, SendError, slots};
use crate::features::{Capabilities, Features};
use crate::header::MacAddr;
use crate::header::checksum::fill_blank;
use crate::offload::{Segments, Sums};

/// A device that has `room` slots and `blocks` blocks, full of old bytes.
struct Mock {
    mac: u8,
    mtu: usize,
    block_size: usize,
    max_fragments: usize,
    /// What its peer takes.
    peer: Features,
    room: usize,
    blocks: usize,
    incoming: VecDeque<Packet<SharedHeapBlock>>,
    sent: Vec<PacketMut<HeapBlock>>,
    flushes: usize,
    recycled: usize,
    changes: Changes,
}

struct MockPermit<'a>(&'a mut Mock, usize);

impl Permit for MockPermit<'_> {
    type Block = HeapBlock;

    fn alloc(&mut self, headroom: usize) -> Option<BufMut<HeapBlock>> {
        self.0.alloc(headroom)
    }

    fn send(
        &mut self,
        mut packet: PacketMut<HeapBlock>,
    ) -> Result<(), SendError<PacketMut<HeapBlock>>> {
        self.1 = self.1.checked_sub(slots(&packet)).expect("no more slots than reserved");
        self.0.room -= slots(&packet);
        if let Some(gso) = packet.meta.gso {
            assert!(self.0.peer.takes_gso(gso.kind), "a permit cuts nothing");
            assert_eq!(packet.meta.checksum, Checksum::Blank);
        }
        if !self.0.peer.takes_packet(&packet) {
            fill_blank(&mut packet).expect("blank, and can be filled in");
        }
        self.0.sent.push(packet);
        Ok(())
    }

    fn flush(self) {
        self.0.flush();
    }
}

impl NetDevice for Mock {
    type Block = HeapBlock;
    type Permit<'a> = MockPermit<'a>;

    fn mac(&self) -> Option<MacAddr> {
        Some(MacAddr([2, 0, 0, 0, 0, self.mac]))
    }

    fn mtu(&self) -> usize {
        self.mtu
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            block_size: self.block_size,
            max_fragments: self.max_fragments,
            features: self.peer,
        }
    }

    fn totals(&self) -> crate::device::Totals {
        crate::device::Totals::default()
    }

    fn take_changes(&mut self) -> Changes {
        core::mem::take(&mut self.changes)
    }

    fn alloc(&mut self, headroom: usize) -> Option<BufMut<HeapBlock>> {
        self.blocks = self.blocks.checked_sub(1)?;
        let mut block = HeapBlock::new(self.block_size);
        block.range_mut(0..self.block_size)?.fill(0xa5);
        Some(BufMut::new(block, headroom))
    }

    fn reserve(&mut self, slots: usize) -> Option<MockPermit<'_>> {
        if self.room < slots { None } else { Some(MockPermit(self, slots)) }
    }

    fn room(&mut self) -> usize {
        self.room
    }

    fn has_packet(&mut self) -> bool {
        !self.incoming.is_empty()
    }

    fn receive(&mut self, budget: usize, mut sink: impl FnMut(PacketOf<Self>)) -> usize {
        let now = budget.min(self.incoming.len());
        self.incoming.drain(..now).for_each(&mut sink);
        now
    }

    fn flush(&mut self) {
        self.flushes += 1;
    }

    fn recycle(&mut self, _packet: PacketOf<Self>) {
        self.recycled += 1;
    }

    fn send(
        &mut self,
        packet: PacketMut<HeapBlock>,
    ) -> Result<(), SendError<PacketMut<HeapBlock>>> {
        let Some(gso) = packet.meta.gso.filter(|gso| !self.peer.takes_gso(gso.kind)) else {
            let mut permit = self.reserve(slots(&packet)).unwrap();
            permit.send(packet).unwrap();
            return Ok(());
        };
        if self.room < packet.len() / usize::from(gso.size.get()) + 1 {
            return Err(SendError::Full(packet));
        }
        let mut segments = Segments::new(packet, Sums::Fill).map_err(|(why, _)| why).unwrap();
        while let Some(segment) = segments.cut(|| Some(BufMut::new(HeapBlock::new(2048), 0))) {
            self.room -= 1;
            self.sent.push(segment.unwrap());
        }
        Ok(())
    }
}

fn mock() -> Mock {
    Mock {
        mac: 1,
        mtu: 1500,
        block_size: 2048,
        max_fragments: 18,
        peer: Features::NONE,
        room: 256,
        blocks: 1000,
        incoming: VecDeque::new(),
        sent: Vec::new(),
        flushes: 0,
        recycled: 0,
        changes: Changes::NONE,
    }
}

/// A packet of these fragments.
fn packet(fragments: &[&[u8]]) -> Packet<SharedHeapBlock> {
    let mut packet = AnyPacket::new();
    for bytes in fragments {
        let mut buf = BufMut::new(HeapBlock::new(bytes.len() + 7), 3);
        buf.append(bytes.len()).unwrap().copy_from_slice(bytes);
        packet.push(buf.freeze()).unwrap();
    }
    packet
}

fn joined<V: View>(packet: &AnyPacket<V>) -> Vec<u8> {
    packet.fragments().iter().flat_map(|fragment| fragment.bytes().to_vec()).collect()
}

/// Receives one packet and returns its bytes and where the stack saw them.
fn receive(device: &mut Device<Mock>) -> Option<(Vec<u8>, *const u8)> {
    let (rx, _) = device.receive(Instant::ZERO)?;
    Some(rx.consume(|bytes| (bytes.to_vec(), bytes.as_ptr())))
}

/// A smoltcp stack on a device, with an address of each kind that ends in its number.
struct Stack {
    device: Device<Mock>,
    iface: Interface,
    sockets: SocketSet<'static>,
    now: Instant,
}

impl Stack {
    fn new(number: u8, mock: Mock) -> Stack {
        let mut device = Device::new(Mock { mac: number, ..mock });
        let config = Config::new(EthernetAddress(device.inner().mac().unwrap().0).into());
        let mut iface = Interface::new(config, &mut device, Instant::ZERO);
        iface.update_ip_addrs(|addresses| {
            addresses.push(IpCidr::new(address(true, number), 24)).unwrap();
            addresses.push(IpCidr::new(address(false, number), 64)).unwrap();
        });
        Stack { device, iface, sockets: SocketSet::new(vec![]), now: Instant::ZERO }
    }

    fn poll(&mut self) {
        self.now += smoltcp::time::Duration::from_millis(1);
        self.device.poll(&mut self.iface, &mut self.sockets, self.now);
    }

    fn socket<T: smoltcp::socket::AnySocket<'static>>(&mut self, handle: SocketHandle) -> &mut T {
        self.sockets.get_mut(handle)
    }
}

fn address(v4: bool, number: u8) -> IpAddress {
    if v4 {
        IpAddress::v4(10, 0, 0, number)
    } else {
        IpAddress::v6(0xfd00, 0, 0, 0, 0, 0, 0, number.into())
    }
}

/// What one has sent, the other receives, as it is; returns the longest packet's length.
fn carry(from: &mut Stack, to: &mut Stack) -> usize {
    let net = from.device.inner_mut();
    let mut longest = 0;
    for packet in net.sent.drain(..) {
        net.room += slots(&packet);
        net.blocks += packet.fragments().len();
        longest = longest.max(packet.len());
        to.device.inner_mut().incoming.push_back(packet.freeze());
    }
    longest
}
