//! What a packet costs while there are many: events, copies, clears, grants, allocations,
//! hypercalls. Counted, not timed.
#![allow(missing_docs)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../../../packet/tests/buffers/allocations.rs"]
mod allocations;
mod load;
mod pair;

use std::time::Duration;

use fastrand::Rng;
use load::{Load, OFFERED, Snapshot};
use pair::{FRONT, Flow, Pair, Plan, Shape, limits};
use xen_netfront::platform::Platform;
use xen_sim::hostile::{After, HostileBackend};
use xen_sim::{Chaos, Ctx, Next, Outcome, Task};

const ROUNDS: u64 = if cfg!(debug_assertions) { 300 } else { 10_000 };

/// Loads the pair for all rounds; the backend runs when it is woken. Counts from a moment at which
/// nothing is under way to another.
fn rounds(load: &mut Load<'_>, seed: u64, turn: Duration) -> (Snapshot, Snapshot, u64) {
    let mut rng = Rng::with_seed(seed);
    // The first rounds bring frames where they will be used.
    for _ in 0..50 {
        load.front_turn(OFFERED);
        load.back_turn();
    }
    load.drain();
    let before = load.snapshot();
    let mut sent = 0;
    for _ in 0..ROUNDS {
        load.pass(turn);
        sent += load.front_turn(OFFERED) as u64;
        // Faster than the frontend, or slower.
        for _ in 0..rng.u8(..4) {
            load.pass(turn);
            if load.back_runs() {
                load.back_turn();
            }
        }
    }
    load.drain();
    (before, load.snapshot(), sent)
}

fn assert_few_events(before: &Snapshot, after: &Snapshot, sent: u64) {
    let (turns, waits) = (
        after.back_events.turns - before.back_events.turns,
        after.back_events.waits - before.back_events.waits,
    );
    let events = after.front.events_sent - before.front.events_sent;
    assert_eq!(events, (after.front_calls - before.front_calls).notifies);
    let packets = after.front.tx_packets - before.front.tx_packets;
    assert_eq!(packets, sent);
    assert!(events <= ROUNDS + 20, "{events} events for {ROUNDS} batches");
    assert!(events * 32 <= packets, "{events} events for {packets} packets");
    // Who does not wait need not be woken.
    assert!(events <= waits + 1, "{events} events, and the backend waited {waits} times");
    // The backend: one for each batch of its own.
    let events = after.back.events_sent - before.back.events_sent;
    assert_eq!(events, (after.back_calls - before.back_calls).notifies);
    assert!(events <= turns, "{events} events for {turns} batches");
    // The frontend asks for one whenever it comes to its loop's end.
    let turns = after.front_events.turns - before.front_events.turns;
    assert!(events <= turns, "{events} events, and the frontend asked {turns} times");
}

fn assert_few_spurious(before: &Snapshot, after: &Snapshot) {
    for (end, before, after) in [
        ("frontend", before.front_events, after.front_events),
        ("backend", before.back_events, after.back_events),
    ] {
        let (upcalls, spurious) =
            (after.upcalls - before.upcalls, after.spurious - before.spurious);
        assert!(spurious * 2000 <= upcalls, "{end}: {spurious} of {upcalls} are spurious");
    }
}

#[test]
fn p1_events_are_few_and_not_spurious_under_load() {
    for (seed, echoes) in [(1, false), (2, true)] {
        let pair = Load::pair();
        let mut load = Load::new(&pair);
        load.echoes = echoes;
        let (before, after, sent) = rounds(&mut load, seed, Duration::from_micros(10));
        assert!(sent >= ROUNDS * 32, "{sent} packets got through");
        assert_few_events(&before, &after, sent);
        assert_few_spurious(&before, &after);
        let upcalls = after.back_events.upcalls - before.back_events.upcalls;
        assert!(upcalls > ROUNDS / 10, "{upcalls} upcalls: was the backend ever woken?");
        drop(load);
        pair.tear_down();
    }
}

#[test]
fn p1_late_events_are_not_more_events() {
    let pair = Load::pair();
    pair.host
        .set_chaos(Chaos { delay: Duration::ZERO..Duration::from_micros(40), ..Chaos::default() });
    let mut load = Load::new(&pair);
    let (before, after, sent) = rounds(&mut load, 3, Duration::from_micros(10));
    assert_few_events(&before, &after, sent);
    drop(load);
    pair.tear_down();
}

/// What must hold for packets of any number of slots in steady state.
fn assert_cheap(before: &Snapshot, after: &Snapshot, packets: u64) {
    let (front, back) = (&after.front, &after.back);
    let tx_slots = front.tx_slots - before.front.tx_slots;
    let rx_slots = front.rx_slots - before.front.rx_slots;
    assert_eq!(front.rx_packets - before.front.rx_packets, packets);
    // Extras have slots, and no pages.
    let extras = front.tx_gso - before.front.tx_gso;
    assert_eq!(back.from_slots - before.back.from_slots, tx_slots + extras);
    assert_eq!(back.to_slots - before.back.to_slots, rx_slots);
    // One grant and one revoke for each slot, and nothing else.
    assert_eq!(front.grants - before.front.grants, tx_slots + rx_slots);
    assert_eq!(front.revokes - before.front.revokes, tx_slots + rx_slots);
    assert_eq!(front.quarantined, before.front.quarantined);
    assert_eq!(after.granted, before.granted);
    assert_eq!(front.clears, before.front.clears, "pages were cleared");
    assert_eq!((front.copied_bytes, back.copied_bytes), (0, 0));
    assert_eq!(front.tx_drops.total() + front.rx_drops.total(), 0);
    assert_eq!(back.from_drops.total() + back.to_drops.total(), 0);
    // Of the frontend's hypercalls there is nothing but events.
    let calls = after.front_calls - before.front_calls;
    assert_eq!((calls.hypercalls(), calls.store_calls), (0, 0), "{calls:?}");
    // The backend copies in batches, and maps nothing. A batch ends with its 64th packet, or
    // where the largest packet might not fit the 256 operations any more.
    let calls = after.back_calls - before.back_calls;
    let turns = after.back_events.turns - before.back_events.turns;
    assert_eq!((calls.maps, calls.unmaps, calls.other_calls, calls.store_calls), (0, 0, 0, 0));
    assert_eq!(calls.hypercalls(), calls.copy_calls);
    assert_eq!(calls.copy_calls, back.copy_hypercalls - before.back.copy_hypercalls);
    assert_eq!(calls.copies, back.copy_ops - before.back.copy_ops);
    assert!(calls.copies <= 256 * calls.copy_calls, "more than 256 operations in a hypercall");
    let most = 2 * turns + calls.copies / 223;
    assert!(calls.copy_calls <= most, "{} hypercalls in {turns} turns", calls.copy_calls);
    // The hypervisor copies each byte once on its way in, and once on its way out.
    let bytes = front.tx_bytes - before.front.tx_bytes;
    assert_eq!(calls.copy_bytes, 2 * bytes);
}

/// Rounds in step: everything that is offered is through before the next.
fn in_step(prepare: impl FnOnce(&mut Load<'_>)) -> (Snapshot, Snapshot, u64) {
    let pair = Load::pair();
    let mut load = Load::new(&pair);
    prepare(&mut load);
    let turn = |load: &mut Load<'_>| {
        let sent = load.front_turn(OFFERED);
        load.back_turn();
        sent as u64
    };
    (0..50).for_each(|_| _ = turn(&mut load));
    load.drain();
    let before = load.snapshot();
    let packets = (0..ROUNDS / 4).map(|_| turn(&mut load)).sum();
    load.drain();
    let after = load.snapshot();
    drop(load);
    pair.tear_down();
    (before, after, packets)
}

#[test]
fn r10_r11_a_packet_costs_no_copy_no_clear_and_no_allocation() {
    for (fragments, size) in [(1, 60), (1, 1514), (1, 4096), (2, 1000), (4, 4096)] {
        let (before, after, packets) =
            in_step(|load| (load.fragments, load.size) = (fragments, size));
        assert!(packets >= ROUNDS / 4 * 4, "{packets} got through");
        assert_cheap(&before, &after, packets);
        let allocations = (
            after.front_allocations - before.front_allocations,
            after.back_allocations - before.back_allocations,
        );
        assert_eq!(allocations, (0, 0), "{fragments} x {size} bytes, {packets} packets");
    }
}

/// They go through, and back, as they are: nobody cuts them, nobody sums them up.
#[test]
fn r10_r11_a_large_packet_costs_no_copy_no_clear_and_no_allocation() {
    for (v6, len, size) in [(false, 60_000, 1448), (true, 60_000, 1428), (true, 1000, 0)] {
        let flow = Flow::tcp(v6, 1);
        let bytes = flow.blank(1, &vec![0xa5; len]);
        let (before, after, packets) =
            in_step(|load| load.large = Some((bytes.clone(), flow.meta(size))));
        // The backend takes 40 of 1514 bytes for as much work as one of 60,000.
        assert!(packets >= ROUNDS / 4, "{packets} got through");
        assert_cheap(&before, &after, packets);
        let allocations = (
            after.front_allocations - before.front_allocations,
            after.back_allocations - before.back_allocations,
        );
        assert_eq!(allocations, (0, 0), "{len} bytes, {packets} packets");
        let (front, back) = (&after.front, &after.back);
        assert_eq!(front.tx_blank - before.front.tx_blank, packets);
        let large = if size > 0 { packets } else { 0 };
        assert_eq!(front.tx_gso - before.front.tx_gso, large);
        assert_eq!(front.rx_gso - before.front.rx_gso, large);
        assert_eq!((front.tx_cut, front.tx_filled, front.rx_made_blank), (0, 0, 0));
        assert_eq!((back.cut, back.sums_filled, back.gso_not_blank), (0, 0, 0));
    }
}

#[test]
fn a_batch_of_64_packets_is_one_copy_hypercall_and_one_event_each_way() {
    let (before, after, packets) = in_step(|load| load.size = 1514);
    let rounds = packets / OFFERED as u64;
    assert_eq!(packets % OFFERED as u64, 0);
    let calls = after.back_calls - before.back_calls;
    assert_eq!(calls.copy_calls, 2 * rounds, "one in and one out");
    assert!(calls.notifies <= rounds, "{} events for {rounds} batches", calls.notifies);
    assert!((after.front_calls - before.front_calls).notifies <= rounds);
}

#[test]
fn r13_grants_are_revoked_or_there_or_in_quarantine_whatever_the_backend_keeps() {
    let pair = Pair::apart(Plan::default());
    pair.toolstack.add_vif(&pair.vif);
    pair.front.borrow_mut().open();
    pair.up.borrow_mut().lenient = true;
    pair.down.borrow_mut().lenient = true;
    let back = pair.back_domain();
    let mut peer = HostileBackend::new(&back, FRONT, 0);
    // Keeps pages of both rings and answers them all the same; then breaks a rule, so that the
    // device reconnects with some of its pages in quarantine; lets them go at last.
    let script = "honest 4; keep tx; keep rx; respond tx 9; respond rx 3; push tx; push rx; notify
        honest 5; keep rx; keep tx; respond tx 200; push tx; notify; honest 5
        index tx rsp_prod own+1000; notify; drop; silence 40; connect; honest 9; keep rx
        respond rx 9; push rx; notify; honest 9; unmap; honest 200";
    peer.play(script.parse().unwrap(), After::Honest);
    let mut most = 0;
    let mut turn = |ctx: &mut Ctx<'_>| peer.run(ctx);
    let outcome =
        pair.run_beside(Some((&back, &mut turn)), limits(Duration::from_secs(10)), |ctx| {
            let mut front = pair.front.borrow_mut();
            front.assert_grants_add_up();
            most = most.max(front.net.as_ref().unwrap().quarantined());
            if front.outbox.len() < 5 {
                front.outbox.extend((0..5).map(|_| Shape::plain(vec![(0, 100), (7, 60)])));
            }
            match ctx.now.0 > 4_000_000_000 {
                true => Next::Done,
                false => Next::Sleep(Duration::from_micros(50)),
            }
        });
    assert_eq!(outcome, Outcome::Done);
    {
        let front = pair.front.borrow();
        let net = front.net.as_ref().unwrap();
        assert!(most >= 3, "only {most} pages were in quarantine");
        assert_eq!(net.quarantined(), 0, "pages stay in quarantine");
        assert_eq!((net.counters().faults, net.counters().connects), (1, 2));
        assert!(net.counters().quarantined >= most as u64);
    }
    drop(peer);
    back.open_ports().into_iter().for_each(|port| back.close(port));
    pair.back.borrow_mut().foreign_watches = 2;
    pair.tear_down();
}
