//! Domains on a simulated Xen host move data through netfront and netback, and every byte is
//! checked. Run it with `--help`.
//!
//! ```text
//!   client domain (or several)                 backend domain, once for each client
//!   upload, download      stream.rs            upload, download
//!   smoltcp               stack.rs             smoltcp
//!   phy::Device                                phy::Device
//!   (pcap)                capture.rs
//!   Netfront              client.rs, served.rs Netback            attacks.rs, hostile.rs
//!   ────────────────────────── rings, grants, events, xenstore: xen_sim ──────────────────────
//! ```
#![deny(unsafe_code)]

#[allow(unsafe_code)]
mod alloc;
mod args;
mod attacks;
mod backend;
mod capture;
mod client;
mod error;
mod findings;
mod hostile;
mod measure;
mod progress;
mod replay;
mod report;
mod served;
mod stack;
mod stream;
#[cfg(target_os = "linux")]
mod tap;
mod threads;
mod world;

use core::fmt::Display;
use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use clap::Parser;

use args::Args;
use error::{Error, Stop};
use progress::Progress;
use replay::Replay;
use report::Report;
use world::World;

fn main() -> ExitCode {
    let args = Args::parse();
    let job = match Job::new(&args) {
        Ok(job) => job,
        Err(error) => return fail(&error, 2),
    };
    match run(job, &args) {
        Ok(ok) => {
            if ok {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
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
    fn new(args: &Args) -> Result<Job, Error> {
        #[cfg(target_os = "linux")]
        if let Some(name) = &args.tap {
            return Ok(Job::Tap(Box::new(tap::Job::new(args, name)?)));
        }
        Ok(match &args.replay {
            Some(path) => Job::Replay(Box::new(Replay::new(args, path)?)),
            None => Job::Streams(Box::new(World::new(args)?)),
        })
    }
}

/// Runs it all and prints what came of it. False if something is not as it should be.
fn run(job: Job, args: &Args) -> Result<bool, Stop> {
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
            print(args, &report, report.json())?;
            return Ok(report.ok());
        }
    };
    let report = Report::new(args, &found);
    let table = report.table(started.elapsed());
    print(args, &table, report.json())?;
    Ok(report.ok())
}

/// Prints a report.
fn print(args: &Args, table: &impl Display, json: serde_json::Result<String>) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if args.json {
        writeln!(out, "{}", json?)?;
    } else {
        write!(out, "{table}")?;
    }
    out.flush()
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
