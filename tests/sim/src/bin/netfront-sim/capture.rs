//! A device that also writes down what goes through it: `--pcap`.
//!
//! Any [`Netif`] can sit below, and anything that takes a [`Netif`] above.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use pcap_file::pcap::{PcapHeader, PcapPacket, PcapWriter};
use pcap_file::{DataLink, PcapError, TsResolution};
use xen_netfront::buffer::{Packet, TxBuf, TxPacket, View};
use xen_netfront::header::MacAddr;
use xen_netfront::netif::{Capabilities, Linear, Netif, Permit, RxOf, Stats, Unsendable};
use xen_netfront::platform::{Instant, Platform};
use xen_sim::Domain;

use crate::alloc::{Charge, Owner};
use crate::error::Error;
use crate::lock;

/// The file. Clones write to the same.
#[derive(Clone)]
pub struct Pcap {
    inner: Arc<Mutex<Inner>>,
    clock: Domain,
}

struct Inner {
    path: PathBuf,
    /// Gone after the first error, and at the end.
    writer: Option<PcapWriter<BufWriter<File>>>,
    packet: Vec<u8>,
    error: Option<PcapError>,
}

impl Pcap {
    /// Creates the file and writes its header. The clock is that of `domain`.
    pub fn create(path: &Path, domain: &Domain) -> Result<Pcap, Error> {
        let header = PcapHeader {
            datalink: DataLink::ETHERNET,
            ts_resolution: TsResolution::NanoSecond,
            ..PcapHeader::default()
        };
        let writer = File::create(path)
            .map_err(PcapError::IoError)
            .and_then(|file| PcapWriter::with_header(BufWriter::new(file), header))
            .map_err(|error| Error::pcap(path, &error))?;
        let (path, packet) = (path.to_owned(), Vec::new());
        let inner = Inner { path, writer: Some(writer), packet, error: None };
        Ok(Pcap { inner: Arc::new(Mutex::new(inner)), clock: domain.clone() })
    }

    fn write<V: View>(&self, packet: &Packet<V>) {
        let _not_the_drivers = Charge::to(Owner::Nobody);
        let Inner { writer, packet: bytes, error, .. } = &mut *lock(&self.inner);
        let Some(open) = writer else { return };
        bytes.clear();
        packet.fragments().iter().for_each(|fragment| bytes.extend_from_slice(fragment.bytes()));
        let time = self.clock.now().since(Instant(0));
        let entry = PcapPacket::new(time, bytes.len() as u32, bytes);
        if let Err(failed) = open.write_packet(&entry) {
            *error = Some(failed);
            *writer = None;
        }
    }

    /// Writes out the rest; the first error there was.
    pub fn finish(&self) -> Result<(), Error> {
        let mut inner = lock(&self.inner);
        let result = match (inner.error.take(), inner.writer.take()) {
            (Some(error), _) => Err(error),
            (None, Some(writer)) => writer.into_writer().flush().map_err(PcapError::IoError),
            (None, None) => Ok(()),
        };
        result.map_err(|error| Error::pcap(&inner.path, &error))
    }
}

/// A device whose packets go to a file as well, if there is one.
pub struct Captured<N> {
    netif: N,
    pcap: Option<Pcap>,
}

impl<N> Captured<N> {
    /// `netif`, with or without a file.
    pub fn new(netif: N, pcap: Option<Pcap>) -> Captured<N> {
        Captured { netif, pcap }
    }

    /// The device below.
    pub fn below(&self) -> &N {
        &self.netif
    }

    /// The device below.
    pub fn below_mut(&mut self) -> &mut N {
        &mut self.netif
    }
}

impl<N: Netif> Netif for Captured<N> {
    type Block = N::Block;
    type Permit<'a>
        = CapturedPermit<'a, N::Permit<'a>>
    where
        Self: 'a;

    fn mac(&self) -> Option<MacAddr> {
        self.netif.mac()
    }

    fn mtu(&self) -> usize {
        self.netif.mtu()
    }

    fn capabilities(&self) -> Capabilities {
        self.netif.capabilities()
    }

    fn stats(&self) -> Stats {
        self.netif.stats()
    }

    fn alloc(&mut self, headroom: usize) -> Option<TxBuf<N::Block>> {
        self.netif.alloc(headroom)
    }

    fn reserve(&mut self, slots: usize) -> Option<Self::Permit<'_>> {
        let permit = self.netif.reserve(slots)?;
        Some(CapturedPermit { permit, pcap: self.pcap.as_ref() })
    }

    fn receive(&mut self, budget: usize, mut sink: impl FnMut(RxOf<N>)) -> usize {
        let pcap = self.pcap.as_ref();
        self.netif.receive(budget, |packet| {
            if let Some(pcap) = pcap {
                pcap.write(&packet);
            }
            sink(packet);
        })
    }

    fn flush(&mut self) {
        self.netif.flush();
    }

    fn linear(&mut self) -> &mut Linear {
        self.netif.linear()
    }

    fn recycle(&mut self, packet: RxOf<N>) {
        self.netif.recycle(packet);
    }
}

/// Room for one packet that will be written down.
pub struct CapturedPermit<'a, P> {
    permit: P,
    pcap: Option<&'a Pcap>,
}

impl<P: Permit> Permit for CapturedPermit<'_, P> {
    type Block = P::Block;

    fn send(&mut self, packet: TxPacket<P::Block>) -> Result<(), Unsendable> {
        if let Some(pcap) = self.pcap {
            pcap.write(&packet);
        }
        self.permit.send(packet)
    }
}
