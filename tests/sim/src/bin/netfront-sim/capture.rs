//! A device that also writes down what goes through it: `--pcap`.
//!
//! ```text
//!   stack
//!   this ──────── file     packets as the driver takes them and hands them up
//!   Netfront
//!   rings
//! ```
//!
//! A large packet is one packet, as it is on the ring. A checksum that is left to the other end is
//! blank there; in the file it is filled in, or whoever opens it takes it for a fault.
//!
//! Any [`NetDevice`] can sit below, and anything that takes a [`NetDevice`] above.

use core::time::Duration;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::SystemTime;

use packet_views::buffer::{AnyPacket, BufMut, Checksum, HeapBlock, PacketMut, View};
use packet_views::device::{
    Changes, Link, MixedPacketOf, NetDevice, PacketMutOf, PacketOf, Permit, SendError, Totals,
};
use packet_views::features::Capabilities;
use packet_views::header::MacAddr;
use packet_views::header::checksum::fill_blank;
use same_file::Handle;
use xen_netfront::platform::{Instant, Platform};
use xen_sim::Domain;

use crate::alloc::{Charge, Owner};
use crate::error::Error;
use crate::{files, lock};

/// The magic number of pcap with nanoseconds, and the version.
const MAGIC: u32 = 0xa1b2_3c4d;
const VERSION: [u16; 2] = [2, 4];
/// Longer than any packet: none is cut.
const SNAPLEN: u32 = 256 << 10;
/// `LINKTYPE_ETHERNET`
const ETHERNET: u32 = 1;

/// The file. Clones write to the same.
#[derive(Clone)]
pub struct Pcap {
    inner: Arc<Mutex<Inner>>,
    clock: Domain,
    /// What the time 0 of that clock is.
    zero: Duration,
}

struct Inner {
    path: PathBuf,
    /// Gone after the first error, and at the end.
    writer: Option<BufWriter<File>>,
    /// The first error, until it is told.
    error: Option<io::Error>,
    bytes: Vec<u8>,
    counts: Counts,
}

/// What is in the file.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Packets.
    pub packets: u64,
    /// Of these, packets whose checksum was filled in.
    pub filled: u64,
}

impl Pcap {
    /// Creates the file and writes its header. The clock is that of `domain`; one that counts real
    /// time is shown as what it is. `input` must not be the same file.
    pub fn create(
        path: &Path,
        domain: &Domain,
        real_time: bool,
        input: Option<&Handle>,
    ) -> Result<Pcap, Error> {
        let mut writer = BufWriter::new(files::output(path, input)?);
        let [major, minor] = VERSION;
        let version = u32::from(major) | u32::from(minor) << 16;
        for word in [MAGIC, version, 0, 0, SNAPLEN, ETHERNET] {
            writer.write_all(&word.to_le_bytes()).map_err(|error| Error::pcap(path, &error))?;
        }
        let today = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let zero = today.saturating_sub(domain.now().since(Instant(0)));
        let inner = Inner {
            path: path.to_owned(),
            writer: Some(writer),
            error: None,
            bytes: Vec::new(),
            counts: Counts::default(),
        };
        let inner = Arc::new(Mutex::new(inner));
        let zero = if real_time { zero } else { Duration::ZERO };
        Ok(Pcap { inner, clock: domain.clone(), zero })
    }

    fn write<V: View>(&self, packet: &AnyPacket<V>) {
        self.read(packet);
        self.record();
    }

    /// Reads a packet that is [recorded](Pcap::record) once it is sure to go.
    fn read<V: View>(&self, packet: &AnyPacket<V>) {
        let _not_the_drivers = Charge::to(Owner::Nobody);
        let inner = &mut *lock(&self.inner);
        inner.bytes.clear();
        packet.fragments().iter().for_each(|piece| inner.bytes.extend_from_slice(piece.bytes()));
        if packet.meta.checksum == Checksum::Blank {
            inner.counts.filled += u64::from(fill(&mut inner.bytes).is_some());
        }
    }

    /// Writes down what was read last.
    fn record(&self) {
        let _not_the_drivers = Charge::to(Owner::Nobody);
        let inner = &mut *lock(&self.inner);
        // Not before it is this packet's turn: no time is earlier than the one before.
        let time = self.zero + self.clock.now().since(Instant(0));
        let Some(writer) = &mut inner.writer else { return };
        inner.counts.packets += 1;
        let len = inner.bytes.len() as u32;
        let mut record = [0; 16];
        let words = [time.as_secs() as u32, time.subsec_nanos(), len, len];
        for (place, word) in record.chunks_exact_mut(4).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        let written = writer.write_all(&record).and_then(|()| writer.write_all(&inner.bytes));
        inner.heed(written);
    }

    /// Writes out what there is, for those who look on; the first error there was.
    pub fn flush(&self) -> Result<(), Error> {
        let inner = &mut *lock(&self.inner);
        let flushed = inner.writer.as_mut().map_or(Ok(()), BufWriter::flush);
        inner.heed(flushed);
        match inner.error.take() {
            Some(error) => Err(Error::pcap(&inner.path, &error)),
            None => Ok(()),
        }
    }

    /// The first error there was, if any.
    pub fn check(&self) -> Result<(), Error> {
        let mut inner = lock(&self.inner);
        inner.error.take().map_or(Ok(()), |error| Err(Error::pcap(&inner.path, &error)))
    }

    /// Writes out the rest, and tells what is in the file.
    pub fn finish(&self) -> Result<Counts, Error> {
        self.flush()?;
        Ok(lock(&self.inner).counts)
    }
}

impl Inner {
    fn heed(&mut self, result: io::Result<()>) {
        if let Err(error) = result {
            self.error = self.error.take().or(Some(error));
            // What is left in its buffer can't be written either.
            drop(self.writer.take().map(BufWriter::into_parts));
        }
    }
}

/// Fills in the checksum of a packet that was left blank; `None` if it has no place for one.
fn fill(bytes: &mut [u8]) -> Option<()> {
    let mut buf = BufMut::new(HeapBlock::new(bytes.len()), 0);
    buf.append(bytes.len())?.copy_from_slice(bytes);
    let mut packet = AnyPacket::new();
    packet.push(buf).ok()?;
    packet.meta.checksum = Checksum::Blank;
    fill_blank(&mut packet)?;
    bytes.copy_from_slice(packet.fragments().first()?.bytes());
    Some(())
}
/// A device whose packets go to a file as well, if there is one.
pub struct Captured<N> {
    net: N,
    pcap: Option<Pcap>,
}

impl<N> Captured<N> {
    /// `net`, with or without a file.
    pub fn new(net: N, pcap: Option<Pcap>) -> Captured<N> {
        Captured { net, pcap }
    }

    /// The device below.
    pub fn below(&self) -> &N {
        &self.net
    }

    /// The device below.
    pub fn below_mut(&mut self) -> &mut N {
        &mut self.net
    }
}

impl<N: NetDevice> NetDevice for Captured<N> {
    type Block = N::Block;
    type Permit<'a>
        = CapturedPermit<'a, N::Permit<'a>>
    where
        Self: 'a;

    fn mac(&self) -> Option<MacAddr> {
        self.net.mac()
    }

    fn mtu(&self) -> usize {
        self.net.mtu()
    }

    fn link(&self) -> Link {
        self.net.link()
    }

    fn capabilities(&self) -> Capabilities {
        self.net.capabilities()
    }

    fn totals(&self) -> Totals {
        self.net.totals()
    }

    fn take_changes(&mut self) -> Changes {
        self.net.take_changes()
    }

    fn alloc(&mut self, headroom: usize) -> Option<BufMut<N::Block>> {
        self.net.alloc(headroom)
    }

    /// The device's own way to send: what its peer does not take, it cuts.
    fn send(&mut self, packet: PacketMutOf<N>) -> Result<(), SendError<PacketMutOf<N>>> {
        if let Some(pcap) = &self.pcap {
            pcap.read(&packet);
        }
        self.net.send(packet)?;
        if let Some(pcap) = &self.pcap {
            pcap.record();
        }
        Ok(())
    }

    fn send_mixed(&mut self, packet: MixedPacketOf<N>) -> Result<(), SendError<MixedPacketOf<N>>> {
        if let Some(pcap) = &self.pcap {
            pcap.read(&packet);
        }
        self.net.send_mixed(packet)?;
        if let Some(pcap) = &self.pcap {
            pcap.record();
        }
        Ok(())
    }

    fn reserve(&mut self, slots: usize) -> Option<Self::Permit<'_>> {
        let permit = self.net.reserve(slots)?;
        Some(CapturedPermit { permit, pcap: self.pcap.as_ref() })
    }

    fn receive(&mut self, budget: usize, mut sink: impl FnMut(PacketOf<N>)) -> usize {
        let pcap = self.pcap.as_ref();
        self.net.receive(budget, |packet| {
            if let Some(pcap) = pcap {
                pcap.write(&packet);
            }
            sink(packet);
        })
    }

    fn room(&mut self) -> usize {
        self.net.room()
    }

    fn has_packet(&mut self) -> bool {
        self.net.has_packet()
    }

    fn pause_receive(&mut self, is_paused: bool) {
        self.net.pause_receive(is_paused);
    }

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.net.poll_ready(context)
    }

    fn flush(&mut self) {
        self.net.flush();
    }

    fn recycle(&mut self, packet: PacketOf<N>) {
        self.net.recycle(packet);
    }
}

/// Room for one packet that will be written down.
pub struct CapturedPermit<'a, P> {
    permit: P,
    pcap: Option<&'a Pcap>,
}

impl<P: Permit> Permit for CapturedPermit<'_, P> {
    type Block = P::Block;

    fn alloc(&mut self, headroom: usize) -> Option<BufMut<P::Block>> {
        self.permit.alloc(headroom)
    }

    fn send(&mut self, packet: PacketMut<P::Block>) -> Result<(), SendError<PacketMut<P::Block>>> {
        if let Some(pcap) = self.pcap {
            pcap.write(&packet);
        }
        self.permit.send(packet)
    }

    fn flush(self) {
        self.permit.flush();
    }
}
