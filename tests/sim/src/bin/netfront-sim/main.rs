//! Two domains on a simulated Xen host move data through netfront and netback, and every byte is
//! checked. Run it with `--help`.
//!
//! ```text
//!   client domain                              backend domain
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
mod hostile;
mod measure;
mod progress;
mod report;
mod served;
mod stack;
mod stream;
mod world;

use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;

use args::Args;
use error::Stop;
use progress::Progress;
use report::Report;
use world::World;

fn main() -> ExitCode {
    let args = Args::parse();
    let world = match World::new(&args) {
        Ok(world) => world,
        Err(error) => return fail(&error, 2),
    };
    match run(world, &args) {
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

/// Runs it all and prints what came of it. False if something is not as it should be.
fn run(world: World, args: &Args) -> Result<bool, Stop> {
    let started = Instant::now();
    let both_ways = args.bytes().map(|bytes| bytes.saturating_mul(2));
    let mut progress = Progress::new(args.json, both_ways, args.seconds);
    let found = world.run(|bytes, now| progress.show(bytes, now.0))?;
    progress.finish()?;
    let report = Report::new(args, &found);
    let mut out = io::stdout().lock();
    if args.json {
        writeln!(out, "{}", report.json().map_err(io::Error::from)?)?;
    } else {
        write!(out, "{}", report.table(started.elapsed()))?;
    }
    out.flush()?;
    Ok(report.ok())
}

fn fail(error: &dyn core::error::Error, code: u8) -> ExitCode {
    // Where stderr is closed too, the exit code has to do.
    let _ = writeln!(io::stderr(), "error: {error}");
    ExitCode::from(code)
}
