//! The image's command line.
//!
//! ```text
//! uplink=0 queues=2 gso=0 uplink.csum=0 log=debug
//! ```
//!
//! `uplink=` names the vif of this domain that leads out, or says that there is `none`. The others are what
//! clients are offered, or, with `uplink.` in front, what is asked of the uplink's backend. What is wrong is
//! told, and changes nothing.

use packet_views::features::Features;
use xen_guest::options::{BadOption, set_flags};
use xen_netfront::xenbus::MAX_QUEUES;

/// What the command line asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// `uplink=`: this domain's own vif that leads out. Vif 0, unless it says otherwise.
    pub uplink: Option<u32>,
    /// `queues=`: how many a client may have.
    pub queues: u32,
    /// `sg=`, `gso=`, `csum=`: what clients may leave to others.
    pub features: Features,
    /// `uplink.sg=`, `uplink.gso=`, `uplink.csum=`: what crosses the uplink, if its backend has it too.
    pub uplink_features: Features,
}

impl Default for Options {
    fn default() -> Options {
        let (features, uplink_features) = (Features::ALL, Features::ALL);
        Options { uplink: Some(0), queues: 1, features, uplink_features }
    }
}

impl Options {
    /// Reads a command line. Each bad word goes to `complain` and changes nothing.
    pub fn parse<'a>(line: &'a str, mut complain: impl FnMut(BadOption<'a>)) -> Options {
        let mut options = Options::default();
        for word in line.split_ascii_whitespace() {
            if let Err(expected) = options.take(word) {
                complain(BadOption { word, expected });
            }
        }
        options
    }

    /// Takes one word; what would be right, if it is not and the option is known.
    fn take(&mut self, word: &str) -> Result<(), Option<&'static str>> {
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        let (features, feature) = match name.strip_prefix("uplink.") {
            Some(feature) => (&mut self.uplink_features, feature),
            None => (&mut self.features, name),
        };
        let Features { scatter_gather, checksum_v4, checksum_v6, gso_v4, gso_v6, .. } = features;
        match feature {
            "sg" => return set_flags(value, [scatter_gather], "sg=0|1").map_err(Some),
            "gso" => return set_flags(value, [gso_v4, gso_v6], "gso=0|1").map_err(Some),
            "csum" => {
                return set_flags(value, [checksum_v4, checksum_v6], "csum=0|1").map_err(Some);
            }
            _ => {}
        }
        match name {
            "uplink" => parse_uplink(value).map(|uplink| self.uplink = uplink),
            "queues" => {
                let queues = value.parse().ok().filter(|count| (1..=MAX_QUEUES).contains(count));
                queues.map(|queues| self.queues = queues).ok_or("queues=N, N from 1 to 8")
            }
            _ => return xen_guest::options::check(word),
        }
        .map_err(Some)
    }
}

fn parse_uplink(value: &str) -> Result<Option<u32>, &'static str> {
    match value {
        "none" => Ok(None),
        _ => value.parse().map(Some).map_err(|_| "uplink=N, the number of a vif, or uplink=none"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::{String, ToString};
    use alloc::vec::Vec;

    fn parse(line: &str) -> (Options, Vec<String>) {
        let mut complaints = Vec::new();
        let options = Options::parse(line, |bad| complaints.push(bad.to_string()));
        (options, complaints)
    }

    #[test]
    fn good_options_are_taken() {
        assert_eq!(parse(""), (Options::default(), Vec::new()));
        let line =
            " uplink=3 queues=8  gso=0 csum=0 log=debug sg=1 uplink.gso=0 uplink.sg=0 uplink.sg=1";
        let (options, complaints) = parse(line);
        let features = Features::NONE.with_scatter_gather(true);
        let uplink_features = Features::ALL.with_gso_v4(false).with_gso_v6(false);
        assert_eq!(options, Options { uplink: Some(3), queues: 8, features, uplink_features });
        assert_eq!(complaints, Vec::<String>::new());
        let none = parse("uplink=1 uplink=none").0;
        assert_eq!(none, Options { uplink: None, ..Options::default() });
    }

    #[test]
    fn bad_options_are_named_and_change_nothing() {
        for word in [
            "uplink",
            "uplink=",
            "uplink=-1",
            "uplink=None",
            "uplink=4294967296",
            "queues=0",
            "queues=9",
            "queues=",
            "queues=two",
            "sg=2",
            "gso=",
            "csum=yes",
            "ip=10.0.0.2/24",
            "quiet",
            "=",
            "log=loud",
            "uplink.queues=2",
            "uplink.",
            "uplink.csum=2",
            "uplink.log=debug",
        ] {
            let (options, complaints) = parse(word);
            assert_eq!(options, Options::default(), "{word}");
            assert_eq!(complaints.len(), 1, "{word}");
            assert!(complaints[0].starts_with(&alloc::format!("option {word:?} is ")), "{word}");
        }
    }
}
