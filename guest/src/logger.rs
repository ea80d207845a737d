//! The log: one line a record, to the PV console.
//!
//! What is printed before there is one, and the last words of a domain that goes wrong, also go to
//! port 0xe9 (`XEN_HVM_DEBUGCONS_IOPORT`): that is Xen's own log, and one exit to Xen for each byte.
//! `debug-port=1` on the command line sends everything there.

use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, Ordering};

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

/// Whether everything goes to port 0xe9, too.
static DEBUG_PORT: AtomicBool = AtomicBool::new(false);

/// Sends everything to port 0xe9, or only what would be lost else.
pub fn use_debug_port(always: bool) {
    DEBUG_PORT.store(always, Ordering::Relaxed);
}

fn print(text: fmt::Arguments<'_>) {
    if !console::print(text) || DEBUG_PORT.load(Ordering::Relaxed) {
        let _ = DebugPort.write_fmt(text);
    }
}

/// Prints when the domain is about to end, from whatever state: to both places.
pub fn emergency(text: fmt::Arguments<'_>) {
    let _ = DebugPort.write_fmt(text);
    console::print(text);
}

/// Prints when even that has gone wrong.
pub fn last_words(text: &str) {
    let _ = DebugPort.write_str(text);
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
