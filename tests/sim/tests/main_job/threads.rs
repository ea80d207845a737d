//! Domains on threads: the same results, in real time.

use crate::run::{json, number, run, stdout};

#[test]
fn threads_move_the_same_bytes() {
    for options in ["--bytes 4M", "--bytes 1M --domains 4", "--bytes 2M --mtu 9000 --no-sg"] {
        let report = json(&format!("--threads {options}"));
        assert_eq!(report["threads"], true);
        assert!(report.get("virtual_seconds").is_none(), "{report}");
        assert!(number(&report, "real_seconds") > 0.0, "{report}");
        for key in ["drops", "reconnects", "quarantined_pages", "front_copies_per_packet"] {
            assert_eq!(number(&report, key), 0.0, "{options}: {key}: {report}");
        }
        assert_eq!(number(&report, "front_allocations_per_packet"), 0.0, "{options}: {report}");
    }
    let report = json("--bytes 1M");
    assert_eq!(report["threads"], false);
    assert!(report.get("real_seconds").is_none(), "{report}");
}

#[test]
fn real_time_ends_a_run() {
    let started = std::time::Instant::now();
    let report = json("--threads --seconds 0.5");
    let seconds = number(&report, "real_seconds");
    // A busy machine takes its time after the deadline, to empty what is under way.
    assert!(seconds > 0.4 && seconds <= started.elapsed().as_secs_f64(), "{report}");
    assert!(number(&report, "bytes") > 0.0, "{report}");
}

#[test]
fn a_hostile_backend_on_a_thread_is_survived() {
    let report = json("--threads --hostile --bytes 2M --domains 2");
    assert_eq!(number(&report, "bytes"), f64::from(8 << 20));
    assert!(number(&report, "attacks") > 0.0, "{report}");
}

#[test]
fn the_table_says_what_the_time_is() {
    let text = stdout(&run("--threads --bytes 256k"));
    assert!(text.contains("between domains on threads"), "{text}");
    assert!(!text.contains("virtual"), "{text}");
}
