//! Files that are written: never one that is read, never in silence.

use std::fs::{self, File, OpenOptions, read};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Stdio;

use pcap_file::pcap::PcapReader;

use crate::run::{Scratch, json, number, program, run, stderr, stdout};

/// A capture to replay.
fn capture(name: &str) -> Scratch {
    let file = Scratch::new(name);
    json(&format!("--bytes 64k --pcap {}", file.0.display()));
    file
}

#[test]
fn the_file_that_is_replayed_is_never_written() {
    let file = capture("input.pcap");
    let before = read(&file.0).unwrap();
    let (hard, soft) = (Scratch::new("hard.pcap"), Scratch::new("soft.pcap"));
    fs::hard_link(&file.0, &hard.0).unwrap();
    symlink(&file.0, &soft.0).unwrap();
    let detour = file.0.parent().unwrap().join(".").join(file.0.file_name().unwrap());
    let paths = [&file.0, &hard.0, &soft.0, &detour];
    let refused = |input: &Path, output: &Path, stdin: Option<File>| {
        let mut command = program("");
        command.arg("--replay").arg(input).arg("--pcap").arg(output);
        let output = command.stdin(stdin.map_or(Stdio::null(), Stdio::from)).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{command:?}");
        let text = stderr(&output);
        assert!(text.contains("this is the file that --replay reads"), "{command:?}: {text}");
        assert!(read(&file.0).unwrap() == before, "{command:?}");
    };
    for input in paths {
        for output in paths {
            refused(input, output, None);
        }
    }
    for output in paths {
        for input in ["-", "/dev/stdin"] {
            refused(Path::new(input), output, Some(File::open(&file.0).unwrap()));
        }
    }
    // Another file of the same contents is another file.
    let copy = Scratch::new("copy.pcap");
    fs::copy(&file.0, &copy.0).unwrap();
    json(&format!("--replay {} --pcap {}", file.0.display(), copy.0.display()));
    assert!(read(&file.0).unwrap() == before);
}

#[test]
fn what_is_printed_goes_into_no_file_of_the_run() {
    let file = capture("printed.pcap");
    let before = read(&file.0).unwrap();
    let append = || OpenOptions::new().append(true).open(&file.0).unwrap();
    let path = file.0.display();
    for options in [format!("--replay {path}"), format!("--bytes 1M --pcap {path}")] {
        let output = program(&options).stdout(append()).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{options}");
        assert!(stderr(&output).contains("what is printed goes "), "{options}");
        let output = program(&options).stderr(append()).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{options}");
        let len = before.len();
        assert!(read(&file.0).unwrap()[..len] == before, "{options}: only the error came after it");
    }
    // Nor into what both would share.
    let output = run("--bytes 1M --pcap /dev/stdout");
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("- keeps them apart"), "{}", stderr(&output));
    // Nothing is kept there, so nothing can be spoilt.
    let status = program("--bytes 64k --pcap /dev/null").stdout(Stdio::null()).status().unwrap();
    assert!(status.success());
}

#[test]
fn an_old_capture_survives_a_run_that_does_not_begin() {
    let file = capture("old.pcap");
    let before = read(&file.0).unwrap();
    let path = file.0.display();
    for options in ["--replay /no/such/file", "--replay /dev/null", "--tap lo", "--tap a/b"] {
        let output = run(&format!("{options} --pcap {path}"));
        assert_eq!(output.status.code(), Some(2), "{options}: {}", stderr(&output));
        assert!(read(&file.0).unwrap() == before, "{options}");
    }
    // And one that begins leaves nothing of it.
    let report = json(&format!("--bytes 1k --pcap {path}"));
    let bytes = read(&file.0).unwrap();
    assert!(bytes.len() < before.len());
    let mut reader = PcapReader::new(&bytes[..]).unwrap();
    let mut packets = 0.0;
    while let Some(packet) = reader.next_packet() {
        packet.unwrap();
        packets += 1.0;
    }
    assert_eq!(packets, number(&report, "captured_packets"));
}

#[test]
fn errors_name_their_cause() {
    for (options, cause) in [
        ("--pcap /no/such/folder/x.pcap", "No such file or directory"),
        ("--pcap /", "Is a directory"),
        ("--replay /", "Is a directory"),
        ("--replay /no/such/file", "No such file or directory"),
        ("--bytes 1M --pcap /dev/full", "No space left on device"),
        ("--replay /dev/zero", "neither a pcap nor a pcapng file"),
    ] {
        let output = run(options);
        let text = stderr(&output);
        assert!(text.contains(cause) && text.starts_with("error: --"), "{options}: {text}");
        assert!(!output.status.success(), "{options}");
    }
}

#[test]
fn a_capture_on_standard_output_has_it_for_itself() {
    for options in ["--bytes 64k --pcap -", "--bytes 64k --pcap - --json"] {
        let output = run(options);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(0), "{options}: {said}");
        let mut reader = PcapReader::new(&output.stdout[..]).unwrap();
        let mut packets = 0;
        while let Some(packet) = reader.next_packet() {
            packet.unwrap();
            packets += 1;
        }
        assert!(packets > 10, "{options}");
        assert!(said.contains("MiB up") || said.contains("\"ok\":true"), "{options}: {said}");
        // And straight on.
        let mut next = program("--replay -").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let next = next.as_mut().unwrap();
        next.stdin.take().unwrap().write_all(&output.stdout).unwrap();
        assert!(next.wait().unwrap().success());
    }
    let file = capture("replayed.pcap");
    let output = run(&format!("--replay {} --pcap -", file.0.display()));
    assert!(PcapReader::new(&output.stdout[..]).is_ok(), "{}", stdout(&output));
}
