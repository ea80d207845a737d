//! F11 over many connections: whoever closes, vanishes, restarts or writes nonsense, both ends find
//! back, and nothing is left of what was before. P2: a peer that writes its state all day costs
//! nothing.
//!
//! `XEN_RECONNECTS` says how many; `XEN_LONG=1` means 100,000.
#![allow(missing_docs)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod pair;

use std::time::Duration;

use fastrand::Rng;
use pair::{BACK, Blow, FRONT, Nap, Pair, Plan, RECOVERY, Shape, limits};
use xen_grant::DomId;
use xen_netfront::netfront;
use xen_netfront::store::Store;
use xen_sim::{Chaos, Ctx, Next, Outcome};

const DEFAULT: u64 = 2000;

fn reconnects() -> u64 {
    let number = |name| std::env::var(name).ok().map(|text| text.parse().expect(name));
    let long = number("XEN_LONG").is_some_and(|long: u64| long > 0);
    number("XEN_RECONNECTS").unwrap_or(if long { 100_000 } else { DEFAULT })
}

/// What both ends hold while they are connected, and nothing goes on between them.
#[derive(Debug, PartialEq, Eq)]
struct Holdings {
    references: usize,
    quarantined: usize,
    frames_out: usize,
    grants: usize,
    ports: (usize, usize),
    watches: (usize, usize),
    transactions: (usize, usize),
    nodes: (usize, usize),
    mappings: usize,
    back_frames_out: usize,
}

fn holdings(pair: &Pair) -> Holdings {
    let (front, back) = (pair.front.borrow(), pair.back.borrow());
    let usage = front.table.usage();
    let stores = (front.domain.store(), back.domain.store());
    Holdings {
        references: usage.claimed,
        quarantined: usage.quarantined + front.net.as_ref().unwrap().quarantined(),
        frames_out: front.pool.size() - front.pool.free(),
        grants: front.domain.grants().len(),
        ports: (front.domain.open_ports().len(), back.domain.open_ports().len()),
        watches: (stores.0.watches(), stores.1.watches()),
        transactions: (stores.0.transactions(), stores.1.transactions()),
        nodes: (stores.0.owned_nodes(), stores.1.owned_nodes()),
        mappings: back.domain.mappings(),
        back_frames_out: back.pool.size() - back.pool.free(),
    }
}

/// Waits until packets go both ways. Gives what stands in the way a second, then has the toolstack
/// make a new vif.
struct Recovery {
    nap: Nap,
    waited: Duration,
    sent: Option<(u64, u64)>,
}

impl Recovery {
    fn new() -> Recovery {
        Recovery { nap: Nap::default(), waited: Duration::ZERO, sent: None }
    }

    /// `None` when they do.
    fn look(&mut self, pair: &Pair) -> Option<Next> {
        if pair.is_up() {
            let (up, down) = (pair.up.borrow().arrived(), pair.down.borrow().arrived());
            let (ups, downs) = *self.sent.get_or_insert_with(|| {
                pair.front.borrow_mut().outbox.push_back(Shape::single(60));
                pair.back.borrow_mut().outbox.push_back(Shape::single(60));
                pair.front_domain().wake();
                pair.back_domain().wake();
                (up, down)
            });
            if up > ups && down > downs {
                return None;
            }
        }
        let Next::Sleep(time) = self.nap.next() else { return None };
        self.waited += time;
        if self.waited > Duration::from_secs(1) && self.sent.is_none() {
            self.waited = Duration::ZERO;
            Blow::Pull { at_once: true }.strike(pair);
        }
        if self.waited > Duration::from_millis(100) && self.sent.is_some() {
            // On their way when a connection ended that only seemed to be the new one.
            (self.waited, self.sent) = (Duration::ZERO, None);
        }
        Some(Next::Sleep(time))
    }
}

#[test]
fn f11_nothing_is_left_after_many_reconnects() {
    let count = reconnects();
    // As many pages posted at any time, so that what is held can be compared.
    let front = netfront::Config::default().with_rx_floor(256);
    let pair = Pair::new(Plan { seed: 11, front, ..Plan::default() });
    pair.host.set_chaos(Chaos::rough());
    pair.run_until("the first connection", RECOVERY, Pair::is_up);
    pair.settle();
    let mut first = None;
    let mut rng = Rng::with_seed(11);
    let (mut done, mut garbage) = (0, 0);
    while done < count {
        let mut left = 100.min(count - done);
        let mut blow = Blow::random_reconnect(&mut rng);
        let (mut struck, mut recovery, mut tries) = (false, Recovery::new(), 0);
        let outcome = pair.run(limits(Duration::from_secs(3600)), |_: &mut Ctx| {
            if !struck {
                tries += 1;
                struck = blow.strike(&pair);
                return Next::Sleep(Duration::from_micros(if struck { 1 } else { 300 }));
            }
            if let Some(next) = recovery.look(&pair) {
                return next;
            }
            left -= 1;
            if left == 0 {
                return Next::Done;
            }
            recovery = Recovery::new();
            struck = false;
            blow = match rng.u8(..4) {
                0 => {
                    garbage += 1;
                    Blow::random_garbage(&mut rng)
                }
                _ => Blow::random_reconnect(&mut rng),
            };
            // Sometimes while packets are on their way.
            if rng.bool() {
                let shapes = || (0..9).map(|nth| Shape::random(&mut Rng::with_seed(nth), 1500, 3));
                pair.front.borrow_mut().outbox.extend(shapes());
                pair.back.borrow_mut().outbox.extend(shapes());
                pair.front_domain().wake();
                pair.back_domain().wake();
            }
            Next::Sleep(Duration::from_micros(rng.u64(..300)))
        });
        assert_eq!(outcome, Outcome::Done, "{blow:?} after {tries} tries; {}", pair.describe());
        done += 100;
        // Nothing grows: a hundred connections later both hold what they held.
        Blow::Pull { at_once: false }.strike(&pair);
        pair.run_until("both let go", RECOVERY, |pair| {
            !pair.front.borrow().is_up() && !pair.back.borrow().is_connected()
        });
        pair.toolstack.add_vif(&pair.vif);
        pair.run_until("one more connection", RECOVERY, Pair::is_up);
        pair.settle();
        // What the backend still had mapped comes back at the next try.
        pair.run_until("an empty quarantine", RECOVERY, |pair| {
            pair.front.borrow().table.sweep();
            pair.front.borrow().net.as_ref().unwrap().quarantined() == 0
        });
        let mut now = holdings(&pair);
        assert_eq!(now.quarantined, 0);
        // The driver keeps some frames at hand once it has sent something.
        let kept = std::mem::take(&mut now.frames_out);
        assert!((258..=258 + 64).contains(&kept), "{kept} frames are out of the pool");
        match &first {
            Some(first) => assert_eq!(&now, first),
            None => first = Some(now),
        }
    }
    let made = pair.front.borrow().connects.max(pair.back.borrow().connects);
    assert!(made * 2 >= count, "only {made} connections");
    assert!(garbage * 8 >= count || count < 100, "garbage was written {garbage} times");
    pair.tear_down();
}

/// As a domain that crashes: the hypervisor closes its channels and unmaps what it had.
#[test]
fn f11_a_backend_domain_that_crashes_comes_back() {
    let pair = Pair::new(Plan { seed: 12, ..Plan::default() });
    for round in 0..20 {
        pair.run_until("the link comes up", RECOVERY, Pair::is_up);
        pair.front.borrow_mut().outbox.extend((0..100).map(|_| Shape::single(1000)));
        let arrived = pair.up.borrow().arrived();
        pair.run_until("some of them", RECOVERY, |pair| pair.up.borrow().arrived() > arrived);
        pair.host.destroy_domain(BACK);
        pair.back.borrow_mut().close();
        let plan = Plan { seed: 12, ..Plan::default() };
        pair.back.replace(pair::Back::new(pair.host.add_domain(BACK, 4096), &plan));
        // The toolstack notices sooner or later.
        if round % 2 == 0 {
            let until = pair.host.now() + Duration::from_secs(12);
            pair.run_until("silence", Duration::from_secs(20), |p| p.host.now() >= until);
        }
        pair.toolstack.remove_vif(&pair.vif);
        pair.toolstack.add_vif(&pair.vif);
        pair.back.borrow_mut().open();
    }
    pair.run_until("the link comes up", RECOVERY, Pair::is_up);
    let arrived = pair.up.borrow().arrived();
    pair.front.borrow_mut().outbox.push_back(Shape::single(60));
    pair.run_until("a packet", RECOVERY, |pair| pair.up.borrow().arrived() > arrived);
    pair.tear_down();
}

const WRITES: u64 = 100_000;

/// What a peer's writes cost an end that looks once afterwards, and one that looks each time.
#[test]
fn p2_a_peer_that_writes_its_state_leaves_one_pending_event() {
    let pair = Pair::new(Plan::default());
    pair.run_until("the link comes up", RECOVERY, Pair::is_up);
    pair.settle();
    for (writer, reader, dir) in [
        (BACK, pair.front_domain(), pair.vif.back_dir()),
        (FRONT, pair.back_domain(), pair.vif.front_dir()),
    ] {
        let store = pair.host.store_as(writer);
        let state = format!("{dir}/state");
        let service = || {
            let before = reader.counts().store_calls;
            let (mut front, mut back) = (pair.front.borrow_mut(), pair.back.borrow_mut());
            match writer {
                BACK => drop(front.net.as_mut().unwrap().service()),
                // A part at a time.
                _ => (0..4).for_each(|_| back.clients.as_mut().unwrap().service()),
            }
            reader.counts().store_calls - before
        };
        let calls = |count: u64| {
            (0..count).for_each(|_| store.write(None, &state, b"4").unwrap());
            service()
        };
        let once = calls(1);
        assert!((1..=20).contains(&once), "{once} requests");
        assert_eq!(calls(WRITES), once, "after many writes as after one");
        assert_eq!(service(), 0, "everything has been looked at");
        // A path below is as good: the event does not say which it was.
        store.write(None, &format!("{dir}/a/b/c"), b"").unwrap();
        assert!(service() <= once);
        assert_eq!((reader.store().transactions(), service()), (0, 0));
        assert!(pair.is_up(), "the connection is as it was");
    }
    assert_eq!(pair.host.violations_of(DomId(0)), []);
    pair.tear_down();
}
