//! The command line.

use core::time::Duration;
use std::path::PathBuf;

use clap::Parser;
use packet_views::features::Features;
use xen_netfront::{netback, netfront};

use crate::files::is_standard;
use xen_sim::served::QUEUE;

/// Bytes each way if neither `--bytes` nor `--seconds` says otherwise.
const DEFAULT_BYTES: u64 = 64 << 20;

/// Domains on a simulated Xen host: a client (netfront and a TCP/IP stack) uploads to and
/// downloads from a backend domain (netback and a stack of its own). Every byte is checked.
///
/// Time is virtual and one seed decides every chance: the same options give the same run, unless
/// domains run on threads. Ctrl-C ends a run early, with its report; pressed again, at once.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "netfront-sim",
    bin_name = "netfront-sim",
    version,
    max_term_width = 100,
    after_help = "Exit status: 0 if all is as it should be, 1 if not, 2 if it could not begin, 130 \
                  (143) if Ctrl-C (SIGTERM) ended it before all was done."
)]
pub struct Args {
    /// Bytes that each client sends each way, 1 to 1024G; k, M and G are powers of 1024 [default:
    /// 64M, or as much as goes with --seconds]
    #[arg(long, value_name = "N[k|M|G]", value_parser = bytes, allow_hyphen_values = true)]
    bytes: Option<u64>,

    /// Stop sending after so many seconds, 0.001 to 86400, of virtual time (real time with
    /// --threads); end --tap after so many
    #[arg(long, value_name = "N", value_parser = seconds, allow_hyphen_values = true)]
    pub seconds: Option<Duration>,

    /// How many client domains, 1 to 32, each with a vif and streams of its own
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        value_parser = clap::value_parser!(u8).range(1..=32),
        allow_hyphen_values = true,
    )]
    pub domains: u8,

    /// The largest IP packet, 576 to 65521. With --no-sg what is more than one page carries, 4078,
    /// counts as that; the report says so
    #[arg(
        long,
        value_name = "BYTES",
        default_value_t = 1500,
        value_parser = clap::value_parser!(u16).range(576..=65521),
        allow_hyphen_values = true,
    )]
    pub mtu: u16,

    /// What decides the contents, who runs when, and what a hostile backend does: 0 to 2^64-1
    #[arg(long, value_name = "N", default_value_t = 1, allow_hyphen_values = true)]
    pub seed: u64,

    /// Queues of each vif, 1 to 8: pairs of rings
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        value_parser = clap::value_parser!(u8).range(1..=8),
        allow_hyphen_values = true,
    )]
    pub queues: u8,

    /// An event channel for each ring; not with --no-split
    #[arg(long, conflicts_with = "no_split")]
    pub split: bool,

    /// One event channel for both rings of a queue, as without this option
    #[arg(long)]
    no_split: bool,

    /// No scatter-gather: each packet in one page, and so no large packets either
    #[arg(long)]
    pub no_sg: bool,

    /// No large packets: TCP sends segments of the MTU's size
    #[arg(long)]
    pub no_gso: bool,

    /// No checksum offload, and so no large packets either: stacks compute and verify all checksums
    #[arg(long)]
    pub no_csum: bool,

    /// 0: the clients do not trust the backend, and show it no byte but those of the packets
    #[arg(
        long,
        value_name = "0|1",
        default_value_t = 1,
        value_parser = clap::value_parser!(u8).range(0..=1),
        allow_hyphen_values = true,
    )]
    pub trusted: u8,

    /// Let the backend turn on the client every so often. Fails if the client is cut off for more
    /// than a second (ten with --threads), or a byte is wrong
    #[arg(long)]
    pub hostile: bool,

    /// Every domain on a thread of its own, in real time: no two runs are the same
    #[arg(long)]
    pub threads: bool,

    /// Send the Ethernet packets of a pcap or pcapng file (- is standard input; gzip will do) through
    /// the ring instead, all of them both ways, and compare every byte. Packets have 14 to 65535
    /// bytes; those of which only a part was captured are left out. Not with --bytes, --seconds, --mtu, --domains, --threads, --hostile, --tap
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with_all = ["bytes", "seconds", "mtu", "domains", "threads", "hostile"],
    )]
    pub replay: Option<PathBuf>,

    /// Connect the backend's domain to this TAP device of the machine, which is made if it does not
    /// exist (as root): the machine's own ping, curl and iperf talk to the client's stack, until
    /// Ctrl-C or the end of --seconds. A name has 1 to 15 bytes. Not with --bytes, --domains,
    /// --threads, --hostile, --replay
    #[cfg(target_os = "linux")]
    #[arg(
        long,
        value_name = "NAME",
        value_parser = clap::builder::StringValueParser::new(),
        conflicts_with_all = ["bytes", "domains", "threads", "hostile", "replay"],
    )]
    pub tap: Option<String>,

    /// Write each packet that a client's driver takes from the stack or hands up to it to a pcap file,
    /// for Wireshark (- is standard output; the report goes to standard error then). Large packets
    /// are whole, as on the ring; checksums that are left to others, and blank on the ring, are
    /// filled in. Virtual time in nanoseconds; real time with --threads and --tap
    #[arg(long, value_name = "FILE")]
    pub pcap: Option<PathBuf>,

    /// Print one JSON object instead of the table; progress and problems go to standard error
    #[arg(long)]
    pub json: bool,
}

impl Args {
    /// Whether standard output is where the capture goes.
    pub fn captures_to_stdout(&self) -> bool {
        self.pcap.as_deref().is_some_and(is_standard)
    }

    /// Bytes that each client sends each way; `None`: until time is up.
    pub fn bytes(&self) -> Option<u64> {
        match (self.bytes, self.seconds) {
            (None, None) => Some(DEFAULT_BYTES),
            (bytes, _) => bytes,
        }
    }

    /// Bytes that all clients are to transfer both ways; `None`: until time is up.
    pub fn bytes_in_all(&self) -> Option<u64> {
        self.bytes().map(|bytes| bytes.saturating_mul(2 * u64::from(self.domains)))
    }

    /// The MTU asked for, if the devices have a smaller one because a packet has one page.
    pub fn mtu_if_more(&self, mtu: usize) -> Option<usize> {
        Some(usize::from(self.mtu)).filter(|&asked| self.no_sg && mtu > 0 && asked > mtu)
    }

    /// What either end takes from the other.
    pub fn features(&self) -> Features {
        let (checksum, gso) = (!self.no_csum, !self.no_gso);
        let all = Features::NONE
            .with_scatter_gather(!self.no_sg)
            .with_checksum_v4(checksum)
            .with_checksum_v6(checksum)
            .with_gso_v4(gso)
            .with_gso_v6(gso);
        all.coherent()
    }

    /// What the client's device asks for.
    pub fn front_config(&self) -> netfront::Config {
        netfront::Config::default()
            .with_features(self.features())
            .with_queues(self.queues.into())
            .with_split_event_channels(self.split)
    }

    /// Pages of a client's pool: full rings of each queue, and what the stack holds.
    pub fn client_pages(&self) -> usize {
        640 * usize::from(self.queues)
    }

    /// What the backend offers a client.
    pub fn back_config(&self) -> netback::Config {
        // Bounds are shared out among the queues, and flows may all have the same one. A few more
        // than what the stack waits for: it may send several packets at once.
        let packets = (QUEUE + 16) * usize::from(self.queues);
        netback::Config::default()
            .with_features(self.features())
            .with_max_queues(self.queues.into())
            .with_split_channels(true)
            .with_queue_packets(packets)
            .with_queue_frames(packets * 18)
    }
}

fn bytes(text: &str) -> Result<u64, String> {
    let (digits, shift) = match text.char_indices().last() {
        Some((at, 'k' | 'K')) => (&text[..at], 10),
        Some((at, 'M')) => (&text[..at], 20),
        Some((at, 'G')) => (&text[..at], 30),
        Some(_) | None => (text, 0),
    };
    let number: u64 = digits.parse().map_err(|_| "not a number of bytes, like 500k or 64M")?;
    match number.checked_mul(1 << shift) {
        Some(0) => Err("there must be something to send".to_owned()),
        Some(bytes) if bytes <= 1 << 40 => Ok(bytes),
        Some(_) | None => Err("more than 1024G".to_owned()),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds, like 5 or 0.25")?;
    if !(0.001..=86_400.0).contains(&seconds) {
        return Err("must be between 0.001 and 86400".to_owned());
    }
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_suffixes() {
        assert_eq!(bytes("1"), Ok(1));
        assert_eq!(bytes("3k"), Ok(3072));
        assert_eq!(bytes("64M"), Ok(64 << 20));
        assert_eq!(bytes("2G"), Ok(2 << 30));
        for bad in ["", "k", "-1", "1.5M", "0", "0M", "10q", "9999999999G", "ä", "1025G"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn seconds_are_positive_and_finite() {
        assert_eq!(seconds("0.25"), Ok(Duration::from_millis(250)));
        for bad in ["", "x", "-1", "0", "inf", "NaN", "1e9"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_amount_has_a_default_unless_time_bounds_it() {
        let parse = |args: &[&str]| Args::try_parse_from([&["sim"], args].concat()).unwrap();
        assert_eq!(parse(&[]).bytes(), Some(DEFAULT_BYTES));
        assert_eq!(parse(&["--seconds", "1"]).bytes(), None);
        assert_eq!(parse(&["--seconds", "1", "--bytes", "1M"]).bytes(), Some(1 << 20));
    }
}
