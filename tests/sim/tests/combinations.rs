//! Every combination of features, queues and channels on either end: what each published is what
//! both go by, and whatever is sent arrives whole, done in software where the other end takes less.
//!
//! ```text
//!   13 subsets of features that differ in meaning  x  queues 1, 2  x  one channel, two   of a frontend
//!   13                                             x  queues 1, 2                        of a backend
//! ```
#![allow(missing_docs)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod packets;

use std::collections::BTreeMap;
use std::time::Duration;

use packet_views::buffer::{AnyPacket, Checksum, Meta, View};
use packet_views::device::Link;
use packet_views::device::NetDevice;
use packet_views::features::Features;
use packets::{Flow, check, join};
use xen_grant::{DomId, FramePool, GrantTable};
use xen_netfront::buffer::{BufMut, PacketMut};
use xen_netfront::netback::{self, Netback};
use xen_netfront::netfront::{self, Netfront};
use xen_sim::{Domain, Host, Vif};

const FRONT: DomId = DomId(1);
const BACK: DomId = DomId(2);

/// One end of a combination.
#[derive(Clone, Copy, Debug)]
struct End {
    features: Features,
    queues: u32,
    split: bool,
}

/// A frontend and a backend of ours, connected.
struct Pair {
    host: Host,
    front: Netfront<Domain, Domain>,
    back: Netback<Domain, Domain>,
    front_pool: FramePool,
    back_pool: FramePool,
}

fn subset(bits: u32) -> Features {
    let bit = |nth: u32| bits >> nth & 1 == 1;
    Features::NONE
        .with_scatter_gather(bit(0))
        .with_checksum_v4(bit(1))
        .with_checksum_v6(bit(2))
        .with_gso_v4(bit(3))
        .with_gso_v6(bit(4))
}

/// Without those that mean the same as another one.
fn meaningful() -> Vec<Features> {
    (0..32).map(subset).filter(|features| features.coherent() == *features).collect()
}

impl Pair {
    fn connect(front: End, back: End) -> Pair {
        let host = Host::new(1);
        let domains = (host.add_domain(FRONT, 400), host.add_domain(BACK, 400));
        host.toolstack().add_vif(&Vif::new(FRONT, BACK, 0));
        let (front_pool, back_pool) =
            (FramePool::new(&domains.0, 300).unwrap(), FramePool::new(&domains.1, 100).unwrap());
        let config = netfront::Config::default()
            .with_features(front.features)
            .with_queues(front.queues)
            .with_split_event_channels(front.split)
            .with_ring_start(u32::MAX - 20);
        let front_splits = front.split;
        let table = GrantTable::new(&domains.0);
        let (platform, store) = (domains.0.clone(), domains.0);
        let front = Netfront::open(platform, store, &front_pool, &table, 0, config).unwrap();
        let config = netback::Config::default()
            .with_features(back.features)
            .with_max_queues(back.queues)
            .with_split_channels(front_splits);
        let (platform, store) = (domains.1.clone(), domains.1);
        let back = Netback::open(platform, store, &back_pool, FRONT, 0, config).unwrap();
        let mut pair = Pair { host, front, back, front_pool, back_pool };
        for _ in 0..20 {
            pair.back.service();
            pair.front.service();
            if pair.front.link() == Link::Up && pair.back.is_connected() {
                return pair;
            }
            pair.host.advance(Duration::from_millis(1));
        }
        panic!("no connection:\n{}", pair.host.dump_store());
    }

    fn packet(pool: &FramePool, bytes: &[u8], meta: Meta) -> PacketMut {
        let mut packet = PacketMut::new();
        for part in bytes.chunks(4000) {
            let mut buf = BufMut::new(pool.take().expect("a frame"), 0);
            buf.append(part.len()).unwrap().copy_from_slice(part);
            packet.push(buf).unwrap();
        }
        packet.meta = meta;
        packet
    }

    /// Sends a packet from the frontend; what arrives.
    fn up(&mut self, bytes: &[u8], meta: Meta) -> Vec<(Vec<u8>, Meta)> {
        let packet = Pair::packet(&self.front_pool, bytes, meta);
        assert!(NetDevice::send(&mut self.front, packet).is_ok(), "there is room");
        self.front.flush();
        let mut got = Vec::new();
        while self.back.poll(64, |packet| got.push(copy(&packet))) > 0 {}
        self.back.flush();
        self.front.complete_tx();
        got
    }

    /// Sends a packet from the backend; what arrives.
    fn down(&mut self, bytes: &[u8], meta: Meta) -> Vec<(Vec<u8>, Meta)> {
        let packet = Pair::packet(&self.back_pool, bytes, meta);
        assert!(self.back.deliver(packet.freeze()).is_ok());
        let mut got = Vec::new();
        while self.back.queued() > 0 || got.is_empty() {
            self.back.flush();
            assert!(self.front.receive(64, |packet| got.push(copy(&packet))) > 0);
        }
        got
    }

    fn tear_down(self) {
        let Pair { host, front, back, front_pool, back_pool } = self;
        // It lets go of the frontend's pages.
        drop(back);
        drop(front);
        assert_eq!((front_pool.free(), back_pool.free()), (300, 100), "frames leaked");
        drop((front_pool, back_pool));
        assert_eq!(host.violations(), []);
    }
}

fn copy<V: View>(packet: &AnyPacket<V>) -> (Vec<u8>, Meta) {
    let mut bytes = vec![0; packet.len()];
    packet.copy_to_slice(&mut bytes).unwrap();
    (bytes, packet.meta)
}

/// What an end is asked to do, by what it says afterwards.
#[derive(Debug, Default, PartialEq, Eq)]
struct Done {
    cut: u64,
    segments: u64,
    filled: u64,
}

/// Sends packets of all kinds one way, through an end that may use `takes`; what the end must have
/// done in software for it. A complete checksum is `complete` to the other end.
fn send_all(
    mut send: impl FnMut(&[u8], Meta) -> Vec<(Vec<u8>, Meta)>,
    takes: Features,
    complete: Checksum,
    ports: u16,
) -> Done {
    let mut done = Done::default();
    let mut numbers: BTreeMap<Flow, u32> = BTreeMap::new();
    for port in 0..ports {
        for flow in Flow::each_kind(port) {
            let takes_blank = if flow.v6 { takes.checksum_v6 } else { takes.checksum_v4 };
            let sizes: &[(usize, u16)] = match flow.tcp {
                true => &[(0, 0), (1400, 0), (6000, 1400), (1000, 1400)],
                false => &[(1, 0), (1400, 0)],
            };
            for &(len, size) in sizes {
                let sequence = numbers.entry(flow).or_insert(u32::MAX - 1000);
                let data: Vec<u8> =
                    (0..len).map(|at| (at * 7 + *sequence as usize) as u8).collect();
                let meta = flow.meta(size);
                let got = send(&flow.blank(*sequence, &data), meta);
                let expected = match takes_blank {
                    true => Checksum::Blank,
                    false => complete,
                };
                assert!(got.iter().all(|(_, meta)| meta.checksum == expected), "{flow:?} {len}");
                if size > 0 && !takes.takes_gso(flow.gso_kind()) {
                    assert_eq!(got.len(), len.div_ceil(size.into()));
                    assert!(join(flow, *sequence, size.into(), &got) == data, "{flow:?} {len}");
                    done.cut += 1;
                    done.segments += got.len() as u64;
                } else {
                    assert_eq!((got.len(), got[0].1.gso), (1, meta.gso), "{flow:?} {len}");
                    let arrived = check(&got[0].0, got[0].1);
                    assert!(arrived.flow == flow && arrived.data == data, "{flow:?} {len}");
                    done.filled += u64::from(!takes_blank);
                }
                *sequence = sequence.wrapping_add(len as u32);
            }
            // One whose checksum somebody has computed already is left as it is.
            let bytes = flow.packet(5, &[1; 77]);
            let meta = Meta { checksum: Checksum::Complete, gso: None };
            assert_eq!(send(&bytes, meta), [(bytes, Meta { checksum: complete, gso: None })]);
        }
    }
    done
}

/// Plays one combination.
fn play(front: End, back: End) {
    let mut pair = Pair::connect(front, back);
    // Each end sends within what the other one takes; the frontend, within what it has itself.
    let down = front.features.coherent();
    let up = front.features.and(back.features).coherent();
    assert_eq!(pair.front.features(), up);
    let capabilities = pair.front.capabilities();
    let offered = (capabilities.features.checksum_v4, capabilities.features.checksum_v6);
    assert_eq!(offered, (up.checksum_v4, up.checksum_v6));
    assert_eq!(
        (capabilities.features.gso_v4, capabilities.features.gso_v6),
        (up.gso_v4, up.gso_v6)
    );
    assert_eq!(capabilities.max_fragments, if up.scatter_gather { 17 } else { 1 });
    let offer = pair.back.frontend().unwrap();
    assert_eq!((offer.features, offer.rx_copy, offer.rx_notify), (down, true, true));
    let queues = front.queues.min(back.queues) as usize;
    assert_eq!((pair.front.queue_count(), pair.back.queues()), (queues, queues));
    let ports = if front.split { 2 * queues } else { queues };
    assert_eq!((pair.front.ports().count(), pair.back.ports().count()), (ports, ports));

    // More flows than queues.
    let flows = if queues > 1 { 3 } else { 1 };
    // Netback takes no client's word for a checksum.
    let done = send_all(|bytes, meta| pair.up(bytes, meta), up, Checksum::Unknown, flows);
    let counters = pair.front.counters();
    let plain = Done { cut: counters.tx_cut, filled: counters.tx_filled, ..done };
    assert_eq!(plain, done);
    assert_eq!((counters.tx_drops.total(), pair.back.counters().from_drops.total()), (0, 0));
    assert_eq!(counters.tx_packets, pair.back.counters().from_packets);

    let done = send_all(|bytes, meta| pair.down(bytes, meta), down, Checksum::Complete, flows);
    let counters = pair.back.counters();
    assert_eq!(
        Done { cut: counters.cut, segments: counters.segments, filled: counters.sums_filled },
        done
    );
    assert_eq!((counters.to_drops.total(), pair.front.counters().rx_drops.total()), (0, 0));
    assert_eq!(counters.copied_bytes, 0, "data is shared, not copied");
    assert_eq!((counters.faults, pair.front.counters().faults), (0, 0));
    pair.tear_down();
}

/// A combination that fails is named.
fn named(front: End, back: End) {
    let played = std::panic::catch_unwind(|| play(front, back));
    assert!(played.is_ok(), "a frontend with {front:?}, and a backend with {back:?}");
}

/// All pairs of features, with these queues.
fn all_pairs(front_queues: u32, back_queues: u32, split: bool) {
    let subsets = meaningful();
    assert_eq!(subsets.len(), 13);
    for &mine in &subsets {
        for &theirs in &subsets {
            let front = End { features: mine, queues: front_queues, split };
            named(front, End { features: theirs, queues: back_queues, split: true });
        }
    }
}

#[test]
fn every_pair_of_features_with_one_queue() {
    for (front, back) in [(1, 1), (1, 2), (2, 1)] {
        all_pairs(front, back, false);
    }
}

#[test]
fn every_pair_of_features_with_one_queue_and_split_channels() {
    for (front, back) in [(1, 1), (1, 2), (2, 1)] {
        all_pairs(front, back, true);
    }
}

#[test]
fn every_pair_of_features_with_two_queues() {
    for split in [false, true] {
        all_pairs(2, 2, split);
    }
}

/// Large packets without what they need: as if they were not asked for.
#[test]
fn features_that_make_no_sense_alone_count_for_nothing() {
    let senseless = (0..32).map(subset).filter(|features| features.coherent() != *features);
    for features in senseless {
        for other in [Features::ALL, Features::NONE] {
            let (odd, even) = (
                End { features, queues: 1, split: false },
                End { features: other, queues: 2, split: false },
            );
            named(odd, even);
            named(even, odd);
        }
    }
}
