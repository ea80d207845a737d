//! N5, B7: one pool for all clients of a backend, and what waits for silent ones leaves the others theirs.
//! In virtual time, on one processor for the backend and one for each client.
#![allow(missing_docs, dead_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod raw_client;

use std::cell::RefCell;
use std::time::Duration;

use raw_client::{BACK, Back, Client, Features, pattern};
use xen_grant::{DomId, FramePool, PAGE_SIZE};
use xen_netfront::buffer::{Buf, Packet};
use xen_netfront::netback::{Budget, Config, Netback};
use xen_netfront::platform::Instant;
use xen_sim::{Costs, Ctx, Domain, Host, Limits, Next, Outcome, Scheduler, Vif};

const CLIENTS: usize = 12;
/// A reserve, and the shared part: a packet of 18 frames and some more; as many as one client may have
/// waiting by default, twice.
const RESERVE: usize = 32;
const SHARED: usize = 1024;
/// Copies of one hypercall, and a packet in work.
const IN_WORK: usize = 256 + 18;
const RUN: Duration = Duration::from_millis(180);
/// When nobody is counted yet: a silent client has its share for a moment.
const WARM_UP: Duration = Duration::from_millis(120);
/// A burst for a client, larger than its reserve.
const BURST: usize = 100;

/// Packets of 1514 bytes in pages of this pool.
fn packet(pool: &FramePool) -> Option<Packet> {
    let mut frame = pool.take()?;
    frame.range_mut(0..1514)?.fill(1);
    let mut packet = Packet::new();
    packet.push(Buf::new(frame.share(), 0..1514)?).ok()?;
    Some(packet)
}

struct Machine {
    host: Host,
    back: Domain,
    pool: FramePool,
    vifs: Vec<Back>,
    clients: Vec<Client>,
}

impl Machine {
    fn new(budget: Option<&Budget>, pages: usize) -> Machine {
        let host = Host::new(3);
        host.set_costs(Costs::free());
        let back = host.add_domain(BACK, pages as u32 + 100);
        let pool = FramePool::new(&back, pages).unwrap();
        let (mut vifs, mut clients) = (Vec::new(), Vec::new());
        for number in 0..CLIENTS as u16 {
            let id = DomId(100 + number);
            host.add_domain(id, 1000);
            let vif = Vif::new(id, BACK, 0);
            host.toolstack().add_vif(&vif);
            let (platform, store) = (back.clone(), back.clone());
            let netback = Netback::open(platform, store, &pool, id, 0, Config::default()).unwrap();
            let mut netback = match budget {
                Some(budget) => netback.with_budget(budget).expect("there is a reserve for it"),
                None => netback,
            };
            let mut client = Client::new(&host, &vif, 0);
            client.connect(&mut netback, &Features::default());
            vifs.push(netback);
            clients.push(client);
        }
        host.set_costs(Costs::default());
        Machine { host, back, pool, vifs, clients }
    }

    /// Packets that each client that is not silent has sent and got, while the last `silent` of them take
    /// nothing.
    fn run(self, silent: usize) -> Vec<(u64, u64)> {
        let Machine { host, back, pool, vifs, clients } = self;
        let vifs = RefCell::new(vifs);
        let counted = || -> Vec<(u64, u64)> {
            let vifs = vifs.borrow();
            let counters = vifs.iter().take(CLIENTS - silent).map(|vif| *vif.counters());
            counters.map(|counters| (counters.from_packets, counters.to_packets)).collect()
        };
        let before = RefCell::new(Vec::new());
        let mut scheduler = Scheduler::new(&host);
        let end = host.now() + RUN;
        let counted_from = host.now() + WARM_UP;
        for (number, mut client) in clients.into_iter().enumerate() {
            let domain = client.domain.clone();
            if number >= CLIENTS - silent {
                continue;
            }
            // It looks every 200 us: bursts wait for it in between.
            scheduler.add("good", &domain, move |ctx: &mut Ctx<'_>| {
                if ctx.now >= end {
                    return Next::Done;
                }
                client.answers();
                for _ in 0..client.tx.free().min(8) {
                    client.chain(&[(0, 0, 1514)], 0, &[]);
                }
                client.show();
                client.receive();
                let room = client.rx.free() as usize;
                client.post(room);
                Next::Sleep(Duration::from_micros(200))
            });
        }
        let mut turn = 0;
        scheduler.add_background("backend", &back, |ctx: &mut Ctx<'_>| {
            if before.borrow().is_empty() && ctx.now >= counted_from {
                before.replace(counted());
            }
            let mut deadline: Option<Instant> = None;
            let mut more = false;
            turn += 1;
            for (number, vif) in vifs.borrow_mut().iter_mut().enumerate() {
                vif.service();
                vif.poll(64, drop);
                if turn % CLIENTS == number {
                    for _ in 0..BURST {
                        let Some(packet) = packet(&pool) else { break };
                        // What it has no room for is dropped.
                        let _ = vif.deliver(packet);
                    }
                }
                vif.flush();
                more |= vif.rearm();
                deadline = [deadline, vif.next_deadline()].into_iter().flatten().min();
            }
            let soon = ctx.now + Duration::from_micros(20);
            match deadline {
                _ if more => Next::Now,
                Some(deadline) => Next::WaitUntil(deadline.min(soon)),
                None => Next::WaitUntil(soon),
            }
        });
        let limits = Limits { steps: 20_000_000, time: RUN * 2, ..Limits::default() };
        assert_eq!(scheduler.run(limits), Outcome::Done);
        drop(scheduler);
        assert_eq!(host.violations(), []);
        let after = counted();
        after
            .iter()
            .zip(&*before.borrow())
            .map(|(now, then)| (now.0 - then.0, now.1 - then.1))
            .collect()
    }
}

#[test]
fn n5_silent_clients_leave_the_others_nine_tenths_of_what_they_had() {
    let pages = IN_WORK + CLIENTS * RESERVE + SHARED;
    let budget = || Budget::new(pages, CLIENTS, RESERVE, SHARED).unwrap();
    let alone = Machine::new(Some(&budget()), pages).run(0);
    assert!(alone.iter().all(|share| share.0 > 200 && share.1 > 200), "{alone:?}");
    for silent in [2, 10] {
        let shares = Machine::new(Some(&budget()), pages).run(silent);
        println!("{silent} silent: {shares:?}; none: {alone:?}");
        for (share, had) in shares.iter().zip(&alone) {
            let enough = share.0 * 10 >= had.0 * 9 && share.1 * 10 >= had.1 * 9;
            assert!(enough, "{silent} silent: {shares:?}; none: {alone:?}");
        }
    }
    // As many frames as each client may have waiting at most would not fit.
    let config = Config::default();
    assert!(Budget::new(pages, CLIENTS, config.queue_frames, 0).is_err());
    let shares = Machine::new(None, pages).run(10);
    assert!(shares.iter().zip(&alone).any(|(share, had)| share.1 * 10 < had.1 * 9), "{shares:?}");
}

/// What a client holds of the shared part while it takes nothing: a fair part for a moment, and then its
/// reserve.
#[test]
fn n5_a_client_that_takes_nothing_is_left_with_its_reserve() {
    let pages = IN_WORK + CLIENTS * RESERVE + SHARED;
    let budget = Budget::new(pages, CLIENTS, RESERVE, SHARED).unwrap();
    let Machine { host, pool, mut vifs, mut clients, .. } = Machine::new(Some(&budget), pages);
    host.set_costs(Costs::free());
    let fill = |vif: &mut Back| {
        let mut got = 0_usize;
        while let Some(packet) = packet(&pool) {
            if vif.deliver(packet).is_err() {
                break;
            }
            got += 1;
        }
        vif.flush();
        got
    };
    // By default 256 packets may wait: not half of the shared part, so the bound of the queue counts.
    for vif in &mut vifs[..3] {
        assert_eq!(fill(vif), 256);
    }
    let left = SHARED - 3 * (256 - RESERVE);
    let fourth = fill(&mut vifs[3]);
    assert!(fourth.abs_diff(RESERVE + left / 2) <= 1, "{fourth}");
    for vif in &mut vifs[..4] {
        let wait = vif.next_deadline().unwrap().since(host.now());
        assert_eq!(wait, Duration::from_millis(100));
    }
    // The second takes a packet once in a while: that is progress.
    host.advance(Duration::from_millis(60));
    clients[1].post(1);
    for vif in &mut vifs {
        vif.flush();
    }
    host.advance(Duration::from_millis(40));
    for vif in &mut vifs {
        vif.flush();
    }
    let queued: Vec<usize> = vifs[..4].iter().map(|vif| vif.queued()).collect();
    assert_eq!(queued, [RESERVE, 255, RESERVE, RESERVE]);
    assert_eq!(budget.free(), SHARED - (255 - RESERVE));
    // No more than that until it takes something.
    assert_eq!(fill(&mut vifs[0]), 0);
    clients[0].post(10);
    vifs[0].flush();
    assert_eq!(clients[0].receive().len(), 10);
    assert_eq!(fill(&mut vifs[0]), 10 + 256 - RESERVE);
    // What a connection held is free when it ends.
    for (vif, client) in vifs.iter_mut().zip(&clients) {
        client.set_state(6);
        vif.service();
        assert!(!vif.is_connected());
    }
    assert_eq!((budget.free(), pool.free()), (SHARED, pages));
}

/// 64 clients, each with its reserve waiting, in 24 MB: pages, and the heap that the sum allows for.
#[test]
fn b7_the_pages_for_64_clients_leave_room_for_their_heap() {
    let pages = IN_WORK + 64 * RESERVE + SHARED;
    assert!(Budget::new(pages, 64, RESERVE, SHARED).is_ok());
    assert!(Budget::new(pages - 1, 64, RESERVE, SHARED).is_err());
    let memory = pages * PAGE_SIZE;
    // See client_heap.rs for what a client takes.
    let heap = 64 * 40 * 1024 + 64 * 1024;
    assert!(memory + heap < 24 << 20, "{memory} + {heap}");
    let _one = pattern(1, 1);
}
