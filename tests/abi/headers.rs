//! Compiles `abi.c` against Xen's public headers and reads what it prints.

use std::collections::HashMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::{env, fs, process};

/// What Xen's headers say: names and values.
pub struct Headers(HashMap<String, String>);

impl Headers {
    /// The value, as C printed it. Panics if `abi.c` does not tell it.
    pub fn text(&self, name: &str) -> &str {
        self.0.get(name).unwrap_or_else(|| panic!("abi.c says nothing about {name}"))
    }

    /// Whether the header knows it: some things are Linux's only.
    #[allow(dead_code)] // of the two tests that share this file, one asks
    pub fn knows(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// The value as a number.
    pub fn number(&self, name: &str) -> i64 {
        self.text(name).parse().unwrap_or_else(|_| panic!("{name} is not a number"))
    }

    /// Compares numbers, named as in C. `i128` takes every type that a constant of ours has.
    pub fn compare<T: Into<i128>>(&self, pairs: impl IntoIterator<Item = (&'static str, T)>) {
        for (name, ours) in pairs {
            assert_eq!(ours.into(), self.number(name).into(), "{name}");
        }
    }
}

/// The headers' facts; `None`, and the reason printed, where there is no C compiler or no header.
///
/// With `XEN_ABI_REQUIRED` set that is a failure: `scripts/test` sets it, having installed both.
pub fn headers() -> Option<&'static Headers> {
    static HEADERS: OnceLock<Result<Headers, String>> = OnceLock::new();
    match HEADERS.get_or_init(read) {
        Ok(headers) => Some(headers),
        Err(why) => {
            assert!(env::var_os("XEN_ABI_REQUIRED").is_none(), "{why}");
            println!("skipped: {why}");
            None
        }
    }
}

fn read() -> Result<Headers, String> {
    if cfg!(not(target_arch = "x86_64")) {
        return Err("the layouts compared are those of x86-64".into());
    }
    let compiler = env::var("CC").unwrap_or_else(|_| "cc".into());
    let probe = Command::new(&compiler)
        .args(["-E", "-include", "xen/io/netif.h", "-x", "c", "/dev/null"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    match probe {
        Err(error) => return Err(format!("no C compiler: {compiler}: {error}")),
        Ok(status) if !status.success() => {
            return Err("no Xen headers: Debian has them in libxen-dev".into());
        }
        Ok(_) => {}
    }
    Ok(run(&compiler))
}

/// From here on everything is there, so what goes wrong is a failure, not a skip.
fn run(compiler: &str) -> Headers {
    let source = Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .map(|folder| folder.join("tests/abi/abi.c"))
        .find(|path| path.exists())
        .expect("abi.c is in the source tree");
    // Another test may do the same at the same time.
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("abi-{}", process::id()));
    let compiled = Command::new(compiler)
        .args(["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O1", "-o"])
        .arg(&program)
        .arg(source)
        .status()
        .expect("the compiler ran before");
    assert!(compiled.success(), "abi.c does not compile");
    let output = Command::new(&program).output().expect("a program just compiled");
    fs::remove_file(&program).expect("our own file");
    let text = String::from_utf8(output.stdout).expect("ASCII");
    let facts = text.lines().filter_map(|line| line.split_once(' '));
    Headers(facts.map(|(name, value)| (name.into(), value.into())).collect())
}
