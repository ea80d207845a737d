//! The TAP device: frames of the pool are read into and written from, without a copy of our own.

use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use packet_views::buffer::{AnyPacket, Meta, View};
use tun_rs::{DeviceBuilder, Layer, SyncDevice, VIRTIO_NET_HDR_LEN, VirtioNetHdr};
use xen_grant::{Frame, FramePool, PAGE_SIZE};
use xen_netfront::buffer::{BufMut, Packet, PacketMut};
use xen_netfront::wire::{MAX_PACKET, MAX_SLOTS};

use super::unusable::{self, Unusable};
use super::vnet;

/// Pages that the largest packet takes.
const FRAMES: usize = MAX_PACKET.div_ceil(PAGE_SIZE);

/// What a device that we make ourselves is given.
pub struct Addresses {
    /// Its own, in a network of 24 bits.
    pub v4: Ipv4Addr,
    /// Its own, in a network of 64 bits.
    pub v6: Ipv6Addr,
    /// Its MTU.
    pub mtu: u16,
}

/// What became of a packet to or from the device, if not what was hoped for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Drops {
    /// From Linux: longer than netif carries.
    pub too_long: u64,
    /// From Linux: segments of UDP, or the checksum of a tunnel.
    pub other_offload: u64,
    /// From the client: Linux did not take it.
    pub refused: u64,
    /// From the client: an offload for a device that was opened without.
    pub no_offload: u64,
}

/// What has gone through the device.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counters {
    /// Packets from Linux, and their bytes.
    pub read: (u64, u64),
    /// Packets to Linux, and their bytes.
    pub written: (u64, u64),
    /// Of these, GSO packets: from Linux, to Linux.
    pub gso: (u64, u64),
    /// Blank checksums: from Linux, to Linux.
    pub blank: (u64, u64),
    /// What did not get through.
    pub drops: Drops,
}

/// An open TAP device.
pub struct Tap {
    device: Arc<SyncDevice>,
    /// Whether a `virtio_net_hdr` is in front of each packet.
    vnet: bool,
    pool: FramePool,
    /// Frames for the next packet.
    spare: Vec<Frame>,
    counters: Counters,
    /// Why it is of no use any more.
    error: Option<io::Error>,
}

/// What came of reading.
pub enum Read {
    /// A packet, which was passed on or dropped.
    Packet,
    /// Nothing there.
    Empty,
    /// The pool is short of frames.
    NoFrame,
    /// It can't be read any more: see [`Tap::error`].
    Broken,
}

impl Tap {
    /// Opens the device of this name, with a `virtio_net_hdr` if `vnet`. One that does not exist is
    /// made, given these addresses and brought up; then it is gone when the program ends.
    pub fn open(
        name: &str,
        vnet: bool,
        own: &Addresses,
        pool: &FramePool,
    ) -> Result<Tap, Unusable> {
        let exists = unusable::check(name)?;
        let builder = DeviceBuilder::new().name(name).layer(Layer::L2).offload(vnet);
        let builder = if exists {
            builder.inherit_enable_state()
        } else {
            builder.mtu(own.mtu).ipv4(own.v4, 24, None)
        };
        let device = builder.build_sync().map_err(|error| Unusable::of(error, exists))?;
        if !exists {
            // A machine may do without IPv6.
            let _ = device.add_address_v6(own.v6, 64);
        }
        device.set_nonblocking(true).map_err(Unusable::Other)?;
        let spare = Vec::with_capacity(FRAMES);
        Ok(Tap {
            device: Arc::new(device),
            vnet,
            pool: pool.clone(),
            spare,
            counters: Counters::default(),
            error: None,
        })
    }

    /// Whether offload metadata crosses.
    pub fn has_vnet_header(&self) -> bool {
        self.vnet
    }

    /// What has gone through.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Why the device is of no use any more, once it is not.
    pub fn error(&self) -> Option<&io::Error> {
        self.error.as_ref()
    }

    /// The device itself, to wait for.
    pub fn device(&self) -> Arc<SyncDevice> {
        self.device.clone()
    }

    /// Takes the next packet from Linux. One that netif can't carry is dropped and counted.
    pub fn read(&mut self, sink: impl FnOnce(Packet)) -> Read {
        while self.spare.len() < FRAMES {
            let Some(frame) = self.pool.take() else { return Read::NoFrame };
            self.spare.push(frame);
        }
        let mut header = [0; VIRTIO_NET_HDR_LEN];
        let before = if self.vnet { VIRTIO_NET_HDR_LEN } else { 0 };
        let mut pages = self.spare.iter_mut().map(|frame| IoSliceMut::new(frame.bytes_mut()));
        let mut slices: [IoSliceMut<'_>; FRAMES + 1] = core::array::from_fn(|index| match index {
            0 => IoSliceMut::new(&mut []),
            _ => pages.next().unwrap_or_else(|| IoSliceMut::new(&mut [])),
        });
        slices[0] = IoSliceMut::new(&mut header[..before]);
        let len = match self.device.recv_vectored(&mut slices) {
            Ok(len) => len.saturating_sub(before),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Read::Empty,
            Err(error) => {
                self.error = Some(error);
                return Read::Broken;
            }
        };
        if len > MAX_PACKET {
            self.counters.drops.too_long += 1;
            return Read::Packet;
        }
        let mut packet = AnyPacket::new();
        let mut left = len;
        // There are enough for the longest packet.
        for frame in self.spare.drain(..len.div_ceil(PAGE_SIZE)) {
            let now = left.min(PAGE_SIZE);
            let _pushed = BufMut::with_range(frame, 0..now).map(|buf| packet.push(buf));
            left -= now;
        }
        if self.learn(&mut packet, &header).is_some() {
            sink(packet.freeze());
        }
        Read::Packet
    }

    /// Notes what Linux tells of a packet; `None` if netif has no words for it.
    fn learn(&mut self, packet: &mut PacketMut, header: &[u8]) -> Option<()> {
        if self.vnet {
            let header = VirtioNetHdr::decode(header).unwrap_or_default();
            let Some(meta) = vnet::from_linux(packet.head(), &header) else {
                self.counters.drops.other_offload += 1;
                return None;
            };
            packet.meta = meta;
            self.counters.gso.0 += u64::from(meta.gso.is_some());
            self.counters.blank.0 += u64::from(header.flags & vnet::NEEDS_CSUM != 0);
        }
        self.counters.read.0 += 1;
        self.counters.read.1 += packet.len() as u64;
        Some(())
    }

    /// Hands a packet to Linux; one that it does not take is dropped and counted.
    pub fn write<V: View>(&mut self, packet: &AnyPacket<V>) {
        let mut header = [0; VIRTIO_NET_HDR_LEN];
        let before = if self.vnet { VIRTIO_NET_HDR_LEN } else { 0 };
        if self.vnet {
            let told = vnet::to_linux(packet.head(), &packet.meta);
            if told.and_then(|told| told.encode(&mut header).ok()).is_none() {
                self.counters.drops.no_offload += 1;
                return;
            }
        } else if !is_plain(&packet.meta) {
            self.counters.drops.no_offload += 1;
            return;
        }
        let mut fragments = packet.fragments().iter();
        let slices: [IoSlice<'_>; MAX_SLOTS + 1] = core::array::from_fn(|index| match index {
            0 => IoSlice::new(&header[..before]),
            _ => IoSlice::new(fragments.next().map_or(&[], View::bytes)),
        });
        if let Err(error) = self.device.send_vectored(&slices) {
            self.counters.drops.refused += 1;
            if unusable::is_gone(&error) {
                self.error = Some(error);
            }
            return;
        }
        self.counters.written.0 += 1;
        self.counters.written.1 += packet.len() as u64;
        self.counters.gso.1 += u64::from(packet.meta.gso.is_some());
        self.counters.blank.1 += u64::from(header[0] & vnet::NEEDS_CSUM != 0);
    }
}

/// Whether a packet needs nothing done to it.
fn is_plain(meta: &Meta) -> bool {
    meta.gso.is_none() && meta.checksum != packet_views::buffer::Checksum::Blank
}
