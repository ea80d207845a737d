//! The backend of one client: netback, a TCP/IP stack, and the other ends of both streams.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use xen_grant::{DomId, FramePool};
use xen_netfront::netback::{Config, Netback};
use xen_sim::{Ctx, Domain, Next, Task};

use crate::alloc::{Charge, Owner};
use crate::args::Args;
use crate::client::wait;
use crate::error::Error;
use crate::stack::{Network, Stack};
use crate::stream::{Sink, Source};
use xen_sim::served::{Back, QUEUE, Served};

/// Pages for each client: a batch of the largest packets from the client, and a full queue of them
/// to it.
pub const POOL_PAGES: usize = 64 * 18 + QUEUE * 18 + 64;

/// The address of the stack in the backend's domain.
pub const MAC: [u8; 6] = [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff];

/// What serves one client, in the backend's domain.
pub struct Backend {
    domain: Domain,
    client: DomId,
    config: Config,
    pool: FramePool,
    stack: Stack<Served>,
    upload: Sink,
    download: Source,
    /// Bytes of the upload received.
    uploaded: Arc<AtomicU64>,
}

impl Backend {
    /// The backend in its domain, for vif 0 of `client`. It sends what `download` makes.
    pub fn new(
        domain: &Domain,
        client: DomId,
        args: &Args,
        upload: Sink,
        download: Source,
        network: Network,
    ) -> Result<Backend, Error> {
        let pool = FramePool::new(domain, POOL_PAGES)?;
        let config = args.back_config();
        let served = Served::new(open(domain, client, &pool, config)?, &pool, MAC, args.mtu);
        let mut stack = Stack::new(domain, served, MAC, network.server, !network.seed);
        // Nothing is open yet: both ports are free.
        let _ = stack.listen();
        let uploaded = Arc::default();
        Ok(Backend {
            domain: domain.clone(),
            client,
            config,
            pool,
            stack,
            upload,
            download,
            uploaded,
        })
    }

    /// Bytes of the upload received so far.
    pub fn uploaded(&self) -> Arc<AtomicU64> {
        self.uploaded.clone()
    }

    /// The stack.
    pub fn stack(&self) -> &Stack<Served> {
        &self.stack
    }

    /// Both ends of the streams that are here.
    pub fn streams(&self) -> (&Source, &Sink) {
        (&self.download, &self.upload)
    }

    /// Ends the backend, as a crash does.
    pub fn kill(&mut self) {
        self.stack.device.inner_mut().kill();
    }

    /// Starts it again.
    pub fn restart(&mut self) -> Result<(), Error> {
        let vif = open(&self.domain, self.client, &self.pool, self.config)?;
        self.stack.device.inner_mut().vif = Some(vif);
        Ok(())
    }
}

/// Opens the backend of vif 0 of `client`.
pub fn open(
    domain: &Domain,
    client: DomId,
    pool: &FramePool,
    config: Config,
) -> Result<Back, Error> {
    Ok(Netback::open(domain.clone(), domain.store(), pool, client, 0, config)?)
}

impl Task for Backend {
    /// Once round the loop: what has come, what is to be sent, and when to come back.
    fn run(&mut self, ctx: &mut Ctx<'_>) -> Next {
        let _ours = Charge::to(Owner::Back);
        let stack = &mut self.stack;
        if let Some(vif) = &mut stack.device.inner_mut().vif {
            vif.service();
        }
        stack.receive(ctx.now);
        self.upload.drain(stack.upload());
        self.download.pump(stack.download(), ctx.now);
        stack.send(ctx.now);
        self.uploaded.store(self.upload.bytes(), Ordering::Relaxed);

        let served = stack.device.inner_mut();
        if served.rearm() {
            return Next::Now;
        }
        let deadline = served.vif.as_ref().and_then(|vif| vif.next_deadline());
        let timers = [deadline, stack.next_deadline(ctx.now), self.download.deadline(ctx.now)];
        wait(timers.into_iter().flatten().min())
    }
}
