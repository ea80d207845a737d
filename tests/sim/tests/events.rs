//! Event channels, the scheduler, and the two kinds of time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use core::time::Duration;
use std::cell::{Cell, RefCell};

use xen_grant::DomId;
use xen_netfront::platform::{BackendPlatform, Platform, Port};
use xen_sim::{
    Chaos, Costs, Ctx, Domain, EINVAL, ENOSPC, ESRCH, FaultRule, Faults, Host, Limits, Next,
    Outcome, Scheduler,
};

const A: DomId = DomId(1);
const B: DomId = DomId(2);
const MS: Duration = Duration::from_millis(1);

fn channel(host: &Host) -> (Domain, Port, Domain, Port) {
    let (a, b) = (host.add_domain(A, 4), host.add_domain(B, 4));
    let a_port = a.alloc_unbound(B).unwrap();
    let b_port = b.bind_interdomain(A, a_port).unwrap();
    assert_eq!(b.take_pending(), [b_port], "a binding starts pending");
    (a, a_port, b, b_port)
}

#[test]
fn an_event_goes_to_the_other_end_once() {
    let host = Host::new(0);
    let (a, a_port, b, b_port) = channel(&host);
    a.notify(a_port);
    a.notify(a_port);
    assert!(b.upcall_pending() && b.is_pending(b_port) && !a.upcall_pending());
    assert_eq!(b.take_pending(), [b_port]);
    assert_eq!(b.take_pending(), []);
    b.notify(b_port);
    assert_eq!(a.take_pending(), [a_port]);
    assert_eq!((a.counts().notifies, b.counts().notifies), (2, 1));
    assert_eq!((a.counts().events, b.counts().events), (1, 2));
    assert_eq!((a.counts().upcalls, b.counts().upcalls), (1, 2));
}

#[test]
fn a_masked_port_waits() {
    let host = Host::new(0);
    let (a, a_port, b, b_port) = channel(&host);
    b.mask(b_port);
    a.notify(a_port);
    assert!(b.is_pending(b_port) && !b.upcall_pending());
    assert_eq!(b.take_pending(), []);
    b.unmask(b_port);
    assert!(b.upcall_pending());
    assert_eq!(b.take_pending(), [b_port]);
}

#[test]
fn closing_one_end_leaves_the_other_unbound() {
    let host = Host::new(0);
    let (a, a_port, b, b_port) = channel(&host);
    b.close(b_port);
    a.notify(a_port);
    assert_eq!(a.counts().bad_notifies, 0, "an unbound port swallows events");
    assert!(b.open_ports().is_empty());
    let again = b.bind_interdomain(A, a_port).unwrap();
    assert_eq!(b.bind_interdomain(A, a_port), Err(EINVAL), "bound already");
    a.close(a_port);
    a.close(a_port);
    a.notify(a_port);
    assert_eq!(a.counts().bad_notifies, 1);
    assert_eq!(b.open_ports(), [again]);
    host.destroy_domain(B);
    assert_eq!(b.alloc_unbound(A), Err(ESRCH));
}

#[test]
fn binding_is_refused_where_xen_refuses() {
    let host = Host::new(0);
    let (a, a_port, b, _) = channel(&host);
    let c = host.add_domain(DomId(3), 1);
    assert_eq!(c.bind_interdomain(A, a_port), Err(EINVAL), "not meant for us");
    let for_c = a.alloc_unbound(DomId(3)).unwrap();
    assert_eq!(b.bind_interdomain(A, for_c), Err(EINVAL));
    assert_eq!(b.bind_interdomain(A, Port::new(999).unwrap()), Err(EINVAL));
    assert_eq!(b.bind_interdomain(DomId(9), for_c), Err(ESRCH));
    while a.alloc_unbound(B).is_ok() {}
    assert_eq!(a.alloc_unbound(B), Err(ENOSPC));
    assert_eq!(a.open_ports().len(), 1024 - 3, "libxl's limit");
    b.set_faults(Faults {
        alloc_unbound: Some(FaultRule::next(ENOSPC)),
        bind_interdomain: Some(FaultRule::next(ESRCH)),
        ..Faults::default()
    });
    assert_eq!(b.alloc_unbound(A), Err(ENOSPC));
    assert!(b.alloc_unbound(A).is_ok());
    assert_eq!(b.bind_interdomain(A, Port::new(4).unwrap()), Err(ESRCH));
}

#[test]
fn late_events_come_late_and_not_to_a_later_port() {
    let host = Host::new(3);
    host.set_chaos(Chaos { delay: MS..2 * MS, ..Chaos::default() });
    let (a, a_port, b, b_port) = channel(&host);
    a.notify(a_port);
    assert!(!b.is_pending(b_port));
    host.advance(MS / 2);
    assert!(!b.is_pending(b_port), "earlier than the least delay");
    let due = host.next_delivery().unwrap();
    host.advance(2 * MS);
    assert!(b.is_pending(b_port));
    assert!(due >= xen_netfront::platform::Instant(1_000_000));
    b.take_pending();
    a.notify(a_port);
    b.close(b_port);
    let again = b.bind_interdomain(A, a_port).unwrap();
    assert_eq!(again, b_port, "the number is used again");
    b.take_pending();
    host.advance(2 * MS);
    assert!(!b.is_pending(again));
}

#[test]
fn chance_loses_and_invents_events_by_the_seed() {
    let run = |seed| {
        let host = Host::new(seed);
        let (a, a_port, b, _) = channel(&host);
        host.set_chaos(Chaos { lost: 0.5, ..Chaos::default() });
        (0..64).map(|_| (a.notify(a_port), b.take_pending().len()).1).collect::<Vec<_>>()
    };
    let arrived: usize = run(7).iter().sum();
    assert!((16..48).contains(&arrived), "{arrived} of 64");
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));

    let host = Host::new(0);
    let (_, _, b, _) = channel(&host);
    host.set_chaos(Chaos { spurious: 0.2, ..Chaos::default() });
    let seen = Cell::new(0);
    let mut scheduler = Scheduler::new(&host);
    scheduler.add("watcher", &b, |ctx: &mut Ctx| {
        seen.set(seen.get() + ctx.ports.len());
        if ctx.runs == 200 { Next::Done } else { Next::Now }
    });
    assert_eq!(scheduler.run(Limits::default()), Outcome::Done);
    assert!(seen.get() > 3, "{}", seen.get());
}

/// Two tasks hand a token to and fro; a third one only counts time.
fn ping_pong(seed: u64, rough: bool) -> (Outcome, u64, Vec<u8>) {
    let host = Host::new(seed);
    if rough {
        host.set_chaos(Chaos::rough());
    }
    let (a, a_port, b, b_port) = channel(&host);
    let (token, order) = (Cell::new(0_u32), RefCell::new(Vec::new()));
    let mut scheduler = Scheduler::new(&host);
    for (name, domain, port, parity) in [("ping", &a, a_port, 0), ("pong", &b, b_port, 1)] {
        let (token, order) = (&token, &order);
        scheduler.add(name, domain, move |_: &mut Ctx| {
            order.borrow_mut().push(parity as u8);
            if token.get() % 2 == parity {
                token.set(token.get() + 1);
                domain.notify(port);
            }
            if token.get() >= 100 { Next::Done } else { Next::Wait }
        });
    }
    let outcome = scheduler.run(Limits::default());
    drop(scheduler);
    (outcome, host.now().0, order.into_inner())
}

#[test]
fn the_seed_decides_everything() {
    for seed in 0..20 {
        let first = ping_pong(seed, true);
        assert_eq!(first.0, Outcome::Done);
        assert_eq!(first, ping_pong(seed, true), "seed {seed}");
    }
    assert_ne!(ping_pong(1, true).1, ping_pong(2, true).1);
}

#[test]
fn a_lost_wakeup_is_stuck() {
    let host = Host::new(0);
    let (a, a_port, b, _) = channel(&host);
    let seen = Cell::new(0);
    let mut scheduler = Scheduler::new(&host);
    scheduler.add_background("sender", &a, |_: &mut Ctx| {
        a.notify(a_port);
        Next::Done
    });
    // Wants two events where only one is sent.
    scheduler.add("receiver", &b, |ctx: &mut Ctx| {
        seen.set(seen.get() + ctx.ports.len());
        if seen.get() == 2 { Next::Done } else { Next::Wait }
    });
    let outcome = scheduler.run(Limits::default());
    assert_eq!(outcome, Outcome::Stuck(vec!["receiver".into()]));
    assert!(outcome.to_string().contains("receiver"));
    assert_eq!(seen.get(), 1);
    drop(scheduler);

    // With a watchdog, time goes on for ever, and patience tells.
    let mut scheduler = Scheduler::new(&host);
    scheduler.add("receiver", &b, |ctx: &mut Ctx| Next::WaitUntil(ctx.now + 3 * MS));
    let limits = Limits { patience: Duration::from_secs(1), ..Limits::default() };
    assert_eq!(scheduler.run(limits), Outcome::Stuck(vec!["receiver".into()]));
    let limits = Limits { time: MS, ..Limits::default() };
    assert_eq!(scheduler.run(limits), Outcome::Time(vec!["receiver".into()]));
    let limits = Limits { steps: 5, ..Limits::default() };
    assert_eq!(scheduler.run(limits), Outcome::Steps(vec!["receiver".into()]));
}

#[test]
fn an_event_during_the_run_is_not_lost() {
    let host = Host::new(0);
    let (a, a_port, b, _) = channel(&host);
    let mut scheduler = Scheduler::new(&host);
    scheduler.add("b", &b, |ctx: &mut Ctx| {
        if ctx.runs == 0 {
            a.notify(a_port); // while b runs
        }
        if ctx.runs == 1 { Next::Done } else { Next::Wait }
    });
    assert_eq!(scheduler.run(Limits::default()), Outcome::Done);
}

#[test]
fn domains_spend_time_side_by_side() {
    let host = Host::new(0);
    host.set_costs(Costs { step: Duration::ZERO, ..Costs::free() });
    let (a, b) = (host.add_domain(A, 1), host.add_domain(B, 1));
    let runs = [Cell::new(0), Cell::new(0)];
    let mut scheduler = Scheduler::new(&host);
    for (domain, count, cost) in [(&a, &runs[0], MS), (&b, &runs[1], 10 * MS)] {
        scheduler.add("busy", domain, move |_: &mut Ctx| {
            count.set(count.get() + 1);
            domain.charge(cost);
            Next::Now
        });
    }
    let limits = Limits { time: 99 * MS, ..Limits::default() };
    assert!(matches!(scheduler.run(limits), Outcome::Time(_)));
    assert_eq!((runs[0].get(), runs[1].get()), (100, 10));
    assert_eq!(host.now().0, 99_000_000);
}

#[test]
fn sleep_lasts_and_keeps_events() {
    let host = Host::new(0);
    let (a, a_port, b, b_port) = channel(&host);
    let ports = RefCell::new(Vec::new());
    let mut scheduler = Scheduler::new(&host);
    scheduler.add("sleeper", &b, |ctx: &mut Ctx| {
        ports.borrow_mut().extend_from_slice(ctx.ports);
        if ctx.runs == 0 { Next::Sleep(5 * MS) } else { Next::Done }
    });
    scheduler.add("sender", &a, |ctx: &mut Ctx| match ctx.runs {
        0 => Next::Sleep(MS),
        _ => {
            a.notify(a_port);
            Next::Done
        }
    });
    assert_eq!(scheduler.run(Limits::default()), Outcome::Done);
    assert!(host.now().0 >= 5_000_000);
    drop(scheduler);
    assert_eq!(*ports.borrow(), [b_port]);
}

#[test]
fn threads_wake_each_other() {
    let host = Host::threaded(0);
    let (a, a_port, b, b_port) = channel(&host);
    let rounds = if cfg!(miri) { 5 } else { 1000 };
    let long = Duration::from_secs(60);
    let answer = std::thread::spawn(move || {
        for _ in 0..rounds {
            assert!(b.wait(long));
            assert_eq!(b.take_pending(), [b_port]);
            b.notify(b_port);
        }
    });
    for _ in 0..rounds {
        a.notify(a_port);
        assert!(a.wait(long));
        assert_eq!(a.take_pending(), [a_port]);
    }
    answer.join().unwrap();
    assert!(!a.wait(Duration::from_millis(2)), "nothing more");
    a.wake();
    assert!(a.wait(long) && a.take_store_event());
}
