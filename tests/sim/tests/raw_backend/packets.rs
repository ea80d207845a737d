//! Whole packets, as the raw backend sees and makes them.

use packet_views::buffer::Gso;
use packet_views::buffer::{Checksum, Meta};
use packet_views::device::NetDevice;
use xen_netfront::buffer::PacketMut;
use xen_netfront::wire::{Extra, RxResponse, Status, TxRequest, TxResponse, rx_flags, tx_flags};

use super::{Bench, bytes};

/// A packet that the frontend has put on the transmit ring.
#[derive(Debug)]
pub struct Sent {
    /// Of its data slots, in order.
    pub requests: Vec<TxRequest>,
    /// In the slot behind the first one's.
    pub gso: Option<Gso>,
    pub bytes: Vec<u8>,
}

impl Sent {
    /// Slots, the extra's included.
    pub fn slots(&self) -> usize {
        self.requests.len() + usize::from(self.gso.is_some())
    }

    /// What the flags and the extra say.
    pub fn meta(&self) -> Meta {
        let flags = self.requests[0].flags;
        let (blank, good) = (tx_flags::CSUM_BLANK, tx_flags::DATA_VALIDATED);
        let checksum = match (flags & blank != 0, flags & good != 0) {
            (true, good) => {
                assert!(good, "a blank checksum's data is validated");
                Checksum::Blank
            }
            (false, true) => Checksum::Complete,
            (false, false) => Checksum::Unknown,
        };
        Meta { checksum, gso: self.gso }
    }
}

impl Bench {
    /// The packets that the frontend has published, whole ones only.
    #[track_caller]
    pub fn sent(&mut self) -> Vec<Sent> {
        let tx = &mut self.rings().tx;
        tx.refresh().unwrap();
        let mut slots = std::iter::from_fn(|| tx.pop().map(|(_, slot)| slot));
        let mut chains = Vec::new();
        while let Some(slot) = slots.next() {
            let first = slot.request();
            let gso = (first.flags & tx_flags::EXTRA_INFO != 0).then(|| {
                let slot = slots.next().expect("an extra follows");
                assert_eq!(slot.0[2], 0, "the third word of an extra");
                let extra = slot.extra();
                assert_eq!(extra.flags, 0, "one extra only");
                extra.gso().expect("a GSO extra")
            });
            let mut requests = vec![first];
            while requests.last().unwrap().flags & tx_flags::MORE_DATA != 0 {
                let next = slots.next().expect("the packet goes on").request();
                assert_eq!(next.flags & !tx_flags::MORE_DATA, 0, "flags of a later slot");
                requests.push(next);
            }
            chains.push((requests, gso));
        }
        let read = |(requests, gso): (Vec<TxRequest>, _)| {
            // The first size is the packet's.
            let later: u16 = requests[1..].iter().map(|request| request.size).sum();
            let sizes = requests.iter().enumerate().map(|(nth, request)| match nth {
                0 => request.size - later,
                _ => request.size,
            });
            let parts =
                sizes.zip(&requests).flat_map(|(size, at)| self.sent_bytes(at, size.into()));
            let bytes = parts.collect();
            Sent { requests, gso, bytes }
        };
        chains.into_iter().map(read).collect()
    }

    /// Answers a packet: each data slot with its id, the extra's with nothing but a status.
    pub fn answer_sent(&mut self, sent: &Sent, status: i16) {
        let tx = &mut self.rings().tx;
        for (nth, request) in sent.requests.iter().enumerate() {
            tx.push(TxResponse { id: request.id, status }).unwrap();
            if nth == 0 && sent.gso.is_some() {
                let null = Status::Null.number();
                tx.push(TxResponse { id: 0xbeef, status: null }).unwrap();
            }
        }
        let _ = tx.publish();
    }

    /// A packet with `bytes` cut before each of `cuts`.
    pub fn packet(&mut self, bytes: &[u8], cuts: &[usize], meta: Meta) -> PacketMut {
        let ends = cuts.iter().copied().chain([bytes.len()]);
        let (mut packet, mut at) = (PacketMut::new(), 0);
        for end in ends {
            let mut buf = self.front.alloc(0).expect("a frame");
            buf.append(end - at).unwrap().copy_from_slice(&bytes[at..end]);
            packet.push(buf).unwrap();
            at = end;
        }
        packet.meta = meta;
        packet
    }

    /// Has the frontend send a packet, cut into pages where it must be; false if it has no room.
    pub fn send_whole(&mut self, bytes: &[u8], meta: Meta) -> bool {
        let cuts: Vec<usize> = (4096..bytes.len()).step_by(4096).collect();
        let packet = self.packet(bytes, &cuts, meta);
        let sent = NetDevice::send(&mut self.front, packet).is_ok();
        self.front.flush();
        sent
    }

    /// Delivers a packet whose first response has these flags besides; extras behind it.
    pub fn deliver_with(&mut self, parts: &[&[u8]], flags: u16, extras: &[Extra]) {
        for (nth, part) in parts.iter().enumerate() {
            let request = self.rx_request();
            self.fill(&request, 0, part);
            let mut all = if nth + 1 < parts.len() { rx_flags::MORE_DATA } else { 0 };
            if nth == 0 {
                all |= flags;
                all |= if extras.is_empty() { 0 } else { rx_flags::EXTRA_INFO };
            }
            let (id, status) = (request.id, part.len() as i16);
            self.answer(RxResponse { id, offset: 0, flags: all, status });
            if nth == 0 {
                for extra in extras {
                    // It takes the place of a response.
                    self.rx_request();
                    self.answer(*extra);
                }
            }
        }
        self.publish_rx();
    }

    /// What the frontend hands up now, with what it says of each.
    pub fn received_with_meta(&mut self) -> Vec<(Vec<u8>, Meta)> {
        let mut packets = Vec::new();
        self.front.receive(1000, |packet| packets.push((bytes(&packet), packet.meta)));
        packets
    }
}
