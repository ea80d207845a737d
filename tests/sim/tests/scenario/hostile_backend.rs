//! A frontend whose backend follows a script, and is replaced by one that behaves.

use std::time::Duration;

use fastrand::Rng;
use xen_netfront::platform::{Instant, Platform};
use xen_sim::hostile::{After, HostileBackend, Script, Side};
use xen_sim::{Chaos, Ctx, Next, Outcome, Task};

use super::{any_chaos, any_plan, any_shapes, trace};
use crate::pair::{FRONT, Ledger, Nap, Pair, RECOVERY, limits};
use xen_netfront::xenbus::feature_nodes;

pub fn play(seed: u64, rng: &mut Rng) -> u64 {
    let plan = any_plan(seed, rng);
    let mut pair = Pair::apart(plan);
    let trusted = ["0", "1"][rng.usize(..2)];
    pair.vif = pair.vif.clone().front_key("trusted", trusted);
    pair.toolstack.add_vif(&pair.vif);
    pair.host.trace_store(true);
    pair.host.set_chaos(any_chaos(rng));
    pair.front.borrow_mut().open();
    for ledger in [&pair.up, &pair.down] {
        ledger.borrow_mut().lenient = true;
    }

    let len = rng.usize(1..80);
    let script = Script::random(rng, Side::Backend, len);
    let text = script.to_string();
    let mut peer = HostileBackend::new(&pair.back_domain(), FRONT, 0);
    for (key, value) in feature_nodes(&plan.back.features) {
        peer.feature(key, value);
    }
    peer.feature("multi-queue-max-queues", &plan.back.max_queues.to_string());
    peer.feature("feature-split-event-channels", ["0", "1"][rng.usize(..2)]);
    peer.serve_queue(rng.u32(..4));
    let after = if rng.bool() { After::Honest } else { After::Silent };
    // Many scripts keep the two from ever connecting, so most begin when they have.
    let mut waiting = Some(script);
    let begin = Duration::from_millis(if rng.u8(..4) > 0 { 20 } else { 0 });
    let mut traffic = Rng::with_seed(seed);
    // A while longer than the script: what it has done goes on to have effects.
    let (mut over, mut nap) = (0, Nap::default());
    let mut turn = |ctx: &mut Ctx<'_>| {
        if ctx.now.since(Instant(0)) >= begin
            && let Some(script) = waiting.take()
        {
            peer.play(script, after);
        }
        let next = peer.run(ctx);
        for packet in peer.take_received().into_iter().take(4) {
            peer.inject(&packet);
        }
        over += u32::from(peer.ended());
        next
    };
    let mut turns = 0;
    let back = pair.back_domain();
    let outcome = pair.run_beside(
        Some((&back, &mut turn)),
        limits(Duration::from_secs(20)),
        |ctx: &mut Ctx| {
            turns += 1;
            let mut front = pair.front.borrow_mut();
            front.assert_grants_add_up();
            if front.outbox.len() < 40 {
                front.outbox.extend(any_shapes(&mut traffic, 10, plan.mtu));
            }
            match ctx.now.0 > 500_000_000 + seed % 7 * 100_000_000 {
                true => Next::Done,
                false => nap.next(),
            }
        },
    );
    assert_eq!(outcome, Outcome::Done, "the script:\n{text}\n{}", pair.describe());
    assert!(turns > 0);
    drop(peer); // lets go of all pages, but not of its event channel and two watches
    back.open_ports().into_iter().for_each(|port| back.close(port));
    pair.back.borrow_mut().foreign_watches = 2;
    recover(&mut pair, &text);
    let trace = trace(&pair);
    pair.tear_down();
    trace
}

/// The toolstack replaces the vif, and a real backend serves it.
fn recover(pair: &mut Pair, script: &str) {
    pair.toolstack.remove_vif(&pair.vif);
    pair.front.borrow_mut().outbox.clear();
    pair.run_until("the frontend lets go", RECOVERY, |pair| {
        pair.front.borrow().net.as_ref().is_some_and(|net| net.ports().next().is_none())
    });
    pair.host.set_chaos(Chaos { spurious: 0.0, ..Chaos::rough() });
    for ledger in [&pair.up, &pair.down] {
        *ledger.borrow_mut() = Ledger::new(pair.plan.several_queues());
    }
    pair.toolstack.add_vif(&pair.vif);
    pair.back.borrow_mut().open();
    pair.run_until(script, RECOVERY, Pair::is_up);
    pair.ping();
}
