//! Captures as other programs write them. What Wireshark opens can be replayed: each of these files
//! was opened with tshark once, and those that are refused were refused by it.

use std::fs::{read, write};
use std::io::Write;
use std::process::{Output, Stdio};

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::run::{Scratch, json, number, program, run, stderr, stdout};

const ETHERNET: u32 = 1;
const RAW: u32 = 101;
const FCS: [u8; 4] = [0xf0, 0xf1, 0xf2, 0xf3];

/// Writes numbers in one byte order.
#[derive(Clone, Copy, Debug)]
struct Order {
    big: bool,
}

const ORDERS: [Order; 2] = [Order { big: false }, Order { big: true }];

impl Order {
    fn u16(self, number: u16) -> [u8; 2] {
        if self.big { number.to_be_bytes() } else { number.to_le_bytes() }
    }

    fn u32(self, number: u32) -> [u8; 4] {
        if self.big { number.to_be_bytes() } else { number.to_le_bytes() }
    }

    fn words(self, words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|&word| self.u32(word)).collect()
    }

    fn option(self, code: u16, value: &[u8]) -> Vec<u8> {
        let head = [self.u16(code), self.u16(value.len() as u16)].concat();
        padded([&head, value].concat())
    }

    fn block(self, kind: u32, body: &[u8]) -> Vec<u8> {
        let body = padded(body.to_vec());
        let len = body.len() as u32 + 12;
        [self.words(&[kind, len]), body, self.words(&[len])].concat()
    }

    fn section(self, minor: u16, options: &[u8]) -> Vec<u8> {
        let version = [self.u16(1), self.u16(minor)].concat();
        let body = [&self.u32(0x1a2b_3c4d)[..], &version, &[0xff; 8], options].concat();
        self.block(0x0a0d_0d0a, &body)
    }

    fn interface(self, link: u32, snaplen: u32, options: &[u8]) -> Vec<u8> {
        let link = [self.u16(link as u16), self.u16(0)].concat();
        self.block(1, &[&link[..], &self.u32(snaplen), options].concat())
    }

    fn enhanced(self, interface: u32, packet: &[u8], options: &[u8]) -> Vec<u8> {
        let len = packet.len() as u32;
        let head = self.words(&[interface, 0, 0, len, len]);
        self.block(6, &[head, padded(packet.to_vec()), options.to_vec()].concat())
    }

    /// The block of before enhanced ones.
    fn packet(self, packet: &[u8]) -> Vec<u8> {
        let len = packet.len() as u32;
        let head = self.words(&[0, 0, 0, len, len]);
        self.block(2, &[head, packet.to_vec()].concat())
    }

    fn simple(self, packet: &[u8], kept: usize) -> Vec<u8> {
        self.block(3, &[&self.u32(packet.len() as u32)[..], &packet[..kept]].concat())
    }
}

fn padded(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// Four packets, one of them no multiple of four long, 2159 bytes in all.
fn packets() -> Vec<Vec<u8>> {
    let mut rng = fastrand::Rng::with_seed(9);
    [72, 542, 1442, 103].map(|len| (0..len).map(|_| rng.u8(..)).collect()).into()
}

/// A pcap file.
#[derive(Clone, Copy)]
struct Pcap {
    magic: u32,
    version: (u16, u16),
    snaplen: u32,
    network: u32,
    /// After the file's header.
    more: usize,
    /// Of a record's header.
    record: usize,
    /// Packets have a check sequence.
    fcs: bool,
}

const PLAIN: Pcap = Pcap {
    magic: 0xa1b2_c3d4,
    version: (2, 4),
    snaplen: 65535,
    network: ETHERNET,
    more: 0,
    record: 16,
    fcs: false,
};

impl Pcap {
    fn bytes(&self, order: Order, packets: &[Vec<u8>]) -> Vec<u8> {
        let version = [order.u16(self.version.0), order.u16(self.version.1)].concat();
        let mut file = [order.u32(self.magic).to_vec(), version].concat();
        file.extend(order.words(&[0, 0, self.snaplen, self.network]));
        file.resize(file.len() + self.more, 0);
        for packet in packets {
            let packet = [&packet[..], if self.fcs { &FCS } else { &[] }].concat();
            let len = packet.len() as u32;
            file.extend(order.words(&[0x6000_0000, 5, len, len]));
            file.resize(file.len() + self.record - 16, 0);
            file.extend(packet);
        }
        file
    }
}

/// Replays the bytes; what the report says of packets, bytes, other packets and check sequences.
fn replay(bytes: &[u8]) -> (f64, f64, f64, f64) {
    let file = Scratch::new("format");
    write(&file.0, bytes).unwrap();
    let report = json(&format!("--replay {}", file.0.display()));
    let others = report["replayed_left_out"].as_object().unwrap();
    let others = others.values().map(|count| count.as_f64().unwrap()).sum();
    let (up, down) = (number(&report, "uploaded_bytes"), number(&report, "downloaded_bytes"));
    assert_eq!(up, down);
    let fcs = number(&report, "replayed_without_fcs");
    (number(&report, "replayed_packets"), up, others, fcs)
}

fn refusal(bytes: &[u8]) -> String {
    let file = Scratch::new("refused");
    write(&file.0, bytes).unwrap();
    let output = run(&format!("--replay {}", file.0.display()));
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    stderr(&output)
}

#[test]
fn every_kind_of_pcap_is_read() {
    for order in ORDERS {
        for pcap in [
            PLAIN,
            Pcap { magic: 0xa1b2_3c4d, ..PLAIN },
            Pcap { magic: 0xa1b2_cd34, record: 24, ..PLAIN },
            Pcap { magic: 0xa1b2_cd34, record: 28, ..PLAIN },
            Pcap { record: 24, ..PLAIN },
            Pcap { record: 20, ..PLAIN },
            Pcap { magic: 0x1c00_01ac, more: 4, ..PLAIN },
            Pcap { magic: 0x1c00_01ab, more: 4, ..PLAIN },
            Pcap { version: (2, 2), ..PLAIN },
            Pcap { version: (2, 2), network: 6, ..PLAIN },
            Pcap { version: (2, 3), ..PLAIN },
            Pcap { version: (3, 0), ..PLAIN },
            Pcap { version: (543, 0), ..PLAIN },
            Pcap { snaplen: 0, ..PLAIN },
            Pcap { snaplen: 20, ..PLAIN },
        ] {
            let found = replay(&pcap.bytes(order, &packets()));
            let Pcap { magic, version, record, snaplen, .. } = pcap;
            let what = format!("{order:?} {magic:x} {version:?} {record} {snaplen}");
            assert_eq!(found, (4.0, 2159.0, 0.0, 0.0), "{what}");
        }
        let old = Pcap { version: (1, 0), ..PLAIN };
        assert!(refusal(&old.bytes(order, &packets())).contains("version 1.0"));
    }
}

#[test]
fn lengths_are_read_in_the_order_of_the_version() {
    for order in ORDERS {
        // The first packet had 60 bytes, and is padded to 72.
        for (version, lengths) in [((2, 2), [60, 72]), ((2, 4), [72, 60]), ((543, 0), [60, 72])] {
            let mut file = Pcap { version, ..PLAIN }.bytes(order, &packets());
            file[32..40].copy_from_slice(&order.words(&lengths));
            assert_eq!(replay(&file).1, 2159.0, "{version:?}");
        }
        // In version 2.3 the fewer are those that were kept.
        let mut file = Pcap { version: (2, 3), ..PLAIN }.bytes(order, &[vec![0; 60]]);
        for lengths in [[60, 72], [72, 60]] {
            file[32..40].copy_from_slice(&order.words(&lengths));
            assert!(refusal(&file).contains("only 60 of the 72 bytes of packet 1"));
        }
    }
}

#[test]
fn check_sequences_are_left_out_wherever_they_are_told_of() {
    let network = 0x2400_0000 | ETHERNET;
    for order in ORDERS {
        let with_fcs = |packet: &Vec<u8>| [&packet[..], &FCS].concat();
        let pcapng = |interface: &[u8], packet: &[u8]| {
            let packets = packets();
            let blocks = packets.iter().map(|bytes| order.enhanced(0, &with_fcs(bytes), packet));
            let mut file = order.section(0, &[]);
            file.extend(order.interface(ETHERNET, 0, interface));
            file.extend(blocks.flatten());
            file
        };
        for file in [
            Pcap { network, fcs: true, ..PLAIN }.bytes(order, &packets()),
            pcapng(&order.option(13, &[4]), &[]),
            pcapng(&order.option(13, &[32]), &[]),
            pcapng(&[], &order.option(2, &order.u32(4 << 5))),
        ] {
            assert_eq!(replay(&file), (4.0, 2159.0, 0.0, 4.0), "{order:?}");
        }
        // A length of which nobody says that it is one.
        let file = Pcap { network: 0x2000_0000 | ETHERNET, ..PLAIN }.bytes(order, &packets());
        assert_eq!(replay(&file), (4.0, 2159.0, 0.0, 0.0));
    }
}

#[test]
fn every_kind_of_pcapng_is_read() {
    for order in ORDERS {
        let all = |packet: &dyn Fn(&Vec<u8>) -> Vec<u8>| -> Vec<u8> {
            packets().iter().flat_map(packet).collect()
        };
        let comment = order.option(1, b"a comment");
        let unknown = order.option(999, b"?");
        let file = |options: &[u8], rest: Vec<u8>| {
            [order.section(0, options), order.interface(ETHERNET, 0, options), rest].concat()
        };
        for (what, bytes) in [
            ("no options", file(&[], all(&|packet| order.enhanced(0, packet, &[])))),
            ("no end of options", file(&comment, all(&|p| order.enhanced(0, p, &comment)))),
            ("unknown options", file(&unknown, all(&|p| order.enhanced(0, p, &unknown)))),
            ("an option that is too long", {
                file(&[], all(&|p| order.enhanced(0, p, &[0xff; 4])))
            }),
            ("simple packets", file(&[], all(&|packet| order.simple(packet, packet.len())))),
            ("old packets", file(&[], all(&|packet| order.packet(packet)))),
            ("minor version 2", {
                let packets = all(&|packet| order.enhanced(0, packet, &[]));
                [order.section(2, &[]), order.interface(ETHERNET, 262_144, &[]), packets].concat()
            }),
            ("unknown blocks", {
                let [first, last] = [0x0bad, 0x8000_0001].map(|kind| order.block(kind, b"what?"));
                let packets = all(&|packet| order.enhanced(0, packet, &[]));
                file(&[], [first, packets, last, order.block(5, &[0; 12])].concat())
            }),
        ] {
            assert_eq!(replay(&bytes), (4.0, 2159.0, 0.0, 0.0), "{order:?}, {what}");
        }
    }
}

#[test]
fn each_interface_has_its_own_link_type() {
    let packets = packets();
    for [one, other] in [ORDERS, [ORDERS[1], ORDERS[0]]] {
        let file = [
            one.section(0, &[]),
            one.interface(RAW, 0, &[]),
            one.interface(ETHERNET, 0, &[]),
            one.enhanced(1, &packets[0], &[]),
            one.enhanced(0, &packets[1][14..], &[]),
            // Interfaces count anew.
            other.section(0, &[]),
            other.interface(ETHERNET, 0, &[]),
            other.enhanced(0, &packets[2], &[]),
        ];
        assert_eq!(replay(&file.concat()), (2.0, 1514.0, 1.0, 0.0));
        let text = {
            let scratch = Scratch::new("interfaces");
            write(&scratch.0, file.concat()).unwrap();
            stdout(&run(&format!("--replay {}", scratch.0.display())))
        };
        assert!(text.contains("1 packet that is RAW, not Ethernet"), "{text}");
        let missing = [one.section(0, &[]), one.enhanced(0, &packets[0], &[])].concat();
        assert!(refusal(&missing).contains("interface 0 is not described"));
        // A packet's number is the one that Wireshark shows.
        let cut = [&file[..5], &[one.enhanced(1, &[0; 13], &[])]].concat().concat();
        assert!(refusal(&cut).contains("packet 3 has 13 bytes"), "{}", refusal(&cut));
        let others = file[..2].concat();
        let others = [others, one.enhanced(0, &packets[1], &[])].concat();
        assert!(refusal(&others).contains("holds RAW packets, not Ethernet"));
    }
    let order = ORDERS[0];
    let short = [order.section(0, &[]), order.interface(ETHERNET, 96, &[])].concat();
    let short = [short, order.simple(&packets[1], 96)].concat();
    assert!(refusal(&short).contains("only 96 of the 542 bytes of packet 1 were captured"));
}

#[test]
fn a_file_that_ends_within_a_packet_is_replayed_up_to_there() {
    let pcap = PLAIN.bytes(ORDERS[0], &packets());
    let order = ORDERS[1];
    let mut pcapng = [order.section(0, &[]), order.interface(ETHERNET, 0, &[])].concat();
    pcapng.extend(packets().iter().flat_map(|packet| order.enhanced(0, packet, &[])));
    for whole in [pcap, pcapng] {
        for missing in [1, 50, 103] {
            let file = Scratch::new("ends");
            write(&file.0, &whole[..whole.len() - missing]).unwrap();
            let options = format!("--replay {}", file.0.display());
            let report = json(&options);
            assert_eq!(number(&report, "replayed_packets"), 3.0, "{missing}");
            assert_eq!(number(&report, "replayed_ends_within"), 4.0, "{missing}");
            let text = stdout(&run(&options));
            assert!(text.contains("packet 4: the file ends within it"), "{text}");
        }
        let more = [&whole[..], &[1, 2, 3]].concat();
        assert_eq!(replay(&more).0, 4.0);
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn a_compressed_file_is_read_or_what_compressed_it_is_named() {
    let whole = PLAIN.bytes(ORDERS[0], &packets());
    let packed = gzip(&whole);
    assert_eq!(replay(&packed), (4.0, 2159.0, 0.0, 0.0));
    // Several, one after the other.
    assert_eq!(replay(&[gzip(&whole[..100]), gzip(&whole[100..])].concat()).0, 4.0);
    let cut = replay(&packed[..packed.len() - 300]);
    assert!((1.0..4.0).contains(&cut.0), "{cut:?}");
    assert!(refusal(&gzip(b"no capture")).contains("neither a pcap nor a pcapng file"));
    assert!(refusal(&packed[..2]).contains("neither a pcap nor a pcapng file"));
    assert!(refusal(&packed[..12]).contains("neither a pcap nor a pcapng file"));
    for (magic, name) in [
        (&b"\x28\xb5\x2f\xfd...."[..], "zstd"),
        (b"\x04\x22\x4d\x18....", "lz4"),
        (b"\xfd7zXZ\0..", "xz"),
        (b"BZh91AY&SY", "bzip2"),
        (b"PK\x03\x04....", "zip"),
    ] {
        assert!(refusal(magic).contains(&format!("compressed with {name}")), "{name}");
    }
}

fn from_stdin(options: &str, bytes: &[u8]) -> Output {
    let mut child = program(options)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It need not read all of what it refuses.
    let _ = child.stdin.take().unwrap().write_all(bytes);
    child.wait_with_output().unwrap()
}

#[test]
fn standard_input_is_read() {
    let whole = PLAIN.bytes(ORDERS[1], &packets());
    for options in ["--replay -", "--replay=-", "--replay /dev/stdin"] {
        let output = from_stdin(options, &whole);
        assert_eq!(output.status.code(), Some(0), "{options}: {}", stderr(&output));
        assert!(stdout(&output).contains("4 packets of up to 1442 bytes"), "{options}");
    }
    assert_eq!(from_stdin("--replay -", &gzip(&whole)).status.code(), Some(0));
    let output = from_stdin("--replay -", b"");
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("--replay -: neither a pcap"), "{}", stderr(&output));
}

#[test]
fn what_others_wrote_can_be_read_by_others() {
    // The reader above and the library's agree on what this file is.
    let file = Scratch::new("library.pcap");
    write(&file.0, PLAIN.bytes(ORDERS[0], &packets())).unwrap();
    let seen = Scratch::new("library-seen.pcap");
    json(&format!("--replay {} --pcap {}", file.0.display(), seen.0.display()));
    for (file, times) in [(&file, 1), (&seen, 2)] {
        let bytes = read(&file.0).unwrap();
        let mut reader = pcap_file::pcap::PcapReader::new(&bytes[..]).unwrap();
        let mut count = 0;
        while let Some(packet) = reader.next_packet() {
            assert!(packets().iter().any(|known| *known == packet.as_ref().unwrap().data[..]));
            count += 1;
        }
        assert_eq!(count, 4 * times);
    }
}
