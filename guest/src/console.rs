//! The PV console (xen/io/console.h), output only.
//!
//! ```text
//!    0 in[1024]   1024 out[2048]   3072 in_cons  3076 in_prod  3080 out_cons  3084 out_prod
//! ```
//!
//! Output never waits long for a reader: a ring that stays full loses bytes, and the console says
//! how many once there is room again.

use core::fmt::{self, Write};
use core::sync::atomic::AtomicU32;

use crate::byte_ring::Producer;

/// The ring's other end, as far as it is needed.
pub trait Reader {
    /// Tells it that there are bytes.
    fn notify(&self);
    /// Lets it run for a moment.
    fn give_time(&self);
}

/// The console's output.
pub struct Console<'a, R> {
    out: Producer<'a>,
    reader: R,
    lost: u64,
}

/// How often a full ring's reader is given time before bytes are lost.
const PATIENCE: u32 = 64;

impl<'a, R: Reader> Console<'a, R> {
    /// The console in this page.
    pub fn new(page: &'a [AtomicU32], reader: R) -> Console<'a, R> {
        Console { out: Producer::new(page, 256..768, 771, 770), reader, lost: 0 }
    }

    /// Writes bytes as they are.
    fn put(&mut self, mut bytes: &[u8]) {
        for _ in 0..PATIENCE {
            let written = self.out.write(bytes).unwrap_or(0);
            bytes = &bytes[written..];
            if bytes.is_empty() {
                return;
            }
            self.reader.notify();
            self.reader.give_time();
        }
        self.lost += bytes.len() as u64;
    }

    /// Writes text and tells the reader.
    pub fn print(&mut self, text: fmt::Arguments<'_>) {
        if self.lost > 0 {
            let lost = core::mem::take(&mut self.lost);
            let _ = writeln!(self, "[{lost} bytes lost]");
        }
        let _ = self.write_fmt(text);
        self.reader.notify();
    }
}

impl<R: Reader> Write for Console<'_, R> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for line in text.split_inclusive('\n') {
            match line.strip_suffix('\n') {
                Some(line) => {
                    self.put(line.as_bytes());
                    self.put(b"\r\n");
                }
                None => self.put(line.as_bytes()),
            }
        }
        Ok(())
    }
}

#[cfg(target_os = "none")]
pub(crate) use machine::*;

#[cfg(target_os = "none")]
mod machine {
    use core::fmt;

    use spin::Mutex;
    use xen_grant::Gfn;
    use xen_netfront::platform::Port;

    use super::{Console, Reader};
    use crate::hypercall::{self, Errno, abi};
    use crate::{events, memory};

    /// xenconsoled, at the other end of this port.
    struct Daemon(Port);

    impl Reader for Daemon {
        fn notify(&self) {
            events::notify(self.0);
        }

        fn give_time(&self) {
            hypercall::sched_yield();
        }
    }

    static CONSOLE: Mutex<Option<Console<'static, Daemon>>> = Mutex::new(None);

    /// Finds the console. Its port stays masked: nobody waits for it.
    pub fn init() -> Result<(), Errno> {
        let gfn = Gfn(hypercall::get_param(abi::HVM_PARAM_CONSOLE_PFN)?);
        let port = hypercall::get_param(abi::HVM_PARAM_CONSOLE_EVTCHN)?;
        let Some(port) = u32::try_from(port).ok().and_then(Port::new) else {
            return Ok(());
        };
        // SAFETY: Xen says that the console's page is there.
        if let Some(page) = unsafe { memory::map_special(gfn) } {
            *CONSOLE.lock() = Some(Console::new(page, Daemon(port)));
        }
        Ok(())
    }

    /// Prints, unless the console is being printed to (a panic within a print).
    pub fn print(text: fmt::Arguments<'_>) {
        if let Some(mut console) = CONSOLE.try_lock()
            && let Some(console) = console.as_mut()
        {
            console.print(text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::sync::atomic::Ordering;
    use std::cell::Cell;

    #[derive(Default)]
    struct Nobody {
        notified: Cell<u32>,
        time: Cell<u32>,
    }

    impl Reader for &Nobody {
        fn notify(&self) {
            self.notified.set(self.notified.get() + 1);
        }
        fn give_time(&self) {
            self.time.set(self.time.get() + 1);
        }
    }

    fn page() -> Vec<AtomicU32> {
        (0..1024).map(|_| AtomicU32::new(0)).collect()
    }

    fn out(page: &[AtomicU32], len: usize) -> Vec<u8> {
        let words = &page[256..768];
        words.iter().flat_map(|word| word.load(Ordering::Relaxed).to_le_bytes()).take(len).collect()
    }

    #[test]
    fn lines_end_as_terminals_want_them() {
        let (page, nobody) = (page(), Nobody::default());
        Console::new(&page, &nobody).print(format_args!("one\ntwo {}\n", 3));
        assert_eq!(out(&page, 12), b"one\r\ntwo 3\r\n");
        assert_eq!(page[771].load(Ordering::Relaxed), 12);
        assert_eq!(nobody.notified.get(), 1);
    }

    #[test]
    fn a_full_console_does_not_block_and_counts_what_it_lost() {
        let (page, nobody) = (page(), Nobody::default());
        let mut console = Console::new(&page, &nobody);
        console.print(format_args!("{}", "x".repeat(2048 + 100)));
        assert_eq!(nobody.time.get(), PATIENCE);
        assert_eq!(console.lost, 100);
        page[770].store(2048, Ordering::Relaxed);
        console.print(format_args!("y"));
        assert_eq!(out(&page, 19), b"[100 bytes lost]\r\ny");
    }

    #[test]
    fn a_console_with_mad_indices_does_not_block() {
        let (page, nobody) = (page(), Nobody::default());
        page[770].store(12345, Ordering::Relaxed);
        let mut console = Console::new(&page, &nobody);
        console.print(format_args!("hello"));
        assert_eq!(console.lost, 5);
    }
}
