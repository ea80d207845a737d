//! The simulated host with its domains, from the first moment to the last.

use core::time::Duration;
use std::io;
use std::sync::Mutex;
use std::sync::atomic::Ordering;

use xen_grant::{DomId, FramePool};
use xen_netfront::platform::Instant;
use xen_sim::{Ctx, Domain, Host, Limits, Next, Outcome, Scheduler, Task, Vif};

use crate::args::Args;
use crate::backend::{self, Backend};
use crate::capture::Pcap;
use crate::client::Client;
use crate::error::{Error, Stop};
use crate::findings::{Findings, OfClient, Transfer};
use crate::hostile::{Director, Record};
use crate::interrupt::Interrupt;
use crate::lock;
use crate::measure::Snapshot;
use crate::stack::Network;
use crate::stream::{Sink, Source};
use crate::threads;

/// The backend's domain. The clients' come after it.
pub const BACK: DomId = DomId(1);

/// Steps of the scheduler between two looks at how far things are.
const SLICE: u64 = 4;
/// Bytes both ways after which everything has found its pace, unless there are fewer in all.
const WARM_UP: u64 = 4 << 20;
/// Time without a byte transferred, after which nothing more is expected.
const PATIENCE: Duration = Duration::from_secs(120);
/// Time that the clients have to disconnect.
const FAREWELL: Duration = Duration::from_secs(10);

/// A client and what serves it.
pub struct Pair {
    /// The client's domain.
    pub domain: Domain,
    /// What runs in it.
    pub client: Mutex<Client>,
    /// What serves it.
    pub backend: Mutex<Backend>,
}

/// What clients do at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Both streams.
    Transfer,
    /// They leave.
    Disconnect,
}

impl Pair {
    /// What to call the client.
    pub fn name(&self) -> String {
        format!("client {}", self.domain.id().0 - BACK.0)
    }

    /// One run of the client.
    pub fn run_client(&self, phase: Phase, ctx: &mut Ctx<'_>) -> Next {
        let mut client = lock(&self.client);
        match phase {
            Phase::Transfer => client.run(ctx),
            Phase::Disconnect => client.close(),
        }
    }
}

/// The host and its domains.
pub struct World {
    args: Args,
    host: Host,
    back: Domain,
    pairs: Vec<Pair>,
    pcap: Option<Pcap>,
    interrupt: Interrupt,
}

/// A vif between two domains, whose ends both know this MTU.
pub fn vif(front: DomId, mtu: u16, args: &Args) -> Vif {
    let (mtu, trusted) = (mtu.to_string(), args.trusted.to_string());
    let vif = Vif::new(front, BACK, 0).front_key("mtu", &mtu).front_key("trusted", &trusted);
    vif.back_key("mtu", &mtu)
}

impl World {
    /// Builds it all; nothing runs yet.
    pub fn new(args: &Args, interrupt: &Interrupt) -> Result<World, Error> {
        let new = if args.threads { Host::threaded } else { Host::new };
        let host = new(args.seed);
        // Besides the pools: rings of the hostile backend's, grant frames.
        let pages = u32::from(args.domains) * (backend::POOL_PAGES as u32 + 64);
        let back = host.add_domain(BACK, pages);
        let pcap = args.pcap.as_ref();
        let pcap = pcap.map(|path| Pcap::create(path, &back, args.threads, None)).transpose()?;
        let pairs = (0..args.domains)
            .map(|index| pair(&host, &back, args, index, pcap.clone(), interrupt))
            .collect::<Result<_, _>>()?;
        let (args, interrupt) = (args.clone(), interrupt.clone());
        Ok(World { args, host, back, pairs, pcap, interrupt })
    }

    /// Runs until all is transferred and the clients have disconnected. `progress` is called every
    /// so often with the bytes transferred each way and the time.
    pub fn run(
        self,
        mut progress: impl FnMut(u64, Instant) -> io::Result<()>,
    ) -> Result<Findings, Stop> {
        let (warm, last_byte, attacks) = self.transfer(&mut progress)?;
        let end = self.snapshot();
        let first_up =
            self.pairs.iter().filter_map(|pair| lock(&pair.client).board().look().first_up);
        let time = last_byte.since(first_up.min().unwrap_or_default());
        // Once it has left, a device does not know.
        let mtu = lock(&self.pairs[0].client).stack().map_or(0, |stack| stack.mtu());
        let mut complaints = Vec::new();
        if let Err(outcome) = self.drive(Phase::Disconnect, &[], FAREWELL, &mut |_| Ok(()))? {
            complaints.push(format!("not all clients could disconnect: {outcome}"));
        }
        let World { host, pairs, pcap, interrupt, .. } = self;
        let mut attacks = attacks.into_iter();
        let mut clients = Vec::new();
        for pair in pairs {
            let (client, pool) = take_apart(pair, attacks.next());
            clients.push(client);
            complaints.extend(leaks(&pool, &host, DomId(BACK.0 + clients.len() as u16)));
        }
        let capture = pcap.map(|pcap| pcap.finish()).transpose()?;
        let interrupted = interrupt.is_told();
        let replay = None;
        Ok(Findings { clients, mtu, time, warm, end, complaints, replay, capture, interrupted })
    }

    fn snapshot(&self) -> Snapshot {
        let mut snapshot = Snapshot::new(&self.back);
        for pair in &self.pairs {
            if let Some(stack) = lock(&pair.client).stack() {
                let device = &stack.device;
                snapshot.add_front(device.inner().below(), device.counters(), &pair.domain);
            }
            let backend = lock(&pair.backend);
            let device = &backend.stack().device;
            snapshot.add_back(device.inner(), device.counters());
        }
        snapshot
    }

    /// Bytes that have arrived, both ways, of all clients.
    fn transferred(&self) -> u64 {
        let of_pair = |pair: &Pair| {
            let uploaded = lock(&pair.backend).uploaded().load(Ordering::Relaxed);
            uploaded + lock(&pair.client).board().look().downloaded
        };
        self.pairs.iter().map(of_pair).sum()
    }

    /// Runs until all is transferred. Gives the counters after warm-up, the time of the last byte,
    /// and what attacks there were on each client.
    fn transfer(
        &self,
        progress: &mut impl FnMut(u64, Instant) -> io::Result<()>,
    ) -> Result<(Snapshot, Instant, Vec<Record>), Stop> {
        let (bytes, seed) = (self.args.bytes(), self.args.seed);
        let attacked = self.pairs.iter().zip(1..).filter(|_| self.args.hostile);
        let directors: Vec<_> = attacked
            .map(|(pair, number)| {
                let (board, seed) = (lock(&pair.client).board(), seed.wrapping_mul(number));
                let client = pair.domain.id();
                Mutex::new(Director::new(
                    &self.back,
                    client,
                    &pair.backend,
                    board,
                    bytes,
                    self.args.threads,
                    seed,
                ))
            })
            .collect();
        let all = bytes.map(|bytes| bytes.saturating_mul(self.pairs.len() as u64));
        let warm_up = all.map_or(WARM_UP, |bytes| WARM_UP.min(bytes / 4));
        let (mut warm, mut last) = (None, (0, self.host.now()));
        let outcome = self.drive(Phase::Transfer, &directors, PATIENCE, &mut |now| {
            let bytes = self.transferred();
            progress(bytes, now)?;
            if self.interrupt.is_told() {
                directors.iter().for_each(|director| lock(director).retire());
            }
            self.pcap.as_ref().map_or(Ok(()), Pcap::check)?;
            if bytes >= warm_up && warm.is_none() {
                warm = Some(self.snapshot());
            }
            if bytes != last.0 {
                last = (bytes, now);
            }
            if now.since(last.1) > PATIENCE {
                return Err(Error::stalled(PATIENCE, bytes).into());
            }
            Ok(())
        })?;
        outcome.map_err(Error::from)?;
        let records = directors.iter().map(|director| lock(director).record()).collect();
        Ok((warm.unwrap_or_default(), last.1, records))
    }

    /// Runs until all clients are done. `look` is called every so often. The inner error is how
    /// else it ended.
    fn drive(
        &self,
        phase: Phase,
        directors: &[Mutex<Director<'_>>],
        time: Duration,
        look: &mut dyn FnMut(Instant) -> Result<(), Stop>,
    ) -> Result<Result<(), Outcome>, Stop> {
        if self.args.threads {
            // A transfer takes as long as it takes, as long as it goes on.
            let time = Some(time).filter(|_| phase == Phase::Disconnect);
            return threads::drive(
                &self.host,
                &self.back,
                &self.pairs,
                directors,
                phase,
                time,
                look,
            );
        }
        let mut scheduler = Scheduler::new(&self.host);
        for pair in &self.pairs {
            scheduler.add(&pair.name(), &pair.domain, move |ctx: &mut Ctx<'_>| {
                pair.run_client(phase, ctx)
            });
            scheduler.add_background("backend", &self.back, |ctx: &mut Ctx<'_>| {
                lock(&pair.backend).run(ctx)
            });
        }
        for director in directors {
            scheduler
                .add_background("hostile", &self.back, |ctx: &mut Ctx<'_>| lock(director).run(ctx));
        }
        loop {
            let outcome = scheduler.run(Limits { steps: SLICE, time, ..Limits::default() });
            look(self.host.now())?;
            match outcome {
                Outcome::Done => return Ok(Ok(())),
                Outcome::Steps(_) => {}
                Outcome::Stuck(_) | Outcome::Time(_) => return Ok(Err(outcome)),
            }
        }
    }
}

/// Client number `index` and what serves it.
fn pair(
    host: &Host,
    back: &Domain,
    args: &Args,
    index: u8,
    pcap: Option<Pcap>,
    interrupt: &Interrupt,
) -> Result<Pair, Error> {
    let id = DomId(BACK.0 + 1 + u16::from(index));
    let domain = host.add_domain(id, args.client_pages() as u32 + 64);
    host.toolstack().add_vif(&vif(id, args.mtu, args));
    // Two seeds, so that neither stream can be taken for the other, nor for another client's.
    let seed = args.seed.wrapping_add(u64::from(index) << 32);
    let (up, down) = (seed.wrapping_mul(2), seed.wrapping_mul(2).wrapping_add(1));
    let deadline = args.seconds.map(|time| host.now() + time);
    let source = |seed| Source::new(seed, args.bytes(), deadline, interrupt.clone());
    let network = Network::new(index, seed);
    let client = Client::new(&domain, args, source(up), Sink::new(down), network, pcap)?;
    let backend = Backend::new(back, id, args, Sink::new(up), source(down), network)?;
    Ok(Pair { domain, client: Mutex::new(client), backend: Mutex::new(backend) })
}

/// What became of a pair, and the client's pool, whose pages should all be back.
fn take_apart(pair: Pair, attacks: Option<Record>) -> (OfClient, FramePool) {
    let client = pair.client.into_inner().unwrap_or_else(|error| error.into_inner());
    let backend = pair.backend.into_inner().unwrap_or_else(|error| error.into_inner());
    let counters = client.stack().map(|stack| *stack.device.inner().below().counters());
    let counters = counters.unwrap_or_default();
    let found = OfClient {
        upload: Transfer::new(client.streams().0, backend.streams().1),
        download: Transfer::new(backend.streams().0, client.streams().1),
        packets: counters.rx_packets + counters.tx_packets,
        connects: counters.connects,
        attacks,
    };
    (found, client.pool().clone())
}

/// What is left of a client that has disconnected and gone, and should not be.
pub fn leaks(pool: &FramePool, host: &Host, client: DomId) -> Vec<String> {
    let mut complaints = Vec::new();
    let missing = pool.size() - pool.free();
    if missing > 0 {
        complaints.push(format!("{missing} pages of client {} leaked", client.0));
    }
    let violations = host.violations_of(client);
    complaints.extend(violations.iter().map(ToString::to_string));
    complaints
}
