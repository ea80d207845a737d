//! How far it is, while it runs.

use std::io;
use std::time::{Duration, Instant};

use crate::args::Args;
use crate::console::Console;

/// How often a terminal's line is written anew.
const REFRESH: Duration = Duration::from_millis(100);

/// Progress on stdout, or on stderr where stdout is for something else. On a terminal it is one line that
/// changes; elsewhere a line for each tenth.
pub struct Progress {
    out: Console,
    /// Bytes, or nanoseconds of virtual time, that make the whole.
    total: u64,
    counts_time: bool,
    clock: &'static str,
    shown: Option<Instant>,
    tenth: u64,
}

impl Progress {
    /// Of a run with these options.
    pub fn new(args: &Args) -> Progress {
        let (bytes, time) = (args.bytes_in_all(), args.seconds);
        let nanos = time.and_then(|time| u64::try_from(time.as_nanos()).ok());
        let total = bytes.or(nanos).unwrap_or(u64::MAX);
        Progress {
            out: Console::progress(args),
            total,
            counts_time: bytes.is_none(),
            clock: if args.threads { "real" } else { "virtual" },
            shown: None,
            tenth: 0,
        }
    }

    /// Shows the state of things, if it is time for that.
    pub fn show(&mut self, bytes: u64, nanos: u64) -> io::Result<()> {
        let done = if self.counts_time { nanos } else { bytes }.min(self.total);
        let percent = (u128::from(done) * 100 / u128::from(self.total.max(1))) as u64;
        let due = if self.out.is_terminal() {
            self.shown.is_none_or(|last| last.elapsed() >= REFRESH)
        } else {
            percent / 10 > self.tenth
        };
        if !due {
            return Ok(());
        }
        self.shown = Some(Instant::now());
        self.tenth = percent / 10;
        let mebi = bytes as f64 / f64::from(1 << 20);
        let seconds = nanos as f64 / 1e9;
        let line = format!("{percent:>3} %  {mebi:>9.1} MiB  {seconds:>8.3} s {}", self.clock);
        if self.out.is_terminal() {
            // A line that wraps could not be taken back.
            let room = self.out.width().map_or(line.len(), |width| width.saturating_sub(1));
            self.out.write(&format!("\r\x1b[K{}", &line[..room.min(line.len())]))
        } else {
            self.out.print(&format!("{line}\n"))
        }
    }

    /// Takes the changing line away.
    pub fn finish(&mut self) -> io::Result<()> {
        let is_left = self.out.is_terminal() && self.shown.is_some();
        self.out.write(if is_left { "\r\x1b[K" } else { "" })
    }
}
