//! The command line: nonsense is named, help is complete.

use crate::run::{run, stderr, stdout};

#[test]
fn nonsense_is_named() {
    for (options, named) in [
        ("--frobnicate", "--frobnicate"),
        ("extra", "extra"),
        ("--bytes", "--bytes"),
        ("--bytes -1", "-1"),
        ("--bytes 0", "--bytes"),
        ("--bytes 12Q", "12Q"),
        ("--bytes 99999999999999999999", "99999999999999999999"),
        ("--seconds -3", "-3"),
        ("--seconds soon", "soon"),
        ("--mtu 10", "10"),
        ("--mtu 65522", "65522"),
        ("--mtu 1500x", "1500x"),
        ("--seed x", "x"),
        ("--seed -1", "-1"),
        ("--no-sg=yes", "yes"),
        ("--pcap /no/such/folder/x.pcap", "/no/such/folder/x.pcap"),
        ("--pcap /", "--pcap"),
        ("--domains 0", "--domains"),
        ("--domains 33", "33"),
        ("--replay", "--replay"),
        ("--replay /", "--replay /"),
        ("--replay x.pcap --hostile", "--hostile"),
        ("--replay x.pcap --bytes 1M", "--bytes"),
        ("--replay x.pcap --seconds 1", "--seconds"),
        ("--replay x.pcap --mtu 9000", "--mtu"),
        ("--replay x.pcap --domains 2", "--domains"),
        ("--queues 0", "--queues"),
        ("--queues 9", "9"),
        ("--split --no-split", "--no-split"),
        ("--trusted 2", "--trusted"),
        ("--no-gso=1", "--no-gso"),
        ("--tap", "--tap"),
        ("--tap=", "--tap"),
        ("--tap a/b", "--tap a/b: no name of an interface"),
        ("--tap sixteen-letters-", "no name of an interface"),
        ("--tap tap0 --replay x.pcap", "--replay"),
        ("--tap tap0 --bytes 1M", "--bytes"),
        ("--tap tap0 --hostile", "--hostile"),
        ("--tap tap0 --threads", "--threads"),
        ("--tap tap0 --domains 2", "--domains"),
        ("--replay x.pcap --threads", "--threads"),
    ] {
        let output = run(options);
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{options}: {text}");
        assert!(text.contains(named), "{options}: {text}");
        assert!(output.stdout.is_empty(), "{options}: nothing on stdout");
    }
}

#[test]
fn help_explains_every_option() {
    let output = run("--help");
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(0));
    for option in [
        "--bytes",
        "--seconds",
        "--domains",
        "--threads",
        "--mtu",
        "--seed",
        "--queues",
        "--split",
        "--no-split",
        "--no-sg",
        "--no-gso",
        "--no-csum",
        "--trusted",
        "--hostile",
        "--replay",
        "--tap",
        "--pcap",
        "--json",
    ] {
        assert!(text.contains(option), "{option}: {text}");
    }
}
