//! A backend with two clients: one behaves, the other follows a script.

use std::time::Duration;

use fastrand::Rng;
use xen_grant::DomId;
use xen_netfront::platform::Instant;
use xen_sim::hostile::{After, HostileClient, Script, Side};
use xen_sim::{Chaos, Ctx, Next, Outcome, Task, Vif};

use super::{any_chaos, any_plan, any_shapes, trace};
use crate::pair::{BACK, Nap, Pair, RECOVERY, limits};

const ATTACKER: DomId = DomId(3);
const NEWCOMER: DomId = DomId(4);

pub fn play(seed: u64, rng: &mut Rng) -> u64 {
    let mut plan = any_plan(seed, rng);
    // The clients share a pool, and the one that comes last sends thirty packets at once.
    plan.back_frames = plan.back_frames.max(64);
    let pair = Pair::new(plan);
    pair.host.trace_store(true);
    pair.host.set_chaos(any_chaos(rng));
    let domain = pair.host.add_domain(ATTACKER, 1024);
    let vif = Vif::new(ATTACKER, BACK, 0);
    pair.toolstack.add_vif(&vif);

    let len = rng.usize(1..80);
    let mut script = Script::random(rng, Side::Client, len);
    // Some do it again and again.
    let times = [1, 1, 5][rng.usize(..3)];
    script.0 = script.0.iter().cycle().take(len * times).cloned().collect();
    let text = script.to_string();
    let mut client = HostileClient::new(&domain, BACK, 0);
    let after = [After::Honest, After::Silent][rng.usize(..2)];
    if rng.bool() {
        client.ring_start(u32::MAX - rng.u32(..300));
    }
    let queues = rng.u32(1..=3);
    client.queues(queues, rng.u32(..queues));
    // Many scripts keep the two from ever connecting, so most begin when they have.
    let mut waiting = Some(script);
    let begin = Duration::from_millis(if rng.u8(..4) > 0 { 20 } else { 0 });
    let (ups, downs) = (rng.usize(..200), rng.usize(..200));
    pair.front.borrow_mut().outbox = any_shapes(rng, ups, plan.mtu);
    pair.back.borrow_mut().outbox = any_shapes(rng, downs, plan.mtu);
    let mut turn = |ctx: &mut Ctx<'_>| {
        if ctx.now.since(Instant(0)) >= begin
            && let Some(script) = waiting.take()
        {
            client.play(script, after);
        }
        if client.queued() < 10 {
            client.send(&[0x5a; 60]);
        }
        client.take_received();
        client.run(ctx)
    };
    // The client that behaves gets its packets through, whatever the other one does.
    let mut nap = Nap::default();
    let outcome = pair.run_beside(
        Some((&domain, &mut turn)),
        limits(Duration::from_secs(60)),
        |ctx: &mut Ctx| match ctx.now.0 > 300_000_000 && pair.is_idle() && pair.is_up() {
            true => Next::Done,
            false => nap.next(),
        },
    );
    assert_eq!(outcome, Outcome::Done, "the script:\n{text}\n{}", pair.describe());
    drop(client);
    pair.settle();
    let (lost, dropped) = (pair.up.borrow().lost(), pair.back.borrow().dropped().0);
    // Of a packet that is cut, several segments may be lost, or all that there were frames for.
    let (partial, cut) = (pair.front.borrow().partial, pair.front.borrow().has_cut());
    let adds_up = lost == dropped || cut && lost <= dropped + partial;
    assert!(
        adds_up,
        "{lost} lost on the way up, {dropped} dropped, beside\n{text}\n{}",
        pair.describe()
    );

    recover(&pair, &vif, &text);
    let trace = trace(&pair);
    pair.tear_down();
    trace
}

/// The toolstack takes the attacker's vif away, and a client that behaves gets one.
fn recover(pair: &Pair, vif: &Vif, script: &str) {
    let key = (ATTACKER, 0);
    pair.toolstack.remove_vif(vif);
    pair.run_until(script, RECOVERY, |pair| pair.back.borrow().has_left(key));
    pair.host.set_chaos(Chaos::rough());
    pair.toolstack.add_vif(&Vif::new(NEWCOMER, BACK, 0));
    let domain = pair.host.add_domain(NEWCOMER, 256);
    let mut client = HostileClient::new(&domain, BACK, 0);
    for _ in 0..30 {
        client.send(&[0xa5; 100]);
    }
    let back = std::cell::Cell::new(0);
    let mut turn = |ctx: &mut Ctx<'_>| {
        let next = client.run(ctx);
        let received = client.take_received();
        assert!(received.iter().all(|packet| packet == &[0xa5; 100]));
        back.set(back.get() + received.len());
        next
    };
    let mut nap = Nap::default();
    let outcome = pair.run_beside(Some((&domain, &mut turn)), limits(RECOVERY), |_: &mut Ctx| {
        if back.get() == 30 { Next::Done } else { nap.next() }
    });
    assert_eq!(outcome, Outcome::Done, "{} back; {script}\n{}", back.get(), pair.describe());
}
