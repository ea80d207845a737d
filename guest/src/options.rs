//! The kernel command line: `ip=ADDR/LEN gw=ADDR log=LEVEL`, separated by spaces.

use core::fmt;
use core::net::Ipv4Addr;

use log::LevelFilter;

/// What the command line asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// `ip=`: our address and the length of its network's prefix.
    pub ip: Option<(Ipv4Addr, u8)>,
    /// `gw=`: the default gateway.
    pub gw: Option<Ipv4Addr>,
    /// `log=`: how much to log.
    pub log: Option<LevelFilter>,
}

/// A word of the command line that says nothing we know.
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

impl Options {
    /// Reads a command line. Each bad word goes to `complain` and changes nothing.
    pub fn parse<'a>(line: &'a str, mut complain: impl FnMut(BadOption<'a>)) -> Options {
        let mut options = Options::default();
        for word in line.split_ascii_whitespace() {
            let (name, value) = word.split_once('=').unwrap_or((word, ""));
            let expected = match name {
                "ip" => set(&mut options.ip, address_and_prefix(value), "ip=ADDR/LEN"),
                "gw" => set(&mut options.gw, value.parse().ok(), "gw=ADDR"),
                "log" => {
                    set(&mut options.log, value.parse().ok(), "log=off|error|warn|info|debug|trace")
                }
                _ => Err(None),
            };
            if let Err(expected) = expected {
                complain(BadOption { word, expected });
            }
        }
        options
    }
}

fn set<T>(
    option: &mut Option<T>,
    value: Option<T>,
    expected: &'static str,
) -> Result<(), Option<&'static str>> {
    match value {
        Some(value) => {
            *option = Some(value);
            Ok(())
        }
        None => Err(Some(expected)),
    }
}

fn address_and_prefix(text: &str) -> Option<(Ipv4Addr, u8)> {
    let (address, len) = text.split_once('/')?;
    let len = len.parse().ok().filter(|&len| len <= 32)?;
    Some((address.parse().ok()?, len))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> (Options, Vec<String>) {
        let mut complaints = Vec::new();
        let options = Options::parse(line, |bad| complaints.push(bad.to_string()));
        (options, complaints)
    }

    #[test]
    fn good_options_are_taken() {
        let (options, complaints) = parse(" ip=10.0.9.2/24  gw=10.0.9.1 log=debug ");
        assert_eq!(options.ip, Some((Ipv4Addr::new(10, 0, 9, 2), 24)));
        assert_eq!(options.gw, Some(Ipv4Addr::new(10, 0, 9, 1)));
        assert_eq!(options.log, Some(LevelFilter::Debug));
        assert!(complaints.is_empty());
        assert_eq!(parse("").0, Options::default());
    }

    #[test]
    fn bad_options_are_named_and_change_nothing() {
        let (options, complaints) = parse("ip=10.0.9.2/24 ip=10.0.9.2/33 gw= log=loud quiet");
        assert_eq!(options.ip, Some((Ipv4Addr::new(10, 0, 9, 2), 24)));
        assert_eq!((options.gw, options.log), (None, None));
        assert_eq!(
            complaints,
            [
                "option \"ip=10.0.9.2/33\" is not ip=ADDR/LEN, ignored",
                "option \"gw=\" is not gw=ADDR, ignored",
                "option \"log=loud\" is not log=off|error|warn|info|debug|trace, ignored",
                "option \"quiet\" is unknown, ignored",
            ]
        );
    }

    #[test]
    fn nothing_on_the_command_line_panics() {
        for line in [
            "=",
            "ip",
            "ip=/",
            "ip=1.2.3.4/",
            "ip=1.2.3.4/-1",
            "gw=::1",
            "log",
            "\u{fffd}=",
            "ip=\u{1f600}/9",
        ] {
            parse(line);
        }
    }
}
