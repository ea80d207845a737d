//! The PV console (xen/io/console.h).
//!
//! ```text
//!    0 in[1024]   1024 out[2048]   3072 in_cons  3076 in_prod  3080 out_cons  3084 out_prod
//! ```
//!
//! Output never waits long for a reader: a ring that stays full loses bytes, and the console says
//! how many once there is room again. Input is bytes as they were typed; nothing is echoed.

use core::fmt::{self, Write};

use xen_store::byte_ring::{Consumer, Layout, Producer, Words};

/// The ring of what is typed.
const INPUT: Layout = Layout::new(0, 256, 769, 768);
/// The ring of what is printed.
const OUTPUT: Layout = Layout::new(256, 512, 771, 770);

/// The rings' other end, as far as it is needed.
pub trait Reader {
    /// Tells it that there are bytes, or room.
    fn notify(&self);
    /// Lets it run for a moment.
    fn give_time(&self);
}

/// The console.
pub struct Console<'a, R> {
    page: &'a Words,
    typed: Consumer,
    out: Producer,
    reader: R,
    lost: u64,
}

/// How often a full ring's reader is given time before bytes are lost.
const PATIENCE: u32 = 64;

impl<'a, R: Reader> Console<'a, R> {
    /// The console in this page.
    pub fn new(page: &'a Words, reader: R) -> Console<'a, R> {
        let (typed, out) = (Consumer::new(page, INPUT), Producer::new(page, OUTPUT));
        Console { page, typed, out, reader, lost: 0 }
    }

    /// Takes what has been typed, as much as fits; how much that was.
    pub fn read(&mut self, buffer: &mut [u8]) -> usize {
        // Indices that make no sense are a console where nobody types.
        let (count, was_full) = self.typed.read(self.page, buffer).unwrap_or((0, false));
        if was_full && count > 0 {
            self.reader.notify();
        }
        count
    }

    /// Writes bytes as they are.
    fn put(&mut self, mut bytes: &[u8]) {
        for _ in 0..PATIENCE {
            let written = self.out.write(self.page, bytes).unwrap_or(0);
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
    use core::sync::atomic::{AtomicBool, Ordering};

    use spin::Mutex;
    use xen_netfront::platform::Port;

    use super::{Console, Reader};
    use crate::hypercall::{self, Errno, rings::Ring};
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
    /// Somebody reads. If not, the port stays masked: nobody waits for it.
    static LISTENING: AtomicBool = AtomicBool::new(false);

    /// Finds the console, at the start and in a domain that has been resumed. Where there is none,
    /// nothing is typed, and the log goes to port 0xe9.
    pub fn init() -> Result<(), Errno> {
        let mut console = CONSOLE.lock();
        *console = Ring::Console.find(hypercall::get_param).and_then(|(gfn, port)| {
            // SAFETY: Xen says that the console's page is there.
            let page = unsafe { memory::map_special(gfn) }?;
            Some(Console::new(page, Daemon(port)))
        });
        if let Some(console) = &*console
            && LISTENING.load(Ordering::Relaxed)
        {
            events::opened(console.reader.0.get())?;
        }
        Ok(())
    }

    /// Takes what has been typed. From the first call on, typing ends a wait.
    pub fn read(buffer: &mut [u8]) -> usize {
        let mut console = CONSOLE.lock();
        let Some(console) = console.as_mut() else { return 0 };
        if !LISTENING.swap(true, Ordering::Relaxed) {
            // It has a number, or there were no console.
            let _ = events::opened(console.reader.0.get());
        }
        console.read(buffer)
    }

    /// Prints. False if there is no console yet, or it is being printed to (a panic within a
    /// print).
    pub fn print(text: fmt::Arguments<'_>) -> bool {
        let Some(mut console) = CONSOLE.try_lock() else { return false };
        let Some(console) = console.as_mut() else { return false };
        console.print(text);
        true
    }
}

impl<R> core::fmt::Debug for Console<'_, R> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Console({} bytes lost)", self.lost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::sync::atomic::{AtomicU32, Ordering};
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

    fn page() -> Words {
        [const { AtomicU32::new(0) }; 1024]
    }

    fn out(page: &Words, len: usize) -> Vec<u8> {
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
    fn what_is_typed_is_read_and_a_full_ring_is_told_of() {
        let (page, nobody) = (page(), Nobody::default());
        let mut console = Console::new(&page, &nobody);
        let mut buffer = [0; 8];
        assert_eq!(console.read(&mut buffer), 0);
        page[0].store(u32::from_le_bytes(*b"ab\r\n"), Ordering::Relaxed);
        page[769].store(3, Ordering::Relaxed);
        assert_eq!((console.read(&mut buffer), &buffer[..3]), (3, &b"ab\r"[..]));
        assert_eq!((page[768].load(Ordering::Relaxed), nobody.notified.get()), (3, 0));
        page[769].store(3 + 1024, Ordering::Relaxed);
        assert_eq!((console.read(&mut buffer), buffer[0]), (8, b'\n'));
        assert_eq!(nobody.notified.get(), 1);
        // More than the ring holds: nothing is taken.
        page[769].store(5000, Ordering::Relaxed);
        assert_eq!(console.read(&mut buffer), 0);
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
