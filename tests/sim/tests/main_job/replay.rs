//! A capture is replayed: what comes out is what is in the file, and what can't be is refused.

use std::fs::{File, read, write};
use std::time::Duration;

use pcap_file::pcap::{PcapHeader, PcapPacket, PcapReader, PcapWriter};
use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketBlock;
use pcap_file::pcapng::blocks::interface_description::InterfaceDescriptionBlock;
use pcap_file::pcapng::{PcapNgBlock, PcapNgWriter};
use pcap_file::{DataLink, Endianness, TsResolution};

use crate::run::{Scratch, json, number, run, stderr, stdout};

/// Packets of these lengths, each with bytes of its own.
fn packets(lengths: &[usize]) -> Vec<Vec<u8>> {
    let mut rng = fastrand::Rng::with_seed(3);
    lengths.iter().map(|&len| (0..len).map(|_| rng.u8(..)).collect()).collect()
}

/// Every length at which the number of slots changes, the smallest and the largest.
fn lengths() -> Vec<usize> {
    let pages = (1..16).flat_map(|pages| [4096 * pages - 1, 4096 * pages, 4096 * pages + 1]);
    [14, 15, 60, 1514, 9014, 65534, 65535].into_iter().chain(pages).collect()
}

fn write_pcap(file: &Scratch, header: PcapHeader, packets: &[Vec<u8>]) {
    let mut writer = PcapWriter::with_header(File::create(&file.0).unwrap(), header).unwrap();
    for (second, packet) in packets.iter().enumerate() {
        let time = Duration::from_secs(second as u64);
        writer.write_packet(&PcapPacket::new(time, packet.len() as u32, packet)).unwrap();
    }
}

fn write_pcapng(file: &Scratch, endianness: Endianness, link: DataLink, packets: &[Vec<u8>]) {
    let file = File::create(&file.0).unwrap();
    let mut writer = PcapNgWriter::with_endianness(file, endianness).unwrap();
    let interface = InterfaceDescriptionBlock { linktype: link, snaplen: 0, options: vec![] };
    writer.write_block(&interface.into_block()).unwrap();
    for packet in packets {
        let block = EnhancedPacketBlock {
            interface_id: 0,
            timestamp: Duration::ZERO,
            original_len: packet.len() as u32,
            data: packet.into(),
            options: vec![],
        };
        writer.write_block(&block.into_block()).unwrap();
    }
}

/// The packets of a file, in order.
fn contents(file: &Scratch) -> Vec<Vec<u8>> {
    let mut reader = PcapReader::new(File::open(&file.0).unwrap()).unwrap();
    std::iter::from_fn(|| Some(reader.next_packet()?.unwrap().data.into_owned())).collect()
}

#[test]
fn packets_of_every_length_go_both_ways_unchanged() {
    let (file, seen) = (Scratch::new("lengths.pcap"), Scratch::new("seen.pcap"));
    let packets = packets(&lengths());
    write_pcap(&file, PcapHeader::default(), &packets);
    let report = json(&format!("--replay {} --pcap {}", file.0.display(), seen.0.display()));
    let bytes: usize = packets.iter().map(Vec::len).sum();
    assert_eq!(number(&report, "replayed_packets"), packets.len() as f64);
    assert_eq!(number(&report, "replayed_longest"), 65535.0);
    assert_eq!(number(&report, "uploaded_bytes"), bytes as f64);
    assert_eq!(number(&report, "downloaded_bytes"), bytes as f64);
    assert_eq!(number(&report, "packets"), 2.0 * packets.len() as f64);
    assert_eq!(number(&report, "drops"), 0.0);
    // What crossed the ring, seen by the capture: each of them twice, and nothing else.
    let mut seen = contents(&seen);
    let mut twice = [packets.clone(), packets].concat();
    seen.sort();
    twice.sort();
    assert!(seen == twice, "{} packets were seen", seen.len());
}

#[test]
fn any_pcap_will_do() {
    let packets = packets(&[60, 1514, 9000]);
    let file = Scratch::new("variant.pcap");
    for endianness in [Endianness::Big, Endianness::Little] {
        for ts_resolution in [TsResolution::MicroSecond, TsResolution::NanoSecond] {
            write_pcap(
                &file,
                PcapHeader { endianness, ts_resolution, ..PcapHeader::default() },
                &packets,
            );
            let report = json(&format!("--replay {}", file.0.display()));
            assert_eq!(number(&report, "uploaded_bytes"), 10574.0, "{endianness:?}");
        }
        write_pcapng(&file, endianness, DataLink::ETHERNET, &packets);
        let report = json(&format!("--replay {}", file.0.display()));
        assert_eq!(number(&report, "downloaded_bytes"), 10574.0, "pcapng, {endianness:?}");
    }
}

#[test]
fn what_the_program_captured_it_can_replay() {
    let file = Scratch::new("own.pcap");
    let captured = json(&format!("--bytes 2M --no-gso --pcap {}", file.0.display()));
    let replayed = json(&format!("--replay {} --seed 5", file.0.display()));
    assert_eq!(number(&replayed, "replayed_packets"), number(&captured, "packets"));
    let in_one_page = json(&format!("--replay {} --no-sg", file.0.display()));
    assert_eq!(number(&in_one_page, "front_slots_per_packet"), 1.0);
    let text = stdout(&run(&format!("--replay {}", file.0.display())));
    assert!(
        text.contains("all of them both ways") && text.contains("every byte checked"),
        "{text}"
    );
}

#[test]
fn flows_may_overtake_each_other_in_several_queues() {
    let file = Scratch::new("flows.pcap");
    let captured = json(&format!("--bytes 200k --domains 5 --no-gso --pcap {}", file.0.display()));
    for options in ["--queues 2", "--queues 4 --split --no-csum", "--queues 8 --trusted 0"] {
        let report = json(&format!("--replay {} {options}", file.0.display()));
        let (sent, came) = (number(&captured, "packets"), number(&report, "replayed_packets"));
        assert_eq!(came, sent, "{options}");
        assert_eq!(number(&report, "packets"), 2.0 * sent, "{options}");
    }
}

#[test]
fn what_cannot_be_replayed_is_refused_with_its_reason() {
    let file = Scratch::new("bad.pcap");
    let refused = |options: &str, reason: &str| {
        let output = run(&format!("--replay {} {options}", file.0.display()));
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{reason}: {text}");
        assert!(text.contains(&format!("--replay {}: ", file.0.display())), "{reason}: {text}");
        assert!(text.contains(reason), "{reason}: {text}");
        assert!(output.stdout.is_empty(), "{reason}");
    };
    refused("", "No such file");
    let good = packets(&[60, 2000, 100]);
    let header = PcapHeader::default;
    for (bytes, reason) in [
        (&b""[..], "neither a pcap nor a pcapng file"),
        (b"abc", "neither a pcap nor a pcapng file"),
        (&[0x5a; 500], "neither a pcap nor a pcapng file"),
        (&[0x0a, 0x0d, 0x0d, 0x0a, 1, 2, 3], "neither a pcap nor a pcapng file"),
    ] {
        write(&file.0, bytes).unwrap();
        refused("", reason);
    }

    write_pcap(&file, header(), &good);
    let whole = read(&file.0).unwrap();
    let (first, second) = (24 + 16 + 60, 24 + 16 + 60 + 16 + 2000);
    for (len, reason) in [
        (20, "neither a pcap nor a pcapng file"),
        (24, "has no packets"),
        (25, "truncated: it ends within packet 1"),
        (first - 1, "truncated: it ends within packet 1"),
    ] {
        write(&file.0, &whole[..len]).unwrap();
        refused("", reason);
    }
    // What is whole is replayed, as Wireshark shows it.
    for (len, within) in
        [(first + 1, 2.0), (first + 15, 2.0), (second - 1, 2.0), (second + 17, 3.0)]
    {
        write(&file.0, &whole[..len]).unwrap();
        let report = json(&format!("--replay {}", file.0.display()));
        assert_eq!(number(&report, "replayed_ends_within"), within);
        assert_eq!(number(&report, "replayed_packets"), within - 1.0);
    }
    let mut endless = whole.clone();
    endless[first + 8..first + 12].fill(0xff);
    write(&file.0, endless).unwrap();
    refused("", "within packet 2");
    write_pcap(&file, header(), &good[1..2]);
    let mut cut = read(&file.0).unwrap();
    cut[24 + 12..24 + 16].copy_from_slice(&2500u32.to_be_bytes());
    write(&file.0, cut).unwrap();
    refused("", "only 2000 of the 2500 bytes of packet 1 were captured");

    write_pcap(&file, PcapHeader { datalink: DataLink::RAW, ..header() }, &good);
    refused("", "holds RAW packets, not Ethernet");
    write_pcap(&file, header(), &packets(&[60, 13]));
    refused("", "packet 2 has 13 bytes");
    write_pcap(&file, PcapHeader { snaplen: 70_000, ..header() }, &packets(&[60, 60, 65536]));
    refused("", "packet 3 has 65536 bytes");
    write_pcap(&file, header(), &packets(&[4097]));
    refused("--no-sg", "packet 1 has 4097 bytes; the ring carries 4096");

    write_pcapng(&file, Endianness::Little, DataLink::IEEE802_11, &good);
    refused("", "holds IEEE802_11 packets, not Ethernet");
    write_pcapng(&file, Endianness::Big, DataLink::ETHERNET, &good);
    let whole = read(&file.0).unwrap();
    write(&file.0, &whole[..whole.len() - 3]).unwrap();
    let report = json(&format!("--replay {}", file.0.display()));
    assert_eq!(number(&report, "replayed_ends_within"), 3.0);
}

/// A capture with a snap length: what is whole is replayed, the others are counted and named.
#[test]
fn packets_that_were_captured_whole_are_replayed() {
    let file = Scratch::new("snapped.pcap");
    let write_snapped = |packets: &[Vec<u8>], is_cut: fn(usize) -> bool| {
        let file = File::create(&file.0).unwrap();
        let mut writer = PcapWriter::with_header(file, PcapHeader::default()).unwrap();
        for (at, packet) in packets.iter().enumerate() {
            let had = packet.len() as u32 + if is_cut(at) { 1 } else { 0 };
            writer.write_packet(&PcapPacket::new(Duration::ZERO, had, packet)).unwrap();
        }
    };
    write_snapped(&packets(&[60, 2000, 100, 1514]), |at| at % 2 == 1);
    let options = format!("--replay {}", file.0.display());
    let report = json(&options);
    assert_eq!(number(&report, "replayed_packets"), 2.0);
    assert_eq!(number(&report, "uploaded_bytes"), 160.0);
    assert_eq!(number(&report, "replayed_longest"), 100.0);
    assert_eq!(number(&report, "replayed_cut"), 2.0);
    assert_eq!(report["replayed_cut_first"], serde_json::json!([2, 4]));
    let text = stdout(&run(&options));
    assert!(text.contains("left out        2 packets not captured whole: numbers 2, 4 (tcpdump"));
    // Nothing is warm in a replay: the figures are of all its packets.
    assert!(text.contains("per packet      of 4 packets from the first on"), "{text}");

    write_snapped(&packets(&[60]), |_| false);
    assert_eq!(number(&json(&options), "replayed_cut"), 0.0);
    assert!(!stdout(&run(&options)).contains("left out"));
    // Of many, the first are named; one of which not even a header was kept is none the less cut.
    write_snapped(&packets(&[&[60][..], &[3; 30]].concat()), |at| at > 0);
    let text = stdout(&run(&options));
    assert!(text.contains("replayed        1 packet of up to 60 bytes"), "{text}");
    assert!(
        text.contains("30 packets not captured whole: numbers 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, ...")
    );
}
