//! Why a run could not begin, or could not go on.

use core::fmt::{self, Display};
use core::time::Duration;
use std::io;
use std::path::Path;

use xen_grant::PoolError;
use xen_netfront::netfront::OpenError;
use xen_netfront::store::StoreError;
use xen_sim::Outcome;

/// What stopped the program, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error(String);

impl Error {
    /// The capture file can't be written.
    pub fn pcap(path: &Path, why: &dyn Display) -> Error {
        Error(format!("--pcap {}: {why}", path.display()))
    }

    /// The capture can't be replayed.
    pub fn replay(path: &Path, why: &dyn Display) -> Error {
        Error(format!("--replay {}: {why}", path.display()))
    }

    /// The TAP device can't be used.
    #[cfg(target_os = "linux")]
    pub fn tap(name: &str, why: &dyn Display) -> Error {
        let name = if name.is_empty() { "''" } else { name };
        Error(format!("--tap {name}: {why}"))
    }

    /// Nothing was transferred for too long.
    pub fn stalled(time: Duration, bytes: u64) -> Error {
        Error(format!("nothing was transferred for {time:?} after {bytes} bytes"))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl core::error::Error for Error {}

impl From<PoolError> for Error {
    fn from(error: PoolError) -> Error {
        Error(format!("no frame pool: {error}"))
    }
}

impl From<OpenError> for Error {
    fn from(error: OpenError) -> Error {
        Error(format!("the frontend can't be opened: {error}"))
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Error {
        Error(format!("the backend can't be opened: {error}"))
    }
}

impl From<Outcome> for Error {
    fn from(outcome: Outcome) -> Error {
        Error(format!("the run came to no end: {outcome}"))
    }
}

/// Why a run ended early.
#[derive(Debug)]
pub enum Stop {
    /// It could not go on.
    Run(Error),
    /// What it has to say can't be written.
    Output(io::Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Stop {
        Stop::Run(error)
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Stop {
        Stop::Output(error)
    }
}
