//! The simulated host with its two domains, from the first moment to the last.

use core::time::Duration;
use std::cell::RefCell;
use std::io;

use xen_grant::DomId;
use xen_netfront::features::Features;
use xen_netfront::netfront::Config;
use xen_netfront::platform::Instant;
use xen_sim::{Ctx, Domain, Host, Limits, Outcome, Scheduler, Task, Vif};

use crate::args::Args;
use crate::backend::{self, Backend};
use crate::capture::Pcap;
use crate::client::{self, Client};
use crate::error::{Error, Stop};
use crate::hostile::{Director, Record};
use crate::measure::Snapshot;
use crate::stream::{Digest, Sink, Source};

const FRONT: DomId = DomId(1);
const BACK: DomId = DomId(2);

/// Steps of the scheduler between two looks at how far things are.
const SLICE: u64 = 4;
/// Bytes both ways after which everything has found its pace, unless there are fewer in all.
const WARM_UP: u64 = 4 << 20;
/// Virtual time without a byte transferred, after which nothing more is expected.
const PATIENCE: Duration = Duration::from_secs(120);

/// One stream, seen from both of its ends.
#[derive(Clone, Copy, Debug)]
pub struct Transfer {
    /// What was sent.
    pub sent: Digest,
    /// What arrived.
    pub received: Digest,
    /// Where something else arrived than was sent.
    pub first_wrong: Option<u64>,
}

impl Transfer {
    fn new(source: &Source, sink: &Sink) -> Transfer {
        Transfer { sent: source.digest(), received: sink.digest(), first_wrong: sink.first_wrong() }
    }

    /// Whether all that was sent arrived, unchanged.
    pub fn is_right(&self) -> bool {
        self.sent == self.received && self.first_wrong.is_none()
    }
}

/// What happened.
pub struct Findings {
    /// Client to backend.
    pub upload: Transfer,
    /// Backend to client.
    pub download: Transfer,
    /// Virtual time from the first connection to the last byte.
    pub time: Duration,
    /// When everything had found its pace.
    pub warm: Snapshot,
    /// When the last byte was transferred.
    pub end: Snapshot,
    /// The MTU of the client's device.
    pub mtu: usize,
    /// Attacks, if there were to be any.
    pub attacks: Option<Record>,
    /// What should not be after an orderly disconnect: leaked pages, broken rules.
    pub complaints: Vec<String>,
}

/// The host and its domains.
pub struct World {
    args: Args,
    host: Host,
    front: Domain,
    back: Domain,
    client: RefCell<Client>,
    backend: RefCell<Backend>,
    pcap: Option<Pcap>,
}

impl World {
    /// Builds it all; nothing runs yet.
    pub fn new(args: &Args) -> Result<World, Error> {
        let host = Host::new(args.seed);
        // Besides the pools: rings of the hostile backend's, grant frames.
        let front = host.add_domain(FRONT, client::POOL_PAGES as u32 + 64);
        let back = host.add_domain(BACK, backend::POOL_PAGES as u32 + 64);
        host.toolstack().add_vif(
            &Vif::new(FRONT, BACK, 0)
                .front_key("mtu", &args.mtu.to_string())
                .back_key("mtu", &args.mtu.to_string()),
        );
        let pcap = args.pcap.as_ref().map(|path| Pcap::create(path, &front)).transpose()?;
        let deadline = args.seconds.map(|time| host.now() + time);
        let source = |seed| Source::new(seed, args.bytes(), deadline);
        // Two seeds, so that neither stream can be taken for the other.
        let (up, down) = (args.seed.wrapping_mul(2), args.seed.wrapping_mul(2).wrapping_add(1));
        let config = Config {
            features: Features { scatter_gather: !args.no_sg, ..Features::NONE },
            ..Config::default()
        };
        let client =
            Client::new(&front, config, source(up), Sink::new(down), args.seed, pcap.clone())?;
        let backend =
            Backend::new(&back, FRONT, args.mtu, Sink::new(up), source(down), !args.seed)?;
        let (client, backend) = (RefCell::new(client), RefCell::new(backend));
        Ok(World { args: args.clone(), host, front, back, client, backend, pcap })
    }

    /// Runs until all is transferred and the client has disconnected. `progress` is called every
    /// so often with the bytes transferred each way and the time.
    pub fn run(
        self,
        mut progress: impl FnMut(u64, Instant) -> io::Result<()>,
    ) -> Result<Findings, Stop> {
        let board = self.client.borrow().board();
        let (warm, last_byte, attacks) = self.transfer(&mut progress)?;
        let end = self.snapshot();
        let time = last_byte.since(board.first_up.get().unwrap_or_default());
        let mut complaints = self.disconnect();

        let World { client, backend, host, front, pcap, .. } = self;
        let (client, backend) = (client.into_inner(), backend.into_inner());
        let upload = Transfer::new(client.streams().0, backend.streams().1);
        let download = Transfer::new(backend.streams().0, client.streams().1);
        let mtu = client.stack().map_or(0, |stack| stack.mtu());
        let pool = client.pool().clone();
        drop((client, backend));
        if let Some(pcap) = pcap {
            pcap.finish()?;
        }
        if pool.free() != pool.size() {
            complaints.push(format!("{} pages of the client leaked", pool.size() - pool.free()));
        }
        let violations = host.violations_of(front.id());
        complaints.extend(violations.iter().map(ToString::to_string));
        Ok(Findings { upload, download, time, warm, end, mtu, attacks, complaints })
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot::take(&self.client, &self.backend, (&self.front, &self.back))
    }

    /// Runs until all is transferred. Gives the counters after warm-up and the time of the last byte.
    fn transfer(
        &self,
        progress: &mut impl FnMut(u64, Instant) -> io::Result<()>,
    ) -> Result<(Snapshot, Instant, Option<Record>), Stop> {
        let board = self.client.borrow().board();
        let uploaded = self.backend.borrow().uploaded();
        let director = self.args.hostile.then(|| {
            let (bytes, seed) = (self.args.bytes(), self.args.seed);
            RefCell::new(Director::new(
                &self.back,
                FRONT,
                &self.backend,
                board.clone(),
                bytes,
                seed,
            ))
        });
        let mut scheduler = Scheduler::new(&self.host);
        scheduler.add("client", &self.front, |ctx: &mut Ctx<'_>| self.client.borrow_mut().run(ctx));
        scheduler.add_background("backend", &self.back, |ctx: &mut Ctx<'_>| {
            self.backend.borrow_mut().run(ctx)
        });
        if let Some(director) = &director {
            scheduler.add_background("hostile", &self.back, |ctx: &mut Ctx<'_>| {
                director.borrow_mut().run(ctx)
            });
        }
        let warm_up = self.args.bytes().map_or(WARM_UP, |bytes| WARM_UP.min(bytes / 4));
        let (mut warm, mut last) = (None, (0, self.host.now()));
        loop {
            let limits = Limits { steps: SLICE, time: PATIENCE, ..Limits::default() };
            let outcome = scheduler.run(limits);
            let (bytes, now) = (uploaded.get() + board.downloaded.get(), self.host.now());
            progress(bytes, now)?;
            if bytes >= warm_up && warm.is_none() {
                warm = Some(self.snapshot());
            }
            if bytes != last.0 {
                last = (bytes, now);
            }
            match outcome {
                Outcome::Done => break,
                Outcome::Steps(_) => {}
                Outcome::Stuck(_) | Outcome::Time(_) => return Err(Error::from(outcome).into()),
            }
            if now.since(last.1) > PATIENCE {
                return Err(Error::stalled(PATIENCE, bytes).into());
            }
        }
        let record = director.as_ref().map(|director| director.borrow().record());
        Ok((warm.unwrap_or_default(), last.1, record))
    }

    /// Has the client leave; what went wrong with that.
    fn disconnect(&self) -> Vec<String> {
        let mut scheduler = Scheduler::new(&self.host);
        scheduler.add("client", &self.front, |_: &mut Ctx<'_>| self.client.borrow_mut().close());
        scheduler.add_background("backend", &self.back, |ctx: &mut Ctx<'_>| {
            self.backend.borrow_mut().run(ctx)
        });
        let limits = Limits { time: Duration::from_secs(10), ..Limits::default() };
        match scheduler.run(limits) {
            Outcome::Done => Vec::new(),
            outcome => vec![format!("the client could not disconnect: {outcome}")],
        }
    }
}
