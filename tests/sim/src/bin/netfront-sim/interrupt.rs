//! Ctrl-C and SIGTERM end a run as its end would, with its report and a whole capture. The second
//! ends the program at once.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// Whether the run has been told to end. Clones know the same.
#[derive(Clone, Debug, Default)]
pub struct Interrupt(Arc<AtomicUsize>);

impl Interrupt {
    /// From now on the signals are heard.
    pub fn listen(&self) -> io::Result<()> {
        let again = Arc::<AtomicBool>::default();
        for signal in [SIGINT, SIGTERM] {
            // In this order: the first signal finds `again` unset.
            flag::register_conditional_shutdown(signal, status(signal), again.clone())?;
            flag::register(signal, again.clone())?;
            flag::register_usize(signal, self.0.clone(), signal as usize)?;
        }
        Ok(())
    }

    /// Whether the run is to end.
    pub fn is_told(&self) -> bool {
        self.0.load(Ordering::Relaxed) != 0
    }

    /// What the program's exit status says of the signal, if there was one.
    pub fn status(&self) -> Option<u8> {
        let signal = self.0.load(Ordering::Relaxed);
        (signal != 0).then(|| status(signal as i32) as u8)
    }
}

/// As shells have it.
fn status(signal: i32) -> i32 {
    128 + signal
}
