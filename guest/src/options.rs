//! The kernel command line: words separated by spaces, `NAME=VALUE`. The runtime itself knows
//! `log=LEVEL`; the others are for the kernel's main.

use core::fmt;

use log::LevelFilter;

/// What `log=` asks for; the last one that is right counts.
pub fn log_level(line: &str) -> Option<LevelFilter> {
    let values = line.split_ascii_whitespace().filter_map(|word| word.strip_prefix("log="));
    values.filter_map(|value| value.parse().ok()).last()
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
    fn bad_options_are_named() {
        let text = |word, expected| std::format!("{}", BadOption { word, expected });
        assert_eq!(text("gw=", Some("gw=ADDR")), "option \"gw=\" is not gw=ADDR, ignored");
        assert_eq!(text("quiet", None), "option \"quiet\" is unknown, ignored");
    }
}
