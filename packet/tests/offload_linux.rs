//! Cutting and filling in beside Linux's own, which a TAP device without offloads made of packets
//! that scapy built: `scripts/checks/offload_tap.py` records it anew and runs this with
//! `XEN_LINUX_OFFLOADS` naming the file. What it recorded once is compared everywhere.
#![allow(missing_docs)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::num::NonZeroU16;

use packet_views::buffer::BufMut;
use packet_views::buffer::{AnyPacket, Checksum, HeapBlock, Meta, PacketMut, View};
use packet_views::buffer::{Gso, GsoKind};
use packet_views::header::checksum::fill_blank;
use packet_views::offload::{Cuttable, Segments, Sums};

const RECORDED: &str = include_str!("offload_linux.txt");

fn unhex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks(2);
    digits.map(|two| u8::from_str_radix(str::from_utf8(two).unwrap(), 16).unwrap()).collect()
}

/// The frame in fragments that end at these places, with a blank checksum.
fn packet(frame: &[u8], places: &[usize], gso: Option<Gso>) -> PacketMut<HeapBlock> {
    let mut packet = AnyPacket::new();
    packet.meta = Meta { checksum: Checksum::Blank, gso };
    let mut start = 0;
    for end in places.iter().copied().chain([frame.len()]) {
        let end = end.clamp(start, frame.len());
        let mut buf = BufMut::new(HeapBlock::new(end - start), 0);
        buf.append(end - start).unwrap().copy_from_slice(&frame[start..end]);
        packet.push(buf).unwrap();
        start = end;
    }
    packet
}

fn joined<V: View>(packet: &AnyPacket<V>) -> Vec<u8> {
    packet.fragments().iter().flat_map(|fragment| fragment.bytes().to_vec()).collect()
}

fn cut<V: Cuttable<Block = HeapBlock>>(packet: AnyPacket<V>) -> Vec<Vec<u8>> {
    let mut segments = Segments::new(packet, Sums::Fill).map_err(|(why, _)| why).unwrap();
    let block = || Some(BufMut::new(HeapBlock::new(2048), 0));
    std::iter::from_fn(|| Some(joined(&segments.cut(block)?.unwrap()))).collect()
}

#[test]
fn what_linux_cuts_and_fills_in_is_the_same_here() {
    let recorded = match std::env::var("XEN_LINUX_OFFLOADS") {
        Ok(file) => std::fs::read_to_string(file).unwrap(),
        Err(_) => RECORDED.to_owned(),
    };
    let (mut cuts, mut sums) = (0, 0);
    for line in recorded.lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        let [name, kind, size, frame, linux @ ..] = &fields[..] else { panic!("{line}") };
        let (frame, linux) = (unhex(frame), linux.iter().map(|it| unhex(it)).collect::<Vec<_>>());
        assert!(!linux.is_empty(), "Linux has dropped {name}");
        let kind = match *kind {
            "0" => None,
            "4" => Some(GsoKind::TcpV4),
            "6" => Some(GsoKind::TcpV6),
            other => panic!("{other}"),
        };
        let size = NonZeroU16::new(size.parse().unwrap());
        let gso = size.zip(kind).map(|(size, kind)| Gso { size, kind });
        for place in 0..frame.len() {
            let packet = || packet(&frame, &[place, place + 1, place + 40], gso);
            if gso.is_some() {
                assert_eq!(cut(packet()), linux, "{name}, cut at {place}");
                assert_eq!(cut(packet().freeze()), linux, "{name}, shared, cut at {place}");
                cuts += 1;
            } else {
                let mut packet = packet();
                assert_eq!(fill_blank(&mut packet), Some(()), "{name}");
                assert_eq!([joined(&packet)], linux[..], "{name}, cut at {place}");
                sums += 1;
            }
        }
    }
    assert!(cuts > 5000 && sums > 3000, "{cuts} cut, {sums} filled in");
}
