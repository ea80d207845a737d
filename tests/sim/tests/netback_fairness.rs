//! B11: one client cannot slow the others. In virtual time, on one processor for the backend and
//! one for each client, four well-behaved clients send and receive all they can beside a fifth.
//! Whatever that one does, each of the four gets at least 90 % of what it gets beside an honest
//! one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod raw_client;

use std::cell::RefCell;
use std::time::Duration;

use raw_client::{Bench, Client, Features, pattern};
use xen_grant::DomId;
use xen_netfront::netback::Config;
use xen_netfront::platform::{Instant, Platform};
use xen_netfront::wire::{Extra, TxRequest};
use xen_sim::{Costs, Ctx, Host, Limits, Next, Outcome, Scheduler};

const GOOD: usize = 4;
/// Packets that the backend has for each client, each round.
const DELIVERIES: usize = 16;
const RUN: Duration = Duration::from_millis(10);
/// How often a client that polls looks.
const PAUSE: Duration = Duration::from_micros(2);

/// What the fifth client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rival {
    /// What the others do.
    Honest,
    /// Nothing at all.
    Silent,
    /// Packets of 65535 bytes, a page a slot, packed so that each is one long copy.
    Huge,
    /// Packets of 65535 bytes in 18 slots, two copies for nearly each.
    HugeAndUnaligned,
    /// 18 slots of a byte.
    Crumbs,
    /// References that do not exist.
    BadReferences,
    /// Packets that are refused.
    Runts,
    /// Rings full of extras.
    Extras,
    /// Breaks a rule, and connects again.
    Breaking,
    /// Connects, closes, connects.
    Reconnecting,
    /// Writes its state, all the time.
    Storm,
    /// Sends events, all the time.
    Ringing,
    /// Posts no pages, or such as can't be written.
    BadPages,
}

const RIVALS: [Rival; 12] = [
    Rival::Silent,
    Rival::Huge,
    Rival::HugeAndUnaligned,
    Rival::Crumbs,
    Rival::BadReferences,
    Rival::Runts,
    Rival::Extras,
    Rival::Breaking,
    Rival::Reconnecting,
    Rival::Storm,
    Rival::Ringing,
    Rival::BadPages,
];

/// Packets from and to each client.
type Shares = Vec<(u64, u64)>;

fn run(rival: Rival) -> Shares {
    let host = Host::new(11);
    host.set_costs(Costs::free());
    let config = Config::default().with_queue_packets(64).with_queue_frames(64);
    let mut benches = Vec::new();
    let mut clients = Vec::new();
    for number in 0..=GOOD as u16 {
        let mut bench = Bench::on(&host, DomId(10 + number), config, 256);
        let mut client = Client::new(&host, &bench.vif, 0);
        client.connect(&mut bench.netback, &Features::default());
        benches.push(bench);
        clients.push(client);
    }
    for (bench, client) in benches.iter_mut().zip(&clients) {
        // What anybody had saved up for xenstore is spent: this is about the long run.
        while bench.netback.next_deadline().is_none() {
            client.set_state(4);
            bench.netback.service();
        }
        assert!(bench.netback.is_connected());
    }
    host.set_costs(Costs::default());
    let back = benches[0].back.clone();
    let packet = benches[0].plain(&pattern(1, 1514));
    let benches = RefCell::new(benches);
    let shares = || -> Shares {
        let benches = benches.borrow();
        let counters = benches.iter().map(|bench| *bench.netback.counters());
        counters.map(|counters| (counters.from_packets, counters.to_packets)).collect()
    };
    let before = shares();

    let mut scheduler = Scheduler::new(&host);
    let end = host.now() + RUN;
    let fifth = clients.pop().unwrap();
    for client in clients {
        scheduler.add("good", &client.domain.clone(), {
            let mut client = client;
            move |ctx: &mut Ctx<'_>| good(&mut client, ctx.now, end)
        });
    }
    scheduler.add_background("rival", &fifth.domain.clone(), {
        let mut fifth = Fifth { client: fifth, turn: 0 };
        move |ctx: &mut Ctx<'_>| fifth.run(rival, ctx.now, end)
    });
    scheduler.add_background("backend", &back, |_: &mut Ctx<'_>| {
        let mut more = false;
        let mut deadline: Option<Instant> = None;
        for bench in benches.borrow_mut().iter_mut() {
            let vif = &mut bench.netback;
            vif.service();
            vif.poll(64, drop);
            for _ in 0..DELIVERIES {
                // One that is full gets nothing, whatever the reason.
                let _ = vif.deliver(packet.clone());
            }
            vif.flush();
            more |= vif.rearm();
            deadline = [deadline, vif.next_deadline()].into_iter().flatten().min();
        }
        match deadline {
            _ if more => Next::Now,
            Some(deadline) => Next::WaitUntil(deadline),
            None => Next::Wait,
        }
    });
    let limits = Limits { steps: 10_000_000, time: RUN * 2, ..Limits::default() };
    assert_eq!(scheduler.run(limits), Outcome::Done, "{rival:?}");
    drop(scheduler);
    assert_eq!(host.violations(), []);
    shares().iter().zip(&before).map(|(now, then)| (now.0 - then.0, now.1 - then.1)).collect()
}

/// Sends and posts all it can.
fn good(client: &mut Client, now: Instant, end: Instant) -> Next {
    if now >= end {
        return Next::Done;
    }
    client.answers();
    while client.tx.free() > 0 {
        client.chain(&[(0, 0, 1514)], 0, &[]);
    }
    client.show();
    client.receive();
    let room = client.rx.free() as usize;
    client.post(room);
    Next::Sleep(PAUSE)
}

struct Fifth {
    client: Client,
    turn: usize,
}

impl Fifth {
    fn run(&mut self, rival: Rival, now: Instant, end: Instant) -> Next {
        self.turn += 1;
        let client = &mut self.client;
        let honest = |client: &mut Client| good(client, now, end);
        match rival {
            Rival::Honest => return honest(client),
            Rival::Silent => return Next::Wait,
            Rival::Huge => {
                // The first slot fills the first frame of ours, so the others start one.
                let mut slots = vec![(0, 0, 3968)];
                slots.extend((1..16).map(|page| (page, 0, 4096)));
                self.flood(&slots, &[]);
            }
            Rival::HugeAndUnaligned => {
                let slots: Vec<_> = (0..18).map(|page| (page, 77, 3640)).collect();
                self.flood(&slots, &[]);
            }
            Rival::Crumbs => self.flood(&[(0, 9, 1); 18], &[]),
            Rival::BadReferences => {
                for source in &mut client.sources {
                    source.1 = 0xffff_0000;
                }
                self.flood(&[(0, 0, 1514)], &[]);
            }
            Rival::Runts => self.flood(&[(0, 0, 13)], &[]),
            Rival::Extras => {
                let extra = |n| Extra {
                    kind: Extra::HASH,
                    flags: if n < 254 { Extra::MORE } else { 0 },
                    data: [0; 6],
                };
                let extras: Vec<Extra> = (0..255).map(extra).collect();
                self.flood(&[(0, 0, 60)], &extras);
            }
            Rival::Breaking => self.reconnect(|client| {
                let request = TxRequest { gref: 9, offset: 4095, flags: 0, id: 1, size: 60 };
                let _ = client.tx.push(request.into());
                client.show();
                client.set_state(6);
            }),
            Rival::Reconnecting => self.reconnect(|client| client.set_state(6)),
            Rival::Storm => {
                client.set_state([4, 0, 1, 2, 5, 6, 3, 9][self.turn % 8]);
                return Next::Sleep(PAUSE);
            }
            Rival::Ringing => {
                for &port in &client.ports {
                    client.domain.notify(port);
                }
                return Next::Now;
            }
            Rival::BadPages => {
                client.receive();
                while client.rx.free() > 0 {
                    let id = client.rx.next_index() as u16 % 256;
                    client.post_as(id, if self.turn.is_multiple_of(2) { 0xffff_0000 } else { 0 });
                }
                client.show_posted();
            }
        }
        Next::Sleep(PAUSE)
    }

    fn flood(&mut self, fragments: &[(usize, u16, u16)], extras: &[Extra]) {
        self.client.answers();
        while self.client.tx.free() as usize >= fragments.len() + extras.len() {
            self.client.chain(fragments, 0, extras);
        }
        self.client.show();
    }

    /// Follows the backend's state as fast as it can.
    fn reconnect(&mut self, connected: impl FnOnce(&mut Client)) {
        let client = &mut self.client;
        let store = client.domain.store();
        let back = format!("/local/domain/5/backend/vif/{}/0/state", client.domain.id().0);
        match store.get(&back).as_deref() {
            Some("4") => connected(client),
            Some("2") => {
                client.reset_rings();
                client.publish(&Features::default());
            }
            Some("5") => client.set_state(6),
            _ => client.set_state(1),
        }
    }
}

#[test]
fn b11_one_client_cannot_slow_the_others() {
    let honest = run(Rival::Honest);
    println!("{:>16}: {honest:?}", "Honest");
    let fair = &honest[..GOOD];
    assert!(fair.iter().all(|share| share.0 > 3_000 && share.1 > 500), "{honest:?}");
    for rival in RIVALS {
        let shares = run(rival);
        println!("{:>16}: {shares:?}", format!("{rival:?}"));
        for (beside_honest, share) in fair.iter().zip(&shares) {
            let enough = share.0 * 10 >= beside_honest.0 * 9 && share.1 * 10 >= beside_honest.1 * 9;
            assert!(enough, "beside {rival:?}: {shares:?}; beside an honest client: {honest:?}");
        }
    }
}
