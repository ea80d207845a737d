//! The kernel command line: words separated by spaces, `NAME=VALUE`. The runtime itself knows
//!
//! * `log=LEVEL`: how much is logged;
//! * `debug-port=1`: the log goes to Xen's own log, too, at an exit to Xen for each byte;
//! * `upcall=vcpu`: events interrupt through the vCPU's local APIC, not past it (`upcall=domain`).
//!   Each interrupt then has an end to be told, which is one more exit to Xen where the processor
//!   has no virtual APIC;
//!
//! the others are for the kernel's main.

use core::fmt;

use log::LevelFilter;

/// What `log=` asks for; the last one that is right counts.
pub fn log_level(line: &str) -> Option<LevelFilter> {
    let values = line.split_ascii_whitespace().filter_map(|word| word.strip_prefix("log="));
    values.filter_map(|value| value.parse().ok()).next_back()
}

/// What `debug-port=` asks for; the last one that is right counts.
pub fn debug_port(line: &str) -> Option<bool> {
    choice(line, "debug-port=", ["0", "1"])
}

/// Whether `upcall=` asks for the vCPU's own vector; the last one that is right counts.
pub fn vcpu_upcall(line: &str) -> Option<bool> {
    choice(line, "upcall=", ["domain", "vcpu"])
}

/// Which of two values the option has, the second being true; the last one that is right counts.
fn choice(line: &str, name: &str, [no, yes]: [&str; 2]) -> Option<bool> {
    let mut values = line.split_ascii_whitespace().filter_map(|word| word.strip_prefix(name));
    values.rfind(|value| [no, yes].contains(value)).map(|value| value == yes)
}

/// Judges a word that the kernel itself does not know: the runtime may have seen to it already. If
/// not, it is wrong ([`BadOption::expected`] says what would be right) or nobody knows it.
pub fn check(word: &str) -> Result<(), Option<&'static str>> {
    let (right, expected) = match word.split_once('=') {
        Some(("log", _)) => (log_level(word).is_some(), "log=off|error|warn|info|debug|trace"),
        Some(("debug-port", _)) => (debug_port(word).is_some(), "debug-port=0|1"),
        Some(("upcall", _)) => (vcpu_upcall(word).is_some(), "upcall=domain|vcpu"),
        _ => return Err(None),
    };
    if right { Ok(()) } else { Err(Some(expected)) }
}

/// A word of the command line that says nothing the kernel knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadOption<'a> {
    /// The word.
    pub word: &'a str,
    /// What would be right, if the option is known.
    pub expected: Option<&'static str>,
}

impl fmt::Display for BadOption<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "option {:?} is ", self.word)?;
        match self.expected {
            Some(expected) => write!(f, "not {expected}, ignored"),
            None => f.write_str("unknown, ignored"),
        }
    }
}

impl core::error::Error for BadOption<'_> {}

/// Sets flags from `0` or `1`; what would be right otherwise.
pub fn set_flags<const N: usize>(
    value: &str,
    flags: [&mut bool; N],
    expected: &'static str,
) -> Result<(), &'static str> {
    let on = match value {
        "0" => false,
        "1" => true,
        _ => return Err(expected),
    };
    for flag in flags {
        *flag = on;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_level_that_is_right_counts() {
        let level = |line| log_level(line);
        assert_eq!(level(" ip=10.0.9.2/24 log=debug "), Some(LevelFilter::Debug));
        assert_eq!(level("log=off log=warn log=loud"), Some(LevelFilter::Warn));
        assert_eq!((level(""), level("log="), level("blog=info")), (None, None, None));
    }

    #[test]
    fn the_debug_port_is_asked_for() {
        assert_eq!(debug_port("debug-port=1 debug-port=yes x"), Some(true));
        assert_eq!(debug_port("debug-port=1 debug-port=0"), Some(false));
        assert_eq!(debug_port("log=debug"), None);
    }

    #[test]
    fn the_vcpus_own_vector_is_asked_for() {
        assert_eq!(vcpu_upcall("upcall=domain upcall=vcpu upcall= x"), Some(true));
        assert_eq!(vcpu_upcall("upcall=vcpu upcall=domain"), Some(false));
        assert_eq!(vcpu_upcall("upcall=1"), None);
    }

    #[test]
    fn the_runtime_knows_its_own_words() {
        let right = ["log=info", "debug-port=0", "upcall=domain", "upcall=vcpu"];
        assert_eq!(right.map(check), [Ok(()); 4]);
        assert_eq!(check("upcall=0"), Err(Some("upcall=domain|vcpu")));
        assert_eq!(check("debug-port=yes"), Err(Some("debug-port=0|1")));
        assert!(check("log=loud").is_err_and(|expected| expected.is_some()));
        for word in ["log", "debug-port", "ip=10.0.0.2/24", "", "="] {
            assert_eq!(check(word), Err(None));
        }
    }

    #[test]
    fn bad_options_are_named() {
        let text = |word, expected| std::format!("{}", BadOption { word, expected });
        assert_eq!(text("gw=", Some("gw=ADDR")), "option \"gw=\" is not gw=ADDR, ignored");
        assert_eq!(text("quiet", None), "option \"quiet\" is unknown, ignored");
    }
}
