//! The client domain: netfront, a TCP/IP stack, an upload and a download.

use core::time::Duration;
use std::sync::{Arc, Mutex, MutexGuard};

use packet_views::device::{Link, NetDevice};
use smoltcp::socket::tcp;
use xen_grant::{FramePool, GrantTable};
use xen_netfront::netfront::Netfront;
use xen_netfront::platform::Instant;
use xen_sim::{Ctx, Domain, Next, StoreClient, Task};

use crate::alloc::{Charge, Owner};
use crate::args::Args;
use crate::capture::{Captured, Pcap};
use crate::error::Error;
use crate::lock;
use crate::stack::{Network, Stack};
use crate::stream::{Sink, Source};

/// The device.
pub type Front = Netfront<Domain, StoreClient>;

/// What others may see of the client while it runs. Clones show the same.
#[derive(Clone, Debug, Default)]
pub struct Board(Arc<Mutex<State>>);

/// What is on a [`Board`].
#[derive(Debug, Default)]
pub struct State {
    /// When the link came up last; `None` while it is down.
    pub up_since: Option<Instant>,
    /// When it went down; `None` while it is up, or has not been up.
    down_since: Option<Instant>,
    /// Whatever was down before this moment counts only from then on.
    pub excused_until: Instant,
    /// The longest outage since this was last taken.
    pub outage: Duration,
    /// How often it has come up.
    pub connects: u64,
    /// When it came up first.
    pub first_up: Option<Instant>,
    /// Bytes of the download received.
    pub downloaded: u64,
}

/// The client domain.
pub struct Client {
    domain: Domain,
    pool: FramePool,
    /// The device until it is up: the stack wants to know its MTU.
    waiting: Option<Front>,
    stack: Option<Stack<Captured<Front>>>,
    upload: Source,
    download: Sink,
    network: Network,
    pcap: Option<Pcap>,
    board: Board,
    closing: bool,
}

impl Client {
    /// The client in its domain. It uploads what `upload` makes.
    pub fn new(
        domain: &Domain,
        args: &Args,
        upload: Source,
        download: Sink,
        network: Network,
        pcap: Option<Pcap>,
    ) -> Result<Client, Error> {
        let pool = FramePool::new(domain, args.client_pages())?;
        let config = args.front_config();
        let table = GrantTable::new(domain);
        let net = Netfront::open(domain.clone(), domain.store(), &pool, &table, 0, config)?;
        let domain = domain.clone();
        Ok(Client {
            domain,
            pool,
            waiting: Some(net),
            stack: None,
            upload,
            download,
            network,
            pcap,
            board: Board::default(),
            closing: false,
        })
    }

    /// What others may see.
    pub fn board(&self) -> Board {
        self.board.clone()
    }

    /// The stack, once the device has been up.
    pub fn stack(&self) -> Option<&Stack<Captured<Front>>> {
        self.stack.as_ref()
    }

    /// Both ends of the streams that are here.
    pub fn streams(&self) -> (&Source, &Sink) {
        (&self.upload, &self.download)
    }

    /// The pool.
    pub fn pool(&self) -> &FramePool {
        &self.pool
    }

    /// Disconnects in good order; done when the backend has let go.
    pub fn close(&mut self) -> Next {
        let Some(stack) = &mut self.stack else { return Next::Done };
        let net = stack.device.inner_mut().below_mut();
        if !self.closing {
            net.disconnect();
            self.closing = true;
        }
        net.service();
        if net.closed() { Next::Done } else { wait(net.next_deadline()) }
    }

    /// Waits for the device to come up, then puts the stack on top.
    fn start(&mut self) -> Option<Next> {
        let mut net = self.waiting.take()?;
        net.service();
        if net.link() == Link::Down {
            let next = wait(net.next_deadline());
            self.waiting = Some(net);
            return Some(next);
        }
        let mac = net.mac().unwrap_or_default().0;
        let net = Captured::new(net, self.pcap.clone());
        let mut stack = Stack::new(&self.domain, net, mac, self.network.client, self.network.seed);
        // Nothing is open yet, and the address is one: it connects.
        let _ = stack.connect(self.network.server);
        self.stack = Some(stack);
        None
    }
}

impl Task for Client {
    /// Once round the loop: what has come, what is to be sent, and when to come back.
    fn run(&mut self, ctx: &mut Ctx<'_>) -> Next {
        let _ours = Charge::to(Owner::Front);
        if let Some(next) = self.start() {
            return next;
        }
        let Some(stack) = &mut self.stack else { return Next::Done };
        let net = stack.device.inner_mut().below_mut();
        net.service();
        net.complete_tx();
        stack.receive(ctx.now);
        self.download.drain(stack.download());
        self.upload.pump(stack.upload(), ctx.now);
        stack.send(ctx.now);

        let net = stack.device.inner_mut().below_mut();
        let again = net.rearm();
        let deadline = net.next_deadline();
        self.board.show(net, &self.download, ctx.now);
        let sent = matches!(stack.upload().state(), tcp::State::TimeWait | tcp::State::Closed);
        if sent && self.download.ended() && stack.download().state() == tcp::State::Closed {
            return Next::Done;
        }
        if again {
            return Next::Now;
        }
        let timers = [deadline, stack.next_deadline(ctx.now), self.upload.deadline(ctx.now)];
        wait(timers.into_iter().flatten().min())
    }
}

impl Board {
    /// What is on it now.
    pub fn look(&self) -> MutexGuard<'_, State> {
        lock(&self.0)
    }

    fn show(&self, net: &Front, download: &Sink, now: Instant) {
        let mut state = self.look();
        state.connects = net.counters().connects;
        if net.link() == Link::Up {
            state.first_up = state.first_up.or(Some(now));
            state.up_since = state.up_since.or(Some(now));
            if let Some(since) = state.down_since.take() {
                let outage = now.since(since.max(state.excused_until));
                state.outage = state.outage.max(outage);
            }
        } else if state.up_since.take().is_some() {
            state.down_since = Some(now);
        }
        state.downloaded = download.bytes();
    }
}

/// Waits for an event, or for this moment.
pub fn wait(deadline: Option<Instant>) -> Next {
    deadline.map_or(Next::Wait, Next::WaitUntil)
}
