//! Ctrl-C and SIGTERM end any run with its report and a whole capture.

use std::fs::{self, File};
use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use pcap_file::pcap::PcapReader;
use serde_json::Value;

use crate::run::{Scratch, program};

/// So long a run may take to end.
const PATIENCE: Duration = Duration::from_secs(20);

fn signal(child: &Child, name: &str) {
    let status = Command::new("kill").args([name, &child.id().to_string()]).status().unwrap();
    assert!(status.success());
}

/// Waits until the capture has something, so the run is under way.
fn wait_for(capture: &Scratch) {
    let end = Instant::now() + PATIENCE;
    while fs::metadata(&capture.0).map_or(0, |metadata| metadata.len()) < 100_000 {
        assert!(Instant::now() < end, "nothing is captured");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Packets of a capture, each of which is whole.
fn packets(capture: &Scratch) -> u64 {
    let mut reader = PcapReader::new(File::open(&capture.0).unwrap()).unwrap();
    let mut packets = 0;
    while let Some(packet) = reader.next_packet() {
        packet.unwrap();
        packets += 1;
    }
    packets
}

fn ends(options: &str, name: &str, code: i32) {
    let capture = Scratch::new("ended.pcap");
    let mut command = program(options);
    command.args(["--json", "--pcap"]).arg(&capture.0);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for(&capture);
    let told = Instant::now();
    signal(&child, name);
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(told.elapsed() < PATIENCE, "{options}");
    assert_eq!(output.status.code(), Some(code), "{options}: {said}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["ok"], true, "{options}: {report}");
    assert_eq!(report["interrupted"], true, "{options}: {report}");
    assert!(report["uploaded_bytes"].as_f64().unwrap() > 0.0, "{options}: {report}");
    assert_eq!(report["captured_packets"], packets(&capture), "{options}");
}

#[test]
fn a_signal_ends_streams() {
    ends("--bytes 100G", "-INT", 130);
    ends("--bytes 100G --domains 3 --queues 2", "-TERM", 143);
    ends("--seconds 80000", "-INT", 130);
}

#[test]
fn a_signal_ends_streams_under_attack() {
    ends("--bytes 100G --hostile", "-INT", 130);
    // What attacks and waits must not hold up the end.
    ends("--bytes 100G --hostile --domains 8", "-TERM", 143);
}

#[test]
fn a_signal_ends_threads() {
    ends("--bytes 100G --threads --domains 2", "-INT", 130);
    ends("--seconds 80000 --threads", "-TERM", 143);
}

/// A pcap file with so many packets that replaying them takes a while.
fn long() -> Scratch {
    let file = Scratch::new("long.pcap");
    let mut bytes = Vec::new();
    for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65535, 1] {
        bytes.extend(word.to_le_bytes());
    }
    let mut packet = vec![0; 16 + 60];
    packet[8] = 60;
    packet[12] = 60;
    for _ in 0..300_000 {
        bytes.extend(&packet);
    }
    fs::write(&file.0, bytes).unwrap();
    file
}

#[test]
fn a_signal_ends_a_replay() {
    let file = long();
    ends(&format!("--replay {}", file.0.display()), "-INT", 130);
    ends(&format!("--replay {} --queues 4", file.0.display()), "-TERM", 143);
}

#[test]
fn the_table_says_that_it_was_interrupted() {
    let capture = Scratch::new("table.pcap");
    let mut command = program("--bytes 100G");
    command.arg("--pcap").arg(&capture.0).stdout(Stdio::piped());
    let child = command.spawn().unwrap();
    wait_for(&capture);
    signal(&child, "-INT");
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("every byte checked") && text.contains("interrupted"), "{text}");
}

#[test]
fn a_file_that_does_not_come_is_waited_for_no_longer() {
    let mut child = program("--replay -").stdin(Stdio::piped()).spawn().unwrap();
    // The beginning of one: it reads on.
    child.stdin.as_mut().unwrap().write_all(&0xa1b2_c3d4_u32.to_le_bytes()).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    // Not SIGINT: a shell that runs tests in the background has it ignored.
    signal(&child, "-TERM");
    let end = Instant::now() + PATIENCE;
    while child.try_wait().unwrap().is_none() {
        assert!(Instant::now() < end, "it still waits");
        std::thread::sleep(Duration::from_millis(5));
    }
}
