//! `--replay`: the packets of a capture go through the ring, all of them both ways at once, and
//! each end compares what comes with what is in the file.
//!
//! ```text
//!   client   Player ── Netfront ═══ rings ═══ Netback ── Player   backend
//!            sends all, expects all           sends all, expects all
//! ```

mod pcap;
mod pcapng;
mod player;
mod recording;
mod words;

use core::time::Duration;
use std::cell::RefCell;
use std::path::Path;
use std::sync::Arc;

use packet_views::device::{Link, NetDevice};
use packet_views::header::ETHERNET_HEADER;
use packet_views::phy;
use xen_grant::{DomId, FramePool, GrantTable, PAGE_SIZE};
use xen_netfront::netfront::Netfront;
use xen_netfront::wire::MAX_PACKET;
use xen_sim::{Ctx, Domain, Host, Limits, Next, Outcome, Scheduler};

use crate::alloc::{Charge, Owner};
use crate::args::Args;
use crate::backend;
use crate::capture::{Captured, Pcap};
use crate::client::{Front, wait};
use crate::error::Error;
use crate::files;
use crate::findings::{Findings, OfClient, Replayed, Transfer};
use crate::interrupt::Interrupt;
use crate::measure::Snapshot;
use crate::world::{BACK, leaks, vif};
use xen_sim::served::Served;

use player::Player;
use recording::Recording;
pub use recording::{LeftOut, link_name};

const FRONT: DomId = DomId(BACK.0 + 1);
/// Virtual time without an event, after which what has not come is lost.
const PATIENCE: Duration = Duration::from_secs(5);
/// Steps of the scheduler between two looks whether it is to end.
const SLICE: u64 = 1000;
/// The MTU unless a packet is longer.
const MTU: usize = 1500;

type Client = Player<Captured<Front>>;
type Backend = Player<Served>;

/// The host and its two domains.
pub struct Replay {
    host: Host,
    front: Domain,
    back: Domain,
    pool: FramePool,
    recording: Arc<Recording>,
    client: RefCell<Client>,
    backend: RefCell<Backend>,
    pcap: Option<Pcap>,
    interrupt: Interrupt,
}

impl Replay {
    /// Reads the file and builds it all; nothing runs yet.
    pub fn new(args: &Args, path: &Path, interrupt: &Interrupt) -> Result<Replay, Error> {
        let most = if args.no_sg { PAGE_SIZE } else { MAX_PACKET };
        let input = files::input(path)?;
        let recording = Recording::read(input.as_file(), most);
        let recording = recording.map_err(|error| Error::replay(path, &error))?;
        let recording = Arc::new(recording);
        // The longest packet has at most 65535 bytes.
        let mtu = recording.longest().saturating_sub(ETHERNET_HEADER).max(MTU) as u16;
        let host = Host::new(args.seed);
        let back = host.add_domain(BACK, backend::POOL_PAGES as u32 + 64);
        let front = host.add_domain(FRONT, args.client_pages() as u32 + 64);
        host.toolstack().add_vif(&vif(FRONT, mtu, args));
        let pcap = args.pcap.as_ref();
        let pcap = pcap.map(|path| Pcap::create(path, &back, false, Some(&input))).transpose()?;

        let pool = FramePool::new(&front, args.client_pages())?;
        let table = GrantTable::new(&front);
        let config = args.front_config();
        let net = Netfront::open(front.clone(), front.store(), &pool, &table, 0, config)?;
        let client = Player::new(Captured::new(net, pcap.clone()), recording.clone(), args.queues);

        let back_pool = FramePool::new(&back, backend::POOL_PAGES)?;
        let vif = backend::open(&back, FRONT, &back_pool, args.back_config())?;
        let served = Served::new(vif, &back_pool, backend::MAC, mtu);
        let backend = Player::new(served, recording.clone(), args.queues);
        let (client, backend) = (RefCell::new(client), RefCell::new(backend));
        let interrupt = interrupt.clone();
        Ok(Replay { host, front, back, pool, recording, client, backend, pcap, interrupt })
    }

    /// Runs until every packet has gone both ways, or an interrupt, and the client has disconnected.
    pub fn run(self) -> Result<Findings, Error> {
        let mut complaints = Vec::new();
        let connected = self.drive(connect_client, serve, false)?;
        let (warm, started) = (self.snapshot(), self.host.now());
        let played = match connected {
            Outcome::Done => self.drive(play_client, play_backend, true)?,
            other => other,
        };
        // It ends anywhere; what has come until then has been compared.
        let interrupted = matches!(played, Outcome::Steps(_));
        let (end, time) = (self.snapshot(), self.host.now().since(started));
        let (client, backend) = (self.client.borrow(), self.backend.borrow());
        for (end, wrong, received) in [
            ("upload", backend.wrong(), backend.received()),
            ("download", client.wrong(), client.received()),
        ] {
            complaints.extend(wrong.map(|wrong| format!("{end}: {wrong}")));
            let packets = self.recording.packets();
            if received != packets && !interrupted {
                complaints.push(format!("{end}: {received} of {packets} packets arrived"));
            }
        }
        let (sent, received) = (client.digests(), backend.digests());
        let counters = *client.net.below().counters();
        // What was under way then has not come.
        let arrived = |sent, received| if interrupted { received } else { sent };
        let upload = arrived(sent.0, received.1);
        let download = arrived(received.0, sent.1);
        let found = OfClient {
            upload: Transfer { sent: upload, received: received.1, first_wrong: None },
            download: Transfer { sent: download, received: sent.1, first_wrong: None },
            packets: counters.rx_packets + counters.tx_packets,
            connects: counters.connects,
            attacks: None,
        };
        let mtu = client.net.mtu();
        drop((client, backend));
        if played == Outcome::Done || interrupted {
            let outcome = self.drive(close_client, serve, false)?;
            if outcome != Outcome::Done {
                complaints.push(format!("the client could not disconnect: {outcome}"));
            }
        } else {
            complaints.push(format!("the replay came to no end: {played}"));
        }
        let (packets, longest) = (self.recording.packets(), self.recording.longest());
        let left_out = self.recording.left_out.clone();
        let Replay { host, pool, client, backend, pcap, .. } = self;
        drop((client, backend));
        let capture = pcap.map(|pcap| pcap.finish()).transpose()?;
        complaints.extend(leaks(&pool, &host, FRONT));
        let replay = Some(Replayed { packets, longest, left_out });
        let clients = vec![found];
        Ok(Findings { clients, mtu, time, warm, end, complaints, replay, capture, interrupted })
    }

    fn snapshot(&self) -> Snapshot {
        let mut snapshot = Snapshot::new(&self.back);
        let none = phy::Counters::default();
        snapshot.add_front(self.client.borrow().net.below(), none, &self.front);
        snapshot.add_back(&self.backend.borrow().net, none);
        snapshot
    }

    /// Runs both ends until the client is done, and the backend if it `plays`, or nothing happens
    /// any more. It stops short, with [`Outcome::Steps`], if they play and it is told to end.
    fn drive(
        &self,
        mut client: impl FnMut(&mut Client) -> Next,
        mut backend: impl FnMut(&mut Backend) -> Next,
        plays: bool,
    ) -> Result<Outcome, Error> {
        let mut scheduler = Scheduler::new(&self.host);
        scheduler.add("client", &self.front, |_: &mut Ctx<'_>| {
            let _ours = Charge::to(Owner::Front);
            client(&mut self.client.borrow_mut())
        });
        let backend = |_: &mut Ctx<'_>| {
            let _ours = Charge::to(Owner::Back);
            backend(&mut self.backend.borrow_mut())
        };
        if plays {
            scheduler.add("backend", &self.back, backend);
        } else {
            scheduler.add_background("backend", &self.back, backend);
        }
        loop {
            let limits = Limits { steps: SLICE, patience: PATIENCE, ..Limits::default() };
            let outcome = scheduler.run(limits);
            self.pcap.as_ref().map_or(Ok(()), Pcap::check)?;
            if !matches!(outcome, Outcome::Steps(_)) || plays && self.interrupt.is_told() {
                return Ok(outcome);
            }
        }
    }
}

fn connect_client(player: &mut Client) -> Next {
    let net = player.net.below_mut();
    net.service();
    if net.link() == Link::Up { Next::Done } else { wait(net.next_deadline()) }
}

fn play_client(player: &mut Client) -> Next {
    let net = player.net.below_mut();
    net.service();
    net.complete_tx();
    player.play();
    let done = player.is_done();
    let net = player.net.below_mut();
    match (net.rearm(), done) {
        (_, true) => Next::Done,
        (true, false) => Next::Now,
        (false, false) => wait(net.next_deadline()),
    }
}

fn close_client(player: &mut Client) -> Next {
    let net = player.net.below_mut();
    net.disconnect();
    net.service();
    if net.closed() { Next::Done } else { wait(net.next_deadline()) }
}

fn play_backend(player: &mut Backend) -> Next {
    let next = serve(player);
    player.play();
    // What is queued has not been sent.
    let queued = player.net.vif.as_ref().map_or(0, |vif| vif.queued());
    match (player.net.rearm(), player.is_done() && queued == 0) {
        (_, true) => Next::Done,
        (true, false) => Next::Now,
        (false, false) => next,
    }
}

/// Keeps the connection, and no more.
fn serve(player: &mut Backend) -> Next {
    let Some(vif) = &mut player.net.vif else { return Next::Done };
    vif.service();
    wait(vif.next_deadline())
}
