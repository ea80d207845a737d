//! Domains on a simulated Xen host move data through netfront and netback, and every byte is
//! checked. Run it with `--help`.
//!
//! ```text
//!   client domain (or several)                 backend domain, once for each client
//!   upload, download      stream.rs            upload, download
//!   smoltcp               stack.rs             smoltcp
//!   phy::Device                                phy::Device
//!   (pcap)                capture.rs
//!   Netfront              client.rs            Netback            attacks.rs, hostile.rs
//!   ────────────────────────── rings, grants, events, xenstore: xen_sim ──────────────────────
//! ```
#![deny(unsafe_code)]

mod agreement;
#[allow(unsafe_code)]
mod alloc;
mod args;
mod attacks;
mod backend;
mod capture;
mod client;
mod console;
mod error;
mod files;
mod findings;
mod hostile;
mod interrupt;
mod measure;
mod progress;
mod replay;
mod report;
mod stack;
mod stream;
mod table;
#[cfg(target_os = "linux")]
mod tap;
mod threads;
mod world;

use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use clap::Parser;

use args::Args;
use console::Console;
use error::{Error, Stop};
use interrupt::Interrupt;
use progress::Progress;
use replay::Replay;
use report::Report;
use world::World;

fn main() -> ExitCode {
    let args = Args::parse();
    let interrupt = Interrupt::default();
    let job = match Job::new(&args, &interrupt) {
        Ok(job) => job,
        Err(error) => return fail(&error, 2),
    };
    // Not before: a file that is read from a pipe may never come, and a signal ends that.
    if let Err(error) = interrupt.listen() {
        return fail(&error, 1);
    }
    match run(job, &args, &interrupt) {
        Ok(code) => code,
        // Nobody reads any more, so nobody wants the rest.
        Err(Stop::Output(error)) if error.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(Stop::Output(error)) => fail(&error, 1),
        Err(Stop::Run(error)) => fail(&error, 1),
    }
}

/// What there is to do.
enum Job {
    Streams(Box<World>),
    Replay(Box<Replay>),
    #[cfg(target_os = "linux")]
    Tap(Box<tap::Job>),
}

impl Job {
    fn new(args: &Args, interrupt: &Interrupt) -> Result<Job, Error> {
        #[cfg(target_os = "linux")]
        if let Some(name) = &args.tap {
            return Ok(Job::Tap(Box::new(tap::Job::new(args, name, interrupt)?)));
        }
        Ok(match &args.replay {
            Some(path) => Job::Replay(Box::new(Replay::new(args, path, interrupt)?)),
            None => Job::Streams(Box::new(World::new(args, interrupt)?)),
        })
    }
}

/// Runs it all and prints what came of it.
fn run(job: Job, args: &Args, interrupt: &Interrupt) -> Result<ExitCode, Stop> {
    let started = Instant::now();
    let found = match job {
        Job::Streams(world) => {
            let mut progress = Progress::new(args);
            let found = world.run(|bytes, now| progress.show(bytes, now.0))?;
            progress.finish()?;
            found
        }
        Job::Replay(replay) => replay.run()?,
        #[cfg(target_os = "linux")]
        Job::Tap(job) => {
            let report = job.run()?;
            let mut console = Console::report(args);
            let table = report.table(console.width()).to_string();
            print(args, &mut console, &table, report.json(), report.problems())?;
            return Ok(if report.ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
    };
    let report = Report::new(args, &found);
    let mut console = Console::report(args);
    let table = report.table(started.elapsed(), console.width()).to_string();
    print(args, &mut console, &table, report.json(), report.problems())?;
    let early = found.interrupted.then(|| interrupt.status()).flatten();
    Ok(if report.ok() { ExitCode::from(early.unwrap_or(0)) } else { ExitCode::FAILURE })
}

/// Prints a report.
fn print(
    args: &Args,
    console: &mut Console,
    table: &str,
    json: serde_json::Result<String>,
    problems: &[String],
) -> io::Result<()> {
    if !args.json {
        return console.print(table);
    }
    console.write(&format!("{}\n", json?))?;
    // The object is for programs.
    problems.iter().try_for_each(|problem| writeln!(io::stderr(), "error: {problem}"))
}

/// Takes a lock. What a panic left behind is of no use to anybody, for the panic ends the run.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn fail(error: &dyn core::error::Error, code: u8) -> ExitCode {
    // Where stderr is closed too, the exit code has to do.
    let _ = writeln!(io::stderr(), "error: {error}");
    ExitCode::from(code)
}
