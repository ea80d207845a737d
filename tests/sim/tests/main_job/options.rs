//! The command line: nonsense is named, help is complete.

use crate::run::{Scratch, json, program, run, stderr, stdout};

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
        ("--tap=", "--tap '': no name of an interface: it is empty"),
        ("--tap lo", "--tap lo: an interface of this name exists, but it is no TAP device"),
        ("--tap .", "no name of an interface"),
        ("--tap tap%d", "no name of an interface"),
        ("--pcap=", "--pcap"),
        ("--replay=", "--replay"),
        ("--bytes 1025G", "1025G"),
        ("--bytes 1T", "1T"),
        ("--seconds 86401", "86401"),
        ("--seconds 0", "0.001"),
        ("--mtu 65536", "65536"),
        ("--mtu -1", "-1"),
        ("--seed 18446744073709551616", "18446744073709551616"),
        ("--seed 1 --seed 2", "--seed"),
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
    for limit in ["1 to 1024G", "0.001 to 86400", "1 to 32", "576 to 65521", "1 to 8", "1 to 15"] {
        assert!(text.contains(limit), "{limit}: {text}");
    }
}

#[test]
fn the_program_has_one_name() {
    let version = stdout(&run("--version"));
    assert!(version.starts_with("netfront-sim "), "{version}");
    let link = Scratch::new("another-name");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_netfront-sim"), &link.0).unwrap();
    for option in ["--help", "-h", "--frobnicate"] {
        for program in [env!("CARGO_BIN_EXE_netfront-sim").as_ref(), link.0.as_path()] {
            let output = std::process::Command::new(program).arg(option).output().unwrap();
            let text = stdout(&output) + &stderr(&output);
            assert!(text.contains("Usage: netfront-sim "), "{option}: {text}");
        }
    }
}

/// What a terminal of so many columns is sent, if all went well.
fn on_a_terminal(options: &str, columns: usize) -> String {
    let program = env!("CARGO_BIN_EXE_netfront-sim");
    let command = format!("stty rows 24 cols {columns} && {program} {options}");
    let mut script = std::process::Command::new("script");
    script.args(["-qec", &command, "/dev/null"]).env_remove("COLUMNS");
    let output = script.stdin(std::process::Stdio::null()).output().unwrap();
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{options}, {columns} columns: {text}");
    text
}

#[test]
fn a_terminal_may_have_any_width() {
    // 0: it has not been told.
    for columns in [0, 1, 20, 40, 65535] {
        let text = on_a_terminal("--bytes 1M", columns);
        assert!(text.contains("every") && text.contains("reconnects"), "{columns}: {text}");
        if columns > 1 {
            let lines = text.split(['\n', '\r']).map(|line| line.trim_start_matches("\x1b[K"));
            let mut progress = lines.filter(|line| line.contains(" %"));
            assert!(progress.clone().count() > 0, "{text}");
            // One that fills the line would wrap.
            assert!(progress.all(|line| line.chars().count() < columns), "{columns}: {text}");
        }
    }
    let text = on_a_terminal("--help", 40);
    assert!(text.lines().all(|line| line.trim_end().chars().count() <= 40), "{text}");
}

#[test]
fn what_a_narrow_terminal_shows_fits() {
    let fits = |options: &str, columns: usize| {
        let output = program(options).env("COLUMNS", columns.to_string()).output().unwrap();
        let text = stdout(&output);
        assert!(text.lines().count() > 20, "{options}: {text}");
        for line in text.lines() {
            let words = line.split_whitespace().count();
            let fits = line.chars().count() <= columns || words == 1;
            assert!(fits, "{options}, {columns} columns: {line:?} in {text}");
        }
        text
    };
    let file = Scratch::new("narrow.pcap");
    json(&format!("--bytes 64k --pcap {}", file.0.display()));
    for columns in [40, 50, 60, 80] {
        fits("--help", columns);
        for options in ["--bytes 1M --domains 3 --hostile", "--bytes 64k --pcap /dev/null"] {
            let text = fits(options, columns);
            assert!(text.contains(" pages cleared "), "{text}");
        }
        fits(&format!("--replay {}", file.0.display()), columns);
    }
    // JSON is one line, however narrow.
    let output = program("--bytes 64k --json").env("COLUMNS", "40").output().unwrap();
    assert_eq!(stdout(&output).lines().count(), 1);
}
