//! Runs the program, and reads what it says.

use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;

pub fn program(options: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_netfront-sim"));
    command.args(options.split_whitespace()).env_remove("COLUMNS");
    command
}

pub fn run(options: &str) -> Output {
    program(options).output().unwrap()
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Runs with `--json`, and checks what is true of any good run.
pub fn json(options: &str) -> Value {
    let output = run(&format!("--json {options}"));
    let (text, errors) = (stdout(&output), stderr(&output));
    assert_eq!(output.status.code(), Some(0), "{options}: {text}{errors}");
    assert_eq!(text.lines().count(), 1, "{options}: one object and nothing else: {text}");
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(report["ok"], Value::Bool(true), "{options}: {text}");
    report
}

pub fn number(report: &Value, key: &str) -> f64 {
    report[key].as_f64().unwrap_or_else(|| panic!("{key} is no number: {report}"))
}

/// A file of this test's own, removed in the end.
pub struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Scratch {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("netfront-sim-{}-{number}-{name}", std::process::id());
        Scratch(std::env::temp_dir().join(name))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
