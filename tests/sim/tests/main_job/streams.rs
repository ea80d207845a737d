//! Streams between a client and its backend, honest and hostile.

use std::fs::File;
use std::io::Read;
use std::process::Stdio;

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use pcap_file::pcap::PcapReader;
use pcap_file::{DataLink, TsResolution};
use serde_json::Value;

use crate::run::{Scratch, json, number, program, run, stderr, stdout};

/// What no steady traffic costs.
fn assert_costs_nothing(report: &Value, options: &str) {
    for key in [
        "front_copies_per_packet",
        "front_allocations_per_packet",
        "front_hypercalls_per_packet",
        "front_clears_per_packet",
        "back_copies_per_packet",
        "back_allocations_per_packet",
        "back_grants_per_packet",
        "back_clears_per_packet",
        "drops",
        "quarantined_pages",
        "reconnects",
    ] {
        assert_eq!(number(report, key), 0.0, "{options}: {key}: {report}");
    }
}

#[test]
fn a_plain_run_prints_progress_and_a_table() {
    let output = run("--bytes 1M");
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("100 %"), "{text}");
    assert!(!text.contains('\r') && !text.contains('\x1b'), "no terminal, plain lines: {text}");
    for part in [
        "1.0 MiB up, 1.0 MiB down, every byte checked",
        "virtual time",
        "wall clock",
        "slots",
        "payload copies",
        "allocations",
        "hypercalls",
        "events sent",
        "pages granted",
        "pages cleared",
        "linearised",
        "drops           0",
        "quarantine",
        "reconnects      0",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn r10_r11_steady_traffic_copies_allocates_and_clears_nothing() {
    for options in ["", "--no-sg", "--mtu 1280", "--mtu 576", "--mtu 9000", "--mtu 65521"] {
        let options = format!("--bytes 4M --no-gso {options}");
        let report = json(&options);
        assert_costs_nothing(&report, &options);
        assert_eq!(number(&report, "bytes"), f64::from(8 << 20), "{options}");
        assert!(number(&report, "measured_packets") > 100.0, "{options}: {report}");
        assert!(number(&report, "mbit_per_s") > 0.0);
    }
}

#[test]
fn large_packets_cost_neither_copies_nor_allocations() {
    for options in ["", "--queues 4 --split", "--mtu 9000", "--no-split --trusted 1"] {
        let report = json(&format!("--bytes 8M {options}"));
        assert!(number(&report, "large_packets") > 200.0, "{options}: {report}");
        assert!(number(&report, "blank_checksums") > 100.0, "{options}: {report}");
        for end in ["front", "back"] {
            for what in ["copies", "allocations"] {
                let key = format!("{end}_{what}_per_packet");
                assert_eq!(number(&report, &key), 0.0, "{options}: {key}: {report}");
            }
        }
        for key in ["offloads_in_software", "front_hypercalls_per_packet", "drops", "reconnects"] {
            assert_eq!(number(&report, key), 0.0, "{options}: {key}: {report}");
        }
    }
}

#[test]
fn what_is_switched_off_is_not_used() {
    let on = |report: &Value, key: &str| report[key].as_bool().unwrap();
    for (options, queues, checksum, gso, sg) in [
        ("", 1.0, true, true, true),
        ("--queues 3", 3.0, true, true, true),
        ("--no-gso", 1.0, true, false, true),
        ("--no-csum", 1.0, false, false, true),
        ("--no-sg", 1.0, true, false, false),
    ] {
        let report = json(&format!("--bytes 1M {options}"));
        assert_eq!(number(&report, "queues"), queues, "{options}");
        assert_eq!(on(&report, "checksum_offload"), checksum, "{options}");
        assert_eq!(number(&report, "blank_checksums") > 0.0, checksum, "{options}: {report}");
        assert_eq!(on(&report, "gso"), gso, "{options}");
        assert_eq!(number(&report, "large_packets") > 0.0, gso, "{options}: {report}");
        assert_eq!(on(&report, "scatter_gather"), sg, "{options}");
    }
    let split = json("--bytes 1M --split --trusted 0");
    assert!(on(&split, "split_event_channels") && !on(&split, "trusted"));
    assert!(number(&split, "front_clears_per_packet") > 1.0, "a stranger sees nothing: {split}");
}

#[test]
fn every_required_key_is_there() {
    let report = json("--bytes 1M");
    for key in ["bytes", "packets", "mbit_per_s", "linearised_bytes", "drops"] {
        number(&report, key);
    }
    for key in ["quarantined_pages", "reconnects"] {
        number(&report, key);
    }
    for end in ["front", "back"] {
        for what in ["copies", "allocations", "hypercalls", "events", "grants", "clears"] {
            number(&report, &format!("{end}_{what}_per_packet"));
        }
    }
}

#[test]
fn packets_of_one_page_are_not_linearised_and_larger_ones_are() {
    let plain = json("--bytes 2M --no-gso");
    assert_eq!(number(&plain, "linearised_bytes"), 0.0);
    assert_eq!(number(&plain, "front_slots_per_packet"), 1.0);
    // Fewer if the receive ring has got shorter meanwhile.
    assert!((0.9..=1.0).contains(&number(&plain, "front_grants_per_packet")), "{plain}");

    let jumbo = json("--bytes 2M --mtu 9000 --no-gso");
    assert_eq!(number(&jumbo, "mtu"), 9000.0);
    assert!(number(&jumbo, "front_slots_per_packet") > 2.0, "{jumbo}");
    // Both ways, but for the few packets that are shorter.
    assert!(number(&jumbo, "linearised_bytes") > 0.95 * f64::from(4 << 20), "{jumbo}");

    let one_page = json("--bytes 2M --mtu 9000 --no-sg");
    assert!(number(&one_page, "mtu") < 4096.0, "{one_page}");
    assert_eq!(number(&one_page, "mtu_asked"), 9000.0);
    assert!(jumbo.get("mtu_asked").is_none(), "{jumbo}");
    let text = stdout(&run("--bytes 64k --mtu 9000 --no-sg"));
    let said = "mtu 4078 (not 9000: without scatter-gather, one page)";
    assert!(text.contains(said), "{text}");
    assert_eq!(number(&one_page, "front_slots_per_packet"), 1.0);
    assert_eq!(number(&one_page, "linearised_bytes"), 0.0, "{one_page}");
}

#[test]
fn events_and_hypercalls_are_batched() {
    let report = json("--bytes 8M --no-gso");
    assert!(number(&report, "front_events_per_packet") < 1.0 / 16.0, "{report}");
    assert!(number(&report, "back_events_per_packet") < 1.0 / 16.0, "{report}");
    assert!(number(&report, "back_hypercalls_per_packet") < 1.0 / 16.0, "{report}");
    assert_eq!(number(&report, "back_grant_copies_per_packet"), 1.0, "one each: {report}");
}

#[test]
fn virtual_time_ends_a_run() {
    let report = json("--seconds 0.02");
    let seconds = number(&report, "virtual_seconds");
    assert!((0.019..0.05).contains(&seconds), "{report}");
    assert!(number(&report, "uploaded_bytes") > 1e6 && number(&report, "downloaded_bytes") > 1e6);

    let bounded = json("--seconds 100 --bytes 1M");
    assert_eq!(number(&bounded, "bytes"), f64::from(2 << 20));
}

#[test]
fn a_seed_decides_everything() {
    for options in ["--bytes 2M --seed 7", "--bytes 2M --seed 7 --hostile"] {
        let run = || stdout(&run(&format!("--json {options}")));
        assert_eq!(run(), run(), "{options}");
    }
    assert_ne!(json("--bytes 2M --seed 7"), json("--bytes 2M --seed 8"));
}

#[test]
fn a_hostile_backend_costs_time_and_nothing_else() {
    let mut attacks = 0.0;
    for seed in 1..=6 {
        let options = format!("--hostile --bytes 4M --seed {seed}");
        let report = json(&options);
        assert_eq!(number(&report, "bytes"), f64::from(8 << 20), "{options}");
        assert!(number(&report, "reconnects") > 0.0, "{options}: {report}");
        assert!(number(&report, "longest_outage_ms") <= 1000.0, "{options}: {report}");
        attacks += number(&report, "attacks");
    }
    assert!(attacks > 12.0, "{attacks}");
    for options in ["--hostile --bytes 4M --mtu 9000", "--hostile --bytes 4M --no-sg --seed 3"] {
        assert!(number(&json(options), "attacks") > 0.0, "{options}");
    }
}

#[test]
fn a_capture_holds_what_crossed_the_ring() {
    let file = Scratch::new("capture.pcap");
    let report = json(&format!("--bytes 1M --mtu 9000 --no-gso --pcap {}", file.0.display()));
    let mut reader = PcapReader::new(File::open(&file.0).unwrap()).unwrap();
    assert_eq!(reader.header().datalink, DataLink::ETHERNET);
    assert_eq!(reader.header().ts_resolution, TsResolution::NanoSecond);
    let (mut packets, mut bytes, mut last) = (0.0, 0, core::time::Duration::ZERO);
    let (mut from_client, mut from_backend) = (0, 0);
    while let Some(packet) = reader.next_packet() {
        let packet = packet.unwrap();
        assert!(packet.timestamp >= last, "time goes on");
        assert_eq!(packet.data.len(), packet.orig_len as usize, "none is cut");
        last = packet.timestamp;
        packets += 1.0;
        bytes += packet.data.len();
        match packet.data[6] {
            0x00 => from_client += 1,
            _ => from_backend += 1,
        }
    }
    assert_eq!(packets, number(&report, "packets"), "{report}");
    assert!(bytes > 2 << 20 && from_client > 100 && from_backend > 100);
    assert!(number(&report, "front_allocations_per_packet") == 0.0, "capturing is not counted");
}

/// TCP checksums of a capture that are wrong, and all of them.
fn checksums(file: &Scratch) -> (usize, usize) {
    let mut reader = PcapReader::new(File::open(&file.0).unwrap()).unwrap();
    let (mut wrong, mut all) = (0, 0);
    while let Some(packet) = reader.next_packet() {
        let data = packet.unwrap().data;
        let sliced = SlicedPacket::from_ethernet(&data).unwrap();
        if let (Some(NetSlice::Ipv4(ip)), Some(TransportSlice::Tcp(tcp))) =
            (&sliced.net, &sliced.transport)
        {
            let right = {
                let ip = ip.header();
                tcp.calc_checksum_ipv4(ip.source(), ip.destination()).unwrap()
            };
            all += 1;
            wrong += usize::from(tcp.checksum() != right);
        }
    }
    (wrong, all)
}

#[test]
fn every_checksum_of_a_capture_is_right() {
    let file = Scratch::new("checksums.pcap");
    for options in ["", "--no-gso", "--no-csum", "--no-sg", "--hostile", "--threads", "--mtu 9000"]
    {
        let options = format!("--bytes 1M {options} --pcap {}", file.0.display());
        let report = json(&options);
        let (wrong, all) = checksums(&file);
        assert_eq!(wrong, 0, "{options}: {wrong} of {all}");
        assert!(all > 50, "{options}: {all}");
        let filled = number(&report, "captured_filled_in");
        assert!(filled >= number(&report, "blank_checksums"), "{options}: {report}");
    }
}

#[test]
fn a_capture_has_the_time_of_its_clock() {
    let file = Scratch::new("time.pcap");
    let first = || {
        let mut reader = PcapReader::new(File::open(&file.0).unwrap()).unwrap();
        reader.next_packet().unwrap().unwrap().timestamp
    };
    let now = || std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
    json(&format!("--bytes 64k --pcap {}", file.0.display()));
    assert!(first().as_secs() < 10, "virtual");
    let before = now();
    json(&format!("--bytes 64k --threads --pcap {}", file.0.display()));
    assert!((before..now()).contains(&first()), "real");
}

#[test]
fn a_reader_that_leaves_early_is_no_error() {
    for options in ["--bytes 1M", "--bytes 1M --json", "--help"] {
        let mut child =
            program(options).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let mut text = String::new();
        child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        let status = child.wait().unwrap();
        assert!(!text.contains("panicked"), "{options}: {text}");
        assert!(status.code().is_some_and(|code| code != 101), "{options}: {status}");
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_is_reported() {
    let output = run("--bytes 1M --pcap /dev/full");
    assert_ne!(output.status.code(), Some(0));
    assert!(stderr(&output).contains("/dev/full"), "{}", stderr(&output));
}
