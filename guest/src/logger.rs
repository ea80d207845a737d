//! The log: one line a record, to port 0xe9 (Xen's own log shows it, `XEN_HVM_DEBUGCONS_IOPORT`)
//! and to the PV console.

use core::fmt::{self, Write};

use log::{Level, LevelFilter, Log, Metadata, Record};
use x86_64::instructions::port::Port;

use crate::{clock, console};

struct Logger;

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let now = clock::now().0 / 1000;
        let level = match record.level() {
            Level::Error => "ERROR ",
            Level::Warn => "warning: ",
            Level::Info => "",
            Level::Debug => "debug: ",
            Level::Trace => "trace: ",
        };
        let (seconds, micros) = (now / 1_000_000, now % 1_000_000);
        print(format_args!("[{seconds:4}.{micros:06}] {level}{}\n", record.args()));
    }

    fn flush(&self) {}
}

/// Lets records through from now on; what the command line says about levels comes later.
pub fn init() {
    log::set_max_level(LevelFilter::Info);
    // It fails only if there is a logger already.
    let _ = log::set_logger(&Logger);
}

/// Prints to both places.
pub fn print(text: fmt::Arguments<'_>) {
    let _ = DebugPort.write_fmt(text);
    console::print(text);
}

/// Prints when the domain is about to end, from whatever state.
pub fn emergency(text: fmt::Arguments<'_>) {
    print(text);
}

struct DebugPort;

impl Write for DebugPort {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut port = Port::<u8>::new(xen_sys::XEN_HVM_DEBUGCONS_IOPORT as u16);
        for byte in text.bytes() {
            // SAFETY: Xen's debug port takes any byte and does nothing else.
            unsafe { port.write(byte) };
        }
        Ok(())
    }
}
