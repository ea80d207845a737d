//! `--tap`: the machine's own ping, curl and iperf talk to the stack behind our netfront.
//!
//! ```text
//!   client domain                  backend domain            Linux
//!   servers       server.rs        uplink.rs                 ping, curl, iperf
//!   smoltcp                                                  TCP/IP
//!   Netfront ══════ rings ══════ Netback ── device.rs ────── TAP device
//! ```
//!
//! Domains run on threads, in real time, until Ctrl-C or the end of `--seconds`.

mod device;
mod http;
mod report;
mod server;
mod unusable;
mod uplink;
mod vnet;

use core::time::Duration;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use tun_rs::InterruptEvent;
use xen_grant::{DomId, FramePool, GrantTable};
use xen_netfront::netback::Netback;
use xen_netfront::netfront::Netfront;
use xen_sim::{Ctx, Domain, Host, Task, run_on_thread};

use crate::args::Args;
use crate::capture::Pcap;
use crate::console::Console;
use crate::error::{Error, Stop};
use crate::interrupt::Interrupt;
use crate::lock;
use crate::world::{BACK, leaks, vif};
use xen_sim::served::QUEUE;

use device::{Addresses, Tap};
pub use report::Report;
use server::Server;
use uplink::{Alarm, Uplink, Waiter};

const FRONT: DomId = DomId(BACK.0 + 1);
/// The addresses of the stack behind netfront.
const CLIENT_V4: Ipv4Addr = Ipv4Addr::new(10, 55, 0, 2);
const CLIENT_V6: Ipv6Addr = Ipv6Addr::new(0xfd55, 0, 0, 0, 0, 0, 0, 2);
/// The addresses that a device of our own making gets.
const LINUX_V4: Ipv4Addr = Ipv4Addr::new(10, 55, 0, 1);
const LINUX_V6: Ipv6Addr = Ipv6Addr::new(0xfd55, 0, 0, 0, 0, 0, 0, 1);

/// Pages of the backend: a full queue of the largest packets, and a batch from the client.
const BACK_PAGES: usize = QUEUE * 18 + 64 * 18 + 64;
/// How often it looks whether it is time to end.
const LOOK: Duration = Duration::from_millis(20);
/// Time that the client has to disconnect.
const FAREWELL: Duration = Duration::from_secs(10);

/// The host, its two domains and the device.
pub struct Job {
    args: Args,
    name: String,
    host: Host,
    front: Domain,
    back: Domain,
    server: Mutex<Server>,
    uplink: Mutex<Uplink>,
    waiter: Option<Waiter>,
    pcap: Option<Pcap>,
    flags: Arc<Flags>,
    interrupt: Interrupt,
}

/// What the threads tell each other. Under load a lock would come too late.
#[derive(Debug, Default)]
pub struct Flags {
    /// The client has been up.
    up: AtomicBool,
    /// The client is to leave.
    leave: AtomicBool,
    /// The device is of no use any more.
    broken: AtomicBool,
}

impl Job {
    /// Opens the device and builds it all; nothing runs yet.
    pub fn new(args: &Args, name: &str, interrupt: &Interrupt) -> Result<Job, Error> {
        let host = Host::threaded(args.seed);
        let back = host.add_domain(BACK, BACK_PAGES as u32 + 64);
        let front = host.add_domain(FRONT, args.client_pages() as u32 + 64);
        host.toolstack().add_vif(&vif(FRONT, args.mtu, args));
        let pool = FramePool::new(&back, BACK_PAGES)?;
        let own = Addresses { v4: LINUX_V4, v6: LINUX_V6, mtu: args.mtu };
        let tap = Tap::open(name, true, &own, &pool).map_err(|error| Error::tap(name, &error))?;
        let pcap = args.pcap.as_ref();
        let pcap = pcap.map(|path| Pcap::create(path, &front, true, None)).transpose()?;
        let flags = Arc::<Flags>::default();
        let config = args.back_config();
        let vif = Netback::open(back.clone(), back.store(), &pool, FRONT, 0, config)?;
        let (alarm, waiter) = Alarm::new(tap.device(), &back);
        let uplink = Uplink::new(vif, tap, alarm, flags.clone());

        let pool = FramePool::new(&front, args.client_pages())?;
        let table = GrantTable::new(&front);
        let config = args.front_config();
        let net = Netfront::open(front.clone(), front.store(), &pool, &table, 0, config)?;
        let server = Server::new(&front, &pool, net, pcap.clone(), args.seed, flags.clone());
        let (server, uplink) = (Mutex::new(server), Mutex::new(uplink));
        Ok(Job {
            args: args.clone(),
            name: name.to_owned(),
            host,
            front,
            back,
            server,
            uplink,
            waiter: Some(waiter),
            pcap,
            flags,
            interrupt: interrupt.clone(),
        })
    }

    /// Runs until it is told to end.
    pub fn run(mut self) -> Result<Report, Stop> {
        let interrupt = InterruptEvent::new()?;
        let waiter = self.waiter.take();
        let Job { server, uplink, front, back, .. } = &self;
        let stop = AtomicBool::new(false);
        let left = thread::scope(|scope| {
            let (stop, interrupt) = (&stop, &interrupt);
            scope.spawn(move || {
                run_on_thread(back, &mut |ctx: &mut Ctx<'_>| lock(uplink).run(ctx), stop);
            });
            scope.spawn(move || waiter.map(|waiter| waiter.run(interrupt)));
            let client = scope.spawn(move || {
                run_on_thread(front, &mut |ctx: &mut Ctx<'_>| lock(server).run(ctx), stop);
            });
            let result = self.wait(|| client.is_finished());
            stop.store(true, Ordering::Relaxed);
            let _ = interrupt.trigger();
            lock(uplink).hang_up();
            result
        })?;
        Ok(self.report(left)?)
    }

    /// Waits for the end, and has the client leave. False if it does not.
    fn wait(&self, is_gone: impl Fn() -> bool) -> Result<bool, Stop> {
        let end = self.args.seconds.map(|time| self.host.now() + time);
        let mut announced = false;
        loop {
            let over = end.is_some_and(|end| self.host.now() >= end);
            let broken = self.flags.broken.load(Ordering::Acquire);
            if over || broken || self.interrupt.is_told() || is_gone() {
                break;
            }
            self.pcap.as_ref().map_or(Ok(()), Pcap::flush)?;
            if !announced && self.flags.up.load(Ordering::Acquire) {
                announced = true;
                self.announce()?;
            }
            thread::sleep(LOOK);
        }
        self.flags.leave.store(true, Ordering::Release);
        self.front.wake();
        let end = self.host.now() + FAREWELL;
        while !is_gone() && self.host.now() < end {
            thread::sleep(LOOK);
        }
        Ok(is_gone())
    }

    /// What Linux lacks to reach the client, as commands.
    fn lacks(&self) -> Vec<String> {
        let mut commands = Vec::new();
        if !unusable::is_up(&self.name) {
            commands.push(format!("ip link set {} up", self.name));
        }
        // Nothing is sent: this only has Linux say from which address it would be.
        let way = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).and_then(|socket| {
            socket.connect((CLIENT_V4, 9))?;
            socket.local_addr()
        });
        let network = &LINUX_V4.octets()[..3];
        let is_ours = |ip| matches!(ip, IpAddr::V4(ip) if ip.octets().starts_with(network));
        if !way.is_ok_and(|own| is_ours(own.ip())) {
            commands.push(format!("ip address add {LINUX_V4}/24 dev {}", self.name));
        }
        commands
    }

    /// Says what to type next.
    fn announce(&self) -> std::io::Result<()> {
        let lacks = self.lacks();
        let mut text = format!("{}: up, with {CLIENT_V4} and {CLIENT_V6} behind it.", self.name);
        if !lacks.is_empty() {
            text += " First, as root:";
            lacks.iter().for_each(|command| text += &format!("\n  {command}"));
            text += "\nThen try";
        } else {
            text += " Try";
        }
        text += &format!(
            " in another terminal:\n  ping {CLIENT_V4}\n  curl http://{CLIENT_V4}/\n  \
             curl -o /dev/null http://{CLIENT_V4}/100000000\n  iperf -c {CLIENT_V4}\n\
             TCP 7 echoes; 9 and 5001 discard; no UDP. "
        );
        text += match self.args.seconds {
            Some(_) => "Ctrl-C, or the end of --seconds, ends it with a report.\n",
            None => "Ctrl-C ends it with a report.\n",
        };
        Console::progress(&self.args).print(&text)
    }

    fn report(self, left: bool) -> Result<Report, Error> {
        let Job { args, name, host, server, uplink, pcap, .. } = self;
        let server = server.into_inner().unwrap_or_else(|error| error.into_inner());
        let uplink = uplink.into_inner().unwrap_or_else(|error| error.into_inner());
        let mut problems = Vec::new();
        if !left {
            problems.push("the client could not disconnect".to_owned());
        }
        problems.extend(uplink.tap().error().map(|error| match unusable::is_gone(error) {
            true => format!("--tap {name}: the device was deleted while in use"),
            false => format!("--tap {name}: can't be read any more: {error}"),
        }));
        let mut report = Report::new(&args, &name, host.now(), &server, &uplink);
        let pool = server.pool().clone();
        drop((server, uplink));
        if let Some(pcap) = pcap {
            report.captured(pcap.finish()?);
        }
        problems.extend(leaks(&pool, &host, FRONT));
        report.add_problems(problems);
        Ok(report)
    }
}
